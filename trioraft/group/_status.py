"""What a group tells of itself."""

from __future__ import annotations

import attrs

from .._types import EntryId, GroupId, Index, NodeId, Term
from ..core import Role


@attrs.frozen(kw_only=True)
class GroupStatus:
    """One replica at one moment, as seen by itself."""

    group_id: GroupId
    incarnation: int
    role: Role
    term: Term
    vote: NodeId | None
    """The node voted for in `term`, or None."""
    leader: NodeId | None
    """As far as this replica knows."""
    voters: frozenset[NodeId]
    learners: frozenset[NodeId]
    first_index: Index
    """Of the log, as far as it has not been cut; one more than `last_index` if all of it has."""
    last_index: Index
    persisted_index: Index
    """Durable on this node up to here."""
    commit_index: Index
    applied_index: Index
    match: dict[NodeId, Index]
    """Leader only: what each member is known to hold durably."""
    waiting: int
    """Proposals in the log that have not been answered yet."""
    memory_bytes: int
    """What the entries that are in memory take up, roughly."""
    snapshot: EntryId
    """The newest on this node's disk; 0@0: none."""
    snapshot_running_since: float | None
    """When the one that is being taken was begun, on Trio's clock. Long ago: the machine's code hangs, and the log grows."""
    snapshot_failure: BaseException | None
    """Why the last one could not be taken; None if it could."""
    failure: BaseException | None
    """Why the group stopped by itself, or None."""
