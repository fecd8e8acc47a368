"""What a group's log says, without its entries: everything that a start must know, changed write by write.

Pure: a storage applies to it what it has made durable, in the order of the writes, and a start applies the same once more.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from .._errors import InvariantError
from .._types import NOTHING, EntryId, Index
from ..core import Compaction, Configuration, Durable, Entry, EntryKind, HardState, Terms, decode_configuration


@attrs.define(eq=False)
class LogState:
    """One group's term and vote, and the outline of its log."""

    hard_state: HardState = HardState()
    terms: Terms = attrs.Factory(Terms)
    snapshot: EntryId = NOTHING
    commit: Index = 0
    configurations: list[tuple[Index, Configuration]] = attrs.Factory(list)
    """The one at ``terms.start``, unless that is the group's first; then those of the entries behind it."""

    def write(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Apply one write.

        Raises:
            InvariantError: the entries do not follow what is there.
            BadConfigurationError: an entry says that it is a configuration, and is not.
        """
        if hard_state is not None:
            self.hard_state = hard_state
        if not entries:
            return
        first = entries[0].index
        if not self.terms.start.index < first <= self.terms.last_index + 1:
            raise InvariantError(f"entries from {first} on do not fit a log of {self.terms}")
        self.terms.truncate(first - 1)
        while self.configurations and self.configurations[-1][0] >= first:
            self.configurations.pop()
        for index, entry in enumerate(entries, first):
            if entry.index != index:
                raise InvariantError(f"entry {entry} stands where {index} belongs")
            self.terms.extend(index, entry.term)
            if entry.kind is EntryKind.CONFIGURATION:
                self.configurations.append((index, decode_configuration(entry.payload)))

    def install(self, at: EntryId, configuration: Configuration) -> None:
        """The log begins behind the snapshot `at`: what follows it stays, if the log holds that very entry."""
        if at.index < self.terms.start.index:
            return  # older than what is cut off
        if self.terms.at(at.index) == at.term:
            self.terms.compact(at.index)
        else:
            self.terms.reset(at)
        behind = [item for item in self.configurations if at.index < item[0] <= self.terms.last_index]
        self.configurations = [(at.index, configuration), *behind]
        self._advance(at, at.index)

    def compact(self, compaction: Compaction) -> None:
        """The log is cut, unless it is already.

        Raises:
            InvariantError: it ends before the place where it shall begin.
        """
        self.terms.compact(compaction.start.index)
        before = [item for item in self.configurations if item[0] <= self.terms.start.index]
        self.configurations = [*before[-1:], *self.configurations[len(before) :]]
        self._advance(compaction.snapshot, compaction.commit)

    def _advance(self, snapshot: EntryId, commit: Index) -> None:
        self.snapshot = max(self.snapshot, snapshot, key=lambda at: at.index)
        self.commit = max(self.commit, commit)

    def durable(self, first: Configuration, log_bytes: int) -> Durable:
        """What a replica is told at its start.

        Args:
            first: the configuration that the group began with.
            log_bytes: what the entries take.
        """
        configurations = self.configurations
        if configurations and configurations[0][0] > self.terms.start.index:
            configurations = [(0, first), *configurations]
        return Durable(
            hard_state=self.hard_state,
            terms=self.terms.copy(),
            log_bytes=log_bytes,
            snapshot=self.snapshot,
            commit=self.commit,
            configurations=tuple(configurations),
        )
