"""The part of an inspection that finds each entry where the log says that it is."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b

from .._types import GroupKey
from ..core import Entry
from ._extents import Extent
from ._inspection_look import Look
from ._row import Row


def digest_of(entry: Entry) -> int:
    return int.from_bytes(blake2b(entry.record, digest_size=8).digest(), "little") or 1


class EntrySearch:
    """Finds the entries that should be in one log file."""

    def __init__(self, look: Look, path: str, number: int, rows: Sequence[Row]) -> None:
        self._look, self._path = look, path
        # By the offset of their records.
        self._wanted: dict[int, list[tuple[Row, Extent]]] = {}
        for row in rows:
            for extent in row.extents_in(number) if row.is_living else ():
                self._wanted.setdefault(extent.offset, []).append((row, extent))

    def take(self, key: GroupKey, offset: int, entries: Sequence[Entry]) -> None:
        for row, extent in self._wanted.pop(offset, ()):
            first = entries[0].index if entries else 0
            counting = entries[extent.first - first : extent.last - first + 1]
            ids = [(entry.index, entry.term) for entry in counting]
            if key != row.key or ids != [(index, row.terms.at(index)) for index in range(extent.first, extent.last + 1)]:
                self._miss(row, extent, offset)
                continue
            digests, place = self._look.report.groups[row.group_id].digests, extent.first - row.terms.start.index - 1
            digests[place : place + len(counting)] = array("Q", map(digest_of, counting))

    def finish(self) -> None:
        for offset, wanted in self._wanted.items():
            for row, extent in wanted:
                self._miss(row, extent, offset)

    def _miss(self, row: Row, extent: Extent, offset: int) -> None:
        text = f"entries {extent.first} to {extent.last} of {row.key} should be here, and are not"
        self._look.report.groups[row.group_id].is_damaged = True
        self._look.find(self._path, offset, text, row.group_id)
