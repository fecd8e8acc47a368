"""What a group has applied, entry by entry, as a stream that never skips anything in silence.

Nothing is kept for a reader: it has a place in the log, and each piece is read from there when it asks. So a slow reader costs nothing,
and loses nothing but what the log has cut off meanwhile; that is told by a `Reset`, and it goes on behind the snapshot that holds it.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, Self, TypeAlias

import attrs
import trio

from .._errors import ConfigError
from .._machine import Codec
from .._types import EntryId, Index, Term
from ..core import Entry, EntryKind, LoadEntries, Raft
from ..storage import LogStorage
from ._applier import Applier
from ._session_table import command_of

_PIECE_ENTRIES: Final = 256
_PIECE_BYTES: Final = 256 << 10


@attrs.frozen
class AppliedEntry:
    """One entry of the log that this replica has applied."""

    index: Index
    term: Term
    has_command: bool
    """False: the group's own business (a new leader, a change of members, a session that begins or ends)."""
    command: Any = None
    """As it was proposed. One of a client's session may come twice, and is applied once."""


@attrs.frozen
class Reset:
    """The log does not have the next entries any more. What they did is in the snapshot; the stream goes on behind it."""

    snapshot: EntryId
    """The next entry in the stream is the one behind this."""


Tailed: TypeAlias = AppliedEntry | Reset


class Tail:
    """An endless iterator over what is applied, for one task. It needs no closing."""

    def __init__(self, first: Index, core: Raft, log: LogStorage, codec: Codec, applier: Applier) -> None:
        if type(first) is not int or first < 1:
            raise ConfigError(f"the index of an entry is a whole number from 1, not {first!r}")
        self._next = first
        self._core, self._log, self._codec, self._applier = core, log, codec, applier
        self._piece: deque[Tailed] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Tailed:
        """Return what comes next; waits until it is applied.

        Raises:
            GroupStoppedError: this replica has stopped.
            NotLeaderError: it was removed from the group, and nobody brings it the log any more.
            StorageError: the log cannot be read.

        *Cancellation:* nothing is skipped.
        """
        if self._piece:
            await trio.lowlevel.checkpoint()
        while not self._piece:
            await self._applier.wait_applied(self._next)
            await self._read_piece()
        tailed = self._piece.popleft()
        self._next = (tailed.index if isinstance(tailed, AppliedEntry) else tailed.snapshot.index) + 1
        return tailed

    async def _read_piece(self) -> None:
        log = self._core.log
        # NB: by the applier, which may be ahead of what the core has heard.
        last = min(self._applier.applied_index, self._next + _PIECE_ENTRIES - 1)
        entries: tuple[Entry, ...] = ()
        if self._next > log.evicted_index:
            entries, _ = log.slice(self._next, _PIECE_BYTES, last - self._next + 1)
        elif self._next > log.start.index:
            entries = await self._log.read(LoadEntries(None, self._next, last, _PIECE_BYTES))
        if entries:
            self._piece.extend(map(self._describe, entries))
        elif self._next <= log.start.index:
            snapshot = self._core.snapshot
            # One that has just come is on the disk before it is in the machine.
            await self._applier.wait_applied(snapshot.index)
            self._piece.append(Reset(snapshot))

    def _describe(self, entry: Entry) -> AppliedEntry:
        command = command_of(entry.payload) if entry.kind is EntryKind.SESSION else entry.payload
        if entry.kind in (EntryKind.COMMAND, EntryKind.SESSION) and command is not None:
            return AppliedEntry(entry.index, entry.term, True, self._codec.decode(command))
        return AppliedEntry(entry.index, entry.term, False)
