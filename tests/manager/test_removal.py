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
from trioraft.storage import SimulatedDisk

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
