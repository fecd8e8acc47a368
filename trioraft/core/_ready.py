"""What comes out of a core: one record per turn, each field saying before or after what it is carried out."""

from __future__ import annotations

from enum import Enum
from typing import Any

import attrs

from .._errors import RaftError
from .._types import EntryId, Index, Member, NodeId, Term
from ._configuration import Configuration
from ._entry import Entry
from ._messages import InstallSnapshot, Message


class Role(Enum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@attrs.frozen
class HardState:
    """Term and vote: one record, because neither means anything without the other."""

    term: Term = 0
    vote: NodeId | None = None
    """The node voted for in `term`, or None."""


@attrs.frozen
class RoleChange:
    """The role, the term or the known leader is another one than in the last Ready."""

    role: Role
    term: Term
    leader: NodeId | None


@attrs.frozen
class LoadEntries:
    """Entries that are on this replica's disk and not in its memory are needed: answered by one `EntriesLoaded`."""

    reader: NodeId | None
    """The member whom they are for; None: they are to be applied here."""
    first: Index
    last: Index
    """All of these are committed, or this replica leads; and they were durable when they left memory."""
    bytes_max: int
    """Payload bytes to read at most; at least one entry is read."""


@attrs.frozen
class SendSnapshot:
    """A member needs what the log does not have any more: stream the snapshot to it. Answered by one `SnapshotSent`."""

    target: Member
    term: Term
    """The leader's, to be named in each piece."""
    at: EntryId
    """The newest snapshot of this replica; a newer one that was taken meanwhile may be sent instead."""


@attrs.frozen
class Compaction:
    """The log is cut."""

    snapshot: EntryId
    """The newest snapshot, which is durable. Older ones are not needed any more, but by streams that read them."""
    start: EntryId
    """Entries at or below this will not be asked for any more; never beyond `snapshot`."""
    commit: Index
    """What is known to be committed: a hint for the next start."""


# NB: built once a turn and not frozen for speed; its holder treats it as immutable.
@attrs.define
class Ready:
    """One turn's output. Whoever takes it carries out all of it, exactly once."""

    sequence: int = 0
    """The number under which `hard_state` and `entries` are to be written; 0 when there is nothing to write."""

    hard_state: HardState | None = None
    """To write, together with `entries`, as one unit."""

    me: Member | None = None
    """To write, together with `hard_state`: the number that this replica has learned it has."""

    install: InstallSnapshot | None = None
    """To write, before `entries`: the log begins behind this snapshot, which is on the disk, whole and durable. Entries behind it
    stay if the log held the snapshot's own last entry, with that term; otherwise the log is empty then."""

    entries: tuple[Entry, ...] = ()
    """To write. The first one replaces everything at and above its index."""

    messages: tuple[Message, ...] = ()
    """Leave at once, in this order; they promise nothing about this replica's disk (dissertation 10.2.1)."""

    after_write: tuple[Message, ...] = ()
    """Leave only after *every* write of this group up to now, this Ready's included, is durable: they promise it is."""

    restore: EntryId | None = None
    """To apply, before `committed`: replace the machine's state by this snapshot, whose install is durable. `Applied` tells the core
    when that is done."""

    committed: tuple[Entry, ...] = ()
    """To apply, in this order, now or later: committed, and durable here. `Applied` tells the core when."""

    loads: tuple[LoadEntries, ...] = ()
    """To read from this replica's log, now or later."""

    compaction: Compaction | None = None
    """To tell the storage, some time after `entries` were handed to it."""

    send_snapshots: tuple[SendSnapshot, ...] = ()
    """To stream, now or later."""

    accepted: tuple[tuple[Any, EntryId], ...] = ()
    """Proposals and changes of membership that are now in this leader's log, by token; not committed yet."""

    answered: tuple[tuple[Any, Any], ...] = ()
    """Other requests that are done, by token, and with what result."""

    refused: tuple[tuple[Any, RaftError], ...] = ()
    """Requests that are in no log, by token, and why; or that came half-way (`OutcomeUnknownError`)."""

    role_change: RoleChange | None = None
    """To tell to observers, after everything else."""

    @property
    def writes(self) -> bool:
        return self.hard_state is not None or self.me is not None or self.install is not None or bool(self.entries)


@attrs.frozen
class CoreStatus:
    """A replica's state at one moment."""

    role: Role
    term: Term
    vote: NodeId | None
    """The node voted for in `term`, or None."""
    leader: NodeId | None
    start: EntryId
    """The log begins behind this."""
    last: EntryId
    snapshot: EntryId
    """The newest snapshot on this replica's disk; 0@0: none."""
    memory_bytes: int
    """What the entries in memory take up, roughly."""
    persisted_index: Index
    commit_index: Index
    applied_index: Index
    me: Member
    """This replica's own number; `NOTHING` also while it has not learned it yet."""
    configuration: Configuration
    """The one in force."""
    is_removed: bool
    """It was told, or knows by its log, that it is in the group no more."""
    transfer_target: NodeId | None
    """Leader only: whom it is handing leadership over to."""
    match: dict[NodeId, Index]
    """Leader only: what each member is known to hold durably. Empty elsewhere."""
