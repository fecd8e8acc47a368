"""Reading entries back out of the log files, while others append to the newest and remove the oldest.

Reads are positional, of a few files that are kept open; an open file stays readable when its name is gone. What lies close together is
read at once. Each record has its checksum, and it must be the one that the row says is there: so nothing that rotted, and nothing that
somebody wrote over, is ever handed on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from .._errors import CorruptLogError, StorageError, WireError
from .._types import GroupKey, Index, Term
from ..core import Entry
from ..wire import open_records
from ._disk import Disk, DiskFile
from ._extents import Extent
from ._table import Table

FILES_OPEN_MAX = 8

# Reading what lies between two extents is cheaper than a second thread hop.
GAP_BYTES_MAX = 32 << 10
READ_BYTES_MAX = 1 << 20

# Opening small records takes about a millisecond for so many bytes: others get their turn.
OPENED_BYTES_PER_CHECKPOINT = 32 << 10


@attrs.define(eq=False)
class _OpenFile:
    file: DiskFile
    users: int = 0
    is_wanted: bool = True
    """It is kept for the next reader. False: the last user closes it."""


class LogReader:
    """Reads records of any log file."""

    def __init__(self, disk: Disk, table: Table) -> None:
        self._disk, self._table = disk, table
        self._open: OrderedDict[int, _OpenFile] = OrderedDict()

    async def read(self, key: GroupKey, extents: Sequence[Extent], term_of: Callable[[Index], Term], bytes_max: int) -> list[Entry]:
        """Read the entries of these extents, one after the other, as many as fit `bytes_max` bytes of payload and at least one.

        Args:
            term_of: what the row says of each.

        Raises:
            CorruptLogError: they are not there. NB: if the row has changed meanwhile, that is no damage.
            StorageError: ``io``.
        """
        found: list[Entry] = []
        for close in _close_together(extents):
            data = await self._read_bytes(close)
            opened = 0
            for extent in close:
                entries = self._open_extent(key, extent, data, extent.offset - close[0].offset, term_of)
                for entry in entries:
                    bytes_max -= len(entry.payload)
                    if found and bytes_max < 0:
                        return found
                    found.append(entry)
                opened += extent.length
                if opened >= OPENED_BYTES_PER_CHECKPOINT:
                    opened = 0
                    await trio.lowlevel.checkpoint()
        return found

    def forget(self, file: int) -> None:
        """The file was removed: close it, as soon as nobody reads it."""
        found = self._open.pop(file, None)
        if found is not None:
            self._release(found)

    def close(self) -> None:
        for file in list(self._open):
            self.forget(file)

    def _open_extent(self, key: GroupKey, extent: Extent, data: bytes, place: int, term_of: Callable[[Index], Term]) -> Sequence[Entry]:
        path = self._table.files.path_of(extent.file)
        if len(data) < place + extent.length:
            raise CorruptLogError(path, extent.offset, f"the file ends; entries {extent.first} to {extent.last} of {key} were there")
        try:
            entries = open_records(data, place, place + extent.length, group=key, payload_bytes_max=extent.length)
        except WireError as error:
            raise CorruptLogError(path, extent.offset, f"{error}; it held entries {extent.first} to {extent.last} of {key}") from None
        before = extent.first - entries[0].index
        entries = entries[max(before, 0) : before + extent.last - extent.first + 1]
        for index, entry in zip(range(extent.first, extent.last + 1), entries, strict=False):
            if entry.index != index or entry.term != term_of(index):
                text = f"entry {entry} of {key} is where {index}@{term_of(index)} was"
                raise CorruptLogError(path, extent.offset, text)
        if len(entries) != extent.last - extent.first + 1:
            raise CorruptLogError(path, extent.offset, f"only a part of entries {extent.first} to {extent.last} of {key} is there")
        return entries

    async def _read_bytes(self, extents: Sequence[Extent]) -> bytes:
        first, last = extents[0], extents[-1]
        try:
            async with self._opened(first.file) as file:
                return await self._disk.read(file, first.offset, last.offset + last.length - first.offset)
        except FileNotFoundError:
            raise CorruptLogError(self._table.files.path_of(first.file), first.offset, "the file is missing") from None
        except OSError as error:
            raise StorageError("io", self._table.files.path_of(first.file), f"could not be read: {error.strerror or error}") from error

    @asynccontextmanager
    async def _opened(self, number: int) -> AsyncIterator[DiskFile]:
        found = self._open.get(number)
        if found is None:
            made = _OpenFile(await self._disk.open(self._table.files.path_of(number)))
            # Another reader may have been quicker, and the file may have been removed since.
            found = self._open.setdefault(number, made)
            if found is not made:
                self._disk.close(made.file)
            elif number not in self._table.files.numbers:
                found.is_wanted = False
                del self._open[number]
        found.users += 1
        try:
            if number in self._open:
                self._open.move_to_end(number)
            while len(self._open) > FILES_OPEN_MAX:
                self._release(self._open.popitem(last=False)[1])
            yield found.file
        finally:
            found.users -= 1
            if not found.users and not found.is_wanted:
                self._disk.close(found.file)

    def _release(self, found: _OpenFile) -> None:
        # NB: never under a thread that reads it: its number could be another file's by then.
        found.is_wanted = False
        if not found.users:
            self._disk.close(found.file)


def _close_together(extents: Sequence[Extent]) -> Iterator[list[Extent]]:
    """The extents in pieces to be read at once."""
    piece: list[Extent] = []
    for extent in extents:
        if piece:
            start, last = piece[0], piece[-1]
            gap = extent.offset - (last.offset + last.length)
            size = extent.offset + extent.length - start.offset
            if extent.file != start.file or not 0 <= gap <= GAP_BYTES_MAX or size > READ_BYTES_MAX:
                yield piece
                piece = []
        piece.append(extent)
    if piece:
        yield piece
