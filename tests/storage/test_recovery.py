"""What is torn is dropped, what is damaged is refused, and nothing else is touched."""

from __future__ import annotations

import itertools
import random
import struct
import tracemalloc
import zlib
from typing import Any

import pytest
import trio
import trio.testing

from tests.storage.kit import (
    FIRST,
    G1,
    G2,
    G3,
    LOG,
    SECOND,
    THIRD,
    Log,
    batches,
    body_end,
    entries,
    found_on,
    log_of,
    patched,
    read,
    record,
    serving,
    start_group,
    state_of,
    three_batches,
    wal,
)
from trioraft._errors import CorruptLogError, GroupExistsError, StorageError
from trioraft._types import GroupKey, Member
from trioraft.core import HardState
from trioraft.storage import SimulatedDisk
from trioraft.storage._batch import BATCH_HEADER_SIZE, decode_batch_header, encode_batch
from trioraft.storage._segment import encode_group, encode_tombstone, encode_write
from trioraft.testing._storage_parts import entry

SECTOR = 512


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk(random.Random(1))


def refuses(recovery: Log, *group_ids: int, path: str = FIRST, offset: int | None = None) -> None:
    """Exactly these groups are refused, naming where."""
    failures = {group_id: group.failure for group_id, group in recovery.groups.items() if group.failure is not None}
    assert set(failures) == set(group_ids)
    for failure in failures.values():
        assert isinstance(failure, CorruptLogError)
        assert failure.path == path
        assert path in str(failure)
        assert offset is None or failure.offset == offset
        assert str(failure.offset) in str(failure)


# -- torn ------------------------------------------------------------------------------------------------------------------------


async def test_ST_1_tail_cut_at_every_byte_of_the_last_batch(disk: SimulatedDisk) -> None:
    data = await three_batches(disk)
    start = batches(data)[-1]
    assert len(data) - start > 3 * SECTOR
    for size in range(start, body_end(data, start)):
        disk.overwrite(FIRST, data[:size])
        recovery = await read(disk)
        refuses(recovery)
        assert log_of(recovery, 1) == ["1@1", "2@1", "3@1"]
        assert recovery.groups[1].durable.hard_state == HardState(1, 1)
        assert recovery.end.size == start
        assert recovery.cut == (None if size == start else start)
    for size in range(body_end(data, start), len(data)):
        # Only padding is missing: nothing of the batch is.
        disk.overwrite(FIRST, data[:size])
        assert log_of(await read(disk), 1)[-1] == "8@1"


@pytest.mark.parametrize("kept", [1, 63, 64, 72, 300, 511, 512, 513, 1500])
async def test_ST_1_after_a_torn_tail_the_log_goes_on(disk: SimulatedDisk, kept: int) -> None:
    data = await three_batches(disk)
    start = batches(data)[-1]
    disk.overwrite(FIRST, data[: start + kept])
    before = await found_on(disk)
    assert disk.contents(FIRST) == data[:start], "cut, and the cut is durable"
    assert await found_on(disk) == before, "recovery is idempotent"

    storage = wal(disk.mount())
    async with serving(storage):
        group = await start_group(storage, G1)
        await group.write_and_wait(*entries(G1, 4, 6, term=3))
    disk.crash("none")
    recovery = await read(disk)
    assert log_of(recovery, 1) == ["1@1", "2@1", "3@1", "4@3", "5@3"]
    assert len(batches(disk.contents(FIRST))) == len(batches(data))


async def test_ST_2_zeroed_sectors_of_the_last_batch(disk: SimulatedDisk) -> None:
    data = await three_batches(disk)
    start = batches(data)[-1]
    sectors = range(start, len(data), SECTOR)
    for lost in itertools.chain.from_iterable(itertools.combinations(sectors, count) for count in range(1, len(sectors) + 1)):
        torn = data
        for sector in lost:
            torn = patched(torn, sector, bytes(SECTOR))
        disk.overwrite(FIRST, torn)
        recovery = await read(disk)
        refuses(recovery)
        assert log_of(recovery, 1) == ["1@1", "2@1", "3@1"]
        assert recovery.cut == start


