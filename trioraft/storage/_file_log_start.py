"""Reading one group's directory of `FileStorage` at a start. Changes nothing.

The rules are those of the shared log (`_recovery`): the last batch of the newest file is *torn* if the file ends inside it, or if more
of its sectors read as zeros than were written as zeros; nobody was told of it, and it is dropped. Anything else that does not match its
checksum is *damage*: it may have been confirmed, so the group is refused, with file and offset, and nothing is cut.
"""

from __future__ import annotations

import posixpath

import attrs
import trio

from .._errors import CorruptLogError
from .._types import NOTHING, GroupId
from ._batch import (
    SECTOR,
    BadBytesError,
    BatchHeader,
    body_matches,
    decode_batch_header,
    decode_file_header,
    decode_group_ids,
    is_torn,
    is_unwritten,
    next_batch,
    own_file_header,
)
from ._disk import Disk
from ._file_log import FileLog, file_number
from ._row import Tombstone
from ._segment import SegmentKind, decode_number, decode_segment_header
from ._vote_file import VOTE_NAME, VoteFile, decode_vote_file

# A checkpoint of the event loop for each so many batches: a long start can be cancelled.
BATCHES_PER_CHECKPOINT = 64


async def read_file_log(disk: Disk, log: FileLog, group_id: GroupId) -> int | None:
    """Read what a group's directory says into `log`; a row that is damaged says so.

    Returns:
        Where the newest file is to be cut, because its last batch is torn; None: nowhere.

    Raises:
        StorageError: ``format``: a file of a later version.
        OSError: a file cannot be read.
    """
    reader = _Reader(disk, log, group_id)
    try:
        await reader.read()
    except CorruptLogError as error:
        log.row.fail(error)
        await reader.find_life()
        return None
    return reader.cut


@attrs.define(eq=False)
class _Reader:
    disk: Disk
    log: FileLog
    group_id: GroupId
    cut: int | None = None

    async def read(self) -> None:
        log = self.log
        try:
            names = await self.disk.list_directory(log.directory)
        except FileNotFoundError:
            return
        numbers = sorted(number for name in names if (number := file_number(name)) is not None)
        vote_file = await self._read_vote_file(numbers)
        if vote_file is None:
            return
        log.row, log.vote_file = vote_file.row, vote_file.first_file
        if vote_file.row.record is None:
            return  # a tombstone: whatever else there is, is left over
        self._check_files(numbers, vote_file)
        for number in numbers:
            await self._read_file(number, vote_file, is_newest=number == numbers[-1])
        self._check_row()

    async def _read_vote_file(self, numbers: list[int]) -> VoteFile | None:
        """None: there is no group."""
        path = posixpath.join(self.log.directory, VOTE_NAME)
        try:
            data = await self.disk.read_file(path)
        except FileNotFoundError:
            # It is written last when a group is made. So a log in which nothing is yet belongs to none.
            for number in numbers:
                if number > 1 or len(await self.disk.read_file(self.log.path_of(number))) > SECTOR:
                    raise CorruptLogError(
                        path, 0, "the file is missing, and its log is there: without its vote the group must not vote"
                    ) from None
            return None
        return decode_vote_file(data, path, self.group_id, self.log.store_id)

    def _check_files(self, numbers: list[int], vote_file: VoteFile) -> None:
        newest = max([*numbers, vote_file.first_file])
        oldest = min([*numbers, vote_file.first_file])
        for number in range(oldest, newest + 1):
            if number not in numbers:
                raise CorruptLogError(self.log.path_of(number), 0, "the file is missing")

    async def find_life(self) -> None:
        """Note the highest incarnation that any good batch names, and number: a replica of it lived here, whoever it was."""
        for name in await self.disk.list_directory(self.log.directory):
            if file_number(name) is None:
                continue
            data = await self.disk.read_file(posixpath.join(self.log.directory, name))
            try:
                self._find_life_in(data)
            except BadBytesError:
                continue  # nothing in it can be relied upon

    def _find_life_in(self, data: bytes) -> None:
        file = decode_file_header(data)
        for offset in range(SECTOR, len(data), SECTOR):
            header = decode_batch_header(data, offset, file.identity)
            if header is not None and decode_group_ids(data, offset, header) == (self.group_id,) and body_matches(data, offset, header):
                start = offset + header.body_offset
                end = start + header.body_bytes
                while start < end:
                    kind, key, content, start = decode_segment_header(data, start, end)
                    number = decode_number(data[content:start]) if kind == SegmentKind.NUMBER else NOTHING
                    life = Tombstone(key, number)
                    self.log.seen = life if self.log.seen is None else max(self.log.seen, life)

    # -- one file -----------------------------------------------------------------------------------------------------------------

    async def _read_file(self, number: int, vote_file: VoteFile, *, is_newest: bool) -> None:
        log, path = self.log, self.log.path_of(number)
        # The newest may hold what was never synced, or what only the cache still has after a failed sync. Older ones were synced.
        data = await self.disk.read_file(path, settle=is_newest)
        header = own_file_header(data, path, log.store_id)
        if header.number != number:
            raise CorruptLogError(path, 0, f"the file was made as number {header.number}")
        if log.files and (header.previous, header.first_sequence) != (log.identity, log.sequence + 1):
            raise CorruptLogError(path, 0, f"the file does not follow the one before it, which ends with batch {log.sequence}")
        if number == vote_file.first_file and header.first_sequence != vote_file.first_sequence:
            text = f"the file begins with batch {header.first_sequence}, {VOTE_NAME} says {vote_file.first_sequence}"
            raise CorruptLogError(path, 0, text)
        log.files.append(number)
        log.identity, log.first_sequence, log.sequence, log.size = header.identity, header.first_sequence, header.first_sequence - 1, SECTOR
        while log.size < len(data) and self.cut is None:
            if log.sequence % BATCHES_PER_CHECKPOINT == 0:
                await trio.lowlevel.checkpoint()
            self._read_batch(path, data, is_newest=is_newest, places_only=number < vote_file.first_file)

    def _read_batch(self, path: str, data: bytes, *, is_newest: bool, places_only: bool) -> None:
        log, offset = self.log, self.log.size
        header = decode_batch_header(data, offset, log.identity)
        if header is None or decode_group_ids(data, offset, header) != (self.group_id,) or not body_matches(data, offset, header):
            if not is_newest or not _is_torn(data, offset, header, log.identity):
                raise CorruptLogError(path, offset, f"batch {log.sequence + 1} does not match its checksum")
            self.cut = offset
            return
        if header.sequence != log.sequence + 1:
            raise CorruptLogError(path, offset, f"batch {header.sequence} follows batch {log.sequence}: something is missing")
        start = offset + header.body_offset
        try:
            log.apply(log.files[-1], data, start, start + header.body_bytes, places_only=places_only)
        except BadBytesError as error:
            raise CorruptLogError(path, offset, str(error)) from None
        log.sequence, log.size = header.sequence, offset + header.size

    def _check_row(self) -> None:
        """In the end the group is whole, or a part of it was lost in a way that no checksum shows."""
        if (text := self.log.row.find_loss()) is not None:
            raise CorruptLogError(self.log.path_of(self.log.files[0]), 0, text)


def _is_torn(data: bytes, offset: int, header: BatchHeader | None, identity: bytes) -> bool:
    """Whether what is at `offset`, in the newest file, is a batch that was being written when the lights went out."""
    if header is None:
        return is_unwritten(data, offset) and next_batch(data, offset + SECTOR, identity, 0) is None
    return is_torn(data, offset, header)
