"""A reader written from `docs/disk.md` alone finds everything; and the page's tables are those of the code."""

from __future__ import annotations

import random
import re
import struct
import zlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from tests.storage.kit import FIRST, G1, G2, LOG, SECOND, entries, installing, record, serving, start_group, wal
from trioraft._types import EntryId, GroupKey, Member
from trioraft.core import Configuration, HardState
from trioraft.storage import (
    GroupRecord,
    SimulatedDisk,
    _at_rest as at_rest_module,
    _batch as batch_module,
    _row_bytes as row_bytes_module,
    _segment as segment_module,
)
from trioraft.storage._batch import (
    BadBytesError,
    FileHeader,
    count_zero_sectors,
    decode_file_header,
    encode_batch,
    encode_file_header,
)
from trioraft.storage._configurations import Configurations
from trioraft.storage._row import AtRest, Row
from trioraft.storage._row_bytes import decode_row, encode_row_content
from trioraft.storage._segment import SegmentKind, decode_group, decode_segment_header, encode_group, encode_member, encode_write
from trioraft.testing._storage_parts import joining

PAGE = (Path(__file__).parents[2] / "docs" / "disk.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The first table behind a heading."""
    section = PAGE.split(f"## {heading}\n")[1]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table[0].splitlines()[2:]]


