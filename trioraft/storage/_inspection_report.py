"""What an inspection of a node's directory found."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import attrs

from .._types import EntryId, GroupId, GroupKey, Index, NodeId, Term
from ..core import Configuration
from ..wire import SnapshotManifest
from ._contract import NodeRecord, PeerRecord, RecoveredGroup


@attrs.frozen
class Finding:
    """Something that is not as it should be, or worth a word."""

    path: str
    offset: int | None
    text: str
    group_id: GroupId | None = None

    def __str__(self) -> str:
        place = "" if self.offset is None else f"at offset {self.offset}: "
        return f"{self.path}: {place}{self.text}"


@attrs.frozen
class LogFileReport:
    """One log file: of all groups, or of `group_id`."""

    path: str
    size: int
    batches: int
    has_checkpoint: bool
    """It begins with all that the files before it say. Always so for the first file, before which there is nothing."""
    torn_from: int | None
    """From here on, the next start cuts it off: it was being written when the process ended, and nobody was told of it."""
    group_id: GroupId | None = None


@attrs.frozen
class SnapshotReport:
    """A snapshot's file."""

    at: EntryId
    path: str
    size: int
    manifest: SnapshotManifest | None
    """What it says of itself, if it was read and is whole."""


@attrs.frozen
class AtRestReport:
    """A file of entries at rest."""

    path: str
    size: int
    first: Index
    last: Index
    """The entries in it that count; 0: none any more."""


@attrs.define(eq=False)
class GroupReport:
    """One group, or the tombstone of one."""

    found: RecoveredGroup
    """As a start would find it."""
    key: GroupKey | None
    log_bytes: int = 0
    """In log files, of entries that count."""
    at_rest: list[AtRestReport] = attrs.Factory(list)
    snapshots: list[SnapshotReport] = attrs.Factory(list)
    digests: array[int] = attrs.Factory(lambda: array("Q"))
    """Of each entry behind ``terms.start``, after a deep inspection; 0: it could not be read."""
    is_damaged: bool = False
    """It is refused at a start, or something that it needs was found to be damaged."""

    @property
    def configurations(self) -> Sequence[tuple[Index, Configuration]]:
        """The one in force where the log begins, and those behind it."""
        record = self.found.record
        return self.found.durable.configurations or (() if record is None else ((0, record.configuration),))

    def configuration_at(self, index: Index) -> Configuration | None:
        """The one in force at an index; None: the log does not go back that far."""
        before = [configuration for first, configuration in self.configurations if first <= index]
        return before[-1] if before and index >= self.found.durable.terms.start.index else None

    @property
    def runs(self) -> Sequence[tuple[Index, Term]]:
        """First index and term of each run of entries that are there."""
        terms = self.found.durable.terms
        first = terms.start.index + 1
        if first > terms.last_index or (terms.runs and terms.runs[0][0] == first):
            return terms.runs
        return ((first, terms.start.term), *terms.runs)

    def digest(self, index: Index) -> int:
        """0: not known."""
        place = index - self.found.durable.terms.start.index - 1
        return self.digests[place] if 0 <= place < len(self.digests) else 0


@attrs.define(eq=False)
class DirectoryReport:
    """A node's directory."""

    base_dir: str
    has_shared_log: bool
    """`WalStorage` wrote it; False: `FileStorage`."""
    node: NodeRecord | None = None
    peers: dict[NodeId, PeerRecord] = attrs.Factory(dict)
    store_id: str | None = None
    user: str | None = None
    """The process that uses it, as far as one can see."""
    bytes_read: int = 0
    log_files: list[LogFileReport] = attrs.Factory(list)
    groups: dict[GroupId, GroupReport] = attrs.Factory(dict)
    findings: list[Finding] = attrs.Factory(list)
    notes: list[Finding] = attrs.Factory(list)
