"""A node's directory: taken by one process, with the node's own file in it."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import attrs
import trio

from .._errors import ConfigError, InvariantError, StorageError
from .._types import NodeId
from ._contract import NodeRecord, PeerRecord
from ._disk import Disk, DiskFile, NoSpaceError
from ._lock import lock_directory, unusable
from ._node_file import NODE_FILE_NAME, NodeFile, read_node_file, write_node_file


@attrs.define(eq=False)
class NodeHome:
    """The lock and ``node.toml``."""

    disk: Disk
    base_dir: str
    _is_in_use: bool = False
    _lock: DiskFile | None = None
    _node_file: NodeFile | None = None
    _turn: trio.Lock = attrs.Factory(trio.Lock)

    @property
    def path(self) -> str:
        return posixpath.join(self.base_dir, NODE_FILE_NAME)

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Open a storage within this, once. If that fails, the lock is released, and it may be tried again.

        Raises:
            StorageError: ``full``, ``unwritable``: where the disk says `OSError`.
        """
        if self._is_in_use:
            raise InvariantError("a storage is opened once")
        self._is_in_use = True
        try:
            yield
        except BaseException as error:
            self._is_in_use = False
            self.leave()
            if isinstance(error, OSError):
                raise unusable(error.filename or self.base_dir, error) from error  # noqa: ASYNC104  # what the system refused, said in our words
            raise

    async def take(self, node_id: NodeId, cluster_id: str) -> NodeFile | None:
        """Lock the directory and read who it belongs to; None: nobody yet. Changes nothing, but for the lock.

        Raises:
            StorageError: ``locked``, ``unwritable``, ``foreign``, ``format``.
            CorruptLogError: of ``node.toml``.
        """
        if not cluster_id.isprintable():
            raise ConfigError(f"cluster_id must be printable text, not {cluster_id!r}")
        self._lock = await lock_directory(self.disk, self.base_dir)
        node_file = await read_node_file(self.disk, self.base_dir)
        if node_file is None:
            return None
        record = node_file.record
        if record.cluster_id != cluster_id:
            text = f"the directory belongs to cluster {record.cluster_id!r}, this is cluster {cluster_id!r}"
            raise StorageError("foreign", self.path, text)
        if record.node_id != node_id:
            raise StorageError("foreign", self.path, f"the directory belongs to node {record.node_id}, this is node {node_id}")
        return node_file

    async def count_start(self, node_file: NodeFile) -> NodeRecord:
        """Write down that the node starts once more, and what else `node_file` says."""
        record = attrs.evolve(node_file.record, incarnation=node_file.record.incarnation + 1)
        node_file = attrs.evolve(node_file, record=record)
        await write_node_file(self.disk, self.base_dir, node_file)
        self._node_file = node_file
        return record

    def leave(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self.disk.close(self._lock)
            self._lock = None

    @property
    def node_id(self) -> NodeId:
        return self._file().record.node_id

    @property
    def peers(self) -> Mapping[NodeId, PeerRecord]:
        return MappingProxyType(dict(self._file().peers))

    async def remember_peer(self, record: PeerRecord) -> None:
        await trio.lowlevel.checkpoint()
        async with self._turn:
            node_file = self._file()
            if node_file.peers.get(record.node_id) == record:
                return
            node_file = attrs.evolve(node_file, peers={**node_file.peers, record.node_id: record})
            try:
                await write_node_file(self.disk, self.base_dir, node_file)
            except OSError as error:
                # The old file is still whole, and the next try writes a new one: so unlike a log, this can be tried again.
                kind = "full" if isinstance(error, NoSpaceError) else "io"
                raise StorageError(kind, self.path, f"could not be written: {error.strerror or error}") from error
            self._node_file = node_file

    def _file(self) -> NodeFile:
        if self._node_file is None:
            raise InvariantError("the storage is not open")
        return self._node_file
