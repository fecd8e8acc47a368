"""One group as `MemoryStorage` has it: what a disk would hold of it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from .._types import NOTHING, EntryId, GroupId, GroupKey, Member
from ..core import Compaction, Entry, HardState, InstallSnapshot, LoadEntries
from ._contract import GroupRecord, RecoveredGroup
from ._log_state import LogState

IN_MEMORY = "<memory>"


@attrs.define(eq=False)
class MemoryGroup:
    record: GroupRecord | None = None
    tombstone: GroupKey | None = None
    barred: EntryId = NOTHING
    """With a tombstone."""
    state: LogState = attrs.Factory(LogState)
    entries: list[Entry] = attrs.Factory(list)
    """Those behind ``state.terms.start``."""
    snapshots: dict[EntryId, bytes] = attrs.Factory(dict)

    def write(self, hard_state: HardState | None, entries: Sequence[Entry], install: InstallSnapshot | None) -> None:
        if install is not None:
            self.state.install(install.at, install.configuration)
            kept = self.state.terms.last_index - self.state.terms.start.index
            del self.entries[: len(self.entries) - kept]
        self.state.write(hard_state, entries)
        if entries:
            del self.entries[entries[0].index - self.state.terms.start.index - 1 :]
            self.entries += entries

    def learn_number(self, me: Member) -> None:
        if self.record is not None:
            self.record = attrs.evolve(self.record, me=me, awaits_number=False)

    def compact(self, compaction: Compaction) -> None:
        before = self.state.terms.start.index
        self.state.compact(compaction)
        del self.entries[: self.state.terms.start.index - before]
        for at in [at for at in self.snapshots if at.index < compaction.snapshot.index]:
            del self.snapshots[at]

    def read(self, load: LoadEntries) -> tuple[Entry, ...]:
        start, size = self.state.terms.start.index, 0
        found: list[Entry] = []
        if load.first <= start:
            return ()
        for entry in self.entries[load.first - start - 1 : load.last - start]:
            size += len(entry.payload)
            if found and size > load.bytes_max:
                break
            found.append(entry)
        return tuple(found)

    def recovered(self, group_id: GroupId) -> RecoveredGroup:
        if self.record is None:
            return RecoveredGroup(group_id, tombstone=self.tombstone, barred=self.barred)
        size = sum(len(entry.payload) for entry in self.entries)
        return RecoveredGroup(group_id, self.record, self.state.durable(self.record.configuration, size))
