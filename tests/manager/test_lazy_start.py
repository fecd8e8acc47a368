"""A start opens no group and makes no task: what is on the disk waits there until somebody needs it."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
import trio.testing

import trioraft
from trioraft import GroupConfig, MemoryNetwork, MemoryTransport, StateMachine, StorageConfig, WalStorage, open_manager
from trioraft.manager._waking import WakingLines
from trioraft.storage import SimulatedDisk

from .cluster import Journal, eventually, propose_until_done, running_cluster


def node(disk: SimulatedDisk, **options: Any) -> Any:
    return open_manager(
        node_id=1,
        cluster_id="c",
        storage=WalStorage(StorageConfig(base_dir="/data"), disk=disk.mount()),
        transport=MemoryTransport(MemoryNetwork()),
        addresses={1: "127.0.0.1:1", 2: "127.0.0.1:2"},
        **options,
    )


async def write_groups(disk: SimulatedDisk, *group_ids: int) -> None:
    async with node(disk) as manager:
        for group_id in group_ids:
            group = await manager.add_group(group_id, Journal(), members={1})
            await group.wait_leader()
            await group.propose(f"of {group_id}")


async def test_a_start_builds_no_machine_and_runs_no_group(autojump_clock: trio.testing.MockClock, seed: int) -> None:
    disk, built = SimulatedDisk(random.Random(seed)), []

    def factory(group_id: int) -> StateMachine:
        built.append(group_id)
        return Journal()

    with trio.fail_after(60):
        await write_groups(disk, 7, 8, 9)
        async with node(disk, machine_factory=factory) as manager:
            assert manager.group_ids == [7, 8, 9]
            assert built == []
            assert manager.status().groups == 0
            assert manager.counters.turns == 0
            group = manager.get_group(8)
            assert built == [8]
            assert manager.get_group(8) is group
            await group.wait_leader()
            assert await group.propose("again") == 2
            assert list(manager.groups) == [8]


async def test_a_message_brings_up_the_group_that_it_is_for(autojump_clock: trio.testing.MockClock, seed: int) -> None:
    with trio.fail_after(120):
        async with running_cluster(seed=seed, groups=3, lazy=True) as cluster:
            for group_id in cluster.group_ids:
                leader = await cluster.leader(group_id)
                await propose_until_done(lambda g=group_id, n=leader: n.group(g).propose("before"))
            for node_id in cluster.node_ids:
                await cluster.stop(node_id)
            await cluster.start()
            assert all(not node.up.groups for node in cluster.running())
            # One node's caller is enough: it campaigns, and its questions wake the others' replicas, of this group only.
            first = cluster.nodes[1].group(2)
            await first.wait_leader()
            assert await propose_until_done(lambda: first.propose("after")) == 2
            assert [sorted(node.up.groups) for node in cluster.running()] == [[2], [2], [2]]


async def test_a_restarted_follower_comes_up_when_its_leader_has_something_for_it(
    autojump_clock: trio.testing.MockClock, seed: int
) -> None:
    with trio.fail_after(120):
        async with running_cluster(seed=seed, groups=2, lazy=True) as cluster:
            leader = await cluster.leader(1)
            await propose_until_done(lambda: leader.group(1).propose("a"))
            await cluster.settle(1)
            other = next(node for node in cluster.running() if node is not leader)
            await cluster.crash(other.node_id)
            await propose_until_done(lambda: leader.group(1).propose("b"))
            await cluster.start(other.node_id)
            await eventually(lambda: 1 in other.up.groups and other.machines[1].commands == ["a", "b"])


async def test_many_groups_that_a_pulse_names_are_started_a_few_at_a_time(
    autojump_clock: trio.testing.MockClock, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trioraft.manager._waking.PORTION_SECONDS", 0.0)
    portions = []
    original = WakingLines.wake_some

    def wake_some(self: WakingLines) -> bool:
        before = len(self._lines)
        more = original(self)
        portions.append(before - len(self._lines))
        return more

    monkeypatch.setattr(WakingLines, "wake_some", wake_some)
    with trio.fail_after(300):
        async with running_cluster(seed=seed, groups=40, lazy=True) as cluster:
            for group_id in cluster.group_ids:
                await cluster.leader(group_id)
                await cluster.settle(group_id)
            other = cluster.nodes[2]
            await cluster.stop(2)
            await trio.sleep(5)
            portions.clear()
            await cluster.start(2)
            await eventually(lambda: len(other.up.groups) == 40)
            assert max(portions) == 1
            assert sum(portions) >= 40
            for group_id in cluster.group_ids:
                await cluster.leader(group_id)
                await cluster.settle(group_id)


async def test_a_stopping_node_starts_no_group(autojump_clock: trio.testing.MockClock, seed: int) -> None:
    with trio.fail_after(120):
        async with running_cluster(seed=seed, groups=3, lazy=True) as cluster:
            for group_id in cluster.group_ids:
                await cluster.leader(group_id)
            for node_id in cluster.node_ids:
                await cluster.stop(node_id)
            await cluster.start()
            await cluster.nodes[1].group(1).wait_leader()
            for node_id in cluster.node_ids:
                await cluster.quit(node_id)
            for node in cluster.nodes.values():
                assert not node.events.of(trioraft.GroupFailed)
                assert sorted(node.machines) == [1]


async def test_without_a_factory_a_group_waits_for_add_group_and_says_so(autojump_clock: trio.testing.MockClock, seed: int) -> None:
    disk = SimulatedDisk(random.Random(seed))
    with trio.fail_after(60):
        await write_groups(disk, 7)
        async with node(disk) as manager:
            with pytest.raises(trioraft.GroupNotFoundError, match="machine_factory"):
                manager.get_group(7)
            with pytest.raises(trioraft.ConfigError, match="machine of group 7"):
                await manager.add_group(7, members={1})
            group = await manager.add_group(7, Journal(), members={1})
            assert manager.get_group(7) is group


async def test_a_factory_that_raises_costs_its_group_only(autojump_clock: trio.testing.MockClock, seed: int) -> None:
    disk = SimulatedDisk(random.Random(seed))

    def factory(group_id: int) -> StateMachine:
        if group_id == 7:
            raise OSError("no database")
        return Journal()

    with trio.fail_after(60):
        await write_groups(disk, 7, 8)
        async with node(disk, machine_factory=factory) as manager:
            with pytest.raises(OSError, match="no database"):
                manager.get_group(7)
            await manager.get_group(8).wait_leader()
        async with node(disk, machine_factory=lambda group_id: "no machine") as manager:
            with pytest.raises(trioraft.ConfigError, match="group 8 must be an instance"):
                manager.get_group(8)


async def test_a_group_that_no_message_can_open_is_not_tried_again_and_again(autojump_clock: trio.testing.MockClock, seed: int) -> None:
    with trio.fail_after(120):
        async with running_cluster(seed=seed, lazy=True) as cluster:
            leader = await cluster.leader()
            other = next(node for node in cluster.running() if node is not leader)
            await cluster.stop(other.node_id)
            tries = []

            def broken() -> Journal:
                tries.append(1)
                raise OSError("no database")

            cluster.machine = broken
            await cluster.start(other.node_id)
            await eventually(lambda: bool(other.events.of(trioraft.GroupFailed)))
            await propose_until_done(lambda: leader.group().propose("goes on"))
            await trio.sleep(5)
            assert len(tries) == 1
            with pytest.raises(trioraft.GroupStoppedError, match="no database"):
                other.up.get_group(1)


async def test_add_group_without_a_machine_returns_what_runs_already(autojump_clock: trio.testing.MockClock, seed: int) -> None:
    disk = SimulatedDisk(random.Random(seed))
    with trio.fail_after(60):
        await write_groups(disk, 7)
        async with node(disk, machine_factory=lambda group_id: Journal(), group_config=GroupConfig(entry_bytes_max=100)) as manager:
            group = manager.get_group(7)
            assert await manager.add_group(7, members={1}) is group
            with pytest.raises(trioraft.GroupExistsError, match="created with members"):
                await manager.add_group(7, members={1, 2})
            with pytest.raises(trioraft.GroupExistsError, match="is open"):
                await manager.add_group(7, Journal(), members={1})
            await group.wait_leader()
            with pytest.raises(trioraft.EntryTooLargeError):
                await group.propose("x" * 101)


async def test_an_untouched_group_can_be_removed_and_stays_away(autojump_clock: trio.testing.MockClock, seed: int) -> None:
    disk = SimulatedDisk(random.Random(seed))
    with trio.fail_after(60):
        await write_groups(disk, 7, 8)
        async with node(disk, machine_factory=lambda group_id: Journal()) as manager:
            with pytest.raises(trioraft.GroupExistsError, match="is a voter"):
                await manager.remove_group(7)
            await manager.remove_group(7, force=True)
            assert manager.group_ids == [8]
            with pytest.raises(trioraft.GroupNotFoundError):
                manager.get_group(7)
        async with node(disk, machine_factory=lambda group_id: Journal()) as manager:
            assert manager.group_ids == [8]
            with pytest.raises(trioraft.GroupExistsError, match="incarnation=2"):
                await manager.add_group(7, members={1})
            await manager.add_group(7, members={1}, incarnation=2)
