"""The state machine of a simulated replica, in one life: its state is all that it was ever given.

A machine in memory begins with the newest snapshot. A durable one begins with what it has stored by itself, now and then and as a
whole; if the log does not reach back so far any more, with the snapshot too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._types import EntryId, Index, Term
from ..core import Applied, Entry
from ._clients import Operation
from ._violation import PropertyViolation

if TYPE_CHECKING:
    from ._replica import SimulatedReplica

_STORES = 0.6
"""How often a durable machine stores its state after it has applied something."""


class SimulatedApplier:
    """Gives a machine what the core hands out, with delays; answers the clients."""

    def __init__(self, replica: SimulatedReplica) -> None:
        self._replica = replica
        self._disk = replica.disk
        self.is_durable = replica.node.simulator.schedule.has_durable_machine
        self.history: list[Entry] = self._find_start()
        """The machine's state."""
        self._queue: deque[Entry] = deque()
        self._restore: EntryId | None = None
        self._is_busy = False
        self._proposed: dict[Index, tuple[Term, Operation]] = {}

    def _find_start(self) -> list[Entry]:
        disk, simulator = self._disk, self._replica.node.simulator
        if self.is_durable and len(disk.machine) >= disk.log.start.index and disk.machine:
            return list(disk.machine)
        if not disk.snapshot.index:
            return []
        if disk.snapshot not in disk.files:
            raise PropertyViolation("snapshot-lost", f"{self._replica.who} starts with {disk.snapshot}, which is not on its disk")
        simulator.counts["restarts"] += 1
        history = list(disk.files[disk.snapshot].history)
        if self.is_durable:
            disk.machine = list(history)
        return history

    @property
    def index(self) -> Index:
        return len(self.history)

    @property
    def is_restoring(self) -> bool:
        return self._restore is not None

    def expect(self, at: EntryId, operation: Operation) -> None:
        """A client's command is in the log: answer when it is applied."""
        self._proposed[at.index] = (at.term, operation)

    def restore(self, at: EntryId) -> None:
        """Replace the state by a snapshot; what waits is in it."""
        self._queue.clear()
        self._restore = at
        self._begin()

    def add(self, entries: Sequence[Entry]) -> None:
        self._queue.extend(entries)
        self._begin()

    def _begin(self) -> None:
        if self._is_busy or not (self._queue or self._restore):
            return
        node = self._replica.node
        delay = node.apply_delay()
        if self._restore is not None:
            delay += node.simulator.random.randint(0, 50)
        if not delay:
            self._work()
            return
        self._is_busy = True
        node.simulator.call_in(delay, self._work_when_running)

    def _work_when_running(self) -> None:
        if self._replica.is_alive:
            self._replica.node.when_running(self._work)

    def _work(self) -> None:
        self._is_busy = False
        replica = self._replica
        if not replica.is_alive:
            return
        if self._restore is not None:
            self._replace()
        self._apply()
        replica.put(Applied(self.index))
        replica.snapshots.consider()

    def _replace(self) -> None:
        at, self._restore = self._restore, None
        replica, disk = self._replica, self._disk
        snapshot = disk.files.get(at) if at is not None else None
        if snapshot is None:
            raise PropertyViolation("snapshot-lost", f"{replica.who} restores {at}, which is not on its disk")
        for check in replica.node.simulator.checkers.restores:
            check(replica.who, snapshot, disk)
        replica.node.simulator.note("restored", replica.who, snapshot)
        self.history = list(snapshot.history)
        if self.is_durable:
            disk.machine = list(self.history)

    def _apply(self) -> None:
        checks, disk, who = self._replica.node.simulator.checkers.applies, self._disk, self._replica.who
        while self._queue:
            entry = self._queue.popleft()
            for check in checks:
                check(who, entry, disk)
            self.history.append(entry)
            if self._proposed:
                self._answer(entry)
        if self.is_durable and self._replica.node.simulator.random.random() < _STORES:
            disk.machine += self.history[len(disk.machine) :]

    def _answer(self, entry: Entry) -> None:
        proposed = self._proposed.pop(entry.index, None)
        if proposed is None:
            return
        term, operation = proposed
        if term != entry.term:
            operation.dropped()
            return
        simulator = self._replica.node.simulator
        for check in simulator.checkers.acknowledges:
            check(self._replica.who, entry)
        operation.acknowledged(entry)
        simulator.note("ack", self._replica.who, operation, entry)