def rows_behind(text: str, number: int = 0) -> list[list[str]]:
    """A table behind some words."""
    tables = re.findall(r"(?:^\|.*\n)+", PAGE[PAGE.index(text) :], re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|\n").split("|")] for line in tables[number].splitlines()[2:]]


def named(kind: SegmentKind) -> str:
    return kind.name.lower().replace("_", " ")


def offsets(layout: struct.Struct) -> list[int]:
    codes = re.findall(r"\d+s|\d*x|[A-Z]", layout.format)
    return [struct.calcsize("<" + "".join(codes[:count])) for count in range(len(codes))]


def test_the_tables_of_the_page_are_the_layouts_of_the_code() -> None:
    assert [int(row[0]) for row in rows("Log files")][:-1] == offsets(batch_module._FILE_HEADER)
    assert [int(row[0]) for row in rows("Batches")[:-2]] == offsets(batch_module._BATCH_HEADER)
    assert batch_module.BATCH_HEADER_SIZE == 64
    header, living = rows_behind("The header of *entries*"), rows_behind("That of a living group is")
    assert [int(row[0]) for row in header] == offsets(segment_module._ENTRIES)
    assert segment_module.ENTRIES_HEADER_SIZE == 36
    numbers = [int(row[0]) for row in living if row[0].isdecimal()]
    assert set(numbers[:-1]) <= set(offsets(row_bytes_module._LIVING))
    assert numbers[-1] == row_bytes_module._LIVING.size
    kinds = [row[0].split(" ", 1) for row in rows_behind("The **body**", 1)]
    assert [(int(number), name.strip("*")) for number, name in kinds] == [(kind, named(kind)) for kind in SegmentKind]
    at_rest = [int(row[0]) for row in rows("Files at rest")]
    assert at_rest == [offset for offset in offsets(at_rest_module._HEADER) if offset != 44], "but for the padding"
    assert f"format version {batch_module.FORMAT_VERSION}" in PAGE


async def test_a_reader_written_from_the_page_finds_everything() -> None:
    disk = SimulatedDisk(random.Random(1))
    storage = wal(disk.mount(), max_log_file_size=7600)
    async with serving(storage):
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        await one.write_and_wait(*entries(G1, 1, 4, payload=bytes(1500)), state=HardState(7, 3))
        await two.write_and_wait(*entries(G2, 10, 12, term=8), state=HardState(8, None), install=installing(EntryId(5, 9), 4, 5))
        await storage.remove_group(G2, EntryId(6, 8))
        one.compact(2, commit=3)
        await one.write_and_wait(*entries(G1, 4, 5, term=7), me=Member(1, EntryId(9, 3)))
    assert disk.names(LOG) == ["00000001.wal", "00000002.wal"]
    (store_id,) = re.findall(r'^store_id = "(.*)"$', disk.contents("data/node.toml").decode(), re.MULTILINE)

    found: list[tuple[int, int, bytes]] = []
    sequence, previous = 1, bytes(16)
    for number, path in enumerate((FIRST, SECOND), 1):
        data = disk.contents(path)
        assert len(data) % 512 == 0
        assert data[:8] == b"TRIORWAL"
        assert struct.unpack_from("<IIQQ", data, 8) == (zlib.crc32(data[12:80]), 1, number, sequence)
        identity = data[32:48]
        assert data[48:64] == previous
        assert data[64:80].hex() == store_id
        assert data[80:512] == bytes(432)
        previous, place = identity, 512
        while place < len(data):
            assert data[place : place + 8] == b"TRIORBAT"
            checksum, count, its_sequence = struct.unpack_from("<IIQ", data, place + 8)
            assert checksum == zlib.crc32(data[place + 12 : place + 64])
            assert its_sequence == sequence
            assert data[place + 24 : place + 40] == identity
            size, body_checksum, list_checksum, zeros, reserved = struct.unpack_from("<QIIII", data, place + 40)
            listed = data[place + 64 : place + 64 + 8 * count]
            body = data[place + 64 + 8 * count :][:size]
            assert (list_checksum, body_checksum, reserved) == (zlib.crc32(listed), zlib.crc32(body), 0)
            end = place + (64 + 8 * count + size + 511) // 512 * 512
            assert zeros == sum(data[sector : sector + 512] == bytes(512) for sector in range(place + 512, end, 512))
            segments = list(read_segments(body))
            assert list(struct.unpack(f"<{count}Q", listed)) == sorted({segment[1] for segment in segments if segment[0] != 10})
            found += segments
            sequence, place = sequence + 1, end
    kinds = [(kind, group) for kind, group, _ in found]
    assert kinds == [(3, 1), (3, 2), (2, 1), (1, 1), (2, 2), (6, 2), (1, 2), (4, 2), (9, 1), (9, 2), (10, 0), (5, 1), (11, 1), (1, 1)]
    first = bytes(8) + numbers(1, 2, 3) + numbers() * 3 + member(1) + member(2) + member(3)
    records = b"".join(entry.record for entry in entries(G1, 1, 4, payload=bytes(1500)))
    assert found[0][2] == member(1) + b"\0" + first
    assert found[2][2] == struct.pack("<QI", 7, 3)
    assert found[3][2] == struct.pack("<QQQQI", 1, 3, 1, 1, 0) + records
    assert found[4][2] == struct.pack("<QI", 8, 0)
    assert found[5][2] == struct.pack("<QQ", 5, 9) + bytes(8) + numbers(4, 5) + numbers() * 3 + member(4) + member(5)
    assert found[7][2] == struct.pack("<IQQ", 1, 6, 8)
    row = member(1) + struct.pack("<IQIQQQQQQIIII", 0, 7, 3, 0, 0, 0, 0, 0, 3, len(first), 1, 0, 0) + first + struct.pack("<QQ", 1, 1)
    assert found[8][2] == row
    assert found[9][2] == struct.pack("<IQQ", 1, 6, 8)
    assert found[10][2] == struct.pack("<QI", 2, 1)
    assert found[11][2] == struct.pack("<QQQQQ", 1, 2, 1, 2, 3)
    assert found[12][2] == struct.pack("<QQ", 9, 3)
    assert found[13][2] == struct.pack("<QQQQI", 4, 4, 7, 7, 0) + entries(G1, 4, 5, term=7)[0].record


def read_segments(body: bytes) -> list[tuple[int, int, bytes]]:
    segments: list[tuple[int, int, bytes]] = []
    place = 0
    while place < len(body):
        kind, zeros, size, group_id, incarnation = struct.unpack_from("<B3sIQI", body, place)
        assert zeros == bytes(3)
        assert incarnation == (0 if kind == 10 else 1)
        segments.append((kind, group_id, body[place + 20 : place + 20 + size]))
        place += 20 + size
    assert place == len(body)
    return segments


def member(node_id: int) -> bytes:
    return struct.pack("<IQQ", node_id, 0, 0)


def numbers(*node_ids: int) -> bytes:
    return struct.pack(f"<H{len(node_ids)}I", len(node_ids), *node_ids)


# -- the parts -------------------------------------------------------------------------------------------------------------------


def test_a_file_header_is_one_sector_and_comes_back() -> None:
    header = FileHeader(3, 99, b"i" * 16, b"p" * 16, b"s" * 16)
    assert len(encode_file_header(header)) == 512
    assert decode_file_header(encode_file_header(header)) == header


@pytest.mark.parametrize(
    "data", [b"", bytes(512), b"TRIORWAL", b"TRIORWAL".ljust(512, b"\0"), encode_file_header(FileHeader(1, 1, b"", b"", b""))[:511]]
)
def test_what_is_no_file_header(data: bytes) -> None:
    with pytest.raises(BadBytesError):
        decode_file_header(data)


@given(st.lists(st.sampled_from([bytes(512), bytes(511) + b"x", b"x" + bytes(511), bytes(100), b"y"]), max_size=12), st.integers(0, 3))
def test_zero_sectors_are_counted_on_the_grid_only(parts: list[bytes], before: int) -> None:
    data = b"\1" * 512 * before + b"".join(parts)
    data += bytes(-len(data) % 512)
    expected = sum(data[place : place + 512] == bytes(512) for place in range(512 * before + 512, len(data), 512))
    assert count_zero_sectors(data, 512 * before) == expected


def test_a_batch_without_anything_is_still_a_batch() -> None:
    assert len(encode_batch(b"i" * 16, 1, [], []).data) == 512


nodes = st.integers(1, (1 << 32) - 1)
replicas = st.builds(EntryId, st.integers(0, 1 << 40), st.integers(0, 1 << 40))


@given(st.lists(nodes, min_size=1, max_size=12, unique=True), st.data())
def test_any_configuration_comes_back(ids: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(ids)))
    voters, learners = frozenset(ids[:cut]), frozenset(ids[cut:])
    outgoing = data.draw(st.one_of(st.just(frozenset[int]()), st.sets(nodes, min_size=1, max_size=4).map(frozenset))) - learners
    numbers_of = {node_id: data.draw(replicas) for node_id in voters | learners | outgoing}
    me = Member(ids[0], numbers_of[ids[0]])
    configuration = Configuration(voters, outgoing, learners, replicas=numbers_of, index=data.draw(st.integers(0, 1 << 40)))
    made = GroupRecord(GroupKey(data.draw(st.integers(0, (1 << 63) - 1)), 3), me, configuration, data.draw(st.booleans()))
    encoded = encode_group(made)
    kind, key, start, end = decode_segment_header(encoded, 0, len(encoded))
    assert (kind, end) == (SegmentKind.GROUP, len(encoded))
    found = decode_group(key, encoded[start:end], Configurations())
    assert (found, found.configuration.index) == (made, configuration.index), "the index is no part of being equal"


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_group_or_refused(content: bytes) -> None:
    try:
        decode_group(G1, content, Configurations())
    except BadBytesError:
        pass


