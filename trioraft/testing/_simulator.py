"""A whole cluster of cores in virtual time: nodes, network, disks, clients, faults and checkers, all from one seed.

How a run goes:

1. *Faults*: for `schedule.duration` milliseconds clients send commands while the schedule's faults come and go. Logs are cut all the
   time, snapshots move, and in some schedules members come and go too.
2. *Liveness*: everything is mended, all nodes but `left_dead` come back. Within 10 E each group has a leader; then one more command is
   sent and all live replicas end with equal logs and everything committed and applied.
3. *Quietness*: the idle groups fall silent: no deadline, no message; only the nodes' pulses go on.

Checkers watch all of it. Nothing here reads a clock, a hash order or any randomness but the schedule's: a seed is a replay.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from .._types import NEVER, EntryId, GroupId, Millis, NodeId
from ..core import Campaign, Configuration, Message, Role
from ._all_checkers import Checkers
from ._checker import World
from ._clients import Clients, Operation, Reading
from ._disk import GroupDisk
from ._faults import FAULTS, STRANGER
from ._network import SimulatedNetwork, Weather
from ._node import SimulatedNode
from ._operator import Operator
from ._reader import LEVELS
from ._replica import SimulatedReplica
from ._schedule import Change, Fault, Load, Schedule
from ._statistics import Statistics
from ._trace import Trace
from ._violation import PropertyViolation

LEADER_WITHIN = 10
"""Election timeouts until a group has a leader, once faults are over (promise P5)."""
COMMAND_WITHIN = 10
"""Election timeouts from a leader to an acknowledged command."""
CONVERGED_WITHIN = 10
"""Election timeouts from there to equal logs on all live replicas."""
QUIET_WITHIN = 5
"""Election timeouts from equal logs to silence."""
FINAL_PAYLOAD = 8
CALM_READ_MS: tuple[Millis, Millis] = (0, 2)
STRAGGLERS_MS: Millis = 500
"""What is still on its way when faults end arrives within this time, or never."""


class Simulator:
    """One cluster. `run` does all that its schedule says; directed scenarios use the parts."""

    def __init__(self, schedule: Schedule, *, trace: Trace | None = None) -> None:
        self.schedule = schedule
        self.now: Millis = 0
        self.trace = Trace() if trace is None else trace
        self.random = random.Random(schedule.seed ^ 0x5EED)
        self.group_messages = 0
        """Messages of groups, pulses not counted."""
        self.stream_count = 0
        self.counts: Counter[str] = Counter()
        """What has happened how often; see `Statistics`."""
        self._heap: list[tuple[Millis, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._faults_done = 0
        self._fault_epoch = 0
        self._final: dict[GroupId, tuple[Millis, Operation]] = {}
        self._final_read: dict[tuple[GroupId, str], tuple[Millis, Reading]] = {}
        self.configurations = _configurations(schedule)
        self.network = SimulatedNetwork(self, self.random, self._deliver)
        self.nodes: dict[NodeId, SimulatedNode] = {}
        ids = tuple(range(1, schedule.voters + schedule.learners + schedule.spares + 1))
        for place, node_id in enumerate(ids):
            rate = schedule.clock_rates[place] if place < len(schedule.clock_rates) else 1000
            self.nodes[node_id] = SimulatedNode(self, node_id, tuple(i for i in ids if i != node_id), clock_rate=rate)
        self.node_ids = list(ids)
        self.all_nodes = list(self.nodes.values())
        self.disks: dict[tuple[GroupId, NodeId], GroupDisk] = {}
        """Every replica's disk."""
        for group, configuration in self.configurations.items():
            for member in map(configuration.member, configuration.members()):
                self.disks[group, member.node_id] = self.nodes[member.node_id].disk.create(group, member, configuration)
        # Whoever is bound counts by its own clock, which may be the fastest.
        promised = schedule.timing.election_timeout * 1000 // max((1000, *schedule.clock_rates))
        self.checkers = Checkers(World(self.configurations, self.disks, lambda: self.now), schedule.config, promised=promised)
        self.clients = Clients(self, self.random)
        self.operator = Operator(self)
        for node in self.all_nodes:
            node.disk.sync_ms = schedule.sync_ms

    # --- virtual time -----------------------------------------------------------------------------------------------------------------

    def call_at(self, at: Millis, call: Callable[..., Any], *args: object) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, call, args))

    def call_in(self, delay: Millis, call: Callable[..., Any], *args: object) -> None:
        """Call something after `delay` milliseconds; calls for one moment keep their order."""
        self._count += 1
        heapq.heappush(self._heap, (self.now + delay, self._count, call, args))

    def run_for(self, span: Millis) -> None:
        """Let `span` milliseconds pass."""
        heap, end = self._heap, self.now + span
        pop = heapq.heappop
        while heap and heap[0][0] <= end:
            self.now, _, call, args = pop(heap)
            call(*args)
        self.now = end

    def run_until(self, claim: Callable[[], bool], *, within: Millis, every: Millis = 20) -> bool:
        """Let time pass until `claim` holds; tell whether it did within `within` milliseconds."""
        end = self.now + within
        while not claim():
            if self.now >= end:
                return False
            self.run_for(min(every, end - self.now))
        return True

    def note(self, what: str, *parts: object) -> None:
        """Add a line to the trace."""
        self.trace.add(self.now, what, *parts)

    # --- the whole run ----------------------------------------------------------------------------------------------------------------

    def run(self) -> Statistics:
        """Do everything that the schedule says.

        Raises:
            PropertyViolation: with the seed and the last events.
        """
        try:
            self.start()
            self._plan()
            self.run_for(self.schedule.duration)
            self.settle()
        except PropertyViolation as violation:
            violation.seed, violation.trace = self.schedule.seed, tuple(self.trace)
            raise
        except Exception as error:
            raise PropertyViolation("crash", f"{type(error).__name__}: {error}", self.schedule.seed, tuple(self.trace)) from error
        return self.statistics()

    def start(self) -> None:
        """Start all nodes."""
        for node in self.all_nodes:
            node.start()

    def statistics(self) -> Statistics:
        acknowledged = sum(operation.fate == "acknowledged" for operation in self.clients.operations)
        return Statistics(
            seed=self.schedule.seed,
            faults=self._faults_done,
            operations=len(self.clients.operations),
            acknowledged=acknowledged,
            elections=len(self.checkers.elections.leaders),
            simulated_ms=self.now,
            reads=sum(reading.returned is not None for reading in self.clients.readings),
            messages=self.group_messages,
            lives=sum(node.life for node in self.all_nodes),
            **self.counts,
        )

    def _plan(self) -> None:
        for load in self.schedule.loads:
            self.call_at(load.at, self._issue, load)
        for fault in self.schedule.faults:
            self.call_at(fault.at, self._inflict, fault)
        for change in self.schedule.changes:
            self.call_at(change.at, self._change, self.operator.change, change)
        for transfer in self.schedule.transfers:
            self.call_at(transfer.at, self._change, self.operator.transfer, transfer)

    def _issue(self, load: Load) -> None:
        group, schedule = load.group + 1, self.schedule
        for size in load.sizes:
            if schedule.session_chance and self.random.random() * 1000 < schedule.session_chance:
                self.clients.sessions.issue(group, size)
            else:
                self.clients.issue(group, size)
        for level in load.reads:
            self.clients.read(group, level)

    def _change(self, call: Callable[[GroupId, random.Random], None], change: Change) -> None:
        call(change.group + 1, random.Random(change.seed))

    def _inflict(self, fault: Fault) -> None:
        self._faults_done += 1
        self.note("FAULT", fault.kind, f"for {fault.lasts} ms")
        FAULTS[fault.kind](self, random.Random(fault.seed), fault.lasts)

    # --- liveness and quietness -------------------------------------------------------------------------------------------------------

    def settle(self, *, left_dead: tuple[NodeId, ...] | None = None) -> None:
        """End all faults; demand a leader, equal logs and silence, then compare every answer with the log."""
        self.mend(self.schedule.left_dead if left_dead is None else left_dead)
        for node_id in self.schedule.left_full:
            self.nodes[node_id].set_space(False)
        timeout = self.schedule.timing.election_timeout
        self._demand("liveness", "has a leader", self._has_leader, LEADER_WITHIN * timeout)
        self._demand("liveness", "takes a command", self._final_command, COMMAND_WITHIN * timeout)
        for node in self.all_nodes:
            node.set_space(True)
        self._demand("liveness", "has equal logs", self._has_converged, CONVERGED_WITHIN * timeout)
        self._demand("liveness", "answers reads", self._final_reads, COMMAND_WITHIN * timeout)
        self.clients.are_gone = True
        for group in self.configurations:
            self.operator.retire(group)
        self._demand("quietness", "has no deadline left", self._is_quiet, QUIET_WITHIN * timeout)
        self._demand_silence(2 * timeout)
        self._check_all_answered()
        self.clients.are_gone = False
        self.clients.check(self.checkers.agreement.committed)

    def mend(self, left_dead: tuple[NodeId, ...] = ()) -> None:
        """End all faults and start all nodes, except those that stay dead."""
        self._fault_epoch += 1
        self.note("MEND", f"left dead: {left_dead}" if left_dead else "all")
        last_straggler = self.now + STRAGGLERS_MS
        self._heap = [item for item in self._heap if item[0] <= last_straggler or item[2] != self._deliver]
        heapq.heapify(self._heap)
        self.network.heal()
        for node in self.all_nodes:
            node.armed = None
            node.resume()
            node.set_space(True)
            self.mend_disk(node)
            self.mend_apply(node)
            node.read_ms = node.answer_ms = CALM_READ_MS
            if node.id in left_dead:
                node.crash()
            else:
                node.start()

    def _demand(self, name: str, what: str, claim: Callable[[GroupId], bool], within: Millis) -> None:
        end = self.now + within
        for group in self.configurations:
            if not self.run_until(partial(claim, group), within=end - self.now):
                raise PropertyViolation(name, f"it is not so that group {group} {what} within {within} ms: {self.describe(group)}")

    def _demand_silence(self, span: Millis) -> None:
        """Demand that idle groups say nothing and plan nothing for `span`; the second time, because stragglers deserve an answer."""
        said = 0
        for _ in range(2):
            before = self.group_messages
            self.run_for(span)
            said = self.group_messages - before
            if not said and all(map(self._is_quiet, self.configurations)):
                return
        groups = "; ".join(map(self.describe, self.configurations))
        raise PropertyViolation("quietness", f"idle groups have said {said} messages within {span} ms: {groups}")

    def live_replicas(self, group: GroupId) -> list[SimulatedReplica]:
        return [node.replicas[group] for node in self.all_nodes if group in node.replicas]

    def leader(self, group: GroupId = 1) -> SimulatedReplica | None:
        """The live leader of the highest term, if any."""
        leaders = [replica for replica in self.live_replicas(group) if replica.raft.role is Role.LEADER]
        return max(leaders, key=lambda replica: replica.raft.term, default=None)

    def _has_leader(self, group: GroupId) -> bool:
        leader = self.leader(group)
        if leader is None:
            return False
        # Whoever was removed may have come to a higher term before.
        members = leader.log.configurations[-1][1].replicas
        return all(
            replica.raft.term <= leader.raft.term
            for replica in self.live_replicas(group)
            if members.get(replica.node.id) == replica.me.replica
        )

    def _final_command(self, group: GroupId) -> bool:
        """Try until one command is acknowledged, as a client would who gives up on an attempt after E."""
        issued_at, operation = self._final.get(group, (0, None))
        if operation is not None and operation.fate == "acknowledged":
            return True
        gives_up = self.now - issued_at >= self.schedule.timing.election_timeout
        if operation is None or gives_up or operation.fate in ("refused", "dropped"):
            operation = self.clients.issue(group, FINAL_PAYLOAD)
            self._final[group] = (self.now, operation)
            self.note("final", f"g{group}", operation)
        return False

    def _has_converged(self, group: GroupId) -> bool:
        leader = self.leader(group)
        if leader is None:
            return False
        configuration = leader.log.configurations[-1][1]
        # The leader that took the change may have died before it could tell anybody.
        self.operator.start_members(group, configuration)
        nodes = [self.nodes[node_id] for node_id in configuration.members() if self.nodes[node_id].is_up]
        replicas = [node.replicas.get(group) for node in nodes]
        return not configuration.is_joint and all(
            replica is not None and replica.is_level and replica.log.last == leader.log.last for replica in replicas
        )

    def _final_reads(self, group: GroupId) -> bool:
        """One read of each level must be answered, asked again as a client would who gives up on an attempt after E."""
        for level in LEVELS if self.schedule.config.lease_reads else LEVELS[:2]:
            asked_at, reading = self._final_read.get((group, level), (0, None))
            if reading is None or (reading.returned is None and self.now - asked_at >= self.schedule.timing.election_timeout):
                self._final_read[group, level] = self.now, self.clients.read(group, level)
        return all(reading.returned is not None for (of, _), (_, reading) in self._final_read.items() if of == group)

    def _check_all_answered(self) -> None:
        for group in self.configurations:
            for replica in self.live_replicas(group):
                if replica.unanswered:
                    raise PropertyViolation("requests", f"{replica.who} has left {len(replica.unanswered)} requests without an answer")

    def _is_quiet(self, group: GroupId) -> bool:
        return all(replica.raft.deadline >= NEVER for replica in self.live_replicas(group))

    def describe(self, group: GroupId) -> str:
        """Say where each replica of a group stands."""
        parts = []
        for node in self.all_nodes:
            if not node.is_up:
                parts.append(f"n{node.id} down")
                continue
            replica = node.replicas.get(group)
            if replica is None:
                parts.append(f"n{node.id} has no replica")
                continue
            raft, log = replica.raft, replica.log
            wait = "never" if raft.deadline >= NEVER else f"in {raft.deadline - node.local_now()}"
            parts.append(
                f"n{node.id} {raft.role.value}@{raft.term} leader {raft.leader} log {log.start} to {log.last} commit {raft.commit_index} "
                f"applied {replica.applier.index} deadline {wait}"
            )
        return "; ".join(parts)

    # --- for directed scenarios -------------------------------------------------------------------------------------------------------

    def campaign(self, node: NodeId, group: GroupId = 1) -> None:
        """Let a replica ask for votes now."""
        self.nodes[node].replicas[group].put(Campaign())

    def isolate(self, node: NodeId) -> None:
        """Cut a node from all others, both ways, until `mend`."""
        for other in self.node_ids:
            if other != node:
                self.network.cut(node, other)
                self.network.cut(other, node)

    # --- what faults use --------------------------------------------------------------------------------------------------------------

    def _deliver(self, source: NodeId, target: NodeId, packet: Any) -> None:
        self.nodes[target].arrive(source, packet)

    def while_faulty(self, delay: Millis, call: Callable[..., Any], *args: object) -> None:
        """Call something later, unless all faults are ended before."""
        self.call_in(delay, self._call_if_faulty, self._fault_epoch, call, args)

    def _call_if_faulty(self, epoch: int, call: Callable[..., Any], args: tuple[object, ...]) -> None:
        if epoch == self._fault_epoch:
            call(*args)

    def deliver_forged(self, group: GroupId, message: Message, delay: Millis) -> None:
        """Let a message arrive that nobody sent."""
        self.note("forged", f"g{group}", message)
        self.call_in(delay, self._deliver, STRANGER, message.target.node_id, (group, message))

    def set_weather(self, weather: Weather) -> None:
        self.network.weather = weather

    def mend_disk(self, node: SimulatedNode) -> None:
        node.disk.sync_ms = self.schedule.sync_ms

    def mend_apply(self, node: SimulatedNode) -> None:
        node.apply_ms = (0, 0)

    def mend_reads(self, node: SimulatedNode) -> None:
        node.read_ms = node.answer_ms = self.schedule.read_ms


def _configurations(schedule: Schedule) -> dict[GroupId, Configuration]:
    voters = range(1, schedule.voters + 1)
    learners = range(schedule.voters + 1, schedule.voters + schedule.learners + 1)
    replicas: dict[NodeId, EntryId] = {}
    if schedule.has_former_lives:
        replicas = {node: EntryId(1, 10 + node) for node in [*voters, *learners] if node % 2 == schedule.seed % 2}
    configuration = Configuration(voters=frozenset(voters), learners=frozenset(learners), replicas=replicas)
    return dict.fromkeys(range(1, schedule.groups + 1), configuration)
