"""Records: the same bytes on disk and on the wire."""

from __future__ import annotations

import struct
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, strategies as st

from tests.wire.samples import CONFIGURATION, GROUP, PAYLOAD_MAX, command, entries, groups, noop, record
from trioraft._errors import WireError
from trioraft._types import GroupKey
from trioraft.core import Entry, EntryKind, encode_configuration
from trioraft.wire import RECORD_HEADER_SIZE, open_record, open_records, seal


def resealed(fields: tuple[int, ...], payload: bytes = b"") -> bytes:
    """A record with a right checksum over whatever fields: length, group id, incarnation, index, term, kind."""
    sealed = struct.pack("<IQIQQB", *fields) + payload
    return struct.pack("<I", crc32(sealed)) + sealed


@given(groups, entries, st.binary(max_size=9))
def test_round_trip(group: GroupKey, entry: Entry, before: bytes) -> None:
    sealed = seal(group, entry)
    for data in (before + sealed + b"behind", memoryview(before + sealed)):
        found_group, found, end = open_record(data, len(before), payload_bytes_max=PAYLOAD_MAX)
        assert (found_group, found, end) == (group, entry, len(before) + len(sealed))
        assert type(found_group) is GroupKey
        assert type(found.kind) is EntryKind
        assert type(found.record) is bytes
        assert found.record == sealed
        assert type(found.payload) is bytes


def test_golden_bytes() -> None:
    assert seal(GroupKey(7, 2), command(6, 3, b"hi")).hex(" ") == (
        "4e 08 22 14 02 00 00 00 07 00 00 00 00 00 00 00 02 00 00 00 06 00 00 00 00 00 00 00 03 00 00 00 00 00 00 00 01 68 69"
    )
    assert RECORD_HEADER_SIZE == 37


def test_an_entry_is_sealed_once() -> None:
    entry = command()
    first = seal(GROUP, entry)
    assert entry.record is first
    assert seal(GROUP, entry) is first


@given(groups, st.lists(entries, max_size=5))
def test_a_run_of_records(group: GroupKey, run: list[Entry]) -> None:
    data = b"?" + b"".join(seal(group, entry) for entry in run)
    found = open_records(data, 1, len(data), group=group, payload_bytes_max=PAYLOAD_MAX)
    assert found == tuple(run)
    assert [entry.record for entry in found] == [entry.record for entry in run]


@pytest.mark.parametrize("other", [GroupKey(8), GroupKey(7, 2)], ids=str)
def test_a_run_refuses_the_record_of_another_group(other: GroupKey) -> None:
    data = record() + record(group=other)
    with pytest.raises(WireError, match="group"):
        open_records(data, 0, len(data), group=GROUP, payload_bytes_max=PAYLOAD_MAX)


def test_a_run_that_ends_inside_a_record_is_refused_though_more_bytes_are_there() -> None:
    data = record() + record()
    for end in (1, RECORD_HEADER_SIZE, len(data) - 1):
        with pytest.raises(WireError, match="end inside"):
            open_records(data, 0, end, group=GROUP, payload_bytes_max=PAYLOAD_MAX)


def test_ST_1_a_record_cut_at_any_byte_is_refused() -> None:
    whole = record(payload=b"payload")
    for size in range(len(whole)):
        with pytest.raises(WireError, match="end inside"):
            open_record(whole[:size], 0, payload_bytes_max=PAYLOAD_MAX)


def test_ST_2_zeros_are_no_record() -> None:
    for size in (RECORD_HEADER_SIZE, 512, 4096):
        with pytest.raises(WireError, match="checksum"):
            open_record(bytes(size), 0, payload_bytes_max=PAYLOAD_MAX)
    # ... not even with a checksum that fits them: index and term 0 mean none.
    with pytest.raises(WireError, match="range"):
        open_record(resealed((0, 0, 0, 0, 0, 0)), 0, payload_bytes_max=PAYLOAD_MAX)


def test_ST_4_every_flipped_bit_of_a_record_is_found() -> None:
    whole = seal(GROUP, noop()) + record(payload=b"payload")
    start = len(seal(GROUP, noop()))
    for bit in range(start * 8, len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError):
            open_record(bytes(damaged), start, payload_bytes_max=PAYLOAD_MAX)


class CountingBytes(bytes):
    """Bytes that tell how much was sliced out of them."""

    sliced = 0

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        CountingBytes.sliced += len(part)
        return part


@pytest.mark.parametrize("length", [2**31, 2**32 - 1, PAYLOAD_MAX + 1, 8], ids=str)
def test_ST_4_rot_in_a_length_is_refused_before_anything_is_copied(length: int) -> None:
    data = bytearray(record(payload=b"payload"))
    struct.pack_into("<I", data, 4, length)
    CountingBytes.sliced = 0
    with pytest.raises(WireError, match=r"accepted|end inside"):
        open_record(CountingBytes(data), 0, payload_bytes_max=PAYLOAD_MAX)
    assert CountingBytes.sliced == 0


def test_a_payload_at_the_limit_is_accepted_and_one_above_it_is_not() -> None:
    data = record(payload=b"12345678")
    assert open_record(data, 0, payload_bytes_max=8)[1].payload == b"12345678"
    with pytest.raises(WireError, match="up to 7"):
        open_record(data, 0, payload_bytes_max=7)


@pytest.mark.parametrize("payload", [b"", b"{}", encode_configuration(CONFIGURATION) + b"\x00"], ids=len)
def test_a_configuration_that_is_none_is_refused_in_spite_of_a_right_checksum(payload: bytes) -> None:
    with pytest.raises(WireError, match="configuration that is none"):
        open_record(resealed((len(payload), 7, 1, 5, 3, 2), payload), 0, payload_bytes_max=PAYLOAD_MAX)
    for kind in (EntryKind.NOOP, EntryKind.COMMAND):
        assert open_record(resealed((len(payload), 7, 1, 5, 3, kind), payload), 0, payload_bytes_max=PAYLOAD_MAX)[1].kind is kind


@pytest.mark.parametrize(
    "fields",
    [(0, 7, 1, 0, 3, 0), (0, 7, 1, 5, 0, 0), (0, 7, 1, 2**63, 3, 0), (0, 7, 1, 5, 2**63, 0), (0, 2**63, 1, 5, 3, 0), (0, 7, 1, 5, 3, 200)],
    ids=["index 0", "term 0", "index too large", "term too large", "group id too large", "unknown kind"],
)
def test_fields_out_of_range_are_refused_in_spite_of_a_right_checksum(fields: tuple[int, ...]) -> None:
    with pytest.raises(WireError, match=r"range|unknown kind"):
        open_record(resealed(fields), 0, payload_bytes_max=PAYLOAD_MAX)
    assert open_record(resealed((0, 7, 1, 5, 3, 0)), 0, payload_bytes_max=PAYLOAD_MAX)[1] == noop()
