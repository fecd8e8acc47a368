"""Groups that go leave nothing behind, and groups that come find nothing."""

from __future__ import annotations

import errno
import random
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.storage.cleaning import History, check_removals, cleaning, found_by, wal
from tests.storage.kit import BASE, FIRST, G1, G2, batches, entries, hold, patched, record, serving, start_group
from trioraft._errors import CorruptLogError, GroupExistsError, GroupNotFoundError, StorageError
from trioraft._types import EntryId, GroupKey
from trioraft.core import HardState
from trioraft.storage import (
    EVERY_NUMBER,
    DiskCall,
    FileStorage,
    MultiRaftStorage,
    SimulatedDisk,
    StorageConfig,
    WalStorage,
)
from trioraft.storage._group_directory import group_of_directory
from trioraft.storage._trouble import RETRY_SECONDS_MAX
from trioraft.testing._storage_parts import called, joining
from trioraft.wire import RECORD_HEADER_SIZE

quiet = trio.testing.wait_all_tasks_blocked
AGAIN = GroupKey(1, 2)
OWN = f"{BASE}/group-1"


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk(random.Random(1))


def own_files(disk: SimulatedDisk) -> list[str]:
    """What lies in group 1's directory."""
    try:
        return [f"{part}/{name}" for part in disk.names(OWN) for name in disk.names(f"{OWN}/{part}")]
    except FileNotFoundError:
        return []


def is_gone(disk: SimulatedDisk) -> bool:
    return "group-1" not in disk.names(BASE)


async def furnish(disk: SimulatedDisk, storage: WalStorage) -> None:
    """Make group 1, with one of everything in its directory."""
    group, other = await start_group(storage, G1), await start_group(storage, G2)
    await group.write_and_wait(*entries(G1, 1, 7, payload=bytes(600)))
    writer = await group.log.snapshots.create(EntryId(1, 3))
    await writer.append(b"snapshot")
    await writer.commit()
    index = 1
    while "logs/1.log" not in own_files(disk):
        await other.write_and_wait(*entries(G2, index, index + 1, payload=bytes(1000)))
        index += 1
        await quiet()
    await (await group.log.snapshots.create(EntryId(1, 5))).append(b"never committed")
    assert own_files(disk) == ["logs/1.log", "snapshots/3-1.snap", "snapshots/5-1.snap.2.tmp"]


def refusing(verb: str, part: str) -> Callable[[DiskCall], Awaitable[None]]:
    async def refuse(call: DiskCall) -> None:
        if call.verb == verb and part in call.path:
            raise OSError(errno.EIO, "on purpose")

    return refuse


# -- what goes ------------------------------------------------------------------------------------------------------------------


