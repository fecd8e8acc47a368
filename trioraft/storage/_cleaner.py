"""The cleaner: one task that keeps the log of all groups short, and the groups' own directories tidy.

A log file can go when no restart needs it: when no entry in it counts any more, a newer file begins with a whole checkpoint, and all
older files are gone. Most files come to that by themselves, because groups compact their logs. What is still needed is moved out of the
oldest file, a group at a time: a small remainder is *carried* into the newest file, a larger one goes to rest in a file of the group's own.
The log says where it is now, and only when that is durable does the old place count no more.

When to move: not before two newer files are there. A busy group fills a file in seconds, and its next snapshot frees what it wrote; moved
any earlier, entries would be copied that are about to go. The measure is bytes and not time, because a quiet node gains nothing by waiting,
and the price is known: one more file on the disk.

What it does comes in small steps, with one sync of its own at a time. Whatever only removes things comes first, so that a full disk does
not stop what would make room. Nothing that fails is fatal: the file stays where it is, `trouble` says why, and after a while the cleaner
tries again. Removing and moving each have their own trouble: a directory that cannot be tidied stops no move. Nor does one in which no
file can be made: what should go to rest there is carried, as long as that fills no more than a part of a file. While any group is damaged,
no log file and no directory is removed and nothing is moved: it could be all that is left.
"""

from __future__ import annotations

from functools import partial

import attrs
import trio

from .._errors import InvariantError, RaftError, StorageError
from .._types import GroupId, GroupKey, Index
from ..core import Entry
from ._committer import Committer, Mark
from ._disk import Disk
from ._folder import translated
from ._group_directory import GroupDirectories
from ._log_file import LogFile
from ._log_reader import LogReader
from ._move import Move, extended, extents_of, find_move
from ._row import Row
from ._segment import encode_at_rest, encode_carried
from ._table import Table
from ._trouble import Trouble

NEWER_FILES_MIN = 2
"""So many files are newer than one that is emptied."""
CARRY_BYTES_MAX = 16 << 10
"""The largest remainder that is carried: a file of its own costs several syncs."""
CARRY_PART = 8
"""One part in so many of a file may be filled with what is carried out of one other, or carrying would never end."""
REFUSED_PART = 2
"""The same for all that is carried, if a group's directory takes no file: each file still holds something new, so that comes to an end."""
TOLD_BYTES_MIN = 256 << 10
"""Moves are told to the log together, with `MARK_BYTES` for each: one sync for many."""
IN_FLIGHT_BYTES_MAX = 1 << 20
"""What the log has not confirmed of it."""
MARK_BYTES = 1 << 10
SETTLE_SECONDS = 1.0
"""So often is looked whether the disk became full under a mark that is waited for."""


@attrs.frozen
class CleanerStatistics:
    """What the cleaner has done since the start."""

    log_files: int
    """Files of the log now."""
    files_removed: int
    """Log files."""
    bytes_carried: int
    bytes_at_rest: int
    directories_left: tuple[str, ...]
    """Directories of removed groups that hold what is not ours."""
    trouble: str | None
    """What it could not do when it last tried."""


