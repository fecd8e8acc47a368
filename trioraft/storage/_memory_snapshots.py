"""Snapshots of one group in memory."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from .._errors import StorageError
from .._types import EntryId, GroupKey
from ._contract import SnapshotReader, SnapshotStorage, SnapshotWriter
from ._memory_group import IN_MEMORY, MemoryGroup


@attrs.define(eq=False)
class MemorySnapshots(SnapshotStorage):
    """What `MemoryStorage` gives out as a group's snapshots."""

    key: GroupKey
    find_group: Callable[[], MemoryGroup]
    """Raises once the storage or the group is no more: nothing is kept for the dead."""
    check_space: Callable[[], None]

    def path(self, at: EntryId) -> str:
        return f"{IN_MEMORY}/group-{self.key.group_id}/snapshots/{at.index}-{at.term}.snap"

    async def create(self, at: EntryId) -> SnapshotWriter:
        await trio.lowlevel.checkpoint()
        self.find_group()
        self.check_space()
        return _Writer(self, at)

    async def open(self, at: EntryId) -> SnapshotReader:
        await trio.lowlevel.checkpoint()
        data = self.find_group().snapshots.get(at)
        if data is None:
            raise StorageError("missing", self.path(at), "there is no such snapshot")
        return _Reader(self.path(at), data)

    async def remove(self, at: EntryId) -> None:
        await trio.lowlevel.checkpoint()
        self.find_group().snapshots.pop(at, None)


@attrs.define(eq=False)
class _Writer(SnapshotWriter):
    snapshots: MemorySnapshots
    at: EntryId
    data: bytearray = attrs.Factory(bytearray)

    async def append(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.snapshots.find_group()
        self.snapshots.check_space()
        self.data += data

    async def commit(self) -> str:
        await trio.lowlevel.checkpoint()
        self.snapshots.check_space()
        self.snapshots.find_group().snapshots[self.at] = bytes(self.data)
        return self.snapshots.path(self.at)

    async def discard(self) -> None:
        self.data.clear()
        await trio.lowlevel.checkpoint()


@attrs.frozen(eq=False)
class _Reader(SnapshotReader):
    _path: str
    _data: bytes

    @property
    def path(self) -> str:
        return self._path

    @property
    def size(self) -> int:
        return len(self._data)

    async def read(self, offset: int, size: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._data[offset : offset + size]

    def close(self) -> None:
        pass
