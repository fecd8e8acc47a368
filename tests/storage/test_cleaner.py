"""The cleaner: files go when nobody needs them, and nothing goes with them."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.storage.cleaning import History, check, check_all, cleaning, found_by, snapshot_bytes, wal
from tests.storage.kit import BASE, G1, G2, G3, LOG, Group, entries, found_on, hold, installing, patched, read_all, serving, start_group
from trioraft._errors import CorruptLogError, StorageError
from trioraft._types import EntryId, GroupKey
from trioraft.core import Configuration, Entry, EntryKind, HardState, LoadEntries, encode_configuration
from trioraft.storage import DiskCall, SimulatedDisk, StorageConfig, WalStorage
from trioraft.storage._row import Row
from trioraft.storage._table import Table
from trioraft.storage._trouble import RETRY_SECONDS_MAX
from trioraft.wire import seal

quiet = trio.testing.wait_all_tasks_blocked


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk(random.Random(1))


def log_files(disk: SimulatedDisk) -> list[int]:
    return [int(name.removesuffix(".wal")) for name in disk.names(LOG) if name.endswith(".wal")]


def files_of(disk: SimulatedDisk, group_id: int, part: str = "logs") -> list[str]:
    try:
        return disk.names(f"{BASE}/group-{group_id}/{part}")
    except FileNotFoundError:
        return []


async def fill(group: Group, first: int, *, files: int = 1, size: int = 1000) -> int:
    """Write on until so many log files have begun; return the next index."""
    table = group.storage._table  # type: ignore[attr-defined]  # of the one in use
    target = table.files.numbers[-1] + files
    while table.files.numbers[-1] < target:
        await group.write_and_wait(*entries(group.key, first, first + 1, payload=bytes(size)))
        first += 1
    await quiet()
    return first


async def fill_and_forget(group: Group, first: int, *, files: int) -> int:
    """The same, and cut off what was written: so this group needs no file but the newest."""
    for _ in range(files):
        first = await fill(group, first)
        group.compact(first - 1)
        await group.write_and_wait(*entries(group.key, first, first + 1, payload=b""))
        first += 1
        await quiet()
    return first


def refusing(verb: str, part: str, code: int = errno.EIO) -> Callable[[DiskCall], Awaitable[None]]:
    async def refuse(call: DiskCall) -> None:
        if call.verb == verb and part in call.path:
            raise OSError(code, "on purpose")

    return refuse


class Gate:
    """Holds the disk at one verb in one place until it is opened."""

    def __init__(self, disk: SimulatedDisk, verb: str, part: str) -> None:
        self.verb, self.part, self.reached, self.may_pass = verb, part, trio.Event(), trio.Event()
        disk.hook = self

    async def __call__(self, call: DiskCall) -> None:
        if call.verb == self.verb and self.part in call.path and not self.may_pass.is_set():
            self.reached.set()
            await self.may_pass.wait()


# -- what goes where ------------------------------------------------------------------------------------------------------------


async def test_what_a_snapshot_frees_is_never_copied(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        group = await start_group(storage, G1)
        await fill_and_forget(group, 1, files=6)
        assert log_files(disk) == [7]
        statistics = cleaning(storage)
    assert statistics.files_removed == 6
    assert statistics.bytes_carried == statistics.bytes_at_rest == 0
    assert statistics.trouble is None


async def test_nothing_is_moved_before_two_newer_files_are_there(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        await one.write_and_wait(*entries(G1, 1, 4), state=HardState(1, 2))
        following = await fill_and_forget(two, 1, files=1)
        assert log_files(disk) == [1, 2]
        assert cleaning(storage).bytes_carried == 0
        await fill_and_forget(two, following, files=1)
        assert log_files(disk) == [3]
        assert cleaning(storage).bytes_carried > 0
    assert [str(entry) for entry in (await found_on(disk))[1].entries] == ["1@1", "2@1", "3@1"]


async def test_small_remainders_are_carried_and_large_ones_go_to_rest(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount(), max_log_file_size=1 << 17)
    async with serving(storage):
        small, large, busy = [await start_group(storage, key) for key in (G1, G2, G3)]
        await small.write_and_wait(*entries(G1, 1, 11))
        await large.write_and_wait(*entries(G2, 1, 21, payload=bytes(1000)))
        await fill_and_forget(busy, 1, files=2)
        assert log_files(disk) == [3]
        assert files_of(disk, 1) == []
        assert files_of(disk, 2) == ["1.log"]
        statistics = cleaning(storage)
        assert 0 < statistics.bytes_carried < 2000
        assert 20_000 < statistics.bytes_at_rest < 25_000
        assert statistics.log_files == 1
        assert await read_all(large.log, storage.recovered[2]) == entries(G2, 1, 21, payload=bytes(1000))
    found = await found_on(disk)
    assert found[1].entries == entries(G1, 1, 11)
    assert found[2].entries == entries(G2, 1, 21, payload=bytes(1000))


async def test_only_a_part_of_a_file_is_carried(disk: SimulatedDisk) -> None:
    """Else each file would be filled with what was in the one before."""
    storage = wal(disk.mount(), max_log_file_size=1 << 16)
    async with serving(storage):
        groups = [await start_group(storage, GroupKey(number)) for number in range(2, 22)]
        for group in groups:
            await group.write_and_wait(*entries(group.key, 1, 3, payload=bytes(1000)))
        await fill_and_forget(await start_group(storage, G1), 1, files=2)
        assert log_files(disk) == [3]
        assert 4000 < cleaning(storage).bytes_carried <= (1 << 16) // 8
        at_rest = [number for number in range(2, 22) if files_of(disk, number)]
        assert 16 <= len(at_rest) <= 18
    found = await found_on(disk)
    assert all(found[group.key.group_id].entries == entries(group.key, 1, 3, payload=bytes(1000)) for group in groups)


async def test_what_goes_to_rest_takes_along_what_follows(disk: SimulatedDisk) -> None:
    """A group that keeps its log gets few files, not one for each log file; the newest log file is left alone."""
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        group = await start_group(storage, G1)
        last = await fill(group, 1, files=3, size=3000) - 1
        assert log_files(disk) == [3, 4]
        assert files_of(disk, 1) == ["1.log"], "what was in files 1 and 2"
        log = await read_all(group.log, storage.recovered[1])
        assert [entry.index for entry in log] == list(range(1, last + 1))
    assert (await found_on(disk))[1].entries == log


async def test_at_rest_files_go_when_the_log_is_cut(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        group = await start_group(storage, G1)
        following = await fill(group, 1, files=6)
        firsts = sorted(int(name.removesuffix(".log")) for name in files_of(disk, 1))
        assert len(firsts) >= 2
        group.compact(firsts[1])
        await quiet()
        assert sorted(int(name.removesuffix(".log")) for name in files_of(disk, 1)) == firsts[1:], "the one it is in stays"
        group.compact(following - 1)
        await quiet()
        assert files_of(disk, 1) == []
    assert (await found_on(disk))[1].entries == ()


async def test_tidying_leaves_what_is_not_ours(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        group = await start_group(storage, G1)
        following = await fill(group, 1, files=4)
        disk.overwrite(f"{BASE}/group-1/logs/notes.txt", b"an operator's")
        disk.overwrite(f"{BASE}/group-1/logs/7777.log", b"of an earlier crash")
        group.compact(following - 1)
        await quiet()
        assert files_of(disk, 1) == ["notes.txt"]


async def test_ST_14_an_idle_group_outlives_fifty_files(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount(), max_log_file_size=4096)
    async with serving(storage):
        idle, busy, also = [await start_group(storage, key) for key in (G1, G2, G3)]
        configuration = Configuration.bootstrap({1, 2, 4})
        change = Entry(2, 3, EntryKind.CONFIGURATION, encode_configuration(configuration))
        seal(G1, change)
        log = (*entries(G1, 1, 2, 3), change, *entries(G1, 3, 6, 3))
        await idle.write_and_wait(*log, state=HardState(3, 2))
        following = 1
        seen = set()
        for _ in range(50):
            following = await fill_and_forget(busy, following, files=1)
            await also.write_and_wait(*entries(G3, 1, 3))
            seen.add(len(log_files(disk)))
        assert max(seen) <= 3, "the log stays short"
        assert cleaning(storage).files_removed >= 48
    disk.crash("none")
    found = (await found_on(disk))[1]
    assert found.hard_state == HardState(3, 2)
    assert found.entries == log
    assert [configuration for _, configuration in found.configurations][-1] == configuration


async def test_a_start_goes_on_with_what_was_left_to_do(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192)
    disk.hook = refusing("remove", LOG)
    async with serving(storage):
        group = await start_group(storage, G1)
        await fill_and_forget(group, 1, files=4)
        assert log_files(disk) == [1, 2, 3, 4, 5]
        trouble = cleaning(storage).trouble
        assert trouble is not None
        assert "00000001.wal: on purpose" in trouble
    disk.hook = None
    disk.crash("none")
    async with serving(wal(disk.mount(), max_log_file_size=8192)):
        await quiet()
        assert log_files(disk) == [5]


async def test_reading_goes_on_while_files_go(disk: SimulatedDisk) -> None:
    """A reader that has found its entries in a file finds them in the next place, or in the open file."""
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        log = entries(G1, 1, 7, payload=bytes(600))
        await one.write_and_wait(*log)
        following = await fill_and_forget(two, 1, files=1)
        gate = Gate(disk, "open", "00000001.wal")
        read: list[object] = []

        async def reader() -> None:
            read.append(await one.log.read(LoadEntries(None, 1, 6, 1 << 20)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            await gate.reached.wait()
            disk.hook = None
            await fill_and_forget(two, following, files=1)
            assert log_files(disk) == [3]
            gate.may_pass.set()
        assert read == [log]


# -- what happens meanwhile -----------------------------------------------------------------------------------------------------


async def moving(disk: SimulatedDisk, storage: WalStorage, verb: str = "write") -> tuple[Group, Gate]:
    """A group whose entries 1 to 6 are just being written to a file at rest."""
    one, two = await start_group(storage, G1), await start_group(storage, G2)
    await one.write_and_wait(*entries(G1, 1, 7, payload=bytes(600)))
    following = await fill_and_forget(two, 1, files=1)
    gate = Gate(disk, verb, "group-1/logs")
    await fill_and_forget(two, following, files=1)
    assert gate.reached.is_set()
    return one, gate


@pytest.mark.parametrize("verb", ["create", "write", "sync", "rename", "sync_directory"])
async def test_replaced_while_it_is_moved(disk: SimulatedDisk, verb: str) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        one, gate = await moving(disk, storage, verb)
        await one.write_and_wait(*entries(G1, 4, 9, term=2, payload=bytes(500)))
        gate.may_pass.set()
        await quiet()
        assert log_files(disk) == [3]
    expected = (*entries(G1, 1, 4, payload=bytes(600)), *entries(G1, 4, 9, term=2, payload=bytes(500)))
    assert (await found_on(disk))[1].entries == expected


@pytest.mark.parametrize("verb", ["create", "write", "sync", "rename", "sync_directory"])
async def test_cut_while_it_is_moved(disk: SimulatedDisk, verb: str) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        one, gate = await moving(disk, storage, verb)
        one.compact(4)
        await one.write_and_wait(*entries(G1, 7, 8))
        gate.may_pass.set()
        await quiet()
        assert log_files(disk) == [3]
        assert len(files_of(disk, 1)) == 1
        one.compact(7)
        await quiet()
        assert files_of(disk, 1) == []
    found = (await found_on(disk))[1]
    assert found.start == EntryId(1, 7)


@pytest.mark.parametrize("verb", ["create", "write", "sync", "rename", "sync_directory"])
async def test_installed_over_while_it_is_moved(disk: SimulatedDisk, verb: str) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        one, gate = await moving(disk, storage, verb)
        at = EntryId(2, 5)
        await one.write_and_wait(*entries(G1, 6, 8, term=2), state=HardState(2), install=installing(at))
        gate.may_pass.set()
        await quiet()
        assert log_files(disk) == [3]
    found = (await found_on(disk))[1]
    assert found.start == at
    assert found.entries == entries(G1, 6, 8, term=2)


@pytest.mark.parametrize("verb", ["create", "write", "sync", "rename", "sync_directory"])
async def test_removed_and_made_anew_while_it_is_moved(disk: SimulatedDisk, verb: str) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        _, gate = await moving(disk, storage, verb)
        again = GroupKey(1, 2)
        done = trio.Event()

        async def remove_and_create() -> None:
            await storage.remove_group(G1)
            group = await start_group(storage, again)
            await group.write_and_wait(*entries(again, 1, 3))
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(remove_and_create)
            await quiet()
            gate.may_pass.set()
        assert done.is_set()
        await quiet()
        assert files_of(disk, 1) == []
        assert log_files(disk) == [3]
        assert cleaning(storage).trouble is None
    disk.crash("all")
    assert (await found_on(disk))[1].entries == entries(again, 1, 3)


async def test_what_was_moved_and_not_confirmed_is_not_tidied_away(disk: SimulatedDisk) -> None:
    """The file is there, and no row knows it yet: a compaction in between must not take it for a leftover."""
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        one, gate = await moving(disk, storage, "sync_directory")
        held = Gate(disk, "write", LOG)
        one.compact(2)
        await held.reached.wait()
        gate.may_pass.set()
        await quiet()
        held.may_pass.set()
        await quiet()
        assert files_of(disk, 1) == ["1.log"]
        assert await read_all(one.log, storage.recovered[1]) == entries(G1, 3, 7, payload=bytes(600))


# -- the schedules of the design ------------------------------------------------------------------------------------------------


async def superseded(disk: SimulatedDisk, storage: WalStorage, how: str) -> GroupKey:
    """Files 1 and 2 are pinned by another group: too much to be carried, and its directory takes no file.

    What file 1 holds of group 1 is superseded in file 2.
    """
    disk.hook = refusing("create", "group-2/logs")
    one, pin, busy = [await start_group(storage, key) for key in (G1, G2, G3)]
    await pin.write_and_wait(*entries(G2, 1, 6, payload=bytes(450)))
    await one.write_and_wait(*entries(G1, 1, 12, term=3), state=HardState(3))
    following = await fill_and_forget(busy, 1, files=1)
    key = G1
    if how == "replaced":
        await one.write_and_wait(*entries(G1, 5, 6, term=5), state=HardState(5))
    elif how == "installed":
        writer = await one.log.snapshots.create(EntryId(5, 8))
        await writer.append(snapshot_bytes(G1, EntryId(5, 8)))
        await writer.commit()
        await one.write_and_wait(*entries(G1, 9, 10, term=5), state=HardState(5), install=installing(EntryId(5, 8)))
    else:
        await storage.remove_group(G1)
        key = GroupKey(1, 2)
        again = await start_group(storage, key)
        await again.write_and_wait(*entries(key, 1, 2, term=1), state=HardState(1))
    await fill_and_forget(busy, following, files=6)
    return key


@pytest.mark.parametrize("how", ["replaced", "installed", "removed and made anew"])
async def test_what_was_superseded_does_not_come_back(disk: SimulatedDisk, how: str) -> None:
    storage = wal(disk.mount(), max_log_file_size=4096)
    async with serving(storage):
        await superseded(disk, storage, how)
        assert log_files(disk)[0] == 1, "pinned"
        assert log_files(disk) == list(range(1, log_files(disk)[-1] + 1)), "the oldest goes first, or none"
        expected = await found_by(storage, 1)
        before = await found_on_fork(disk)
    disk.crash("none")
    disk.hook = None
    async with serving(storage := wal(disk.mount(), max_log_file_size=4096)):
        assert await found_by(storage, 1) == expected
        await quiet()
        assert log_files(disk)[0] > 2, "no longer pinned"
        assert await found_by(storage, 1) == expected
    disk.crash("none")
    assert await found_on(disk) == before


async def found_on_fork(disk: SimulatedDisk) -> object:
    twin = disk.fork(random.Random(1))
    twin.crash("none")
    return await found_on(twin)


# -- damage, errors, no space ---------------------------------------------------------------------------------------------------


async def test_nothing_goes_while_a_group_is_damaged(disk: SimulatedDisk) -> None:
    options = {"max_log_file_size": 8192}
    storage = wal(disk.mount(), **options)
    disk.hook = refusing("remove", LOG)
    async with serving(storage):
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        await one.write_and_wait(*entries(G1, 1, 7, payload=bytes(100)))
        await fill_and_forget(two, 1, files=3)
    disk.hook = None
    first = f"{LOG}/00000001.wal"
    data = disk.contents(first)
    disk.overwrite(first, patched(data, data.index(b"\0" * 100 + entries(G1, 2, 3, payload=bytes(100))[0].record[:4]), b"\xff"))
    async with serving(storage := wal(disk.mount(), **options)):
        assert isinstance(storage.recovered[1].failure, CorruptLogError)
        two = hold(storage, G2)
        following = storage.recovered[2].durable.terms.last_index + 1
        before = log_files(disk)
        assert before[0] == 1
        following = await fill_and_forget(two, following, files=3)
        assert log_files(disk) == list(range(1, before[-1] + 4)), "nothing lost, nothing deleted"
        await storage.remove_group(G1)
        await fill_and_forget(two, following, files=1)
        assert log_files(disk) == [before[-1] + 4], "healed"


async def test_rot_in_what_is_to_be_moved_is_left_where_it_is(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock) -> None:
    """Found while the node runs: the groups go on, the file stays, and it is said which."""
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        one, two, three = [await start_group(storage, key) for key in (G1, G2, G3)]
        await one.write_and_wait(*entries(G1, 1, 3, payload=b"to rot"))
        await three.write_and_wait(*entries(G3, 1, 3, payload=b"to stay"))
        following = await fill_and_forget(two, 1, files=1)
        first = f"{LOG}/00000001.wal"
        data = disk.contents(first)
        disk.overwrite(first, patched(data, data.index(b"to rot"), b"R"))
        following = await fill_and_forget(two, following, files=1)
        trouble = cleaning(storage).trouble
        assert trouble is not None
        assert trouble.startswith(f"{first}: damaged at offset")
        assert cleaning(storage).bytes_carried > 0, "the others' entries are moved all the same"
        await fill_and_forget(two, following, files=2)
        await trio.sleep(2 * RETRY_SECONDS_MAX)
        assert cleaning(storage).trouble == trouble
        assert log_files(disk) == [1, 2, 3, 4, 5]
    disk.overwrite(first, data)
    async with serving(wal(disk.mount(), max_log_file_size=8192)):
        await quiet()
        assert log_files(disk) == [5]
    assert (await found_on(disk))[1].entries == entries(G1, 1, 3, payload=b"to rot")


@pytest.mark.parametrize("verb", ["mkdir", "create", "write", "sync", "rename", "sync_directory"])
async def test_an_error_leaves_the_file_and_is_tried_again_later(
    disk: SimulatedDisk, autojump_clock: trio.testing.MockClock, verb: str
) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192)
    tries: list[float] = []

    async def refuse(call: DiskCall) -> None:
        if call.verb == verb and "group-1/logs" in call.path:
            tries.append(trio.current_time())
            raise OSError(errno.EIO, "on purpose")

    async with serving(storage):
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        log = entries(G1, 1, 7, payload=bytes(800))
        await one.write_and_wait(*log)
        disk.hook = refuse
        following = await fill_and_forget(two, 1, files=5)
        assert log_files(disk)[0] == 1
        assert len(tries) == 1, "others that compact do not make it try again"
        await trio.sleep(600)
        assert 8 < len(tries) < 20, "less and less often"
        assert await read_all(one.log, storage.recovered[1]) == log
        disk.hook = None
        await trio.sleep(2 * RETRY_SECONDS_MAX)
        await quiet()
        assert len(log_files(disk)) == 1
        assert await read_all(one.log, storage.recovered[1]) == log
        assert files_of(disk, 1) == ["1.log"]
        await fill_and_forget(two, following, files=1)
    disk.crash("none")
    assert (await found_on(disk))[1].entries == log


async def test_a_full_disk_stops_only_what_needs_space(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192, space_poll_interval=5.0)
    async with serving(storage):
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        log = entries(G1, 1, 7, payload=bytes(600))
        await one.write_and_wait(*log)
        disk.hook = refusing("write", "group-1/logs", errno.ENOSPC)
        await fill_and_forget(two, 1, files=4)
        trouble = cleaning(storage).trouble
        assert trouble is not None
        assert "no space" in trouble
        assert log_files(disk) == [1, 2, 3, 4, 5]
        assert files_of(disk, 1) == [], "what was written of it is removed again"
        one.compact(6)
        await quiet()
        assert log_files(disk) == [5], "what a compaction frees needs no space"


async def test_moving_waits_while_the_log_is_full(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192, space_poll_interval=0.5)
    async with serving(storage):
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        await one.write_and_wait(*entries(G1, 1, 7, payload=bytes(800)))
        disk.hook = refusing("create", "group-1/logs")
        following = await fill_and_forget(two, 1, files=3)
        disk.hook = refusing("write", LOG, errno.ENOSPC)
        two.write(*entries(G2, following, following + 1))
        await trio.sleep(100)
        assert storage.is_full
        assert str(cleaning(storage).trouble) == f"{LOG}: nothing is moved while the disk is full"
        assert files_of(disk, 1) == []
        disk.hook = None
        await trio.sleep(100)
        assert files_of(disk, 1) == ["1.log"]
        assert log_files(disk)[0] > 1
    assert (await found_on(disk))[1].entries == entries(G1, 1, 7, payload=bytes(800))


@pytest.mark.parametrize("part", ["snapshots", "logs"])
async def test_tidying_that_fails_is_tried_again(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock, part: str) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        group = await start_group(storage, G1)
        following = await fill(group, 1, files=4)
        writer = await group.log.snapshots.create(EntryId(1, 1))
        await writer.commit()
        disk.hook = refusing("list", f"group-1/{part}")
        group.compact(following - 1)
        await quiet()
        assert cleaning(storage).trouble == f"{BASE}/group-1/{part}: on purpose"
        assert files_of(disk, 1) != []
        disk.hook = None
        await trio.sleep(10)
        assert files_of(disk, 1) == files_of(disk, 1, "snapshots") == []
        assert cleaning(storage).trouble is None


async def test_a_directory_that_cannot_be_removed_stops_no_move(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        one, two, three = [await start_group(storage, key) for key in (G1, G2, G3)]
        log = entries(G1, 1, 4)
        await one.write_and_wait(*log)
        await (await three.log.snapshots.create(EntryId(1, 1))).commit()
        disk.hook = refusing("remove", "group-3")
        await storage.remove_group(G3)
        await trio.sleep(300)
        following = 1
        for _ in range(5):
            following = await fill_and_forget(two, following, files=5)
            assert len(log_files(disk)) <= 3
            assert cleaning(storage).trouble == f"{BASE}/group-3: on purpose"
        disk.hook = None
        await trio.sleep(2 * RETRY_SECONDS_MAX)
        assert cleaning(storage).trouble is None
        assert disk.names(BASE).count("group-3") == 0
    assert (await found_on(disk))[1].entries == log


@pytest.mark.parametrize("verb", ["mkdir", "create", "write", "sync", "rename", "sync_directory"])
async def test_what_one_directory_refuses_is_carried(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock, verb: str) -> None:
    """It does not keep the log of all; and once the directory takes files again, they are used."""
    storage = wal(disk.mount(), max_log_file_size=1 << 16)
    async with serving(storage):
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        log = entries(G1, 1, 29, payload=bytes(1000))
        await one.write_and_wait(*log)
        disk.hook = refusing(verb, "group-1/logs")
        following = await fill_and_forget(two, 1, files=9)
        assert len(log_files(disk)) <= 3
        assert (trouble := cleaning(storage).trouble) is not None
        assert trouble.endswith("on purpose")
        assert cleaning(storage).bytes_at_rest == 0
        assert await read_all(one.log, storage.recovered[1]) == log
        disk.hook = None
        await fill_and_forget(two, following, files=3)
        assert cleaning(storage).trouble is None
        assert files_of(disk, 1) != []
    disk.crash("none")
    assert (await found_on(disk))[1].entries == log


async def test_what_one_directory_refuses_is_carried_in_pieces(disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trioraft.storage._mover.TOLD_BYTES_MIN", 4000)
    monkeypatch.setattr("trioraft.storage._move.PIECE_BYTES", 1000)
    storage = wal(disk.mount(), max_log_file_size=1 << 16)
    tries = 0

    async def refuse(call: DiskCall) -> None:
        nonlocal tries
        if call.verb == "create" and "group-1/logs" in call.path:
            tries += 1
            raise OSError(errno.EACCES, "on purpose")

    async with serving(storage):
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        for index in range(1, 29):
            await one.write_and_wait(*entries(G1, index, index + 1, payload=bytes(1000)))
        disk.hook = refuse
        await fill_and_forget(two, 1, files=2)
        assert log_files(disk) == [3]
        assert tries == 7, "4 KiB at once"
        assert await read_all(one.log, storage.recovered[1]) == entries(G1, 1, 29, payload=bytes(1000))
    assert (await found_on(disk))[1].entries == entries(G1, 1, 29, payload=bytes(1000))


async def test_a_group_that_fails_under_a_move_stops_no_other(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        one, gate = await moving(disk, storage, "sync_directory")
        busy = hold(storage, G2)
        following = storage.recovered[2].durable.terms.last_index + 1
        held = Gate(disk, "write", LOG)
        busy.write(*entries(G2, following, following + 1))
        await held.reached.wait()
        gate.may_pass.set()
        await quiet()
        one.write(*entries(G1, 100, 101))
        held.may_pass.set()
        await quiet()
        assert isinstance(storage.recovered[1].failure, CorruptLogError), "in the batch that says where its entries are"
        await storage.remove_group(G1)
        three = await start_group(storage, G3)
        await three.write_and_wait(*entries(G3, 1, 4))
        await fill_and_forget(busy, following + 1, files=6)
        assert len(log_files(disk)) <= 3
    assert (await found_on(disk))[3].entries == entries(G3, 1, 4)


async def test_an_unsynced_install_does_not_take_synced_entries_away(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount(), max_log_file_size=1 << 16, sync_on_write=False)
    log = entries(G1, 1, 41, payload=bytes(1000))
    async with serving(storage):
        one, busy = await start_group(storage, G1), await start_group(storage, G2)
        await one.write_and_wait(*log)
        await fill_and_forget(busy, 1, files=4)
        assert files_of(disk, 1) == ["1.log"]
        gate = Gate(disk, "list", "group-1/logs")
        one.compact(5)
        await gate.reached.wait()
        await one.write_and_wait(state=HardState(2), install=installing(EntryId(2, 100)))
        assert storage.recovered[1].durable.terms.last_index == 100, "known, and not synced"
        gate.may_pass.set()
        await quiet()
        await disk.mount().sync_directory(f"{BASE}/group-1/logs")
        disk.crash("none")
    storage = wal(disk.mount(), max_log_file_size=1 << 16, sync_on_write=False)
    async with serving(storage):
        assert await read_all(storage.get_log_storage(1), storage.recovered[1]) == log[5:]


@pytest.mark.parametrize("is_under_way", [False, True])
async def test_a_full_disk_is_relieved_without_sync_on_write(
    disk: SimulatedDisk, autojump_clock: trio.testing.MockClock, is_under_way: bool
) -> None:
    """The cleaner makes room, although the log takes no mark of it: neither before nor after it has become full."""
    storage = wal(disk.mount(), max_log_file_size=1 << 14, sync_on_write=False)
    async with serving(storage):
        busy = await start_group(storage, G2)
        disk.hook = refusing("remove", LOG)
        following = await fill_and_forget(busy, 1, files=6)
        assert len(log_files(disk)) == 7
        await trio.sleep(2 * RETRY_SECONDS_MAX)
        disk.capacity = disk._used() + 600
        held = Gate(disk, "write", LOG)
        for index in range(following, following + 4):
            busy.write(*entries(G2, index, index + 1, payload=bytes(2000)))
        await held.reached.wait()
        if is_under_way:
            await trio.sleep(2 * RETRY_SECONDS_MAX)
            assert len(log_files(disk)) == 7, "it waits for its mark"
        held.may_pass.set()
        await trio.sleep(2 * RETRY_SECONDS_MAX)
        assert not storage.is_full
        assert len(log_files(disk)) <= 2


async def test_a_failed_log_is_left_alone(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        await one.write_and_wait(*entries(G1, 1, 7, payload=bytes(800)))
        disk.hook = refusing("create", "group-1/logs")
        following = await fill_and_forget(two, 1, files=3)
        disk.hook = None
        disk.failing_syncs = 1
        two.write(*entries(G2, following, following + 1))
        await quiet()
        assert storage.sync_age() == float("inf")
        calls = sum(disk.calls.values())
        cleaner = storage._cleaner
        assert cleaner is not None
        cleaner.tidy(1)
        await trio.sleep(200)
        assert sum(disk.calls.values()) == calls
        assert log_files(disk)[0] == 1


@pytest.mark.parametrize(("verb", "part"), [("remove", LOG), ("sync", "group-1/logs"), ("list", "group-2")])
async def test_a_hung_step_is_given_up_at_shutdown(
    disk: SimulatedDisk, autojump_clock: trio.testing.MockClock, verb: str, part: str
) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192, shutdown_write_timeout=5.0)
    await storage.open(1, "demo")
    async with trio.open_nursery() as nursery:
        await nursery.start(storage.serve)
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        await one.write_and_wait(*entries(G1, 1, 7, payload=bytes(600)))
        following = await fill_and_forget(two, 1, files=1)
        gate = Gate(disk, verb, part)
        following = await fill_and_forget(two, following, files=1)
        await gate.reached.wait()
        await two.write_and_wait(*entries(G2, following, following + 1))
        start = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - start == pytest.approx(5.0)
    await storage.aclose()
    with pytest.raises(StorageError, match="another node"):
        await wal(disk.mount()).open(1, "demo")
    disk.kill()
    assert (await found_on(disk))[1].entries == entries(G1, 1, 7, payload=bytes(600))


async def test_a_slow_step_is_finished_at_shutdown(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock) -> None:
    storage = wal(disk.mount(), max_log_file_size=8192, shutdown_write_timeout=5.0)
    await storage.open(1, "demo")
    async with trio.open_nursery() as nursery:
        await nursery.start(storage.serve)
        group = await start_group(storage, G1)
        gate = Gate(disk, "remove", LOG)
        await fill_and_forget(group, 1, files=1)
        await gate.reached.wait()
        start = trio.current_time()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.sleep(4)
            gate.may_pass.set()
    assert trio.current_time() - start == pytest.approx(4.0)
    assert log_files(disk) == [2]
    await storage.aclose()
    await wal(disk.mount()).open(1, "demo")


async def test_a_real_step_that_hangs_does_not_hold_up_a_shutdown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_pass, reached, remove = threading.Event(), threading.Event(), os.remove

    def hang(path: str) -> None:
        if path.endswith(".wal"):
            reached.set()
            may_pass.wait(30)
        remove(path)

    monkeypatch.setattr(os, "remove", hang)
    storage = WalStorage(StorageConfig(base_dir=str(tmp_path), max_log_file_size=8192, shutdown_write_timeout=0.1))
    try:
        await storage.open(1, "demo")
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                await nursery.start(storage.serve)
                group = await start_group(storage, G1)
                index = 1
                while not reached.is_set():
                    await group.write_and_wait(*entries(G1, index, index + 1, payload=bytes(2000)))
                    group.compact(index)
                    index += 1
                nursery.cancel_scope.cancel()
        await storage.aclose()
        with pytest.raises(StorageError, match="held by"):
            await WalStorage(StorageConfig(base_dir=str(tmp_path))).open(1, "demo")
    finally:
        may_pass.set()


async def test_cancelled_at_every_step() -> None:
    """Whatever the cleaner was at, the next start finds everything, and goes on."""
    for step in range(1, 60):
        disk = SimulatedDisk(random.Random(step))
        storage = wal(disk.mount(), max_log_file_size=8192)
        disk.hook = refusing("read", LOG)
        async with serving(storage):
            groups = [await start_group(storage, key) for key in (G1, G2, G3)]
            await groups[0].write_and_wait(*entries(G1, 1, 7, payload=bytes(600)))
            await groups[1].write_and_wait(*entries(G2, 1, 3))
            await fill(groups[2], await fill_and_forget(groups[2], 1, files=1))
        disk.hook = None
        expected = await found_on_fork(disk)
        again = wal(disk.mount(), max_log_file_size=8192)
        await again.open(1, "demo")
        first, is_over = sum(disk.calls.values()), False
        async with trio.open_nursery() as nursery:

            async def stop(call: DiskCall, first: int = first, step: int = step, nursery: trio.Nursery = nursery) -> None:
                if call.number == first + step:
                    nursery.cancel_scope.cancel()

            disk.hook = stop
            await nursery.start(again.serve)
            await quiet()
            is_over = True
            nursery.cancel_scope.cancel()
        await again.aclose()
        disk.hook = None
        assert await found_on_fork(disk) == expected, step
        if is_over:
            assert step > 15
            return
    pytest.fail("the story has no end")


# -- power cuts -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_a_power_cut_at_every_step(seed: int) -> None:
    history = History(random.Random(seed), max_log_file_size=4096)
    async with serving(history.storage):
        history.disk.hook = history.note
        await history.live(22)
        await quiet()
        statistics = cleaning(history.storage)
    assert statistics.files_removed > 0
    assert statistics.bytes_at_rest > 0
    counts = await check_all(history, share=0.05)
    print(f"{len(history.moments)} steps, {sum(counts.values())} power cuts: {dict(counts)}")


@pytest.mark.parametrize("seed", range(2))
async def test_power_cuts_without_sync_on_write(seed: int) -> None:
    """What was not synced may be lost, but what is removed is never what the rest then needs."""
    history = History(random.Random(seed), max_log_file_size=4096, sync_on_write=False)
    async with serving(history.storage):
        history.disk.hook = history.note
        await history.live(25)
        await quiet()
        assert cleaning(history.storage).files_removed > 0
    for moment in history.moments[::2]:
        if "wal" in moment.step and moment.step.split()[1] in ("write", "sync"):
            continue
        anything = moment._replace(allowed={number: story.states for number, story in history.stories.items()})
        for keep in ("none", "all"):
            await check(anything, keep, **history.options)


# -- planted --------------------------------------------------------------------------------------------------------------------


async def test_a_file_that_is_deleted_too_early_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a log file goes although another group still needs it."""

    def removable(table: Table) -> list[int]:
        return table.files.numbers[:-2]

    monkeypatch.setattr(Table, "removable", removable)
    monkeypatch.setattr("trioraft.storage._oldest_file.OldestFile.is_emptied", lambda oldest: True)
    history = History(random.Random(0), max_log_file_size=4096)
    async with serving(history.storage):
        history.disk.hook = history.note
        await history.live(15)
        await quiet()
    monkeypatch.undo()
    with pytest.raises(AssertionError, match="are in no file"):
        await check_all(history, share=0.1)


