"""One group's log in `FileStorage`: ``logs/entries-{number}.log``, a new file when the newest is full.

Each write of the group is one batch (`_batch`), and each batch is applied to the group's row (`_row`) once it is on stable storage: at a
start by reading the files again. A new file is begun in two steps, each of which a crash may be the last to see: the file with its
header, then ``vote.dat``, which says all that the files before it say, except for where the entries are. So older files are kept only as
long as an entry is in them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

import attrs
import trio

from .._errors import CorruptLogError, StorageError, WireError
from .._types import GroupKey, Index, Member
from ..core import Entry, EntryKind, HardState, InstallSnapshot, LoadEntries
from ..wire import open_records
from ._batch import NO_IDENTITY, SECTOR, BadBytesError, FileHeader, encode_batch, encode_file_header
from ._configurations import Configurations
from ._disk import Disk, DiskFile, NoSpaceError
from ._extents import Extent
from ._row import Row, Tombstone
from ._segment import (
    ENTRIES_HEADER_SIZE,
    SegmentKind,
    decode_compacted,
    decode_entries,
    decode_entries_header,
    decode_installed,
    decode_number,
    decode_segment_header,
    decode_vote,
    encode_write,
)
from ._vote_file import VOTE_NAME, VoteFile, encode_vote_file
from ._whole_file import replace_file

READ_BYTES_MAX: Final = 1 << 18

_NAME = re.compile(r"entries-([0-9]{8,})\.log\Z")


def file_name(number: int) -> str:
    return f"entries-{number:08}.log"


def file_number(name: str) -> int | None:
    """The number in the name of a log file; None for any other name."""
    match = _NAME.match(name)
    return int(match[1]) if match is not None and name == file_name(int(match[1])) else None


@attrs.define(eq=False)
class FileLog:
    """The log files of one group. One call of `append`, `write_vote` and `remove_unneeded` at a time; reads at any time."""

    directory: str
    store_id: bytes
    row: Row
    file_size_max: int
    sync_on_write: bool
    make_identity: Callable[[], bytes]
    files: list[int] = attrs.Factory(list)
    """Oldest first; the last one is written to."""
    vote_file: int = 0
    """What the files before this one say is in ``vote.dat``."""
    identity: bytes = NO_IDENTITY
    """Of the newest file."""
    first_sequence: int = 1
    """The first batch of the newest file."""
    sequence: int = 0
    """The last batch."""
    size: int = 0
    """Where the newest file ends."""
    syncs: int = 0
    seen: Tombstone | None = None
    """Where the log is damaged: the newest life that anything in it names which can be read, and its highest number."""
    _configurations: Configurations = attrs.Factory(Configurations)
    _file: DiskFile | None = None
    _synced: bool = True

    def path_of(self, number: int) -> str:
        return posixpath.join(self.directory, file_name(number))

    # -- writing ------------------------------------------------------------------------------------------------------------------

    async def append(self, disk: Disk, segments: Sequence[bytes]) -> None:
        """Write one batch; on return it is durable (if `sync_on_write`) and applied.

        Raises:
            NoSpaceError: nothing of it was written, or it was cut off again: try again later.
            OSError: it is not known what is on the disk.
            BadBytesError: it was written, and says what cannot be.
        """
        if self.size >= self.file_size_max:
            await self.start_file(disk)
        if self.vote_file != self.files[-1]:
            await self.write_vote(disk)
        if self._file is None:
            self._file = await disk.open(self.path_of(self.files[-1]))
        batch = encode_batch(self.identity, self.sequence + 1, [self.row.group_id], segments)
        offset, self._synced = self.size, False
        try:
            await disk.append(self._file, offset, batch.data, sync=self.sync_on_write)
        except NoSpaceError:
            await disk.truncate(self._file, offset)
            self._count_sync()
            raise
        if self.sync_on_write:
            self._count_sync()
        self.sequence, self.size = self.sequence + 1, offset + len(batch.data)
        self.apply(self.files[-1], batch.data, batch.body_start, batch.body_end, shift=offset)

    async def start_file(self, disk: Disk) -> None:
        """Begin a new file; on return it is durable and empty, and so is everything before it."""
        await self.sync(disk)
        number = self.files[-1] + 1 if self.files else 1
        header = FileHeader(number, self.sequence + 1, self.make_identity(), self.identity, self.store_id)
        await replace_file(disk, self.directory, file_name(number), encode_file_header(header))
        self.close(disk)
        self.files.append(number)
        self.identity, self.first_sequence, self.size = header.identity, header.first_sequence, SECTOR

    async def write_vote(self, disk: Disk) -> None:
        """Say in ``vote.dat`` what the log says up to the newest file, in which nothing is yet. Without a file: that there is none."""
        newest = self.files[-1] if self.files else 0
        data = encode_vote_file(VoteFile(self.row, newest, self.first_sequence), self.store_id)
        await replace_file(disk, self.directory, VOTE_NAME, data)
        self.vote_file = newest

    def emptied(self, row: Row) -> FileLog:
        """The log of another group in the same place, without a file."""
        return FileLog(self.directory, self.store_id, row, self.file_size_max, self.sync_on_write, self.make_identity, syncs=self.syncs)

    async def remove_unneeded(self, disk: Disk) -> None:
        """Remove the oldest files, as long as no entry is in them any more."""
        while self.files[0] < self.vote_file and not self.row.is_in(self.files[0]):
            # NB: first what says so.
            await self.sync(disk)
            await disk.remove(self.path_of(self.files[0]))
            await disk.sync_directory(self.directory)
            del self.files[0]

    async def sync(self, disk: Disk) -> None:
        """Make everything durable that is not yet, which takes something to do only without `sync_on_write`."""
        if not self._synced and self._file is not None:
            await disk.sync(self._file)
            self._count_sync()

    def close(self, disk: Disk) -> None:
        if self._file is not None:
            disk.close(self._file)
            self._file = None

    def _count_sync(self) -> None:
        self.syncs += 1
        self._synced = True

    # -- what a batch says ----------------------------------------------------------------------------------------------------------

    def apply(self, file: int, data: bytes | bytearray, start: int, end: int, *, shift: int = 0, places_only: bool = False) -> None:
        """Carry out what a batch says: ``data[start:end]`` is its body.

        Args:
            shift: where in the file ``data[0]`` is.
            places_only: the row knows it all already, except for where the entries are.

        Raises:
            BadBytesError: that cannot be.
        """
        while start < end:
            kind, key, content_start, start = decode_segment_header(data, start, end)
            if key != self.row.key:
                raise BadBytesError(f"a record of {key} in the log of {self.row.key}")
            if kind == SegmentKind.ENTRIES:
                self._apply_entries(file, key, data, content_start, start, shift, places_only)
            elif not places_only:
                self._apply_other(kind, bytes(data[content_start:start]))

    def _apply_entries(
        self, file: int, key: GroupKey, data: bytes | bytearray, start: int, end: int, shift: int, places_only: bool
    ) -> None:
        header = decode_entries_header(data, start, end)
        if header.first_term != header.last_term:
            raise BadBytesError("records of several terms in one segment")
        offset = start + ENTRIES_HEADER_SIZE
        place = (file, shift + offset, end - offset)
        if places_only:
            self.row.carry(header.first, header.last, header.first_term, *place)
            return
        self.row.replace_from(header.first, header.first_term)
        self.row.extend(header.last, header.last_term)
        self.row.add_extent(header.first, header.last, *place)
        for entry in () if header.is_plain else decode_entries(data, key, start, end, header):
            if entry.kind is EntryKind.CONFIGURATION:
                self.row.configure(entry.index, self._configurations.decode(entry.payload))

    def _apply_other(self, kind: int, content: bytes) -> None:
        if kind == SegmentKind.VOTE:
            self.row.vote(decode_vote(content))
        elif kind == SegmentKind.NUMBER:
            self.row.learn_number(decode_number(content))
        elif kind == SegmentKind.COMPACTED:
            self.row.compact(*decode_compacted(content))
        elif kind == SegmentKind.INSTALLED:
            at, configuration = decode_installed(content)
            self.row.install(at, self._configurations.decode(configuration))
        else:
            raise BadBytesError(f"a segment of the unknown kind {kind}")

    # -- reading ------------------------------------------------------------------------------------------------------------------

    async def read(self, disk: Disk, load: LoadEntries) -> tuple[Entry, ...]:
        """Read entries back, as `LogStorage.read` says. The log may go on meanwhile."""
        await trio.lowlevel.checkpoint()
        found: list[Entry] = []
        size = 0
        while (following := found[-1].index + 1 if found else load.first) <= load.last:
            for entry in await self._read_piece(disk, following, load.last):
                size += len(entry.payload)
                if found and size > load.bytes_max:
                    return self._still_true(found)
                found.append(entry)
            if not found or found[-1].index < following:
                break  # it is not there (any more)
        return self._still_true(found)

    def _still_true(self, found: list[Entry]) -> tuple[Entry, ...]:
        while found and not self.row.still_has(found[-1].id):
            found.pop()
        return tuple(found)

    async def _read_piece(self, disk: Disk, first: Index, last: Index) -> list[Entry]:
        """The entries that lie together in a file, from `first` on; none, if the log does not have that."""
        while piece := self._piece(first, last):
            try:
                return await self._read_extents(disk, piece)
            except StorageError:
                # What was to be read may have been cut off or replaced. Otherwise it is damage.
                if piece == self._piece(first, last):
                    raise
        return []

    def _piece(self, first: Index, last: Index) -> list[Extent]:
        piece: list[Extent] = []
        if first <= self.row.terms.start.index:
            return piece
        for place in self.row.places(first):
            if not isinstance(place, Extent) or place.first > last:
                break
            if piece and (place.file != piece[0].file or not 0 <= place.offset + place.length - piece[0].offset <= READ_BYTES_MAX):
                break
            piece.append(place._replace(first=max(first, place.first), last=min(last, place.last)))
        return piece

    async def _read_extents(self, disk: Disk, piece: Sequence[Extent]) -> list[Entry]:
        path, start, end = self.path_of(piece[0].file), piece[0].offset, piece[-1].offset + piece[-1].length
        try:
            file = await disk.open(path)
            try:
                data = await disk.read(file, start, end - start)
            finally:
                disk.close(file)
        except FileNotFoundError:
            raise CorruptLogError(path, 0, "the file is missing") from None
        except OSError as error:
            raise StorageError("io", path, f"could not be read: {error.strerror or error}") from error
        found: list[Entry] = []
        for extent in piece:
            found += self._open_extent(path, extent, data[extent.offset - start : extent.offset - start + extent.length])
        return found

    def _open_extent(self, path: str, extent: Extent, data: bytes) -> list[Entry]:
        key, terms = self.row.key, self.row.terms
        if key is None:
            raise StorageError("removed", path, "the group was removed")
        if len(data) < extent.length:
            raise CorruptLogError(path, extent.offset, f"the file ends; entries {extent.first} to {extent.last} of {key} were there")
        try:
            records = open_records(data, 0, extent.length, group=key, payload_bytes_max=extent.length)
        except WireError as error:
            raise CorruptLogError(path, extent.offset, f"{error}; it held entries {extent.first} to {extent.last} of {key}") from None
        counting = [entry for entry in records if extent.first <= entry.index <= extent.last]
        expected = [(index, terms.at(index)) for index in range(extent.first, extent.last + 1)]
        if [(entry.index, entry.term) for entry in counting] != expected:
            raise CorruptLogError(path, extent.offset, f"entries {extent.first} to {extent.last} of {key} were there, and others are")
        return counting


def encode_one_write(
    key: GroupKey, hard_state: HardState | None, entries: Sequence[Entry], install: InstallSnapshot | None, me: Member | None
) -> bytes:
    """The segments of one write, those of entries with one term each: their places can then be told without opening them.

    Raises:
        InvariantError: an entry is not sealed.
    """
    runs = (tuple(run) for _, run in groupby(entries, key=lambda entry: entry.term))
    return encode_write(key, hard_state, (), install, me) + b"".join(encode_write(key, None, run) for run in runs)
