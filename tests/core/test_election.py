"""Elections: votes, pre-votes, deadlines, stickiness."""

from __future__ import annotations

import attrs
import pytest

from tests.core.harness import E, Network, Turns, make_leader, make_raft, voters_of
from trioraft._errors import ConfigError, InvariantError, NotLeaderError
from trioraft._types import NEVER, NOTHING, EntryId, Member
from trioraft.core import (
    AppendEntries,
    Attach,
    Campaign,
    Configuration,
    Detach,
    DiskSpace,
    Durable,
    GroupConfig,
    HardState,
    Heartbeat,
    HeartbeatReply,
    Message,
    Persisted,
    PreVote,
    PreVoteReply,
    Propose,
    Raft,
    RequestVote,
    RequestVoteReply,
    Role,
    TimePassed,
    Timing,
)
from trioraft.core._handlers import HANDLERS, check_complete
from trioraft.core._role_changes import become_candidate
from trioraft.core._roles import Follower

N1, N2, N3 = Member(1), Member(2), Member(3)


def request(source: Member, term: int, last: EntryId = NOTHING, target: Member = N1, *, transfer: bool = False) -> RequestVote:
    return RequestVote(source, target, term, last, transfer)


def ask(raft: Raft, message: Message, now: int = 0) -> list[Message]:
    raft.step(message, now)
    return Turns(raft, first=1000).settle(now)


# Votes


def test_EL_1_vote_survives_a_crash() -> None:
    raft = make_raft(term=4)
    raft.step(request(N2, 5), 0)
    ready = raft.take_ready(1)
    assert ready.hard_state == HardState(5, 2)
    # No grant leaves before the sync: it is not among the messages that leave at once.
    assert ready.messages == ()
    assert ready.after_write == (RequestVoteReply(N1, N2, 5, granted=True),)
    # A crash after the sync: the vote is on disk, and nobody else gets it.
    again = make_raft(term=5, vote=2)
    assert ask(again, request(N3, 5)) == [RequestVoteReply(N1, N3, 5, granted=False)]
    assert ask(again, request(N2, 5)) == [RequestVoteReply(N1, N2, 5, granted=True)]
    assert again.status().vote == 2


@pytest.mark.parametrize("is_synced", [False, True])
def test_EL_1_vote_and_crash_in_a_group(is_synced: bool) -> None:
    network = Network((1, 2, 3), terms=dict.fromkeys((1, 2, 3), 4))
    network.stall(1)
    network.inject(request(N2, 5))
    network.deliver()
    if is_synced:
        network.sync(1)
    network.restart(1)
    network.inject(request(N3, 5))
    network.deliver()
    granted = {m.target for m in network.sent if isinstance(m, RequestVoteReply) and m.granted and m.source == N1}
    assert granted == ({N2} if is_synced else {N3})


def test_EL_4_stale_log_cannot_win() -> None:
    for last, granted in [(EntryId(2, 9), False), (EntryId(3, 4), False), (EntryId(3, 5), True), (EntryId(4, 1), True)]:
        raft = make_raft(log=[1, 1, 2, 2, 3])
        assert ask(raft, request(N2, 6, last)) == [RequestVoteReply(N1, N2, 6, granted=granted)]
        raft = make_raft(log=[1, 1, 2, 2, 3])
        answer = PreVoteReply(N1, N2, 6 if granted else 3, granted=granted)
        assert ask(raft, PreVote(N2, N1, 6, last)) == [answer]


