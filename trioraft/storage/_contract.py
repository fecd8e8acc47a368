"""What the floors above hold of a storage. One node has one storage; each group has one `LogStorage` of it.

A write is handed over without waiting and confirmed later, by number; numbers are node-wide and rise in the order of the writes.
Nothing here is thread-safe, and everything that is not ``async`` returns at once without touching the disk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import attrs
import trio

from .._errors import GroupExistsError, StorageError
from .._types import NOTHING, EntryId, GroupId, GroupKey, Member, NodeId
from ..core import Compaction, Configuration, Durable, Entry, HardState, InstallSnapshot, LoadEntries

EVERY_NUMBER: Final = EntryId(1 << 63, 1 << 63)
"""Bars each replica number that there can be."""


@attrs.frozen
class NodeRecord:
    """Who this node is, as its directory says."""

    node_id: NodeId
    cluster_id: str
    store_id: str
    """32 hex digits, random, made once with the directory."""
    incarnation: int
    """Counts starts of this node; this start's number."""


@attrs.frozen
class PeerRecord:
    """What this node durably remembers of another."""

    node_id: NodeId
    store_id: str | None = None
    """The first store id seen for that node id."""
    address: str | None = None
    address_version: int = 0
    """The highest version wins."""


@attrs.frozen
class GroupRecord:
    """The birth certificate of a replica: written, synced, before `create_group` returns."""

    key: GroupKey
    me: Member
    configuration: Configuration
    """The configuration at index 0; without voters for a replica that joined a group which others began."""
    awaits_number: bool = False
    """It joined, and has not learned its replica number: that will be higher than the one in `me`, which is barred."""


@attrs.frozen
class RecoveredGroup:
    """A group as found at start. Exactly one of `record` and `tombstone` is set, unless `failure` is."""

    group_id: GroupId
    record: GroupRecord | None = None
    durable: Durable = Durable()
    """As of the start; its entries are on the disk only, to be read when they are needed."""
    tombstone: GroupKey | None = None
    """The group was removed here; its incarnation."""
    barred: EntryId = NOTHING
    """With a tombstone: replica numbers of that incarnation up to this never come again. A later one may join."""
    failure: StorageError | None = None
    """Damage: the group must not start. It neither votes nor acknowledges."""

    def is_made(self, record: GroupRecord) -> bool:
        """Whether this is just the group that `record` says, so that nothing is left to be made.

        Raises:
            GroupExistsError: what is here stands in the way.
            StorageError: it is damaged: its `failure`.
        """
        if self.failure is not None:
            raise self.failure
        if self.record is not None and self.record != record:
            raise GroupExistsError(f"group {self.record.key} exists here, and not as asked for")
        if self.tombstone is not None and record.key.incarnation <= self.tombstone.incarnation:
            self._check_return(self.tombstone, record)
        return self.record is not None

    def _check_return(self, tombstone: GroupKey, record: GroupRecord) -> None:
        """To a group that was removed here nobody comes back under a number that may have promised something, or without telling."""
        if record.key != tombstone or not record.awaits_number:
            raise GroupExistsError(f"group {tombstone} was removed here; a new one needs a higher incarnation")
        if record.me.replica < self.barred or self.barred == EVERY_NUMBER:
            listed = "all" if self.barred == EVERY_NUMBER else f"those up to {self.barred}"
            raise GroupExistsError(f"group {tombstone} was removed here; of its replica numbers, {listed} are barred on this node")


class WriteListener(Protocol):
    """What a group hears of its writes. Called from the storage's own task, synchronously; must not block or raise."""

    def persisted(self, sequence: int) -> None:
        """All writes of this group up to `sequence` are on stable storage. Called once per finished batch."""

    def storage_failed(self, error: StorageError) -> None:
        """The log is poisoned: nothing that is unconfirmed ever will be confirmed."""

    def space_changed(self, available: bool) -> None:
        """The disk is full (False) or has space again. Unconfirmed writes are kept and confirmed when there is space."""


