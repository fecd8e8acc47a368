"""Snapshot files: all records and what they are, or a refusal that names the damaged part; in bounded memory."""

from __future__ import annotations

import re
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any
from zlib import crc32

import cbor2
import pytest
from hypothesis import given, settings, strategies as st

from tests.wire.samples import CONFIGURATION, GROUP, values
from trioraft._errors import ConfigError, InvariantError, WireError
from trioraft._types import EntryId
from trioraft.core import Configuration, encode_configuration
from trioraft.wire import (
    SNAPSHOT_RECORD_BYTES_MAX,
    SNAPSHOT_TAIL_BYTES,
    Compression,
    SnapshotBytesError,
    SnapshotDecoder,
    SnapshotEncoder,
    SnapshotManifest,
    _compression,
    default_compression,
    read_manifest,
)

AT = EntryId(3, 9)
COMPRESSIONS: list[Compression] = ["none", "zlib", "zstd"]
BLOCK = 256 << 10
HEADER_SIZE, SECTION_SIZE, TRAILER_SIZE = 49, 12, 24

every_compression = pytest.mark.parametrize("compression", COMPRESSIONS)


def encode(records: Iterable[Any], compression: Compression = "none", configuration: Configuration = CONFIGURATION) -> bytes:
    encoder = SnapshotEncoder(GROUP, AT, configuration, compression=compression)
    parts = []
    for record in records:
        encoder.add(record)
        parts.append(encoder.take())
    return b"".join((*parts, encoder.finish()))


def decode(data: bytes, piece: int = 1 << 20, size: int | None = None) -> tuple[list[Any], SnapshotManifest]:
    decoder = SnapshotDecoder(len(data) if size is None else size)
    records = [record for start in range(0, len(data), piece) for record in decoder.feed(data[start : start + piece])]
    return records, decoder.finish()


def sections(data: bytes) -> list[int]:
    """Where the blocks, the manifest, and the trailer begin."""
    starts, start = [], HEADER_SIZE
    while start < len(data) - TRAILER_SIZE:
        starts.append(start)
        start += SECTION_SIZE + int.from_bytes(data[start : start + 4], "little")
    return [*starts, start]


def section(stored: bytes, raw_size: int) -> bytes:
    """A block or manifest with a right checksum over whatever."""
    sizes = struct.pack("<II", len(stored), raw_size)
    return sizes + struct.pack("<I", crc32(sizes + stored)) + stored


def trailer(manifest_at: int, version: int = 1) -> bytes:
    end = struct.pack("<QI", manifest_at, version)
    return end + struct.pack("<I", crc32(end)) + b"TRIORSNE"


def header(compression: int = 0, version: int = 1) -> bytes:
    parts = struct.pack("<8sI", b"TRIORSNP", version), struct.pack("<QIQQB", *GROUP, *AT, compression)
    return b"".join(part + struct.pack("<I", crc32(part)) for part in parts)


def manifest_fields(before: bytes, records: int = 0, raw_bytes: int = 0, compression: str = "none") -> list[Any]:
    numbers = (records, raw_bytes, len(before))
    return [*GROUP, *AT, encode_configuration(CONFIGURATION), "cbor", compression, *numbers, sha256(before).digest()]


def whole(before: bytes, *fields: Any) -> bytes:
    """A file with a right end for whatever is before it."""
    stored = cbor2.dumps(*fields or (manifest_fields(before),))
    return before + section(stored, 0) + trailer(len(before))


