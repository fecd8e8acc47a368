"""Entries at rest: ``logs/{first_index}.log`` in a group's own directory, moved there out of the log of all groups.

    header   128 bytes, written last: a file without it is none
    records  sealed entries, one behind the other: the same bytes as in the log and on the wire
    table    for about each 32 KiB of records one row: index and offset of a record, so that a read need not begin at the first

Such a file never changes. It may hold entries that its group has given up since, at its beginning (compacted) or its end (replaced): what
counts in it is for the log to say, and a new file may take its name once nothing in it counts any more.
"""

from __future__ import annotations

import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Container, Sequence
from typing import Final

import attrs

from .._errors import CorruptLogError, InvariantError, StorageError, WireError
from .._types import EntryId, GroupKey, Index, Term
from ..core import Entry
from ..wire import RECORD_HEADER_SIZE, open_record
from ._disk import DiskFile
from ._folder import Folder, NewFile, translated
from ._row import AtRest

LOGS_DIRECTORY = "logs"
AT_REST_VERSION = 1
AT_REST_MAGIC = b"TRIOREST"

_HEADER: Final = struct.Struct("<8sII16sQI4xQQQQQQQII")
"""Magic, checksum of what follows, version, store id, group, incarnation, first entry (index, term), last entry, log position, bytes of the
records, bytes of the table, checksum of the table, 0."""
_CHECKED_FROM: Final = 12
HEADER_SIZE: Final = 128
_ROW: Final = struct.Struct("<QQ")
_LENGTH: Final = struct.Struct("<4xI")
"""The second field of a record: the length of its payload."""

ROW_STRIDE: Final = 32 << 10
TABLE_BYTES_MAX: Final = 16 << 20
READ_BYTES: Final = 64 << 10

_NAME = re.compile(r"([1-9][0-9]{0,19})\.log\Z")


def at_rest_name(first: Index) -> str:
    return f"{first}.log"


def at_rest_first(name: str) -> Index | None:
    """The first index in the name of a file of entries at rest; None for any other name."""
    match = _NAME.match(name)
    return int(match[1]) if match is not None else None


@attrs.frozen
class AtRestHeader:
    """What a file of entries at rest says of itself."""

    store_id: bytes
    key: GroupKey
    first: EntryId
    last: EntryId
    log_position: int
    """A batch of the log: everything that the log said up to it is taken into account."""
    records_bytes: int
    table_bytes: int
    table_checksum: int

    @property
    def size(self) -> int:
        """Of the whole file."""
        return HEADER_SIZE + self.records_bytes + self.table_bytes


def encode_at_rest_header(header: AtRestHeader) -> bytes:
    fields = (
        AT_REST_VERSION,
        header.store_id,
        *header.key,
        header.first.index,
        header.first.term,
        header.last.index,
        header.last.term,
        header.log_position,
        header.records_bytes,
        header.table_bytes,
        header.table_checksum,
        0,
    )
    data = _HEADER.pack(AT_REST_MAGIC, 0, *fields).ljust(HEADER_SIZE, b"\0")
    return _HEADER.pack(AT_REST_MAGIC, zlib.crc32(data[_CHECKED_FROM:]), *fields).ljust(HEADER_SIZE, b"\0")


def decode_at_rest_header(data: bytes, path: str) -> AtRestHeader:
    """Read the first bytes of a file.

    Raises:
        CorruptLogError: it is no such file, or was damaged.
        StorageError: ``format``: a later version wrote it.
    """
    if len(data) < HEADER_SIZE:
        raise CorruptLogError(path, len(data), "the file is shorter than its header")
    magic, checksum, version, store_id, group_id, incarnation, *numbers, _ = _HEADER.unpack_from(data)
    if magic != AT_REST_MAGIC:
        raise CorruptLogError(path, 0, "not a file of entries at rest")
    if zlib.crc32(data[_CHECKED_FROM:HEADER_SIZE]) != checksum:
        raise CorruptLogError(path, 0, "the header does not match its checksum")
    if version > AT_REST_VERSION:
        text = f"written by a later version (format {version}, this one knows {AT_REST_VERSION}); nothing was touched"
        raise StorageError("format", path, text)
    first_index, first_term, last_index, last_term, log_position, records_bytes, table_bytes, table_checksum = numbers
    first, last = EntryId(first_term, first_index), EntryId(last_term, last_index)
    return AtRestHeader(store_id, GroupKey(group_id, incarnation), first, last, log_position, records_bytes, table_bytes, table_checksum)


