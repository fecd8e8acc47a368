"""Members come and go while the group works: whole managers in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import trioraft
from trioraft import ChangeRefusedError, ConfigError, GroupConfig, RaftGroup

from .cluster import Cluster, SimNode, eventually, propose_until_done, running_cluster


async def change(group: RaftGroup, voters: set[int], learners: set[int] = frozenset(), **options: Any) -> int:  # type: ignore[assignment]
    """Change members, again after each refusal that says to."""
    with trio.fail_after(60):
        while True:
            try:
                return await group.change_membership(voters=voters, learners=learners, **options)
            except trioraft.NotLeaderError:
                await trio.sleep(0.05)
            except ChangeRefusedError as error:
                if error.kind not in ("term_not_begun", "change_pending", "joint_in_progress", "learner_behind", "learner_silent"):
                    raise
                await trio.sleep(0.2)


def others(cluster: Cluster, *nodes: SimNode) -> list[SimNode]:
    return [node for node in cluster.running() if node not in nodes and 1 in node.up.groups]


async def applied(node: SimNode, commands: list[Any]) -> None:
    await eventually(lambda: 1 in node.machines and node.machines[1].commands == commands)


async def test_a_new_node_learns_everything_then_votes(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(nodes=4, members={1, 2, 3}) as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader()
            for n in range(10):
                await leader.group().propose(n)
            await cluster.join(4)
            index = await change(leader.group(), {1, 2, 3, 4})
            assert leader.group().configuration_index == index
            await applied(cluster.nodes[4], list(range(10)))
            status = cluster.nodes[4].group().status()
            assert status.voters == {1, 2, 3, 4}
            assert status.replica.index > 0
            assert status.replica == leader.group().status().replicas[4]
            await cluster.crash(*[node.node_id for node in others(cluster, leader, cluster.nodes[4])][:1])
            assert await propose_until_done(lambda: cluster.nodes[4].group().propose("with its vote")) == 11


async def test_a_learner_gets_the_log_and_asks_through_the_leader(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(nodes=4, members={1, 2, 3}) as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader()
            await cluster.join(4)
            await change(leader.group(), {1, 2, 3}, {4})
            learner = cluster.nodes[4].group()
            assert await learner.wait_leader() == leader.node_id
            assert await learner.propose("from a learner") == 1
            await applied(cluster.nodes[4], ["from a learner"])
            # Forwarded, and it is about the one who asks.
            index = await change(learner, {1, 2, 3, 4}, expect=learner.configuration_index)
            await learner.wait_applied(index)
            assert learner.status().voters == {1, 2, 3, 4}
            assert learner.configuration_index == index


async def test_a_dead_node_is_replaced(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(nodes=4, members={1, 2, 3}) as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader()
            await leader.group().propose("before")
            (dead, *_) = others(cluster, leader)
            await cluster.crash(dead.node_id)
            await cluster.join(4)
            living = {1, 2, 3, 4} - {dead.node_id}
            await change(leader.group(), living)
            await applied(cluster.nodes[4], ["before"])
            # One of the three that are left may go now.
            await cluster.crash(next(node.node_id for node in others(cluster, leader, cluster.nodes[4])))
            await propose_until_done(lambda: cluster.nodes[4].group().propose("after"))
            await applied(leader, ["before", "after"])


async def test_MB_11_a_node_that_is_not_there_stays_a_learner(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing waits for its vote, so the group goes on with the votes that it has."""
    async with running_cluster(nodes=4, members={1, 2, 3}) as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader()
            await cluster.crash(4)
            with pytest.raises(ChangeRefusedError) as caught:
                await leader.group().change_membership(voters={1, 2, 3, 4})
            assert caught.value.kind == "learner_silent"
            status = leader.group().status()
            assert (status.voters, status.learners) == ({1, 2, 3}, {4})
            await cluster.crash(others(cluster, leader)[0].node_id)
            await propose_until_done(lambda: leader.group().propose("two of three"))
            with pytest.raises(ChangeRefusedError) as caught:
                await leader.group().change_membership(voters={1, 2, 3, 4})
            assert caught.value.kind == "learner_silent"


