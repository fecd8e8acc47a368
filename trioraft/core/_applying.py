"""What the state machine of one replica is given, and how far it has come.

Each index is at most the one on its right::

    applied <= handed out <= min(commit, persisted)

*Applied*: the machine has it. *Handed out*: given to be applied, or to be restored. After an install the machine waits for the
snapshot: once the install is durable the snapshot is handed out in place of all that it covers, and then what follows it. One
restore is under way at a time; if another snapshot is installed meanwhile, it is handed out when the first one is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from .._errors import InvariantError
from .._types import EntryId, Index
from ._entry import Entry
from ._log import UNBOUNDED, Log


class Applying:
    """The way from a log to its state machine."""

    __slots__ = ("_bytes", "_log", "_portions", "_restoring", "applied_index", "handed_index", "restore")

    def __init__(self, log: Log, applied: Index) -> None:
        """
        Args:
            applied: where the machine stands.

        Raises:
            InvariantError: the log does not lead on from there.
        """
        if not log.start.index <= applied <= log.last_index:
            raise InvariantError(f"the machine has applied {applied}, but the log goes from {log.start} to {log.last}")
        self._log = log
        self.applied_index = self.handed_index = applied
        # (last index, bytes) of each portion handed out and not yet applied, oldest first.
        self._portions: deque[tuple[Index, int]] = deque()
        self._bytes = 0
        self.restore: EntryId | None = None
        """A snapshot that is installed, and waits for its install to be durable or for the restore before it."""
        self._restoring: Index = 0

    def has_next(self, bytes_max: int, entries_max: int = UNBOUNDED) -> bool:
        """Whether there is something to apply now, in memory or not."""
        log = self._log
        if self.handed_index >= log.commit_index or self.handed_index >= log.persisted_index or self.restore is not None:
            return False
        return self._bytes < bytes_max and self.handed_index - self.applied_index < entries_max

    @property
    def is_next_in_memory(self) -> bool:
        return self.handed_index >= self._log.evicted_index

    def take(self, bytes_max: int, entries_max: int = UNBOUNDED) -> tuple[Entry, ...]:
        """Hand out what is to be applied next and is in memory, so that no more than both limits is on the way; one entry always goes."""
        # NB: what it shares with `has_next`, `missing` and `deliver` is written out: as calls it would be half of the cost, turn by turn.
        log, handed, bytes_max = self._log, self.handed_index, bytes_max - self._bytes
        count = min(log.commit_index, log.persisted_index, self.applied_index + entries_max) - handed
        if count <= 0 or bytes_max <= 0 or self.restore is not None or handed < log.evicted_index:
            return ()
        entries, size = log.slice(handed + 1, bytes_max, count)
        self.handed_index = last = handed + len(entries)
        self._portions.append((last, size))
        self._bytes += size
        return entries

    def missing(self, bytes_max: int, entries_max: int = UNBOUNDED) -> tuple[Index, Index, int]:
        """First, last and how many bytes to read of what is to be applied next and is not in memory."""
        log = self._log
        last = min(log.commit_index, log.persisted_index, log.evicted_index, self.applied_index + entries_max)
        return self.handed_index + 1, last, bytes_max - self._bytes

    def deliver(self, first: Index, entries: Sequence[Entry]) -> bool:
        """Take what was read from `first` on to be handed out; return False if that is not needed any more.

        Raises:
            InvariantError: it is needed, and not what was committed.
        """
        if first != self.handed_index + 1 or self.restore is not None:
            return False
        log = self._log
        if not entries or not log.agrees(first, entries):
            wanted = EntryId(log.term_at(first), first)
            shown = ", ".join(map(str, entries[:20])) or "nothing"
            raise InvariantError(f"entry {wanted} is committed and durable here, but its disk has {shown} in its place")
        self.handed_index = last = entries[-1].index
        size = sum(len(entry.payload) for entry in entries)
        self._portions.append((last, size))
        self._bytes += size
        return True

    @property
    def has_restore(self) -> bool:
        """Whether a snapshot is to be restored now."""
        return self.restore is not None and not self._restoring and self._log.persisted_index >= self.restore.index

    def take_restore(self) -> EntryId | None:
        """Hand out the snapshot to be restored now."""
        if self.restore is None or not self.has_restore:
            return None
        at, self.restore = self.restore, None
        self._restoring = self.handed_index = at.index
        return at

    @property
    def is_restoring(self) -> bool:
        """Whether the machine is not yet where the newest install has put it."""
        return self._restoring > 0 or self.restore is not None

    def applied(self, index: Index) -> None:
        """The state machine has applied everything up to `index`.

        Raises:
            InvariantError: it was not handed that much.
        """
        if index > self.handed_index:
            raise InvariantError(f"applied {index}, but only {self.handed_index} has been handed out")
        self.applied_index = max(self.applied_index, index)
        if self._restoring and index >= self._restoring:
            self._restoring = 0
        while self._portions and self._portions[0][0] <= index:
            self._bytes -= self._portions.popleft()[1]
