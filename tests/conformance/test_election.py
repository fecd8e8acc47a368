"""Who gets a vote, and what comes of an election."""

from __future__ import annotations

import attrs
import pytest

from tests.conformance.network import Network
from tests.conformance.replica import Replica
from tests.conformance.tables import Case, numbered, table
from trioraft._types import NOTHING, EntryId, Member
from trioraft.core import PeerDown, PreVote, PreVoteReply, RequestVote, RequestVoteReply, TimePassed


def ask(replica: Replica, *, term: int, last: EntryId, source: int = 2, transfer: bool = False) -> bool:
    """Ask for a vote, and return whether it is granted."""
    replica.sent.clear()
    replica.hear(RequestVote, source=source, term=term, last=last, transfer=transfer)
    reply = replica.take_one(RequestVoteReply)
    assert reply.target.node_id == source
    return reply.granted


def candidate_last(case: Case) -> EntryId:
    return EntryId(case["candidate_last_term"], case["candidate_last_index"])


@table("election", "up_to_date")
def test_up_to_date(case: Case) -> None:
    voter = Replica(case["voter_terms"])
    assert (candidate_last(case) >= voter.raft.log.last) == case["up_to_date"]
    assert ask(voter, term=9, last=candidate_last(case)) == case["up_to_date"]


@table("election", "up_to_date")
def test_a_pre_vote_compares_logs_too(case: Case) -> None:
    voter = Replica(case["voter_terms"])
    voter.hear(PreVote, term=9, last=candidate_last(case))
    assert voter.take_one(PreVoteReply).granted == case["up_to_date"]


@table("election", "voter_denies_stale_log")
def test_voter_denies_stale_log(case: Case) -> None:
    """The table's voter is at term 0; ours is at the term of its last entry, because no log is newer than its term."""
    voter = Replica(case["voter_terms"], voters=(1, 2))
    assert ask(voter, term=case["request_term"], last=candidate_last(case)) == case["granted"]


@table("election", "request_matrix")
def test_request_matrix(case: Case) -> None:
    in_next_term = case["state"] in {"candidate", "leader"}
    if in_next_term:
        voter = Replica(case["voter_terms"], term=case["voter_term"] - 1)
    else:
        voter = Replica(case["voter_terms"], term=case["voter_term"], vote=case["voted_for"])
    voter.become(case["state"])
    assert (voter.role, voter.raft.term) == (case["state"], case["voter_term"])
    assert voter.raft.status().vote == case["voted_for"]
    assert ask(voter, term=case["request_term"], last=candidate_last(case), source=case["from"]) == case["granted"]


@table("election", "first_come_first_served")
def test_first_come_first_served(case: Case) -> None:
    voter = Replica(term=case["term"], vote=case["voted_for"])
    assert ask(voter, term=case["term"], last=NOTHING, source=case["candidate"]) == case["granted"]


@table("election", "may_grant")
def test_may_grant(case: Case) -> None:
    voter = Replica(term=case["term"], vote=case["voted_for"])
    assert ask(voter, term=case["request_term"], last=NOTHING, source=case["from"]) == case["may_grant"]
    assert ask(voter, term=case["request_term"] + 1, last=NOTHING, source=case["from"])


@table("election", "request_from_any_role")
def test_request_from_any_role(case: Case) -> None:
    """A leader with a quorum gives way only to an election that it has asked for itself: so that row carries the mark."""
    in_next_term = case["state"] in {"candidate", "leader"}
    replica = Replica(term=case["term_before"] - in_next_term)
    replica.become(case["state"])
    assert replica.raft.term == case["term_before"]
    request = case["request"]
    last = EntryId(request["last_term"], request["last_index"])
    granted = ask(replica, term=request["term"], last=last, source=request["from"], transfer=case["state"] == "leader")
    assert granted == case["granted"]
    assert (replica.role, replica.raft.term) == (case["state_after"], case["term_after"])
    assert replica.raft.status().vote == case["voted_for_after"]


