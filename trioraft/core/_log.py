"""The log of one replica: a window in memory over what is on its disk.

The log begins behind `start`, the last entry that was cut off. `Terms` knows the term of each entry behind it, and `Configurations`
which configuration is in force where; so whether two logs agree is answered without the disk. The entries themselves are in memory from
some index on; what is at or below `evicted_index` is on the disk only, and whoever needs it has it read (`_loading`)::

    start <= evicted <= last        what is in memory: (evicted, last]

How far it has come is told by three indexes; each is at most the one on its right, where "disk" and "commit" are two rulers::

    commit <= last     persisted <= last        evicted <= min(commit, persisted), but for what a start found on the disk

*Commit*: on a majority, can never change. *Persisted*: on this replica's own disk. How far it is applied: `_applying`.

What is persisted is told by write sequences and never by positions: an entry counts only when the *last* write that touched
its index is complete. Position and term alone can return: 2@1 is written, replaced by 2@2, and written again by a re-elected
leader; the completion of the first write would then vouch for the third. A snapshot that is installed touches its own index.

Sizes are kept as running totals, so that cutting a message, a portion to apply, or asking how much is uncommitted costs a
subtraction or a bisection, whatever the number of entries.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import accumulate

from .._errors import InvariantError
from .._types import NEVER, EntryId, Index, Term
from ._configuration import Configuration
from ._configurations import Configurations
from ._entries import CONFIGURATION, configuration_in, terms_of
from ._entry import Entry
from ._log_size import LogSize
from ._terms import Terms

UNBOUNDED = 1 << 62
"""As a limit: none."""

_OVERHEAD = 300
"""Bytes that an entry in memory takes beyond its payload, which is there twice: alone and in its record. Measured, roughly."""


class Log:
    """The entries in ``(start.index, last_index]``, and how far they have come."""

    __slots__ = (
        "_committed_total",
        "_entries",
        "_evicted_size",
        "_installing",
        "_totals",
        "_unwritten",
        "_writes",
        "commit_index",
        "configurations",
        "evicted_index",
        "last_index",
        "persisted_index",
        "terms",
    )

    def __init__(
        self,
        entries: Sequence[Entry] = (),
        terms: Terms | None = None,
        *,
        configurations: Configurations | None = None,
        commit: Index = 0,
        size: int = 0,
    ) -> None:
        """Start from what the disk holds: all of it persisted.

        Args:
            entries: the end of the log, as far as it is in memory.
            terms: the whole log; None: the entries are.
            commit: known to be committed; what was cut off is, anyway.
            size: bytes of the whole log, roughly; 0: not known.

        Raises:
            InvariantError: these contradict each other.
        """
        self.terms = terms_of(entries) if terms is None else terms.copy()
        start, last = self.terms.start, self.terms.last
        self.last_index: Index = last.index
        self.evicted_index: Index = last.index - len(entries)
        """Entries up to here are not in memory."""
        if self.evicted_index < start.index or not self.agrees(self.evicted_index + 1, entries):
            shown = ", ".join(map(str, entries[:20]))
            raise InvariantError(f"the log on the disk is {start}..{last}, and these entries are not its end: {shown}")
        if commit > last.index:
            raise InvariantError(f"the disk says that {commit} is committed, but the log ends with {last}: entries have been lost")
        self.configurations = configurations or Configurations([(start.index, Configuration(()))])
        if self.configurations.newest_index > last.index:
            raise InvariantError(f"the disk has a configuration of index {self.configurations.newest_index}, but the log ends with {last}")
        self.commit_index: Index = max(commit, start.index)
        self._entries: list[Entry] = list(entries)
        # The payload bytes of everything before entry i in memory, from some point on; one longer than the entries.
        self._totals: list[int] = [0, *accumulate(len(entry.payload) for entry in entries)]
        self._evicted_size = LogSize(start.index, self.evicted_index, max(size - self._totals[-1], 0))
        self._committed_total = self._total_to(self.commit_index)
        self._unwritten: Index = self.last_index + 1
        self.persisted_index: Index = self.last_index
        # (sequence, first index) of each write that is not known to be durable, oldest first.
        self._writes: deque[tuple[int, Index]] = deque()
        # The index of a snapshot that is installed and not yet handed out to be written; 0: none.
        self._installing: Index = 0

    # What it holds

    @property
    def start(self) -> EntryId:
        """The log begins behind this."""
        return self.terms.start

    @property
    def last(self) -> EntryId:
        """The position of the last entry: what elections compare."""
        return self.terms.last

    def term_at(self, index: Index) -> Term:
        """The term of an entry; 0 before `start` and beyond the last."""
        return self.terms.at(index)

    def holds(self, position: EntryId) -> bool:
        """Whether the log agrees with a leader's up to here (paper 5.3: equal index and term mean equal logs up to there)."""
        index = position.index
        return 0 <= index <= self.last_index and self.terms.at(index) == position.term

    def agrees(self, first: Index, entries: Sequence[Entry]) -> bool:
        """Whether these are the entries of this log from `first` on, which is behind its start."""
        at = self.terms.at
        return first > self.terms.start_index and all(
            entry.index == index and entry.term == at(index) for index, entry in enumerate(entries, first)
        )

    def slice(self, first: Index, bytes_max: int, entries_max: int = UNBOUNDED) -> tuple[tuple[Entry, ...], int]:
        """Cut entries from `first` on, as many as fit into both limits but at least one; return them and their size.

        Raises:
            InvariantError: `first` is not in memory.
        """
        low = first - self.evicted_index - 1
        if low < 0:
            raise InvariantError(f"entry {first} is not in memory, which begins behind {self.evicted_index}")
        totals = self._totals
        high = low + 1
        if entries_max > 1 and high < len(self._entries):
            # As many as fit, but at least one.
            high_max = min(len(self._entries), low + entries_max)
            high = max(bisect_right(totals, totals[low] + bytes_max, lo=high, hi=high_max + 1) - 1, high)
        return tuple(self._entries[low:high]), totals[high] - totals[low]

    @property
    def memory_bytes(self) -> int:
        """What the entries in memory take up, roughly."""
        return 2 * (self._totals[-1] - self._totals[0]) + _OVERHEAD * len(self._entries)

    def bytes_behind(self, index: Index) -> int:
        """Payload of all entries behind `index`; rather too large than too small where those are not in memory (`LogSize`)."""
        return self._totals[-1] - self._size_to(index)

    def first_within(self, end: Index, bytes_max: int) -> Index:
        """The first index behind which, up to `end`, there is no more payload than `bytes_max`, but for the resolution of `LogSize`."""
        total = self._size_to(end) - bytes_max
        index = self._evicted_size.find(total)
        return max(self.evicted_index + bisect_left(self._totals, total) if index is None else index, self.terms.start_index)

    def _size_to(self, index: Index) -> int:
        index = max(index, self.terms.start_index)
        return self._total_to(index) if index >= self.evicted_index else self._evicted_size.total_at(index)

    @property
    def uncommitted_bytes(self) -> int:
        """Payload that waits to be committed; what a start found on the disk does not count."""
        return self._totals[-1] - self._committed_total

    # How it grows

    def append(self, entry: Entry) -> None:
        """Add one entry at the end: a leader's own."""
        terms = self.terms
        if entry.term == terms.newest:
            # NB: nearly always so; as a call it would cost as much as all the rest.
            terms.last_index += 1
        else:
            terms.extend(entry.index, entry.term)
        self._entries.append(entry)
        self._totals.append(self._totals[-1] + len(entry.payload))
        self.last_index += 1
        if entry.kind is CONFIGURATION:
            self.configurations.append(entry.index, configuration_in(entry))

    def merge(self, previous: EntryId, entries: Sequence[Entry]) -> None:
        """Make the log agree with entries that follow `previous`, which it holds or has cut off. What agrees already stays untouched.

        Raises:
            InvariantError: an entry that is committed here would be replaced, and nothing has been changed; or one is not readable.
        """
        if previous.index != self.last_index:
            # What was cut off is committed, so it is equal.
            entries = entries[max(self.terms.start_index - previous.index, 0) :]
            conflict = self.find_conflict(entries)
            if conflict == 0:
                return
            entries = entries[conflict - entries[0].index :]
            if conflict <= self.last_index:
                self._truncate(entries[0])
        self._extend(entries)

    def find_conflict(self, entries: Sequence[Entry]) -> Index:
        """The first index at which consecutive entries differ from the log or go beyond it; 0 if the log holds them all."""
        at = self.terms.at
        for entry in entries:
            if at(entry.index) != entry.term:
                return entry.index
        return 0

    def find_term(self, index: Index, term: Term) -> Index:
        """The largest index up to `index` with a term of at most `term`; an index outside the log is returned as it is.

        With this, either side skips a whole divergent term per rejection (paper 5.3, last paragraphs).
        """
        return self.terms.find(index, term) if self.terms.start_index <= index <= self.last_index else index

    def check_committed(self, position: EntryId) -> None:
        """Refuse a leader that has something else where this replica knows an entry to be committed.

        Raises:
            InvariantError: names both entries.
        """
        index = position.index
        if index <= self.commit_index and self.terms.at(index) != position.term and index >= self.terms.start_index:
            mine = EntryId(self.terms.at(index), index)
            raise InvariantError(f"entry {mine} is committed here (commit {self.commit_index}), but the leader has {position} in its place")

    def _truncate(self, replacement: Entry) -> None:
        index = replacement.index
        self.check_committed(replacement.id)
        keep = max(index - 1 - self.evicted_index, 0)
        del self._entries[keep:]
        del self._totals[keep + 1 :]
        # What a start found on the disk need not be in memory to be cut off.
        self.evicted_index = min(self.evicted_index, index - 1)
        self._evicted_size.truncate(index - 1)
        self.terms.truncate(index - 1)
        self.configurations.truncate(index - 1)
        self.last_index = index - 1
        self._unwritten = min(self._unwritten, index)
        self._measure_persisted()

    def _extend(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        last = entries[-1]
        if entries[0].term == last.term:
            self.terms.extend(last.index, last.term)
        else:
            for entry in entries:
                self.terms.extend(entry.index, entry.term)
        self._entries.extend(entries)
        totals = self._totals
        total = totals[-1]
        for entry in entries:
            total += len(entry.payload)
            totals.append(total)
            if entry.kind is CONFIGURATION:
                self.configurations.append(entry.index, configuration_in(entry))
        self.last_index = last.index

    def _total_to(self, index: Index) -> int:
        return self._totals[max(index - self.evicted_index, 0)]

    # How it gets to disk

    @property
    def has_unwritten(self) -> bool:
        return self._unwritten <= self.last_index or self._installing > 0

    def take_unwritten(self, sequence: int) -> tuple[Entry, ...]:
        """Hand out what is on no disk and on no way to one, as write number `sequence`."""
        if self._installing:
            self._writes.append((sequence, self._installing))
            self._installing = 0
        if self._unwritten > self.last_index:
            return ()
        entries = tuple(self._entries[self._unwritten - self.evicted_index - 1 :])
        self._writes.append((sequence, self._unwritten))
        self._unwritten = self.last_index + 1
        return entries

    def persisted(self, sequence: int) -> None:
        """All writes up to `sequence` are durable."""
        while self._writes and self._writes[0][0] <= sequence:
            self._writes.popleft()
        self._measure_persisted()

    def _measure_persisted(self) -> None:
        self.persisted_index = min([self._unwritten, self._installing or NEVER, *(first for _, first in self._writes)]) - 1

    # How it commits

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
        self._committed_total = self._total_to(index)

    # How it gets shorter

    def evict(self, bytes_max: int) -> None:
        """Let entries leave memory until it holds at most `bytes_max`, the oldest first, as far as they can be read back.

        What is not durable cannot be read back, and what is not committed may be replaced, on the disk too. A quarter more than needed
        goes, so that a log that grows entry by entry is not moved each time.
        """
        if self.memory_bytes <= bytes_max:
            return
        totals, excess = self._totals, self.memory_bytes - bytes_max + bytes_max // 4
        count = bisect_left(range(len(totals)), excess, key=lambda count: 2 * (totals[count] - totals[0]) + _OVERHEAD * count)
        self._evict_to(min(self.evicted_index + count, self.commit_index, self.persisted_index))

    def compact(self, index: Index) -> None:
        """Cut off what is at or below `index`; what is cut off already stays so."""
        self.terms.compact(index)
        self.configurations.compact(index)
        self._evict_to(index)
        self._evicted_size.cut(index)

    def install(self, at: EntryId, configuration: Configuration) -> None:
        """Begin behind a snapshot, which goes beyond what is committed here. What follows it stays, if the log holds `at` (paper 7).

        Raises:
            InvariantError: the log holds `at`, with another configuration.
        """
        if self.holds(at):
            if self.configurations.at(at.index) != configuration:
                mine = self.configurations.at(at.index)
                raise InvariantError(f"the configuration at {at} is {mine} here, but {configuration} in the leader's snapshot")
            self.compact(at.index)
        else:
            self.terms.reset(at)
            self.configurations.reset(at.index, configuration)
            self._entries, self._totals = [], [0]
            self.last_index = self.evicted_index = at.index
            self._evicted_size = LogSize(at.index, at.index, 0)
            self._committed_total = self._unwritten = 0
        self._unwritten = max(self._unwritten, at.index + 1)
        self._installing = at.index
        self.commit_to(at.index)
        self._measure_persisted()

    def _evict_to(self, index: Index) -> None:
        count = index - self.evicted_index
        if count > 0:
            self._evicted_size.evict(self.evicted_index, self._totals, count)
            del self._entries[:count], self._totals[:count]
            self.evicted_index = index
