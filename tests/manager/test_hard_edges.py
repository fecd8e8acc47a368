"""Where nodes and groups end in the middle of something: every caller is answered, and nobody counts on what is gone."""

from __future__ import annotations

import errno
import random
import threading
from typing import Any

import pytest
import trio
import trio.testing

import trioraft
from trioraft import MemoryNetwork, MemoryStorage, MemoryTransport, MultiRaftConfig, open_manager
from trioraft._types import EntryId, GroupKey, Member
from trioraft.core import AppendEntries, Campaign
from trioraft.group import RaftGroup
from trioraft.manager._pulse import PulseLink
from trioraft.storage import DiskCall
from trioraft.wire import PulseKind, PulseLine, RequestKind

from .cluster import Cluster, Journal, SimNode, eventually, running_cluster
from .test_pulse import TIMING


class Caller:
    def __init__(self) -> None:
        self.answers: list[Any] = []

    def succeed(self, result: Any) -> None:
        self.answers.append(result)

    def fail(self, error: Exception) -> None:
        self.answers.append(error)


def break_invariant(group: RaftGroup) -> None:
    """Let a second leader of the leader's own term speak: safety forbids to go on."""
    me = group._host.node_id
    other = next(node_id for node_id in group.status().voters if node_id != me)
    group.inbox.put_message(AppendEntries(Member(other), Member(me), group.status().term, EntryId(0, 0), 0, ()))


async def leader_and_other(cluster: Cluster) -> tuple[SimNode, SimNode]:
    leader = await cluster.leader()
    other = next(node for node in cluster.nodes.values() if node is not leader)
    await other.group().wait_leader()
    return leader, other