class Cleaner:
    """Removes what nobody needs any more; see the top of the file."""

    def __init__(
        self, disk: Disk, log: LogFile, table: Table, committer: Committer, reader: LogReader, directories: GroupDirectories
    ) -> None:
        self._disk, self._log, self._table, self._committer = disk, log, table, committer
        self._reader, self._directories = reader, directories
        directories.on_left = self.wake
        self._wake = trio.Event()
        self._untidy: dict[GroupId, None] = {}
        self._untidy_later: dict[GroupId, None] = {}
        # Groups whose entries were moved, and the log does not say so yet.
        self._in_flight: set[GroupId] = set()
        self._in_flight_bytes = 0
        # Those of which the log has not even been told, and what it is to be told.
        self._untold: list[tuple[GroupId, bytes]] = []
        self._untold_bytes = 0
        # The oldest file, what was carried out of it, and who had entries in it when last looked at.
        self._file = self._carried = 0
        self._needed_by: set[GroupId] = set()
        self._to_move: list[GroupId] = []
        self._has_moved = False
        self._removing, self._moving = Trouble(), Trouble()
        # Why something was carried that should have gone to rest.
        self._refused: StorageError | None = None
        self._files_removed = self._bytes_carried = self._bytes_at_rest = 0

    # -- what others call: nothing here waits -----------------------------------------------------------------------------------------

    def wake(self) -> None:
        """A new file has its checkpoint, or a group was removed: there may be something to do."""
        self._wake.set()

    def tidy(self, group_id: GroupId) -> None:
        """The beginning of a group's log was cut, durably: there may be files that it needs no more."""
        self._untidy[group_id] = None
        self._wake.set()

    def statistics(self) -> CleanerStatistics:
        trouble = self._moving.error or self._removing.error or self._refused
        return CleanerStatistics(
            log_files=len(self._table.files),
            files_removed=self._files_removed,
            bytes_carried=self._bytes_carried,
            bytes_at_rest=self._bytes_at_rest,
            directories_left=tuple(self._directories.foreign),
            trouble=None if trouble is None else str(trouble),
        )

    # -- the task -----------------------------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Clean until cancelled, or until the log has failed.

        *Cancellation:* at any point; the next start goes on.
        """
        while self._committer.failure is None:
            self._wake = trio.Event()
            await self._clean()
            with trio.move_on_at(min(self._removing.retry_at, self._moving.retry_at)):
                await self._wake.wait()

    async def _clean(self) -> None:
        """Do all that can be done now. What has to wait for the log wakes the cleaner when it is through.

        What failed lately is not tried again yet, however often groups compact their logs.
        """
        if self._removing.may_try():
            self._untidy.update(self._untidy_later)
            self._untidy_later.clear()
            await self._remove_directories()
        await self._tidy_groups()
        await self._remove_files()
        if self._moving.may_try():
            await self._move_all()

    # -- what only removes ----------------------------------------------------------------------------------------------------------------

    async def _remove_directories(self) -> None:
        """Those of removed groups."""
        leftovers = self._directories.leftovers
        if leftovers and self._table.has_damage:
            return
        for group_id in leftovers:
            try:
                await self._directories.remove(group_id)
            except StorageError as error:
                self._removing.note(error)

    async def _tidy_groups(self) -> None:
        """Remove snapshots and files at rest that a log needs no more."""
        for group_id in list(self._untidy):
            # While the log does not say yet what was moved where, there may be a file at rest that no row knows.
            if group_id not in self._in_flight:
                del self._untidy[group_id]
                await self._tidy_group(group_id)

    async def _tidy_group(self, group_id: GroupId) -> None:
        row = self._table.rows.get(group_id)
        if row is None or row.key is None or not row.is_living:
            return
        directory = self._directories.of(row.key)
        try:
            # NB: as of before the log is settled. What the row forgets later, a power cut may bring back.
            snapshot, kept = row.snapshot, {each.name for each in row.at_rest}
            await self._settle()
            await directory.snapshots.prune(snapshot)
            await directory.at_rest.prune(kept)
        except StorageError as error:
            if self._is_current(row):
                self._untidy_later[group_id] = None
                self._removing.note(error)

    async def _remove_files(self) -> None:
        """Remove log files, the oldest first, each durably before the next one: a power cut must not leave a hole."""
        while self._is_emptied() and (removable := self._table.removable()):
            path = self._table.path_of(removable[0])
            try:
                await self._settle()
                with translated(path):
                    await self._disk.remove(path)
                    await self._disk.sync_directory(self._log.directory)
            except StorageError as error:
                self._removing.note(error)
                return
            self._table.remove_file(removable[0])
            self._reader.forget(removable[0])
            self._files_removed += 1

    def _is_emptied(self) -> bool:
        """Whether nobody needs the oldest file. Cheap, because it is asked whenever a group has compacted its log."""
        oldest, *newer = self._table.files
        if oldest != self._file:
            self._file, self._carried = oldest, 0
            self._needed_by, self._to_move = set(), []
        while self._needed_by:
            row = self._table.rows.get(group_id := self._needed_by.pop())
            if row is not None and row.is_in(oldest):
                self._needed_by.add(group_id)
                return False
        # Others may have come while it was the newest file.
        self._needed_by = set(self._table.groups_in(oldest)) if newer else set()
        return bool(newer) and not self._needed_by

    async def _settle(self) -> None:
        """Make durable what the table knows. With `sync_on_write` it is; otherwise a mark brings a sync of all that came before it.

        A full disk takes no mark, but then nothing is left to be synced: cutting off what found no space was a sync, too.
        """
        group_id = next(iter(self._table.rows), None)
        if self._log.sync_on_write or group_id is None or self._committer.is_full:
            return
        mark = Mark()
        self._committer.submit(group_id, b"", mark=mark)
        while not self._committer.is_full:
            with trio.move_on_after(SETTLE_SECONDS):
                await mark.wait()
                return

    # -- what moves -----------------------------------------------------------------------------------------------------------------------

    async def _move_all(self) -> None:
        """Empty the oldest file, as far as its turn has come. Ends early where the log has to confirm something first."""
        self._has_moved = True
        if len(self._table.files) <= NEWER_FILES_MIN or self._table.has_damage:
            return
        while self._may_move() and (self._to_move or self._look_again()):
            await trio.lowlevel.checkpoint()
            await self._move_next(self._to_move.pop())
            await self._tidy_groups()
            if not self._to_move or self._untold_bytes >= TOLD_BYTES_MIN:
                self._tell()
        self._tell()

    def _may_move(self) -> bool:
        """Whether the disk has room, and the log takes more."""
        if self._committer.failure is not None:
            return False
        if self._committer.is_full:
            self._moving.note(StorageError("full", self._log.directory, "nothing is moved while the disk is full"))
        trouble = self._moving.error
        is_full = isinstance(trouble, StorageError) and trouble.kind == "full"
        return not is_full and self._in_flight_bytes <= IN_FLIGHT_BYTES_MAX

    def _look_again(self) -> bool:
        """See who is still in the oldest file, once all that was moved is confirmed. Returns whether there is anything to be moved."""
        if self._in_flight or self._moving.error is not None or not self._has_moved:
            return False
        self._has_moved = False
        self._to_move = [] if self._is_emptied() else self._table.groups_in(self._file)
        return bool(self._to_move)

    async def _move_next(self, group_id: GroupId) -> None:
        """Move a group's entries out of the oldest file, as far as one move reaches."""
        row = self._table.rows.get(group_id)
        if row is None or row.key is None or not row.is_living or group_id in self._in_flight:
            return
        move = find_move(row, self._file)
        if move is None:
            return
        try:
            if move.size <= min(CARRY_BYTES_MAX, self._log.file_size_max // CARRY_PART - self._carried):
                await self._carry(row, row.key, move)
            else:
                await self._rest_or_carry(row, row.key, move)
        except RaftError as error:
            if self._is_current(row):
                self._moving.note(error)

    async def _rest_or_carry(self, row: Row, key: GroupKey, move: Move) -> None:
        """One group's directory in which no file can be made must not keep the log files of all."""
        try:
            await self._rest(row, key, extended(row, move, self._table.files[-1]))
        except StorageError as error:
            may_carry = self._carried + min(move.size, TOLD_BYTES_MIN) <= self._log.file_size_max // REFUSED_PART
            if error.kind != "io" or not may_carry or not self._is_current(row):
                raise
            await self._carry(row, key, move)
            self._refused = error
        else:
            self._refused = None

    async def _carry(self, row: Row, key: GroupKey, move: Move) -> None:
        """Copy entries into the newest file, as many as the log is told of at once."""
        entries: list[Entry] = []
        size = 0
        while len(entries) <= move.last - move.first and size < TOLD_BYTES_MIN:
            piece = await self._read(row, key, move.first + len(entries), move.last)
            if not piece:
                return
            entries += piece
            size += sum(len(entry.record) for entry in piece)
        if self._is_current(row):
            data = encode_carried(key, entries)
            self._carried += len(data)
            self._bytes_carried += len(data)
            self._submit(key, data)

    async def _rest(self, row: Row, key: GroupKey, move: Move) -> None:
        """Copy entries into a file of the group's own."""
        position = self._log.end.sequence
        writer = await self._directories.of(key).at_rest.create(move.first)
        try:
            following = move.first
            while following <= move.last:
                piece = await self._read(row, key, following, move.last)
                if not piece:
                    return
                await writer.append(piece)
                following = piece[-1].index + 1
            await self._settle()
            if not self._is_current(row):
                return
            if any(each.origin == move.first for each in row.at_rest):
                raise InvariantError(f"entries of {key} in {move.first}.log still count; it cannot be replaced")
            header = await writer.commit(position)
        finally:
            await writer.discard()  # noqa: ASYNC102  # it does its work when cancelled, too
        self._bytes_at_rest += header.size
        self._submit(key, encode_at_rest(key, move.first, move.last, header.size, writer.runs))

    async def _read(self, row: Row, key: GroupKey, first: Index, last: Index) -> list[Entry]:
        """Read a piece; [] if the log does not have it in its files any more."""
        extents = extents_of(row, first, last)
        if not extents:
            return []
        try:
            return await self._reader.read(key, extents, row.terms.at, sum(extent.length for extent in extents))
        except StorageError:
            # The log goes on meanwhile. What was to be read may have been cut off or replaced; otherwise it is damage.
            if self._is_current(row) and extents == extents_of(row, first, last):
                raise
            return []

    def _submit(self, key: GroupKey, data: bytes) -> None:
        """Let the log say, soon, where the entries are now."""
        self._has_moved = True
        self._in_flight.add(key.group_id)
        self._in_flight_bytes += len(data) + MARK_BYTES
        self._untold.append((key.group_id, data))
        self._untold_bytes += len(data) + MARK_BYTES

    def _tell(self) -> None:
        untold, self._untold, self._untold_bytes = self._untold, [], 0
        for group_id, data in untold:
            self._committer.submit(group_id, data, mark=Mark(on_end=partial(self._land, group_id, len(data) + MARK_BYTES)))

    def _land(self, group_id: GroupId, size: int) -> None:
        """The log says where the entries are now; or their group, or the log, has failed."""
        self._in_flight.discard(group_id)
        self._in_flight_bytes -= size
        self._wake.set()

    def _is_current(self, row: Row) -> bool:
        """Whether the group is still the one that it was, and well."""
        return self._table.rows.get(row.group_id) is row and row.is_living
