"""The properties of snapshots and of logs that begin behind one, one checker each (paper 7; scenarios SN)."""

from __future__ import annotations

from collections.abc import Sequence

from .._types import Index
from ..core import Compaction, Entry, GroupConfig, InstallSnapshot, LoadEntries
from ._checker import Checker, Who
from ._checkers import CommitAgreement
from ._disk import GroupDisk
from ._log_window import LogWindow
from ._machine import Snapshot


class SnapshotSafety(Checker):
    """A snapshot holds what was committed up to its index, neither more nor less, and the configuration in force at that index.

    So does the machine with which a life begins, be it restored or found.
    """

    name = "snapshot-safety"

    def __init__(self, agreement: CommitAgreement) -> None:
        self._agreement = agreement

    def started(self, who: Who, disk: GroupDisk, history: Sequence[Entry]) -> None:
        if not self._agreement.is_committed(who.group, history):
            self.fail(f"{who} starts with a machine that was given {len(history)} entries, not all of which are committed")
        start = disk.log.start
        if start.term != self._agreement.term_at(who.group, start.index):
            self.fail(f"the log of {who} begins behind {start}, which is not committed")

    def saves(self, who: Who, snapshot: Snapshot, disk: GroupDisk) -> None:
        at = snapshot.at
        if len(snapshot.history) != at.index or snapshot.history[-1].term != at.term:
            self.fail(f"the snapshot {at} of {who} holds {len(snapshot.history)} entries, up to {snapshot.history[-1]}")
        if not self._agreement.is_committed(who.group, snapshot.history):
            self.fail(f"the snapshot {at} of {who} holds something else than what was committed")
        expected = self._agreement.configuration_at(who.group, at.index)
        if snapshot.configuration != expected:
            self.fail(f"the snapshot {at} of {who} says {snapshot.configuration}, but {expected} was in force at its index")


class InstallsForward(Checker):
    """A snapshot takes the place of a log only if it is there, is what was committed, and goes beyond what was known as committed; and
    that of a machine only once it has durably taken the place of the log.
    """

    name = "installs-forward"

    def __init__(self, agreement: CommitAgreement) -> None:
        self._agreement = agreement

    def installs(self, who: Who, message: InstallSnapshot, log: LogWindow, commit: Index, disk: GroupDisk) -> None:
        at = message.at
        if at.index <= commit:
            self.fail(f"{who} installs {at} over newer state, committed up to {commit}")
        held = disk.files.get(at)
        if held is None:
            self.fail(f"{who} installs {at}, which is not on its disk")
        if at.term != self._agreement.term_at(who.group, at.index):
            self.fail(f"{who} installs {at}, which is not committed")
        if held.configuration != message.configuration:
            self.fail(f"{who} installs {at} with {message.configuration} instead of {held.configuration}")

    def restores(self, who: Who, snapshot: Snapshot, disk: GroupDisk) -> None:
        if disk.log.start.index < snapshot.at.index:
            self.fail(f"{who} restores {snapshot.at}, but the log on its disk begins behind {disk.log.start}: not installed yet")


class ReadsWhatItHas(Checker):
    """A replica asks its disk for nothing that the disk does not have, unless the log has been cut or replaced since."""

    name = "reads-what-it-has"

    def reads(self, who: Who, load: LoadEntries, entries: Sequence[Entry], log: LogWindow, disk: GroupDisk) -> None:
        if not entries and load.first > log.start.index and log.entry_at(load.first) is not None:
            held = f"{disk.log.start} to {disk.log.last}"
            self.fail(f"{who} needs entry {load.first} of its log from {log.start} to {log.last}, but its disk has only {held}")


class LogIsBounded(Checker):
    """The log is cut whenever there is a newer snapshot, whoever is dead or slow: what is kept before it has a limit."""

    name = "log-is-bounded"

    def __init__(self, config: GroupConfig) -> None:
        self._config = config

    def compacts(self, who: Who, compaction: Compaction, log: LogWindow) -> None:
        start, snapshot = compaction.start, compaction.snapshot
        if start.index > snapshot.index:
            self.fail(f"{who} cuts its log at {start}, behind its snapshot {snapshot}")
        least = min(snapshot.index - self._config.keep_entries, log.last_index - self._config.stream_hold_entries)
        if start.index < least:
            self.fail(f"{who} keeps its log from {start} on, although it has a snapshot at {snapshot} and {log.last} is its last entry")