class LogStorage(ABC):
    """One group's part of the log."""

    @abstractmethod
    def attach(self, listener: WriteListener) -> None:
        """Name who hears of this group's writes. Before the first write. Told at once if the log has failed or the disk is full."""

    @abstractmethod
    def write(
        self,
        sequence: int,
        hard_state: HardState | None,
        entries: Sequence[Entry],
        install: InstallSnapshot | None = None,
        me: Member | None = None,
    ) -> None:
        """Queue one write, which is there as a whole after a crash, or not at all.

        Args:
            me: the number that the replica has learned it has, higher than that in its record; it awaits none from here on.
            install: before `entries`: the log begins behind this snapshot, which `snapshots` has. Entries behind it stay if the log
                holds ``install.at``, else they are gone.
            entries: sealed; the first one replaces everything at and above its index.

        `sequence` comes from `MultiRaftStorage.next_sequence` in the same synchronous stretch. Bounded by the callers' windows and by
        `has_room`. After poisoning: ignored (the listener has been told).
        """

    @abstractmethod
    def compact(self, compaction: Compaction) -> None:
        """Queue that the log is cut, after all writes before it; nobody is told when that is durable.

        What is cut off may be there again after a crash, never half of it. Nothing above ``compaction.start`` is lost. Snapshots older
        than ``compaction.snapshot`` are removed once this is durable, but for those that somebody still reads.
        """

    @abstractmethod
    async def read(self, load: LoadEntries) -> tuple[Entry, ...]:
        """Read confirmed entries from ``load.first`` on, as many as fit its limits and at least one; () if the log was cut there.

        Raises:
            CorruptLogError: what was written is not what is read; names path and offset.
            StorageError: ``io``: the file cannot be read.
        """

    @property
    @abstractmethod
    def snapshots(self) -> SnapshotStorage:
        """The group's snapshots."""


class SnapshotStorage(ABC):
    """The snapshots of one group, as files of bytes named by the entry they reach up to. What is in them is not its concern.

    Files under a temporary name that a crash left are removed when the group's directory is first used in a process.
    """

    @abstractmethod
    async def create(self, at: EntryId) -> SnapshotWriter:
        """Begin a snapshot, under a temporary name. Several may be written at once.

        Raises:
            StorageError: ``full``, ``io``.
        """

    @abstractmethod
    async def open(self, at: EntryId) -> SnapshotReader:
        """Open a whole one for reading.

        Raises:
            StorageError: ``missing``: there is none of that name; ``io``.
        """

    @abstractmethod
    async def remove(self, at: EntryId) -> None:
        """Remove one that no log refers to: an install that was refused. One that is not there is fine."""


class SnapshotWriter(ABC):
    """One snapshot that is being written; one call at a time."""

    @abstractmethod
    async def append(self, data: bytes) -> None:
        """Write on, in a worker thread where that blocks.

        Raises:
            StorageError: ``full``, ``io``: discard it.
        """

    @abstractmethod
    async def commit(self) -> str:
        """Make the snapshot durable under its name, replacing one of the same name; return its path.

        Raises:
            StorageError: ``full``, ``io``: it does not exist.
        *Cancellation:* it exists or not.
        """

    @abstractmethod
    async def discard(self) -> None:
        """Remove what was written. Fine after `commit`, where it does nothing, and when cancelled."""


class SnapshotReader(ABC):
    """One snapshot that is being read: it stays readable until closed, also when a newer one has taken its place."""

    @property
    @abstractmethod
    def path(self) -> str:
        """For messages."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes of the whole file."""

    @abstractmethod
    async def read(self, offset: int, size: int) -> bytes:
        """Read `size` bytes, fewer only at the end.

        Raises:
            StorageError: ``io``.
        """

    @abstractmethod
    def close(self) -> None:
        """Idempotent; never raises."""


