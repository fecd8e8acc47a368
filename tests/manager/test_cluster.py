"""Three whole managers in virtual time: what users see of elections, proposals, failures and stops."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import trioraft
from trioraft import GroupConfig, GroupFailed, MultiRaftConfig, PeerLiveness, PeerRefused, RoleChanged

from .cluster import Journal, eventually, propose_until_done, running_cluster


async def test_a_proposal_on_any_node_is_applied_everywhere_and_answered(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(30):
            for node in cluster.nodes.values():
                await node.group().wait_leader()
            results = [await node.group().propose({"from": node.node_id}) for node in cluster.nodes.values()]
            assert results == [1, 2, 3]
            assert await cluster.settle() == [{"from": 1}, {"from": 2}, {"from": 3}]


async def test_declared_errors_come_back_from_any_node_and_stop_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(30):
            await cluster.leader()
            for node in cluster.nodes.values():
                await node.group().wait_leader()
                with pytest.raises(ValueError, match="no") as caught:
                    await node.group().propose("declared")
                assert caught.value.args == ("no", 5)
            assert await cluster.nodes[1].group().propose("fine") == 1


async def test_MG_12_a_failing_machine_stops_its_group_and_no_other(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(groups=2) as cluster:
        with trio.fail_after(60):
            leader = await cluster.leader(1)
            await cluster.leader(2)
            with pytest.raises((trioraft.OutcomeUnknownError, trioraft.GroupStoppedError)):
                await leader.group(1).propose("bug")
            assert isinstance(leader.group(1).failure, trioraft.StateMachineError)
            (failed,) = leader.events.of(GroupFailed)
            assert failed.group_id == 1
            assert leader.up.status().failed == (1,)
            with pytest.raises(trioraft.GroupStoppedError):
                await leader.group(1).propose("later")
            for n in range(20):
                await propose_until_done(lambda n=n: leader.group(2).propose(n))  # type: ignore[misc]  # the default binds it now
            with pytest.raises(trioraft.GroupExistsError, match="next start"):
                await leader.up.add_group(1, Journal(), members={1, 2, 3})


class OnlyOnce(Journal):
    """Fails on one node only: the others lead on."""

    broken_node = 0

    def apply(self, command: Any, context: trioraft.ApplyContext) -> Any:
        if command == "poison" and context.node_id == self.broken_node:
            raise RuntimeError("a bad disk, say")
        return super().apply(command, context)


async def test_a_dead_group_on_a_live_node_is_detached_and_another_replica_leads(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(machine=OnlyOnce) as cluster:
        with trio.fail_after(60):
            leader = await cluster.leader()
            OnlyOnce.broken_node = leader.node_id
            with pytest.raises((trioraft.OutcomeUnknownError, trioraft.GroupStoppedError)):
                await leader.group().propose("poison")
            others = set(cluster.node_ids) - {leader.node_id}
            start = trio.current_time()
            successor = await cluster.leader(among=others)
            assert trio.current_time() - start < 5, "the living node hid its dead group"
            await propose_until_done(lambda: successor.group().propose("more"))


async def test_MG_7_leader_restarts_while_followers_sleep(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(groups=5) as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader()
            await leader.group().propose("x")
            await trio.sleep(30)
            await cluster.crash(leader.node_id)
            await cluster.start(leader.node_id)
            start = trio.current_time()
            for group_id in cluster.group_ids:
                await cluster.leader(group_id)
                await propose_until_done(lambda g=group_id: cluster.nodes[1].group(g).propose("y"))  # type: ignore[misc]  # bound now
            assert trio.current_time() - start < 5 * 2
            assert await cluster.settle() == ["x", "y"]


async def test_a_new_leader_is_found_within_five_timeouts_of_a_crash(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(groups=20) as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader()
            for group_id in cluster.group_ids:
                await cluster.leader(group_id)
            await trio.sleep(5)
            await cluster.crash(leader.node_id)
            start = trio.current_time()
            for group_id in cluster.group_ids:
                await cluster.leader(group_id)
            assert trio.current_time() - start < 5


async def test_PV_1_an_isolated_node_returns_without_a_trace(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(600):
            leader = await cluster.leader()
            await leader.group().propose("x")
            other = next(node for node in cluster.nodes.values() if node is not leader)
            term = leader.group().status().term
            cluster.network.isolate(other.node_id)
            await trio.sleep(100)
            cluster.network.heal_all()
            await trio.sleep(10)
            assert leader.group().is_leader
            assert {node.group().status().term for node in cluster.nodes.values()} == {term}
            await other.group().wait_leader()
            assert await other.group().propose("y") == 2


async def test_PV_3_a_deaf_leader_steps_down_and_another_is_elected(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader()
            await trio.sleep(2)
            for other in set(cluster.node_ids) - {leader.node_id}:
                cluster.network.cut_one_way(other, leader.node_id)
            start = trio.current_time()
            await eventually(lambda: not leader.group().is_leader)
            assert trio.current_time() - start <= 2.1, "2 E"
            await cluster.leader(among=set(cluster.node_ids) - {leader.node_id})
            assert trio.current_time() - start <= 5.1, "5 E"


async def test_MG_5_a_quiet_cluster_sends_pulses_and_nothing_else(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(groups=50) as cluster:
        with trio.fail_after(120):
            for group_id in cluster.group_ids:
                leader = await cluster.leader(group_id)
                await propose_until_done(lambda n=leader, g=group_id: n.group(g).propose("x"))  # type: ignore[misc]  # bound now
            await trio.sleep(10)
            counters = [node.up.counters for node in cluster.nodes.values()]
            before = [(c.messages_out, c.turns, c.pulses_out) for c in counters]
            await trio.sleep(10)
            for (messages, turns, pulses), after in zip(before, counters, strict=True):
                assert after.messages_out == messages, "an idle group says nothing"
                assert after.turns == turns, "an idle group does nothing"
                assert abs(after.pulses_out - pulses - 2 * 100) <= 4, "one pulse per peer and interval, for all groups"


async def test_MG_3_a_quiet_group_serves_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(120):
            await cluster.leader()
            await trio.sleep(20)
            for node in cluster.nodes.values():
                start = trio.current_time()
                await node.group().propose("x")
                assert trio.current_time() - start < 0.1 + 4 * 0.003 + 2 * 0.002


async def test_MG_5_a_dead_follower_keeps_no_group_awake_and_is_caught_up_when_it_returns(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(groups=10) as cluster:
        with trio.fail_after(300):
            leader = await cluster.leader()
            victim = next(node for node in cluster.nodes.values() if node is not leader)
            await cluster.crash(victim.node_id)
            for group_id in cluster.group_ids:
                await propose_until_done(lambda g=group_id: leader.group(g).propose("x"))  # type: ignore[misc]  # the default binds it now
            await trio.sleep(20)
            turns = [node.up.counters.turns for node in cluster.running()]
            await trio.sleep(20)
            assert [node.up.counters.turns for node in cluster.running()] == turns
            await cluster.start(victim.node_id)
            for group_id in cluster.group_ids:
                assert await cluster.settle(group_id) == ["x"]


async def test_MG_11_a_flood_for_unknown_groups_creates_nothing(autojump_clock: trio.testing.MockClock) -> None:
    from trioraft._types import EntryId, GroupKey, Member
    from trioraft.core import RequestVote
    from trioraft.wire import Envelope

    async with running_cluster() as cluster:
        with trio.fail_after(60):
            await cluster.leader()
            node = cluster.nodes[1]
            before = node.up.counters.messages_out
            flood = [Envelope(GroupKey(1000 + i), RequestVote(Member(2), Member(1), 99, EntryId(9, 9))) for i in range(10_000)]
            for _ in range(10):
                node.up.receiver.messages(2, flood)
            assert node.up.counters.messages_unknown_group == 100_000
            assert node.up.counters.messages_out == before
            assert set(node.up.groups) == {1}


async def test_MG_2_only_the_stale_group_of_a_batch_is_answered_with_a_higher_term(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(groups=2) as cluster:
        with trio.fail_after(120):
            one, two = await cluster.leader(1), await cluster.leader(2)
            term_two = two.group(2).status().term
            # Group 1 alone gets a new term: its leader's replica is cut off from the vote by a crash.
            await cluster.crash(one.node_id)
            await cluster.leader(1)
            await cluster.start(one.node_id)
            await cluster.settle(1)
            if two is not one:
                assert two.group(2).status().term == term_two


async def test_CL_4_a_cancelled_proposal_leaves_no_waiter_and_may_commit(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(60):
            leader = await cluster.leader()
            with trio.move_on_after(0.0005):
                await leader.group().propose("cancelled")
            await eventually(lambda: leader.group().status().waiting == 0)
            assert await leader.group().propose("next") == 2
            assert await cluster.settle() == ["cancelled", "next"]


async def test_callers_on_both_sides_of_a_crash_get_an_answer(autojump_clock: trio.testing.MockClock) -> None:
    """A forward whose leader dies is unknown; nobody hangs."""
    outcomes: list[str] = []

    async def call(group: trioraft.RaftGroup, n: int) -> None:
        try:
            await group.propose(n)
            outcomes.append("ok")
        except trioraft.RaftError as error:
            outcomes.append(type(error).__name__)

    async with running_cluster(sync_seconds=0.05) as cluster:
        with trio.fail_after(60):
            leader = await cluster.leader()
            follower = next(node for node in cluster.nodes.values() if node is not leader)
            await follower.group().wait_leader()
            async with trio.open_nursery() as nursery:
                for n in range(10):
                    nursery.start_soon(call, follower.group(), n)
                await trio.sleep(0.01)
                await cluster.crash(leader.node_id)
            assert outcomes == ["OutcomeUnknownError"] * 10


async def test_the_fate_of_an_unknown_outcome_can_be_asked(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(sync_seconds=0.05) as cluster:
        with trio.fail_after(60):
            leader = await cluster.leader()
            group = leader.group()
            assert await group.propose("x") == 1
            index = group.status().last_index
            error = group.unknown_outcome("lost", index, group.status().term)
            assert await error.fate() == "applied"
            assert await group.unknown_outcome("lost", index, 999).fate() == "dropped"
            assert await group.unknown_outcome("lost").fate() == "unknown"


async def test_an_orderly_stop_lets_the_others_elect_without_waiting_for_silence(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(60):
            leader = await cluster.leader()
            await trio.sleep(3)
            start = trio.current_time()
            await cluster.quit(leader.node_id)
            assert trio.current_time() - start < 0.5, "the others acknowledge at once that it is gone"
            await cluster.leader()
            assert trio.current_time() - start < 1.6, "nobody waits for a silence of E before the draw"


async def test_a_stopped_node_answers_every_caller(autojump_clock: trio.testing.MockClock) -> None:
    errors: list[Exception] = []

    async def call(group: trioraft.RaftGroup) -> None:
        try:
            await group.propose("x")
        except trioraft.RaftError as error:
            errors.append(error)

    async with running_cluster() as cluster:
        with trio.fail_after(600):
            leader = await cluster.leader()
            group = leader.group()
            leader.disk.sync_seconds = 0.5
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(call, group)
                await trio.sleep(0.01)
                await cluster.stop(leader.node_id)
            assert len(errors) == 5
            assert all(isinstance(e, trioraft.OutcomeUnknownError | trioraft.GroupStoppedError | trioraft.NotLeaderError) for e in errors)
            with pytest.raises(trioraft.GroupStoppedError):
                await group.propose("late")
            with pytest.raises(trioraft.GroupStoppedError):
                await group.wait_leader()


async def test_a_wiped_disk_under_an_old_node_id_is_refused_on_both_sides(autojump_clock: trio.testing.MockClock) -> None:
    from trioraft.storage import SimulatedDisk

    async with running_cluster() as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader()
            victim = next(node for node in cluster.nodes.values() if node is not leader)
            await leader.group().propose("x")
            await cluster.settle()
            await cluster.crash(victim.node_id)
            victim.disk = SimulatedDisk(cluster.rng)
            await cluster.start(victim.node_id)
            await trio.sleep(20)
            assert victim.machines[1].commands == [], "it is served nothing"
            assert victim.group().status().term == 0, "and takes no part"
            refusals = leader.events.of(PeerRefused)
            assert refusals
            assert all(e.node_id == victim.node_id and e.reason.startswith("wrong-store") for e in refusals)
            assert victim.node_id not in {p for p, s in leader.up.status().peers.items() if s.live}


async def test_add_group_refuses_what_contradicts_the_disk(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(60):
            manager = cluster.nodes[1].up
            with pytest.raises(trioraft.GroupExistsError, match="already"):
                await manager.add_group(1, Journal(), members={1, 2, 3})
            with pytest.raises(trioraft.ConfigError, match="without this node"):
                await manager.add_group(2, Journal(), members={2, 3})
            with pytest.raises(trioraft.ConfigError, match="no address"):
                await manager.add_group(2, Journal(), members={1, 9})
            with pytest.raises(trioraft.ConfigError, match="group id"):
                await manager.add_group(-1, Journal(), members={1, 2, 3})
            with pytest.raises(trioraft.GroupNotFoundError):
                manager.get_group(2)


async def test_a_removed_group_stays_removed_until_a_higher_incarnation(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(120):
            await cluster.leader()
            for node in cluster.nodes.values():
                with pytest.raises(trioraft.GroupExistsError, match="voter"):
                    await node.up.remove_group(1)
                await node.up.remove_group(1, force=True)
                with pytest.raises(trioraft.GroupNotFoundError):
                    node.group()
                with pytest.raises(trioraft.GroupExistsError, match="incarnation=2"):
                    await node.up.add_group(1, Journal(), members={1, 2, 3})
            for node in cluster.nodes.values():
                node.machines[1] = Journal()
                await node.up.add_group(1, node.machines[1], members={1, 2, 3}, incarnation=2)
            leader = await cluster.leader()
            assert await leader.group().propose("new life") == 1


async def test_the_body_s_exception_leaves_as_it_is(autojump_clock: trio.testing.MockClock) -> None:
    from trioraft import MemoryNetwork, MemoryStorage, MemoryTransport, open_manager

    class Mine(Exception):
        pass

    with trio.fail_after(30), pytest.raises(Mine):
        async with open_manager(node_id=1, cluster_id="c", storage=MemoryStorage(), transport=MemoryTransport(MemoryNetwork())):
            raise Mine


async def test_a_one_node_group_works_alone(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(nodes=1) as cluster:
        with trio.fail_after(30):
            leader = await cluster.leader()
            assert await leader.group().propose("x") == 1


async def test_too_large_a_command_is_refused_before_the_log(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(group_config=GroupConfig(entry_bytes_max=100)) as cluster:
        with trio.fail_after(30):
            leader = await cluster.leader()
            last = leader.group().status().last_index
            with pytest.raises(trioraft.EntryTooLargeError, match="entry_bytes_max"):
                await leader.group().propose("x" * 200)
            assert leader.group().status().last_index == last


async def test_an_election_timeout_below_five_heartbeats_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(trioraft.ConfigError, match="at least 5 times"):
        MultiRaftConfig(heartbeat_interval=0.3, election_timeout=1.0)


async def test_events_tell_of_roles_and_liveness(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(60):
            leader = await cluster.leader()
            await trio.sleep(3)
            assert any(e.role is trioraft.Role.LEADER for e in leader.events.of(RoleChanged))
            other = next(n for n in cluster.node_ids if n != leader.node_id)
            await cluster.crash(other)
            await eventually(lambda: PeerLiveness(other, False) in leader.events.seen)


class Generous(Journal):
    """Answers with more than any frame holds."""

    def apply(self, command: Any, context: trioraft.ApplyContext) -> Any:
        super().apply(command, context)
        return b"x" * (65 << 20) if command == "much" else len(self.commands)


async def test_a_result_too_large_to_travel_is_unknown_at_once_and_fine_at_home(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(machine=Generous) as cluster:
        with trio.fail_after(30):
            leader = await cluster.leader()
            other = next(node for node in cluster.nodes.values() if node is not leader)
            await other.group().wait_leader()
            with pytest.raises(trioraft.OutcomeUnknownError):
                await other.group().propose("much")
            assert len(await leader.group().propose("much")) == 65 << 20


async def test_an_entry_limit_beyond_the_transport_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    from trioraft import MemoryStorage, TcpTransport, open_manager

    with trio.fail_after(30):
        async with open_manager(node_id=1, cluster_id="c", storage=MemoryStorage(), transport=TcpTransport()) as manager:
            with pytest.raises(trioraft.ConfigError, match="frame_bytes_max"):
                await manager.add_group(1, Journal(), members={1}, config=GroupConfig(entry_bytes_max=32 << 20))