@pytest.mark.parametrize("batch", range(4))
def test_EL_5_split_votes_end(batch: int) -> None:
    """All four deadlines fire at the same moment; in at least 99.9 % of 1,000 seeds there is a leader within 10 E."""
    late = 0
    for seed in range(batch * 250, batch * 250 + 250):
        network = Network((1, 2, 3, 4), seed=seed)
        for node_id in network.nodes:
            network.campaign(node_id)
        network.deliver()
        while network.leader is None and network.now < 10 * E:
            network.wait(E // 4)
        late += network.leader is None
    assert late == 0


def test_EL_5_the_timeout_is_drawn_anew() -> None:
    raft = make_raft()
    drawn = set()
    for _ in range(50):
        now = raft.deadline
        raft.step(TimePassed(), now)
        assert E <= raft.deadline - now < 2 * E
        drawn.add(raft.deadline - now)
    assert len(drawn) > 30
    assert raft.term == 0


def test_EL_9_vote_from_a_stranger() -> None:
    replicas = {1: NOTHING, 2: NOTHING, 3: EntryId(2, 7)}
    configuration = Configuration(frozenset({1, 2, 3}), replicas=replicas)
    raft = make_raft(configuration=configuration)
    turns = Turns(raft)
    raft.step(Campaign(), 0)
    turns.settle(0)
    # Pre-votes of a stranger and of n3's former life count as little as votes do.
    raft.step(PreVoteReply(Member(9, EntryId(1, 1)), N1, 1, granted=True), 0)
    raft.step(PreVoteReply(N3, N1, 1, granted=True), 0)
    assert raft.role is Role.PRE_CANDIDATE
    raft.step(PreVoteReply(N2, N1, 1, granted=True), 0)
    turns.settle(0)
    assert raft.role is Role.CANDIDATE
    raft.step(RequestVoteReply(Member(9, EntryId(1, 1)), N1, 1, granted=True), 0)
    raft.step(RequestVoteReply(N3, N1, 1, granted=True), 0)
    raft.step(RequestVoteReply(Member(3, EntryId(3, 9)), N1, 1, granted=True), 0)
    assert raft.role is Role.CANDIDATE
    assert raft.dropped == {"stranger": 3, "former replica": 2}
    raft.step(RequestVoteReply(N2, N1, 1, granted=True), 0)
    assert raft.role is Role.LEADER


def test_EL_10_candidate_restarts() -> None:
    raft = make_raft(term=7, vote=1)
    assert ask(raft, request(N2, 7)) == [RequestVoteReply(N1, N2, 7, granted=False)]
    now = raft.deadline
    turns = Turns(raft)
    raft.step(TimePassed(), now)
    assert {message.term for message in turns.settle(now)} == {8}
    raft.step(PreVoteReply(N2, N1, 8, granted=True), now)
    assert raft.take_ready(100).hard_state == HardState(8, 1)


def test_the_own_vote_counts_when_it_is_durable() -> None:
    raft = make_raft(configuration=voters_of(1, 2))
    raft.step(Campaign(), 0)
    raft.take_ready(1)
    raft.step(PreVoteReply(N2, N1, 1, granted=True), 0)
    ready = raft.take_ready(2)
    assert ready.messages == ()
    assert ready.after_write == (attrs.evolve(request(N1, 1, target=N2), genesis=raft.genesis),)
    raft.step(RequestVoteReply(N2, N1, 1, granted=True), 0)
    assert raft.role is Role.CANDIDATE
    raft.step(Persisted(1), 0)
    assert raft.role is Role.CANDIDATE
    raft.step(Persisted(2), 0)
    assert raft.role is Role.LEADER


def test_a_vote_that_becomes_durable_after_its_term_counts_for_nothing() -> None:
    raft = make_raft(configuration=voters_of(1))
    raft.step(TimePassed(), 0)
    assert (raft.role, raft.term) == (Role.CANDIDATE, 1)
    raft.take_ready(1)
    raft.step(TimePassed(), raft.deadline)
    assert (raft.role, raft.term) == (Role.CANDIDATE, 2)
    raft.step(Persisted(1), 2000)
    assert raft.role is Role.CANDIDATE
    raft.take_ready(2)
    raft.step(Persisted(1), 2000)
    assert raft.role is Role.CANDIDATE
    raft.step(Persisted(2), 2000)
    assert raft.role is Role.LEADER


def test_a_lost_election_makes_a_follower_of_the_same_term() -> None:
    raft = make_raft()
    turns = Turns(raft)
    raft.step(Campaign(), 0)
    raft.step(PreVoteReply(N2, N1, 1, granted=True), 0)
    turns.settle(0)
    for source in (N2, N3):
        raft.step(RequestVoteReply(source, N1, 1, granted=False), 0)
    assert (raft.role, raft.term) == (Role.FOLLOWER, 1)


def test_a_candidate_without_answers_asks_again() -> None:
    raft = make_raft()
    raft.step(Campaign(), 0)
    raft.step(PreVoteReply(N2, N1, 1, granted=True), 0)
    assert raft.role is Role.CANDIDATE
    raft.step(TimePassed(), raft.deadline)
    assert (raft.role, raft.term) == (Role.PRE_CANDIDATE, 1)


def test_a_single_voter_elects_itself_at_once() -> None:
    network = Network((1,), learners=(2,))
    network.wait(1)
    assert network.leader == 1
    network.wait(50 * E)
    network.crash(2)
    network.wait(50 * E)
    assert network.leader == 1
    assert network.nodes[1].deadline == NEVER


@pytest.mark.parametrize("node_id", [3, 4])
def test_learners_and_strangers_never_campaign(node_id: int) -> None:
    raft = make_raft(node_id, voters_of(1, 2, learners=[3]))
    assert raft.deadline == NEVER
    raft.step(Campaign(), 0)
    raft.step(TimePassed(), 100 * E)
    assert raft.role is Role.FOLLOWER
    assert not raft.has_ready


def test_a_former_life_never_campaigns() -> None:
    configuration = Configuration(frozenset({1, 2}), replicas={1: EntryId(3, 5), 2: NOTHING})
    raft = Raft(
        N1,
        configuration,
        Durable(),
        config=GroupConfig(),
        timing=Timing(),
        random=make_raft()._random,
        liveness={},
        now=0,
    )
    assert raft.deadline == NEVER


def test_a_candidate_follows_the_leader_of_its_term() -> None:
    for message in (AppendEntries(N2, N1, 1, NOTHING, 0), Heartbeat(N2, N1, 1, 0), Attach(N2, N1, 1)):
        raft = make_raft()
        raft.step(Campaign(), 0)
        raft.step(PreVoteReply(N2, N1, 1, granted=True), 0)
        raft.step(message, 0)
        assert (raft.role, raft.leader, raft.watched()) == (Role.FOLLOWER, 2, {2})


def test_a_pre_candidate_grants_a_vote_of_its_term() -> None:
    raft = make_raft(term=3)
    raft.step(Campaign(), 0)
    assert raft.watched() == frozenset()
    assert ask(raft, request(N2, 3))[-1] == RequestVoteReply(N1, N2, 3, granted=True)
    assert raft.role is Role.FOLLOWER


def test_a_granted_vote_waits_for_its_outcome() -> None:
    raft = make_raft(term=1)
    now = raft.deadline - 1
    raft.step(request(N2, 1), now)
    assert raft.deadline >= now + E


def test_requests_of_lower_terms_are_told_the_present_one() -> None:
    raft = make_raft(term=5)
    assert ask(raft, request(N2, 4)) == [RequestVoteReply(N1, N2, 5, granted=False)]
    assert ask(raft, PreVote(N2, N1, 4, NOTHING)) == [PreVoteReply(N1, N2, 5, granted=False)]
    assert ask(raft, RequestVoteReply(N2, N1, 4, granted=True)) == []
    assert raft.dropped == {"stale term": 2}


def test_what_is_not_for_this_replica_is_dropped() -> None:
    raft = make_raft()
    raft.step(request(N2, 9, target=N3), 0)
    raft.step(request(N1, 9), 0)
    raft.step(request(N2, 9, target=Member(1, EntryId(1, 1))), 0)
    assert raft.term == 0
    assert raft.dropped == {"wrong target": 3}


def test_two_leaders_in_one_term_stop_the_group() -> None:
    raft = make_raft()
    raft.step(Heartbeat(N2, N1, 1, 0), 0)
    with pytest.raises(InvariantError, match="two leaders in term 1: node 2 and n3"):
        raft.step(Heartbeat(N3, N1, 1, 0), 0)
    raft, _ = make_leader()
    with pytest.raises(InvariantError, match="two leaders in term 1: node 1 and n2"):
        raft.step(Heartbeat(N2, N1, 1, 0), 0)


def test_a_leader_cannot_be_a_candidate() -> None:
    raft, _ = make_leader()
    with pytest.raises(InvariantError, match="cannot be a candidate"):
        become_candidate(raft, 0)
    raft.step(Campaign(), 0)
    assert raft.role is Role.LEADER


def test_the_ballot_guards_itself() -> None:
    raft = make_raft(term=3, vote=2)
    with pytest.raises(InvariantError, match="term 3 does not follow term 3"):
        raft.ballot.enter(3)
    with pytest.raises(InvariantError, match="a second vote in term 3: for node 2, then for node 3"):
        raft.ballot.cast(3)


def test_a_log_without_its_term_is_refused() -> None:
    """Term and vote are durable before any entry of the term: a node that cannot read its vote does not vote."""
    with pytest.raises(InvariantError, match="ends with 2@2, but the durable term is 1"):
        make_raft(log=[1, 2], term=1)


def test_tables_must_be_complete() -> None:
    tables = {role: dict(table) for role, table in HANDLERS.items()}
    check_complete(tables)
    del tables[Follower][Propose]
    with pytest.raises(InvariantError, match=r"Follower .* \['Propose'\]"):
        check_complete(tables)


# PreVote and CheckQuorum. PV-7 (a rolling switch) does not apply: PreVote and CheckQuorum are always on.


def test_PV_1_isolated_node_returns() -> None:
    network = Network()
    network.elect(1)
    network.isolate(3)
    network.wait(100 * E)
    assert network.nodes[3].term == 1
    network.heal()
    network.wait(10 * E)
    assert network.leaders == [1]
    assert {raft.term for raft in network.nodes.values()} == {1}
    assert {raft.deadline for raft in network.nodes.values()} == {NEVER}


@pytest.mark.parametrize("seed", range(20))
def test_PV_3_deaf_leader(seed: int) -> None:
    network = Network(seed=seed)
    network.elect(1)
    for other in (2, 3):
        network.cut(other, 1, both_ways=False)
    network.wait(2 * E)
    assert network.nodes[1].role is not Role.LEADER
    network.wait(3 * E)
    assert network.leader in (2, 3)


@pytest.mark.parametrize("seed", range(20))
def test_a_leader_that_nobody_hears_is_replaced(seed: int) -> None:
    network = Network(seed=seed)
    network.elect(1)
    for other in (2, 3):
        network.cut(1, other, both_ways=False)
    network.wait(5 * E)
    assert network.leader in (2, 3)
    assert network.leaders == [network.leader]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("term", [0, 1, 2, 3, 100])
def test_PV_4_pre_vote_leaves_no_trace(role: Role, term: int) -> None:
    if role is Role.LEADER:
        raft, turns = make_leader(liveness={2: NEVER, 3: NEVER})
    else:
        raft = make_raft(log=[1])
        turns = Turns(raft)
        if role is not Role.FOLLOWER:
            raft.step(Campaign(), 0)
        if role is Role.CANDIDATE:
            raft.step(PreVoteReply(N2, N1, 2, granted=True), 0)
    turns.settle(0)
    before = raft.status(), raft.deadline
    raft.step(PreVote(N2, N1, term, EntryId(9, 9)), 0)
    ready = turns.take()
    assert not ready.writes
    assert (raft.status(), raft.role) == (before[0], role)
    if role is not Role.LEADER:
        assert raft.deadline == before[1]


def test_a_follower_with_a_leader_refuses_to_replace_it() -> None:
    raft = make_raft()
    raft.step(Heartbeat(N2, N1, 1, 0), 0)
    raft.take_ready(1)
    raft.step(Persisted(1), 0)
    assert ask(raft, PreVote(N3, N1, 2, NOTHING), E - 1) == [PreVoteReply(N1, N3, 1, granted=False)]
    assert ask(raft, request(N3, 2), E - 1) == []
    assert raft.dropped == {"sticky": 1}
    assert raft.term == 1
    assert ask(raft, PreVote(N3, N1, 2, NOTHING), E) == [PreVoteReply(N1, N3, 2, granted=True)]
    # LT-6: the leader itself has asked for this election.
    ask(raft, Heartbeat(N2, N1, 1, 0), E)
    assert ask(raft, request(N3, 2, transfer=True), E) == [RequestVoteReply(N1, N3, 2, granted=True)]


def test_a_leader_that_asks_to_be_elected_leads_no_longer() -> None:
    raft = make_raft(liveness={2: NEVER})
    raft.step(Attach(N2, N1, 1), 0)
    raft.step(Persisted(raft.take_ready(1).sequence), 0)
    assert ask(raft, PreVote(N3, N1, 2, NOTHING), 9 * E) == [PreVoteReply(N1, N3, 1, granted=False)]
    assert ask(raft, PreVote(N2, N1, 2, NOTHING), 9 * E) == [PreVoteReply(N1, N2, 2, granted=True)]
    assert raft.leader == 2


def test_a_leader_sticks_to_itself_and_calls_the_asker() -> None:
    raft, turns = make_leader(liveness={2: NEVER, 3: NEVER})
    for message in (PreVote(N2, N1, 2, EntryId(1, 1)), request(N2, 2, EntryId(1, 1))):
        raft.step(message, 0)
        messages = turns.settle(0)
        assert messages[:2] == [Attach(N1, N2, 1), Heartbeat(N1, N2, 1, 1)]
        assert raft.role is Role.LEADER
    raft.step(PreVote(Member(9, EntryId(1, 1)), N1, 2, EntryId(1, 1)), 0)
    assert turns.settle(0) == [PreVoteReply(N1, Member(9, EntryId(1, 1)), 1, granted=False)]


def test_a_stuck_candidate_is_freed() -> None:
    """A candidate of a higher term answers the leader of a lower one, which steps down: else it would be stuck for ever."""
    network = Network()
    network.elect(1)
    network.isolate(3)
    network.wait(2 * E)
    # It had won a pre-vote before it was cut off.
    network.inject(PreVoteReply(N1, N3, 2, granted=True))
    network.deliver()
    assert network.nodes[3].term == 2
    network.heal()
    network.wait(5 * E)
    assert len(network.leaders) == 1
    terms = {raft.term for raft in network.nodes.values()}
    assert len(terms) == 1
    assert terms.pop() >= 2


def test_answers_to_leaders_of_the_past() -> None:
    raft = make_raft(term=5)
    answers = ask(raft, AppendEntries(N2, N1, 4, NOTHING, 0)) + ask(raft, Heartbeat(N2, N1, 4, 0)) + ask(raft, Attach(N2, N1, 4))
    assert {(type(answer).__name__, answer.term) for answer in answers} == {
        ("AppendEntriesReply", 5),
        ("HeartbeatReply", 5),
        ("AttachRefused", 5),
    }
    for answer in answers:
        leader, turns = make_leader(term=3)
        assert leader.term == 4
        answer.source, answer.target = N2, N1
        leader.step(answer, 0)
        assert (leader.role, leader.term) == (Role.FOLLOWER, 5)
        assert [message for message in turns.settle(0) if not isinstance(message, Detach)] == []


def test_no_message_tells_a_term_that_is_not_durable() -> None:
    raft = make_raft(term=1)
    raft.step(Heartbeat(N2, N1, 3, 0), 0)
    raft.step(PreVote(N3, N1, 2, NOTHING), 0)
    ready = raft.take_ready(1)
    assert ready.messages == ()
    assert [message.term for message in ready.after_write] == [3, 3]
    raft.step(Heartbeat(N2, N1, 3, 0), 0)
    assert raft.take_ready(2).messages == ()
    raft.step(Persisted(1), 0)
    raft.step(Heartbeat(N2, N1, 3, 0), 0)
    assert raft.take_ready(3).messages == (HeartbeatReply(N1, N2, 3, 0),)


def test_refused_pre_votes_back_off() -> None:
    """n1-n3 cut, both see n2: n3 asks less and less often, and is back at once when the link is."""
    network = Network()
    network.elect(1)
    network.cut(1, 3)
    network.wait(10 * E)
    before = len([m for m in network.sent if isinstance(m, PreVote)])
    network.wait(100 * E)
    rounds = (len([m for m in network.sent if isinstance(m, PreVote)]) - before) / 2
    assert 100 / 8 - 1 <= rounds <= 100 / 4 + 1
    assert network.leaders == [1]
    network.heal()
    network.wait(E)
    assert network.nodes[3].leader == 1
    assert network.nodes[3].refused_rounds == 0


def test_a_refusal_counts_once_a_round_also_when_the_round_times_out() -> None:
    raft = make_raft(configuration=voters_of(1, 2, 3, 4, 5), term=3)
    raft.step(Campaign(), 0)
    raft.step(PreVoteReply(N2, N1, 2, granted=False), 0)
    raft.step(PreVoteReply(N3, N1, 3, granted=False), 0)
    assert raft.role is Role.PRE_CANDIDATE
    raft.step(PreVoteReply(N3, N1, 5, granted=True), 0)
    assert raft.dropped == {"stale term": 1}
    now = raft.deadline
    raft.step(TimePassed(), now)
    assert raft.refused_rounds == 1
    assert 2 * E <= raft.deadline - now < 4 * E
    for source in (N2, N3, Member(4)):
        raft.step(PreVoteReply(source, N1, 3, granted=False), now)
    assert (raft.role, raft.refused_rounds) == (Role.FOLLOWER, 2)
    assert 4 * E <= raft.deadline - now < 8 * E


def test_a_refusal_of_a_higher_term_moves_the_asker_on() -> None:
    raft = make_raft()
    raft.step(Campaign(), 0)
    raft.step(PreVoteReply(N2, N1, 4, granted=False), 0)
    assert (raft.role, raft.term) == (Role.FOLLOWER, 4)


def test_late_answers_find_nobody() -> None:
    raft = make_raft(term=2)
    for message in (PreVoteReply(N2, N1, 3, granted=True), RequestVoteReply(N2, N1, 2, granted=True)):
        raft.step(message, 0)
    assert not raft.has_ready


def test_PV_10_the_timing_floor() -> None:
    with pytest.raises(ConfigError, match="must be at least 5 times heartbeat_interval"):
        Timing(heartbeat_interval=100, election_timeout=499)
    with pytest.raises(ConfigError, match="at least 1 ms"):
        Timing(heartbeat_interval=0)
    assert Timing(heartbeat_interval=100, election_timeout=500).election_timeout == 500


@pytest.mark.parametrize("seed", range(5))
def test_PV_10_a_round_trip_just_under_the_timeout_keeps_the_leader(seed: int) -> None:
    """Answers take 0.9 E: slow, but nobody campaigns, and everything commits."""
    network = Network(seed=seed)
    network.elect(1)
    network.wait(E)
    for _ in range(20):
        for node_id in (2, 3):
            network.stall(node_id)
        network.propose(1, b"x")
        network.wait(9 * E // 10)
        for node_id in (2, 3):
            network.sync(node_id)
        network.deliver()
    network.wait(E)
    assert network.leaders == [1]
    assert network.nodes[1].term == 1
    assert [len(entries) for entries in network.applied.values()] == [21] * 3


# Disk space


def test_without_space_nobody_votes_campaigns_or_leads() -> None:
    raft = make_raft()
    raft.step(DiskSpace(False), 0)
    assert raft.deadline == NEVER
    raft.step(Campaign(), 0)
    raft.step(TimePassed(), 10 * E)
    assert raft.role is Role.FOLLOWER
    assert ask(raft, PreVote(N2, N1, 1, NOTHING)) == [PreVoteReply(N1, N2, 0, granted=False)]
    assert ask(raft, request(N2, 1)) == [RequestVoteReply(N1, N2, 1, granted=False)]
    raft.step(DiskSpace(True), 10 * E)
    assert 11 * E <= raft.deadline < 12 * E
    deadline = raft.deadline
    raft.step(DiskSpace(True), 10 * E + 5)
    assert raft.deadline == deadline


def test_without_space_a_follower_still_follows() -> None:
    raft = make_raft()
    raft.step(DiskSpace(False), 0)
    raft.step(AppendEntries(N2, N1, 0 + 1, NOTHING, 0), 0)
    assert raft.leader == 2
    assert raft.dropped == {"disk full": 1}
    raft.step(Heartbeat(N2, N1, 1, 0), 0)
    assert [type(message).__name__ for message in Turns(raft).settle(0)] == ["HeartbeatReply"]


def test_a_leader_without_space_hands_over() -> None:
    network = Network()
    network.elect(1)
    network.wait(E)
    network.space(1, False)
    network.deliver()
    assert network.leaders == []
    network.propose(1, b"x")
    network.deliver()
    assert isinstance(network.refused[0][1], NotLeaderError)
    network.wait(2 * E)
    assert network.leader in (2, 3)
    network.space(1, True)
    network.propose(network.leader or 0, b"y")
    network.wait(2 * E)
    assert network.log_terms(1) == network.log_terms(2) == network.log_terms(3)


def test_a_candidate_without_space_gives_up() -> None:
    raft = make_raft()
    raft.step(Campaign(), 0)
    raft.step(DiskSpace(False), 0)
    assert raft.role is Role.FOLLOWER
