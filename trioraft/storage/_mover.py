"""The mover: it empties the oldest file of the log, so that the cleaner can remove it.

Most files come to that by themselves, because groups compact their logs. What is still needed is moved out of the oldest file, a group at
a time: a small remainder is *carried* into the newest file, a larger one goes to rest in a file of the group's own. The log says where it
is now, and only when that is durable does the old place count no more.

When to move: not before two newer files are there. A busy group fills a file in seconds, and its next snapshot frees what it wrote; moved
any earlier, entries would be copied that are about to go. The measure is bytes and not time, because a quiet node gains nothing by waiting,
and the price is known: one more file on the disk.

One directory in which no file can be made stops nothing: what should go to rest there is carried, as long as that fills no more than a
part of a file. While any group is damaged, nothing is moved: it could be all that is left.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

from .._errors import InvariantError, RaftError, StorageError
from .._types import GroupId, GroupKey, Index
from ..core import Entry
from ._committer import Committer, Mark
from ._group_directory import GroupDirectories
from ._log_file import LogFile
from ._log_reader import LogReader
from ._move import Move, extended, extents_of, find_move
from ._oldest_file import OldestFile
from ._row import Row
from ._segment import encode_at_rest, encode_carried
from ._settling import settle
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


class Mover:
    """Moves entries out of the oldest file; see the top of the file.

    Args:
        on_confirmed: called when the log says where something is now.
    """

    def __init__(
        self,
        log: LogFile,
        table: Table,
        committer: Committer,
        reader: LogReader,
        directories: GroupDirectories,
        oldest: OldestFile,
        on_confirmed: Callable[[], None],
    ) -> None:
        self._log, self._table, self._committer, self._reader = log, table, committer, reader
        self._directories, self._oldest, self._on_confirmed = directories, oldest, on_confirmed
        self.trouble = Trouble()
        self.refused: StorageError | None = None
        """Why something was carried that should have gone to rest."""
        self.bytes_carried = self.bytes_at_rest = 0
        """Since the start."""
        self.in_flight: set[GroupId] = set()
        """Groups whose entries were moved, and the log does not say so yet."""
        self._in_flight_bytes = 0
        # Those of which the log has not even been told, and what it is to be told.
        self._untold: list[tuple[Row, bytes]] = []
        self._untold_bytes = 0
        # The oldest file, what was carried out of it, and whose entries are still to be moved.
        self._file = self._carried = 0
        self._to_move: list[GroupId] = []
        self._has_moved = False

    def begin(self) -> bool:
        """Whether the turn of the oldest file has come, as far as what failed lately is to be tried again."""
        if not self.trouble.may_try():
            return False
        self._has_moved = True
        oldest, *newer = self._table.files.numbers
        if oldest != self._file:
            self._file, self._carried, self._to_move = oldest, 0, []
        return len(newer) >= NEWER_FILES_MIN and not self._table.has_damage

    async def move(self) -> bool:
        """Move entries of one group. False: there is nothing to be moved, or the log has to confirm something first."""
        is_moving = self._may_move() and (bool(self._to_move) or self._look_again())
        if is_moving:
            await trio.lowlevel.checkpoint()
            await self._move_next(self._to_move.pop())
        if not self._to_move or self._untold_bytes >= TOLD_BYTES_MIN or not is_moving:
            self._tell()
        return is_moving

    def _may_move(self) -> bool:
        """Whether the disk has room, and the log takes more."""
        if self._committer.failure is not None:
            return False
        if self._committer.is_full:
            self.trouble.note(StorageError("full", self._log.directory, "nothing is moved while the disk is full"))
        trouble = self.trouble.error
        is_full = isinstance(trouble, StorageError) and trouble.kind == "full"
        return not is_full and self._in_flight_bytes <= IN_FLIGHT_BYTES_MAX

    def _look_again(self) -> bool:
        """See who is still in the oldest file, once all that was moved is confirmed. Returns whether there is anything to be moved."""
        if self.in_flight or self.trouble.error is not None or not self._has_moved:
            return False
        self._has_moved = False
        self._to_move = [] if self._oldest.is_emptied() else self._table.files.groups_in(self._file)
        return bool(self._to_move)

    async def _move_next(self, group_id: GroupId) -> None:
        """Move a group's entries out of the oldest file, as far as one move reaches."""
        row = self._table.rows.get(group_id)
        if row is None or row.key is None or not row.is_living or group_id in self.in_flight:
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
                self.trouble.note(error)

    async def _rest_or_carry(self, row: Row, key: GroupKey, move: Move) -> None:
        """One group's directory in which no file can be made must not keep the log files of all."""
        try:
            await self._rest(row, key, extended(row, move, self._table.files.numbers[-1]))
        except StorageError as error:
            may_carry = self._carried + min(move.size, TOLD_BYTES_MIN) <= self._log.file_size_max // REFUSED_PART
            if error.kind != "io" or not may_carry or not self._is_current(row):
                raise
            await self._carry(row, key, move)
            self.refused = error
        else:
            self.refused = None

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
            self.bytes_carried += len(data)
            self._submit(row, data)

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
            await settle(self._log, self._table, self._committer)
            if not self._is_current(row):
                return
            if any(each.origin == move.first for each in row.at_rest):
                raise InvariantError(f"entries of {key} in {move.first}.log still count; it cannot be replaced")
            header = await writer.commit(position)
        finally:
            await writer.discard()  # noqa: ASYNC102  # it does its work when cancelled, too
        self.bytes_at_rest += header.size
        self._submit(row, encode_at_rest(key, move.first, move.last, header.size, writer.runs))

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

    def _submit(self, row: Row, data: bytes) -> None:
        """Let the log say, soon, where the entries are now."""
        self._has_moved = True
        self.in_flight.add(row.group_id)
        self._in_flight_bytes += len(data) + MARK_BYTES
        self._untold.append((row, data))
        self._untold_bytes += len(data) + MARK_BYTES

    def _tell(self) -> None:
        untold, self._untold, self._untold_bytes = self._untold, [], 0
        for row, data in untold:
            land = partial(self._land, row.group_id, len(data) + MARK_BYTES)
            if self._is_current(row):
                self._committer.submit(row.group_id, data, mark=Mark(on_end=land))
            else:
                # NB: the group may be there again, with the same key and a directory of its own. What is submitted before that is behind
                # the tombstone of the former life at the latest, where it says nothing.
                land()

    def _land(self, group_id: GroupId, size: int) -> None:
        """The log says where the entries are now; or their group, or the log, has failed."""
        self.in_flight.discard(group_id)
        self._in_flight_bytes -= size
        self._on_confirmed()

    def _is_current(self, row: Row) -> bool:
        """Whether the group is still the one that it was, and well."""
        return self._table.rows.get(row.group_id) is row and row.is_living
