"""`FileStorage`: everything of a group in its own directory. The simple sibling of `WalStorage`, for a few groups.

::

    raft-data/
      node.toml, lock                   as in any storage
      group-7/
        logs/vote.dat                   who the group is, term and vote, where its log begins: when the newest log file was begun
        logs/entries-00000001.log       what it has written since, one synced batch for each write
        snapshots/1000-3.snap

A write costs one sync, whatever the other groups do: with many groups, that is many syncs where a shared log needs one. A directory
that is gone is a group that never was, with its vote; so nothing in here is to be removed by hand.
"""

from __future__ import annotations

import posixpath
import secrets
from collections.abc import Callable, Mapping
from types import MappingProxyType

import trio

from .._errors import GroupNotFoundError, InvariantError, StorageError
from .._types import EntryId, GroupId, GroupKey, NodeId
from ._batch import IDENTITY_BYTES
from ._config import StorageConfig
from ._contract import GroupRecord, LogStorage, MultiRaftStorage, NodeRecord, PeerRecord, RecoveredGroup
from ._disk import Disk, RealDisk
from ._file_group import FileGroup
from ._file_log import FileLog
from ._file_log_start import read_file_log
from ._file_writers import FileWriters
from ._group_directory import group_directory_name, group_of_directory
from ._log_name import LOG_DIRECTORY as SHARED_LOG_DIRECTORY
from ._node_file import NODE_FILE_NAME, NodeFile
from ._node_home import NodeHome
from ._row import Row
from ._whole_file import remove_leftovers