async def test_a_removed_group_leaves_no_files(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        await furnish(disk, storage)
        await storage.remove_group(G1)
        await quiet()
        assert disk.names(BASE) == ["group-2", "node.toml", "wal"]
    disk.crash("none")
    assert is_gone(disk), "durably"


async def test_on_a_real_disk_too(tmp_path: object) -> None:
    base = f"{tmp_path}/node"
    storage = WalStorage(StorageConfig(base_dir=base))
    async with serving(storage):
        group = await start_group(storage, G1)
        writer = await group.log.snapshots.create(EntryId(1, 3))
        await writer.append(b"snapshot")
        await writer.commit()
        assert await trio.Path(f"{base}/group-1/snapshots/3-1.snap").exists()
        await storage.remove_group(G1)
        assert not await trio.Path(f"{base}/group-1").exists()
        again = await start_group(storage, AGAIN)
        writer = await again.log.snapshots.create(EntryId(1, 3))
        await writer.commit()
        assert await trio.Path(f"{base}/group-1/snapshots/3-1.snap").exists()


async def test_what_is_not_ours_stays_and_is_told(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192)
    foreign = ["logs/7.log.gz", "notes.txt", "snapshots/03-1.snap", "state_machine/counter.db", "state_machine/counter.db.tmp"]
    async with serving(storage):
        await furnish(disk, storage)
        await disk.mount().make_directory(f"{OWN}/state_machine")
        for name in foreign:
            disk.overwrite(f"{OWN}/{name}", b"somebody's")
        await storage.remove_group(G1)
        await quiet()
        assert cleaning(storage).directories_left == (OWN,)
        again = await start_group(storage, AGAIN)
        await again.write_and_wait(*entries(AGAIN, 1, 2))
    disk.crash("none")
    assert disk.names(OWN) == ["logs", "notes.txt", "snapshots", "state_machine"]
    left = [f"{part}/{name}" for part in ("logs", "snapshots", "state_machine") for name in disk.names(f"{OWN}/{part}")]
    assert sorted([*left, "notes.txt"]) == foreign


async def test_a_file_in_the_place_of_a_directory(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    async with serving(storage):
        for number in (1, 2):
            await storage.create_group(record(GroupKey(number)))
        disk.overwrite(OWN, b"a file")
        await disk.mount().make_directory(f"{BASE}/group-2")
        disk.overwrite(f"{BASE}/group-2/logs", b"a file")
        await storage.remove_group(G1)
        await storage.remove_group(G2)
        assert cleaning(storage).directories_left == (OWN, f"{BASE}/group-2")
    assert disk.contents(OWN) == disk.contents(f"{BASE}/group-2/logs") == b"a file"


def test_names_of_directories() -> None:
    assert group_of_directory("group-0") == 0
    assert group_of_directory("group-17") == 17
    for name in ("group-", "group-017", "group-17.bak", "group-17\n", "Group-17", "xgroup-17", "group--1", "group-1e3", "group-١٧"):
        assert group_of_directory(name) is None, name


# -- what comes later -----------------------------------------------------------------------------------------------------------


async def test_who_still_writes_for_a_removed_group_is_refused(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    async with serving(storage):
        group = await start_group(storage, G1)
        snapshots = group.log.snapshots
        early, late = await snapshots.create(EntryId(1, 3)), await snapshots.create(EntryId(1, 5))
        await late.append(b"late")
        await early.commit()
        await storage.remove_group(G1)
        assert is_gone(disk)
        again = await start_group(storage, AGAIN)
        new = await again.log.snapshots.create(EntryId(1, 5))
        await new.append(b"new")
        for call in (
            lambda: late.append(b"more"),
            late.commit,
            lambda: snapshots.create(EntryId(1, 7)),
            lambda: snapshots.open(EntryId(1, 3)),
        ):
            with pytest.raises(StorageError):
                await call()
        await late.discard()
        await new.commit()
        assert own_files(disk) == ["snapshots/5-1.snap"]
        reader = await again.log.snapshots.open(EntryId(1, 5))
        assert await reader.read(0, 10) == b"new"
        reader.close()


async def test_a_write_that_is_under_way_is_waited_for(disk: SimulatedDisk) -> None:
    """Whatever a cancelled task of the group is still at in a thread, it does not come after the removal."""
    storage = wal(disk.mount())
    reached, may_pass = trio.Event(), trio.Event()

    async def hold_rename(call: DiskCall) -> None:
        if call.verb == "rename" and "group-1" in call.path:
            reached.set()
            await may_pass.wait()

    async with serving(storage) as nursery:
        group = await start_group(storage, G1)
        writer = await group.log.snapshots.create(EntryId(1, 3))
        disk.hook = hold_rename
        nursery.start_soon(writer.commit)
        await reached.wait()
        nursery.start_soon(storage.remove_group, G1)
        await quiet()
        assert not is_gone(disk)
        assert storage.recovered[1].tombstone == G1, "the group is gone, its files are not yet"
        may_pass.set()
        await quiet()
        assert is_gone(disk)


# -- what a crash or an error left ----------------------------------------------------------------------------------------------


async def leave_over(disk: SimulatedDisk) -> None:
    """Group 1 is removed, and its directory is not."""
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        await furnish(disk, storage)
        disk.hook = refusing("remove", OWN)
        await storage.remove_group(G1)
    disk.hook = None
    disk.crash("none")
    assert "logs/1.log" in own_files(disk)


async def test_leftovers_are_removed_in_the_background_of_the_next_start(disk: SimulatedDisk) -> None:
    await leave_over(disk)
    touched: list[str] = []

    async def note(call: DiskCall) -> None:
        if "group-" in call.path:
            touched.append(call.path)

    disk.hook = note
    storage = wal(disk.mount())
    await storage.open(1, "demo")
    assert touched == [], "a start opens no directory of a group"
    async with trio.open_nursery() as nursery:
        await nursery.start(storage.serve)
        await quiet()
        assert is_gone(disk)
        assert not [path for path in touched if "group-2" in path], "and living groups' never"
        nursery.cancel_scope.cancel()
    await storage.aclose()


async def test_a_new_incarnation_finds_nothing_of_the_old_one(disk: SimulatedDisk) -> None:
    await leave_over(disk)
    storage = wal(disk.mount())
    gate = trio.Event()

    async def hold_cleaner(call: DiskCall) -> None:
        if "group-1" in call.path and not gate.is_set():
            await gate.wait()

    async with serving(storage) as nursery:
        disk.hook = hold_cleaner
        nursery.start_soon(storage.create_group, record(AGAIN))
        await quiet()
        assert storage.recovered[1].tombstone == G1, "not before the old directory is empty"
        gate.set()
        await quiet()
        assert storage.recovered[1].record == record(AGAIN)
        assert is_gone(disk)
    disk.crash("none")
    assert is_gone(disk)


async def test_a_removal_that_fails_is_tried_again(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        await furnish(disk, storage)
        for verb in ("remove", "rmdir", "list"):
            disk.hook = refusing(verb, OWN)
            await storage.remove_group(G1)
            await trio.sleep(RETRY_SECONDS_MAX)
            assert not is_gone(disk)
            assert cleaning(storage).trouble == f"{OWN}: on purpose"
            with pytest.raises(StorageError, match="on purpose"):
                await storage.create_group(record(AGAIN))
        disk.hook = None
        await trio.sleep(2 * RETRY_SECONDS_MAX)
        assert is_gone(disk)
        assert cleaning(storage).trouble is None
        await storage.create_group(record(AGAIN))


async def test_a_cancelled_removal_is_finished_by_the_cleaner(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        await furnish(disk, storage)
        with trio.CancelScope() as scope:

            async def cancel(call: DiskCall) -> None:
                if "group-1" in call.path:
                    scope.cancel()

            disk.hook = cancel
            await storage.remove_group(G1)
        disk.hook = None
        await quiet()
        assert is_gone(disk)


async def test_directories_of_unknown_groups_stay_until_somebody_makes_the_group(disk: SimulatedDisk) -> None:
    """No crash makes one: so a part of the log is lost that nobody missed, and this may be all that is left."""
    for name in ("group-8", "group-9", "group-09", "group-9.bak", "backup"):
        await disk.mount().make_directory(f"{BASE}/{name}/snapshots")
        disk.overwrite(f"{BASE}/{name}/snapshots/3-1.snap", b"snapshot")
    storage = wal(disk.mount())
    async with serving(storage):
        await quiet()
        assert {"group-8", "group-9", "group-09", "group-9.bak", "backup"} <= set(disk.names(BASE))
        await storage.create_group(record(GroupKey(9)))
        with pytest.raises(StorageError, match="no such file"):
            await storage.get_log_storage(9).snapshots.open(EntryId(1, 3))
    assert {"group-8", "group-09", "group-9.bak", "backup"} <= set(disk.names(BASE))
    assert disk.contents(f"{BASE}/group-8/snapshots/3-1.snap") == b"snapshot"


async def test_nothing_is_removed_in_the_background_while_a_group_is_damaged(disk: SimulatedDisk) -> None:
    await leave_over(disk)
    name = disk.names(f"{BASE}/wal")[-1]
    data = disk.contents(f"{BASE}/wal/{name}")
    place = data.index(bytes(1000))
    disk.overwrite(f"{BASE}/wal/{name}", patched(data, place - RECORD_HEADER_SIZE, b"\xff"))
    storage = wal(disk.mount())
    async with serving(storage):
        await quiet()
        assert isinstance(storage.recovered[2].failure, CorruptLogError)
        assert not is_gone(disk)
        await storage.create_group(record(AGAIN))
        assert is_gone(disk), "whoever asks for it gets it"
        await storage.remove_group(G2)
        assert storage.recovered[2].tombstone == G2


# -- power cuts -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_a_power_cut_at_every_step(seed: int) -> None:
    """A group is whole or gone; and when it is made anew, nothing of the old one is there."""
    history = History(random.Random(seed), groups=2, max_log_file_size=4096)
    async with serving(history.storage):
        await history.furnish()
        history.disk.hook = history.note
        await history.remove(1)
        await quiet()
        await history.create(1)
        history.write(1, low=1, count=2, size=20)
        await history.compact(1, 2)
        await history.remove(1)
        await history.create(1)
        history.write(1, low=1, count=2, size=20)
        await history.confirm(1)
    await check_removals(history)


@pytest.mark.parametrize("keep", ["none", "all", "random"])
async def test_what_a_power_cut_left_of_a_removal_goes_at_the_next_start(keep: str) -> None:
    disk = SimulatedDisk(random.Random(1))
    copies: list[SimulatedDisk] = []

    async def copy(call: DiskCall) -> None:
        copies.append(disk.fork(random.Random(len(copies))))

    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        await furnish(disk, storage)
        disk.hook = copy
        await storage.remove_group(G1)
        await quiet()
    assert len(copies) > 10
    gone = 0
    for twin in copies:
        twin.crash(keep)  # type: ignore[arg-type]  # of any type
        async with serving(again := wal(twin.mount(), max_log_file_size=8192)):
            await quiet()
            state = await found_by(again, 1) if again.recovered[1].record is None else None
            if state is None:
                assert "logs/1.log" in own_files(twin), "whole"
                log = hold(again, G1).log
                reader = await log.snapshots.open(EntryId(1, 3))
                reader.close()
            else:
                gone += 1
                assert is_gone(twin), "gone"
    assert gone > 5


# -- what is not known of it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [GroupKey(1), GroupKey(1, 4), GroupKey(1, 7)], ids=str)
async def test_who_lost_its_vote_does_not_come_again_whoever_it_was(disk: SimulatedDisk, asked: GroupKey) -> None:
    """Its beginning is unreadable; what it wrote later says which incarnation it was."""
    key = GroupKey(1, 5)
    async with serving(storage := wal(disk.mount())):
        group = await start_group(storage, key)
        await group.write_and_wait(*entries(key, 1, 4), state=HardState(9, 2))
    data = disk.contents(FIRST)
    disk.overwrite(FIRST, patched(data, batches(data)[0] + 100, b"?"))
    async with serving(storage := wal(disk.mount(), seed=2)):
        assert storage.recovered[1].record is None
        await storage.remove_group(asked)
        await storage.remove_group(asked)
        assert storage.recovered[1].tombstone == max(asked, key)
        with pytest.raises(GroupExistsError):
            await storage.create_group(record(key))
    async with serving(storage := wal(disk.mount(), seed=3)):
        assert storage.recovered[1].tombstone == max(asked, key)
        await storage.create_group(record(GroupKey(1, 8)))


async def test_damage_that_hides_a_later_replica(disk: SimulatedDisk) -> None:
    async with serving(storage := wal(disk.mount())):
        await start_group(storage, G1)
        await storage.remove_group(G1)
        count = len(batches(disk.contents(FIRST)))
        group = await start_group(storage, AGAIN)
        await group.write_and_wait(*entries(AGAIN, 1, 4), state=HardState(9, 2))
    data = disk.contents(FIRST)
    for place in (1, count):
        data = patched(data, batches(data)[place] + 100, b"?")
    disk.overwrite(FIRST, data)
    async with serving(storage := wal(disk.mount(), seed=2)):
        assert storage.recovered[1].record == record(G1)
        await storage.remove_group(G1)
        assert storage.recovered[1].tombstone == AGAIN


@pytest.mark.parametrize("kind", ["wal", "files"])
async def test_a_number_says_nothing_of_another_incarnation(disk: SimulatedDisk, kind: str) -> None:
    """A caller who takes a damaged replica for an earlier one names a number of that: it must not let this one come again."""
    key, wrong = GroupKey(1, 5), GroupKey(1, 3)
    config = StorageConfig(base_dir=BASE)

    def make(seed: int) -> MultiRaftStorage:
        return (
            wal(disk.mount(), seed=seed) if kind == "wal" else FileStorage(config, disk.mount(), random_bytes=random.Random(seed).randbytes)
        )

    async with serving(storage := make(0)):
        group = await start_group(storage, key, joining(key))
        await group.write_and_wait(*entries(key, 1, 4), state=HardState(9, 2), me=called(8, 8))
        await group.write_and_wait(*entries(key, 4, 6))
    if kind == "wal":
        data = disk.contents(FIRST)
        for place in (0, 1):  # how it began, and the number that it learned
            data = patched(data, batches(data)[place] + 100, b"?")
        disk.overwrite(FIRST, data)
    else:
        disk.overwrite(f"{OWN}/logs/vote.dat", patched(disk.contents(f"{OWN}/logs/vote.dat"), 40, b"?"))
    async with serving(storage := make(2)):
        assert storage.recovered[1].record is None
        with pytest.raises(GroupNotFoundError, match="incarnation 5"):
            await storage.remove_group(wrong, EntryId(2, 9))
        assert isinstance(storage.recovered[1].failure, CorruptLogError), "nothing was removed"
        await storage.remove_group(wrong)
        assert storage.recovered[1].tombstone == key
        assert storage.recovered[1].barred == EVERY_NUMBER


# -- a removal that nobody waits for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("touched", [True, False])
async def test_a_group_is_gone_from_the_moment_its_removal_is_on_its_way(
    disk: SimulatedDisk, touched: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """Nothing may be written behind its tombstone."""
    async with serving(storage := wal(disk.mount())):
        await storage.create_group(record(G1))
        if touched:
            await hold(storage, G1).write_and_wait(*entries(G1, 1, 4))
        disk.capacity = 0
        with trio.move_on_after(5) as scope:
            await storage.remove_group(G1)
        assert scope.cancelled_caught
        assert storage.recovered[1].tombstone == G1
        with pytest.raises(GroupNotFoundError):
            storage.get_log_storage(1)
        disk.capacity = None
        await storage.create_group(record(AGAIN))
        again = hold(storage, AGAIN)
        assert storage._logs[1].key == AGAIN
        await again.write_and_wait(*entries(AGAIN, 1, 3))
    async with serving(storage := wal(disk.mount(), seed=2)):
        found = await found_by(storage, 1)
        assert (found.incarnation, found.hard_state) == (2, HardState(1))
