"""One group of `FileStorage`: a queue, and a worker while there is something in it.

All that happens to the group goes through the queue, in the order in which it came: writes, which become one batch as far as they fit;
and *deeds*, which stand alone: making the group, removing it. So nothing is written between a removal and its tombstone.
"""

from __future__ import annotations

import posixpath
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from .._errors import CorruptLogError, RaftError, StorageError
from .._types import NOTHING, EntryId, GroupKey, Member, NodeId
from ..core import Compaction, Entry, HardState, InstallSnapshot, LoadEntries
from ._batch import BadBytesError
from ._contract import GroupRecord, SnapshotStorage, WriteListener
from ._disk import Disk
from ._file_log import FileLog, encode_one_write, file_number
from ._file_writers import FileWriters
from ._folder import Folder
from ._held_log import HeldLog
from ._row import Row, Tombstone
from ._segment import encode_compacted
from ._snapshot_files import SNAPSHOT_DIRECTORY, SnapshotFiles, snapshot_id
from ._whole_file import TEMPORARY_SUFFIX


@attrs.define(eq=False)
class _Deed:
    """Something that somebody waits for. Whoever waits may leave; it is done all the same."""

    act: Callable[[Disk], Awaitable[None]]
    _over: trio.Event = attrs.Factory(trio.Event)
    _error: RaftError | None = None

    async def wait(self) -> None:
        await self._over.wait()
        if self._error is not None:
            raise self._error

    def end(self, error: RaftError | None = None) -> None:
        self._error = error
        self._over.set()


@attrs.frozen(eq=False)
class _Write:
    data: bytes
    """Segments."""
    sequence: int | None = None
    """None: the listener does not hear of it."""


