"""Reading the log at start: one pass over all files, for all groups. Changes nothing; `Recovery` says what is to be done.

The one question that matters is asked wherever bytes do not match their checksum: was this ever confirmed?

* *Torn*: the last batch of the newest file, if the file ends inside it, or more of its sectors read as zeros than were written as
  zeros. That is what an interrupted write leaves, and the next batch would only have been written after this one's sync: so nobody
  was ever told of it. It is dropped.
* *Damaged*: everything else, anywhere. It may well have been confirmed, so dropping it could lose what was acknowledged, or give a
  vote twice. The groups that the batch names fail, with file and offset; all groups fail where it is not known which ones it held.
  Nothing is cut, and the other groups go on.

The first file that is there says how to begin: number 1 with nothing, any other with its checkpoint. In between, a checkpoint repeats what
is known, and must agree with it; one that is not complete counts for nothing. In the end each group must be whole: every entry of its log
has a place, its snapshot reaches up to where the log begins, and its term is that of its last entry at least. Otherwise it is refused: a
part of it was lost in a way that no checksum shows.

A group that fails is healed by removing its replica and adding it anew: its tombstone supersedes all that comes before it.
"""

from __future__ import annotations

import posixpath

import attrs
import trio

from .._errors import CorruptLogError
from ._batch import (
    SECTOR,
    BadBytesError,
    BatchHeader,
    FileHeader,
    body_matches,
    decode_batch_header,
    decode_group_ids,
    is_torn,
    is_unwritten,
    next_batch,
    own_file_header,
)
from ._disk import Disk
from ._log_file import FIRST_FILE, LogEnd
from ._log_name import log_name, log_number
from ._table import Body, Table

# A checkpoint of the event loop for each so many batches: a long start can be cancelled.
BATCHES_PER_CHECKPOINT = 64


@attrs.frozen
class Recovery:
    """What the log says."""

    table: Table
    end: LogEnd
    cut: int | None
    """The newest file has a torn batch or an unfinished checkpoint behind `end`: it is to be cut there, and synced, before anything is
    appended."""
    bytes_read: int


async def recover(disk: Disk, directory: str, store_id: bytes, *, least: LogEnd, settle: bool = True) -> Recovery:
    """Read the whole log.

    Args:
        least: a file and a batch that are known to have been there once.
        settle: the newest file is synced before it is read, since what is found will be built upon. False: for who only looks.

    Raises:
        StorageError: ``format``: a file of a later version.
        OSError: a file cannot be read.
    """
    reader = _Reader(directory, store_id, Table(directory))
    try:
        names = await disk.list_directory(directory)
    except FileNotFoundError:
        names = []
    numbers = sorted(number for name in names if (number := log_number(name)) is not None)
    oldest, newest = (numbers[0], numbers[-1]) if numbers else (FIRST_FILE, 0)
    reader.begin(oldest)
    # Opened by number, not by listing: so a file that is missing in the middle is missed.
    for number in range(oldest, newest + 1):
        path = posixpath.join(directory, log_name(number))
        # The newest may hold what was never synced, or what only the cache still has after a failed sync. Older ones were synced.
        data = await disk.read_file(path, settle=settle and number == newest) if number in numbers else None
        await reader.read_file(number, path, data, is_newest=number == newest)
    reader.check_least(least)
    reader.check_rows()
    return Recovery(reader.table, reader.end, reader.cut, reader.bytes_read)


