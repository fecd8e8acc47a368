"""The log of one replica, as it is in memory.

How far it has come is told by five indexes; each is at most the one on its right, where "disk" and "commit" are two rulers::

    applied <= handed out <= min(commit, persisted)     commit <= last     persisted <= last

*Applied*: the state machine has it. *Handed out*: given to be applied. *Commit*: on a majority, can never change.
*Persisted*: on this replica's own disk.

What is persisted is told by write sequences and never by positions: an entry counts only when the *last* write that touched
its index is complete. Position and term alone can return: 2@1 is written, replaced by 2@2, and written again by a re-elected
leader; the completion of the first write would then vouch for the third.

Sizes are kept as running totals, so that cutting a message, a portion to apply, or asking how much is uncommitted costs a
subtraction or a bisection, whatever the number of entries.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from operator import attrgetter

from .._errors import InvariantError
from .._types import NEVER, NOTHING, EntryId, Index, Term
from ._entry import Entry

UNBOUNDED = 1 << 62
"""As a limit: none."""

_term_of = attrgetter("term")


def is_well_formed(previous: EntryId, entries: Sequence[Entry], term: Term) -> bool:
    """Whether entries can follow `previous` in the log of a leader of `term`: no hole, no falling term, none from the future."""
    if previous.index < 0 or (previous.index == 0) != (previous.term == 0):
        return False
    index, newest = previous.index, previous.term
    for entry in entries:
        index += 1
        if entry.index != index or entry.term < newest:
            return False
        newest = entry.term
    # The first entry follows nothing and still has a term of at least 1.
    return newest <= term and (not entries or entries[0].term > 0)


class Log:
    """Entries from index 1 on, and how far they have come."""

    __slots__ = (
        "_applying",
        "_applying_bytes",
        "_committed_total",
        "_entries",
        "_handed",
        "_totals",
        "_unwritten",
        "_writes",
        "applied_index",
        "commit_index",
        "last_index",
        "persisted_index",
    )

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        """Start from what the disk holds: all of it persisted, nothing known to be committed."""
        if not is_well_formed(NOTHING, entries, NEVER):
            raise InvariantError(f"a log from disk has a hole or falling terms: {', '.join(map(str, entries[:20]))}")
        self.last_index: Index = 0
        self.commit_index: Index = 0
        self.applied_index: Index = 0
        self._entries: list[Entry] = []
        # The payload bytes of everything before entry i; one longer than the entries.
        self._totals: list[int] = [0]
        self._committed_total = 0
        self._extend(entries)
        self._unwritten: Index = self.last_index + 1
        self.persisted_index: Index = self.last_index
        # (sequence, first index) of each write that is not known to be durable, oldest first.
        self._writes: deque[tuple[int, Index]] = deque()
        self._handed: Index = 0
        # (last index, bytes) of each portion handed out and not yet applied, oldest first.
        self._applying: deque[tuple[Index, int]] = deque()
        self._applying_bytes = 0

    # What it holds

    @property
    def last(self) -> EntryId:
        """The position of the last entry: what elections compare."""
        return EntryId(self._entries[-1].term, self.last_index) if self._entries else NOTHING

    def term_at(self, index: Index) -> Term:
        """The term of an entry; 0 before the first and beyond the last."""
        return self._entries[index - 1].term if 0 < index <= self.last_index else 0

    def holds(self, position: EntryId) -> bool:
        """Whether the log agrees with a leader's up to here (paper 5.3: equal index and term mean equal logs up to there)."""
        return 0 <= position.index <= self.last_index and self.term_at(position.index) == position.term

    def slice(self, first: Index, bytes_max: int, entries_max: int = UNBOUNDED) -> tuple[tuple[Entry, ...], int]:
        """Cut entries from `first` on, as many as fit into both limits but at least one; return them and their size."""
        high = self._fit(first, min(self.last_index, first + entries_max - 1), bytes_max)
        return tuple(self._entries[first - 1 : high]), self._totals[high] - self._totals[first - 1]

    @property
    def uncommitted_bytes(self) -> int:
        return self._totals[-1] - self._committed_total

    @property
    def uncommitted_entries(self) -> int:
        return self.last_index - self.commit_index

    # How it grows

    def append(self, entry: Entry) -> None:
        """Add one entry at the end: a leader's own."""
        self._entries.append(entry)
        self._totals.append(self._totals[-1] + len(entry.payload))
        self.last_index += 1

    def merge(self, previous: EntryId, entries: Sequence[Entry]) -> None:
        """Make the log agree with entries that follow `previous`, which it holds. What agrees already stays untouched.

        Raises:
            InvariantError: an entry that is committed here would be replaced; nothing has been changed.
        """
        if previous.index != self.last_index:
            conflict = self.find_conflict(entries)
            if conflict == 0:
                return
            entries = entries[conflict - previous.index - 1 :]
            if conflict <= self.last_index:
                self._truncate(entries[0])
        self._extend(entries)

    def find_conflict(self, entries: Sequence[Entry]) -> Index:
        """The first index at which consecutive entries differ from the log or go beyond it; 0 if the log holds them all."""
        for entry in entries:
            if self.term_at(entry.index) != entry.term:
                return entry.index
        return 0

    def find_term(self, index: Index, term: Term) -> Index:
        """The largest index up to `index` with a term of at most `term`; an index beyond the log is returned as it is.

        With this, either side skips a whole divergent term per rejection (paper 5.3, last paragraphs).
        """
        if index > self.last_index:
            return index
        return bisect_right(self._entries, term, hi=index, key=_term_of)

    def check_committed(self, position: EntryId) -> None:
        """Refuse a leader that has something else where this replica knows an entry to be committed.

        Raises:
            InvariantError: names both entries.
        """
        if position.index <= self.commit_index and self.term_at(position.index) != position.term:
            mine = EntryId(self.term_at(position.index), position.index)
            raise InvariantError(f"entry {mine} is committed here (commit {self.commit_index}), but the leader has {position} in its place")

    def _truncate(self, replacement: Entry) -> None:
        index = replacement.index
        self.check_committed(replacement.id)
        del self._entries[index - 1 :]
        del self._totals[index:]
        self.last_index = index - 1
        self._unwritten = min(self._unwritten, index)
        self._measure_persisted()

    def _extend(self, entries: Sequence[Entry]) -> None:
        self._entries.extend(entries)
        total = self._totals[-1]
        for entry in entries:
            total += len(entry.payload)
            self._totals.append(total)
        self.last_index += len(entries)

    def _fit(self, first: Index, last: Index, bytes_max: int) -> Index:
        """The last index up to which entries from `first` on fit into `bytes_max`; at least `first`."""
        fitting = bisect_right(self._totals, self._totals[first - 1] + bytes_max, lo=first, hi=last + 1) - 1
        return max(fitting, first)

    # How it gets to disk

    @property
    def has_unwritten(self) -> bool:
        return self._unwritten <= self.last_index

    def take_unwritten(self, sequence: int) -> tuple[Entry, ...]:
        """Hand out what is on no disk and on no way to one, as write number `sequence`."""
        if not self.has_unwritten:
            return ()
        entries = tuple(self._entries[self._unwritten - 1 :])
        self._writes.append((sequence, self._unwritten))
        self._unwritten = self.last_index + 1
        return entries

    def persisted(self, sequence: int) -> None:
        """All writes up to `sequence` are durable."""
        while self._writes and self._writes[0][0] <= sequence:
            self._writes.popleft()
        self._measure_persisted()

    def _measure_persisted(self) -> None:
        self.persisted_index = min([self._unwritten, *(first for _, first in self._writes)]) - 1

    # How it commits and is applied

    def commit_to(self, index: Index) -> None:
        """Entries up to `index` are committed; an older index than the one known changes nothing.

        Raises:
            InvariantError: the log ends before: entries that this replica once had are gone.
        """
        if index <= self.commit_index:
            return
        if index > self.last_index:
            raise InvariantError(f"commit index {index} is beyond the end of the log, {self.last}: entries have been lost")
        self.commit_index = index
        self._committed_total = self._totals[index]

    def has_committed(self, bytes_max: int, entries_max: int = UNBOUNDED) -> bool:
        """Whether there is something to apply now."""
        if self._handed >= min(self.commit_index, self.persisted_index):
            return False
        return self._applying_bytes < bytes_max and self._handed - self.applied_index < entries_max

    def take_committed(self, bytes_max: int, entries_max: int = UNBOUNDED) -> tuple[Entry, ...]:
        """Hand out what is to be applied next, so that no more than both limits is on the way; one entry always goes."""
        if not self.has_committed(bytes_max, entries_max):
            return ()
        first, last = self._handed + 1, min(self.commit_index, self.persisted_index, self.applied_index + entries_max)
        high = self._fit(first, last, bytes_max - self._applying_bytes)
        size = self._totals[high] - self._totals[first - 1]
        self._applying.append((high, size))
        self._applying_bytes += size
        self._handed = high
        return tuple(self._entries[first - 1 : high])

    def applied(self, index: Index) -> None:
        """The state machine has applied everything up to `index`.

        Raises:
            InvariantError: it was not handed that much.
        """
        if index > self._handed:
            raise InvariantError(f"applied {index}, but only {self._handed} has been handed out")
        self.applied_index = max(self.applied_index, index)
        while self._applying and self._applying[0][0] <= index:
            self._applying_bytes -= self._applying.popleft()[1]
