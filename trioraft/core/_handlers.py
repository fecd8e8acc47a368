"""What each role does with each kind of event, as tables.

The tables are complete: each names every kind of event, also those that the role ignores. The clock, and who sent a message in which
term, have been looked at before (`_raft`). The rules of the protocol are files of their own; what belongs to none of them is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, get_args

from .._errors import InvariantError, NotLeaderError
from .._types import Millis
from . import (
    _attachment,
    _election,
    _following,
    _leader_clock,
    _loading,
    _membership,
    _reads,
    _removal,
    _replication,
    _snapshots,
    _transfer,
)
from ._events import (
    Applied,
    Campaign,
    ChangeMembers,
    DiskSpace,
    EntriesLoaded,
    Event,
    PeerDown,
    PeerUp,
    Persisted,
    Propose,
    Read,
    Request,
    SnapshotSent,
    SnapshotTaken,
    TimePassed,
    TransferLeadership,
    TrimMemory,
    Unreachable,
)
from ._messages import (
    AppendEntries,
    AppendEntriesReply,
    Attach,
    AttachRefused,
    Detach,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    PreVote,
    PreVoteReply,
    Removed,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from ._replica import Replica
from ._role_changes import become_follower
from ._roles import Candidate, Follower, Leader, PreCandidate, RoleState

Handler: TypeAlias = Callable[[Any, Any, Any, Millis], None]


# Events that are the same in every role


def _ignore(replica: Replica, state: RoleState, event: Event, now: Millis) -> None:
    """Nothing follows from this event in this role."""


def _on_request(replica: Replica, state: RoleState, event: Request, now: Millis) -> None:
    replica.refused.append((event.token, NotLeaderError(replica.leader)))


def _on_persisted(replica: Replica, state: RoleState, event: Persisted, now: Millis) -> None:
    replica.log.persisted(event.sequence)
    replica.ballot.persisted(event.sequence)
    if type(state) is Leader:
        _replication.count_own_write(replica, state, now)
    elif type(state) is Candidate:
        _election.count_own_vote(replica, state, now)


def _on_applied(replica: Replica, state: RoleState, event: Applied, now: Millis) -> None:
    applying = replica.applying
    was_restoring = applying.is_restoring
    applying.applied(event.index)
    if was_restoring and not applying.is_restoring:
        # Only now: until then older snapshots are kept, the one that is being restored among them.
        _snapshots.compact(replica)


def _on_disk_space(replica: Replica, state: RoleState, event: DiskSpace, now: Millis) -> None:
    """Whoever cannot write can neither lead nor campaign; when there is space again, nobody is in a hurry."""
    if replica.has_space == event.available:
        return
    replica.has_space = event.available
    if type(state) is not Follower:
        become_follower(replica, replica.term, None, now)
    else:
        state.election_deadline = replica.patience_until(now)


_EVERYWHERE: dict[type, Handler] = {
    TimePassed: _ignore,  # the clock has been looked at
    Persisted: _on_persisted,
    Applied: _on_applied,
    DiskSpace: _on_disk_space,
    PreVote: _election.on_pre_vote,
    RequestVote: _election.on_request_vote,
    AppendEntries: _following.on_append_entries,
    Heartbeat: _following.on_heartbeat,
    Attach: _attachment.on_attach,
    AttachRefused: _ignore,  # its term has been looked at
    InstallSnapshot: _following.on_install_snapshot,
    EntriesLoaded: _loading.on_entries_loaded,
    TrimMemory: _loading.on_trim_memory,
    SnapshotTaken: _snapshots.on_snapshot_taken,
    SnapshotSent: _snapshots.on_snapshot_sent,
    Removed: _removal.on_removed,
}

_NOT_LEADING: dict[type, Handler] = {
    **_EVERYWHERE,
    Propose: _on_request,
    ChangeMembers: _on_request,
    TransferLeadership: _on_request,
    Read: _reads.refuse_read,
    Campaign: _election.on_campaign,
    PeerDown: _ignore,  # liveness is compared with the clock, which has been looked at
    PeerUp: _ignore,
    AppendEntriesReply: _ignore,  # it was for the leader that this replica is no more
    HeartbeatReply: _attachment.on_mistaken_reply,
}

HANDLERS: dict[type, dict[type, Handler]] = {
    Follower: {
        **_NOT_LEADING,
        PreVoteReply: _ignore,
        RequestVoteReply: _ignore,
        TimeoutNow: _transfer.on_timeout_now,
        Detach: _attachment.on_detach,
        Unreachable: _attachment.on_unreachable,
    },
    PreCandidate: {
        **_NOT_LEADING,
        PreVoteReply: _election.on_pre_vote_reply,
        RequestVoteReply: _ignore,
        TimeoutNow: _ignore,
        Detach: _ignore,
        Unreachable: _ignore,
    },
    Candidate: {
        **_NOT_LEADING,
        PreVoteReply: _ignore,
        RequestVoteReply: _election.on_request_vote_reply,
        TimeoutNow: _ignore,
        Detach: _ignore,
        Unreachable: _ignore,
    },
    Leader: {
        **_EVERYWHERE,
        Propose: _replication.on_propose,
        ChangeMembers: _membership.on_change_members,
        TransferLeadership: _transfer.on_transfer,
        Read: _reads.on_read,
        Campaign: _ignore,
        TimeoutNow: _ignore,
        PeerDown: _replication.on_peer_down,
        PeerUp: _replication.on_peer_up,
        Unreachable: _replication.on_unreachable,
        PreVoteReply: _ignore,
        RequestVoteReply: _ignore,
        AppendEntriesReply: _replication.on_append_reply,
        HeartbeatReply: _replication.on_heartbeat_reply,
        Detach: _replication.on_detach,
    },
}
"""What each role does with each kind of event."""

CHECKS: dict[type, Callable[[Any, Any, Millis], None]] = {
    Follower: _election.check_follower,
    PreCandidate: _election.check_candidate,
    Candidate: _election.check_candidate,
    Leader: _leader_clock.check_leader,
}
"""What each role does when it looks at the clock, before each event."""


def check_complete(handlers: Mapping[type, Mapping[type, Handler]]) -> None:
    """Refuse tables that do not name every kind of event for every role.

    Raises:
        InvariantError: names the role and what it lacks.
    """
    for role in get_args(RoleState):
        missing = set(get_args(Event)) ^ handlers[role].keys()
        if missing:
            names = sorted(kind.__name__ for kind in missing)
            raise InvariantError(f"the table of {role.__name__} and the kinds of events differ in {names}")


check_complete(HANDLERS)