@attrs.define(eq=False)
class FileGroup:
    """All that there is of one group id in this process."""

    writers: FileWriters
    disk: Disk
    """For reading, and for snapshots."""
    path: str
    log: FileLog
    batch_bytes_max: int
    on_settled: Callable[[FileGroup], None]
    """Called when it was made or removed."""
    listener: WriteListener | None = None
    held: GroupLog | None = None
    """What was given out for the group that lives here."""
    is_working: bool = False
    _queue: deque[_Write | _Deed] = attrs.Factory(deque)
    _writes: list[_Write] = attrs.Factory(list)
    """The batch on its way."""

    # -- the queue ----------------------------------------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        return bool(self._queue)

    def submit(self, item: _Write | _Deed) -> None:
        self._queue.append(item)
        if isinstance(item, _Write):
            self.writers.queued_bytes += len(item.data)
        self.writers.wake(self)

    async def work(self) -> None:
        """Empty the queue. What is left when the storage has failed, or is cancelled, is for `drop`."""
        try:
            while self._queue:
                first = self._queue[0]
                if isinstance(first, _Deed):
                    await self._do(first)
                else:
                    await self._write_batch()
        finally:
            self.is_working = False

    def drop(self, error: StorageError) -> None:
        """Nothing that waits will be done."""
        for item in (*self._writes, *self._queue):
            if isinstance(item, _Deed):
                item.end(error)
            else:
                self.writers.queued_bytes -= len(item.data)
        self._queue.clear()
        self._writes.clear()

    # -- writes -------------------------------------------------------------------------------------------------------------------

    async def _write_batch(self) -> None:
        """As many writes as fit into one batch, and one at least."""
        size = 0
        while self._queue and isinstance(item := self._queue[0], _Write) and (not size or size + len(item.data) <= self.batch_bytes_max):
            self._writes.append(item)
            self._queue.popleft()
            size += len(item.data)
        before = self.log.row.terms.start, self.log.row.snapshot
        if await self.writers.carry_out(self, self._commit) and before != (self.log.row.terms.start, self.log.row.snapshot):
            await self.writers.carry_out(self, self._tidy)

    async def _commit(self, disk: Disk) -> None:
        row = self.log.row
        if row.is_living:  # else it was removed, or has failed, since this was queued
            try:
                await self.log.append(disk, [write.data for write in self._writes])
            except BadBytesError as error:
                # What was written cannot be. This group is at an end, and no other one.
                row.fail(CorruptLogError(self.log.path_of(self.log.files[-1]), self.log.size, str(error)))
                if self.listener is not None and row.failure is not None:
                    self.listener.storage_failed(row.failure)
        writes, self._writes = self._writes, []
        self.writers.queued_bytes -= sum(len(write.data) for write in writes)
        sequences = [write.sequence for write in writes if write.sequence is not None]
        if sequences and self.listener is not None and row.is_living:
            self.listener.persisted(sequences[-1])

    async def _tidy(self, disk: Disk) -> None:
        """The log was cut: files that nobody needs any more go. What cannot be removed now goes the next time."""
        await self.log.remove_unneeded(disk)
        if self.held is not None:
            try:
                await self.held.files.prune(self.log.row.snapshot)
            except StorageError:
                pass

    # -- deeds --------------------------------------------------------------------------------------------------------------------

    async def make(self, record: GroupRecord) -> None:
        """Make the group, unless it is there just so; returns when that is durable."""
        deed = _Deed(lambda disk: self._make(disk, record))
        self.submit(deed)
        await deed.wait()

    async def remove(self, key: GroupKey, barred: EntryId | None, node_id: NodeId) -> None:
        """Put a tombstone in its place; returns when that is durable."""
        if self.held is not None and (self.held.key == key or self.log.row.failure is not None):
            # NB: at once. What came behind the tombstone in the queue could come behind the beginning of another life, too.
            self.held.is_closed = True
        deed = _Deed(lambda disk: self._bury(disk, key, barred, node_id))
        self.submit(deed)
        await deed.wait()

    async def _do(self, deed: _Deed) -> None:
        refusal: list[RaftError] = []

        async def act(disk: Disk) -> None:
            try:
                await deed.act(disk)
            except RaftError as error:
                refusal.append(error)

        if await self.writers.carry_out(self, act):
            self.on_settled(self)
            if self._queue:  # else the storage has failed meanwhile, and whoever waits was told so
                self._queue.popleft()
                deed.end(refusal[0] if refusal else None)

    async def _make(self, disk: Disk, record: GroupRecord) -> None:
        if not self.log.row.recovered().is_made(record):
            await self.remove_files(disk)
            await disk.make_directory(self.log.directory)
            log = self.log.emptied(Row.living(record))
            await log.start_file(disk)
            # It exists once this is there.
            await log.write_vote(disk)
            self.log = log

    async def _bury(self, disk: Disk, key: GroupKey, barred: EntryId | None, node_id: NodeId) -> None:
        row = self.log.row
        if row.bars(key, barred):
            return
        tombstone = row.grave(key, barred, self._seen())
        await disk.make_directory(self.log.directory)
        log = self.log.emptied(Row.removed(tombstone, node_id))
        await log.write_vote(disk)
        self.log.close(disk)
        self.log, self.listener = log, None
        try:
            await self.remove_files(disk)
        except OSError:
            pass  # gone it is; its files go at a later start, or before a new group takes the place

    def _seen(self) -> Tombstone:
        """The newest life that anything names, be it written or dropped when the group failed."""
        seen = self.log.seen or Tombstone(GroupKey(self.log.row.group_id, 0), NOTHING)
        return seen if self.held is None else max(seen, Tombstone(self.held.key, self.held.me.replica))

    async def remove_files(self, disk: Disk) -> None:
        """Remove, durably, what is left of a group that is no more, but for its tombstone."""
        if self.held is not None:
            # Whoever still writes for it, or a snapshot of it, is refused from here on.
            self.held.is_closed = True
            await self.held.files.folder.aclose()
            self.held = None
        for directory, is_ours in ((self.log.directory, _is_log), (posixpath.join(self.path, SNAPSHOT_DIRECTORY), _is_snapshot)):
            try:
                names = [name for name in await disk.list_directory(directory) if is_ours(name)]
            except FileNotFoundError:
                continue
            for name in names:
                await disk.remove(posixpath.join(directory, name))
            if names:
                await disk.sync_directory(directory)

    def hold(self, record: GroupRecord) -> GroupLog:
        """What is given out for the group that lives here; the same object each time."""
        if self.held is None:
            files = SnapshotFiles(Folder(self.disk, posixpath.join(self.path, SNAPSHOT_DIRECTORY)))
            self.held = GroupLog(record.key, self.log.row.me or record.me, self, files)
        return self.held


def _is_log(name: str) -> bool:
    return file_number(name) is not None or name.endswith(TEMPORARY_SUFFIX)


def _is_snapshot(name: str) -> bool:
    return snapshot_id(name) is not None or name.endswith(TEMPORARY_SUFFIX)


@attrs.define(eq=False)
class GroupLog(HeldLog):
    """What a driver holds of its group."""

    group: FileGroup
    files: SnapshotFiles

    def _attach(self, listener: WriteListener) -> None:
        self.group.listener = listener
        self.group.writers.greet(listener)

    def _write(
        self, sequence: int, hard_state: HardState | None, entries: Sequence[Entry], install: InstallSnapshot | None, me: Member | None
    ) -> None:
        self.group.submit(_Write(encode_one_write(self.key, hard_state, entries, install, me), sequence))

    def _compact(self, compaction: Compaction) -> None:
        self.group.submit(_Write(encode_compacted(self.key, compaction)))

    async def read(self, load: LoadEntries) -> tuple[Entry, ...]:
        log = self.group.log
        self._check_there(log.directory)
        if log.row.failure is not None:
            raise log.row.failure
        try:
            found = await log.read(self.group.disk, load)
        except StorageError:
            self._check_there(log.directory)
            raise
        # Another life may be in its place by now: what was read would mean nothing.
        self._check_there(log.directory)
        return found

    def _check_there(self, path: str) -> None:
        if self.is_closed:
            raise StorageError("removed", path, f"group {self.key} was removed")

    @property
    def snapshots(self) -> SnapshotStorage:
        return self.files
