"""Reads at every level, at the leader and elsewhere: whole managers in virtual time."""

from __future__ import annotations

import contextlib
from typing import Any, Final

import pytest
import trio
import trio.testing

import trioraft
from trioraft import ApplyContext, BusyError, ReadLevel, StaleRead

from .cluster import Cluster, Journal, SimNode, eventually, propose_until_done, running_cluster

LEVELS: Final[tuple[ReadLevel, ...]] = ("linearizable", "follower")


class Shelf(Journal):
    """A journal that answers how many commands it has, or which one is in a place."""

    declared_errors = (ValueError, LookupError)

    def query(self, query: Any) -> Any:
        match query:
            case "count":
                return len(self.commands)
            case "all":
                return list(self.commands)
            case "set":
                return {1, 2}
            case "exit":
                raise SystemExit
            case ["declared", text]:
                raise LookupError(text)
            case ["bug", text]:
                raise RuntimeError(text)
        return None


class BlockingShelf(Shelf):
    blocking = True


async def leader_and_other(cluster: Cluster) -> tuple[SimNode, SimNode]:
    leader = await cluster.leader()
    other = next(node for node in cluster.nodes.values() if node is not leader)
    await other.group().wait_leader()
    return leader, other


@pytest.mark.parametrize("machine", [Shelf, BlockingShelf])
@pytest.mark.parametrize("level", ["linearizable", "follower"])
async def test_a_read_anywhere_sees_what_was_acknowledged_before(
    thread_clock: trio.testing.MockClock, level: ReadLevel, machine: type[Journal]
) -> None:
    async with running_cluster(machine=machine) as cluster:
        with trio.fail_after(60):
            await cluster.leader()
            for node in cluster.nodes.values():
                await node.group().wait_leader()
            for n in range(1, 20):
                await cluster.nodes[n % 3 + 1].group().propose(n)
                for node in cluster.nodes.values():
                    assert await node.group().read("count", level=level) == n


