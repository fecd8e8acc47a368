"""Sessions between whole managers: a command asked for again and again is in effect once, and its answer stays the same."""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import Any

import pytest
import trio
import trio.testing

import trioraft
from trioraft import GroupConfig, MultiRaftConfig

from .cluster import Cluster, Journal, SimNode, eventually, propose_until_done, running_cluster
from .test_reads import leader_and_other


async def logged(node: SimNode) -> list[Any]:
    """All commands in the log, as often as they are in there."""
    group = node.group()
    last, commands = await propose_until_done(group.read_barrier), list[Any]()
    async for entry in group.tail(1):
        assert isinstance(entry, trioraft.AppliedEntry)
        if entry.has_command:
            commands.append(entry.command)
        if entry.index >= last:
            return commands
    raise AssertionError("a tail has no end")


async def open_session(node: SimNode) -> trioraft.Session:
    return await propose_until_done(node.group().open_session)  # type: ignore[no-any-return]  # it is what it says


@pytest.mark.parametrize("command", ["x", "declared"])
async def test_CL_1_a_retry_after_a_lost_reply_is_answered_from_the_cache(autojump_clock: trio.testing.MockClock, command: str) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(120):
            leader, other = await leader_and_other(cluster)
            (third,) = [node for node in cluster.running() if node not in (leader, other)]
            await leader.group().propose("before")
            session = await open_session(other)
            answers: list[Any] = []

            async def ask() -> None:
                try:
                    answers.append(await session.propose(command))
                except ValueError as error:
                    answers.append(error.args)

            async with trio.open_nursery() as nursery:
                # The request arrives, the answer does not; and the third node helps to commit it.
                cluster.network.cut_one_way(leader.node_id, other.node_id)
                nursery.start_soon(ask)
                await eventually(lambda: third.group().status().applied_index > session.id)
                assert answers == []
                await cluster.crash(leader.node_id)
                cluster.network.heal_all()
            expected = 2 if command == "x" else ("no", 5)
            assert answers == [expected]
            await cluster.start(leader.node_id)
            assert await cluster.settle() == ["before", *(["x"] if command == "x" else [])]
            assert (await logged(other)).count(command) >= 2, "asked for once only"


async def test_CL_6_what_a_follower_forwards_again_is_in_effect_once(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(config=MultiRaftConfig(forward_timeout=0.2)) as cluster:
        with trio.fail_after(300):
            _, other = await leader_and_other(cluster)
            session = await open_session(other)
            places: dict[int, int] = {}
            numbers = count()

            async def write() -> None:
                for _ in range(20):
                    number = next(numbers)
                    places[number] = await session.propose(number)
                    await trio.sleep(0.05)

            async def cut_and_heal() -> None:
                while True:
                    leader = await cluster.leader()
                    for node_id in set(cluster.node_ids) - {other.node_id}:
                        cluster.network.cut_one_way(node_id, other.node_id)
                    await trio.sleep(0.3)
                    cluster.network.heal_all()
                    await trio.sleep(0.5)
                    cluster.network.isolate(leader.node_id)
                    await trio.sleep(2)
                    cluster.network.heal_all()
                    await trio.sleep(0.5)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cut_and_heal)
                async with trio.open_nursery() as writers:
                    for _ in range(5):
                        writers.start_soon(write)
                nursery.cancel_scope.cancel()
            cluster.network.heal_all()
            commands = await cluster.settle()
            assert sorted(commands) == list(range(100))
            assert {number: commands[place - 1] for number, place in places.items()} == {number: number for number in range(100)}
            assert len(await logged(other)) > 100, "nothing was ever asked for again"


@pytest.mark.parametrize("at", ["leader", "follower"])
async def test_a_cancelled_command_leaves_nothing_behind_and_is_asked_for_again(autojump_clock: trio.testing.MockClock, at: str) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(120):
            leader, other = await leader_and_other(cluster)
            node = leader if at == "leader" else other
            session = await open_session(node)
            cluster.network.isolate(leader.node_id)
            sequence = session.next_sequence
            with trio.move_on_after(0.05) as scope:
                await session.propose("given up")
            assert scope.cancelled_caught
            assert session.next_sequence == sequence + 1
            cluster.network.heal_all()
            # Its answer is kept while the session goes on, since nobody has it.
            places = {"next": await session.propose("next")}
            places["given up"] = await session.propose("given up", sequence=sequence)
            assert await session.propose("given up", sequence=sequence) == places["given up"]
            commands = await cluster.settle()
            assert {command: commands.index(command) + 1 for command in commands} == places
            assert len(commands) == 2
            # Now that it has been answered, the next command says that it is done with.
            await session.propose("last")
            with pytest.raises(trioraft.SessionExpiredError):
                await session.propose("given up", sequence=sequence)
            assert [each.group().status().waiting for each in cluster.running()] == [0, 0, 0]
            assert session._under_way == set()


