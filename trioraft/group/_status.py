"""What a group tells of itself."""

from __future__ import annotations

import attrs

from .._types import GroupId, Index, NodeId, Term
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
    last_index: Index
    persisted_index: Index
    """Durable on this node up to here."""
    commit_index: Index
    applied_index: Index
    match: dict[NodeId, Index]
    """Leader only: what each member is known to hold durably."""
    waiting: int
    """Proposals in the log that have not been answered yet."""
    failure: BaseException | None
    """Why the group stopped by itself, or None."""
