"""Which entry has which term, for a whole log, without the entries.

Terms change seldom, so a log is a few *runs* of entries of one term: the first index of each is all there is to remember. A replica
knows so the term of every entry that it has, also of those that are on its disk only; and a storage knows it of every group.

The entry before the first is known too: position and term of the last one that was cut off (`start`), or 0@0.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from .._errors import InvariantError
from .._types import NOTHING, EntryId, Index, Term


class Terms:
    """The terms of the entries in ``(start.index, last_index]``, and of `start` itself."""

    __slots__ = ("_firsts", "_terms", "last_index", "newest")

    def __init__(self, start: EntryId = NOTHING, runs: Iterable[tuple[Index, Term]] = (), last_index: Index | None = None) -> None:
        """
        Args:
            runs: first index and term of each run behind `start`, in order; a first run that goes on with `start`'s own term need not
                be named.
            last_index: where the log ends; None: with `start`.

        Raises:
            InvariantError: the runs do not follow each other, or a term falls.
        """
        # The first run begins with `start` itself.
        self._firsts: list[Index] = [start.index]
        self._terms: list[Term] = [start.term]
        self.last_index: Index = start.index if last_index is None else last_index
        for first, term in runs:
            if not self._firsts[-1] < first <= self.last_index or term < self._terms[-1]:
                raise InvariantError(
                    f"a run of term {term} from {first} does not fit behind term {self._terms[-1]} from {self._firsts[-1]}"
                )
            self._firsts.append(first)
            self._terms.append(term)
        self.newest: Term = self._terms[-1]
        """The term of the last entry."""

    def copy(self) -> Terms:
        return Terms(self.start, self.runs, self.last_index)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Terms):
            return NotImplemented
        return (self._firsts, self._terms, self.last_index) == (other._firsts, other._terms, other.last_index)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Terms({self.start}, {self.runs}, {self.last_index})"

    @property
    def start(self) -> EntryId:
        """The entry before the first that is there; 0@0 if none was ever cut off."""
        return EntryId(self._terms[0], self._firsts[0])

    @property
    def start_index(self) -> Index:
        return self._firsts[0]

    @property
    def last(self) -> EntryId:
        return EntryId(self.newest, self.last_index)

    @property
    def runs(self) -> tuple[tuple[Index, Term], ...]:
        """First index and term of each run; one that goes on with `start`'s own term is left out."""
        return tuple(zip(self._firsts[1:], self._terms[1:], strict=True))

    def at(self, index: Index) -> Term:
        """The term of an entry; 0 before `start` and beyond the last."""
        if not self._firsts[0] <= index <= self.last_index:
            return 0
        # Nearly always asked of the end of the log.
        return self.newest if index >= self._firsts[-1] else self._terms[bisect_right(self._firsts, index) - 1]

    def find(self, index: Index, term: Term) -> Index:
        """The largest index up to `index` with a term of at most `term`; `start`'s index if there is none behind it."""
        run = bisect_right(self._terms, term)
        if run == len(self._terms):
            return min(index, self.last_index)
        return max(min(index, self._firsts[run] - 1), self._firsts[0])

    def extend(self, last: Index, term: Term) -> None:
        """The log goes on up to `last`, with entries of `term`.

        Raises:
            InvariantError: it ends there already, or the term falls.
        """
        if last <= self.last_index or term < self.newest:
            raise InvariantError(f"entries of term {term} up to {last} cannot follow {self.last}")
        # NB: the run of `start` may be of one entry that is not there: what follows it with the same term belongs to it.
        if term > self.newest:
            self._firsts.append(self.last_index + 1)
            self._terms.append(term)
            self.newest = term
        self.last_index = last

    def truncate(self, last_index: Index) -> None:
        """Cut off what is above `last_index`, which is not below `start`."""
        if not self._firsts[0] <= last_index:
            raise InvariantError(f"a log that begins behind {self.start} cannot end with {last_index}")
        if last_index >= self.last_index:
            return
        self.last_index = last_index
        keep = bisect_right(self._firsts, last_index)
        del self._firsts[keep:], self._terms[keep:]
        self.newest = self._terms[-1]

    def compact(self, index: Index) -> None:
        """Cut off what is at or below `index`, which the log has; an index that is cut off already changes nothing."""
        if index <= self._firsts[0]:
            return
        if index > self.last_index:
            raise InvariantError(f"a log that ends with {self.last} cannot begin behind {index}")
        run = bisect_right(self._firsts, index) - 1
        del self._firsts[:run], self._terms[:run]
        self._firsts[0] = index

    def reset(self, start: EntryId) -> None:
        """Empty: what follows, follows `start`."""
        self._firsts, self._terms, self.newest, self.last_index = [start.index], [start.term], start.term, start.index
