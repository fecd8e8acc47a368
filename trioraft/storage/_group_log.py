"""One group's part of the shared log."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import trio

from .._errors import CorruptLogError, InvariantError, StorageError
from .._types import Index, Member
from ..core import Compaction, Entry, HardState, InstallSnapshot, LoadEntries
from ..wire import RECORD_HEADER_SIZE
from ._committer import Committer, Mark
from ._contract import SnapshotStorage, WriteListener
from ._extents import Extent
from ._group_directory import GroupDirectory
from ._held_log import HeldLog
from ._log_reader import LogReader
from ._row import AtRest, Row
from ._segment import WRITE_BYTES_MAX, encode_compacted, encode_write
from ._table import Table


@attrs.define(eq=False)
class GroupLog(HeldLog):
    """Writes through the committer, reads through the table: for one life of a replica, which ends with its row.

    Args:
        on_compacted: called once the log is cut, durably: files below its beginning may go.
    """

    row: Row
    committer: Committer
    table: Table
    reader: LogReader
    directory: GroupDirectory
    on_compacted: Callable[[], None]

    def _attach(self, listener: WriteListener) -> None:
        self.committer.attach(self.key.group_id, listener)

    def _write(
        self, sequence: int, hard_state: HardState | None, entries: Sequence[Entry], install: InstallSnapshot | None, me: Member | None
    ) -> None:
        data = encode_write(self.key, hard_state, entries, install, me)
        if len(data) > WRITE_BYTES_MAX:
            raise InvariantError(f"a write of {len(data)} bytes is larger than the log can hold")
        self.committer.submit(self.key.group_id, data, sequence)

    def _compact(self, compaction: Compaction) -> None:
        self.committer.submit(self.key.group_id, encode_compacted(self.key, compaction), mark=Mark(self.on_compacted))

    @property
    def snapshots(self) -> SnapshotStorage:
        return self.directory.snapshots

    # -- reading ------------------------------------------------------------------------------------------------------------------

    async def read(self, load: LoadEntries) -> tuple[Entry, ...]:
        await trio.lowlevel.checkpoint()
        found: list[Entry] = []
        room, has_room = load.bytes_max, True
        while has_room and (not found or found[-1].index < load.last):
            piece, has_room = await self._read_piece(found[-1].index + 1 if found else load.first, load.last, max(room, 0))
            if not piece or (found and len(piece[0].payload) > room):
                break
            found += piece
            room -= sum(len(entry.payload) for entry in piece)
            has_room = has_room and room >= 0
        row = self._row()
        while found and not row.still_has(found[-1].id):
            found.pop()
        return tuple(found)

    async def _read_piece(self, first: Index, last: Index, bytes_max: int) -> tuple[Sequence[Entry], bool]:
        """Entries from one file at rest, or from several places in log files that are read together; and whether more may fit.

        None, if the log does not have the first.
        """
        while plan := self._plan(first, last, bytes_max):
            try:
                entries = await self._read_places(plan, bytes_max)
            except StorageError:
                # The log goes on meanwhile: what was to be read may have been moved, cut off or replaced. Otherwise it is damage.
                if plan == self._plan(first, last, bytes_max):
                    raise
            else:
                return entries, entries[-1].index == plan[-1].last
        return (), False

    def _plan(self, first: Index, last: Index, bytes_max: int) -> list[Extent | AtRest]:
        """Where the next entries are, as many as may fit: several extents, or one file at rest."""
        row, plan, size = self._row(), list[Extent | AtRest](), 0
        if first <= row.terms.start.index:
            return plan
        for place in row.places(first):
            if place.first > last or (plan and (size > bytes_max or isinstance(place, AtRest))):
                break
            plan.append(place._replace(first=max(place.first, first), last=min(place.last, last)))
            if isinstance(place, AtRest):
                break
            size += place.length - RECORD_HEADER_SIZE * (place.last - place.first + 1)
        return plan

    async def _read_places(self, plan: list[Extent | AtRest], bytes_max: int) -> Sequence[Entry]:
        if isinstance(plan[0], AtRest):
            return await self._read_at_rest(plan[0], bytes_max)
        extents = [place for place in plan if isinstance(place, Extent)]
        return await self.reader.read(self.key, extents, self._row().terms.at, bytes_max)

    async def _read_at_rest(self, place: AtRest, bytes_max: int) -> Sequence[Entry]:
        files = self.directory.at_rest
        entries = await files.read(place, place.first, place.last, bytes_max)
        terms = self._row().terms
        for entry in entries:
            if entry.term != terms.at(entry.index):
                text = f"entry {entry} of {self.key} is where {entry.index}@{terms.at(entry.index)} was"
                raise CorruptLogError(files.path(place.origin), 0, text)
        return entries

    def _row(self) -> Row:
        # NB: by identity. Another life of the same group may have taken its place.
        if self.table.rows.get(self.key.group_id) is not self.row:
            raise StorageError("removed", self.table.files.path_of(self.table.files.numbers[-1]), f"{self.key} was removed")
        if self.row.failure is not None:
            raise self.row.failure
        return self.row