def noise(size: int) -> bytes:
    """Bytes that no algorithm makes smaller, the same each time."""
    return b"".join(sha256(number.to_bytes(4)).digest() for number in range(size // 32 + 1))[:size]


# Several blocks, one of them a single large record, some of them compressible.
RECORDS = [*({"key": f"user:{number}", "value": number} for number in range(12_000)), noise(BLOCK + 1), b"\x00" * BLOCK, "last"]


@every_compression
@given(records=st.lists(values, max_size=8), piece=st.integers(1, 40))
@settings(max_examples=30)
def test_round_trip(compression: Compression, records: list[Any], piece: int) -> None:
    data = encode(records, compression)
    found, manifest = decode(data, piece)
    assert found == records
    assert read_manifest(data, len(data)) == manifest


@every_compression
@pytest.mark.parametrize("piece", [1000, 65536, 1 << 24])
def test_round_trip_of_several_blocks(compression: Compression, piece: int) -> None:
    data = encode(RECORDS, compression)
    assert len(sections(data)) >= 6
    found, manifest = decode(data, piece)
    assert found == RECORDS
    *_, manifest_at, _ = sections(data)
    raw_bytes = sum(len(cbor2.dumps(record)) for record in RECORDS)
    assert manifest == SnapshotManifest(
        group=GROUP,
        at=AT,
        configuration=CONFIGURATION,
        codec="cbor",
        compression=compression,
        records=len(RECORDS),
        raw_bytes=raw_bytes,
        stored_bytes=manifest_at,
        sha256=sha256(data[:manifest_at]).digest(),
    )
    assert manifest_at < raw_bytes or compression == "none"


def test_the_encoder_knows_what_it_made() -> None:
    encoder = SnapshotEncoder(GROUP, AT, CONFIGURATION, compression="none")
    encoder.add("x")
    with pytest.raises(InvariantError, match="finished"):
        _ = encoder.manifest
    data = encoder.finish()
    assert encoder.manifest == decode(data)[1]
    assert encoder.take() == b""
    with pytest.raises(InvariantError, match="once"):
        encoder.finish()
    with pytest.raises(InvariantError, match="behind the end"):
        encoder.add("y")


def test_golden_bytes() -> None:
    data = encode([{"x": 1}, None])
    configuration = encode_configuration(CONFIGURATION)
    blocks = bytes.fromhex("54 52 49 4f 52 53 4e 50 01 00 00 00 66 e7 3d b7")
    blocks += bytes.fromhex("07 00 00 00 00 00 00 00 01 00 00 00 03 00 00 00 00 00 00 00 09 00 00 00 00 00 00 00 00 da a2 d1 99")
    blocks += bytes.fromhex("05 00 00 00 05 00 00 00 1e c9 36 81 a1 61 78 01 f6")
    manifest = bytes.fromhex("8b 07 01 03 09 58") + bytes([len(configuration)]) + configuration
    manifest += bytes.fromhex("64 63 62 6f 72 64 6e 6f 6e 65 02 05 18 42 58 20") + sha256(blocks).digest()
    assert data.hex(" ") == (blocks + section(manifest, 0) + trailer(66)).hex(" ")


def test_a_snapshot_of_nothing_is_one() -> None:
    records, manifest = decode(encode([]))
    assert records == []
    assert (manifest.records, manifest.raw_bytes, manifest.stored_bytes) == (0, 0, HEADER_SIZE)


def test_a_block_is_finished_before_it_is_too_large() -> None:
    encoder = SnapshotEncoder(GROUP, AT, CONFIGURATION, compression="none")
    header = encoder.take()
    assert len(header) == HEADER_SIZE
    for _ in range(2):
        encoder.add(noise(BLOCK // 2 - 10))
        assert encoder.take() == b""
    encoder.add(noise(BLOCK * 2))
    assert BLOCK - 20 < len(encoder.take()) < BLOCK + SECTION_SIZE
    encoder.add("x")
    assert len(encoder.take()) > BLOCK * 2


def test_what_compressing_does_not_make_smaller_is_stored_as_it_is() -> None:
    records = [noise(1000)]
    plain = encode(records)
    for compression in ("zlib", "zstd"):
        data = encode(records, compression)
        assert data[HEADER_SIZE : sections(data)[1]] == plain[HEADER_SIZE : sections(plain)[1]]
        assert decode(data)[0] == records


def test_records_that_are_no_values_are_refused_and_the_rest_is_unharmed() -> None:
    encoder = SnapshotEncoder(GROUP, AT, CONFIGURATION, compression="none")
    for bad in (object(), {1, 2}, 2**64, "\ud800"):
        with pytest.raises(WireError, match="not encodable"):
            encoder.add(bad)
    encoder.add("good")
    assert decode(encoder.finish())[0] == ["good"]


def test_a_record_may_be_large_and_not_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SNAPSHOT_RECORD_BYTES_MAX == 64 << 20
    monkeypatch.setattr("trioraft.wire._snapshot_file.SNAPSHOT_RECORD_BYTES_MAX", BLOCK * 2)
    largest = noise(BLOCK * 2 - 5)
    assert decode(encode([largest]))[0] == [largest]
    encoder = SnapshotEncoder(GROUP, AT, CONFIGURATION, compression="none")
    with pytest.raises(WireError, match="up to"):
        encoder.add(largest + b"?")


def test_a_configuration_that_no_manifest_can_hold_is_refused() -> None:
    crowd = Configuration(range(1, 50_001), range(50_001, 100_001))
    encoder = SnapshotEncoder(GROUP, AT, crowd, compression="none")
    with pytest.raises(InvariantError, match="does not fit"):
        encoder.finish()
    some = Configuration(range(1, 65_001))
    data = encode([], configuration=some)
    assert decode(data)[1].configuration == some
    assert read_manifest(data[-SNAPSHOT_TAIL_BYTES:], len(data)).configuration == some


# --- damage -------------------------------------------------------------------------------------------------------------------------


def part_at(data: bytes, offset: int) -> int:
    """Where the part of the file begins in which `offset` is."""
    return max([0, *(start for start in sections(data) if start <= offset)])


SMALL = [{"key": "a", "value": [1, 2.5, None]}, "text" * 8, b"bytes"]


@every_compression
def test_every_flipped_byte_is_noticed_and_its_part_named(compression: Compression) -> None:
    data = encode([*SMALL, noise(BLOCK - 5), *SMALL], compression)
    large = range(sections(data)[1] + SECTION_SIZE + 64, sections(data)[2] - 64)
    for offset in range(len(data)):
        if offset in large and offset % 40_001:
            continue  # inside the large record all bytes are alike
        for mask in (0x01, 0x80, 0xFF, data[offset]):
            if not mask:
                continue
            damaged = bytearray(data)
            damaged[offset] ^= mask
            with pytest.raises(SnapshotBytesError) as caught:
                decode(bytes(damaged))
            assert caught.value.offset == part_at(data, offset), f"{offset} ^ {mask:#x}"


@every_compression
def test_no_flipped_byte_is_noticed_too_late(compression: Compression) -> None:
    """Whatever is handed out before the damaged block is as it was written."""
    data = encode(RECORDS, compression)
    for start in sections(data)[:-1]:
        damaged = bytearray(data)
        damaged[start + SECTION_SIZE + 2] ^= 0x10
        found: list[Any] = []
        with pytest.raises(SnapshotBytesError) as caught:
            found.extend(SnapshotDecoder(len(data)).feed(bytes(damaged)))
        assert caught.value.offset == start
        assert found == RECORDS[: len(found)]
        assert bool(found) == (start > HEADER_SIZE)


def test_a_file_that_was_cut_anywhere_is_refused() -> None:
    data = encode(SMALL, "zlib")
    for size in range(len(data)):
        with pytest.raises(SnapshotBytesError):
            decode(data[:size])
        with pytest.raises(SnapshotBytesError, match="ends") as caught:  # the size is right, the bytes do not come
            decode(data[:size], size=len(data))
        assert caught.value.offset == part_at(data, size)
        with pytest.raises(SnapshotBytesError):
            read_manifest(data[:size], size)


@pytest.mark.parametrize("behind", [b"\x00", b"?" * 23, bytes(TRAILER_SIZE), bytes(5000)], ids=len)
def test_a_file_with_something_behind_its_end_is_refused(behind: bytes) -> None:
    data = encode(SMALL)
    for size in (len(data), len(data) + len(behind)):
        with pytest.raises(SnapshotBytesError):
            decode(data + behind, size=size)
    with pytest.raises(SnapshotBytesError, match="does not end like one"):
        read_manifest(data + behind, len(data) + len(behind))
    twice = data + data
    with pytest.raises(SnapshotBytesError):
        decode(twice)
    with pytest.raises(SnapshotBytesError, match="it is not there"):
        read_manifest(twice, len(twice))


def test_a_file_of_a_later_version_is_not_called_damaged() -> None:
    text = "written by a later version of trioraft: format version 7; this one reads version 1"
    data = encode(SMALL)
    with pytest.raises(SnapshotBytesError, match=text) as caught:
        decode(header(version=7) + data[HEADER_SIZE:])
    assert caught.value.offset == 0
    later = data[:-TRAILER_SIZE] + trailer(sections(data)[-2], version=7)
    for read in (decode, lambda tail: read_manifest(tail, len(tail))):
        with pytest.raises(SnapshotBytesError, match=text) as caught:
            read(later)
        assert caught.value.offset == len(data) - TRAILER_SIZE


def test_a_compression_of_a_later_version_is_not_called_damaged() -> None:
    with pytest.raises(SnapshotBytesError, match="compression number 3 is not known") as caught:
        decode(whole(header(compression=3)))
    assert caught.value.offset == 0


@pytest.mark.parametrize("data", [b"", b"?", b"TRIORSNP", bytes(5000), b"TRIORWAL" + bytes(5000)], ids=len)
def test_what_is_no_snapshot_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(SnapshotBytesError):
        decode(data)
    with pytest.raises(SnapshotBytesError, match="not a whole snapshot"):
        read_manifest(data, len(data))


# --- hostile files: every checksum is right, the rest is not ---------------------------------------------------------------------------

RAW = cbor2.dumps("x" * 1000)


def compressed_with(compression: Compression, raw: bytes) -> bytes:
    return _compression.open_compressor(compression)(raw)


def test_the_good_file_of_these_tests_is_good() -> None:
    before = header() + section(RAW, len(RAW))
    records, manifest = decode(whole(before, manifest_fields(before, 1, len(RAW))))
    assert records == ["x" * 1000]
    assert manifest.records == 1
    for number, compression in enumerate(COMPRESSIONS[1:], 1):
        before = header(number) + section(compressed_with(compression, RAW), len(RAW))
        assert decode(whole(before, manifest_fields(before, 1, len(RAW), compression)))[0] == records


CROWDED = cbor2.dumps(noise(BLOCK)) + b"\x01"
BAD_BLOCKS = {
    "not CBOR": (b"\xff", 1),
    "an item that is cut": (RAW[:-1], len(RAW) - 1),
    "a tag": (cbor2.dumps(cbor2.CBORTag(35, "(")), 4),
    "undefined": (b"\xf7", 1),
    "indefinite length": (b"\x9f\xff", 2),
    "one key twice": (b"\xa2\x01\x01\x01\x01", 5),
    "a map as a key": (b"\xa1\xa0\x00", 3),
    "nested too deep": (b"\x81" * 65 + b"\x00", 66),
    "a good item and a bad one": (b"\x01\xf7", 2),
    "two records in a large block": (CROWDED, len(CROWDED)),
    "nothing": (b"", 1000),
    "smaller than its records": (RAW[:-1], len(RAW)),
    "larger than its records": (RAW, len(RAW) - 1),
    "larger than any": (RAW, SNAPSHOT_RECORD_BYTES_MAX + 1),
    "far larger than any": (RAW, 2**32 - 1),
}


@pytest.mark.parametrize("name", BAD_BLOCKS)
@pytest.mark.parametrize("number", range(3))
def test_a_bad_block_is_refused_in_spite_of_a_right_checksum(name: str, number: int) -> None:
    good = section(b"\x01", 1)
    with pytest.raises(SnapshotBytesError, match="block") as caught:
        decode(whole(header(number) + good + section(*BAD_BLOCKS[name])))
    assert caught.value.offset == HEADER_SIZE + len(good)


@pytest.mark.parametrize("compression", COMPRESSIONS[1:])
@pytest.mark.parametrize("size", [1, 100, 999, 1002, 1004, 5000])
def test_a_block_that_decompresses_to_another_size_is_refused(compression: Compression, size: int) -> None:
    assert len(RAW) == 1003
    with pytest.raises(SnapshotBytesError) as caught:
        decode(whole(header(COMPRESSIONS.index(compression)) + section(compressed_with(compression, RAW), size)))
    assert caught.value.offset == HEADER_SIZE


@pytest.mark.parametrize("compression", COMPRESSIONS[1:])
@pytest.mark.parametrize("change", [lambda c: c + b"?", lambda c: c + c, lambda c: c[:-1], lambda c: c[:4] + bytes(len(c) - 4)])
def test_a_compressed_block_is_exactly_one_stream(compression: Compression, change: Any) -> None:
    with pytest.raises(SnapshotBytesError, match=r"not decompressible|another size") as caught:
        decode(whole(header(COMPRESSIONS.index(compression)) + section(change(compressed_with(compression, RAW)), len(RAW))))
    assert caught.value.offset == HEADER_SIZE


@pytest.mark.parametrize("compression", COMPRESSIONS[1:])
def test_a_bomb_is_not_blown_up(compression: Compression) -> None:
    bomb = compressed_with(compression, bytes(64 << 20))
    data = whole(header(COMPRESSIONS.index(compression)) + section(bomb, len(bomb)) + section(bomb, len(bomb) + 1))
    with peak_memory(len(data) * 8 + (1 << 20)), pytest.raises(SnapshotBytesError):
        decode(data)


def test_a_window_of_zstd_is_bounded_by_what_the_block_holds() -> None:
    zstd = _compression._find_zstd()
    for window_log, is_fine in ((20, True), (21, False), (27, False)):
        compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})
        stored = compressor.compress(RAW) + compressor.flush()  # in two steps, so that the size of all is not known at the first
        before = header(2) + section(stored, len(RAW))
        data = whole(before, manifest_fields(before, 1, len(RAW), "zstd"))
        if is_fine:
            assert decode(data)[0] == ["x" * 1000]
        else:
            with pytest.raises(SnapshotBytesError, match="not decompressible"):
                decode(data)


@pytest.mark.parametrize("size", [2**32 - 1, SNAPSHOT_RECORD_BYTES_MAX, 5000], ids=str)
def test_ST_4_a_block_or_manifest_larger_than_the_file_is_not_waited_for(size: int) -> None:
    data = header() + struct.pack("<III", size, size, 0) + bytes(1000)
    with pytest.raises(SnapshotBytesError, match="cannot be here"):
        decode(data[: HEADER_SIZE + SECTION_SIZE], size=len(data))
    data = header() + struct.pack("<III", size, 0, 0) + bytes(1000)
    with pytest.raises(SnapshotBytesError, match="cannot be here"):
        decode(data[: HEADER_SIZE + SECTION_SIZE], size=len(data))


def test_a_manifest_larger_than_the_limit_is_not_waited_for() -> None:
    data = header() + section(bytes(SNAPSHOT_TAIL_BYTES), 0) + trailer(HEADER_SIZE)
    with pytest.raises(SnapshotBytesError, match="cannot be here"):
        decode(data[: HEADER_SIZE + SECTION_SIZE], size=len(data))
    with pytest.raises(SnapshotBytesError, match="it is not there"):
        read_manifest(data, len(data))
    with pytest.raises(SnapshotBytesError, match="not within"):
        read_manifest(data[-SNAPSHOT_TAIL_BYTES:], len(data))


BEFORE = header()
GOOD = manifest_fields(BEFORE)


def with_field(position: int, value: Any) -> list[Any]:
    return [*GOOD[:position], value, *GOOD[position + 1 :]]


BAD_MANIFESTS = {
    "a number": 7,
    "null": None,
    "a map": {},
    "empty": [],
    "too short": GOOD[:-1],
    "too long": [*GOOD, 0],
    "group id is text": with_field(0, "7"),
    "group id is an array": with_field(0, [7]),
    "incarnation too large": with_field(1, 2**32),
    "term is 0": with_field(2, 0),
    "index is 0": with_field(3, 0),
    "index is a boolean": with_field(3, True),
    "configuration is text": with_field(4, "1 2 3"),
    "configuration is none": with_field(4, b"1 2 3"),
    "codec is unknown": with_field(5, "msgspec"),
    "codec is null": with_field(5, None),
    "compression is unknown": with_field(6, "lz4"),
    "compression is a number": with_field(6, 0),
    "records are negative": with_field(7, -1),
    "raw bytes are a float": with_field(8, 0.0),
    "stored bytes are elsewhere": with_field(9, HEADER_SIZE + 1),
    "sha256 too short": with_field(10, bytes(31)),
    "sha256 is text": with_field(10, "0" * 32),
}


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_a_bad_manifest_is_refused_in_spite_of_a_right_checksum(name: str) -> None:
    data = whole(BEFORE, BAD_MANIFESTS[name])
    for read in (decode, lambda tail: read_manifest(tail, len(tail))):
        with pytest.raises(SnapshotBytesError, match="manifest") as caught:
            read(data)
        assert caught.value.offset == HEADER_SIZE


@pytest.mark.parametrize(
    "fields",
    [
        with_field(0, 8),
        with_field(1, 2),
        with_field(2, 4),
        with_field(3, 8),
        with_field(6, "zlib"),
        with_field(7, 1),
        with_field(8, 1),
        with_field(10, bytes(32)),
    ],
    ids=["group id", "incarnation", "term", "index", "compression", "records", "raw bytes", "sha256"],
)
def test_the_manifest_of_another_snapshot_is_refused(fields: list[Any]) -> None:
    data = whole(BEFORE, fields)
    read_manifest(data, len(data))
    with pytest.raises(SnapshotBytesError, match="does not belong") as caught:
        decode(data)
    assert caught.value.offset == HEADER_SIZE


@pytest.mark.parametrize("manifest_at", [0, HEADER_SIZE - 1, HEADER_SIZE + 1, 150, 2**63, 2**64 - 1], ids=str)
def test_a_trailer_that_points_elsewhere_is_refused(manifest_at: int) -> None:
    data = whole(BEFORE)[:-TRAILER_SIZE] + trailer(manifest_at)
    with pytest.raises(SnapshotBytesError, match="is not at offset") as caught:
        decode(data)
    assert caught.value.offset == len(data) - TRAILER_SIZE
    with pytest.raises(SnapshotBytesError, match=r"it is not there|not within"):
        read_manifest(data, len(data))


def test_the_manifest_needs_only_the_end_of_the_file() -> None:
    data = encode(RECORDS)
    _, manifest = decode(data)
    start = sections(data)[-2]
    assert read_manifest(data[start:], len(data)) == manifest
    for tail in (data[start + 1 :], data[-TRAILER_SIZE:]):
        with pytest.raises(SnapshotBytesError, match="not within"):
            read_manifest(tail, len(data))
    with pytest.raises(SnapshotBytesError):
        read_manifest(data, len(data) - 1)
    with pytest.raises(SnapshotBytesError):
        read_manifest(data, 3)


@given(st.binary(max_size=200), st.integers(0, 300), st.integers(0, 2**64 - 1))
def test_random_ends_are_no_snapshot(tail: bytes, more: int, manifest_at: int) -> None:
    for data in (tail, tail + trailer(manifest_at), tail + trailer(manifest_at % 200)):
        with pytest.raises(SnapshotBytesError):
            read_manifest(data, len(data) + more)


@given(st.lists(st.tuples(st.binary(max_size=30), st.integers(0, 40)), max_size=3), st.integers(0, 2))
def test_random_blocks_give_records_or_a_refusal(blocks: list[tuple[bytes, int]], number: int) -> None:
    data = whole(header(number) + b"".join(section(*block) for block in blocks))
    if blocks:  # the count of the manifest is 0, so that not even good ones pass as a whole
        with pytest.raises(SnapshotBytesError):
            decode(data)


# --- the contract of the decoder ---------------------------------------------------------------------------------------------------------


def test_records_that_were_not_taken_are_not_lost_in_silence() -> None:
    data = encode(SMALL)
    decoder = SnapshotDecoder(len(data))
    records = decoder.feed(data)
    for refused in (decoder.finish, lambda: decoder.feed(b"")):
        with pytest.raises(InvariantError, match="must all be taken"):
            refused()
    assert next(records) == SMALL[0]
    with pytest.raises(InvariantError, match="must all be taken"):
        decoder.finish()
    assert list(records) == SMALL[1:]
    assert decoder.finish().records == len(SMALL)


def test_a_decoder_stays_broken() -> None:
    data = bytearray(encode(SMALL))
    data[sections(data)[0] + SECTION_SIZE] ^= 1
    decoder = SnapshotDecoder(len(data))
    with pytest.raises(SnapshotBytesError) as first:
        list(decoder.feed(bytes(data)))
    for again in (decoder.finish, lambda: decoder.feed(b"")):
        with pytest.raises(SnapshotBytesError) as caught:
            again()
        assert caught.value is first.value


def test_few_bytes_that_hold_a_lot_are_decoded_block_by_block() -> None:
    data = encode((bytes(BLOCK - 5) for _ in range(100)), "zstd")
    assert len(data) < 65536
    with peak_memory(3 << 20):
        decoder = SnapshotDecoder(len(data))
        assert sum(len(record) for record in decoder.feed(data)) == 100 * (BLOCK - 5)
        decoder.finish()


@every_compression
def test_both_ends_hold_one_block(compression: Compression) -> None:
    page = noise(65536)

    def pieces() -> Iterator[bytes]:
        encoder = SnapshotEncoder(GROUP, AT, CONFIGURATION, compression=compression)
        for number in range(200):
            encoder.add(number.to_bytes(8) + page)
            yield encoder.take()
        yield encoder.finish()

    size = sum(map(len, pieces()))
    with peak_memory(4 << 20):
        decoder = SnapshotDecoder(size)
        count = sum(1 for piece in pieces() for _ in decoder.feed(piece))
        assert decoder.finish().records == count == 200


@contextmanager
def peak_memory(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit


# --- with and without zstd ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def without_zstd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    _compression._find_zstd.cache_clear()
    yield
    _compression._find_zstd.cache_clear()


def test_zstd_is_the_default_where_it_is() -> None:
    assert default_compression() == "zstd"


def test_the_module_of_the_standard_library_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compression.zstd", zlib)
    _compression._find_zstd.cache_clear()
    assert _compression._find_zstd() is zlib
    monkeypatch.undo()
    _compression._find_zstd.cache_clear()


@pytest.mark.usefixtures("without_zstd")
def test_zlib_is_the_default_elsewhere() -> None:
    assert default_compression() == "zlib"
    assert decode(encode(SMALL, "zlib"))[0] == SMALL


def test_a_file_that_cannot_be_decompressed_here_says_what_to_install(request: pytest.FixtureRequest) -> None:
    data = encode(SMALL, "zstd")
    request.getfixturevalue("without_zstd")
    with pytest.raises(SnapshotBytesError, match=re.escape("install trioraft[zstd]")) as caught:
        decode(data)
    assert caught.value.offset == 0
    assert read_manifest(data, len(data)).compression == "zstd"
    with pytest.raises(ConfigError, match=re.escape("install trioraft[zstd]")):
        encode(SMALL, "zstd")


def test_an_unknown_compression_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be one of none, zlib, zstd, not 'lz4'"):
        encode(SMALL, "lz4")  # type: ignore[arg-type]  # that is the point
