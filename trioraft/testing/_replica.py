"""One replica in one life: the core, and the driver around it as the real one works.

A turn: drain the inbox, step all of it with one `now`, take *one* Ready, hand its write to the disk, send its messages; what promises
durability waits for the disk; what is committed goes to the applier. Nothing in a turn waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._errors import InvariantError
from .._types import NEVER, GroupId, Index, Millis, Term
from ..core import (
    Applied,
    Attach,
    AttachRefused,
    Detach,
    DiskSpace,
    Durable,
    Entry,
    Event,
    Message,
    PeerDown,
    PeerUp,
    Persisted,
    Propose,
    Raft,
    Ready,
    Role,
    TimePassed,
)
from ._checker import Who
from ._clients import Operation
from ._disk import Write, replace_tail
from ._violation import PropertyViolation

if TYPE_CHECKING:
    from ._node import SimulatedNode

_ON_THE_PULSE = (Attach, Detach, AttachRefused)
_LATE_DEADLINES_MAX = 50
"""A deadline that has passed must move on when time is stepped; the real driver would spin."""

_RERUNS_MAX = 1000
"""Turns in a row that leave something to be taken."""


_COMPLETIONS = (DiskSpace, Persisted, PeerDown, PeerUp, TimePassed)


def _comes_late(event: Event) -> bool:
    return not isinstance(event, _COMPLETIONS)


class SimulatedReplica:
    """A group's replica on a node, from a start of the process to its end."""

    def __init__(self, node: SimulatedNode, group: GroupId) -> None:
        simulator = node.simulator
        self.node, self.group = node, group
        self.who = Who(node.id, group, node.life)
        self._disk = disk = node.disk.group(group)
        for check in simulator.checkers.started:
            check(self.who, disk)
        configuration = simulator.configurations[group]
        self.me = configuration.member(node.id)
        self.raft = Raft(
            self.me,
            configuration,
            Durable(hard_state=disk.hard_state, entries=tuple(disk.entries)),
            config=simulator.schedule.config,
            timing=simulator.schedule.timing,
            random=node.random,
            liveness=node.liveness,
            now=node.local_now(),
        )
        self.log: list[Entry] = list(disk.entries)
        """The log as handed out by the core: what is on the disk, or on its way there."""
        self.applied: list[Entry] = []
        self._inbox: list[Event] = []
        self._turn_due = False
        self._wake_at: Millis = NEVER
        self._late_deadlines = 0
        self._reruns = 0
        self._last_write = 0
        self._persisted = 0
        self._held: deque[tuple[int, tuple[Message, ...]]] = deque()
        self._to_apply: deque[Entry] = deque()
        self._applying = False
        self._proposed: dict[Index, tuple[Term, Operation]] = {}
        self._commit: Index = 0
        self._led: Term = 0
        self._leads_since: Term | None = None
        self.watched = self.raft.watched()
        self._watch_deadline()

    @property
    def is_alive(self) -> bool:
        return self.node.is_up and self.node.life == self.who.life

    # --- inwards ----------------------------------------------------------------------------------------------------------------------

    def put(self, event: Event) -> None:
        """Queue an event and see to it that a turn follows."""
        self._inbox.append(event)
        self.schedule_turn()

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
        self._leads_since = self.raft.term if self.raft.role is Role.LEADER else None
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
        if ready.writes:
            self._write(ready)
            if node.crashes_at("written"):
                node.crash()
                return
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
        if ready.role_change is not None:
            self.watched = self.raft.watched()
        if ready.committed:
            self._to_apply.extend(ready.committed)
            self._apply_later()

    def _write(self, ready: Ready) -> None:
        if ready.sequence <= self._last_write:
            raise PropertyViolation("invariant", f"{self.who}: write {ready.sequence} after write {self._last_write}")
        self._last_write = ready.sequence
        leads = self.raft.term if self.raft.role is Role.LEADER else None
        for check in self.node.simulator.checkers.writes:
            check(self.who, ready.hard_state, ready.entries, self.log, leads)
        if ready.entries:
            replace_tail(self.log, ready.entries)
        self.node.disk.write(Write(self.group, ready.sequence, ready.hard_state, ready.entries))

    def _release(self, sequence: int) -> None:
        """Send what waited for the writes up to `sequence`."""
        self._persisted = sequence
        held = self._held
        while held and held[0][0] <= sequence and self.is_alive:
            self._send(held.popleft()[1])

    def _send(self, messages: Sequence[Message]) -> None:
        node, disk = self.node, self._disk
        for message in messages:
            for check in node.simulator.checkers.sends:
                check(self.who, message, disk)
            if isinstance(message, _ON_THE_PULSE):
                node.put_line(self.group, message)
            else:
                node.send(self.group, message)

    # --- the applier and the clients --------------------------------------------------------------------------------------------------

    def _apply_later(self) -> None:
        if self._applying or not self._to_apply:
            return
        delay = self.node.apply_delay()
        if not delay:
            self._apply()
            return
        self._applying = True
        self.node.simulator.call_in(delay, self._apply_when_running)

    def _apply_when_running(self) -> None:
        if self.is_alive:
            self.node.when_running(self._apply)

    def _apply(self) -> None:
        self._applying = False
        if not self.is_alive:
            return
        disk = self._disk
        checks = self.node.simulator.checkers.applies
        last = 0
        while self._to_apply:
            entry = self._to_apply.popleft()
            for check in checks:
                check(self.who, entry, disk)
            self.applied.append(entry)
            last = entry.index
            if self._proposed:
                self._answer_applied(entry)
        self.put(Applied(last))

    def _answer_applied(self, entry: Entry) -> None:
        proposed = self._proposed.pop(entry.index, None)
        if proposed is None:
            return
        term, operation = proposed
        if term != entry.term:
            operation.dropped()
            return
        for check in self.node.simulator.checkers.acknowledges:
            check(self.who, entry)
        operation.acknowledged(entry)
        self.node.simulator.note("ack", self.who, operation, entry)

    def _answer_clients(self, ready: Ready) -> None:
        for token, entry_id in ready.accepted:
            token.accepted()
            self._proposed[entry_id.index] = (entry_id.term, token)
        for token, error in ready.refused:
            self.node.simulator.clients.refused(token, error)

    def propose(self, operation: Operation) -> None:
        self.put(Propose(operation, operation.payload))

    # --- what is watched after each turn ----------------------------------------------------------------------------------------------

    def _watch_commit(self) -> None:
        commit = self.raft.commit_index
        if commit != self._commit:
            self._commit = commit
            for check in self.node.simulator.checkers.commits:
                check(self.who, commit, self.log, self.raft.term, self._leads_since == self.raft.term)

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
