"""Entries at rest: what is written is read back, from anywhere in the file, or it is said where it is damaged."""

from __future__ import annotations

import errno
import random
import struct
import zlib

import pytest
import trio

from trioraft._errors import CorruptLogError, InvariantError, StorageError
from trioraft._types import EntryId, GroupKey
from trioraft.core import Entry, EntryKind
from trioraft.storage import DiskCall, SimulatedDisk
from trioraft.storage._at_rest import (
    HEADER_SIZE,
    ROW_STRIDE,
    AtRestFiles,
    AtRestHeader,
    at_rest_first,
    at_rest_name,
    decode_at_rest_header,
    encode_at_rest_header,
)
from trioraft.storage._disk import Disk
from trioraft.storage._folder import Folder
from trioraft.storage._row import AtRest
from trioraft.storage._simulated_disk import Keep
from trioraft.wire import seal

KEEPS: tuple[Keep, ...] = ("none", "all", "random")
DIRECTORY = "data/group-7/logs"
PATH = "data/group-7/logs/150.log"
KEY = GroupKey(7, 2)
STORE = bytes(range(16))


@pytest.fixture
def metal() -> SimulatedDisk:
    return SimulatedDisk(random.Random(1), dead_calls="raise")


def files_on(disk: Disk, *, key: GroupKey = KEY, store_id: bytes = STORE) -> AtRestFiles:
    return AtRestFiles(Folder(disk, DIRECTORY), store_id, key)


def entries(low: int, high: int, term: int = 3, size: int = 20) -> list[Entry]:
    made = [Entry(index, term, EntryKind.COMMAND, random.Random(index).randbytes(size)) for index in range(low, high)]
    for entry in made:
        seal(KEY, entry)
    return made


async def write(files: AtRestFiles, log: list[Entry], piece: int = 7) -> AtRest:
    writer = await files.create(log[0].index)
    for start in range(0, len(log), piece):
        await writer.append(log[start : start + piece])
    header = await writer.commit(log_position=99)
    return AtRest(header.first.index, header.first.index, header.last.index, header.size)


async def read_all(files: AtRestFiles, place: AtRest, bytes_max: int = 1000) -> list[Entry]:
    found: list[Entry] = []
    while not found or found[-1].index < place.last:
        found += await files.read(place, found[-1].index + 1 if found else place.first, place.last, bytes_max)
    return found


# -- what it is for -------------------------------------------------------------------------------------------------------------


async def test_what_is_written_is_read_back(metal: SimulatedDisk) -> None:
    files = files_on(metal.mount())
    log = entries(150, 161) + entries(161, 200, term=5)
    place = await write(files, log)
    assert place == AtRest(150, 150, 199, len(metal.contents(PATH)))
    found = await read_all(files, place)
    assert found == log
    assert [entry.record for entry in found] == [entry.record for entry in log]
    header = decode_at_rest_header(metal.contents(PATH), PATH)
    assert (header.first, header.last, header.log_position, header.key) == (EntryId(3, 150), EntryId(5, 199), 99, KEY)


async def test_pieces_are_bounded_and_never_empty(metal: SimulatedDisk) -> None:
    files = files_on(metal.mount())
    log = entries(1, 11, size=100)
    place = await write(files, log)
    assert await files.read(place, 1, 10, 450) == tuple(log[:3])
    assert await files.read(place, 4, 5, 10_000) == tuple(log[3:5])
    assert await files.read(place, 10, 10, 0) == tuple(log[9:])


async def test_reading_begins_near_what_is_asked_for(metal: SimulatedDisk) -> None:
    """A large file is read from anywhere without reading it all; entries larger than a piece are whole."""
    files = files_on(metal.mount())
    rng = random.Random(2)
    log = [entry for index in range(150, 1150) for entry in entries(index, index + 1, size=rng.choice((0, 30, 3000, 90_000)))]
    place = await write(files, log, piece=50)
    read_bytes = 0
    disk_read = files.folder.disk.read

    async def counted(*arguments: object) -> bytes:
        nonlocal read_bytes
        data: bytes = await disk_read(*arguments)  # type: ignore[arg-type]  # of any type
        read_bytes += len(data)
        return data

    files.folder.disk.read = counted  # type: ignore[method-assign]  # replaced on purpose
    table = len(metal.contents(PATH)) - HEADER_SIZE - sum(len(entry.record) for entry in log)
    assert table < len(metal.contents(PATH)) / ROW_STRIDE * 16 + 16
    for index in [150, 1149, *rng.sample(range(150, 1150), 30)]:
        read_bytes = 0
        assert await files.read(place, index, 1149, 1) == (log[index - 150],)
        assert read_bytes <= table + HEADER_SIZE + ROW_STRIDE + 2 * 91_000 + (64 << 10)
    assert await read_all(files, place, bytes_max=200_000) == log


