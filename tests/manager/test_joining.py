"""Replicas that come to a group later, and go, and come again: `add_group(join=True)` in whole managers."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from trioraft import ConfigError, CorruptLogError, GroupExistsError, NotLeaderError, StaleRead

from .cluster import Cluster, SimNode, eventually, propose_until_done, running_cluster
from .test_membership import applied, change, others
from .test_reads import Shelf, leader_and_other


async def restart(cluster: Cluster, node: SimNode) -> None:
    await cluster.crash(node.node_id)
    await cluster.start(node.node_id)


async def test_a_node_joins_by_a_change_that_a_follower_was_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(nodes=4, members={1, 2, 3}) as cluster:
        with trio.fail_after(120):
            leader, follower = await leader_and_other(cluster)
            for n in range(10):
                await leader.group().propose(n)
            await cluster.join(4)
            joined = cluster.nodes[4]
            # It may take a while to be heard of.
            index = await change(follower.group(), {1, 2, 3, 4})
            for node in cluster.running():
                await node.group().wait_applied(index)
                assert node.group().configuration_index == index
                assert node.group().status().voters == {1, 2, 3, 4}
            await applied(joined, list(range(10)))
            # Three of four must agree, so without another one its vote is needed.
            await cluster.crash(follower.node_id)
            assert await propose_until_done(lambda: joined.group().propose("with its vote")) == 11


async def test_a_node_joins_goes_and_joins_again_with_restarts_in_between(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(nodes=4, members={1, 2, 3}) as cluster:
        with trio.fail_after(300):
            leader, joined, numbers = await cluster.leader(), cluster.nodes[4], list[Any]()
            for round_ in range(3):
                await leader.group().propose(round_)
                await cluster.join(4)
                await restart(cluster, joined)  # it has joined, and nobody knows yet
                await change(leader.group(), {1, 2, 3, 4})
                await applied(joined, list(range(round_ + 1)))
                await restart(cluster, joined)
                await applied(joined, list(range(round_ + 1)))
                numbers.append(joined.group().status().replica)
                assert numbers[-1] == leader.group().status().replicas[4]
                with pytest.raises(GroupExistsError, match="change its members first"):
                    await joined.up.remove_group(1)
                await change(leader.group(), {1, 2, 3})
                await eventually(lambda: joined.group().status().is_removed)
                await joined.up.remove_group(1)
                await restart(cluster, joined)
                assert joined.up.group_ids == []
            assert numbers == sorted(set(numbers)), "the number of a replica comes once"
            assert await leader.group().propose("still three") == 4
            assert 4 not in leader.group().status().replicas


async def test_a_group_is_begun_with_members_or_joined(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(nodes=4, members={1, 2, 3}) as cluster:
        with trio.fail_after(60):
            manager = cluster.nodes[4].up
            for arguments in ({}, {"members": {1, 4}, "join": True}, {"members": ()}, {"join": False}):
                with pytest.raises(ConfigError, match="join"):
                    await manager.add_group(1, **arguments)
            assert manager.group_ids == []


async def test_a_joined_group_is_never_taken_for_one_that_was_begun_here(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(nodes=4, members={1, 2, 3}) as cluster:
        with trio.fail_after(60):
            await cluster.join(4)
            joined = cluster.nodes[4]
            for _ in range(2):
                group = joined.group()
                with pytest.raises(GroupExistsError, match="join=True"):
                    await joined.up.add_group(1, members={1, 2, 3, 4})
                assert await joined.up.add_group(1, join=True) is group
                await restart(cluster, joined)
            # The other way round it is what is on the disk.
            await cluster.nodes[1].up.add_group(1, join=True)
            assert cluster.nodes[1].group().status().voters == {1, 2, 3}


async def test_a_joined_group_that_was_never_added_waits_and_disturbs_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(nodes=4, members={1, 2, 3}, machine=Shelf) as cluster:
        with trio.fail_after(300):
            leader = await cluster.leader()
            await leader.group().propose("x")
            term = leader.group().status().term
            await cluster.join(4)
            joined = cluster.nodes[4]
            for _ in range(2):
                group = joined.group()
                for ask in (
                    lambda group=group: group.propose("y"),
                    lambda group=group: group.read("count"),
                    lambda group=group: group.read("count", level="follower"),
                    group.read_barrier,
                    group.open_session,
                    lambda group=group: group.change_membership(voters={4}),
                    group.transfer_leadership,
                ):
                    with pytest.raises(NotLeaderError):
                        await ask()
                assert await group.read("all", level="stale") == StaleRead([], 0)
                await trio.sleep(60)
                status = group.status()
                assert (status.term, status.voters, status.last_index) == (0, frozenset(), 0)
                await restart(cluster, joined)
            assert leader.group().is_leader
            assert leader.group().status().term == term
            # Nobody counts on it, so it may go without force.
            await joined.up.remove_group(1)
            assert joined.up.group_ids == []
            assert others(cluster, leader, joined)


def damage(node: SimNode, command: bytes) -> None:
    """Change a bit of a command in the log of a node that does not run."""
    path = "/data/wal/00000001.wal"
    data = bytearray(node.disk.contents(path))
    data[data.rindex(command)] ^= 1
    node.disk.overwrite(path, bytes(data))


async def test_a_damaged_group_is_repaired_by_another_replica_on_the_same_node(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(groups=2, lazy=True) as cluster:
        with trio.fail_after(300):
            leader, damaged = await leader_and_other(cluster)
            for command in ("the first", "the last"):
                await leader.group().propose(command)
            await cluster.settle()
            before = leader.group().status().replicas[damaged.node_id]
            await cluster.stop(damaged.node_id)
            damage(damaged, b"the last")
            await cluster.start(damaged.node_id)
            manager = damaged.up
            with pytest.raises(CorruptLogError):
                await manager.add_group(1, members={1, 2, 3})
            rest = {1, 2, 3} - {damaged.node_id}
            await change(leader.group(), rest)
            await manager.remove_group(1, force=True, incarnation=1, replica=before)
            await cluster.join(damaged.node_id)
            await trio.sleep(5)
            assert damaged.group().status().last_index == 0, "nothing counts that was meant for the former replica"
            await change(leader.group(), {1, 2, 3})
            await applied(damaged, ["the first", "the last"])
            assert damaged.group().status().replica > before
            await propose_until_done(lambda: damaged.group(2).propose("the other group has lost nothing"))


async def test_a_damaged_group_that_was_removed_without_its_number_never_comes_back(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(lazy=True) as cluster:
        with trio.fail_after(300):
            leader, damaged = await leader_and_other(cluster)
            await leader.group().propose("the last")
            await cluster.settle()
            await cluster.stop(damaged.node_id)
            damage(damaged, b"the last")
            await cluster.start(damaged.node_id)
            await damaged.up.remove_group(1, force=True, incarnation=1)
            with pytest.raises(GroupExistsError, match="was not told which replica"):
                await cluster.join(damaged.node_id)
