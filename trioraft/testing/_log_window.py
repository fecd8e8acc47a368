"""A log that begins behind some entry: what a disk holds, or what a replica has handed out.

Written once more, and more simply, than in the core: so that a mistake there is none here.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from .._errors import InvariantError
from .._types import NOTHING, EntryId, Index, Term
from ..core import Configuration, Entry, EntryKind, Terms, decode_configuration


@attrs.define(eq=False)
class LogWindow:
    """The entries behind `start`, and which configuration is in force where."""

    start: EntryId = NOTHING
    entries: list[Entry] = attrs.field(factory=list)
    configurations: list[tuple[Index, Configuration]] = attrs.field(factory=lambda: [(0, Configuration(()))])
    """The one in force at `start`, then those of the entries, by index."""

    def copy(self) -> LogWindow:
        return LogWindow(self.start, list(self.entries), list(self.configurations))

    @property
    def last_index(self) -> Index:
        return self.start.index + len(self.entries)

    @property
    def last(self) -> EntryId:
        return self.entries[-1].id if self.entries else self.start

    def term_at(self, index: Index) -> Term:
        """The term of an entry, or of `start`; 0 when there is none."""
        place = index - self.start.index
        if place == 0:
            return self.start.term
        return self.entries[place - 1].term if 0 < place <= len(self.entries) else 0

    def entry_at(self, index: Index) -> Entry | None:
        place = index - self.start.index
        return self.entries[place - 1] if 0 < place <= len(self.entries) else None

    def behind(self, index: Index, last: Index) -> Sequence[Entry]:
        """The entries in ``(index, last]``, as far as they are there."""
        first = self.start.index
        return self.entries[max(index - first, 0) : max(last - first, 0)]

    def holds(self, entry: Entry) -> bool:
        """Whether the entry is here, or is one of those that were cut off, which are in a snapshot."""
        return entry.index < self.start.index or self.term_at(entry.index) == entry.term

    def configuration_at(self, index: Index) -> Configuration:
        return next(configuration for at, configuration in reversed(self.configurations) if at <= max(index, self.configurations[0][0]))

    def terms(self) -> Terms:
        """The term of each entry."""
        runs, newest = [], self.start.term
        for entry in self.entries:
            if entry.term != newest:
                runs.append((entry.index, entry.term))
                newest = entry.term
        return Terms(self.start, runs, self.last_index)

    def write(self, entries: Sequence[Entry]) -> None:
        """Put `entries` where they belong, in place of everything at and above the first one.

        Raises:
            InvariantError: they begin before the log, or there would be a hole.
        """
        if not entries:
            return
        place = entries[0].index - self.start.index - 1
        if not 0 <= place <= len(self.entries):
            raise InvariantError(f"a write begins at {entries[0].index}, but the log goes from {self.start.index} to {self.last_index}")
        del self.entries[place:]
        while self.configurations[-1][0] >= entries[0].index:
            self.configurations.pop()
        self.entries.extend(entries)
        for entry in entries:
            if entry.kind is EntryKind.CONFIGURATION:
                self.configurations.append((entry.index, decode_configuration(entry.payload)))

    def compact(self, start: EntryId) -> None:
        """Cut off what is at or below `start`; what is cut off already stays so.

        Raises:
            InvariantError: the log does not hold `start`.
        """
        count = start.index - self.start.index
        if count <= 0:
            return
        if self.term_at(start.index) != start.term:
            raise InvariantError(f"a log from {self.start} to {self.last} is cut at {start}, which it does not hold")
        self.configurations = [(start.index, self.configuration_at(start.index)), *self._configurations_behind(start.index)]
        del self.entries[:count]
        self.start = start

    def install(self, at: EntryId, configuration: Configuration) -> None:
        """Begin behind a snapshot; what follows it stays if the log holds its last entry."""
        if at.index >= self.start.index and self.term_at(at.index) == at.term:
            self.compact(at)
            return
        self.start, self.entries, self.configurations = at, [], [(at.index, configuration)]

    def _configurations_behind(self, index: Index) -> list[tuple[Index, Configuration]]:
        return [item for item in self.configurations if item[0] > index]
