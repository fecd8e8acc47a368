"""What a group tells of itself."""

from __future__ import annotations

import attrs

from .._types import EntryId, GroupId, GroupKey, Index, NodeId, Term
from ..core import CoreStatus, Role
from ._taking import SnapshotTaker


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
    replica: EntryId
    """This replica's number: the entry that added it, 0@0 for those that began the group, or while it waits to hear its number."""
    voters: frozenset[NodeId]
    """While a change is under way: those that shall vote in the end."""
    learners: frozenset[NodeId]
    """Also voters that shall learn when the change is through."""
    outgoing: frozenset[NodeId]
    """While a change is under way that needs two quorums: the voters before it. Empty otherwise."""
    replicas: dict[NodeId, EntryId]
    """The replica number of each member."""
    configuration_index: Index
    """Of the entry that put these members in force; 0: the first ones."""
    is_removed: bool
    """It is in the group no more: `remove_group` deletes it. It comes back by itself if it is added again."""
    transfer_target: NodeId | None
    """Leader only: whom it is handing leadership over to."""
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


def describe(key: GroupKey, core: CoreStatus, taker: SnapshotTaker, *, waiting: int, failure: BaseException | None) -> GroupStatus:
    """Put together what the parts of a replica say of themselves."""
    configuration = core.configuration
    return GroupStatus(
        group_id=key.group_id,
        incarnation=key.incarnation,
        role=core.role,
        term=core.term,
        vote=core.vote,
        leader=core.leader,
        replica=core.me.replica,
        voters=configuration.voters,
        learners=configuration.learners | configuration.learners_next,
        outgoing=configuration.outgoing,
        replicas=dict(configuration.replicas),
        configuration_index=configuration.index,
        is_removed=core.is_removed,
        transfer_target=core.transfer_target,
        first_index=core.start.index + 1,
        last_index=core.last.index,
        persisted_index=core.persisted_index,
        commit_index=core.commit_index,
        applied_index=core.applied_index,
        match=core.match,
        waiting=waiting,
        memory_bytes=core.memory_bytes,
        snapshot=core.snapshot,
        snapshot_running_since=taker.running_since,
        snapshot_failure=taker.failure,
        failure=failure,
    )
