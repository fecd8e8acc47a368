"""What the floors above hold of a storage. One node has one storage; each group has one `LogStorage` of it.

A write is handed over without waiting and confirmed later, by number; numbers are node-wide and rise in the order of the writes.
Nothing here is thread-safe, and everything that is not ``async`` returns at once without touching the disk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs
import trio

from .._errors import StorageError
from .._types import GroupId, GroupKey, Member, NodeId
from ..core import Configuration, Durable, Entry, HardState


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
    """The configuration at index 0."""


@attrs.frozen
class RecoveredGroup:
    """A group as found at start. Exactly one of `record` and `tombstone` is set, unless `failure` is."""

    group_id: GroupId
    record: GroupRecord | None = None
    durable: Durable = Durable()
    tombstone: GroupKey | None = None
    """The group was removed here; its incarnation."""
    failure: StorageError | None = None
    """Damage: the group must not start. It neither votes nor acknowledges."""


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
    def write(self, sequence: int, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Queue one write; its entries are sealed, the first one replaces everything at and above its index.

        `sequence` comes from `MultiRaftStorage.next_sequence` in the same synchronous stretch. Bounded by the callers' windows and by
        `has_room`. After poisoning: ignored (the listener has been told).
        """


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
        """All groups and tombstones, as of `open` and kept up to date by `create_group` and `remove_group`."""

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

        Raises:
            GroupExistsError: another group of that id, or a tombstone of that incarnation or a later one, stands in the way.
            CorruptLogError: there is damage that may have held a vote of this very group.
            StorageError: the log has failed.

        *Cancellation:* the group may exist or come to exist; asking again is safe.
        """

    @abstractmethod
    async def remove_group(self, key: GroupKey) -> None:
        """Leave a tombstone and forget the rest; returns after the sync. Heals a damaged group. Its log takes no more writes.

        Raises:
            GroupNotFoundError: the group of that id has another incarnation.
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