async def test_callers_of_a_turn_that_fails_half_way_are_answered(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(60):
            group = (await cluster.leader()).group()
            before, after = Caller(), Caller()
            group.hand_over(RequestKind.COMMAND, b"\x01", before)
            break_invariant(group)
            group.hand_over(RequestKind.COMMAND, b"\x02", after)
            await eventually(lambda: group.failure is not None)
            assert isinstance(group.failure, trioraft.InvariantError)
            for caller in (before, after):
                (answer,) = caller.answers
                assert isinstance(answer, trioraft.OutcomeUnknownError)


async def test_callers_of_a_turn_whose_write_fails_are_answered_once_with_their_entry(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(60):
            group = (await cluster.leader()).group()

            def fail(*_: Any) -> None:
                raise trioraft.StorageError("io", "wal", "broken on purpose")

            group._driver._log.write = fail  # type: ignore[method-assign]  # replaced on purpose
            caller = Caller()
            group.hand_over(RequestKind.COMMAND, b"\x01", caller)
            await eventually(lambda: group.failure is not None)
            (answer,) = caller.answers
            assert isinstance(answer, trioraft.OutcomeUnknownError)
            assert answer.index is not None


async def test_waiting_for_a_leader_ends_when_the_group_stops_without_one(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster, trio.open_nursery() as nursery:
        with trio.fail_after(60):
            await cluster.leader()
            await cluster.crash(2, 3)
            group = cluster.nodes[1].group()
            await eventually(lambda: group.leader is None)
            errors: list[Exception] = []

            async def wait() -> None:
                try:
                    await group.wait_leader()
                except trioraft.GroupStoppedError as error:
                    errors.append(error)

            nursery.start_soon(wait)
            await trio.sleep(1)
            await cluster.quit(1)
            await eventually(lambda: bool(errors))


class NeedsAnObjectError(Exception):
    def __init__(self, account: Any) -> None:
        super().__init__(f"account {account.name} is locked")


class Account:
    name = "x"


class Particular(Journal):
    declared_errors = (NeedsAnObjectError, LookupError, ValueError)

    def apply(self, command: Any, context: trioraft.ApplyContext) -> Any:
        match command:
            case "locked":
                raise NeedsAnObjectError(Account())
            case "missing":
                raise KeyError("k")
            case "huge":
                raise ValueError(2**70)
        return super().apply(command, context)


async def test_declared_errors_of_any_make_come_back_from_another_node(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(machine=Particular) as cluster:
        with trio.fail_after(60):
            leader, other = await leader_and_other(cluster)
            with pytest.raises(NeedsAnObjectError, match="account x is locked"):
                await other.group().propose("locked")
            for node in (leader, other):
                with pytest.raises(LookupError):
                    await node.group().propose("missing")
            with pytest.raises(ValueError, match=str(2**70)):
                await other.group().propose("huge")  # its argument travels as text
            assert await other.group().propose("fine") == 1
            assert leader.group().failure is None


class Stuck(Journal):
    """Blocks in its thread on one node."""

    blocking = True
    gate = threading.Event()
    node_id = 0

    def apply(self, command: Any, context: trioraft.ApplyContext) -> Any:
        if command == "slow" and context.node_id == Stuck.node_id:
            Stuck.gate.wait(30)
        return super().apply(command, context)


async def test_MG_12_a_group_that_fails_while_its_machine_is_in_a_thread_is_replaced_at_once() -> None:
    """On the real clock: a mock clock does not see the thread."""
    config = MultiRaftConfig(heartbeat_interval=0.04, election_timeout=0.2, shutdown_timeout=0.1)
    Stuck.gate.clear()
    try:
        async with running_cluster(machine=Stuck, config=config) as cluster, trio.open_nursery() as nursery:
            with trio.fail_after(30):
                leader, _ = await leader_and_other(cluster)
                group, caller = leader.group(), Caller()
                Stuck.node_id = leader.node_id
                group.hand_over(RequestKind.COMMAND, b"\x64slow", caller)
                await eventually(lambda: group.status().commit_index > group.status().applied_index)
                break_invariant(group)
                await eventually(lambda: bool(caller.answers))
                assert isinstance(caller.answers[0], trioraft.OutcomeUnknownError)
                with pytest.raises(trioraft.GroupStoppedError):
                    await group.propose("late")
                await cluster.leader(among=set(cluster.node_ids) - {leader.node_id})
                nursery.cancel_scope.cancel()
    finally:
        Stuck.gate.set()


async def test_a_stop_gives_up_a_machine_that_hangs_in_its_thread() -> None:
    Stuck.gate.clear()
    try:
        config = MultiRaftConfig(heartbeat_interval=0.04, election_timeout=0.2, shutdown_timeout=0.1)
        async with running_cluster(nodes=1, machine=Stuck, config=config) as cluster:
            with trio.fail_after(30):
                leader = await cluster.leader()
                Stuck.node_id = 1
                leader.group().hand_over(RequestKind.COMMAND, b"\x64slow", Caller())
                await eventually(lambda: leader.group().status().commit_index > leader.group().status().applied_index)
                await cluster.quit(1)
    finally:
        Stuck.gate.set()


async def test_MG_12_a_group_that_gets_no_thread_stops_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    Stuck.node_id = 0
    async with running_cluster(nodes=1, machine=Stuck) as cluster:
        with trio.fail_after(30):
            group = (await cluster.leader()).group()
            await group.propose("fine")
            other = await cluster.nodes[1].up.add_group(2, Journal(), members={1})
            with monkeypatch.context() as patch:
                patch.setattr(trio.to_thread, "run_sync", refuse)
                with pytest.raises(trioraft.OutcomeUnknownError):
                    await group.propose("no thread")
                await eventually(lambda: group.failure is not None)
            assert isinstance(group.failure, RuntimeError)
            await other.wait_leader()
            assert await other.propose("goes on") == 1


async def test_a_store_id_that_cannot_be_written_at_first_is_remembered_later(autojump_clock: trio.testing.MockClock) -> None:
    failures = 0

    async def fail_twice(call: DiskCall) -> None:
        nonlocal failures
        if "node.toml" in call.path and failures < 2:
            failures += 1
            raise OSError(errno.EIO, "once")

    async with trio.open_nursery() as nursery:
        cluster = Cluster(nursery)
        with trio.fail_after(100):
            await cluster.start(1)
            cluster.nodes[1].disk.hook = fail_twice
            await cluster.start(2, 3)
            await eventually(lambda: all(peer.live for peer in cluster.nodes[1].up.status().peers.values()))
            assert failures == 2
            nursery.cancel_scope.cancel()


async def test_a_full_disk_at_first_contact_only_delays_it(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        cluster = Cluster(nursery)
        with trio.fail_after(100):
            await cluster.start(1)
            cluster.nodes[1].disk.capacity = 0
            await cluster.start(2, 3)
            await trio.sleep(10)
            cluster.nodes[1].disk.capacity = None
            await eventually(lambda: all(peer.live for peer in cluster.nodes[1].up.status().peers.values()))
            nursery.cancel_scope.cancel()


async def test_a_follower_that_was_called_back_counts_for_its_leader(autojump_clock: trio.testing.MockClock) -> None:
    """Its detach was still waiting for the next pulse when the leader's attach reached it."""
    for seed in range(8):
        async with running_cluster(seed=seed) as cluster:
            with trio.fail_after(100):
                leader = await cluster.leader()
                one, two = (i for i in cluster.node_ids if i != leader.node_id)
                await trio.sleep(2 + seed * 0.0171)
                term = leader.group().status().term
                inbox = cluster.nodes[one].group().inbox
                inbox._events.append(Campaign())
                inbox.run_again()
                await trio.sleep(20)
                if not leader.group().is_leader or leader.group().status().term != term:
                    continue
                await cluster.crash(two)
                await trio.sleep(8)
                assert leader.group().is_leader, f"seed {seed}: it stepped down though a quorum was attached"
                assert leader.group().status().term == term


class ProviderError(Exception):
    pass


@pytest.mark.parametrize("tasks", [0, 2])
async def test_the_error_of_the_node_reaches_the_user_bare(autojump_clock: trio.testing.MockClock, tasks: int) -> None:
    def fail(*_: Any) -> None:
        raise ProviderError

    with trio.fail_after(30), pytest.raises(ProviderError):
        async with open_manager(node_id=1, cluster_id="c", storage=MemoryStorage(), transport=MemoryTransport(MemoryNetwork())) as manager:
            manager._peers.beat = fail  # type: ignore[method-assign]  # replaced on purpose
            async with trio.open_nursery() as nursery:
                for _ in range(tasks):
                    nursery.start_soon(trio.sleep_forever)
                await trio.sleep_forever()


async def test_a_group_added_while_the_node_ends_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    errors: list[Exception] = []

    async def add(manager: trioraft.MultiRaftManager) -> None:
        try:
            await manager.add_group(99, Journal(), members={1, 2, 3})
        except trioraft.RaftError as error:
            errors.append(error)

    async with running_cluster(sync_seconds=0.2) as cluster, trio.open_nursery() as nursery:
        with trio.fail_after(60):
            nursery.start_soon(add, cluster.nodes[1].up)
            await trio.sleep(0.05)
            await cluster.quit(1)
            await eventually(lambda: bool(errors))
            assert isinstance(errors[0], trioraft.GroupStoppedError | trioraft.StorageError)


async def test_a_cancelled_wait_for_an_index_leaves_nothing_behind(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(60):
            group = (await cluster.leader()).group()
            for _ in range(5):
                with trio.move_on_after(0.1):
                    await group.wait_applied(10**9)
            assert group._applier.waiting == 0


def test_MG_11_lines_of_unknown_groups_are_not_remembered() -> None:
    here, there = PulseLink(1, TIMING), PulseLink(1, TIMING)
    for number in range(1000):
        there.put(PulseLine(PulseKind.DETACH, GroupKey(number), 1))
        there.put(PulseLine(PulseKind.ATTACH, GroupKey(10_000 + number), 1))
        for line in here.receive(there.next_pulse(number, 0), number):
            here.refuse(line) if line.kind is PulseKind.ATTACH else here.forget(line)
    assert here._told == {}


async def test_a_seeded_cluster_of_hard_edges_ends_in_order(autojump_clock: trio.testing.MockClock) -> None:
    """Groups removed, nodes stopped and started while callers propose: nobody hangs."""
    rng = random.Random(3)
    pending = 0

    async def call(node: SimNode) -> None:
        nonlocal pending
        pending += 1
        try:
            await node.group().propose("x")
        except (trioraft.RaftError, AssertionError):
            pass
        pending -= 1

    async with running_cluster() as cluster, trio.open_nursery() as nursery:
        with trio.fail_after(300):
            await cluster.leader()
            for _ in range(12):
                for node in cluster.running():
                    for _ in range(3):
                        nursery.start_soon(call, node)
                await trio.sleep(rng.random() * 0.01)
                victim = rng.choice(cluster.running()).node_id
                await rng.choice([cluster.quit, cluster.stop, cluster.crash])(victim)
                await cluster.start(victim)
                await cluster.leader()
            await eventually(lambda: pending == 0)


async def test_a_storage_or_transport_in_use_is_refused_and_its_node_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    storage, network = MemoryStorage(), MemoryNetwork()
    with trio.fail_after(60):
        async with open_manager(node_id=1, cluster_id="c", storage=storage, transport=MemoryTransport(network)) as manager:
            group = await manager.add_group(1, Journal(), members={1})
            with pytest.raises(trioraft.RaftError):
                async with open_manager(node_id=1, cluster_id="c", storage=storage, transport=MemoryTransport(network)):
                    pass
            await group.wait_leader()
            assert await group.propose("x") == 1


@pytest.mark.parametrize("cluster_id", ["", "x" * 200, "é" * 100, "a\nb", 5, None])
async def test_a_cluster_id_that_cannot_travel_is_refused(cluster_id: Any) -> None:
    with trio.fail_after(30), pytest.raises(trioraft.ConfigError, match="cluster id"):
        async with open_manager(node_id=1, cluster_id=cluster_id, storage=MemoryStorage(), transport=MemoryTransport(MemoryNetwork())):
            pass


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"incarnation": True}, "incarnation"),
        ({"incarnation": -1}, "incarnation"),
        ({"incarnation": 1 << 33}, "incarnation"),
        ({"incarnation": "x"}, "incarnation"),
        ({"machine": Journal}, "instance"),
        ({"machine": None}, "instance"),
        ({"config": {}}, "GroupConfig"),
        ({"members": {1, "a"}}, "whole numbers"),
        ({"members": {True}}, "whole numbers"),
        ({"members": set()}, "needs `members`"),
        ({"members": {2}}, "without this node"),
        ({"join": True}, "either begun with `members` or joined"),
        ({"group_id": 1 << 63}, "group id"),
    ],
)
async def test_what_cannot_work_is_refused_before_anything_is_written(arguments: dict[str, Any], text: str) -> None:
    storage = MemoryStorage()
    with trio.fail_after(30):
        async with open_manager(node_id=1, cluster_id="c", storage=storage, transport=MemoryTransport(MemoryNetwork())) as manager:
            given = {"group_id": 7, "machine": Journal(), "members": {1}, **arguments}
            with pytest.raises(trioraft.ConfigError, match=text):
                await manager.add_group(given.pop("group_id"), given.pop("machine"), **given)
            assert dict(storage.recovered) == {}


class Carefree(Journal):
    declared_errors = (Exception,)


class Sloppy:
    def encode(self, command: Any) -> Any:
        return command

    def decode(self, payload: bytes) -> Any:
        return payload


class SloppyJournal(Journal):
    codec = Sloppy()


async def test_a_refusal_stays_a_refusal_whatever_the_machine_declares(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(machine=Carefree) as cluster:
        with trio.fail_after(60):
            leader, other = await leader_and_other(cluster)
            leader.group().inbox._events_max = 0
            with pytest.raises(trioraft.BusyError):
                await other.group().propose("x")


@pytest.mark.parametrize("command", ["text", bytearray(b"x"), None])
async def test_a_codec_that_makes_no_bytes_is_told_so_and_stops_nobody(autojump_clock: trio.testing.MockClock, command: Any) -> None:
    async with running_cluster(machine=SloppyJournal) as cluster:
        with trio.fail_after(60):
            group = (await cluster.leader()).group()
            with pytest.raises(trioraft.WireError, match="must make bytes"):
                await group.propose(command)
            assert await group.propose(b"fine") == 1
