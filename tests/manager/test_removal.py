"""A group that is being removed is neither there nor gone, however long that takes."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
import trio
import trio.testing

import trioraft
from trioraft import ApplyContext
from trioraft.storage import DiskCall, SimulatedDisk

from .cluster import Journal
from .test_lazy_start import node


class Held(Journal):
    """Stays in its thread until it is let go."""

    blocking = True

    def __init__(self) -> None:
        super().__init__()
        self.is_reached = trio.Event()
        self.may_go = threading.Event()

    def apply(self, command: Any, context: ApplyContext) -> Any:
        if command == "slow":
            trio.from_thread.run_sync(self.is_reached.set)
            self.may_go.wait(30)
        return super().apply(command, context)


async def test_nobody_opens_a_group_that_hangs_while_its_removal_stops_it(thread_clock: trio.testing.MockClock, seed: int) -> None:
    disk, machine = SimulatedDisk(random.Random(seed)), Held()
    removed: list[int] = []
    with trio.fail_after(60):
        async with node(disk, machine_factory=lambda group_id: Journal()) as manager:
            group = await manager.add_group(7, machine, members={1})
            await group.wait_leader()

            async def propose() -> None:
                with pytest.raises(trioraft.OutcomeUnknownError):
                    await group.propose("slow")

            async def remove(caller: int) -> None:
                await manager.remove_group(7, force=True)
                removed.append(caller)

            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(propose)
                    await machine.is_reached.wait()
                    nursery.start_soon(remove, 1)
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(remove, 2)
                    for arguments in ({}, {"machine": Journal()}, {"incarnation": 2}):
                        with pytest.raises(trioraft.GroupExistsError, match="is being opened or removed"):
                            await manager.add_group(7, members={1}, **arguments)
                    await trio.testing.wait_all_tasks_blocked()
                    assert (removed, manager.group_ids, manager.status().groups) == ([], [7], 0)
                    machine.may_go.set()
            finally:
                machine.may_go.set()
            assert (sorted(removed), manager.group_ids, list(manager.groups)) == ([1, 2], [], [])
            with pytest.raises(trioraft.GroupNotFoundError):
                await manager.remove_group(7, force=True)
            with pytest.raises(trioraft.GroupExistsError, match="incarnation=2"):
                await manager.add_group(7, members={1})
            again = await manager.add_group(7, members={1}, incarnation=2)
            await again.wait_leader()
            assert await again.propose("first") == 1
        async with node(disk, machine_factory=lambda group_id: Journal()) as manager:
            assert await manager.add_group(7, members={1}, incarnation=2) is manager.get_group(7)


async def test_a_removal_whose_caller_left_is_finished_by_the_next_one(autojump_clock: trio.testing.MockClock) -> None:
    async def write_slowly(call: DiskCall) -> None:
        if call.verb == "sync":
            await trio.sleep(2)

    disk = SimulatedDisk(random.Random(1))
    async with node(disk, machine_factory=lambda group_id: Journal()) as manager:
        with trio.fail_after(60):
            group = await manager.add_group(7, members={1})
            await group.wait_leader()
            await trio.sleep(1)
            disk.hook = write_slowly
            with trio.move_on_after(0.5):
                await manager.remove_group(7, force=True)
            for arguments in ({"join": True}, {"members": {1}, "incarnation": 2}):
                with pytest.raises(trioraft.GroupExistsError, match="call remove_group again"):
                    await manager.add_group(7, **arguments)
            start = trio.current_time()
            await manager.remove_group(7, force=True)
            assert trio.current_time() - start > 1, "not before it is on the disk"
            assert (manager.group_ids, list(manager.groups)) == ([], [])
            await (await manager.add_group(7, members={1}, incarnation=2)).wait_leader()


async def test_a_number_is_named_of_a_damaged_replica_only(autojump_clock: trio.testing.MockClock) -> None:
    """Any other one knows its own, and a caller who names one has mistaken the node or the group."""
    async with node(SimulatedDisk(random.Random(1)), machine_factory=lambda group_id: Journal()) as manager:
        with trio.fail_after(60):
            group = await manager.add_group(7, members={1})
            await group.wait_leader()
            with pytest.raises(trioraft.ConfigError, match="not damaged"):
                await manager.remove_group(7, force=True, replica=trioraft.EntryId(1, 5))
            with pytest.raises(trioraft.ConfigError, match="is an EntryId"):
                await manager.remove_group(7, force=True, replica="5@1")
            assert await group.propose("nothing has happened") == 1
            await manager.remove_group(7, force=True)
