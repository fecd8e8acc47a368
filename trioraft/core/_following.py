"""What a follower does: take what the leader of its term sends.

Anybody who leads the present term is followed, by candidates too (paper 5.2): there cannot be another. What a message proves to be
equal to the leader's log may be committed, and nothing beyond (paper figure 2). What is committed or cut off here is equal, whatever
the message says of it, or safety is lost.
"""

from __future__ import annotations

from .._errors import InvariantError
from .._types import EntryId, Member, Millis
from ._messages import AppendEntries, AppendEntriesReply, Heartbeat, HeartbeatReply, InstallSnapshot
from ._replica import Replica
from ._role_changes import become_follower
from ._roles import Follower, Leader, RoleState


def follow(replica: Replica, leader: Member, now: Millis) -> Follower:
    """The leader of the present term has spoken: follow it, and start to wait for its silence anew.

    Raises:
        InvariantError: the term has another leader.
    """
    replica.refused_rounds = 0
    state = replica.state
    if type(state) is Leader or (type(state) is Follower and state.leader not in (None, leader)):
        raise InvariantError(f"two leaders in term {replica.term}: node {replica.leader} and {leader}")
    if type(state) is not Follower:
        return become_follower(replica, replica.term, leader, now)
    state.leader = leader
    state.last_heard = now
    state.election_deadline = now + replica.draw_timeout()
    state.is_woken = False
    return state


def on_append_entries(replica: Replica, state: RoleState, message: AppendEntries, now: Millis) -> None:
    follow(replica, message.source, now)
    if not replica.has_space:
        # No answer: a refusal would read as "my log differs".
        replica.drop("disk full")
        return
    log, previous = replica.log, message.previous
    # Leader completeness (paper 5.4): what is committed here is in the leader's log.
    log.check_committed(previous)
    if not log.holds(previous) and previous.index > log.start.index:
        may_match = log.find_term(min(previous.index, log.last_index), previous.term)
        hint = EntryId(log.term_at(may_match), may_match)
        replica.send(
            AppendEntriesReply(
                replica.me, message.source, replica.term, match=0, rejected=previous.index, hint=hint, commit=log.commit_index
            )
        )
        return
    log.merge(previous, message.entries)
    replica.adopt_configuration()
    matched = previous.index + len(message.entries)
    log.commit_to(min(message.commit, matched))
    replica.promise(AppendEntriesReply(replica.me, message.source, replica.term, match=matched, commit=log.commit_index))


def on_install_snapshot(replica: Replica, state: RoleState, message: InstallSnapshot, now: Millis) -> None:
    """Begin anew behind a snapshot that is on the disk already; the answer leaves when the log on the disk says so too."""
    follow(replica, message.source, now)
    if not replica.has_space:
        replica.drop("disk full")
        return
    log, at = replica.log, message.at
    log.check_committed(at)
    if at.index > log.commit_index:
        log.install(at, message.configuration)
        replica.adopt_configuration()
        replica.applying.restore = replica.snapshot = at
        replica.install = message
        # Whatever was to be told to the storage is older than this.
        replica.compaction = None
    # Everything committed here is in the leader's log too (paper 5.4).
    replica.promise(AppendEntriesReply(replica.me, message.source, replica.term, match=log.commit_index, commit=log.commit_index))


def on_heartbeat(replica: Replica, state: RoleState, message: Heartbeat, now: Millis) -> None:
    follow(replica, message.source, now)
    if message.round:
        replica.bind(message.source, now)
    # At most what this replica has acknowledged in this term: if that is beyond its log, the log has lost it.
    replica.log.commit_to(message.commit)
    replica.send(HeartbeatReply(replica.me, message.source, replica.term, replica.log.commit_index, message.round))
