"""How a replica comes to another role: what it leaves behind, and what it begins with.

Each change makes a new role object. Whoever counted on the old role is told, and whatever waited for it is answered.
"""

from __future__ import annotations

from collections.abc import Container

from .._errors import InvariantError, NotLeaderError, OutcomeUnknownError
from .._types import Member, Millis, NodeId, Term
from ._entry import Entry, EntryKind
from ._messages import Attach, Detach
from ._progress import Progress
from ._replica import Replica
from ._roles import LONG_AGO, Candidate, Follower, Leader, MemberView, PreCandidate


def become_follower(replica: Replica, term: Term, leader: Member | None, now: Millis) -> Follower:
    """Follow `leader`, or wait for one, in the present term or a higher one."""
    _leave(replica, leader)
    if term != replica.term:
        replica.ballot.enter(term)
    last_heard = LONG_AGO if leader is None else now
    replica.state = state = Follower(leader=leader, last_heard=last_heard, election_deadline=replica.patience_until(now))
    return state


def become_pre_candidate(replica: Replica, now: Millis) -> PreCandidate:
    """Give up the leader, without moving to another term."""
    _leave(replica, None)
    replica.state = state = PreCandidate(election_deadline=now + replica.draw_timeout())
    return state


def become_candidate(replica: Replica, now: Millis) -> Candidate:
    """Move to the next term and vote for itself in it (paper 5.2)."""
    if type(replica.state) is Leader:
        raise InvariantError(f"the leader of term {replica.term} cannot be a candidate")
    _leave(replica, None)
    replica.ballot.enter(replica.term + 1, replica.me.node_id)
    replica.state = state = Candidate(election_deadline=now + replica.draw_timeout())
    return state


def become_leader(replica: Replica, heard: Container[NodeId], now: Millis) -> Leader:
    """Lead the present term: attach the others, and append a no-op (paper 8; dissertation 6.4).

    Args:
        heard: who has answered in this term.
    """
    log, others = replica.log, replica.other_members()
    members = {member.node_id: new_view(replica, member, now if member.node_id in heard else LONG_AGO) for member in others}
    match = dict.fromkeys(replica.configuration.members(), 0)
    match[replica.me.node_id] = log.persisted_index
    replica.state = state = Leader(members=members, match=match)
    replica.led_term = replica.term
    for member in others:
        replica.send(Attach(replica.me, member, replica.term))
    log.append(Entry(log.last_index + 1, replica.term, EntryKind.NOOP, b""))
    return state


def new_view(replica: Replica, member: Member, contact: Millis) -> MemberView:
    """What a leader knows of a member at first: nothing."""
    config = replica.config
    progress = Progress(next=replica.log.last_index + 1, window_messages=config.window_messages, window_bytes=config.window_bytes)
    return MemberView(member, progress, contact)


def _leave(replica: Replica, leader: Member | None) -> None:
    """Tell those who count on this node's pulse, or on whose pulse it counts, that they should not; but not the new leader."""
    state = replica.state
    # NB: the term told is the one that ends, and that is durable: a later one that is being written must not hold this back.
    if type(state) is Leader:
        _answer_all(replica, state, None if leader is None else leader.node_id)
        for view in state.members.values():
            replica.messages.append(Detach(replica.me, view.member, replica.term))
    elif type(state) is Follower and state.is_attached and state.leader is not None and state.leader != leader:
        replica.messages.append(Detach(replica.me, state.leader, replica.term))


def _answer_all(replica: Replica, state: Leader, leader: NodeId | None) -> None:
    """It leads no longer: that is what a transfer has waited for, and reads can only be asked elsewhere.

    A change under way has an entry in the log already: the next leader may go on with that, or not know of it.
    """
    if state.change is not None:
        text = "leadership was lost while members were changing: look at who is in the group"
        replica.refused.append((state.change.token, OutcomeUnknownError(text)))
        # NB: whoever has called for this may still look at the old state.
        state.change = None
    replica.refused += [(token, NotLeaderError(leader)) for token in state.waiting_reads()]
    if state.transfer is not None:
        replica.answered.append((state.transfer.token, None))