@attrs.define(eq=False)
class AtRestWriter:
    """Writes one file, piece by piece; one call at a time."""

    _file: NewFile
    _store_id: bytes
    _key: GroupKey
    _first: EntryId | None = None
    _last: EntryId | None = None
    runs: list[tuple[Index, Term]] = attrs.Factory(list)
    """First index and term of each run of entries of one term."""
    _rows: bytearray = attrs.Factory(bytearray)
    _row_due: int = HEADER_SIZE
    """Beyond this offset, the next record gets a row."""

    @property
    def size(self) -> int:
        return max(self._file.size, HEADER_SIZE)

    async def append(self, entries: Sequence[Entry]) -> None:
        """Write entries that follow those before.

        Raises:
            StorageError: ``full``, ``io``, ``removed``: discard it.
        """
        offset = self.size
        records = []
        for entry in entries:
            if self._last is not None and (entry.index != self._last.index + 1 or entry.term < self._last.term):
                raise InvariantError(f"entry {entry} of {self._key} cannot lie behind {self._last}")
            if offset >= self._row_due:
                self._rows += _ROW.pack(entry.index, offset)
                self._row_due = offset + ROW_STRIDE
            if self._last is None or entry.term != self._last.term:
                self.runs.append((entry.index, entry.term))
            self._first = self._first or entry.id
            self._last = entry.id
            records.append(entry.record)
            offset += len(entry.record)
        await self._file.write_at(self.size, b"".join(records))

    async def commit(self, log_position: int) -> AtRestHeader:
        """Make it durable under its name; return what it says of itself.

        Raises:
            StorageError: ``full``, ``io``, ``removed``: discard it.
        """
        if self._first is None or self._last is None:
            raise InvariantError(f"a file without entries of {self._key}")
        table = bytes(self._rows)
        header = AtRestHeader(
            store_id=self._store_id,
            key=self._key,
            first=self._first,
            last=self._last,
            log_position=log_position,
            records_bytes=self.size - HEADER_SIZE,
            table_bytes=len(table),
            table_checksum=zlib.crc32(table),
        )
        await self._file.write_at(self.size, table)
        await self._file.write_at(0, encode_at_rest_header(header))
        await self._file.commit()
        return header

    async def discard(self) -> None:
        await self._file.discard()


