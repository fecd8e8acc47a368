"""Elections: from a deadline that passes to a leader (paper 5.2, 5.4.1; dissertation 9.6).

A replica that would like to lead first asks, without any trace, whether it would be elected (PreVote); only then it enters a term.
A voter that has a leader refuses, so nobody who merely cannot hear the leader disturbs the rest. An asker that is refused asks
less and less often, up to [4E, 8E), until it hears a leader or wins.

A vote is counted once it is durable, the candidate's own like the others': its requests leave after its vote is on its disk.

Whoever a lease counts on (`_reads`) neither votes nor campaigns until that is over, in whatever role and term it is by then.
"""

from __future__ import annotations

from .._types import Member, Millis, NodeId, Term
from ._events import Campaign
from ._messages import PreVote, PreVoteReply, RequestVote, RequestVoteReply
from ._quorum import VoteResult, vote_result
from ._replica import Replica
from ._resending import recall
from ._role_changes import become_candidate, become_follower, become_leader, become_pre_candidate
from ._roles import Candidate, Follower, Leader, PreCandidate, RoleState


def check_follower(replica: Replica, state: Follower, now: Millis) -> None:
    """Campaign if the leader has been silent for too long, and nothing else speaks for it."""
    if not replica.can_campaign:
        return
    if replica.is_leader_live(state, now):
        state.is_woken = False
        return
    if state.is_attached and not state.is_woken:
        # The node has been silent for E already. Many groups find that out at once: each waits for a part of E.
        state.is_woken = True
        state.election_deadline = max(now + replica.draw_delay(), state.last_heard + replica.timing.election_timeout)
    if _is_time(replica, state, now):
        _start_pre_vote(replica, now)


def check_candidate(replica: Replica, state: PreCandidate | Candidate, now: Millis) -> None:
    """A round that has brought nothing by its deadline is given up; the next one starts with a new timeout."""
    if _is_time(replica, state, now):
        _note_refusals(replica, state)
        _start_pre_vote(replica, now)


def _is_time(replica: Replica, state: Follower | PreCandidate | Candidate, now: Millis) -> bool:
    if now < state.election_deadline:
        return False
    if replica.is_bound(replica.me, now):
        # Many may be bound to the same moment.
        state.election_deadline = replica.bound_until + replica.draw_delay()
        return False
    if replica.is_own_disk_moving(now):
        return True
    # Its vote for itself would never be durable: it would only run through terms, and disturb the others when it is back.
    state.election_deadline = now + replica.draw_timeout()
    return False


def on_campaign(replica: Replica, state: RoleState, event: Campaign, now: Millis) -> None:
    if replica.can_campaign and not replica.is_bound(replica.me, now):
        _start_pre_vote(replica, now)


def _start_pre_vote(replica: Replica, now: Millis) -> None:
    state = become_pre_candidate(replica, now)
    for voter in replica.other_voters():
        replica.send(PreVote(replica.me, voter, replica.term + 1, replica.log.last, replica.genesis))
    _count_pre_vote(replica, state, replica.me.node_id, True, now)


def _count_pre_vote(replica: Replica, state: PreCandidate, voter: NodeId, granted: bool, now: Millis) -> None:
    state.votes.setdefault(voter, granted)
    result = vote_result(replica.configuration, state.votes)
    if result is VoteResult.WON:
        replica.refused_rounds = 0
        start_vote(replica, now)
    elif result is VoteResult.LOST:
        _note_refusals(replica, state)
        become_follower(replica, replica.term, None, now)


def _note_refusals(replica: Replica, state: PreCandidate | Candidate) -> None:
    if type(state) is PreCandidate and not all(state.votes.values()):
        replica.refused_rounds += 1


def start_vote(replica: Replica, now: Millis, *, transfer: bool = False) -> None:
    """Enter the next term and ask for its votes; `transfer`: because the leader has asked for that."""
    become_candidate(replica, now)
    for voter in replica.other_voters():
        replica.promise(RequestVote(replica.me, voter, replica.term, replica.log.last, transfer, replica.genesis))


def _count_vote(replica: Replica, state: Candidate, voter: NodeId, granted: bool, now: Millis) -> None:
    state.votes.setdefault(voter, granted)
    result = vote_result(replica.configuration, state.votes)
    if result is VoteResult.WON:
        become_leader(replica, state.votes, now)
    elif result is VoteResult.LOST:
        become_follower(replica, replica.term, None, now)


def count_own_vote(replica: Replica, state: Candidate, now: Millis) -> None:
    """A write is done: if that was the vote for itself, it counts from now on."""
    if replica.ballot.is_durable:
        _count_vote(replica, state, replica.me.node_id, True, now)


def on_pre_vote(replica: Replica, state: RoleState, message: PreVote, now: Millis) -> None:
    """Answer without a trace: neither term nor vote nor deadline change."""
    if type(state) is Leader:
        # It hears nobody lead: so it does not hear this leader.
        recall(replica, state, message.source)
    is_free = replica.has_space and not replica.is_sticky(message.source, message.term, now)
    if is_free and message.last >= replica.log.last and _may_vote(replica, message.source, message.term):
        # Tells nothing of this replica's own term.
        replica.messages.append(PreVoteReply(replica.me, message.source, message.term, granted=True))
    else:
        replica.send(PreVoteReply(replica.me, message.source, replica.term, granted=False))


def _may_vote(replica: Replica, source: Member, term: Term) -> bool:
    """One vote a term, first come, first served (paper 5.2)."""
    if term != replica.term:
        return term > replica.term
    return replica.ballot.vote == source.node_id or (replica.ballot.vote is None and replica.leader is None)


def on_pre_vote_reply(replica: Replica, state: PreCandidate, message: PreVoteReply, now: Millis) -> None:
    if not replica.is_counted(message.source):
        replica.drop("stranger")
    elif message.granted and message.term != replica.term + 1:
        replica.drop("stale term")
    else:
        _count_pre_vote(replica, state, message.source.node_id, message.granted, now)


def on_request_vote(replica: Replica, state: RoleState, message: RequestVote, now: Millis) -> None:
    # Paper 5.4.1: whoever is elected has everything that is committed, because a majority is not ahead of it.
    is_up_to_date = message.last >= replica.log.last
    # NB: also in its own term, that it may have come to by itself since it was bound. Only a leader's wish goes before a lease.
    is_free = replica.has_space and (message.transfer or not replica.is_bound(message.source, now))
    if not (is_free and is_up_to_date and _may_vote(replica, message.source, message.term)):
        replica.send(RequestVoteReply(replica.me, message.source, replica.term, granted=False))
        return
    replica.ballot.cast(message.source.node_id)
    replica.refused_rounds = 0
    # Whoever grants a vote waits for its outcome.
    if type(state) is Follower:
        state.election_deadline = now + replica.draw_timeout()
    else:
        become_follower(replica, replica.term, None, now)
    replica.promise(RequestVoteReply(replica.me, message.source, replica.term, granted=True))


def on_request_vote_reply(replica: Replica, state: Candidate, message: RequestVoteReply, now: Millis) -> None:
    if not replica.is_counted(message.source):
        replica.drop("stranger")
    else:
        _count_vote(replica, state, message.source.node_id, message.granted, now)
