"""Tests of a storage that does its file work on a `Disk`: a simulated one loses power, fills up, fails and rots at any step."""

from __future__ import annotations

import math
import posixpath
import random

import attrs
import trio

from .._errors import CorruptLogError, StorageError
from .._types import EntryId, GroupKey
from ..core import Compaction, HardState
from ..storage import DiskCall, MultiRaftStorage, SimulatedDisk
from ..storage._simulated_disk import Keep
from ._storage_history_tests import NodeHistory
from ._storage_model import Expectation
from ._storage_parts import (
    CLUSTER_ID,
    NODE_ID,
    ONE,
    TWO,
    Found,
    entries,
    entry,
    find,
    find_all,
    holds,
    record,
    refused,
    same,
    serving,
    start_group,
)
from ._storage_place import StoragePlace, needs

KEEPS: tuple[Keep, ...] = ("none", "all", "random")

on_disk = needs("storage_on", "the storage does not work on a Disk")


@attrs.frozen
class Moment:
    """The disk before one of its operations, and what a start may find there."""

    disk: SimulatedDisk
    step: str
    expectations: list[Expectation]


class DiskTests(StoragePlace):
    """Power cuts at every file operation, full disks, failing syncs, rot."""

    # -- power --------------------------------------------------------------------------------------------------------------------

    @on_disk
    async def test_a_power_cut_at_every_file_operation(self) -> None:
        """Of a random history: what is confirmed is found, nothing else that never was, the same again at the next start."""
        for seed in self.seeds:
            rng = random.Random(f"disk {seed}")
            moments = await self._note_moments(rng, steps=30)
            for number, moment in enumerate(moments):
                await self._check_moment(moment, KEEPS[(number + seed) % 3], f"of seed {seed}", goes_on=number % 5 == 0)

    @on_disk
    async def test_a_power_cut_at_every_file_operation_of_a_return(self) -> None:
        """A replica is removed, and comes back to its group: there is one life or the other at any moment, or neither."""
        cuts = 0
        for seed in self.seeds:
            rng = random.Random(f"return {seed}")
            moments = await self._note_moments(rng, steps=10, returns=2)
            for moment in moments:
                for keep in KEEPS:
                    await self._check_moment(moment, keep, f"of seed {seed}", goes_on=False)
                    cuts += 1
        print(f"{cuts} power cuts")

    @on_disk
    async def test_power_cuts_at_every_file_operation_of_a_start(self) -> None:
        """What is left by a start that was cut off, at each of its steps, is what the next start needs."""
        for seed in self.seeds:
            rng = random.Random(f"start {seed}")
            moments = await self._note_moments(rng, steps=25)
            for moment in rng.sample(moments[len(moments) // 4 :], 3):
                disk = fork(moment.disk, rng)
                disk.crash(rng.choice(KEEPS))
                await self._check_starts(disk, f"{moment.step} of seed {seed}")

    @on_disk
    async def test_a_drive_that_lies_about_syncs_is_noticed(self) -> None:
        """Proof that these tests can fail."""
        disk = SimulatedDisk(random.Random(1), dead_calls="raise")
        storage = self.mounted(disk)
        async with serving(storage):
            group = await start_group(storage, ONE)
            disk.lying = True
            await group.write_and_wait(*entries(ONE, 1, 4))
            disk.crash("none")
        disk.lying = False
        async with serving(storage := self.mounted(disk)):
            same((await find(storage, ONE)).ids, [], "what such a drive keeps")

    async def _note_moments(self, rng: random.Random, *, steps: int, returns: int = 0) -> list[Moment]:
        """Run a random history, noting the moments."""
        disk, moments = SimulatedDisk(random.Random(rng.random()), dead_calls="raise"), list[Moment]()
        history = NodeHistory(rng)

        async def note(call: DiskCall) -> None:  # a hook of the disk
            step = f"before operation {call.number}: {call.verb} {call.path}"
            moments.append(Moment(fork(disk, random.Random(call.number)), step, history.expectations()))
            await trio.lowlevel.checkpoint()

        storage = self.mounted(disk)
        async with serving(storage):
            disk.hook = note
            for _ in range(steps):
                await history.step(storage)
            for _ in range(returns):
                await history.return_to(storage, 1)
            for number in history.groups:
                await history.wait_confirmed(number)
            disk.hook = None
        holds(len(moments) > 40, f"only {len(moments)} file operations: the storage works elsewhere")
        return moments

    async def _check_moment(self, moment: Moment, keep: Keep, where: str, *, goes_on: bool) -> None:
        where = f"{moment.step}, keeping {keep}, {where}"
        disk = fork(moment.disk, random.Random(f"{moment.step}{keep}"))
        disk.crash(keep)
        async with serving(storage := self.mounted(disk)):
            for expectation in moment.expectations:
                await expectation.check(storage, where)
            first = await find_all(storage)
            # NB: not at rest yet. What a start does in the background must be as safe as the rest.
            disk.crash("none")
        async with serving(storage := self.mounted(disk)):
            same(await find_all(storage), first, f"what the second start finds, {where}")
            if not goes_on:
                return
            group = await start_group(storage, GroupKey(77))
            await group.write_and_wait(*entries(group.key, 1, 4), state=HardState(1, 1))
            disk.crash("none")
        async with serving(storage := self.mounted(disk)):
            after = await find_all(storage)
            same(len(after.pop(77).log), 3, f"the entries of a new group, {where}")
            same(after, first, f"what the third start finds, {where}")

    async def _check_starts(self, disk: SimulatedDisk, where: str) -> None:
        copies: list[SimulatedDisk] = []

        async def copy(call: DiskCall) -> None:  # a hook of the disk
            copies.append(fork(disk, random.Random(call.number)))
            await trio.lowlevel.checkpoint()

        disk.hook = copy
        async with serving(storage := self.mounted(disk)):
            expected = await find_all(storage)
        holds(len(copies) > 4, f"a start of {len(copies)} file operations, {where}")
        for number, twin in enumerate(copies):
            keep = KEEPS[number % 3]
            twin.crash(keep)
            async with serving(storage := self.mounted(twin)):
                same(await find_all(storage), expected, f"after a start cut off at operation {number}, keeping {keep}, {where}")

    # -- trouble ------------------------------------------------------------------------------------------------------------------

    @on_disk
    async def test_a_full_disk_keeps_what_waits(self) -> None:
        """Nothing is confirmed, nothing is lost, and it goes on when there is space."""
        disk = SimulatedDisk(random.Random(2), dead_calls="raise")
        storage = self.mounted(disk)
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.write_and_wait(*entries(ONE, 1, 4), state=HardState(1, 1))
            disk.capacity = 1
            group.write(*entries(ONE, 4, 40, payload=b"x" * 500))
            last = group.write(entry(ONE, 40), state=HardState(2, 1))
            await group.listener.wait_heard(2)
            same((storage.is_full, storage.has_room, group.listener.confirmed), (True, False, 1), "full, room, last confirmed write")
            disk.capacity = None
            await group.listener.wait_confirmed(last)
            same((storage.is_full, storage.has_room, group.listener.space), (False, True, [False, True]), "full, room, what was heard")
            disk.crash("none")
        async with serving(storage := self.mounted(disk)):
            found = await find(storage, ONE)
            same((len(found.log), found.hard_state), (40, HardState(2, 1)), "the log's length and the vote")

    @on_disk
    async def test_no_space_for_a_snapshot(self) -> None:
        disk = SimulatedDisk(random.Random(2), dead_calls="raise")
        async with serving(storage := self.mounted(disk)):
            group = await start_group(storage, ONE)
            await group.write_and_wait(*entries(ONE, 1, 4))
            disk.capacity = 1
            with refused(StorageError, "a snapshot on a full disk", kind="full"):
                writer = await group.log.snapshots.create(EntryId(1, 3))
                try:
                    await writer.append(b"x" * 10_000)
                    await writer.commit()
                finally:
                    await writer.discard()  # noqa: ASYNC102  # it does its work when cancelled, too
            disk.capacity = None
            await group.save_snapshot(EntryId(1, 3), b"at last")
            same(await group.load_snapshot(EntryId(1, 3)), b"at last", "the snapshot")

    @on_disk
    async def test_a_failed_sync_is_the_end(self) -> None:
        """ST-5: nothing of it is confirmed, then or later; what was confirmed before is there at the next start."""
        disk = SimulatedDisk(random.Random(4), dead_calls="raise")
        storage = self.mounted(disk)
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.write_and_wait(*entries(ONE, 1, 4), state=HardState(1, 1))
            disk.failing_syncs = 1
            group.write(*entries(ONE, 4, 8), state=HardState(2, 1))
            await group.listener.wait_heard(2)
            same([error.kind for error in group.listener.failures], ["io"], "what was heard")
            group.write(*entries(ONE, 8, 9))
            await trio.testing.wait_all_tasks_blocked()
            same((group.listener.confirmed, storage.has_room, storage.sync_age()), (1, False, math.inf), "last confirmed write, room, age")
            with refused(StorageError, "a group in a log that has failed"):
                await storage.create_group(record(TWO))
            disk.crash("none")
        async with serving(storage := self.mounted(disk)):
            found = await find(storage, ONE)
            possible = [(3, HardState(1, 1)), (7, HardState(2, 1))]
            holds((len(found.log), found.hard_state) in possible, f"{found.ids}, {found.hard_state}")

    @on_disk
    async def test_a_killed_process_loses_nothing_that_it_confirmed(self) -> None:
        """ST-20, and a kill in the middle of a write."""
        disk = SimulatedDisk(random.Random(5), dead_calls="raise")
        for index in range(1, 12):
            async with serving(storage := self.mounted(disk)):
                group = await start_group(storage, ONE)
                holds(len((await find(storage, ONE)).log) >= index - 1, "a confirmed entry is gone")
                await group.write_and_wait(entry(ONE, index))
                group.write(entry(ONE, index + 1))
                for _ in range(index % 5):
                    await trio.lowlevel.checkpoint()
                disk.kill()

    # -- rot ----------------------------------------------------------------------------------------------------------------------

    @on_disk
    async def test_rot_is_refused_or_harmless(self) -> None:
        """Each file, bytes of it flipped one by one: all of the data, or an error that names path and offset. Never less data."""
        disk = SimulatedDisk(random.Random(6), dead_calls="raise")
        async with serving(storage := self.mounted(disk)):
            one, two = await start_group(storage, ONE), await start_group(storage, TWO)
            for index in range(1, 30):
                await one.write_and_wait(entry(ONE, index, payload=b"one " * 60), state=HardState(index, 1) if index % 5 == 0 else None)
                await two.write_and_wait(entry(TWO, index, payload=b"two"))
            await one.save_snapshot(EntryId(1, 10))
            one.log.compact(Compaction(EntryId(1, 10), EntryId(1, 5), 10))
            await one.write_and_wait(state=HardState(31, 3))
            disk.crash("none")
        async with serving(storage := self.mounted(disk)):
            whole = await find_all(storage)
            disk.crash("none")
        rng, refusals = random.Random(7), 0
        paths = [path for path in files_of(disk) if not path.endswith(".snap") and not self.is_spare(path) and disk.contents(path)]
        for path in paths:
            data = disk.contents(path)
            places = range(len(data)) if len(data) < 100 else sorted(rng.sample(range(len(data)), 30))
            for place in places:
                twin = fork(disk, rng)
                twin.overwrite(path, data[:place] + bytes([data[place] ^ rng.choice((0x01, 0x80, 0xFF))]) + data[place + 1 :])
                refusals += await self._is_refused_or_whole(twin, whole, f"with byte {place} of {path} flipped")
        holds(refusals, "no flipped byte was noticed")

    async def _is_refused_or_whole(self, disk: SimulatedDisk, whole: dict[int, Found], where: str) -> bool:
        storage = self.mounted(disk)
        try:
            await storage.open(NODE_ID, CLUSTER_ID)
        except StorageError:
            return True
        else:
            return await self._groups_are_refused_or_whole(storage, whole, where)
        finally:
            await storage.aclose()

    async def _groups_are_refused_or_whole(self, storage: MultiRaftStorage, whole: dict[int, Found], where: str) -> bool:
        refused_ = False
        for group_id, expected in whole.items():
            holds(group_id in storage.recovered, f"group {group_id} is gone, {where}")
            try:
                found = await find(storage, GroupKey(group_id))
            except CorruptLogError as error:
                holds(error.path in str(error) and str(error.offset) in str(error), f"an error that does not say where: {error}, {where}")
                refused_ = True
            else:
                holds(found.commit <= expected.commit, f"commit {found.commit}, {where}")
                same(found._replace(commit=0), expected._replace(commit=0), f"group {group_id}, {where}")
        return refused_


def fork(disk: SimulatedDisk, rng: random.Random) -> SimulatedDisk:
    """A second disk in the same state. What is dead is told so: one that says nothing would be waited for, as for a disk that hangs."""
    twin = disk.fork(rng)
    twin.dead_calls = "raise"
    return twin


def files_of(disk: SimulatedDisk, directory: str = ".") -> list[str]:
    """The paths of all files, sorted."""
    found = []
    for name in disk.names(directory):
        path = posixpath.normpath(posixpath.join(directory, name))
        try:
            disk.contents(path)
        except IsADirectoryError:
            found += files_of(disk, path)
        else:
            found.append(path)
    return found
