"""The log as its writer sees it: the newest file, where its synced part ends, and the next batch's number.

A file is made under a temporary name with its header in it, synced, renamed, and its directory synced: all before the first batch.
So a log file that has a name has a header, and a batch that was confirmed is in a file that a crash cannot unname.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Sequence

import attrs

from .._types import GroupId
from ._batch import NO_IDENTITY, SECTOR, FileHeader, encode_batch, encode_file_header
from ._disk import Disk, DiskFile, NoSpaceError
from ._node_file import replace_file

LOG_DIRECTORY = "wal"

_LOG_NAME = re.compile(r"([0-9]{8,})\.wal\Z")


def log_name(number: int) -> str:
    return f"{number:08}.wal"


def log_number(name: str) -> int | None:
    """The number in the name of a log file; None for any other name."""
    match = _LOG_NAME.match(name)
    return int(match[1]) if match is not None and name == log_name(int(match[1])) else None


@attrs.frozen
class LogEnd:
    """Where a log ends: what a writer needs to go on."""

    sequence: int = 0
    """The last batch."""
    number: int = 0
    """The newest file; 0: there is none."""
    identity: bytes = NO_IDENTITY
    """Its identity, as far as it could be read."""
    size: int = 0
    """Where its last whole batch ends."""
    usable: bool = False
    """It may be appended to. False: there is none, or it is damaged and stays as it is."""


@attrs.define(eq=False)
class LogFile:
    """Appends batches to the newest file, and starts a new one when that is full.

    One call at a time. After an error other than `NoSpaceError` it must not be used any more.
    """

    disk: Disk
    directory: str
    store_id: bytes
    file_size_max: int
    sync_on_write: bool
    end: LogEnd
    make_identity: Callable[[], bytes]
    syncs: int = 0
    """Syncs of batches and of cuts."""
    _file: DiskFile | None = None
    _synced: bool = True

    async def append(self, group_ids: Iterable[GroupId], segments: Sequence[bytes]) -> None:
        """Write one batch; on return it is durable (if `sync_on_write`).

        Raises:
            NoSpaceError: nothing of it was written, or it was cut off again: try again later, and a new file will be used.
            OSError: it is not known what is on the disk.
        """
        if not self.end.usable or self.end.size >= self.file_size_max:
            await self.start_file()
        file = await self._open()
        batch = encode_batch(self.end.identity, self.end.sequence + 1, group_ids, segments)
        self._synced = False
        try:
            await self.disk.append(file, self.end.size, batch, sync=self.sync_on_write)
        except NoSpaceError:
            await self._cut()
            raise
        if self.sync_on_write:
            self._count_sync()
        self.end = attrs.evolve(self.end, sequence=self.end.sequence + 1, size=self.end.size + len(batch))

    async def start_file(self) -> None:
        """Begin a new file; on return it is durable and empty, and so is everything before it."""
        await self.sync()
        header = FileHeader(self.end.number + 1, self.end.sequence + 1, self.make_identity(), self.end.identity, self.store_id)
        await replace_file(self.disk, self.directory, log_name(header.number), encode_file_header(header))
        self.close()
        self.end = LogEnd(self.end.sequence, header.number, header.identity, SECTOR, usable=True)

    async def sync(self) -> None:
        """Make everything durable that is not yet, which takes something to do only without `sync_on_write`."""
        if not self._synced and self._file is not None:
            await self.disk.sync(self._file)
            self._count_sync()

    def close(self) -> None:
        if self._file is not None:
            self.disk.close(self._file)
            self._file = None

    async def _open(self) -> DiskFile:
        if self._file is None:
            self._file = await self.disk.open(posixpath.join(self.directory, log_name(self.end.number)))
        return self._file

    async def _cut(self) -> None:
        """Take off the part of a batch that still found room. The next try goes to a new file, unless this one is as good as new."""
        if self._file is None:
            return
        await self.disk.truncate(self._file, self.end.size)
        self._count_sync()
        if self.end.size > SECTOR:
            self.end = attrs.evolve(self.end, usable=False)

    def _count_sync(self) -> None:
        self.syncs += 1
        self._synced = True