@pytest.mark.parametrize("zeros", [1, 63, 64, 511, 512, 4096, 10_000])
async def test_ST_2_preallocated_zeros_are_no_records(disk: SimulatedDisk, zeros: int) -> None:
    data = await three_batches(disk)
    expected = await found_on(disk)
    disk.overwrite(FIRST, data + bytes(zeros))
    assert await found_on(disk) == expected
    assert disk.contents(FIRST) == data


async def test_zeros_that_were_written_as_zeros_do_not_count_as_lost(disk: SimulatedDisk) -> None:
    """A payload of zeros has zero sectors. Rot elsewhere in its batch is rot; one more zero sector is a tear."""
    data = await three_batches(disk, last=[entry(G1, 4, payload=bytes(3000)), entry(G1, 5, payload=b"x" * 1000)])
    start = batches(data)[-1]
    assert bytes(SECTOR) in [data[place : place + SECTOR] for place in range(start, len(data), SECTOR)]
    assert log_of(await read(disk), 1) == ["1@1", "2@1", "3@1", "4@1", "5@1"]

    disk.overwrite(FIRST, patched(data, body_end(data, start) - 100, b"!"))
    refuses(await read(disk), 1, offset=start)

    disk.overwrite(FIRST, patched(data, len(data) - 1024, bytes(SECTOR)))
    recovery = await read(disk)
    refuses(recovery)
    assert recovery.cut == start


async def test_the_same_tears_in_an_older_batch_are_damage(disk: SimulatedDisk) -> None:
    """A later batch was written, so this one had been synced and confirmed."""
    data = await three_batches(disk)
    *_, of_one, of_two, last = batches(data)
    disk.overwrite(FIRST, patched(data, of_one, bytes(SECTOR)))
    refuses(await read(disk), 1, 2, offset=of_one)
    # Even if what is left of the later batch is not whole.
    disk.overwrite(FIRST, patched(data, of_two, bytes(SECTOR))[: last + 700])
    recovery = await read(disk)
    refuses(recovery, 1, 2, offset=of_two)
    assert recovery.cut == last


async def test_the_end_of_an_older_file_is_never_torn(disk: SimulatedDisk) -> None:
    await three_batches(disk, max_log_file_size=4096, last=entries(G1, 4, 9, payload=b"p" * 1000))
    storage = wal(disk.mount(), max_log_file_size=4096)
    async with serving(storage):
        group = await start_group(storage, G2)
        await group.write_and_wait(*entries(G2, 3, 5))
    assert disk.names(LOG) == ["00000001.wal", "00000002.wal"]
    data = disk.contents(FIRST)
    last = batches(data)[-1]
    for damaged in (data[: body_end(data, last) - 1], data[: last + 100], patched(data, last + SECTOR, bytes(SECTOR))):
        disk.overwrite(FIRST, damaged)
        recovery = await read(disk)
        refuses(recovery, 1, offset=last)
        assert recovery.cut is None
    disk.overwrite(FIRST, data + bytes(SECTOR))
    refuses(await read(disk), 1, 2, offset=len(data))
    disk.overwrite(FIRST, data[:last])
    refuses(await read(disk), 1, 2, path=SECOND, offset=0)


# -- damaged ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [0x01, 0xFF])
async def test_every_byte_of_every_batch_flipped(disk: SimulatedDisk, flip: int) -> None:
    """All the data, or a refusal with file and offset. Never something shorter."""
    data = await three_batches(disk)
    whole = (await read(disk)).groups
    starts = batches(data)
    refused = 0
    for place in range(starts[-3], len(data)):
        disk.overwrite(FIRST, patched(data, place, bytes([data[place] ^ flip])))
        recovery = await read(disk)
        assert recovery.cut is None, place
        assert set(recovery.groups) == {1, 2}
        failing = [group_id for group_id in (1, 2) if recovery.groups[group_id].failure is not None]
        refuses(recovery, *failing, offset=max(start for start in starts if start <= place))
        for group_id in {1, 2} - set(failing):
            assert recovery.groups[group_id] == whole[group_id], place
        refused += bool(failing)
    assert refused > sum(1 for byte in data[starts[-3] :] if byte), "only padding may be flipped unnoticed"


