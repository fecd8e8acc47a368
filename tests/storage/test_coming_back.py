"""A replica that comes back to a group which was removed from its node: two lives under one key, in one log and one directory."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import trio
import trio.testing

from tests.storage.cleaning import History, check_removals, wal
from tests.storage.kit import BASE, FIRST, G1, G2, G3, batches, entries, hold, patched, read_all, record, serving, start_group
from trioraft._errors import CorruptLogError, GroupExistsError, StorageError
from trioraft._types import NOTHING, EntryId, GroupKey, Member
from trioraft.core import Configuration, HardState
from trioraft.storage import EVERY_NUMBER, DiskCall, FileStorage, GroupRecord, MultiRaftStorage, SimulatedDisk, StorageConfig
from trioraft.storage._segment import (
    encode_at_rest,
    encode_carried,
    encode_group,
    encode_tombstone,
    encode_write,
)
from trioraft.storage._table import Body, Table
from trioraft.testing._storage_parts import called, joining

quiet = trio.testing.wait_all_tasks_blocked

NUMBER = EntryId(1, 5)
BACK = joining(G1, NUMBER)


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk(random.Random(1))


def files(disk: SimulatedDisk, seed: int = 0) -> FileStorage:
    return FileStorage(StorageConfig(base_dir=BASE, max_log_file_size=4096), disk.mount(), random_bytes=random.Random(seed).randbytes)


async def payloads(storage: MultiRaftStorage, number: int) -> set[bytes]:
    found = storage.recovered[number]
    return {entry.payload for entry in await read_all(storage.get_log_storage(number), found)}


# -- power cuts -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_a_power_cut_at_every_step(seed: int) -> None:
    """Of a removal, of the return, and of its first writes; with files at rest and snapshots of both lives."""
    history = History(random.Random(seed), groups=2, max_log_file_size=4096)
    async with serving(history.storage):
        await history.furnish()
        history.disk.hook = history.note
        for _ in range(2):
            history.write(1, low=history.stories[1].state.last + 1, size=20, learns=True)
            await history.remove(1)
            await history.come_back(1)
            history.write(1, low=1, count=6, size=300, learns=True)
            await history.compact(1, 4, keep=3)
            history.write(2, size=900)
            await history.confirm(2)
        await history.confirm(1)
        await quiet()
    counts = await check_removals(history)
    assert counts["sync log"] > 5


# -- what is under way for the first life ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [300, 3000], ids=["carried", "at rest"])
async def test_what_was_moved_for_the_first_life_is_not_said_of_the_second(disk: SimulatedDisk, size: int) -> None:
    """The mover has copied entries of group 2, and has not told the log yet, when that is removed and comes back."""
    storage = wal(disk.mount(), max_log_file_size=16384)
    held, may_pass = trio.Event(), trio.Event()

    async def hold_group_1(call: DiskCall) -> None:
        if "group-1/logs" in call.path:
            held.set()
            await may_pass.wait()

    async with serving(storage):
        one, two, filler = [await start_group(storage, key) for key in (G1, G2, G3)]
        await one.write_and_wait(*entries(G1, 1, 4, payload=bytes(3000)))
        await two.write_and_wait(*entries(G2, 1, 3, payload=b"1" * size), me=called(1, 5))
        disk.hook = hold_group_1
        index = 1
        while not held.is_set():
            await filler.write_and_wait(*entries(G3, index, index + 1, payload=bytes(3000)))
            index += 1
            await quiet()
        assert storage._cleaner is not None
        assert 2 in storage._cleaner._mover.in_flight
        await storage.remove_group(G2)
        two = await start_group(storage, G2, joining(G2, NUMBER))
        await two.write_and_wait(*entries(G2, 1, 3, payload=b"2" * size), me=called(1, 6))
        may_pass.set()
        await quiet()
        assert not storage._cleaner._mover.in_flight
        assert await payloads(storage, 2) == {b"2" * size}
        row = storage._table.rows[2]
        assert not row.at_rest
        places = list(row.places(1))
        assert [(place.first, place.last) for place in places] == [(1, 2)], "in one piece, as it was written"
    async with serving(storage := wal(disk.mount(), seed=2, max_log_file_size=16384)):
        assert await payloads(storage, 2) == {b"2" * size}


async def test_reading_for_the_first_life_while_the_second_begins(disk: SimulatedDisk) -> None:
    reached, may_pass = trio.Event(), trio.Event()

    async def hold_read(call: DiskCall) -> None:
        if call.verb == "read" and call.path == FIRST:
            reached.set()
            await may_pass.wait()

    outcome: list[object] = []
    async with serving(storage := wal(disk.mount())) as nursery:
        first = await start_group(storage, G1)
        await first.write_and_wait(*entries(G1, 1, 4, payload=b"first"), me=called(1, 5))

        async def read() -> None:
            try:
                outcome.append(await read_all(first.log, storage.recovered[1]))
            except StorageError as error:
                outcome.append(error.kind)

        disk.hook = hold_read
        nursery.start_soon(read)
        await reached.wait()
        await storage.remove_group(G1)
        second = await start_group(storage, G1, BACK)
        await second.write_and_wait(*entries(G1, 1, 4, payload=b"second"), me=called(1, 6))
        may_pass.set()
        await quiet()
    assert outcome == ["removed"]


# -- what the log says ----------------------------------------------------------------------------------------------------------


def said(*segments: bytes, table: Table | None = None) -> Table:
    """What a table makes of segments, each in a batch of its own."""
    if table is None:
        table = Table("wal")
        table.add_file(1)
    for number, data in enumerate(segments):
        table.apply(Body({1}, table.files.numbers[-1], number, data, 0, len(data), 0))
    return table


FIRST_LIFE = [encode_group(record(G1)), encode_write(G1, HardState(1, 2), entries(G1, 1, 4), None, Member(1, NUMBER))]
GRAVE = encode_tombstone(G1, Member(1, NUMBER))


def test_the_first_lifes_moves_behind_its_tombstone_say_nothing() -> None:
    carried, at_rest = encode_carried(G1, entries(G1, 1, 3)), encode_at_rest(G1, 1, 3, 500, [(1, 1)])
    table = said(*FIRST_LIFE, GRAVE, carried, at_rest, encode_group(BACK))
    row = table.rows[1]
    assert (row.failure, row.terms.last_index, list(row.places(1))) == (None, 0, [])
    assert row.recovered().record == BACK


@pytest.mark.parametrize(
    ("segments", "text"),
    [
        ([encode_write(G1, None, (), None, Member(1, NUMBER))] * 2, "only rises"),
        ([encode_write(G1, None, (), None, Member(1, NUMBER)), encode_write(G1, None, (), None, called(1, 4))], "only rises"),
        ([encode_write(G1, None, (), None, Member(1, NUMBER)), encode_tombstone(G1, called(1, 4))], "bars numbers up to 4@1"),
        ([GRAVE, encode_tombstone(G1, called(1, 4))], "bars numbers up to 4@1"),
        ([GRAVE, encode_group(joining(G1, EntryId(1, 4)))], "those up to 5@1 are barred"),
        ([GRAVE, encode_group(GroupRecord(G1, called(1, 6), Configuration(())))], "a higher incarnation"),
        ([encode_tombstone(G1, Member(1, EVERY_NUMBER)), encode_group(joining(G1, EVERY_NUMBER))], "all are barred"),
        ([GRAVE, encode_write(G1, None, (), None, called(1, 7)), encode_group(BACK), encode_group(record(G1))], "made twice"),
    ],
)
def test_what_cannot_be_is_damage(segments: Sequence[bytes], text: str) -> None:
    failure = said(encode_group(record(G1)), *segments).rows[1].failure
    assert isinstance(failure, CorruptLogError)
    assert text in str(failure)


async def test_a_second_life_is_found_wherever_the_log_begins(disk: SimulatedDisk) -> None:
    """Each log file is taken away in turn, as the cleaner would: the checkpoint of the next one says it all."""
    async with serving(storage := wal(disk.mount(), max_log_file_size=4096)):
        other = await start_group(storage, G2)
        barred = NOTHING
        for life in range(1, 5):
            group = await start_group(storage, G1, joining(G1, barred))
            for index in range(1, 7):
                me = called(life, index) if index in (2, 5) else None
                await group.write_and_wait(*entries(G1, index, index + 1, payload=b"%d" % life * 200), me=me)
                await other.write_and_wait(state=HardState(10 * life + index))
            if life < 4:
                await storage.remove_group(G1)
                barred = storage.recovered[1].barred
                assert barred == EntryId(life, 5)
        await quiet()
        assert disk.names(f"{BASE}/wal")[0] != "00000001.wal"
    for _ in range(3):
        async with serving(storage := wal(disk.mount(), seed=2, max_log_file_size=4096)):
            assert storage.recovered[1].record == GroupRecord(G1, called(4, 5), Configuration(()))
            assert await payloads(storage, 1) == {b"4" * 200}
            await quiet()


# -- damage -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [100, 20], ids=["of the group", "of nobody knows whom"])
async def test_damage_in_the_first_life_does_not_stop_the_second(disk: SimulatedDisk, place: int) -> None:
    async with serving(storage := wal(disk.mount())):
        first = await start_group(storage, G1)
        await first.write_and_wait(*entries(G1, 1, 4, payload=b"first"), me=called(1, 5))
        await storage.remove_group(G1)
        second = await start_group(storage, G1, BACK)
        await second.write_and_wait(*entries(G1, 1, 4, payload=b"second"), me=called(1, 6))
    data = disk.contents(FIRST)
    for batch in (0, 1):
        twin = disk.fork(random.Random(batch))
        twin.overwrite(FIRST, patched(data, batches(data)[batch] + place, b"?"))
        for seed in (2, 3):
            async with serving(storage := wal(twin.mount(), seed=seed)):
                assert storage.recovered[1].record == GroupRecord(G1, called(1, 6), Configuration(()))
                assert await payloads(storage, 1) == {b"second"}
                await hold(storage, G1).write_and_wait(*entries(G1, seed + 2, seed + 3, payload=b"second"))


async def damaged(disk: SimulatedDisk, kind: str, *, behind: bool) -> MultiRaftStorage:
    """A group that learned 5@1, was damaged, and learned 8@1 behind or before that."""
    make = (lambda seed: wal(disk.mount(), seed=seed)) if kind == "wal" else (lambda seed: files(disk, seed))
    async with serving(storage := make(0)):
        group = await start_group(storage, G1, joining(G1))
        await group.write_and_wait(*entries(G1, 1, 4), me=called(1, 5))
        if not behind:
            await group.write_and_wait(me=called(1, 8))
        await group.write_and_wait(*entries(G1, 4, 9))
        if behind:
            await group.write_and_wait(me=called(1, 8))
        await group.write_and_wait(*entries(G1, 9, 10))
    path = FIRST if kind == "wal" else f"{BASE}/group-1/logs/entries-00000001.log"
    data = disk.contents(path)
    rotten = batches(data)[(2 if behind else 3) - (kind == "files")]
    disk.overwrite(path, patched(data, rotten + 100, b"?"))
    return make(2)


@pytest.mark.parametrize("behind", [True, False])
@pytest.mark.parametrize("kind", ["wal", "files"])
async def test_which_numbers_a_damaged_group_bars(disk: SimulatedDisk, kind: str, behind: bool) -> None:
    """All of them; or those up to what the caller knows, and up to any that can be read, in whatever order they were written."""
    storage = await damaged(disk, kind, behind=behind)
    twin = disk.fork(random.Random(3))
    async with serving(storage):
        assert storage.recovered[1].failure is not None
        await storage.remove_group(G1)
        assert storage.recovered[1].barred == EVERY_NUMBER
        with pytest.raises(GroupExistsError, match="all are barred"):
            await storage.create_group(joining(G1, EVERY_NUMBER))
        await storage.create_group(joining(GroupKey(1, 2)))
    for asked, expected in ((EntryId(1, 6), EntryId(1, 8)), (EntryId(2, 1), EntryId(2, 1))):
        again = twin.fork(random.Random(4))
        async with serving(storage := wal(again.mount(), seed=3) if kind == "wal" else files(again, 3)):
            await storage.remove_group(G1, asked)
            await storage.remove_group(G1, asked)
            assert storage.recovered[1].barred == expected
            group = await start_group(storage, G1, joining(G1, expected))
            await group.write_and_wait(*entries(G1, 1, 3, payload=b"second"), me=called(3, 1))
        async with serving(storage := wal(again.mount(), seed=4) if kind == "wal" else files(again, 4)):
            assert storage.recovered[1].record == GroupRecord(G1, called(3, 1), Configuration(()))
            assert await payloads(storage, 1) == {b"second"}
