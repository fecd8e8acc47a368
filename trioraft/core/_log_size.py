"""How many bytes of a log are behind an index that is not in memory any more.

What is in memory has running totals, entry by entry (`_log`). Of what leaves memory only *marks* stay: an index, and the total up to
there. Two marks are at most one step apart, or there is a single entry between them; so a size that is counted from the mark at or below
an index is too large by less than a step, and never too small. A step is 64 KiB, or a 64th of all between the first mark and the last,
whichever is more: marks are thinned out when they are too many, so a log of any size has only a few of them. A group that has never let
go of an entry has none.

What a start found on the disk and did not load is only known as a whole. Each of these entries counts as if it took the same.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Final, NamedTuple

from .._types import Index

_STEP: Final = 64 << 10
"""Bytes between two marks, as long as there are few."""
_STEPS: Final = 64
"""So many steps is a log at most, once it is larger than that. Between three marks there is more than a step."""
_MARKS_MAX: Final = 4 * _STEPS


class Mark(NamedTuple):
    entry: Index
    total: int
    """Bytes from some point on, up to the end of that entry."""


_entry, _total = itemgetter(0), itemgetter(1)


class LogSize:
    """The sizes of the entries in ``(start, evicted]`` of a log. Totals are 0 where memory began, and negative before."""

    __slots__ = ("_count", "_first", "_marks", "_size")

    def __init__(self, start: Index, evicted: Index, size: int) -> None:
        """
        Args:
            size: bytes of the entries in ``(start, evicted]``; 0: not known.
        """
        self._first, self._count, self._size = evicted, evicted - start, size if evicted > start else 0
        # NB: a list only once there is something in it: a node has very many logs that never get so far.
        self._marks: list[Mark] | tuple[()] = ()

    def evict(self, evicted: Index, totals: Sequence[int], count: int) -> None:
        """The next `count` entries leave memory.

        Args:
            evicted: the last one that has left before.
            totals: up to the end of that one, and of each that follows it.
        """
        marks = self._marks = self._marks or [Mark(evicted, totals[0])]
        while True:
            entry, total = marks[-1]
            # As far as a step goes, but at least one entry. NB: a step may have become shorter since the last mark.
            place = max(bisect_right(totals, total + self._step(), hi=count + 1) - 1, entry - evicted + 1, 0)
            if place >= count:
                break  # what follows later may still be within the step
            marks.append(Mark(evicted + place, totals[place]))
        if len(marks) > _MARKS_MAX:
            self._thin_out(marks)

    def truncate(self, last_index: Index) -> None:
        """What is above `last_index` is replaced. It can only be what a start found: what has left memory since is committed."""
        if last_index < self._first:
            kept = self._count - (self._first - last_index)
            self._size = self._size * kept // self._count
            self._first, self._count = last_index, kept

    def cut(self, start: Index) -> None:
        """What is at or below `start` is not asked for any more."""
        if self._marks:
            del self._marks[: max(bisect_right(self._marks, start, key=_entry) - 1, 0)]

    def total_at(self, index: Index) -> int:
        """The total up to an entry, or less: so what is behind it is never counted too small."""
        if index < self._first:
            return (index - self._first) * self._size // self._count
        place = bisect_right(self._marks, index, key=_entry)
        return self._marks[place - 1].total if place else 0

    def find(self, total: int) -> Index | None:
        """The first entry at which `total_at` is at least `total`, as if none had been cut off; None: it is beyond all marks."""
        if total > 0:
            place = bisect_left(self._marks, total, key=_total)
            return self._marks[place].entry if place < len(self._marks) else None
        return self._first - (-total * self._count // self._size if self._size else self._count)

    def _step(self) -> int:
        return max(_STEP, (self._marks[-1].total - self._marks[0].total) // _STEPS) if self._marks else _STEP

    def _thin_out(self, marks: list[Mark]) -> None:
        """Keep what is needed for marks at most one step apart, or with a single entry between them."""
        step = self._step()
        kept = marks[:1]
        for mark, following in pairwise(marks):
            if mark is not kept[-1] and following.total > kept[-1].total + step:
                kept.append(mark)
        self._marks = [*kept, marks[-1]]