async def test_every_bit_of_the_file_header_flipped(disk: SimulatedDisk) -> None:
    data = await three_batches(disk)
    for place in range(80):
        disk.overwrite(FIRST, patched(data, place, bytes([data[place] ^ 4])))
        refuses(await _read_as(disk, data), offset=0)
        assert (await _read_as(disk, data)).damage is not None


async def _read_as(disk: SimulatedDisk, original: bytes) -> Log:
    return await read(disk, original[64:80])


@pytest.mark.parametrize("length", [0, 1, 1 << 20, 1 << 31, 1 << 40, (1 << 64) - 1])
@pytest.mark.parametrize("sealed", [False, True])
async def test_ST_4_rot_in_the_length_of_a_batch(disk: SimulatedDisk, length: int, sealed: bool) -> None:
    """Nothing is allocated on the word of a length, whether its checksum gives it away or not."""
    data = await three_batches(disk)
    start = batches(data)[-2]
    rotten = bytearray(patched(data, start + 40, struct.pack("<Q", length)))
    if sealed:
        struct.pack_into("<I", rotten, start + 8, zlib.crc32(rotten[start + 12 : start + BATCH_HEADER_SIZE]))
    disk.overwrite(FIRST, bytes(rotten))
    tracemalloc.start()
    recovery = await read(disk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    if not sealed:
        refuses(recovery, 1, 2, offset=start)
    elif length > len(data):
        # What only a forger can write: a batch that claims the rest of the newest file. It ends the log here.
        assert recovery.cut == start
    else:
        assert recovery.groups[2].failure is not None


@pytest.mark.parametrize("length", [0, 1 << 16, 1 << 31, (1 << 32) - 1])
@pytest.mark.parametrize("place", ["segment", "record"])
async def test_ST_4_rot_in_a_length_inside_a_body_that_matches_its_checksum(disk: SimulatedDisk, length: int, place: str) -> None:
    data = await three_batches(disk)
    start = batches(data)[-1]
    header = decode_batch_header(data, start, data[32:48])
    assert header is not None
    body = bytearray(data[start + header.body_offset : start + header.body_offset + header.body_bytes])
    of_entries = 20 + 12
    struct.pack_into("<I", body, of_entries + (4 if place == "segment" else 20 + 36 + 4), length)
    disk.overwrite(FIRST, data[:start] + bytes(encode_batch(data[32:48], header.sequence, [1], [bytes(body)]).data))
    tracemalloc.start()
    if place == "segment":
        refuses(await read(disk), 1, offset=start)
    else:
        # What only a forger can write. Records are opened when they are read, and then they are refused.
        with pytest.raises(CorruptLogError) as caught:
            await read(disk)
        assert (caught.value.path, caught.value.offset) == (FIRST, start + header.body_offset + of_entries + 20 + 36)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


async def test_damage_stops_the_groups_that_it_may_concern_and_no_other(disk: SimulatedDisk) -> None:
    data = await three_batches(disk)
    start = batches(data)[-1]
    disk.overwrite(FIRST, damaged := patched(data, start + 700, b"?"))

    storage = wal(disk.mount())
    async with serving(storage):
        failure = storage.recovered[1].failure
        assert isinstance(failure, CorruptLogError)
        with pytest.raises(CorruptLogError):
            storage.get_log_storage(1)
        with pytest.raises(CorruptLogError):
            await storage.create_group(record(G1))
        group = await start_group(storage, G2)
        await group.write_and_wait(*entries(G2, 3, 5))
        await storage.create_group(record(G3))
    assert disk.contents(FIRST) == damaged, "nothing is cut, and nothing is written behind damage"
    assert disk.names(LOG) == ["00000001.wal", "00000002.wal"]

    disk.crash("none")
    recovery = await read(disk)
    refuses(recovery, 1, offset=start)
    assert log_of(recovery, 2) == ["1@1", "2@1", "3@1", "4@1"]
    assert recovery.groups[3].record == record(G3)


async def test_a_damaged_group_is_healed_by_removing_it_and_adding_it_anew(disk: SimulatedDisk) -> None:
    data = await three_batches(disk)
    disk.overwrite(FIRST, patched(data, batches(data)[-1] + 700, b"?"))
    anew = GroupKey(1, 2)
    storage = wal(disk.mount())
    async with serving(storage):
        await storage.remove_group(G1)
        assert storage.recovered[1].tombstone == G1
        with pytest.raises(GroupExistsError):
            await storage.create_group(record(G1))
        group = await start_group(storage, anew)
        await group.write_and_wait(*entries(anew, 1, 3, term=7), state=HardState(7, 1))
    disk.crash("none")
    recovery = await read(disk)
    refuses(recovery)
    assert recovery.groups[1].record == record(anew)
    assert log_of(recovery, 1) == ["1@7", "2@7"]


async def test_damage_that_names_no_group_stops_all_and_makes_none(disk: SimulatedDisk) -> None:
    data = await three_batches(disk)
    start = batches(data)[-1]
    disk.overwrite(FIRST, patched(data, start, b"?"))
    storage = wal(disk.mount())
    async with serving(storage):
        assert [found.failure is None for found in storage.recovered.values()] == [False, False]
        with pytest.raises(CorruptLogError, match=FIRST):
            await storage.create_group(record(G3))
        await storage.remove_group(G1)
        anew = GroupKey(1, 2)
        group = await start_group(storage, anew)
        await group.write_and_wait(*entries(anew, 1, 3))
    disk.crash("none")
    recovery = await read(disk)
    refuses(recovery, 2, offset=start)
    assert log_of(recovery, 1) == ["1@1", "2@1"]


@pytest.mark.parametrize(
    "written, complaint",
    [
        ([("vote", 5), ("vote", 4)], "term falls"),
        ([("vote", 5, 1), ("vote", 5, 2)], "second vote"),
        ([("vote", 5, 1), ("vote", 5, None)], "second vote"),
        ([("entries", 2, 3)], "something is missing"),
        ([("entries", 1, 3), ("entries", 4, 5)], "something is missing"),
        ([("entries", 1, 3, 5), ("entries", 3, 4, 4)], "terms never fall"),
    ],
)
async def test_a_history_that_cannot_be_is_damage(disk: SimulatedDisk, written: list[tuple[Any, ...]], complaint: str) -> None:
    """While it is written as well as when it is read: the group has failed, and nothing of it is confirmed any more."""
    storage = wal(disk.mount())
    async with serving(storage):
        group, other = await start_group(storage, G1), await start_group(storage, G2)
        for kind, *details in written:
            if kind == "vote":
                last = group.write(state=HardState(*details))
            else:
                last = group.write(*entries(G1, *details))
        failure = await group.listener.wait_failure()
        assert group.listener.confirmed < last
        assert storage.recovered[1].failure is failure
        with pytest.raises(CorruptLogError):
            storage.get_log_storage(1)
        group.write(state=HardState(99, 1))
        await other.write_and_wait(*entries(G2, 1, 2))
        assert group.listener.heard[-1] is failure
    refuses(recovery := await read(disk), 1)
    assert str(recovery.groups[1].failure) == str(failure)
    assert complaint in str(failure)
    assert log_of(recovery, 2) == ["1@1"]


# -- mixed generations -----------------------------------------------------------------------------------------------------------


async def rolled(disk: SimulatedDisk, *, seed: int = 0) -> None:
    """Three files, two groups, one of them only in the first file."""
    storage = wal(disk.mount(), seed=seed, max_log_file_size=4608)
    async with serving(storage):
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        await two.write_and_wait(*entries(G2, 1, 3), state=HardState(4, 2))
        for low in range(1, 13, 3):
            await one.write_and_wait(*entries(G1, low, low + 3, payload=b"p" * 700))
    assert disk.names(LOG) == ["00000001.wal", "00000002.wal", "00000003.wal"]


async def test_ST_14_an_idle_group_survives_all_files(disk: SimulatedDisk) -> None:
    await rolled(disk)
    disk.crash("none")
    recovery = await read(disk)
    refuses(recovery)
    assert log_of(recovery, 2) == ["1@1", "2@1"]
    assert recovery.groups[2].durable.hard_state == HardState(4, 2)
    assert len(log_of(recovery, 1)) == 12


@pytest.mark.parametrize("missing", [FIRST, SECOND, THIRD])
async def test_ST_11_a_missing_file_is_missed(disk: SimulatedDisk, missing: str) -> None:
    await rolled(disk)
    await found_on(disk)  # a start, which notes the newest file
    disk.delete(missing)
    for _ in range(2):
        for group_id, group in (await found_on(disk)).items():
            assert group.failure is not None
            if missing == FIRST:
                # The next file has a checkpoint, which is all there is to know but for the entries.
                assert f"entries 1 to {2 if group_id == 2 else 3} of group {group_id} are in no file" in group.failure
                assert SECOND in group.failure
            else:
                assert missing in group.failure


async def test_ST_11_a_whole_log_that_is_gone_is_missed(disk: SimulatedDisk) -> None:
    await rolled(disk)
    await found_on(disk)
    for name in disk.names(LOG):
        disk.delete(f"{LOG}/{name}")
    storage = wal(disk.mount(), cleaning=True)
    async with serving(storage):
        with pytest.raises(CorruptLogError, match="missing"):
            await storage.create_group(record(G1))
        await storage.remove_group(G1)
        group = await start_group(storage, GroupKey(1, 2))
        await group.write_and_wait(*entries(group.key, 1, 3))
    assert disk.names(LOG) == ["00000004.wal"]
    for _ in range(2):
        storage = wal(disk.mount(), cleaning=True)
        async with serving(storage):
            with pytest.raises(CorruptLogError, match="checkpoint"):
                await storage.create_group(record(G2))
            assert [str(each) for each in (await state_of(storage))[1].entries] == ["1@1", "2@1"], "but for what was made anew"


async def test_ST_11_files_that_held_a_damaged_group_are_missed(disk: SimulatedDisk) -> None:
    """No checkpoint says anything of it. So whoever removes the damaged file does not get rid of the damage."""
    data = await three_batches(disk)
    disk.overwrite(FIRST, patched(data, batches(data)[-1] + 700, b"?"))
    storage = wal(disk.mount())
    async with serving(storage):
        group = await start_group(storage, G2)
        await group.write_and_wait(*entries(G2, 3, 5))
    disk.delete(FIRST)
    storage = wal(disk.mount())
    async with serving(storage):
        for key in (G1, G2, G3):
            with pytest.raises(CorruptLogError, match="checkpoint"):
                await storage.create_group(record(key))
    assert SECOND.rsplit("/", 1)[1] in disk.names(LOG)


async def test_ST_11_a_log_put_back_from_an_older_copy_is_missed(disk: SimulatedDisk) -> None:
    await three_batches(disk)
    older = disk.contents(FIRST)
    storage = wal(disk.mount())
    async with serving(storage):
        group = await start_group(storage, G2)
        await group.write_and_wait(*entries(G2, 3, 5))
    await found_on(disk)
    disk.overwrite(FIRST, older)
    for _ in range(2):
        assert all(group.failure is not None for group in (await found_on(disk)).values())


@pytest.mark.parametrize("name", [FIRST, SECOND, THIRD])
async def test_ST_11_a_file_of_another_store_is_refused(disk: SimulatedDisk, name: str) -> None:
    await rolled(disk)
    other = SimulatedDisk(random.Random(2))
    await rolled(other, seed=5)
    store_id = disk.contents(FIRST)[64:80]
    disk.overwrite(name, other.contents(name))
    recovery = await _read_as(disk, bytes(64) + store_id)
    assert recovery.damage is not None
    assert recovery.damage.path == name
    assert "another store" in str(recovery.damage)
    assert all(group.failure is not None for group in recovery.groups.values())


async def test_ST_11_files_that_changed_places_are_refused(disk: SimulatedDisk) -> None:
    await rolled(disk)
    data = disk.contents(SECOND)
    disk.overwrite(THIRD, data)
    recovery = await read(disk)
    assert recovery.damage is not None
    assert "made as number 2" in str(recovery.damage)


async def test_a_batch_of_another_file_is_no_batch_of_this_one(disk: SimulatedDisk) -> None:
    await rolled(disk)
    first, third = disk.contents(FIRST), disk.contents(THIRD)
    start = batches(third)[-1]
    disk.overwrite(THIRD, third[:start] + first[512:1024])
    recovery = await read(disk)
    assert recovery.cut is None
    refuses(recovery, 1, 2, path=THIRD, offset=start)


# -- from the future -------------------------------------------------------------------------------------------------------------


async def test_ST_22_a_log_of_a_later_format_is_refused_and_untouched(disk: SimulatedDisk) -> None:
    await rolled(disk)
    disk.overwrite(f"{LOG}/00000004.wal.tmp", b"left over")
    header = bytearray(disk.contents(THIRD))
    struct.pack_into("<I", header, 12, 2)
    struct.pack_into("<I", header, 8, zlib.crc32(header[12:80]))
    disk.overwrite(THIRD, bytes(header) + b"torn")
    before = {path: disk.contents(path) for path in ("data/node.toml", FIRST, SECOND, THIRD)}
    with pytest.raises(StorageError, match="later version") as caught:
        await found_on(disk)
    assert caught.value.kind == "format"
    assert caught.value.path == THIRD
    assert {path: disk.contents(path) for path in before} == before
    assert "00000004.wal.tmp" in disk.names(LOG)


# -- leftovers, and what was never synced ----------------------------------------------------------------------------------------


async def test_leftover_temporary_files_are_removed_and_never_loaded(disk: SimulatedDisk) -> None:
    """As SN-10."""
    await rolled(disk)
    expected = await found_on(disk)
    disk.overwrite(f"{LOG}/00000004.wal.tmp", disk.contents(THIRD))
    disk.overwrite("data/node.toml.tmp", b"format = 99")
    disk.overwrite(f"{LOG}/readme", b"not ours")
    assert await found_on(disk) == expected
    assert disk.names(LOG) == ["00000001.wal", "00000002.wal", "00000003.wal", "readme"]
    assert disk.names("data") == ["node.toml", "wal"]


async def test_what_a_killed_process_wrote_is_synced_before_it_counts(disk: SimulatedDisk) -> None:
    """The kernel still has it, the metal has not. Whoever reads it and builds on it must not lose it to a power cut."""
    disk.dead_calls = "raise"
    storage = wal(disk.mount(), sync_on_write=False)
    async with serving(storage):
        group = await start_group(storage, G1)
        await group.write_and_wait(*entries(G1, 1, 4))
        disk.kill()
        reopened = wal(disk.mount())
        await reopened.open(1, "demo")
        found = await state_of(reopened)
        disk.crash("none")
        assert await found_on(disk) == found
        assert len(found[1].entries) == 3


async def test_recovery_of_a_log_of_many_groups_names_each(disk: SimulatedDisk) -> None:
    """A header of many groups spans sectors; a lost one among them is a tear too."""
    storage = wal(disk.mount())
    await storage.open(1, "demo")
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as creators:
            for number in range(300):
                creators.start_soon(storage.create_group, record(GroupKey(number)))
            await trio.testing.wait_all_tasks_blocked()
            await nursery.start(storage.serve)
        nursery.cancel_scope.cancel()
    await storage.aclose()
    data = disk.contents(FIRST)
    assert len((await read(disk)).groups) == 300
    start = batches(data)[-1]
    header = decode_batch_header(data, start, data[32:48])
    assert header is not None
    assert header.group_count == 300
    disk.overwrite(FIRST, patched(data, start + 2 * SECTOR, bytes(SECTOR)))
    assert (await read(disk)).cut == start
    disk.overwrite(FIRST, patched(data, start + 2 * SECTOR, b"????"))
    recovery = await read(disk)
    assert recovery.cut is None
    assert recovery.damage is not None


# -- batches that nobody wrote like this --------------------------------------------------------------------------------------------


def forged(data: bytes, *bodies: list[bytes], skip: int = 0) -> bytes:
    """The file with further batches behind it, each of group 1, with right checksums."""
    identity = data[32:48]
    header = decode_batch_header(data, batches(data)[-1], identity)
    assert header is not None
    sequences = range(header.sequence + 1 + skip, header.sequence + 1 + skip + len(bodies))
    return data + b"".join(bytes(encode_batch(identity, number, [1], body).data) for number, body in zip(sequences, bodies, strict=True))


@pytest.mark.parametrize(
    "segments, complaint",
    [
        ([encode_group(record(G1, 1, 9))], "made twice"),
        ([encode_tombstone(GroupKey(1, 3), Member(1)), encode_group(record(GroupKey(1, 3)))], "had been removed"),
        ([encode_tombstone(GroupKey(1, 3), Member(1)), encode_write(G1, HardState(9, 1), ())], "does not exist"),
        ([encode_write(GroupKey(1, 2), None, entries(GroupKey(1, 2), 1, 2))], "does not exist"),
        ([struct.pack("<B3xIQI", 77, 0, 1, 1)], "unknown kind"),
        ([struct.pack("<B3xIQI", 2, 3, 1, 1) + b"abc"], "another size"),
        ([struct.pack("<B3xIQI", 4, 0, 1, 1)], "another size"),
        ([struct.pack("<B3xIQI", 1, 24, 1, 1) + bytes(24)], ""),
        ([b"\2\0\0"], "cut off"),
        ([bytes(20)], "unknown kind"),
    ],
)
async def test_a_batch_that_makes_no_sense_is_damage(disk: SimulatedDisk, segments: list[bytes], complaint: str) -> None:
    data = await three_batches(disk)
    disk.overwrite(FIRST, forged(data, segments))
    recovery = await read(disk)
    refuses(recovery, 1, offset=len(data))
    assert complaint in str(recovery.groups[1].failure)
    assert log_of(recovery, 2) == ["1@1", "2@1"]


async def test_a_group_that_is_made_twice_alike_is_made_once(disk: SimulatedDisk) -> None:
    """Asked for again, because the first time was cancelled after it had been written."""
    data = await three_batches(disk)
    disk.overwrite(FIRST, forged(data, [encode_group(record(G1))]))
    recovery = await read(disk)
    refuses(recovery)
    assert len(log_of(recovery, 1)) == 8


async def test_ST_11_a_batch_that_is_missing_in_the_sequence(disk: SimulatedDisk) -> None:
    data = await three_batches(disk)
    disk.overwrite(FIRST, forged(data, [encode_write(G1, HardState(9, 1), ())], skip=1))
    recovery = await read(disk)
    refuses(recovery, 1, 2, offset=len(data))
    # And one that comes twice.
    disk.overwrite(FIRST, data + data[batches(data)[-1] :])
    refuses(await read(disk), 1, 2, offset=len(data))


async def test_what_lies_behind_a_batch_was_written_after_its_sync(disk: SimulatedDisk) -> None:
    """So a batch with a lost sector is no torn one, even if what is behind it is unreadable."""
    data = await three_batches(disk)
    start = batches(data)[-1]
    disk.overwrite(FIRST, patched(data, start + SECTOR, bytes(SECTOR)) + b"unreadable".ljust(SECTOR, b"\0"))
    recovery = await read(disk)
    assert recovery.cut is None
    refuses(recovery, 1, 2)


async def test_healing_counts_for_damage_before_it_only(disk: SimulatedDisk) -> None:
    data = await three_batches(disk)
    first, second = GroupKey(1, 2), encode_write(G2, HardState(9, 1), ())
    healed = forged(
        data, [second], [encode_tombstone(G1, Member(1)), encode_group(record(first))], [encode_write(first, HardState(4, 1), ())]
    )
    before, _, after = batches(healed)[-3:]
    disk.overwrite(FIRST, patched(healed, before, b"?"))
    recovery = await read(disk)
    refuses(recovery, 2, offset=before)
    assert recovery.groups[1].durable.hard_state == HardState(4, 1)
    disk.overwrite(FIRST, patched(healed, after, b"?"))
    refuses(await read(disk), 1, 2, offset=after)


async def test_a_log_that_lost_its_newest_file_is_not_cut(disk: SimulatedDisk) -> None:
    """What would be torn at the end of the newest file is damage now, and stays."""
    await rolled(disk)
    await found_on(disk)
    disk.delete(THIRD)
    data = disk.contents(SECOND)
    disk.overwrite(SECOND, torn := data[: batches(data)[-1] + 100])
    for _ in range(2):
        found = await found_on(disk)
        assert all(group.failure is not None for group in found.values())
        assert disk.contents(SECOND) == torn
