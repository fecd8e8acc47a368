"""`MemoryStorage`: the contract without a disk, for tests and examples.

It outlives a restart on purpose only: `restart()` is the power cut, and returns the storage that the next process finds.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import attrs
import trio

from .._errors import GroupNotFoundError, InvariantError, RaftError, StorageError
from .._types import NOTHING, EntryId, GroupId, GroupKey, Member, NodeId
from ..core import Compaction, Entry, HardState, InstallSnapshot, LoadEntries
from ._config import MIB
from ._contract import (
    GroupRecord,
    LogStorage,
    MultiRaftStorage,
    NodeRecord,
    PeerRecord,
    RecoveredGroup,
    SnapshotStorage,
    WriteListener,
)
from ._held_log import HeldLog
from ._memory_group import IN_MEMORY, MemoryGroup
from ._memory_snapshots import MemorySnapshots


@attrs.define(eq=False)
class _Metal:
    """What survives: as a disk would have it."""

    node: NodeRecord | None = None
    peers: dict[NodeId, PeerRecord] = attrs.Factory(dict)
    groups: dict[GroupId, MemoryGroup] = attrs.Factory(dict)
    owner: MemoryStorage | None = None


@attrs.define(eq=False)
class _Write:
    group_id: GroupId
    carry_out: Callable[[], None]
    sequence: int | None = None
    """None: its listener does not hear of it."""
    size: int = 0
    done: trio.Event | None = None


class MemoryStorage(MultiRaftStorage):
    """A node's state in memory.

    Args:
        write_seconds: time from the hand-over of a batch to its confirmation.
        queue_bytes_max: `has_room` is False while more than this waits.
    """

    def __init__(
        self, *, write_seconds: float = 0.0, queue_bytes_max: int = 64 * MIB, random_bytes: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._write_seconds, self._queue_bytes_max, self._random_bytes = write_seconds, queue_bytes_max, random_bytes
        self._metal = _Metal()
        self._recovered: dict[GroupId, RecoveredGroup] = {}
        self._listeners: dict[GroupId, WriteListener] = {}
        self._logs: dict[GroupId, _MemoryLog] = {}
        self._queue: list[_Write] = []
        self._batch: list[_Write] = []
        self._queued_bytes = 0
        self._failure: StorageError | None = None
        self._available = True
        self._paused = False
        self._wake = trio.Event()
        self._in_hand_since: float | None = None
        self._sequence = 0
        self._batches = 0

    # -- for tests ----------------------------------------------------------------------------------------------------------------

    def restart(self) -> MemoryStorage:
        """Cut the power: what is not confirmed is lost, this object is dead, and the one returned is to be opened next."""
        following = MemoryStorage(write_seconds=self._write_seconds, queue_bytes_max=self._queue_bytes_max, random_bytes=self._random_bytes)
        following._metal, self._metal = self._metal, _Metal()
        following._metal.owner = None
        # NB: no listener hears of it. The dead hear nothing.
        self._listeners.clear()
        self._failure = StorageError("closed", IN_MEMORY, "the power was cut")
        self._end_waits()
        return following

    def pause(self) -> None:
        """Confirm nothing until `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Let writes be confirmed again."""
        self._paused = False
        self._wake.set()

    def set_space(self, available: bool) -> None:
        """Fill the disk, or make space."""
        if available != self._available:
            self._available = available
            for listener in list(self._listeners.values()):
                listener.space_changed(available)
            self._wake.set()

    def fail(self, error: StorageError) -> None:
        """Poison the log, as a failed sync would."""
        if self._failure is None:
            self._failure = error
            self._end_waits()
            for listener in list(self._listeners.values()):
                listener.storage_failed(error)

    # -- the contract -------------------------------------------------------------------------------------------------------------

    async def open(self, node_id: NodeId, cluster_id: str) -> NodeRecord:
        await trio.lowlevel.checkpoint()
        if self._failure is not None or self._metal.owner is self:
            raise InvariantError("a storage is opened once")
        node = self._metal.node or NodeRecord(node_id, cluster_id, self._random_bytes(16).hex(), 0)
        if (node.node_id, node.cluster_id) != (node_id, cluster_id):
            raise StorageError("foreign", IN_MEMORY, f"belongs to node {node.node_id} of cluster {node.cluster_id!r}")
        self._metal.owner = self
        self._metal.node = attrs.evolve(node, incarnation=node.incarnation + 1)
        self._recovered = {group_id: group.recovered(group_id) for group_id, group in sorted(self._metal.groups.items())}
        return self._metal.node

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._queue and self._available and not self._paused and self._failure is None:
                    await self._commit_batch()
        finally:
            if self._failure is None:
                self._failure = StorageError("closed", IN_MEMORY, "the log was closed before this was written")
            self._end_waits()

    async def _commit_batch(self) -> None:
        self._batch, self._queue = self._queue, []
        self._in_hand_since = trio.current_time()
        try:
            await trio.sleep(self._write_seconds)
        finally:
            self._in_hand_since = None
        batch, self._batch = self._batch, []
        self._batches += bool(batch)
        self._queued_bytes -= sum(write.size for write in batch)
        for write in batch:
            write.carry_out()
            if write.done is not None:
                write.done.set()
        for group_id, sequence in {write.group_id: write.sequence for write in batch if write.sequence is not None}.items():
            listener = self._listeners.get(group_id)
            if listener is not None:
                listener.persisted(sequence)

    def _end_waits(self) -> None:
        for write in (*self._batch, *self._queue):
            if write.done is not None:
                write.done.set()
        self._batch.clear()
        self._queue.clear()
        self._queued_bytes = 0

    async def aclose(self) -> None:
        if self._failure is None:
            self._failure = StorageError("closed", IN_MEMORY, "the storage is closed")
        self._end_waits()
        if self._metal.owner is self:
            self._metal.owner = None
        await trio.lowlevel.checkpoint()

    @property
    def recovered(self) -> Mapping[GroupId, RecoveredGroup]:
        return MappingProxyType(self._recovered)

    @property
    def peers(self) -> Mapping[NodeId, PeerRecord]:
        return MappingProxyType(self._metal.peers)

    async def remember_peer(self, record: PeerRecord) -> None:
        await trio.lowlevel.checkpoint()
        self._metal.peers[record.node_id] = record

    async def create_group(self, record: GroupRecord) -> None:
        def make(before: MemoryGroup) -> MemoryGroup:
            return before if before.recovered(record.key.group_id).is_made(record) else MemoryGroup(record)

        await self._settle(record.key.group_id, make)

    async def remove_group(self, key: GroupKey, barred: EntryId | None = None) -> None:
        def bury(before: MemoryGroup) -> MemoryGroup:
            if before.record is not None and before.record.key != key:
                raise GroupNotFoundError(f"group {key} is not here; {before.record.key} is")
            own = NOTHING if before.record is None else before.record.me.replica
            if before.tombstone is None or (key, barred or NOTHING) > (before.tombstone, before.barred):
                return MemoryGroup(tombstone=key, barred=max(own, barred or NOTHING))
            return before

        log = self._logs.get(key.group_id)
        if log is not None and log.key == key:
            log.is_closed = True
            del self._logs[key.group_id]
            self._listeners.pop(key.group_id, None)
        await self._settle(key.group_id, bury)

    async def _settle(self, group_id: GroupId, change: Callable[[MemoryGroup], MemoryGroup]) -> None:
        """Make another of a group, as a write like any other: it is decided when all that was asked for before has happened."""
        done, refusals = trio.Event(), list[RaftError]()

        def carry_out() -> None:
            before = self._metal.groups.get(group_id)
            try:
                after = change(before or MemoryGroup())
            except RaftError as error:
                refusals.append(error)
                return
            self._metal.groups[group_id] = after
            if after is not before or group_id not in self._recovered:
                self._recovered[group_id] = after.recovered(group_id)

        self._submit(_Write(group_id, carry_out, done=done))
        await done.wait()
        if self._failure is not None:
            raise self._failure
        if refusals:
            raise refusals[0]

    def get_log_storage(self, group_id: GroupId) -> LogStorage:
        found = self._recovered.get(group_id)
        group = self._metal.groups.get(group_id)
        if found is None or found.record is None or group is None or group.record is None:
            raise GroupNotFoundError(f"group {group_id} is not in this storage")
        log = self._logs.get(group_id)
        if log is None:
            log = self._logs[group_id] = _MemoryLog(group.record.key, group.record.me, self, group)
        return log

    def next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    @property
    def has_room(self) -> bool:
        return self._failure is None and self._available and self._queued_bytes <= self._queue_bytes_max

    @property
    def is_full(self) -> bool:
        return not self._available

    def sync_age(self) -> float:
        if self._failure is not None:
            return math.inf
        return 0.0 if self._in_hand_since is None else trio.current_time() - self._in_hand_since

    @property
    def sync_count(self) -> int:
        return self._batches

    # -- for its logs -------------------------------------------------------------------------------------------------------------

    def _submit(self, write: _Write) -> None:
        if self._failure is None:
            self._queue.append(write)
            self._queued_bytes += write.size
            self._wake.set()
        elif write.done is not None:
            write.done.set()

    def _attach(self, group_id: GroupId, listener: WriteListener) -> None:
        self._listeners[group_id] = listener
        if self._failure is not None:
            listener.storage_failed(self._failure)
        elif not self._available:
            listener.space_changed(False)

    def _group(self, key: GroupKey) -> MemoryGroup:
        """A group as it is on the metal.

        Raises:
            StorageError: ``closed``: this storage, or the group, is no more.
        """
        if self._metal.owner is not self:
            raise StorageError("closed", IN_MEMORY, "the storage is closed")
        group = self._metal.groups.get(key.group_id)
        if group is None or group.record is None or group.record.key != key:
            raise StorageError("closed", IN_MEMORY, f"group {key} was removed")
        return group

    def _check_space(self) -> None:
        if not self._available:
            raise StorageError("full", IN_MEMORY, "no space left")


@attrs.define(eq=False)
class _MemoryLog(HeldLog):
    storage: MemoryStorage
    group: MemoryGroup
    """One life of it: another of the same key is another object."""
    _snapshots: MemorySnapshots = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._snapshots = MemorySnapshots(self.key, self._find, self.storage._check_space)

    def _attach(self, listener: WriteListener) -> None:
        self.storage._attach(self.key.group_id, listener)

    def _write(
        self, sequence: int, hard_state: HardState | None, entries: Sequence[Entry], install: InstallSnapshot | None, me: Member | None
    ) -> None:
        if not all(entry.record for entry in entries):
            raise InvariantError(f"an entry of {self.key} was handed to the log unsealed")
        new = tuple(entries)

        def change(group: MemoryGroup) -> None:
            group.write(hard_state, new, install)
            if me is not None:
                group.learn_number(me)

        self._submit(change, sequence, sum(len(entry.record) for entry in new))

    def _compact(self, compaction: Compaction) -> None:
        self._submit(lambda group: group.compact(compaction))

    def _find(self) -> MemoryGroup:
        """Raises once the group is no more, or another life of it is there."""
        if self.is_closed or self.storage._group(self.key) is not self.group:
            raise StorageError("removed", IN_MEMORY, f"group {self.key} was removed")
        return self.group

    def _submit(self, change: Callable[[MemoryGroup], None], sequence: int | None = None, size: int = 0) -> None:
        def carry_out() -> None:
            if self.storage._metal.groups.get(self.key.group_id) is self.group:
                change(self.group)  # else it was removed while this was queued

        self.storage._submit(_Write(self.key.group_id, carry_out, sequence, size))

    async def read(self, load: LoadEntries) -> tuple[Entry, ...]:
        await trio.lowlevel.checkpoint()
        return self._find().read(load)

    @property
    def snapshots(self) -> SnapshotStorage:
        return self._snapshots
