"""What comes out of a core: one record per turn, each field saying before or after what it is carried out."""

from __future__ import annotations

from enum import Enum
from typing import Any

import attrs

from .._errors import RaftError
from .._types import EntryId, Index, NodeId, Term
from ._entry import Entry
from ._messages import Message


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


# NB: built once a turn and not frozen for speed; its holder treats it as immutable.
@attrs.define
class Ready:
    """One turn's output. Whoever takes it carries out all of it, exactly once."""

    sequence: int = 0
    """The number under which `hard_state` and `entries` are to be written; 0 when there is nothing to write."""

    hard_state: HardState | None = None
    """To write, together with `entries`, as one unit."""

    entries: tuple[Entry, ...] = ()
    """To write. The first one replaces everything at and above its index."""

    messages: tuple[Message, ...] = ()
    """Leave at once, in this order; they promise nothing about this replica's disk (dissertation 10.2.1)."""

    after_write: tuple[Message, ...] = ()
    """Leave only after *every* write of this group up to now, this Ready's included, is durable: they promise it is."""

    committed: tuple[Entry, ...] = ()
    """To apply, in this order, now or later: committed, and durable here. `Applied` tells the core when."""

    accepted: tuple[tuple[Any, EntryId], ...] = ()
    """Proposals that are now in this leader's log, by token; not committed yet."""

    refused: tuple[tuple[Any, RaftError], ...] = ()
    """Proposals that are in no log, by token, and why."""

    role_change: RoleChange | None = None
    """To tell to observers, after everything else."""

    @property
    def writes(self) -> bool:
        return self.hard_state is not None or bool(self.entries)


@attrs.frozen
class CoreStatus:
    """A replica's state at one moment."""

    role: Role
    term: Term
    vote: NodeId | None
    """The node voted for in `term`, or None."""
    leader: NodeId | None
    last: EntryId
    persisted_index: Index
    commit_index: Index
    applied_index: Index
    match: dict[NodeId, Index]
    """Leader only: what each member is known to hold durably. Empty elsewhere."""
