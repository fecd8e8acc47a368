"""One node's durable state as the core sees it, with a disk that takes time and loses what was not synced.

How it works, as the real committer does: writes of all groups queue up; whenever the disk is idle, everything queued becomes one batch;
when its sync is over the whole batch is durable at once and each group is told once. Batches never overtake each other.

A crash loses the queue, which is only memory. Of the batch in flight each group keeps *some* prefix of its writes: none, a few or
all. That is more than the shared log allows (there, a batch is whole or gone, for all groups) and what one file per group allows.
A write stays whole: term and vote and entries of one Ready are one record.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import attrs

from .._errors import InvariantError
from .._types import GroupId, Index, Millis, Term
from ..core import Entry, HardState


@attrs.define
class GroupDisk:
    """What one group has on one node's disk: what a crash leaves."""

    hard_state: HardState = HardState()
    entries: list[Entry] = attrs.field(factory=list)
    """The log from index 1 on."""

    def write(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Make one write durable; the first entry replaces everything at and above its index."""
        if hard_state is not None:
            self.hard_state = hard_state
        if entries:
            replace_tail(self.entries, entries)

    def term_at(self, index: Index) -> Term:
        """The term of the entry at `index`; 0 when there is none."""
        return self.entries[index - 1].term if 0 < index <= len(self.entries) else 0


def replace_tail(log: list[Entry], entries: Sequence[Entry]) -> None:
    """Put `entries` where they belong in `log`, in place of everything at and above the first one."""
    start = entries[0].index - 1
    if not 0 <= start <= len(log):
        raise InvariantError(f"a write begins at {entries[0].index}, but the log ends at {len(log)}")
    del log[start:]
    log.extend(entries)


class Write(NamedTuple):
    """One write of one group on its way to the disk."""

    group: GroupId
    sequence: int
    hard_state: HardState | None
    entries: Sequence[Entry]


class Scheduler(Protocol):
    """Whoever calls back later in virtual time."""

    @property
    def now(self) -> Millis: ...

    def call_in(self, delay: Millis, call: Callable[..., None], *args: object) -> None: ...


class SimulatedDisk:
    """A node's disk, for all its groups."""

    def __init__(
        self,
        scheduler: Scheduler,
        generator: random.Random,
        *,
        synced: Callable[[Write, GroupDisk], None],
        told: Callable[[dict[GroupId, int]], None],
    ) -> None:
        """
        Args:
            synced: called for each write at the moment at which it is durable.
            told: called once per batch with each group's newest durable sequence.
        """
        self._scheduler = scheduler
        self._random = generator
        self._synced, self._told = synced, told
        self.groups: dict[GroupId, GroupDisk] = {}
        self.sync_ms: tuple[Millis, Millis] = (1, 3)
        """Range of the time that one sync takes."""
        self.is_full = False
        self.is_stopped = False
        """The process does not run: nothing new is begun."""
        self._queue: list[Write] = []
        self._batch: list[Write] = []
        self._begun: Millis = 0
        self._life = 0

    def group(self, group: GroupId) -> GroupDisk:
        return self.groups.setdefault(group, GroupDisk())

    def write(self, write: Write) -> None:
        self._queue.append(write)
        self.begin()

    def begin(self) -> None:
        """Start on what is queued, unless the disk is busy, full or stopped."""
        if self._batch or not self._queue or self.is_full or self.is_stopped:
            return
        self._batch, self._queue = self._queue, []
        self._begun = self._scheduler.now
        low, high = self.sync_ms
        self._scheduler.call_in(low if low == high else self._random.randint(low, high), self._finish, self._life)

    def _finish(self, life: int) -> None:
        if life != self._life:
            return
        if self.is_full:
            # The write met a full disk: it is kept, in front of what came later, and tried again when there is space.
            self._queue, self._batch = self._batch + self._queue, []
            return
        batch, self._batch = self._batch, []
        newest: dict[GroupId, int] = {}
        for write in batch:
            disk = self.group(write.group)
            disk.write(write.hard_state, write.entries)
            newest[write.group] = write.sequence
            self._synced(write, disk)
        self._told(newest)
        if life == self._life:
            self.begin()

    def sync_age(self) -> Millis:
        """For how long the oldest unfinished write has been with the disk; 0: none."""
        return self._scheduler.now - self._begun if self._batch else 0

    def crash(self) -> None:
        """Lose what was never synced: the queue, and of the batch in flight all but some prefix of each group's writes."""
        kept = {group: self._random.choice((0, 0, 1, len(self._batch))) for group in sorted({write.group for write in self._batch})}
        for write in self._batch:
            if kept[write.group] > 0:
                kept[write.group] -= 1
                disk = self.group(write.group)
                disk.write(write.hard_state, write.entries)
                self._synced(write, disk)
        self._queue, self._batch = [], []
        self.is_stopped = False
        self._life += 1
