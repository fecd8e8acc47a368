"""Reads by a lease: without a round trip while nobody else can lead, and never after that."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest
import trio
import trio.testing

from trioraft import GroupConfig, RaftError

from .cluster import Cluster, SimNode, propose_until_done, running_cluster
from .test_reads import Shelf

LEASES = GroupConfig(lease_reads=True)


async def leader_and_other(cluster: Cluster) -> tuple[SimNode, SimNode]:
    leader = await cluster.leader()
    other = next(node for node in cluster.nodes.values() if node is not leader)
    await other.group().wait_leader()
    await leader.group().propose("x")
    return leader, other


async def test_a_lease_saves_the_round_trip_until_it_is_over(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(machine=Shelf, group_config=LEASES) as cluster:
        with trio.fail_after(60):
            leader, other = await leader_and_other(cluster)
            group = leader.group()
            assert await group.read("count", level="lease") == 1  # the round that gives the lease
            start = trio.current_time()
            for _ in range(100):
                assert await group.read("count", level="lease") == 1
            assert trio.current_time() == start
            await trio.sleep(1)
            start = trio.current_time()
            assert await group.read("count", level="lease") == 1
            assert trio.current_time() > start, "it was over"
            assert await other.group().read("count", level="lease") == 1, "elsewhere the leader is asked"


@pytest.mark.parametrize(("percent", "holds"), [(10, True), (50, False)])
async def test_lease_drift_percent_is_how_much_earlier_a_lease_ends(
    autojump_clock: trio.testing.MockClock, percent: int, holds: bool
) -> None:
    config = GroupConfig(lease_reads=True, lease_drift_percent=percent)
    async with running_cluster(machine=Shelf, group_config=config) as cluster:
        with trio.fail_after(60):
            leader, _ = await leader_and_other(cluster)
            await leader.group().read("count", level="lease")
            await trio.sleep(0.7)
            start = trio.current_time()
            await leader.group().read("count", level="lease")
            assert (trio.current_time() == start) is holds


class Stopping(Shelf):
    """The whole process is stopped while it looks."""

    clock: trio.testing.MockClock | None = None

    def query(self, query: Any) -> Any:
        answer = super().query(query)
        if self.clock is not None:
            self.clock.jump(5.0)
            self.clock = None
        return answer


async def test_a_process_that_was_stopped_notices_before_it_answers(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(machine=Stopping, group_config=LEASES) as cluster:
        with trio.fail_after(60):
            leader, _ = await leader_and_other(cluster)
            group, machine = leader.group(), leader.machines[1]
            assert isinstance(machine, Stopping)
            assert await group.read("count", level="lease") == 1
            lease, rounds = group._core.lease_until, group._core.rounds
            machine.clock = autojump_clock
            assert await propose_until_done(lambda: group.read("count", level="lease")) == 1
            assert group._host.now() > lease
            assert group._core.rounds > rounds or not group.is_leader, "the answer was given by a lease that was over"


async def test_a_lease_ends_with_a_transfer(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(machine=Shelf, group_config=LEASES) as cluster:
        with trio.fail_after(60):
            leader, other = await leader_and_other(cluster)
            await leader.group().read("count", level="lease")
            assert leader.group()._core.lease_until > leader.group()._host.now()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(leader.group().transfer_leadership, other.node_id)
                while leader.group().status().transfer_target is None and leader.group().is_leader:
                    await trio.lowlevel.checkpoint()
                assert leader.group()._core.lease_until == 0
            await propose_until_done(lambda: other.group().propose("y"))
            assert await propose_until_done(lambda: leader.group().read("count", level="lease")) == 2


@pytest.mark.parametrize("seed", range(4))
async def test_no_lease_answers_with_what_is_past(autojump_clock: trio.testing.MockClock, seed: int) -> None:
    """Nodes are cut off and come back; whoever reads sees at least what was acknowledged when it asked."""
    rng = random.Random(seed)
    async with running_cluster(machine=Shelf, group_config=LEASES, seed=seed) as cluster:
        acknowledged, reads = 0, 0

        async def write() -> None:
            nonlocal acknowledged
            while True:
                for node in cluster.nodes.values():
                    with contextlib.suppress(RaftError), trio.move_on_after(1):
                        acknowledged = max(acknowledged, await node.group().propose("x"))
                    await trio.sleep(0.02)

        async def read(node: SimNode) -> None:
            nonlocal reads
            while True:
                before = acknowledged
                with contextlib.suppress(RaftError), trio.move_on_after(1):
                    count = await node.group().read("count", level="lease")
                    reads += 1
                    assert count >= before
                await trio.sleep(0.01)

        with trio.fail_after(200):
            await cluster.leader()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                for node in cluster.nodes.values():
                    nursery.start_soon(read, node)
                for _ in range(4):
                    await trio.sleep(rng.uniform(0.5, 2))
                    cut = rng.choice(list(cluster.node_ids))
                    for node_id in set(cluster.node_ids) - {cut}:
                        cluster.network.cut(cut, node_id)
                    await trio.sleep(rng.uniform(0.5, 4))
                    for node_id in set(cluster.node_ids) - {cut}:
                        cluster.network.heal(cut, node_id)
                nursery.cancel_scope.cancel()
            assert acknowledged > 20
            assert reads > 50
