"""Leadership that is handed over: whole managers in virtual time."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import trio
import trio.testing

import trioraft
from trioraft import GroupConfig, PeerLiveness, TransferRefusedError
from trioraft.manager._handing_over import hand_over, plan_balance

from .cluster import Cluster, SimNode, eventually, propose_until_done, running_cluster


async def leader_and_others(cluster: Cluster) -> tuple[SimNode, list[SimNode]]:
    leader = await cluster.leader()
    await leader.group().propose("first")
    rest = [node for node in cluster.running() if node is not leader and node.node_id in cluster.members]
    for node in rest:
        await node.group().wait_leader()
    return leader, rest


@pytest.mark.parametrize("asked", ["the leader", "the target", "another"])
async def test_a_transfer_takes_round_trips_and_no_timeout(autojump_clock: trio.testing.MockClock, asked: str) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(60):
            leader, (target, another) = await leader_and_others(cluster)
            group = {"the leader": leader, "the target": target, "another": another}[asked].group()
            start = trio.current_time()
            assert await group.transfer_leadership(target.node_id) == target.node_id
            assert trio.current_time() - start < 0.2
            assert target.group().is_leader
            assert await propose_until_done(lambda: leader.group().propose("second")) == 2


async def test_somebody_leads_where_no_target_is_named(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(60):
            leader, rest = await leader_and_others(cluster)
            assert await leader.group().transfer_leadership() in {node.node_id for node in rest}


async def test_LT_1_a_target_that_lags_is_caught_up_first(thread_clock: trio.testing.MockClock) -> None:
    async with running_cluster(group_config=GroupConfig(keep_entries=0)) as cluster:
        with trio.fail_after(120):
            leader, (target, _) = await leader_and_others(cluster)
            await cluster.crash(target.node_id)
            for n in range(100):
                await leader.group().propose(n)
            await leader.group().snapshot()  # what it lacks is in a snapshot alone
            await cluster.start(target.node_id)
            with trio.fail_after(20):
                while True:
                    with contextlib.suppress(TransferRefusedError):  # its node has just started
                        assert await leader.group().transfer_leadership(target.node_id) == target.node_id
                        break
                    await trio.sleep(0.05)
            await eventually(lambda: len(target.machines[1].commands) == 101)


async def test_LT_4_targets_that_cannot_lead_are_refused_and_nothing_changes(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(nodes=4, members={1, 2, 3}) as cluster:
        with trio.fail_after(120):
            leader, (follower, dead) = await leader_and_others(cluster)
            await cluster.join(4)
            await leader.group().change_membership(voters={1, 2, 3}, learners={4})
            term = leader.group().status().term
            await cluster.crash(dead.node_id)
            await trio.sleep(3)
            for group in (leader.group(), follower.group()):
                for target, kind in [(leader.node_id, "leads"), (4, "no_voter"), (9, "no_voter"), (dead.node_id, "silent")]:
                    with pytest.raises(TransferRefusedError) as caught:
                        await group.transfer_leadership(target)
                    assert caught.value.kind == kind
                for target in ("2", 0, 2**32):
                    with pytest.raises(trioraft.ConfigError):
                        await group.transfer_leadership(target)  # type: ignore[arg-type]  # bad input, on purpose
            assert leader.group().is_leader
            assert leader.group().status().term == term


async def test_LT_8_under_load_nothing_is_lost_and_nothing_applied_twice(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(120):
            leader, rest = await leader_and_others(cluster)
            acknowledged, unknown = list[int](), list[int]()

            async def client(first: int) -> None:
                node = cluster.nodes[first % 3 + 1]
                for n in range(first, 20 * 64, 64):
                    with trio.fail_after(20):
                        while True:
                            try:
                                await node.group().propose(n)
                                acknowledged.append(n)
                                break
                            except (trioraft.NotLeaderError, trioraft.BusyError, trioraft.ProposalDroppedError):
                                await trio.sleep(0.01)
                            except trioraft.OutcomeUnknownError:
                                unknown.append(n)
                                break

            async with trio.open_nursery() as nursery:
                for first in range(64):
                    nursery.start_soon(client, first)
                await trio.sleep(0.01)
                start = trio.current_time()
                assert await leader.group().transfer_leadership(rest[0].node_id) == rest[0].node_id
                assert trio.current_time() - start < 2.0
            commands = [command for command in await cluster.settle() if command != "first"]
            assert len(commands) == len(set(commands)), "a refusal that was none"
            assert set(acknowledged) <= set(commands) <= {*acknowledged, *unknown}


async def test_a_node_that_stops_hands_over_before_it_goes(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(groups=20) as cluster:
        with trio.fail_after(120):
            for group_id in cluster.group_ids:
                await propose_until_done(lambda g=group_id: cluster.nodes[1].group(g).propose("x"))  # type: ignore[misc]  # bound now
            leader = await cluster.leader()
            led = [group.id for group in leader.up.groups.values() if group.is_leader]
            start = trio.current_time()
            await cluster.quit(leader.node_id)
            for group_id in led:
                successor = await cluster.leader(group_id)
                await propose_until_done(lambda g=group_id, n=successor: n.group(g).propose("y"))  # type: ignore[misc]  # bound now
            assert trio.current_time() - start < 1.0, "an election timeout has passed"


async def test_what_another_node_leads_by_now_stays_there(autojump_clock: trio.testing.MockClock) -> None:
    """Between the decision to hand groups over and the turn of each, leaders change."""
    async with running_cluster() as cluster:
        with trio.fail_after(60):
            leader, (other, _) = await leader_and_others(cluster)
            assert await hand_over({other.group(): None}) == []
            await trio.sleep(3)
            assert leader.group().is_leader


async def test_nobody_counts_on_a_node_again_once_it_has_said_goodbye(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(60):
            leader, rest = await leader_and_others(cluster)
            await trio.sleep(2)
            for node in rest:
                node.events.seen.clear()
            await cluster.quit(leader.node_id)
            await trio.sleep(3)
            for node in rest:
                assert node.events.of(PeerLiveness) == [PeerLiveness(leader.node_id, False)]


async def test_a_node_whose_peers_are_gone_stops_all_the_same(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(60):
            leader, rest = await leader_and_others(cluster)
            await cluster.crash(*[node.node_id for node in rest])
            start = trio.current_time()
            await cluster.quit(leader.node_id)
            assert trio.current_time() - start < 7.0


class TestBalance:
    async def test_leaders_spread_over_the_nodes(self, autojump_clock: trio.testing.MockClock) -> None:
        async with running_cluster(groups=9) as cluster:
            with trio.fail_after(120):
                await gather_at(cluster, 1)
                for node in cluster.nodes.values():
                    await node.up.balance_leaders()
                await eventually(lambda: leading(cluster) == [3, 3, 3])
                assert await cluster.nodes[1].up.balance_leaders() == {}

    async def test_groups_go_where_they_are_wanted(self, autojump_clock: trio.testing.MockClock) -> None:
        async with running_cluster(groups=6) as cluster:
            with trio.fail_after(120):
                await gather_at(cluster, 1)
                moved = await cluster.nodes[1].up.balance_leaders({group_id: [2, 3] for group_id in cluster.group_ids})
                assert moved == dict.fromkeys(cluster.group_ids, 2)
                await eventually(lambda: leading(cluster) == [0, 6, 0])
                await cluster.crash(3)
                await trio.sleep(3)
                moved = await cluster.nodes[2].up.balance_leaders({group_id: [3, 1] for group_id in cluster.group_ids})
                assert moved == dict.fromkeys(cluster.group_ids, 1), "the first that is there"

    async def test_bad_preferences_are_refused(self, autojump_clock: trio.testing.MockClock) -> None:
        async with running_cluster(nodes=1) as cluster:
            with trio.fail_after(30):
                for prefer in ({1: "2"}, {1: [2, "3"]}, {1: 2}):
                    with pytest.raises(trioraft.ConfigError):
                        await cluster.nodes[1].up.balance_leaders(prefer)  # type: ignore[arg-type]  # bad input, on purpose

    def test_the_plan(self) -> None:
        led = {1: [2, 3], 2: [2, 3], 3: [3], 4: list[int]()}
        assert plan_balance(led, {1: 4}, 1, {}) == {1: 2, 2: 3}
        assert plan_balance(led, {1: 4, 2: 4, 3: 3}, 1, {}) == {}
        assert plan_balance(led, {1: 4}, 1, {1: [1], 2: [1, 2]}) == {3: 3}
        assert plan_balance(led, {1: 4, 3: 9}, 1, {1: [3, 1], 2: [2], 3: [9, 1]}) == {1: 3, 2: 2}


async def gather_at(cluster: Cluster, node_id: int) -> None:
    for group_id in cluster.group_ids:
        leader = await cluster.leader(group_id)
        await propose_until_done(lambda g=group_id, n=leader: n.group(g).propose("x"))  # type: ignore[misc]  # the default binds it now
        if leader.node_id != node_id:
            await leader.group(group_id).transfer_leadership(node_id)
    for node in cluster.running():
        await eventually(lambda n=node: all(n.group(g).leader == node_id for g in cluster.group_ids))  # type: ignore[misc]  # bound now


def leading(cluster: Cluster) -> list[int]:
    counts: Any = [node.up.status().leading for node in cluster.running()]
    return list(counts)