class FileStorage(MultiRaftStorage):
    """A node's durable state, each group in a directory of its own.

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
        self._home = NodeHome(self._disk, self.config.base_dir)
        self._store_id = b""
        self._groups: dict[GroupId, FileGroup] = {}
        self._recovered: dict[GroupId, RecoveredGroup] = {}
        self._sequence = 0
        self._writers = FileWriters(self.config, self._disk)

    # -- open and close -----------------------------------------------------------------------------------------------------------

    async def open(self, node_id: NodeId, cluster_id: str) -> NodeRecord:
        with self._home.opening():
            return await self._open(node_id, cluster_id)

    async def _open(self, node_id: NodeId, cluster_id: str) -> NodeRecord:
        # First everything that only reads: what is foreign, damaged or from the future stays as it is.
        base_dir = self.config.base_dir
        node_file = await self._home.take(node_id, cluster_id)
        names = await self._disk.list_directory(base_dir)
        group_ids = [group_id for name in names if (group_id := group_of_directory(name)) is not None]
        if SHARED_LOG_DIRECTORY in names:
            raise StorageError("foreign", posixpath.join(base_dir, SHARED_LOG_DIRECTORY), "a shared log: WalStorage keeps its data here")
        if node_file is None and group_ids:
            text = f"groups without their {NODE_FILE_NAME}: put it back, or remove the whole directory and add this node's replicas anew"
            raise StorageError("foreign", base_dir, text)
        node_file = node_file or NodeFile(NodeRecord(node_id, cluster_id, self._random_bytes(IDENTITY_BYTES).hex(), 0))
        store_id = bytes.fromhex(node_file.record.store_id)
        found = {group_id: self._group(group_id, store_id) for group_id in group_ids}
        cuts = {group_id: await read_file_log(self._disk, group.log, group_id) for group_id, group in found.items()}
        # From here on things change, in an order that a crash may end anywhere.
        await remove_leftovers(self._disk, base_dir)
        for group_id, group in found.items():
            await self._prepare(group, cuts[group_id])
        record = await self._home.count_start(node_file)
        self._store_id, self._groups = store_id, found
        for group in found.values():
            self._writers.add(group)
            self._settle(group)
        return record

    def _group(self, group_id: GroupId, store_id: bytes) -> FileGroup:
        path = posixpath.join(self.config.base_dir, group_directory_name(group_id))
        log = FileLog(
            posixpath.join(path, "logs"),
            store_id,
            Row(group_id),
            self.config.max_log_file_size,
            self.config.sync_on_write,
            lambda: self._random_bytes(IDENTITY_BYTES),
        )
        return FileGroup(self._writers, self._disk, path, log, self.config.batch_bytes_max, self._settle)

    def _settle(self, group: FileGroup) -> None:
        """A group was found, made or removed."""
        row = group.log.row
        if row.key is not None or row.failure is not None:
            self._recovered[row.group_id] = row.recovered()

    async def _prepare(self, group: FileGroup, cut: int | None) -> None:
        """Make a group that was read ready to go on; one that is damaged stays as it is."""
        log = group.log
        if log.row.failure is not None:
            return
        if log.row.record is None:
            if log.row.tombstone is not None:
                # Its name may not be durable yet. What it supersedes must not go before it is.
                await self._disk.sync_directory(log.directory)
            await group.remove_files(self._disk)
            return
        if cut is not None:
            file = await self._disk.open(log.path_of(log.files[-1]))
            try:
                await self._disk.truncate(file, cut)
            finally:
                self._disk.close(file)
        await remove_leftovers(self._disk, log.directory)
        # The newest names may not be durable: whoever made them may have been killed before the sync.
        await self._disk.sync_directory(log.directory)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self._writers.serve(task_status)

    async def aclose(self) -> None:
        writers, logs = self._writers, [group.log for group in self._groups.values()]
        writers.fail(StorageError("closed", self.config.base_dir, "the storage is closed"))
        # Without sync_on_write, an orderly end is still worth a sync. After a failed sync there is no second one.
        if writers.failure is not None and writers.failure.kind == "closed":
            await writers.sync_all(logs)
        if not writers.is_hung:
            for log in logs:
                log.close(self._disk)
            self._home.leave()
        # else: a thread may still be writing. Its file and the lock stay until the process ends.
        await trio.lowlevel.checkpoint()

    # -- groups and peers ---------------------------------------------------------------------------------------------------------

    @property
    def recovered(self) -> Mapping[GroupId, RecoveredGroup]:
        return MappingProxyType(self._recovered)

    @property
    def peers(self) -> Mapping[NodeId, PeerRecord]:
        return self._home.peers

    async def remember_peer(self, record: PeerRecord) -> None:
        await self._home.remember_peer(record)

    async def create_group(self, record: GroupRecord) -> None:
        await trio.lowlevel.checkpoint()
        await self._some_group(record.key.group_id).make(record)

    async def remove_group(self, key: GroupKey, barred: EntryId | None = None) -> None:
        await trio.lowlevel.checkpoint()
        await self._some_group(key.group_id).remove(key, barred, self._home.node_id)

    def _some_group(self, group_id: GroupId) -> FileGroup:
        if not self._store_id:
            raise InvariantError("the storage is not open")
        group = self._groups.get(group_id)
        if group is None:
            group = self._groups[group_id] = self._group(group_id, self._store_id)
            self._writers.add(group)
        return group

    def get_log_storage(self, group_id: GroupId) -> LogStorage:
        found = self._recovered.get(group_id)
        if found is not None and found.failure is not None:
            raise found.failure
        if found is None or found.record is None:
            raise GroupNotFoundError(f"group {group_id} is not in this storage")
        return self._groups[group_id].hold(found.record)

    # -- writes -------------------------------------------------------------------------------------------------------------------

    def next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    @property
    def has_room(self) -> bool:
        writers = self._writers
        return writers.failure is None and not writers.is_full and writers.queued_bytes <= self.config.queue_bytes_max

    @property
    def is_full(self) -> bool:
        return self._writers.is_full

    def sync_age(self) -> float:
        return self._writers.sync_age()

    @property
    def sync_count(self) -> int:
        return sum(group.log.syncs for group in self._groups.values())