def test_every_cut_of_a_group_record_is_refused() -> None:
    encoded = encode_group(record(G1))[20:]
    for size in range(len(encoded)):
        with pytest.raises(BadBytesError):
            decode_group(G1, encoded[:size], Configurations())


# -- rows ------------------------------------------------------------------------------------------------------------------------------

positions = st.builds(EntryId, st.integers(1, 40), st.integers(1, 1 << 40))


@st.composite
def rows_of_groups(draw: st.DrawFn) -> Row:
    joins = joining(G1, draw(st.just(EntryId(0, 0)) | positions))
    row = Row.living(draw(st.sampled_from([record(G1, *draw(st.sets(nodes, min_size=1, max_size=4))), joins])))
    if draw(st.booleans()):
        row.learn_number(EntryId(41, draw(st.integers(0, 1 << 40))))
    row.hard_state = HardState(draw(st.integers(0, 1 << 40)), draw(st.none() | nodes))
    start = draw(st.just(EntryId(0, 0)) | positions)
    ends = sorted(draw(st.sets(st.integers(start.index + 1, start.index + 10_000), max_size=5)))
    row.terms.reset(start)
    for term, end in enumerate(ends, start.term + draw(st.integers(0, 1))):
        row.terms.extend(end, term)
    row.snapshot, row.commit = EntryId(start.term, start.index + draw(st.integers(0, 9))), draw(st.integers(0, 1 << 40))
    row.at_rest = tuple(
        AtRest(draw(st.integers(1, low)), low, high - 1, draw(st.integers(0, 1 << 40)))
        for low, high in pairwise([start.index + 1, *ends])
        if low < high and draw(st.booleans())
    )
    indexes = [start.index, *sorted(set(ends))][: draw(st.integers(0, 3))]
    row.configurations = tuple((index, Configuration.bootstrap(draw(st.sets(nodes, min_size=1, max_size=4)))) for index in indexes)
    return row


@given(rows_of_groups())
def test_any_row_comes_back(row: Row) -> None:
    content = encode_row_content(row, {})
    again = decode_row(G1, content, Configurations())
    assert encode_row_content(again, {}) == content
    assert again.durable() == row.durable()
    assert (again.record, again.at_rest) == (row.record, row.at_rest)
    for size in range(len(content)):
        if size != len(encode_member(Member(1))):
            with pytest.raises(BadBytesError):
                decode_row(G1, content[:size], Configurations())


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_a_row_or_refused(content: bytes) -> None:
    try:
        decode_row(G1, content, Configurations())
    except BadBytesError:
        pass


def test_equal_configurations_are_one_object() -> None:
    known = Configurations()
    one = decode_group(G1, encode_group(record(G1))[20:], known).configuration
    two = decode_group(G2, encode_group(record(G2))[20:], known).configuration
    assert one is two


@pytest.mark.parametrize("size", [100, 200_000, 300_000])
def test_a_large_write_is_several_segments(size: int) -> None:
    """So that whoever looks for an entry never reads much in vain."""
    new = entries(G1, 1, 8, payload=bytes(size))
    found = [struct.unpack_from("<QQ", content) for _, _, content in read_segments(encode_write(G1, None, new))]
    per_segment = {100: 7, 200_000: 1, 300_000: 1}[size]
    assert found == [(low, min(low + per_segment - 1, 7)) for low in range(1, 8, per_segment)]
