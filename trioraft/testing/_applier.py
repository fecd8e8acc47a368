"""Takes what the core hands out to the machine of a simulated replica, in one life, with delays; and answers whoever waits for it.

A machine in memory begins with the newest snapshot. A durable one begins with what it has stored by itself, now and then and as a
whole; if the log does not reach back so far any more, with the snapshot too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .._types import EntryId, Index
from ..core import Applied, Entry
from ..group._proposals import Proposals
from ._checker import Who
from ._machine import Result, SimulatedMachine
from ._violation import PropertyViolation

if TYPE_CHECKING:
    from ._replica import SimulatedReplica

_STORES = 0.6
"""How often a durable machine stores its state after it has applied something."""


class Outcome(NamedTuple):
    """What a proposal is answered with."""

    who: Who
    entry: Entry
    result: Result


class SimulatedApplier:
    """Gives a machine what the core hands out."""

    def __init__(self, replica: SimulatedReplica) -> None:
        self._replica = replica
        self._disk = replica.disk
        self.is_durable = replica.node.simulator.schedule.has_durable_machine
        self.machine = self._find_start()
        self.proposals = Proposals()
        """Whose commands are in the log: the real ones."""
        self._queue: deque[Entry] = deque()
        self._readers: list[tuple[Index, Callable[[], None]]] = []
        self._restore: EntryId | None = None
        self._is_busy = False

    def _find_start(self) -> SimulatedMachine:
        disk, simulator = self._disk, self._replica.node.simulator
        if self.is_durable and len(disk.machine) >= disk.log.start.index and disk.machine:
            return SimulatedMachine.replayed(disk.machine)
        if not disk.snapshot.index:
            return SimulatedMachine()
        if disk.snapshot not in disk.files:
            raise PropertyViolation("snapshot-lost", f"{self._replica.who} starts with {disk.snapshot}, which is not on its disk")
        simulator.counts["restarts"] += 1
        machine = SimulatedMachine.restored(disk.files[disk.snapshot])
        if self.is_durable:
            disk.machine = list(machine.history)
        return machine

    @property
    def index(self) -> Index:
        return len(self.machine.history)

    @property
    def is_restoring(self) -> bool:
        return self._restore is not None

    def when_applied(self, index: Index, call: Callable[[], None]) -> None:
        """Call once everything up to `index` is applied: now, if it is."""
        if self.index >= index and not self.is_restoring:
            call()
        else:
            self._readers.append((index, call))

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
        if self._readers:
            self._answer_readers()

    def _answer_readers(self) -> None:
        waiting, self._readers = self._readers, []
        for index, call in waiting:
            self.when_applied(index, call)

    def _replace(self) -> None:
        at, self._restore = self._restore, None
        replica, disk = self._replica, self._disk
        snapshot = disk.files.get(at) if at is not None else None
        if snapshot is None:
            raise PropertyViolation("snapshot-lost", f"{replica.who} restores {at}, which is not on its disk")
        for check in replica.node.simulator.checkers.restores:
            check(replica.who, snapshot, disk)
        replica.node.simulator.note("restored", replica.who, snapshot)
        self.machine = SimulatedMachine.restored(snapshot)
        self.proposals.abandon_to(snapshot.at.index, "a snapshot took their place")
        if self.is_durable:
            disk.machine = list(self.machine.history)

    def _apply(self) -> None:
        checkers, disk, who, machine = self._replica.node.simulator.checkers, self._disk, self._replica.who, self.machine
        while self._queue:
            entry = self._queue.popleft()
            for check in checkers.applies:
                check(who, entry, disk)
            result = machine.apply(entry)
            for check in checkers.takes_effect:
                check(who, entry, machine)
            if self.proposals:
                self._answer(entry, result)
        if self.is_durable and self._replica.node.simulator.random.random() < _STORES:
            disk.machine += machine.history[len(disk.machine) :]

    def _answer(self, entry: Entry, result: Result) -> None:
        self.proposals.answer(entry.index, entry.term, Outcome(self._replica.who, entry, result), result[1])
