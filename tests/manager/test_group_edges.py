"""Groups at the edge: a machine that wants to exit, a change that another leader ends, and callers behind a snapshot."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from trioraft import ApplyContext, GroupConfig, OutcomeUnknownError, ProposalDroppedError, RaftError

from .cluster import Journal, running_cluster
from .test_reads import leader_and_other


class Exiting(Journal):
    def apply(self, command: Any, context: ApplyContext) -> Any:
        if command == "exit":
            raise SystemExit(3)
        return super().apply(command, context)


class BlockingExiting(Exiting):
    blocking = True


@pytest.mark.parametrize("machine", [Exiting, BlockingExiting])
async def test_a_machine_that_exits_stops_its_group_and_not_its_node(thread_clock: trio.testing.MockClock, machine: type[Journal]) -> None:
    async with running_cluster(machine=machine, groups=2) as cluster:
        with trio.fail_after(60):
            leader, _ = await leader_and_other(cluster)
            with pytest.raises(OutcomeUnknownError):
                await leader.group().propose("exit")
            assert "index" in str(leader.group().failure)
            other = await cluster.leader(2)
            assert await other.group(2).propose("x") == 1


async def test_callers_behind_a_snapshot_that_came_instead_hear_that_they_lost(thread_clock: trio.testing.MockClock) -> None:
    async with running_cluster(group_config=GroupConfig(snapshot_entries=20, keep_entries=2)) as cluster:
        with trio.fail_after(120):
            leader, _ = await leader_and_other(cluster)
            cluster.network.isolate(leader.node_id)
            errors = list[RaftError]()

            async def propose(number: int) -> None:
                with pytest.raises((ProposalDroppedError, OutcomeUnknownError)) as caught:
                    await leader.group().propose(number)
                errors.append(caught.value)

            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(propose, number)
                new = await cluster.leader(among=set(cluster.node_ids) - {leader.node_id})
                for number in range(45):
                    await new.group().propose(number)
                await new.group().snapshot()
                await trio.sleep(5)
                cluster.network.heal_all()
            kinds = {type(error) for error in errors}
            assert kinds == {ProposalDroppedError, OutcomeUnknownError}


async def test_a_change_that_another_leader_ends_is_not_said_to_be_in_no_log(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(nodes=5, members=(1, 2, 3)) as cluster:
        with trio.fail_after(200):
            await cluster.join(4, 5)
            leader = await cluster.leader()
            group, target = leader.group(), {leader.node_id, 4, 5}
            await group.change_membership(voters={1, 2, 3}, learners={4, 5})
            await trio.sleep(1)
            others = [node for node in cluster.running() if node is not leader]

            async def change() -> None:
                with pytest.raises(OutcomeUnknownError):
                    await group.change_membership(voters=target)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(change)
                while not group.status().outgoing or any(
                    node.group().status().persisted_index < group.configuration_index for node in others
                ):
                    await trio.sleep(0.0001)
                # The others have the joint configuration, and will not hear that it is to be left.
                for node in others:
                    cluster.network.cut_one_way(leader.node_id, node.node_id)
                await trio.sleep(8)
                cluster.network.heal_all()
            status = cluster.nodes[4].group().status()
            assert (status.voters, status.outgoing) == (target, frozenset())
