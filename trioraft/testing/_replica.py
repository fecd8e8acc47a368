"""One replica in one life: the core, and the driver around it as the real one works.

A turn: drain the inbox, step all of it with one `now`, take *one* Ready, hand its write to the disk, send its messages; what promises
durability waits for the disk; what is committed goes to the applier. Nothing in a turn waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._errors import InvariantError
from .._types import NEVER, GroupId, Index, Member, Millis, Term
from ..core import (
    Applied,
    Attach,
    AttachRefused,
    ChangeMembers,
    Compaction,
    Configuration,
    Detach,
    DiskSpace,
    EntriesLoaded,
    Event,
    LoadEntries,
    Message,
    PeerDown,
    PeerUp,
    Persisted,
    Propose,
    Raft,
    Read,
    Ready,
    Role,
    SnapshotSent,
    SnapshotTaken,
    TimePassed,
    TransferLeadership,
    TrimMemory,
)
from ._applier import SimulatedApplier
from ._checker import Who
from ._disk import GroupDisk, Write
from ._operator import Changing
from ._reader import Question, SimulatedReader
from ._snapshots import SimulatedSnapshots
from ._violation import PropertyViolation

if TYPE_CHECKING:
    from ._node import SimulatedNode

_ON_THE_PULSE = (Attach, Detach, AttachRefused)
_LATE_DEADLINES_MAX = 50
"""A deadline that has passed must move on when time is stepped; the real driver would spin."""

_RERUNS_MAX = 1000
"""Turns in a row that leave something to be taken."""


_COMPLETIONS = (Applied, DiskSpace, EntriesLoaded, Persisted, PeerDown, PeerUp, SnapshotSent, SnapshotTaken, TimePassed)


def _comes_late(event: Event) -> bool:
    return not isinstance(event, _COMPLETIONS)


class SimulatedReplica:
    """A group's replica on a node, from a start of the process to its end."""

    def __init__(self, node: SimulatedNode, group: GroupId) -> None:
        simulator = node.simulator
        self.node, self.group = node, group
        self.disk: GroupDisk = node.disk.groups[group]
        self.who = Who(node.id, group, node.life, self.disk.me.replica, self.disk.number)
        self.applier = SimulatedApplier(self)
        for check in simulator.checkers.started:
            check(self.who, self.disk, self.applier.machine.history)
        in_memory = simulator.random.choice((0, 0, simulator.random.randint(0, 100)))
        self.raft = self._make_raft(in_memory)
        self.log = self.disk.log.copy()
        """The log as handed out by the core: what is on the disk, or on its way there."""
        self.snapshots = SimulatedSnapshots(self)
        self.reader = SimulatedReader(self)
        self.unanswered: set[Any] = set()
        """What the core was asked and has not answered; answers come once."""
        self._inbox: list[Event] = []
        self._turn_due = False
        self._wake_at: Millis = NEVER
        self._late_deadlines = 0
        self._reruns = 0
        self._last_write = 0
        self._persisted = 0
        self._held: deque[tuple[int, tuple[Message, ...]]] = deque()
        self._commit: Index = 0
        self._led: Term = 0
        self.led_before_turn: Term | None = None
        """The term that it led when this turn began."""
        self.watched = self.raft.watched()
        self._watched_for = self.log.configurations[-1]
        self._in_force: tuple[Index, Configuration] = self.log.configurations[-1]
        self._in_force_before_turn = self._in_force[1]
        self._watch_deadline()

    def _make_raft(self, in_memory: int) -> Raft:
        node, simulator = self.node, self.node.simulator
        try:
            return Raft(
                self.disk.me,
                self.disk.first,
                self.disk.recover(in_memory),
                config=simulator.schedule.config,
                timing=simulator.schedule.timing,
                random=node.random,
                liveness=node.liveness,
                now=node.local_now(),
                applied=self.applier.index,
                awaits_number=self.disk.awaits_number,
            )
        except InvariantError as error:
            raise PropertyViolation("invariant", f"{self.who} cannot start: {error}") from error

    @property
    def me(self) -> Member:
        """The member that this replica is, as it knows by now."""
        return self.raft.me

    @property
    def is_level(self) -> bool:
        """Whether everything in the log is committed, applied and on the disk."""
        return self.raft.commit_index == self.applier.index == self.log.last_index

    @property
    def is_alive(self) -> bool:
        return self.node.is_up and self.node.life == self.who.life and self.node.replicas.get(self.group) is self

    # --- inwards ----------------------------------------------------------------------------------------------------------------------

    def put(self, event: Event) -> None:
        """Queue an event and see to it that a turn follows."""
        self._inbox.append(event)
        self.schedule_turn()

    def request(self, event: Propose | ChangeMembers | TransferLeadership) -> None:
        """Queue an event that will be answered."""
        self.unanswered.add(event.token)
        self.put(event)

    def ask_index(self, question: Question) -> None:
        """Ask the core for the index of a read."""
        for check in self.node.simulator.checkers.asks:
            check(self.who, question)
        self.unanswered.add(question)
        self.put(Read([question]))

    def schedule_turn(self) -> None:
        if not self._turn_due and not self.node.is_paused:
            self._turn_due = True
            self.node.simulator.call_in(0, self._turn)

    def resume(self) -> None:
        """The process runs again: whatever queued up is taken in one turn, with a late `now`."""
        self._turn_due = False
        if self.raft.deadline <= self.node.local_now():
            self._inbox.append(TimePassed())
        if self._inbox:
            self.schedule_turn()
        self._watch_deadline()

    def _turn(self) -> None:
        if not self.is_alive or self.node.is_paused:
            return
        self._turn_due = False
        now = self.node.local_now()
        inbox, self._inbox = self._inbox, []
        if len(inbox) > 1 and self.node.simulator.schedule.completions_first:
            inbox.sort(key=_comes_late)
        self.led_before_turn = self.raft.term if self.raft.role is Role.LEADER else None
        self._in_force_before_turn = self._in_force[1]
        schedule, draw = self.node.simulator.schedule, self.node.simulator.random
        if schedule.trim_chance and draw.random() * 1000 < schedule.trim_chance:
            inbox.append(TrimMemory(draw.choice((0, 500, 5000))))
        try:
            self._step_all(inbox, now)
            has_ready = self.raft.has_ready
            if has_ready:
                ready = self.raft.take_ready(self.node.next_sequence())
                if self.node.crashes_at("taken") and ready.writes:
                    self.node.crash()
                    return
                self._carry_out(ready)
        except InvariantError as error:
            raise PropertyViolation("invariant", f"{self.who}: {error}") from error
        if self.is_alive:
            self._watch_commit()
            self._watch_deadline()
            if has_ready:
                self._watch_rest()

    def _step_all(self, inbox: Sequence[Event], now: Millis) -> None:
        raft, simulator = self.raft, self.node.simulator
        for event in inbox:
            if type(event) is Persisted:
                self._release(event.sequence)
                if not self.is_alive:
                    return
            raft.step(event, now)
            if raft.role is Role.LEADER and raft.term != self._led:
                self._led = raft.term
                simulator.note("leads", self.who, f"term {raft.term}")
                for check in simulator.checkers.elected:
                    check(self.who, raft.term)

    # --- outwards ---------------------------------------------------------------------------------------------------------------------

    def _carry_out(self, ready: Ready) -> None:
        node = self.node
        if ready.compaction is not None:
            for check in node.simulator.checkers.compacts:
                check(self.who, ready.compaction, self.log)
        if ready.writes:
            self._write(ready)
            if node.crashes_at("written"):
                node.crash()
                return
        if ready.compaction is not None:
            self._compact(ready.compaction)
        self._watch_commit()
        if self.raft.role is Role.LEADER:
            for check in node.simulator.checkers.leads:
                check(self.who, self.raft.term, self.log)
        self._send(ready.messages)
        if node.crashes_at("sent"):
            node.crash()
            return
        if ready.after_write:
            if self._persisted >= self._last_write:
                self._send(ready.after_write)
            else:
                self._held.append((self._last_write, ready.after_write))
        self._answer_clients(ready)
        if ready.role_change is not None or self.log.configurations[-1] is not self._watched_for:
            self._watched_for = self.log.configurations[-1]
            self.watched = self.raft.watched()
        self._begin_what_takes_time(ready)

    def _begin_what_takes_time(self, ready: Ready) -> None:
        if ready.restore is not None:
            self.applier.restore(ready.restore)
        if ready.committed:
            self.applier.add(ready.committed)
        for load in ready.loads:
            self._load_later(load)
        for request in ready.send_snapshots:
            self.snapshots.send(request)

    def _write(self, ready: Ready) -> None:
        if ready.sequence <= self._last_write:
            raise PropertyViolation("invariant", f"{self.who}: write {ready.sequence} after write {self._last_write}")
        self._last_write = ready.sequence
        leads, checkers = self.raft.term if self.raft.role is Role.LEADER else None, self.node.simulator.checkers
        if ready.install is not None:
            for check in checkers.installs:
                check(self.who, ready.install, self.log, max(self._commit, self.log.start.index), self.disk)
            self.log.install(ready.install.at, ready.install.configuration)
            self.node.simulator.counts["installs"] += 1
            self.node.simulator.note("installs", self.who, ready.install)
        for check in checkers.writes:
            check(self.who, ready.hard_state, ready.entries, self.log, leads)
        self.log.write(ready.entries)
        self.node.disk.write(Write(self.group, ready.sequence, ready.hard_state, ready.entries, ready.install, me=ready.me))

    def _compact(self, compaction: Compaction) -> None:
        self.log.compact(compaction.start)
        self.node.simulator.note("compacts", self.who, compaction)
        self.node.disk.write(Write(self.group, 0, compaction=compaction))

    def _release(self, sequence: int) -> None:
        """Send what waited for the writes up to `sequence`."""
        self._persisted = sequence
        held = self._held
        while held and held[0][0] <= sequence and self.is_alive:
            self._send(held.popleft()[1])

    def _send(self, messages: Sequence[Message]) -> None:
        node, disk = self.node, self.disk
        for message in messages:
            for check in node.simulator.checkers.sends:
                check(self.who, message, disk)
            if isinstance(message, _ON_THE_PULSE):
                node.put_line(self.group, message)
            else:
                node.send(self.group, message)

    # --- the disk's answers and the clients' --------------------------------------------------------------------------------------------

    def _load_later(self, load: LoadEntries) -> None:
        simulator = self.node.simulator
        simulator.counts["loads"] += 1
        simulator.note("loads", self.who, load)
        simulator.call_in(simulator.random.randint(*self.node.read_ms), self._load, load)

    def _load(self, load: LoadEntries) -> None:
        """The disk is read now; the answer comes when it comes, whatever has been written meanwhile."""
        if not self.is_alive:
            return
        entries = self.disk.read(load)
        simulator = self.node.simulator
        for check in simulator.checkers.reads:
            check(self.who, load, entries, self.log, self.disk)
        simulator.call_in(simulator.random.randint(*self.node.answer_ms), self._loaded, EntriesLoaded(load, entries))

    def _loaded(self, event: EntriesLoaded) -> None:
        if self.is_alive:
            self.node.when_running(self.put, event)

    def _answer_clients(self, ready: Ready) -> None:
        for token, entry_id in ready.accepted:
            self._settle(token)
            token.accepted()
            if isinstance(token, Changing):
                token.reached(self.log.configuration_at(entry_id.index), entry_id)
            else:
                self.applier.proposals.add(entry_id, token)
        for token, value in ready.answered:
            self._settle(token)
            if isinstance(token, Question):
                for check in self.node.simulator.checkers.tells:
                    check(self.who, token, value, self._led, (self._in_force_before_turn, self.log.configurations[-1][1]))
            token.succeed(value)
        for token, error in ready.refused:
            self._settle(token)
            token.fail(error)

    def _settle(self, token: Any) -> None:
        if token not in self.unanswered:
            raise PropertyViolation("requests", f"{self.who} answers {token} twice")
        self.unanswered.remove(token)

    # --- what is watched after each turn ----------------------------------------------------------------------------------------------

    def _watch_commit(self) -> None:
        commit, log = self.raft.commit_index, self.log
        if commit != self._commit:
            self._commit = commit
            # In one turn a leader may commit under one, and append the next.
            at, before = self._in_force
            in_force = (before, *(configuration for index, configuration in log.configurations if index > at))
            for check in self.node.simulator.checkers.commits:
                check(self.who, commit, log, self.raft.term, self.led_before_turn == self.raft.term, in_force)
        self._in_force = log.configurations[-1]

    def _watch_rest(self) -> None:
        """A Ready may leave something for the next one; but it must end."""
        if not self.raft.has_ready:
            self._reruns = 0
            return
        self._reruns += 1
        if self._reruns > _RERUNS_MAX:
            raise PropertyViolation("progress", f"{self.who}: there is always another Ready, turn after turn")
        self.schedule_turn()

    def _watch_deadline(self) -> None:
        deadline = self.raft.deadline
        if deadline >= NEVER:
            self._late_deadlines = 0
            return
        at = self.node.simulated_time(deadline)
        if at <= self.node.simulator.now:
            self._late_deadlines += 1
            if self._late_deadlines > _LATE_DEADLINES_MAX:
                raise PropertyViolation("deadline-moves", f"{self.who}: the deadline stays in the past through many turns")
            at = self.node.simulator.now + 1
        else:
            self._late_deadlines = 0
        if at < self._wake_at:
            self._wake_at = at
            self.node.simulator.call_at(at, self._wake, at)

    def _wake(self, at: Millis) -> None:
        if at != self._wake_at:
            return
        self._wake_at = NEVER
        if not self.is_alive or self.node.is_paused:
            return
        if self.raft.deadline <= self.node.local_now():
            self.put(TimePassed())
        else:
            self._watch_deadline()
