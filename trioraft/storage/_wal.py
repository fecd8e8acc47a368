"""`WalStorage`: one log, one lock, one `node.toml` for all groups of a node."""

from __future__ import annotations

import posixpath
import secrets
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import attrs
import trio

from .._errors import ConfigError, CorruptLogError, GroupExistsError, GroupNotFoundError, InvariantError, StorageError
from .._types import GroupId, GroupKey, Member, NodeId
from ..core import Entry, HardState
from ._batch import IDENTITY_BYTES, WRITE_BYTES_MAX, encode_group, encode_tombstone, encode_write
from ._committer import Committer, Mark
from ._config import StorageConfig
from ._contract import GroupRecord, LogStorage, MultiRaftStorage, NodeRecord, PeerRecord, RecoveredGroup, WriteListener
from ._disk import Disk, DiskFile, NoSpaceError, RealDisk
from ._lock import lock_directory, unusable
from ._log_file import LOG_DIRECTORY, LogEnd, LogFile, log_name
from ._node_file import NODE_FILE_NAME, NodeFile, read_node_file, remove_leftovers, write_node_file
from ._recovery import Recovery, recover


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
        self._lock: DiskFile | None = None
        self._node_file: NodeFile | None = None
        self._node_file_turn = trio.Lock()
        self._log: LogFile | None = None
        self._committer: Committer | None = None
        self._recovered: dict[GroupId, RecoveredGroup] = {}
        self._damage: CorruptLogError | None = None
        self._healed: set[GroupId] = set()
        self._logs: dict[GroupId, _GroupLog] = {}
        self._marks: dict[GroupId, tuple[GroupRecord | GroupKey, Mark]] = {}
        self._sequence = 0

    # -- open and close -----------------------------------------------------------------------------------------------------------

    async def open(self, node_id: NodeId, cluster_id: str) -> NodeRecord:
        if self._lock is not None or self._committer is not None:
            raise InvariantError("a storage is opened once")
        if not cluster_id.isprintable():
            raise ConfigError(f"cluster_id must be printable text, not {cluster_id!r}")
        self._lock = await lock_directory(self._disk, self.config.base_dir)
        try:
            return await self._open(node_id, cluster_id)
        except OSError as error:
            self._release()
            raise unusable(error.filename or self.config.base_dir, error) from error
        except BaseException:
            self._release()
            raise

    async def _open(self, node_id: NodeId, cluster_id: str) -> NodeRecord:
        # First everything that only reads: what is foreign, damaged or from the future stays as it is.
        base_dir = self.config.base_dir
        found = await read_node_file(self._disk, base_dir)
        if found is not None:
            self._check_owner(found.record, node_id, cluster_id)
        elif LOG_DIRECTORY in await self._disk.list_directory(base_dir):
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
        self._committer = Committer(self._log_file(), self.config)
        self._recovered = dict(recovery.groups)
        self._damage, self._healed = recovery.damage, set(recovery.healed)
        record = attrs.evolve(node_file.record, incarnation=node_file.record.incarnation + 1)
        end = self._log_file().end
        self._node_file = attrs.evolve(node_file, record=record, log_file=end.number, log_batch=end.sequence)
        await write_node_file(self._disk, base_dir, self._node_file)
        return record

    def _check_owner(self, record: NodeRecord, node_id: NodeId, cluster_id: str) -> None:
        path = posixpath.join(self.config.base_dir, NODE_FILE_NAME)
        if record.cluster_id != cluster_id:
            text = f"the directory belongs to cluster {record.cluster_id!r}, this is cluster {cluster_id!r}"
            raise StorageError("foreign", path, text)
        if record.node_id != node_id:
            raise StorageError("foreign", path, f"the directory belongs to node {record.node_id}, this is node {node_id}")

    async def _prepare_log(self, recovery: Recovery, node_file: NodeFile) -> None:
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

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self._opened().serve(task_status)

    async def aclose(self) -> None:
        await self._close_log()
        if not self._is_hung():
            self._release()
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

    def _release(self) -> None:
        if self._lock is not None:
            self._disk.close(self._lock)
            self._lock = None

    # -- groups -------------------------------------------------------------------------------------------------------------------

    @property
    def recovered(self) -> Mapping[GroupId, RecoveredGroup]:
        return MappingProxyType(self._recovered)

    async def create_group(self, record: GroupRecord) -> None:
        group_id = record.key.group_id
        await self._wait_for_other_marks(group_id, record)
        if self._damage is not None and group_id not in self._healed:
            # Among what cannot be read there may be a vote of this group.
            raise self._damage
        found = self._recovered.get(group_id)
        if found is not None and found.failure is not None:
            raise found.failure
        if found is not None and found.record is not None:
            if found.record != record:
                raise GroupExistsError(f"group {found.record.key} exists here, and not as asked for")
            return
        if found is not None and found.tombstone is not None and record.key.incarnation <= found.tombstone.incarnation:
            raise GroupExistsError(f"group {found.tombstone} was removed here; a new one needs a higher incarnation")
        await self._write_mark(record, encode_group(record), RecoveredGroup(group_id, record))

    async def remove_group(self, key: GroupKey) -> None:
        await self._wait_for_other_marks(key.group_id, key)
        found = self._recovered.get(key.group_id)
        if found is not None and found.tombstone is not None and found.tombstone.incarnation >= key.incarnation:
            return
        if found is not None and found.record is not None and found.record.key != key:
            raise GroupNotFoundError(f"group {key} is not here; {found.record.key} is")
        log = self._logs.pop(key.group_id, None)
        if log is not None:
            log.is_closed = True
        self._opened().detach(key.group_id)
        me = found.record.me if found is not None and found.record is not None else Member(self._node().record.node_id)
        await self._write_mark(key, encode_tombstone(key, me), RecoveredGroup(key.group_id, tombstone=key))

    async def _wait_for_other_marks(self, group_id: GroupId, subject: GroupRecord | GroupKey) -> None:
        """What was begun for a caller that left is finished first: a replica is never made between a removal and its tombstone."""
        await trio.lowlevel.checkpoint()
        while (under_way := self._marks.get(group_id)) is not None and under_way[0] != subject:
            await under_way[1].wait()

    async def _write_mark(self, subject: GroupRecord | GroupKey, data: bytes, outcome: RecoveredGroup) -> None:
        """Write a mark and wait for it; one that is on its way already, for a caller that left, is waited for."""
        group_id = outcome.group_id
        under_way = self._marks.get(group_id)
        if under_way is not None and under_way[0] == subject:
            mark = under_way[1]
        else:
            mark = Mark(lambda: self._settle_mark(mark, outcome))
            self._marks[group_id] = (subject, mark)
            self._opened().submit(group_id, data, mark=mark)
        await mark.wait()

    def _settle_mark(self, mark: Mark, outcome: RecoveredGroup) -> None:
        self._recovered[outcome.group_id] = outcome
        if outcome.tombstone is not None:
            self._healed.add(outcome.group_id)
        if self._marks.get(outcome.group_id, (None, None))[1] is mark:
            del self._marks[outcome.group_id]

    def get_log_storage(self, group_id: GroupId) -> LogStorage:
        found = self._recovered.get(group_id)
        if found is not None and found.failure is not None:
            raise found.failure
        if found is None or found.record is None:
            raise GroupNotFoundError(f"group {group_id} is not in this storage")
        log = self._logs.get(group_id)
        if log is None:
            log = self._logs[group_id] = _GroupLog(found.record.key, self._opened())
        return log

    # -- peers --------------------------------------------------------------------------------------------------------------------

    @property
    def peers(self) -> Mapping[NodeId, PeerRecord]:
        return MappingProxyType(dict(self._node().peers))

    async def remember_peer(self, record: PeerRecord) -> None:
        await trio.lowlevel.checkpoint()
        async with self._node_file_turn:
            node_file = self._node()
            if node_file.peers.get(record.node_id) == record:
                return
            node_file = attrs.evolve(node_file, peers={**node_file.peers, record.node_id: record})
            try:
                await write_node_file(self._disk, self.config.base_dir, node_file)
            except OSError as error:
                # The old file is still whole, and the next try writes a new one: so unlike the log, this can be tried again.
                kind = "full" if isinstance(error, NoSpaceError) else "io"
                path = posixpath.join(self.config.base_dir, NODE_FILE_NAME)
                raise StorageError(kind, path, f"could not be written: {error.strerror or error}") from error
            self._node_file = node_file

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

    def _node(self) -> NodeFile:
        if self._node_file is None:
            raise InvariantError("the storage is not open")
        return self._node_file


@attrs.define(eq=False)
class _GroupLog(LogStorage):
    """One group's part of the shared log."""

    key: GroupKey
    committer: Committer
    is_closed: bool = False

    def attach(self, listener: WriteListener) -> None:
        self.committer.attach(self.key.group_id, listener)

    def write(self, sequence: int, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        if self.is_closed:
            raise InvariantError(f"a write of {self.key}, which was removed")
        data = encode_write(self.key, hard_state, entries)
        if len(data) > WRITE_BYTES_MAX:
            raise InvariantError(f"a write of {len(data)} bytes is larger than the log can hold")
        self.committer.submit(self.key.group_id, data, sequence)