@attrs.define(eq=False)
class _Reader:
    directory: str
    store_id: bytes
    table: Table
    end: LogEnd = attrs.Factory(LogEnd)
    cut: int | None = None
    bytes_read: int = 0
    place_lost: bool = False
    """Something was unreadable, or is gone, so it is not known which batch or file comes next: the next one says it."""

    def begin(self, oldest: int) -> None:
        # Older files are removed once a later one has a checkpoint, so nothing is missing as long as a checkpoint comes.
        self.place_lost = self.table.skips_unknown = oldest > FIRST_FILE

    # -- files --------------------------------------------------------------------------------------------------------------------

    async def read_file(self, number: int, path: str, data: bytes | None, *, is_newest: bool) -> None:
        if data is None:
            self._damage_all(path, 0, "the file is missing")
        header = None if data is None else self._file_header(number, path, data)
        if data is None or header is None:
            # NB: its identity stays that of the file before. A file that is made next has to name something.
            self.place_lost = True
            self.table.add_file(number)
            self.end = attrs.evolve(self.end, number=number, size=0, usable=False)
            return
        self.bytes_read += len(data)
        if header.first_sequence != self.end.sequence + 1 and not self.place_lost:
            text = f"the file begins with batch {header.first_sequence}, the one before ends with {self.end.sequence}: something is missing"
            self._damage_all(path, 0, text)
        self.place_lost = False
        self.table.add_file(number)
        self.end = LogEnd(
            sequence=header.first_sequence - 1,
            number=number,
            identity=header.identity,
            size=SECTOR,
            usable=is_newest,
            first_sequence=header.first_sequence,
            checkpoint_size=SECTOR if number == FIRST_FILE else 0,
        )
        await self._read_batches(path, data, is_newest)
        if is_newest and not self.end.checkpoint_size and self.end.size > SECTOR:
            self._begin_checkpoint_anew()

    def _begin_checkpoint_anew(self) -> None:
        """The newest file ends inside its checkpoint, before which nothing else is written."""
        if self.end.usable and self.table.has_only_rows:
            self.end = attrs.evolve(self.end, sequence=self.end.first_sequence - 1, size=SECTOR)
            self.cut = SECTOR
        else:
            self.end = attrs.evolve(self.end, usable=False)

    def _file_header(self, number: int, path: str, data: bytes) -> FileHeader | None:
        """The header of a file whose batches may be read."""
        try:
            header = own_file_header(data, path, self.store_id)
        except CorruptLogError as error:
            self.table.damage_all(error)
            return None
        if header.number != number:
            self._damage_all(path, 0, f"the file was made as number {header.number}")
            return None
        if header.previous != self.end.identity and not self.place_lost:
            self._damage_all(path, 0, "the file does not follow the one before it")
        return header

    async def _read_batches(self, path: str, data: bytes, is_newest: bool) -> None:
        offset, identity, count = SECTOR, self.end.identity, 0
        while offset < len(data):
            count += 1
            if count % BATCHES_PER_CHECKPOINT == 0:
                await trio.lowlevel.checkpoint()
            header = decode_batch_header(data, offset, identity)
            if header is None or header.sequence <= self.end.sequence:
                following = self._skip_unreadable(path, data, offset, identity, is_newest)
                if following is None:
                    return
                offset = following
                continue
            if header.sequence != self.end.sequence + 1 and not self.place_lost:
                text = f"batch {header.sequence} follows batch {self.end.sequence}: something is missing"
                self._damage_all(path, offset, text)
            self.place_lost = False
            if not self._read_batch(path, data, offset, header, is_newest):
                return
            offset += header.size
            end = self.end
            checkpoint_size = end.checkpoint_size or (offset if self.table.has_checkpoint else 0)
            # NB: not evolved, which is slow.
            self.end = LogEnd(header.sequence, end.number, end.identity, offset, end.usable, end.first_sequence, checkpoint_size)

    def _skip_unreadable(self, path: str, data: bytes, offset: int, identity: bytes, is_newest: bool) -> int | None:
        """No batch header where one must be. Returns where the next batch starts, None if there is none."""
        following = next_batch(data, offset + SECTOR, identity, self.end.sequence)
        if following is None and is_newest and is_unwritten(data, offset):
            self.cut = offset
            return None
        self._damage_all(path, offset, "the header of a batch is unreadable")
        self.place_lost = True
        self.end = attrs.evolve(self.end, usable=False)
        return following

    def _read_batch(self, path: str, data: bytes, offset: int, header: BatchHeader, is_newest: bool) -> bool:
        """Read one batch whose header is good. Returns False if it was torn."""
        group_ids = decode_group_ids(data, offset, header)
        if group_ids is not None and body_matches(data, offset, header):
            start = offset + header.body_offset
            try:
                self.table.apply(Body(set(group_ids), self.end.number, offset, data, start, start + header.body_bytes, 0))
            except BadBytesError as error:
                self.table.damage_batch(group_ids, self.end.number, offset, str(error))
            return True
        if is_newest and is_torn(data, offset, header):
            self.cut = offset
            return False
        self.end = attrs.evolve(self.end, usable=False)
        if group_ids is None:
            self._damage_all(path, offset, f"the list of groups of batch {header.sequence} does not match its checksum")
        else:
            self.table.damage_batch(group_ids, self.end.number, offset, f"batch {header.sequence} does not match its checksum")
        return True

    def check_least(self, least: LogEnd) -> None:
        """Files and batches that were there at an earlier start must be there still."""
        if self.end.number < least.number:
            self._damage_all(posixpath.join(self.directory, log_name(least.number)), 0, "the file is missing")
            self.table.add_file(least.number)
        elif self.end.sequence < least.sequence and not self.place_lost:
            text = f"the log ends with batch {self.end.sequence}; batch {least.sequence} was there at the last start"
            self._damage_all(posixpath.join(self.directory, log_name(self.end.number)), self.end.size, text)
        else:
            return
        # What is written next takes neither the name nor the number of what is missing: so it will be missed again.
        number, sequence = max(self.end.number, least.number), max(self.end.sequence, least.sequence)
        self.end = attrs.evolve(self.end, number=number, sequence=sequence, usable=False)
        self.cut = None

    def _damage_all(self, path: str, offset: int, text: str) -> None:
        self.table.damage_all(CorruptLogError(path, offset, text))

    # -- the end ------------------------------------------------------------------------------------------------------------------

    def check_rows(self) -> None:
        """After the last file: each group is whole, or refused."""
        table = self.table
        if table.skips_unknown:
            # What is missed comes before all that was read: so it does not matter to whoever was made anew in it.
            missed = "the log does not begin with its first file, and no later one begins with a checkpoint of all groups"
            table.damage = table.damage or CorruptLogError(table.files.path_of(table.files.numbers[0]), 0, missed)
        table.refuse_unknown()
        for row in table.rows.values():
            if row.failure is None and not row.healed and table.damage is not None:
                table.fail(row, table.damage)
            elif row.is_living and (text := row.find_loss()) is not None:
                table.fail(row, CorruptLogError(table.files.path_of(table.files.numbers[0]), 0, text))
