"""Changes of role and term, and the clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conformance.replica import Replica
from tests.conformance.tables import Case, table
from trioraft._types import NEVER, NOTHING
from trioraft.core import Campaign, Heartbeat, Message, PreVoteReply, RequestVote, RequestVoteReply, TimePassed


def hear_higher_term(replica: Replica) -> None:
    replica.hear(RequestVote, term=replica.raft.term + 1, last=NOTHING, transfer=True)


def be_refused(replica: Replica) -> None:
    kind: type[Message] = PreVoteReply if replica.role == "pre_candidate" else RequestVoteReply
    for other in replica.others:
        if replica.role != "follower":
            replica.hear(kind, source=other, granted=False)


def win_pre_vote(replica: Replica) -> None:
    for other in replica.others:
        if replica.role == "pre_candidate":
            replica.hear(PreVoteReply, source=other, term=replica.raft.term + 1, granted=True)


def start_over(replica: Replica) -> None:
    replica.now = replica.raft.deadline
    replica.step(TimePassed())
    win_pre_vote(replica)


MOVES: dict[tuple[str, str], Callable[[Replica], None]] = {
    ("follower", "follower"): hear_higher_term,
    ("follower", "candidate"): Replica.become_candidate,
    ("pre_candidate", "follower"): be_refused,
    ("pre_candidate", "candidate"): win_pre_vote,
    ("candidate", "follower"): be_refused,
    ("candidate", "candidate"): start_over,
    ("leader", "follower"): hear_higher_term,
    ("leader", "candidate"): lambda replica: replica.step(Campaign()),
}


@table("state_transitions", "role_change_matrix")
def test_role_change(case: Case) -> None:
    """The table forces roles at term 0; here events lead there, so its terms are what the change adds to the term before."""
    replica = Replica()
    replica.become(case["from"])
    before = replica.raft.term
    MOVES[case["from"], case["to"]](replica)
    if case["allowed"]:
        assert (replica.role, replica.raft.term - before) == (case["to"], case["term_after"])
        assert replica.raft.leader == case["leader_after"]
    else:
        assert (replica.role, replica.raft.term) == (case["from"], before)


@table("state_transitions", "higher_term_message")
def test_higher_term_message(case: Case) -> None:
    """The leader's row carries the mark of an election that the leader has asked for: a leader with a quorum heeds no other."""
    replica = Replica()
    replica.become(case["state"])
    transfer = case["state"] == "leader"
    replica.hear(RequestVote, source=case["from"], term=case["message_term"], last=NOTHING, transfer=transfer)
    assert (replica.role, replica.raft.term, replica.raft.leader) == (case["state_after"], case["term_after"], case["leader_after"])
    assert replica.raft.log.last_index == case["last_index_after"]


@table("state_transitions", "term_update_on_append")
def test_term_update_on_append(case: Case) -> None:
    replica = Replica(term=0 if case["state"] == "leader" else 1)
    replica.become(case["state"])
    assert replica.raft.term == 1
    replica.hear_append(NOTHING, term=case["message_term"])
    assert (replica.role, replica.raft.term, replica.raft.leader) == (case["state_after"], case["term_after"], 2)


@table("state_transitions", "candidate_yields_to_leader")
def test_candidate_yields_to_leader(case: Case) -> None:
    replica = Replica(term=case["candidate_term"] - 1)
    replica.become_candidate()
    replica.hear_append(NOTHING, term=case["append_term"])
    assert (replica.role, replica.raft.term) == (case["state_after"], case["term_after"])


@pytest.fixture(scope="module")
def timeouts() -> list[int]:
    replica = Replica()
    return [replica.raft.draw_timeout() for _ in range(10_000)]


@table("state_transitions", "randomised_timeout")
def test_randomised_timeout(case: Case, timeouts: list[int]) -> None:
    """The table's tick is a tenth of E here: at tick 13 of 10, whoever has drawn less than 14 of them campaigns."""
    tick = Replica().raft.timing.election_timeout / case["election_timeout"]
    share = sum(timeout < (case["elapsed_ticks"] + 1) * tick for timeout in timeouts) / len(timeouts)
    assert round(share, 1) == case["probability_of_campaign"]


def test_every_timeout_from_e_to_2e_is_drawn(timeouts: list[int]) -> None:
    """What the group's text says beyond its rows."""
    assert min(timeouts) >= 1000
    assert max(timeouts) < 2000
    assert {timeout // 100 for timeout in timeouts} == set(range(10, 20))


@table("state_transitions", "promotable")
def test_promotable(case: Case) -> None:
    replica = Replica(me=case["self"], voters=case["voters"])
    replica.now = 10_000
    replica.step(TimePassed())
    replica.step(Campaign())
    assert (replica.role == "leader") == case["may_campaign"]


def test_a_learner_never_campaigns() -> None:
    """What the group's text says beyond its rows."""
    learner = Replica(me=4, learners=[4])
    assert learner.raft.deadline == NEVER
    learner.now = 10_000
    learner.step(TimePassed())
    learner.step(Campaign())
    assert (learner.role, learner.sent) == ("follower", [])


@table(
    "state_transitions",
    "heartbeat_tick",
    leaves_out={0: "Does not apply: a group has no heartbeat of its own; the pulse between two nodes speaks for all their groups."},
)
def test_heartbeat_tick(case: Case) -> None:
    replica = Replica()
    replica.become(case["state"])
    replica.now += replica.raft.timing.heartbeat_interval
    replica.step(TimePassed())
    assert len(replica.take(Heartbeat)) == case["heartbeats_sent"]


def late_self_vote_after_losing(replica: Replica) -> None:
    replica.become_candidate()
    replica.hear(Heartbeat, commit=0)
    replica.sync()


def votes_before_the_own_is_durable(replica: Replica) -> None:
    """A pre-vote for itself is never late: it is written nowhere, so it counts at once. An older write does not vouch for the vote."""
    replica.hear_append(NOTHING, [1], term=1)
    older = replica.sequence
    replica.become_candidate()
    replica.hear(RequestVoteReply, source=2, granted=True)
    assert replica.role == "candidate"
    replica.sync(older)
    assert replica.role == "candidate"
    replica.sync()


@table("state_transitions", "late_local_acks")
def test_late_local_acks(case: Case) -> None:
    script = {
        "late self vote after losing": late_self_vote_after_losing,
        "late pre-vote self vote after becoming candidate": votes_before_the_own_is_durable,
    }[case["name"]]
    replica = Replica()
    replica.holds_writes = True
    script(replica)
    assert replica.role == case["state"]