async def test_a_part_that_counts_no_more_is_passed_over(metal: SimulatedDisk) -> None:
    files = files_on(metal.mount())
    log = entries(150, 200)
    place = (await write(files, log))._replace(first=160, last=180)
    assert await read_all(files, place) == log[10:31]


async def test_a_file_is_replaced_once_nothing_in_it_counts(metal: SimulatedDisk) -> None:
    files = files_on(metal.mount())
    old = await write(files, entries(150, 161, term=3))
    new = await write(files, entries(150, 172, term=5))
    assert await read_all(files, new) == entries(150, 172, term=5)
    with pytest.raises(CorruptLogError, match="the file holds 150@5 to 171@5"):
        await read_all(files, old)


async def test_what_is_written_is_one_log(metal: SimulatedDisk) -> None:
    writer = await files_on(metal.mount()).create(150)
    with pytest.raises(InvariantError, match="without entries"):
        await writer.commit(1)
    await writer.append(entries(150, 152))
    for wrong in (entries(153, 154), entries(151, 152), entries(152, 153, term=2)):
        with pytest.raises(InvariantError, match="cannot lie behind 151@3"):
            await writer.append(wrong)
    await writer.append(entries(152, 154))
    assert (await writer.commit(1)).last == EntryId(3, 153)


def test_names() -> None:
    assert at_rest_name(150) == "150.log"
    assert at_rest_first("150.log") == 150
    for name in ("0.log", "0150.log", "150.log.tmp", "150.log\n", "150", "x.log", "-1.log", "١٥٠.log"):
        assert at_rest_first(name) is None, name


# -- damage ---------------------------------------------------------------------------------------------------------------------


async def test_every_flipped_byte_is_noticed(metal: SimulatedDisk) -> None:
    files = files_on(metal.mount())
    log = entries(150, 156) + entries(156, 158, term=4, size=0)
    place = await write(files, log)
    data = metal.contents(PATH)
    for offset in range(len(data)):
        for flip in (1, 0x80, 0xFF):
            metal.overwrite(PATH, data[:offset] + bytes([data[offset] ^ flip]) + data[offset + 1 :])
            with pytest.raises(StorageError, match=PATH) as caught:
                await read_all(files, place)
            assert isinstance(caught.value, CorruptLogError)
            assert caught.value.offset <= offset
    metal.overwrite(PATH, data)
    assert await read_all(files, place) == log
    print(f"{len(data)} bytes, each flipped three times")


async def test_every_other_length_is_noticed(metal: SimulatedDisk) -> None:
    files = files_on(metal.mount())
    place = await write(files, entries(150, 156))
    data = metal.contents(PATH)
    for wrong in [*(data[:size] for size in range(len(data))), data + b"\0", data + data]:
        metal.overwrite(PATH, wrong)
        with pytest.raises(CorruptLogError, match=PATH):
            await files.read(place, 150, 150, 1)


async def test_ST_4_a_rotten_length_allocates_nothing(metal: SimulatedDisk) -> None:
    """Also where somebody made the checksums fit."""
    files = files_on(metal.mount())
    place = await write(files, entries(150, 156))
    data = bytearray(metal.contents(PATH))
    struct.pack_into("<I", data, HEADER_SIZE + 4, 1 << 31)
    metal.overwrite(PATH, bytes(data))
    with pytest.raises(CorruptLogError, match="ends inside a record") as caught:
        await files.read(place, 150, 155, 100)
    assert caught.value.offset == HEADER_SIZE
    header = decode_at_rest_header(metal.contents(PATH), PATH)
    for table_bytes in (0, 15):
        wrong = AtRestHeader(STORE, KEY, header.first, header.last, 1, header.size - HEADER_SIZE - table_bytes, table_bytes, 0)
        metal.overwrite(PATH, encode_at_rest_header(wrong) + bytes(data[HEADER_SIZE:]))
        with pytest.raises(CorruptLogError, match="a table of"):
            await files.read(place, 150, 155, 100)