@pytest.mark.parametrize("is_planted", [False, True])
async def test_truncated_entries_that_come_back_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, is_planted: bool
) -> None:
    """Planted: what was carried says that entries are there, and not only where they are."""

    def carry(row: Row, first: int, last: int, term: int, file: int, offset: int, length: int) -> bool:
        row._truncate(first - 1)
        row.terms.extend(last, term)
        row.add_extent(first, last, file, offset, length)
        return True

    if is_planted:
        monkeypatch.setattr(Row, "carry", carry)
    history = History(random.Random(3), groups=2, max_log_file_size=8192)
    async with serving(history.storage):
        await history.create(1)
        await history.create(2)
        history.write(1, low=1, count=9, size=20)
        history.disk.hook = refusing("read", "00000001.wal")
        while len(log_files(history.disk)) < 3:
            history.write(2, low=history.stories[2].state.last + 1, size=1000)
            await history.confirm(2)
        # The log is busy. Behind what it is at, entries are replaced; behind that, the cleaner carries what it has read before.
        gate = Gate(history.disk, "write", LOG)
        history.write(2)
        await gate.reached.wait()
        history.write(1, low=1, count=1, size=20)
        await trio.sleep(100)
        gate.may_pass.set()
        await quiet()
        assert cleaning(history.storage).bytes_carried > 0
        history.disk.hook = None
        await history.note(DiskCall(0, "end", "of the story"))
    if is_planted:
        with pytest.raises(AssertionError, match="group 1 .* is none of"):
            await check(history.moments[-1], "all")
    else:
        await check(history.moments[-1], "all")
