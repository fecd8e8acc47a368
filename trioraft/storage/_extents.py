"""Where a group's entries are in the log files: one extent for each piece that was written.

A node's log may hold a million small writes, so these are columns of plain numbers and no objects. Extents are in the order of their
entries and never share one. What was cut off at either end of an extent, or moved out of its middle, is still among its records: whoever
reads it passes over what is not between `first` and `last`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import NamedTuple

from .._types import Index


class Extent(NamedTuple):
    """Records in a log file, of which those from `first` to `last` count."""

    first: Index
    last: Index
    file: int
    """The number of the log file."""
    offset: int
    """Where its records start."""
    length: int
    """Their bytes."""


class Extents:
    """All extents of one group, rising."""

    __slots__ = ("_files", "_firsts", "_lasts", "_lengths", "_offsets")

    def __init__(self) -> None:
        self._firsts, self._lasts, self._files, self._offsets, self._lengths = (array("Q") for _ in range(5))

    def __len__(self) -> int:
        return len(self._firsts)

    def __getitem__(self, place: int) -> Extent:
        return Extent(self._firsts[place], self._lasts[place], self._files[place], self._offsets[place], self._lengths[place])

    def append(self, first: Index, last: Index, file: int, offset: int, length: int) -> None:
        """Add one behind all others."""
        self._firsts.append(first)
        self._lasts.append(last)
        self._files.append(file)
        self._offsets.append(offset)
        self._lengths.append(length)

    def insert(self, extent: Extent) -> None:
        """Add one whose entries have no other place: `vacate` comes first."""
        self._insert(bisect_left(self._firsts, extent.first), extent)

    def truncate(self, last: Index) -> None:
        """Drop what is above `last`."""
        keep = bisect_right(self._firsts, last)
        self._delete(keep, len(self))
        if keep and self._lasts[keep - 1] > last:
            self._lasts[keep - 1] = last

    def compact(self, index: Index) -> None:
        """Drop what is at or below `index`."""
        gone = bisect_right(self._lasts, index)
        self._delete(0, gone)
        if len(self) and self._firsts[0] <= index:
            self._firsts[0] = index + 1

    def vacate(self, first: Index, last: Index) -> None:
        """Drop what is from `first` to `last`: these entries are somewhere else."""
        low, high = bisect_left(self._lasts, first), bisect_right(self._firsts, last)
        touched = [self[place] for place in range(low, high)]
        self._delete(low, high)
        for extent in reversed(touched):
            if extent.last > last:
                self._insert(low, extent._replace(first=last + 1))
            if extent.first < first:
                self._insert(low, extent._replace(last=first - 1))

    def is_in(self, file: int) -> bool:
        """Whether any is in that file."""
        return file in self._files

    def in_file(self, file: int) -> list[Extent]:
        """Those in one file."""
        return [self[place] for place, its_file in enumerate(self._files) if its_file == file]

    def place_of(self, index: Index) -> int:
        """The place of the extent that has the entry, or of the first one behind it; `len` if there is none."""
        return bisect_left(self._lasts, index)

    def count(self) -> int:
        """How many entries have a place here."""
        return sum(self._lasts) - sum(self._firsts) + len(self)

    def bytes(self) -> int:
        """What their records take, those that were cut off an extent among them."""
        return sum(self._lengths)

    def _insert(self, place: int, extent: Extent) -> None:
        for column, value in zip((self._firsts, self._lasts, self._files, self._offsets, self._lengths), extent, strict=True):
            column.insert(place, value)

    def _delete(self, low: int, high: int) -> None:
        if low < high:
            for column in (self._firsts, self._lasts, self._files, self._offsets, self._lengths):
                del column[low:high]