async def test_a_table_that_lies(metal: SimulatedDisk) -> None:
    files = files_on(metal.mount())
    place = await write(files, entries(150, 156))
    data = metal.contents(PATH)
    header = decode_at_rest_header(data, PATH)
    for row in ((151, HEADER_SIZE), (150, HEADER_SIZE + 1), (150, 0), (150, 1 << 40), (149, HEADER_SIZE)):
        table = struct.pack("<QQ", *row)
        wrong = AtRestHeader(STORE, KEY, header.first, header.last, 1, header.records_bytes, 16, zlib.crc32(table))
        metal.overwrite(PATH, encode_at_rest_header(wrong) + data[HEADER_SIZE:-16] + table)
        with pytest.raises(CorruptLogError, match=PATH):
            await files.read(place, 150, 155, 100)


async def test_a_file_of_somebody_else(metal: SimulatedDisk) -> None:
    place = await write(files_on(metal.mount()), entries(150, 156))
    for other in (files_on(metal.mount(), store_id=bytes(16)), files_on(metal.mount(), key=GroupKey(7, 1))):
        with pytest.raises(CorruptLogError, match="another store|is of group g7.2, not of g7"):
            await other.read(place, 150, 155, 100)


async def test_ST_22_a_version_from_the_future(metal: SimulatedDisk) -> None:
    files = files_on(metal.mount())
    place = await write(files, entries(150, 156))
    data = bytearray(metal.contents(PATH))
    struct.pack_into("<I", data, 12, 2)
    struct.pack_into("<I", data, 8, zlib.crc32(data[12:HEADER_SIZE]))
    metal.overwrite(PATH, bytes(data))
    with pytest.raises(StorageError, match="format 2, this one knows 1") as caught:
        await files.read(place, 150, 155, 100)
    assert caught.value.kind == "format"
    assert metal.contents(PATH) == bytes(data)


async def test_a_missing_file(metal: SimulatedDisk) -> None:
    files = files_on(metal.mount())
    with pytest.raises(CorruptLogError, match=f"{PATH}.*missing.*group 7"):
        await files.read(AtRest(150, 150, 155, 1000), 150, 155, 100)


async def test_a_file_that_cannot_be_read(metal: SimulatedDisk) -> None:
    files = files_on(metal.mount())
    place = await write(files, entries(150, 156))

    async def fail(call: DiskCall) -> None:
        if call.verb == "read":
            raise OSError(errno.EIO, "on purpose")

    metal.hook = fail
    with pytest.raises(StorageError, match=f"{PATH}: on purpose") as caught:
        await files.read(place, 150, 155, 100)
    assert caught.value.kind == "io"
    assert not isinstance(caught.value, CorruptLogError)


# -- power cuts -----------------------------------------------------------------------------------------------------------------


async def test_a_power_cut_at_every_step() -> None:
    """A file under its name is whole."""
    rng = random.Random(5)
    metal = SimulatedDisk(rng)
    moments: list[tuple[SimulatedDisk, AtRest | None, str]] = []
    place: AtRest | None = None

    async def note(call: DiskCall) -> None:
        moments.append((metal.fork(random.Random(rng.random())), place, f"{call.number} {call.verb}"))

    metal.hook = note
    log = entries(150, 190)
    place = await write(files_on(metal.mount()), log)
    whole = metal.contents(PATH)
    await trio.lowlevel.checkpoint()
    await metal.mount().list_directory(DIRECTORY)
    for disk, must, step in moments:
        for keep in KEEPS:
            twin = disk.fork(random.Random(f"{step}{keep}"))
            twin.crash(keep)
            try:
                names = twin.names(DIRECTORY)
            except FileNotFoundError:
                names = []
            assert must is None or "150.log" in names, f"lost after a cut at {step}, keeping {keep}"
            if "150.log" in names:
                assert twin.contents(PATH) == whole, f"not whole after a cut at {step}, keeping {keep}"
            again = files_on(twin.mount())
            assert await read_all(again, await write(again, log)) == log
            assert twin.names(DIRECTORY) == ["150.log"]
    print(f"{len(moments)} steps, {len(moments) * len(KEEPS)} power cuts")
    assert len(moments) > 10