async def test_a_stale_read_says_as_of_when(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(machine=Shelf) as cluster:
        with trio.fail_after(60):
            leader, other = await leader_and_other(cluster)
            await leader.group().propose("x")
            await cluster.settle()
            index = leader.group().status().applied_index
            for node in cluster.running():
                cluster.network.cut(other.node_id, node.node_id) if node is not other else None
            await leader.group().propose("y")
            start = trio.current_time()
            assert await other.group().read("all", level="stale") == StaleRead(["x"], index)
            assert (await leader.group().read("all", level="stale")).value == ["x", "y"]
            assert trio.current_time() == start, "at once"


async def test_RD_1_a_leader_that_is_cut_off_answers_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(machine=Shelf) as cluster:
        with trio.fail_after(60):
            leader, other = await leader_and_other(cluster)
            await leader.group().propose(1)
            for node_id in set(cluster.node_ids) - {leader.node_id}:
                cluster.network.cut(leader.node_id, node_id)
            for level in ("linearizable", "follower"):
                with pytest.raises(trioraft.NotLeaderError):
                    await leader.group().read("count", level=level)  # type: ignore[call-overload]  # bad input, on purpose
            await cluster.leader(among=set(cluster.node_ids) - {leader.node_id})
            await propose_until_done(lambda: other.group().propose(2))
            with pytest.raises(trioraft.NotLeaderError):
                await leader.group().read("count")
            assert await other.group().read("count") == 2


async def test_many_readers_share_a_round(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(machine=Shelf) as cluster:
        with trio.fail_after(60):
            leader, other = await leader_and_other(cluster)
            await leader.group().propose("x")
            await cluster.settle()
            before = leader.up.counters.messages_out
            answers: list[int] = []

            async def ask(node: SimNode) -> None:
                answers.append(await node.group().read("count"))

            async with trio.open_nursery() as nursery:
                for _ in range(500):
                    nursery.start_soon(ask, leader)
            assert answers == [1] * 500
            assert leader.up.counters.messages_out - before <= 10


async def test_answers_and_errors_of_a_query_come_back_from_another_node(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(machine=Shelf) as cluster:
        with trio.fail_after(60):
            leader, other = await leader_and_other(cluster)
            assert await leader.group().read("set") == {1, 2}, "as it is, where nothing travels"
            with pytest.raises(trioraft.OutcomeUnknownError):
                await other.group().read("set")
            with pytest.raises(trioraft.WireError):
                await other.group().read({1, 2})
            for node in (leader, other):
                with pytest.raises(LookupError, match="no such"):
                    await node.group().read(["declared", "no such"])
            with pytest.raises(RuntimeError, match="broken"):
                await leader.group().read(["bug", "broken"])
            with pytest.raises(trioraft.OutcomeUnknownError):
                await other.group().read(["bug", "broken"])
            with pytest.raises(trioraft.RaftError, match="SystemExit"):
                await leader.group().read("exit")
            assert await leader.group().propose("still there") == 1


async def test_what_is_no_level_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(nodes=1, machine=Shelf) as cluster:
        with trio.fail_after(60):
            group = (await cluster.leader()).group()
            with pytest.raises(trioraft.ConfigError, match="strong"):
                await group.read("count", level="strong")  # type: ignore[call-overload]  # bad input, on purpose
            with pytest.raises(trioraft.ConfigError, match="lease_reads"):
                await group.read("count", level="lease")


async def test_read_barrier_is_for_those_who_look_themselves(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(60):
            leader, other = await leader_and_other(cluster)
            for n in range(1, 20):
                await leader.group().propose(n)
                for node in (leader, other):
                    index = await node.group().read_barrier()
                    assert len(node.machines[1].commands) == n
                    assert node.group().status().applied_index >= index


class Held(Shelf):
    """Does not come out of its thread before it is let go."""

    blocking = True
    holds: trio.Event | None = None

    def apply(self, command: Any, context: ApplyContext) -> Any:
        if self.holds is not None:
            trio.from_thread.run(self.holds.wait)
        return super().apply(command, context)


@pytest.mark.parametrize("at", ["leader", "follower"])
async def test_RD_5_a_read_waits_for_the_machine(thread_clock: trio.testing.MockClock, at: str) -> None:
    async with running_cluster(machine=Held) as cluster:
        with trio.fail_after(60):
            leader, other = await leader_and_other(cluster)
            await leader.group().propose("before")
            node = leader if at == "leader" else other
            machine = node.machines[1]
            assert isinstance(machine, Held)
            await node.group().read_barrier()
            machine.holds = trio.Event()
            answers: list[Any] = []

            async def write() -> None:
                await leader.group().propose("held")

            async def read(number: int) -> None:
                answers.append((number, await node.group().read("count", level="follower")))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                await eventually(lambda: node.group().status().commit_index > node.group().status().applied_index)
                for number in range(3):
                    nursery.start_soon(read, number)
                    await trio.sleep(0.1)
                assert answers == []
                machine.holds.set()
                machine.holds = None
            assert sorted(answers) == [(0, 2), (1, 2), (2, 2)]


async def test_reads_during_a_transfer_are_answered_or_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(machine=Shelf) as cluster:
        with trio.fail_after(60):
            leader, other = await leader_and_other(cluster)
            await leader.group().propose("x")
            answers: list[int] = []

            async def ask(node: SimNode) -> None:
                for _ in range(50):
                    answers.append(await propose_until_done(lambda: node.group().read("count")))
                    await trio.sleep(0.001)

            async with trio.open_nursery() as nursery:
                for node in cluster.nodes.values():
                    nursery.start_soon(ask, node)
                await leader.group().transfer_leadership(other.node_id)
            assert answers == [1] * 150


async def test_cancelled_reads_and_waits_leave_nothing_behind(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(machine=Shelf) as cluster:
        with trio.fail_after(60):
            leader, other = await leader_and_other(cluster)
            await leader.group().propose("x")
            await cluster.settle()
            for node_id in set(cluster.node_ids) - {leader.node_id}:
                cluster.network.cut(leader.node_id, node_id)
            for node in (leader, other):
                group = node.group()
                with trio.move_on_after(0.1):
                    await group.wait_applied(10**6)
                for level in LEVELS:
                    with contextlib.suppress(BusyError), trio.move_on_after(0.01):  # the way to the leader may be known to be shut
                        await group.read("count", level=level)
                assert group._applier.waiting == 0
                assert group.status().waiting == 0


async def test_reads_on_a_group_that_stops_are_answered(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(machine=Shelf) as cluster:
        with trio.fail_after(60):
            leader, other = await leader_and_other(cluster)
            await leader.group().propose("x")
            group, errors = leader.group(), list[Exception]()
            for node_id in set(cluster.node_ids) - {leader.node_id}:
                cluster.network.cut(leader.node_id, node_id)

            async def ask(level: ReadLevel) -> None:
                try:
                    await group.read("count", level=level)
                except trioraft.RaftError as error:
                    errors.append(error)

            async def wait() -> None:
                try:
                    await group.wait_applied(10**6)
                except trioraft.RaftError as error:
                    errors.append(error)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, "linearizable")
                nursery.start_soon(ask, "follower")
                nursery.start_soon(wait)
                await trio.sleep(0.05)
                await leader.up.remove_group(1, force=True)
            assert len(errors) == 3
            for level in ("linearizable", "follower", "stale"):
                with pytest.raises(trioraft.GroupStoppedError):
                    await group.read("count", level=level)  # type: ignore[call-overload]  # bad input, on purpose
            with pytest.raises(trioraft.GroupStoppedError):
                await group.read_barrier()