@pytest.mark.parametrize("at", ["leader", "follower"])
async def test_a_session_that_others_have_pushed_out_has_expired(autojump_clock: trio.testing.MockClock, at: str) -> None:
    async with running_cluster(group_config=GroupConfig(sessions_max=1)) as cluster:
        with trio.fail_after(60):
            leader, other = await leader_and_other(cluster)
            node = leader if at == "leader" else other
            first = await open_session(node)
            assert await first.propose("a") == 1
            second = await open_session(node)
            for _ in range(2):
                with pytest.raises(trioraft.SessionExpiredError) as caught:
                    await first.propose("b")
                assert (caught.value.session_id, caught.value.sequence) == (first.id, None)
            await first.aclose()
            assert await second.propose("c") == 2
            await second.aclose()
            with pytest.raises(trioraft.SessionExpiredError):
                await second.propose("d")
            assert await cluster.settle() == ["a", "c"]


async def restart_all(cluster: Cluster) -> None:
    for node_id in cluster.node_ids:
        await cluster.stop(node_id)
    await cluster.start()


async def test_sessions_survive_a_snapshot_and_a_restart_of_all(thread_clock: trio.testing.MockClock) -> None:
    async with running_cluster(group_config=GroupConfig(snapshot_entries=20, keep_entries=5)) as cluster:
        with trio.fail_after(120):
            leader, other = await leader_and_other(cluster)
            session = await open_session(other)
            assert await session.propose("once") == 1
            failing = await open_session(other)
            with pytest.raises(ValueError, match="no"):
                await failing.propose("declared")
            for n in range(60):
                await propose_until_done(partial(leader.group().propose, n))
            await cluster.settle()
            await eventually(lambda: all(node.group().status().first_index > failing.id + 1 for node in cluster.running()))
            await restart_all(cluster)
            for node in cluster.running():
                await node.group().wait_leader()
                resumed = node.group().resume_session(session.id, session.next_sequence)
                assert await resumed.propose("once", sequence=1) == 1
                with pytest.raises(ValueError, match="no") as caught:
                    await node.group().resume_session(failing.id, 2).propose("declared", sequence=1)
                assert caught.value.args == ("no", 5)
            # Whoever goes on says by that what it needs no more.
            resumed = other.group().resume_session(session.id, session.next_sequence)
            assert resumed.next_sequence == 2
            assert await resumed.propose("more") == 62
            with pytest.raises(trioraft.SessionExpiredError) as expired:
                await resumed.propose("once", sequence=1)
            assert (expired.value.session_id, expired.value.sequence) == (session.id, 1)
            assert await cluster.settle() == ["once", *range(60), "more"]


async def test_a_declared_error_comes_back_twice_alike(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(60):
            leader, other = await leader_and_other(cluster)
            session = await open_session(leader)
            for node in (leader, other, leader):
                with pytest.raises(ValueError, match="no") as caught:
                    await node.group().resume_session(session.id, 1).propose("declared", sequence=1)
                assert caught.value.args == ("no", 5)
            assert await cluster.settle() == []


class Storing(Journal):
    def stored_index(self) -> int:
        return 0


async def test_a_machine_that_stores_by_itself_has_no_sessions(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(nodes=1, machine=Storing) as cluster:
        with trio.fail_after(60):
            group = (await cluster.leader()).group()
            last = group.status().last_index
            with pytest.raises(trioraft.ConfigError, match="Storing stores its state by itself"):
                await group.open_session()
            assert group.status().last_index == last


async def test_a_session_at_a_group_that_stops_ends_with_what_can_be_known(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(60):
            leader, other = await leader_and_other(cluster)
            session = await open_session(leader)
            cluster.network.isolate(leader.node_id)
            group, errors = leader.group(), list[trioraft.RaftError]()

            async def ask() -> None:
                try:
                    await session.propose("x")
                except trioraft.RaftError as error:
                    errors.append(error)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await trio.sleep(0.05)
                await leader.up.remove_group(1, force=True)
            (error,) = errors
            assert isinstance(error, trioraft.OutcomeUnknownError)
            assert error.request_id == (session.id, 1)
            with pytest.raises(trioraft.GroupStoppedError):
                await session.propose("y")
            with pytest.raises(trioraft.GroupStoppedError):
                await group.open_session()
            # Elsewhere it goes on.
            await cluster.leader(among=set(cluster.node_ids) - {leader.node_id})
            resumed = other.group().resume_session(*error.request_id)
            assert await resumed.propose("x", sequence=1) == 1
            assert await propose_until_done(lambda: other.group().propose("end")) == 2
            await eventually(lambda: other.machines[1].commands == ["x", "end"])