async def test_promotion_lag_max_is_how_far_behind_a_learner_may_vote(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(nodes=4, members={1, 2, 3}, group_config=GroupConfig(promotion_lag_max=5)) as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader()
            await cluster.join(4)
            await change(leader.group(), {1, 2, 3}, {4})
            learner = cluster.nodes[4]
            await applied(learner, [])
            learner.disk.sync_seconds = 0.9  # there, and slow
            async with trio.open_nursery() as nursery:
                for n in range(6):
                    nursery.start_soon(leader.group().propose, n)
            with pytest.raises(ChangeRefusedError) as caught:
                await leader.group().change_membership(voters={1, 2, 3, 4})
            assert caught.value.kind == "learner_behind"
            learner.disk.sync_seconds = 0.001
            await change(leader.group(), {1, 2, 3, 4})


async def test_a_removed_node_goes_quiet_and_may_be_added_again(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader()
            (gone, stays) = others(cluster, leader)
            await change(leader.group(), {leader.node_id, stays.node_id})
            await eventually(lambda: gone.group().status().is_removed)
            await leader.group().propose("without it")
            await trio.sleep(30)
            assert gone.machines[1].commands == []
            # Again, by what it has on its disk, and under another number.
            await change(leader.group(), {1, 2, 3})
            await applied(gone, ["without it"])
            assert gone.group().status().replica.index > 0
            assert not gone.group().status().is_removed
            await cluster.crash(stays.node_id)
            await propose_until_done(lambda: gone.group().propose("with its vote"))


async def test_a_removed_group_is_joined_again_from_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader()
            (gone, stays) = others(cluster, leader)
            await leader.group().propose("x")
            await change(leader.group(), {leader.node_id, stays.node_id})
            await eventually(lambda: gone.group().status().is_removed)
            await gone.up.remove_group(1)
            await cluster.join(gone.node_id)
            await change(leader.group(), {1, 2, 3})
            await applied(gone, ["x"])
            number = gone.group().status().replica
            assert number == leader.group().status().replicas[gone.node_id]
            # And once more, now under a number that must rise again.
            await change(leader.group(), {leader.node_id, stays.node_id})
            await eventually(lambda: gone.group().status().is_removed)
            await gone.up.remove_group(1)
            await cluster.join(gone.node_id)
            await change(leader.group(), {1, 2, 3})
            await applied(gone, ["x"])
            assert gone.group().status().replica > number


async def test_MB_4_a_leader_that_removes_itself_hands_over_without_a_timeout(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader()
            await leader.group().propose("x")
            rest = {1, 2, 3} - {leader.node_id}
            start = trio.current_time()
            await change(leader.group(), rest)
            successor = await cluster.leader(among=rest)
            assert trio.current_time() - start < 0.5, "an election timeout has passed"
            await eventually(lambda: leader.group().status().is_removed)
            assert await propose_until_done(lambda: successor.group().propose("y")) == 2
            term = successor.group().status().term
            await trio.sleep(60)
            assert successor.group().status().term == term
            with pytest.raises(trioraft.NotLeaderError):
                await leader.group().propose("z")


async def test_nobody_waits_for_ever_at_a_leader_that_removes_itself(autojump_clock: trio.testing.MockClock) -> None:
    """What it has in its log behind the change may be committed by others, and it will never hear of that."""
    async with running_cluster() as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader()
            ends: list[type] = []

            async def write(client: int) -> None:
                while not leader.group().status().is_removed:
                    try:
                        with trio.fail_after(10):
                            await leader.group().propose(client)
                    except (trioraft.NotLeaderError, trioraft.OutcomeUnknownError, trioraft.ProposalDroppedError) as error:
                        ends.append(type(error))
                        await trio.sleep(0.001)

            async with trio.open_nursery() as nursery:
                for client in range(30):
                    nursery.start_soon(write, client)
                    await trio.sleep(0.0007)
                await change(leader.group(), {1, 2, 3} - {leader.node_id})
            assert trioraft.OutcomeUnknownError in ends


async def test_nobody_waits_for_ever_at_a_replica_that_is_long_removed(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader()
            (gone, stays) = others(cluster, leader)
            await change(leader.group(), {leader.node_id, stays.node_id})
            await eventually(lambda: gone.group().status().is_removed)
            await trio.sleep(60)
            with pytest.raises(trioraft.NotLeaderError):
                await gone.group().wait_applied(10**6)


async def test_MB_8_a_node_that_missed_its_removal_is_told_and_disturbs_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(300):
            leader = await cluster.leader()
            (gone, stays) = others(cluster, leader)
            await cluster.crash(gone.node_id)
            await change(leader.group(), {leader.node_id, stays.node_id})
            term = leader.group().status().term
            await cluster.start(gone.node_id)
            await eventually(lambda: gone.group().status().is_removed)
            await trio.sleep(60)
            assert leader.group().is_leader
            assert leader.group().status().term == term


async def test_several_voters_at_once_go_through_a_joint_configuration(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(nodes=6, members={1, 2, 3}) as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader()
            await leader.group().propose("x")
            await cluster.join(4, 5, 6)
            await change(leader.group(), {4, 5, 6})
            successor = await cluster.leader(among={4, 5, 6})
            status = successor.group().status()
            assert (status.voters, status.outgoing) == ({4, 5, 6}, frozenset())
            await eventually(lambda: all(cluster.nodes[node_id].group().status().is_removed for node_id in (1, 2, 3)))
            await cluster.crash(1, 2, 3)
            assert await propose_until_done(lambda: successor.group().propose("y")) == 2


async def test_a_joint_configuration_is_left_by_the_next_leader(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(nodes=5, members={1, 2, 3}) as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader()
            await cluster.join(4, 5)
            await change(leader.group(), {1, 2, 3}, {4, 5})
            async with trio.open_nursery() as nursery:
                errors: list[Exception] = []

                async def ask() -> None:
                    try:
                        await change(leader.group(), {leader.node_id, 4, 5})
                    except trioraft.RaftError as error:
                        errors.append(error)

                nursery.start_soon(ask)
                # In the log of the others, and not left yet.
                while not any(node.group().status().outgoing for node in others(cluster, leader)):
                    await trio.sleep(0.0003)
                await cluster.crash(leader.node_id)
            assert [type(error) for error in errors] in ([trioraft.OutcomeUnknownError], [])
            await cluster.start(leader.node_id)
            # Who goes may never hear how it ended.
            statuses = [node.group().status for node in cluster.running()]
            await eventually(lambda: all(status().is_removed or not status().outgoing for status in statuses))
            assert {status().voters for status in statuses if not status().is_removed} == {frozenset({leader.node_id, 4, 5})}


class TestRefusals:
    async def test_MB_12_and_MB_3_nothing_changes_and_nothing_is_in_the_log(self, autojump_clock: trio.testing.MockClock) -> None:
        async with running_cluster() as cluster:
            with trio.fail_after(120):
                leader = await cluster.leader()
                await leader.group().propose("x")
                await cluster.settle()
                follower = others(cluster, leader)[0]
                await follower.group().wait_leader()
                before = leader.group().status()
                for group in (leader.group(), follower.group()):
                    for arguments, kind in [
                        ({"voters": set()}, "removes_all_voters"),
                        ({"voters": set(), "learners": {1, 2, 3}}, "removes_all_voters"),
                        ({"voters": {1, 2, 3}, "learners": {9}}, "unknown_node"),
                        ({"voters": {1, 2}, "expect": 99}, "stale_expect"),
                    ]:
                        with pytest.raises(ChangeRefusedError) as caught:
                            await group.change_membership(**arguments)  # type: ignore[arg-type]  # bad input, on purpose
                        assert caught.value.kind == kind
                    for arguments in (
                        {"voters": {1, "2"}},
                        {"voters": {0, 1}},
                        {"voters": {1, 2}, "learners": {2}},
                        {"voters": {1, 2}, "expect": "newest"},
                        {"voters": {1, 2}, "expect": -1},
                    ):
                        with pytest.raises(ConfigError):
                            await group.change_membership(**arguments)  # type: ignore[arg-type]  # bad input, on purpose
                after = leader.group().status()
                assert (after.last_index, after.voters, after.term) == (before.last_index, before.voters, before.term)

    async def test_what_is_in_force_already_is_no_change(self, autojump_clock: trio.testing.MockClock) -> None:
        async with running_cluster() as cluster:
            with trio.fail_after(120):
                leader = await cluster.leader()
                last = (await change(leader.group(), {1, 2, 3}), leader.group().status().last_index)
                assert await change(leader.group(), {1, 2, 3}, expect=last[0]) == last[0] == 0
                assert leader.group().status().last_index == last[1]

    async def test_MB_3_of_two_at_once_one_is_refused(self, autojump_clock: trio.testing.MockClock) -> None:
        async with running_cluster() as cluster:
            with trio.fail_after(120):
                leader = await cluster.leader()
                await leader.group().propose("x")
                group, kinds = leader.group(), list[Any]()

                async def ask(voters: set[int]) -> None:
                    try:
                        kinds.append(await group.change_membership(voters=voters))
                    except ChangeRefusedError as error:
                        kinds.append(error.kind)

                rest = sorted({1, 2, 3} - {leader.node_id})
                async with trio.open_nursery() as nursery:
                    for node_id in rest:
                        nursery.start_soon(ask, {leader.node_id, node_id})
                assert sorted(map(str, kinds)) == sorted([str(group.configuration_index), "change_pending"])

    async def test_a_change_at_a_leader_that_is_cut_off_has_an_unknown_outcome(self, autojump_clock: trio.testing.MockClock) -> None:
        async with running_cluster() as cluster:
            with trio.fail_after(120):
                leader = await cluster.leader()
                await leader.group().propose("x")
                for other in others(cluster, leader):
                    cluster.network.cut(leader.node_id, other.node_id)
                with pytest.raises((trioraft.OutcomeUnknownError, trioraft.ProposalDroppedError)):
                    await leader.group().change_membership(voters={leader.node_id})
