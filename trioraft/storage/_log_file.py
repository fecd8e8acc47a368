"""The log as its writer sees it: the newest file, where its synced part ends, and the next batch's number.

A file is made under a temporary name with its header in it, synced, renamed, and its directory synced: all before the first batch.
So a log file that has a name has a header, and a batch that was confirmed is in a file that a crash cannot unname.

Every file but the first begins with a checkpoint, which takes several batches. Until it is complete there is nothing else in the file; so
one that could not be finished, because the disk was full or the lights went out, is cut off as a whole and written anew.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import attrs

from .._errors import InvariantError
from .._types import GroupId
from ._batch import NO_IDENTITY, SECTOR, FileHeader, encode_batch, encode_file_header
from ._disk import Disk, DiskFile, NoSpaceError
from ._log_name import log_name
from ._whole_file import replace_file

FIRST_FILE = 1
"""The file without a checkpoint: there is nothing before it."""


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
    first_sequence: int = 1
    """The sequence of its first batch."""
    checkpoint_size: int = 0
    """Where its checkpoint ends; 0: it has none yet, and nothing else either."""


class Written(NamedTuple):
    """A batch, and where it is."""

    file: int
    offset: int
    data: bytearray
    body_start: int
    body_end: int


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

    @property
    def is_full(self) -> bool:
        """Whether the next batch is for a new file. What only repeats older files never fills one, or there would be no end of it."""
        return not self.end.usable or (self.has_checkpoint and self.fullness >= 1.0)

    @property
    def fullness(self) -> float:
        """How much of the newest file is taken, of what it may take before there is a new one; the last batch goes beyond 1.0."""
        return self.end.size / max(self.file_size_max, 2 * self.end.checkpoint_size)

    @property
    def has_checkpoint(self) -> bool:
        return self.end.checkpoint_size > 0

    async def append(self, group_ids: Iterable[GroupId], segments: Sequence[bytes], *, sync: bool = False) -> Written:
        """Write one batch; on return it is durable, if `sync_on_write` or `sync`.

        Raises:
            NoSpaceError: nothing of it was written, or it was cut off again, and an unfinished checkpoint with it: try again later. The
                file may be full then.
            OSError: it is not known what is on the disk.
        """
        file = await self._open()
        offset, sync = self.end.size, sync or self.sync_on_write
        batch = encode_batch(self.end.identity, self.end.sequence + 1, group_ids, segments)
        self._synced = False
        try:
            await self.disk.append(file, offset, batch.data, sync=sync)
        except NoSpaceError:
            await self._cut()
            raise
        if sync:
            self._count_sync()
        # NB: not evolved. There is one end for each batch, and that is slow.
        end = self.end
        self.end = LogEnd(
            end.sequence + 1, end.number, end.identity, offset + len(batch.data), True, end.first_sequence, end.checkpoint_size
        )
        return Written(end.number, offset, batch.data, batch.body_start, batch.body_end)

    def finish_checkpoint(self) -> None:
        """All that was written to this file is its checkpoint, which is complete and synced."""
        if self.has_checkpoint or not self._synced:
            raise InvariantError("a checkpoint that is none")
        self.end = attrs.evolve(self.end, checkpoint_size=self.end.size)

    async def start_file(self) -> None:
        """Begin a new file; on return it is durable and empty, and so is everything before it."""
        await self.sync()
        end = self.end
        header = FileHeader(end.number + 1, end.sequence + 1, self.make_identity(), end.identity, self.store_id)
        await replace_file(self.disk, self.directory, log_name(header.number), encode_file_header(header))
        self.close()
        self.end = LogEnd(
            sequence=end.sequence,
            number=header.number,
            identity=header.identity,
            size=SECTOR,
            usable=True,
            first_sequence=header.first_sequence,
            checkpoint_size=SECTOR if header.number == FIRST_FILE else 0,
        )

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
        end = self.end
        if not self.has_checkpoint:
            await self.disk.truncate(self._file, SECTOR)
            self.end = attrs.evolve(end, size=SECTOR, sequence=end.first_sequence - 1)
        else:
            await self.disk.truncate(self._file, end.size)
            if end.size > end.checkpoint_size:
                self.end = attrs.evolve(end, usable=False)
        self._count_sync()

    def _count_sync(self) -> None:
        self.syncs += 1
        self._synced = True