@pytest.mark.parametrize("state", ["follower", "pre_candidate", "candidate", "leader"])
@pytest.mark.parametrize("ahead", [-1, 0, 1, 100])
def test_pv_4_a_pre_vote_changes_nothing(state: str, ahead: int) -> None:
    """PV-4, and the text of the group above: term, vote, role, timer and disk stay, whatever the term asked for."""
    replica = Replica([1, 1], term=4)
    replica.become(state)
    before, deadline, writes = replica.raft.status(), replica.raft.deadline, len(replica.writes)
    replica.sent.clear()
    replica.hear(PreVote, term=replica.raft.term + ahead, last=EntryId(9, 99))
    # A leader now wants to hear from the asker, who may not hear it; that is all it remembers.
    assert replica.raft.status() == before
    assert state == "leader" or replica.raft.deadline == deadline
    assert len(replica.writes) == writes
    granted = replica.take_one(PreVoteReply).granted
    # In the present term it depends on the vote, as it would for the vote itself.
    assert ahead == 0 or granted == (state != "leader" and ahead > 0)


@table("election", "one_round_outcome")
def test_one_round_outcome(case: Case) -> None:
    """The pre-vote before it is won: these are the answers to the vote itself."""
    replica = Replica(voters=range(1, case["group_size"] + 1))
    if case["group_size"] == 1:
        replica.become_leader()
    else:
        replica.become_candidate()
    for voter, granted in numbered(case["answers"]).items():
        replica.hear(RequestVoteReply, source=voter, granted=granted)
    assert (replica.role, replica.raft.term) == (case["state"], case["term"])


@table(
    "election",
    "election_in_network",
    leaves_out={1: "Does not apply: PreVote is always on, so whoever reaches no majority does not become a candidate."},
)
def test_election_in_network(case: Case) -> None:
    network = Network(voters=range(1, len(case["nodes"]) + 1))
    for node_id, state in enumerate(case["nodes"], 1):
        if state == "down":
            network.isolate(node_id)
    network.campaign(1)
    assert (network[1].role, network[1].raft.term) == (case["node1_state"], case["node1_term"])


@table("election", "vote_durability")
def test_vote_durability(case: Case) -> None:
    persisted, request = case["persisted"], case["request"]
    if "events" in case:
        replica = Replica(persisted["terms"], term=persisted["term"] - 1)
        replica.become_leader()
        replica.now = 10 * replica.raft.timing.election_timeout
        for other in replica.others:
            replica.liveness[other] = replica.now
            replica.step(PeerDown(other))
        replica.step(TimePassed())
        assert (replica.role, replica.raft.term, replica.raft.status().vote) == ("follower", persisted["term"], persisted["voted_for"])
    else:
        replica = Replica(persisted["terms"], term=persisted["term"], vote=persisted["voted_for"])
    last = EntryId(request["last_term"], request["last_index"])
    assert ask(replica, term=request["term"], last=last, source=request["from"]) == case["granted"]


def test_a_granted_vote_leaves_after_it_is_durable() -> None:
    """What makes the rows above true after a crash at any moment (EL-1)."""
    voter = Replica()
    voter.holds_writes = True
    voter.hear(RequestVote, term=1, last=NOTHING)
    assert not voter.sent
    assert [attrs.astuple(ready.hard_state) for ready in voter.writes if ready.hard_state] == [(1, 2)]
    voter.sync()
    assert voter.take_one(RequestVoteReply).granted


@pytest.mark.parametrize("stranger", [Member(9), Member(3, EntryId(1, 7))], ids=str)
def test_el_9_a_grant_of_a_stranger_is_not_counted(stranger: Member) -> None:
    """EL-9: neither of a node that is no member, nor of a member in another life; for pre-votes and votes."""
    replica = Replica()
    replica.become_pre_candidate()
    replica.step(PreVoteReply(stranger, Member(1), 1, granted=True))
    assert replica.role == "pre_candidate"
    replica.hear(PreVoteReply, term=1, granted=True)
    replica.step(RequestVoteReply(stranger, Member(1), 1, granted=True))
    assert replica.role == "candidate"