@attrs.define(eq=False)
class AtRestFiles:
    """A group's entries at rest."""

    folder: Folder
    store_id: bytes
    key: GroupKey

    def path(self, first: Index) -> str:
        """Of the file that begins with that entry."""
        return self.folder.path_of(at_rest_name(first))

    async def create(self, first: Index) -> AtRestWriter:
        """Begin the file that begins with that entry. It takes the place of one of that name, in which nothing may count any more.

        Raises:
            StorageError: ``full``, ``io``, ``removed``.
        """
        return AtRestWriter(await self.folder.create(at_rest_name(first)), self.store_id, self.key)

    async def prune(self, keep: Container[str]) -> None:
        """Remove the files in which nothing counts any more.

        Args:
            keep: the names of those in which something does, or did as far as the disk knows. None must come to count meanwhile.

        Raises:
            StorageError: ``io``, ``removed``: some may be left; the next time removes them.
        """
        for name in await self.folder.names():
            if at_rest_first(name) is not None and name not in keep:
                await self.folder.remove(name)

    async def read(self, place: AtRest, first: Index, last: Index, bytes_max: int) -> tuple[Entry, ...]:
        """Read entries from `first` up to `last`, as many as fit `bytes_max` bytes of records and at least one.

        Args:
            place: what the row says of the file; `first` and `last` are within it.

        Raises:
            CorruptLogError: the file is missing, foreign or damaged. NB: if the log has given the entries up meanwhile, that is no damage.
            StorageError: ``io``, ``format``, ``removed``.
        """
        path = self.path(place.origin)
        try:
            file = await self.folder.open(at_rest_name(place.origin))
        except StorageError as error:
            if error.kind == "missing":
                raise CorruptLogError(path, 0, f"the file is missing; it held entries of group {self.key.group_id}") from None
            raise
        try:
            return await self._read(file, place, first, last, bytes_max)
        finally:
            self.folder.disk.close(file)

    async def _read(self, file: DiskFile, place: AtRest, first: Index, last: Index, bytes_max: int) -> tuple[Entry, ...]:
        header = decode_at_rest_header(await self.folder.read(file, 0, HEADER_SIZE), file.path)
        await self._check(file, header, place)
        index, offset = await self._find_row(file, header, first)
        end = HEADER_SIZE + header.records_bytes
        found: list[Entry] = []
        reader = _RecordReader(self, file, offset, end)
        for expected in range(index, last + 1):
            entry = await reader.take(expected)
            if expected < first:
                continue
            bytes_max -= len(entry.record)
            if found and bytes_max < 0:
                break
            found.append(entry)
        return tuple(found)

    async def _check(self, file: DiskFile, header: AtRestHeader, place: AtRest) -> None:
        """Whether it is this group's file, the one that the log speaks of, and as long as it was."""
        if header.store_id != self.store_id:
            raise CorruptLogError(file.path, 0, "the file is from another store")
        if header.key != self.key:
            raise CorruptLogError(file.path, 0, f"the file is of group {header.key}, not of {self.key}")
        if header.size != place.size or header.first.index != place.origin or header.last.index < place.last:
            text = f"the file holds {header.first} to {header.last} in {header.size} bytes; the log counts on {place}"
            raise CorruptLogError(file.path, 0, text)
        with translated(file.path):
            size = await self.folder.disk.size(file)
        if size != header.size:
            raise CorruptLogError(file.path, min(size, header.size), f"the file has {size} bytes, its header says {header.size}")

    async def _find_row(self, file: DiskFile, header: AtRestHeader, first: Index) -> tuple[Index, int]:
        """Index and offset of the last record up to `first` that has a row."""
        start, end = HEADER_SIZE + header.records_bytes, header.size
        if not 0 < header.table_bytes <= TABLE_BYTES_MAX or header.table_bytes % _ROW.size:
            raise CorruptLogError(file.path, start, f"a table of {header.table_bytes} bytes")
        table = await self.folder.read(file, start, header.table_bytes)
        if zlib.crc32(table) != header.table_checksum:
            raise CorruptLogError(file.path, start, "the table does not match its checksum")
        rows = list(_ROW.iter_unpack(table))
        row = bisect_right(rows, first, key=lambda row: row[0]) - 1
        if row < 0 or not HEADER_SIZE <= rows[row][1] < start < end:
            raise CorruptLogError(file.path, start, "the table names no record of the file")
        index, offset = rows[row]
        return index, offset


@attrs.define(eq=False)
class _RecordReader:
    """Takes one record after the other, reading ahead in pieces."""

    files: AtRestFiles
    file: DiskFile
    offset: int
    """Of `data` in the file."""
    end: int
    data: bytes = b""
    place: int = 0
    """The next record, in `data`."""

    async def take(self, index: Index) -> Entry:
        await self._need(RECORD_HEADER_SIZE)
        (length,) = _LENGTH.unpack_from(self.data, self.place)
        await self._need(RECORD_HEADER_SIZE + length)
        at = self.offset + self.place
        try:
            key, entry, self.place = open_record(self.data, self.place, payload_bytes_max=length)
        except WireError as error:
            raise CorruptLogError(self.file.path, at, str(error)) from None
        if key != self.files.key or entry.index != index:
            raise CorruptLogError(self.file.path, at, f"entry {entry} of {key} stands where {index} of {self.files.key} belongs")
        return entry

    async def _need(self, size: int) -> None:
        """Have that many bytes from `place` on."""
        have = len(self.data) - self.place
        if have >= size:
            return
        at = self.offset + self.place
        # NB: checked against the file before anything is read, or allocated, on the word of a length.
        if at + size > self.end:
            raise CorruptLogError(self.file.path, at, "the file ends inside a record")
        more = await self.files.folder.read(self.file, at + have, min(max(size - have, READ_BYTES), self.end - at - have))
        self.data, self.offset, self.place = self.data[self.place :] + more, at, 0
        if len(self.data) < size:
            raise CorruptLogError(self.file.path, at, "the file is shorter than it was")