class MultiRaftStorage(ABC):
    """A node's durable state, for all its groups."""

    @abstractmethod
    async def open(self, node_id: NodeId, cluster_id: str) -> NodeRecord:
        """Take the directory's lock, read `node.toml` and the whole log, count this start.

        Raises:
            StorageError: ``locked``, ``foreign`` (another node's or cluster's directory), ``unwritable``, ``full``, ``format`` (from the
                future; nothing was touched).
            CorruptLogError: damage that names no group makes *all groups* refuse (`recovered`), not the node; this is raised only for
                ``node.toml`` itself.
        """

    @abstractmethod
    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what groups queue, batch by batch, until cancelled. Returns only by cancellation, also after the log has failed.

        *Cancellation:* a write in flight is waited for, within a bound, and confirmed; then the queue is dropped.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Release the directory. Idempotent; closes also when cancelled."""

    @property
    @abstractmethod
    def recovered(self) -> Mapping[GroupId, RecoveredGroup]:
        """All groups and tombstones, as of `open` and kept up to date by `create_group` and `remove_group`. A group whose removal has begun
        may count as removed.
        """

    @property
    @abstractmethod
    def peers(self) -> Mapping[NodeId, PeerRecord]:
        """What is known of other nodes, kept up to date by `remember_peer`."""

    @abstractmethod
    async def remember_peer(self, record: PeerRecord) -> None:
        """Store durably what is known of a peer; returns after the sync.

        Raises:
            StorageError: it could not be written; the old record stands, and asking again is safe.
        """

    @abstractmethod
    async def create_group(self, record: GroupRecord) -> None:
        """Make a group exist; returns after the sync, which takes `serve` to run. One that exists just so is fine.

        A replica that joins (`GroupRecord.awaits_number`) may follow a tombstone of its own incarnation, if `me` says what that bars.

        Raises:
            GroupExistsError: another group of that id, or a tombstone of that incarnation or a later one, stands in the way.
            CorruptLogError: there is damage that may have held a vote of this very group.
            StorageError: the log has failed.

        *Cancellation:* the group may exist or come to exist; asking again is safe.
        """

    @abstractmethod
    async def remove_group(self, key: GroupKey, barred: EntryId | None = None) -> None:
        """Leave a tombstone and forget the rest; returns after the sync. Heals a damaged group. Its log takes no more writes.

        Args:
            barred: replica numbers up to this never come again in this incarnation. None: up to its own; of a damaged group, whose own
                cannot be relied upon: all.

        The group is gone once the tombstone is durable; its files are removed after that, and what a crash left of them at a later start.
        Of a damaged group it may be unreadable which incarnation it was. The caller names it, and every incarnation up to it, and up to
        any that can be read, is barred: a replica that lost its vote must not come again.

        Raises:
            GroupNotFoundError: the group of that id has another incarnation; of a damaged one: a later one, or one that is later as far as
                can be read, and `barred` was given: a number says nothing of another incarnation.
            StorageError: the log has failed.

        *Cancellation:* as for `create_group`.
        """

    @abstractmethod
    def get_log_storage(self, group_id: GroupId) -> LogStorage:
        """The log of a group that exists and is not damaged; the same object each time.

        Raises:
            GroupNotFoundError: there is no such group.
            StorageError: it is damaged: its `failure`.
        """

    @abstractmethod
    def next_sequence(self) -> int:
        """Draw the next node-wide write number, from 1."""

    @property
    @abstractmethod
    def has_room(self) -> bool:
        """False while more than `queue_bytes_max` waits for the disk, the disk is full, or the log is poisoned: refuse proposals."""

    @property
    @abstractmethod
    def is_full(self) -> bool:
        """The disk has no space: writes wait for some."""

    @abstractmethod
    def sync_age(self) -> float:
        """Seconds for which the oldest unfinished write has been in the hands of the disk; 0.0: none; inf: poisoned."""

    @property
    @abstractmethod
    def sync_count(self) -> int:
        """Syncs of the log since `open`."""
