"""`WalStorage`: one log, one lock, one `node.toml` for all groups of a node."""

from __future__ import annotations

import posixpath
import secrets
from collections.abc import Callable, Iterator, Mapping

import attrs
import trio

from .._errors import GroupNotFoundError, InvariantError, StorageError
from .._types import EntryId, GroupId, GroupKey, Member, NodeId
from ._batch import IDENTITY_BYTES
from ._bounded_disk import BoundedDisk
from ._cleaner import Cleaner
from ._committer import Committer
from ._config import StorageConfig
from ._contract import GroupRecord, LogStorage, MultiRaftStorage, NodeRecord, PeerRecord, RecoveredGroup
from ._disk import Disk, RealDisk
from ._group_directory import GroupDirectories
from ._group_log import GroupLog
from ._group_marks import GroupMarks
from ._log_file import LogEnd, LogFile
from ._log_name import LOG_DIRECTORY, log_name
from ._log_reader import LogReader
from ._node_file import NODE_FILE_NAME, NodeFile, write_node_file
from ._node_home import NodeHome
from ._recovery import Recovery, recover
from ._row import Row, Tombstone
from ._segment import encode_group, encode_tombstone
from ._table import Table
from ._whole_file import remove_leftovers


class WalStorage(MultiRaftStorage):
    """A node's durable state in one directory, with one log that all groups share.

    Args:
        disk: what it goes through to the file system; a simulated one in tests.
        random_bytes: makes the store id and the identities of files.
    """

    def __init__(
        self, config: StorageConfig | None = None, disk: Disk | None = None, *, random_bytes: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self.config = StorageConfig() if config is None else config
        self._disk: Disk = RealDisk() if disk is None else disk
        self._random_bytes = random_bytes
        self._log_directory = posixpath.join(self.config.base_dir, LOG_DIRECTORY)
        self._home = NodeHome(self._disk, self.config.base_dir)
        self._log: LogFile | None = None
        self._committer: Committer | None = None
        self._cleaner: Cleaner | None = None
        self._bounded_disk = BoundedDisk(self._disk, self.config.shutdown_write_timeout)
        self._table = Table(self._log_directory)
        self._reader = LogReader(self._disk, self._table)
        self._directories: GroupDirectories | None = None
        self._logs: dict[GroupId, GroupLog] = {}
        self._marks = GroupMarks(lambda group_id: self._group_directories().leave(group_id))
        self._sequence = 0

    # -- open and close -----------------------------------------------------------------------------------------------------------

    async def open(self, node_id: NodeId, cluster_id: str) -> NodeRecord:
        with self._home.opening():
            return await self._open(node_id, cluster_id)

    async def _open(self, node_id: NodeId, cluster_id: str) -> NodeRecord:
        # First everything that only reads: what is foreign, damaged or from the future stays as it is.
        base_dir = self.config.base_dir
        found = await self._home.take(node_id, cluster_id)
        if found is not None and found.record.incarnation > 0 and found.log_file == 0:
            # A shared log is there from the first start on. Opened as empty, it would forget the votes of all groups.
            text = "the directory has been in use without a shared log: open it with FileStorage"
            raise StorageError("foreign", self._home.path, text)
        if found is None and LOG_DIRECTORY in await self._disk.list_directory(base_dir):
            text = f"a log without its {NODE_FILE_NAME}: put it back, or remove the whole directory and add this node's replicas anew"
            raise StorageError("foreign", posixpath.join(base_dir, LOG_DIRECTORY), text)
        node_file = found or NodeFile(NodeRecord(node_id, cluster_id, self._random_bytes(IDENTITY_BYTES).hex(), 0))
        least = LogEnd(node_file.log_batch, node_file.log_file)
        recovery = await recover(self._disk, self._log_directory, bytes.fromhex(node_file.record.store_id), least=least)
        # From here on things change, in an order that a crash may end anywhere.
        await remove_leftovers(self._disk, base_dir)
        if found is None:
            # Before the log: a log without a node file is refused above.
            await write_node_file(self._disk, base_dir, node_file)
        await self._prepare_log(recovery, node_file)
        await self._prepare_cleaner(node_file)
        end = self._log_file().end
        return await self._home.count_start(attrs.evolve(node_file, log_file=end.number, log_batch=end.sequence))

    async def _prepare_log(self, recovery: Recovery, node_file: NodeFile) -> None:
        self._table = recovery.table
        self._reader = LogReader(self._disk, self._table)
        await self._disk.make_directory(self._log_directory)
        await remove_leftovers(self._disk, self._log_directory)
        if recovery.cut is not None:
            file = await self._disk.open(posixpath.join(self._log_directory, log_name(recovery.end.number)))
            try:
                await self._disk.truncate(file, recovery.cut)
            finally:
                self._disk.close(file)
        # The newest file's name may not be durable: whoever made it may have been killed before the sync.
        await self._disk.sync_directory(self._log_directory)
        self._log = LogFile(
            disk=self._disk.abandoning(),
            directory=self._log_directory,
            store_id=bytes.fromhex(node_file.record.store_id),
            file_size_max=self.config.max_log_file_size,
            sync_on_write=self.config.sync_on_write,
            end=recovery.end,
            make_identity=lambda: self._random_bytes(IDENTITY_BYTES),
        )
        if recovery.end.number == 0:
            with trio.CancelScope(shield=True):
                await self._log.start_file()
            self._table.add_file(self._log.end.number)

    async def _prepare_cleaner(self, node_file: NodeFile) -> None:
        base_dir, log, table, disk = self.config.base_dir, self._log_file(), self._table, self._bounded_disk
        self._directories = directories = GroupDirectories(disk, base_dir, bytes.fromhex(node_file.record.store_id))
        removed = {group_id: row.failure is None and row.record is None for group_id, row in table.rows.items()}
        directories.find_leftovers(await self._disk.list_directory(base_dir), removed)
        self._committer = committer = Committer(log, table, self.config)
        self._cleaner = cleaner = Cleaner(disk, log, table, committer, self._reader, directories)
        committer.on_new_file = cleaner.wake

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        committer = self._opened()
        try:
            async with trio.open_nursery() as nursery:
                if self._cleaner is not None:
                    nursery.start_soon(self._bounded_disk.bound, self._cleaner.serve)
                await committer.serve(task_status)
        finally:
            committer.hung = committer.hung or self._bounded_disk.hung

    async def aclose(self) -> None:
        self._reader.close()
        await self._close_log()
        if not self._is_hung():
            self._home.leave()
        # else: a thread may still be writing. Its file and the lock stay until the process ends.
        await trio.lowlevel.checkpoint()

    async def _close_log(self) -> None:
        if self._log is None or self._committer is None or self._is_hung():
            return
        self._committer.fail(StorageError("closed", self.config.base_dir, "the storage is closed"))
        if self._committer.failure is not None and self._committer.failure.kind == "closed":
            # Without sync_on_write, an orderly end is still worth a sync. After a failed sync there is no second one.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self.config.shutdown_write_timeout) as scope:
                try:
                    await self._log.sync()
                except OSError:
                    pass  # nothing was promised
            if scope.cancelled_caught:
                self._committer.hung = True
                return
        self._log.close()

    def _is_hung(self) -> bool:
        return self._committer is not None and self._committer.hung

    # -- groups -------------------------------------------------------------------------------------------------------------------

    @property
    def recovered(self) -> Mapping[GroupId, RecoveredGroup]:
        return _Recovered(self._table, self._marks)

    async def create_group(self, record: GroupRecord) -> None:
        group_id = record.key.group_id
        directories = self._group_directories()
        is_empty = False
        while True:
            await self._marks.wait_for_others(group_id, record)
            if self._is_made(record):
                return
            if is_empty and group_id not in directories.leftovers:
                break
            # What an earlier replica left must not be taken for this one's.
            await directories.remove(group_id)
            is_empty = True
        await self._marks.write(self._opened(), record, encode_group(record))

    def _is_made(self, record: GroupRecord) -> bool:
        """Whether a group exists already, just so; raises if anything is in the way."""
        if not self._table.may_make(record.key.group_id) and self._table.damage is not None:
            raise self._table.damage
        row = self._table.rows.get(record.key.group_id)
        return row is not None and row.recovered().is_made(record)

    async def remove_group(self, key: GroupKey, barred: EntryId | None = None) -> None:
        group_id = key.group_id
        await self._marks.wait_for_others(group_id)
        row = self._table.rows.get(group_id) or self._nobody(group_id)
        if row.bars(key, barred):
            return
        tombstone = row.grave(key, barred, self._seen(row))
        log = self._logs.pop(group_id, None)
        if log is not None:
            log.is_closed = True
        self._opened().detach(group_id)
        await self._marks.write(self._opened(), tombstone, encode_tombstone(tombstone.key, Member(self._home.node_id, tombstone.barred)))
        try:
            await self._group_directories().remove(group_id)
        except StorageError:
            pass  # it is tried again later; the group is gone all the same

    def _nobody(self, group_id: GroupId) -> Row:
        """A group of which nothing is known: unless it was in what cannot be read, it never was here."""
        row = Row(group_id)
        if self._table.damage is not None:
            row.fail(self._table.damage)
        return row

    def _seen(self, row: Row) -> Tombstone:
        """The newest life of a group that anything names, be it written or still on its way to the log."""
        seen, log = self._table.seen(row.group_id), self._logs.get(row.group_id)
        return seen if log is None or log.row is not row else max(seen, Tombstone(log.key, log.me.replica))

    def get_log_storage(self, group_id: GroupId) -> LogStorage:
        row = self._table.rows.get(group_id)
        is_going = self._marks.removal(group_id) is not None
        if row is not None and row.failure is not None and not is_going:
            raise row.failure
        if row is None or row.record is None or is_going:
            raise GroupNotFoundError(f"group {group_id} is not in this storage")
        log = self._logs.get(group_id)
        if log is None or log.row is not row:
            key, me = row.record.key, row.record.me
            directory = self._group_directories().of(key)
            log = GroupLog(key, me, row, self._opened(), self._table, self._reader, directory, lambda: self._tidy(group_id))
            self._logs[group_id] = log
        return log

    def _tidy(self, group_id: GroupId) -> None:
        if self._cleaner is not None:
            self._cleaner.tidy(group_id)

    # -- peers --------------------------------------------------------------------------------------------------------------------

    @property
    def peers(self) -> Mapping[NodeId, PeerRecord]:
        return self._home.peers

    async def remember_peer(self, record: PeerRecord) -> None:
        await self._home.remember_peer(record)

    # -- writes -------------------------------------------------------------------------------------------------------------------

    def next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    @property
    def has_room(self) -> bool:
        committer = self._opened()
        return committer.failure is None and not committer.is_full and committer.queued_bytes <= self.config.queue_bytes_max

    @property
    def is_full(self) -> bool:
        return self._opened().is_full

    def sync_age(self) -> float:
        return self._opened().sync_age()

    @property
    def sync_count(self) -> int:
        return self._log_file().syncs

    # -- what is there only once open ---------------------------------------------------------------------------------------------

    def _opened(self) -> Committer:
        if self._committer is None:
            raise InvariantError("the storage is not open")
        return self._committer

    def _log_file(self) -> LogFile:
        if self._log is None:
            raise InvariantError("the storage is not open")
        return self._log

    def _group_directories(self) -> GroupDirectories:
        if self._directories is None:
            raise InvariantError("the storage is not open")
        return self._directories


class _Recovered(Mapping[GroupId, RecoveredGroup]):
    """The table, as the floors above see it: each group is put together when somebody asks."""

    def __init__(self, table: Table, marks: GroupMarks) -> None:
        self._rows, self._marks = table.rows, marks

    def __getitem__(self, group_id: GroupId) -> RecoveredGroup:
        row, tombstone = self._rows[group_id], self._marks.removal(group_id)
        return row.recovered() if tombstone is None else RecoveredGroup(group_id, tombstone=tombstone.key, barred=tombstone.barred)

    def __contains__(self, group_id: object) -> bool:
        return group_id in self._rows

    def __iter__(self) -> Iterator[GroupId]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
