"""The snapshots of one group: ``snapshots/{index}-{term}.snap``.

A snapshot is there when it has its name, and it counts when the log refers to it. Newer ones that the log does not know are left alone:
an install may be about to refer to them. Older ones are pruned once the log durably refers to a newer one.
"""

from __future__ import annotations

import re

import attrs

from .._types import EntryId
from ._contract import SnapshotReader, SnapshotStorage, SnapshotWriter
from ._disk import DiskFile
from ._folder import Folder, NewFile, translated

SNAPSHOT_DIRECTORY = "snapshots"

_SNAPSHOT_NAME = re.compile(r"([1-9][0-9]{0,19})-([1-9][0-9]{0,19})\.snap\Z")


def snapshot_name(at: EntryId) -> str:
    return f"{at.index}-{at.term}.snap"


def snapshot_id(name: str) -> EntryId | None:
    """The entry in the name of a snapshot; None for any other name."""
    match = _SNAPSHOT_NAME.match(name)
    return EntryId(int(match[2]), int(match[1])) if match is not None else None


@attrs.define(eq=False)
class SnapshotFiles(SnapshotStorage):
    """Snapshots as files of one directory."""

    folder: Folder

    async def create(self, at: EntryId) -> SnapshotWriter:
        return SnapshotFileWriter(await self.folder.create(snapshot_name(at)))

    async def open(self, at: EntryId) -> SnapshotReader:
        file = await self.folder.open(snapshot_name(at))
        try:
            with translated(file.path):
                size = await self.folder.disk.size(file)
        except BaseException:
            self.folder.disk.close(file)
            raise
        return SnapshotFileReader(self.folder, file, size)

    async def remove(self, at: EntryId) -> None:
        await self.folder.remove(snapshot_name(at))

    async def prune(self, keep: EntryId) -> None:
        """Remove those older than `keep`, to which the log durably refers.

        Raises:
            StorageError: ``io``, ``removed``: some may be left; the next time removes them.
        """
        for name in await self.folder.names():
            at = snapshot_id(name)
            if at is not None and at.index < keep.index:
                await self.folder.remove(name)


@attrs.define(eq=False)
class SnapshotFileWriter(SnapshotWriter):
    _file: NewFile

    async def append(self, data: bytes) -> None:
        await self._file.append(data)

    async def commit(self) -> str:
        return await self._file.commit()

    async def discard(self) -> None:
        await self._file.discard()


@attrs.define(eq=False)
class SnapshotFileReader(SnapshotReader):
    _folder: Folder
    _file: DiskFile
    _size: int
    _reads: int = 0
    _is_closed: bool = False

    @property
    def path(self) -> str:
        return self._file.path

    @property
    def size(self) -> int:
        return self._size

    async def read(self, offset: int, size: int) -> bytes:
        self._reads += 1
        try:
            return await self._folder.read(self._file, offset, size)
        finally:
            self._reads -= 1
            self._close_if_idle()

    def close(self) -> None:
        self._is_closed = True
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        # NB: not under a thread that still reads. The number of a closed file may be another's by the time it is used.
        if self._is_closed and not self._reads:
            self._folder.disk.close(self._file)
