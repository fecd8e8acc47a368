"""One entry of a replicated log."""

from __future__ import annotations

from enum import IntEnum

import attrs

from .._types import EntryId, Index, Term


class EntryKind(IntEnum):
    """What an entry is for. The numbers are part of the wire and disk formats."""

    NOOP = 0
    """Appended by each new leader: commits what earlier terms left behind (paper 8, dissertation 6.4)."""
    COMMAND = 1
    """A command for the state machine."""
    CONFIGURATION = 2
    """Who is in the group from here on (`encode_configuration`): in force as soon as it is in a replica's log, committed or not."""
    SESSION = 3
    """A client's session begins or ends, or a command of one: the floors above know what is in it."""


# NB: not frozen. A log holds very many of these, and a frozen class costs 2.5 times as much to build.
# Nobody changes a field after creation but `record`, and that once: when the driver seals the entry.
@attrs.define
class Entry:
    """One log entry. Equal when position, kind and payload are equal."""

    index: Index
    term: Term
    kind: EntryKind
    payload: bytes
    record: bytes = attrs.field(default=b"", eq=False, repr=False)
    """The sealed form: the same bytes for disk and wire. Empty until sealed, which only ever happens on the leader."""

    @property
    def id(self) -> EntryId:
        return EntryId(self.term, self.index)

    def __str__(self) -> str:
        return f"{self.index}@{self.term}"
