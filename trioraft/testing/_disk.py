"""One node's durable state as the core sees it, with a disk that takes time and loses what was not synced.

How it works, as the real committer does: writes of all groups queue up; whenever the disk is idle, everything queued becomes one batch;
when its sync is over the whole batch is durable at once and each group is told once. Batches never overtake each other. That a log is
cut is a write like any other, but that nobody is told.

A crash loses the queue, which is only memory. Of the batch in flight each group keeps *some* prefix of its writes: none, a few or
all. That is more than the shared log allows (there, a batch is whole or gone, for all groups) and what one file per group allows.
A write stays whole: term and vote, the snapshot that is installed, and entries of one Ready are one record.

Files of snapshots, and the state of a machine that stores it by itself, have syncs of their own: they are there from one moment to the
next, before or after the log says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import attrs

from .._errors import InvariantError
from .._types import NOTHING, EntryId, GroupId, Index, Member, Millis
from ..core import Compaction, Configuration, Durable, Entry, HardState, InstallSnapshot, LoadEntries
from ._log_window import LogWindow
from ._machine import Snapshot

NOBODY = Member(0)
_NOBODY_YET = Configuration(())


class Write(NamedTuple):
    """One write of one group on its way to the disk."""

    group: GroupId
    sequence: int
    """0: nobody waits for it."""
    hard_state: HardState | None = None
    entries: Sequence[Entry] = ()
    install: InstallSnapshot | None = None
    compaction: Compaction | None = None
    me: Member | None = None


@attrs.define(eq=False)
class GroupDisk:
    """What one replica has on one node's disk: what a crash leaves."""

    hard_state: HardState = HardState()
    log: LogWindow = attrs.field(factory=LogWindow)
    snapshot: EntryId = NOTHING
    """The newest snapshot that the log knows of."""
    commit: Index = 0
    files: dict[EntryId, Snapshot] = attrs.field(factory=dict)
    """The snapshots that are there, whether the log knows of them or not."""
    machine: list[Entry] = attrs.field(factory=list)
    """What a machine has stored by itself."""
    me: Member = NOBODY
    first: Configuration = _NOBODY_YET
    """The group's first configuration; nobody in it if this replica joined."""
    awaits_number: bool = False
    """It joined, and has not learned its number, which will be higher than that in `me`."""
    numbers: set[EntryId] = attrs.field(factory=set)
    """All that it has ever had. What was promised under any of them is kept here."""
    number: int = 0
    """Tells this disk from those that the node had before, which are gone with all that they held."""

    def __attrs_post_init__(self) -> None:
        self.numbers.add(self.me.replica)

    def write(self, write: Write) -> None:
        """Make one write durable.

        Raises:
            InvariantError: it does not fit what is there.
        """
        if write.hard_state is not None:
            self.hard_state = write.hard_state
        if write.me is not None:
            self.me, self.awaits_number = write.me, False
            self.numbers.add(write.me.replica)
        if write.install is not None:
            self._refer_to(write.install.at)
            self.log.install(write.install.at, write.install.configuration)
        self.log.write(write.entries)
        if write.compaction is not None:
            self._compact(write.compaction)

    def _compact(self, compaction: Compaction) -> None:
        if compaction.start.index > compaction.snapshot.index:
            raise InvariantError(f"the log is cut at {compaction.start}, behind the snapshot {compaction.snapshot}")
        self._refer_to(compaction.snapshot)
        self.log.compact(compaction.start)
        self.commit = max(self.commit, compaction.commit)
        for at in [at for at in self.files if at.index < compaction.snapshot.index]:
            del self.files[at]

    def _refer_to(self, at: EntryId) -> None:
        if at not in self.files:
            raise InvariantError(f"the log relies on the snapshot {at}, but the files are {[*map(str, self.files)]}")
        self.snapshot = at

    def read(self, load: LoadEntries) -> tuple[Entry, ...]:
        """The entries from ``load.first`` on, as many as fit its limits and at least one; () if the log does not begin so early."""
        if load.first <= self.log.start.index:
            return ()
        taken: list[Entry] = []
        left = load.bytes_max
        for entry in self.log.behind(load.first - 1, load.last):
            left -= len(entry.payload)
            if taken and left < 0:
                break
            taken.append(entry)
        return tuple(taken)

    def recover(self, in_memory: int) -> Durable:
        """What a replica finds when it starts, with this many entries in memory."""
        log = self.log
        return Durable(
            hard_state=self.hard_state,
            entries=tuple(log.entries[max(len(log.entries) - in_memory, 0) :]),
            terms=log.terms(),
            log_bytes=sum(len(entry.payload) for entry in log.entries),
            snapshot=self.snapshot,
            commit=self.commit,
            configurations=tuple(log.configurations),
        )


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
        self.barred: dict[GroupId, EntryId] = {}
        """Replica numbers that were removed here: none up to this comes again."""
        self._created = 0
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

    def create(self, group: GroupId, me: Member, configuration: Configuration, *, awaits_number: bool = False) -> GroupDisk:
        """Make a new replica's place. What an older one has left is gone, and its writes with it."""
        self.remove(group)
        self._created += 1
        log = LogWindow(configurations=[(0, configuration)])
        # Whatever lives the members have now, all of them were there when the group began.
        first = attrs.evolve(configuration, replicas={})
        disk = GroupDisk(log=log, me=me, first=first, awaits_number=awaits_number, number=self._created)
        self.groups[group] = disk
        return disk

    def remove(self, group: GroupId) -> None:
        """Forget a replica, but for its number."""
        removed = self.groups.pop(group, None)
        if removed is not None:
            self.barred[group] = max(self.barred.get(group, NOTHING), removed.me.replica)
        self._queue = [write for write in self._queue if write.group != group]
        self._batch = [write for write in self._batch if write.group != group]

    def write(self, write: Write) -> None:
        self._queue.append(write)
        self.begin()

    def begin(self) -> None:
        """Start on what is queued, unless the disk is busy, full or stopped."""
        if self._begun or not self._queue or self.is_full or self.is_stopped:
            return
        self._batch, self._queue = self._queue, []
        self._begun = self._scheduler.now + 1
        low, high = self.sync_ms
        self._scheduler.call_in(low if low == high else self._random.randint(low, high), self._finish, self._life)

    def _finish(self, life: int) -> None:
        if life != self._life:
            return
        self._begun = 0
        if self.is_full:
            # The write met a full disk: it is kept, in front of what came later, and tried again when there is space.
            self._queue, self._batch = self._batch + self._queue, []
            return
        batch, self._batch = self._batch, []
        newest: dict[GroupId, int] = {}
        for write in batch:
            self._make_durable(write)
            if write.sequence:
                newest[write.group] = write.sequence
        self._told(newest)
        if life == self._life:
            self.begin()

    def _make_durable(self, write: Write) -> None:
        disk = self.group(write.group)
        disk.write(write)
        self._synced(write, disk)

    def sync_age(self) -> Millis:
        """For how long the oldest unfinished write has been with the disk; 0: none."""
        return self._scheduler.now + 1 - self._begun if self._begun else 0

    def crash(self) -> None:
        """Lose what was never synced: the queue, and of the batch in flight all but some prefix of each group's writes."""
        kept = {group: self._random.choice((0, 0, 1, len(self._batch))) for group in sorted({write.group for write in self._batch})}
        for write in self._batch:
            if kept[write.group] > 0:
                kept[write.group] -= 1
                self._make_durable(write)
        self._queue, self._batch = [], []
        self.is_stopped = False
        self._begun = 0
        self._life += 1
