"""Rules of the paper (Ongaro and Ousterhout, extended version) and the dissertation (Ongaro 2014), each named by its section."""

from __future__ import annotations

import pytest

from tests.core.harness import E, Network, Turns, entries_of, make_leader, make_raft, voters_of
from trioraft._types import NEVER, NOTHING, EntryId, Member
from trioraft.core import (
    AppendEntries,
    AppendEntriesReply,
    Applied,
    Attach,
    AttachRefused,
    Campaign,
    Detach,
    EntryKind,
    HardState,
    Heartbeat,
    HeartbeatReply,
    Persisted,
    PreVote,
    PreVoteReply,
    Propose,
    RequestVote,
    RequestVoteReply,
    Role,
    TimePassed,
)

N1, N2, N3 = Member(1), Member(2), Member(3)


def test_5_1_a_server_in_an_older_term_moves_on() -> None:
    """If a server's current term is smaller than the other's, it updates its term; candidates and leaders become followers."""
    for message in (
        AppendEntries(N2, N1, 7, NOTHING, 0),
        AppendEntriesReply(N2, N1, 7, 0),
        Heartbeat(N2, N1, 7, 0),
        HeartbeatReply(N2, N1, 7, 0),
        RequestVote(N2, N1, 7, NOTHING, transfer=True),
        RequestVoteReply(N2, N1, 7, granted=False),
        PreVoteReply(N2, N1, 7, granted=False),
        Attach(N2, N1, 7),
        Detach(N2, N1, 7),
        AttachRefused(N2, N1, 7),
    ):
        candidate = make_raft()
        candidate.step(Campaign(), 0)
        leader, _ = make_leader()
        for raft in (make_raft(), candidate, leader):
            raft.step(message, 0)
            assert (raft.role, raft.term) == (Role.FOLLOWER, 7), message


def test_5_1_requests_of_an_older_term_are_refused() -> None:
    raft = make_raft(log=[1], term=5)
    raft.step(AppendEntries(N2, N1, 4, EntryId(1, 1), 1, entries_of([4], first=2)), 0)
    raft.step(AppendEntriesReply(N2, N1, 4, 1), 0)
    raft.step(Detach(N2, N1, 4), 0)
    assert raft.log.last == EntryId(1, 1)
    assert raft.commit_index == 0
    assert raft.leader is None
    assert raft.dropped == {"stale term": 3}


def test_5_2_servers_start_as_followers() -> None:
    raft = make_raft(term=3, vote=1)
    assert (raft.role, raft.term, raft.leader, raft.commit_index, raft.applied_index) == (Role.FOLLOWER, 3, None, 0, 0)


def test_5_2_a_follower_without_communication_starts_an_election() -> None:
    raft = make_raft()
    raft.step(TimePassed(), raft.deadline - 1)
    assert raft.role is Role.FOLLOWER
    raft.step(TimePassed(), raft.deadline)
    assert raft.role is Role.PRE_CANDIDATE


def test_5_2_a_candidate_increments_its_term_votes_for_itself_and_asks_all() -> None:
    raft = make_raft(log=[1, 2], configuration=voters_of(1, 2, 3, learners=[4]))
    raft.step(Campaign(), 0)
    raft.step(PreVoteReply(N2, N1, 3, granted=True), 0)
    ready = raft.take_ready(1)
    assert ready.hard_state == HardState(3, 1)
    assert ready.after_write == tuple(RequestVote(N1, other, 3, EntryId(2, 2), genesis=raft.genesis) for other in (N2, N3))


@pytest.mark.parametrize(
    "size, grants, role",
    [
        (1, [], Role.LEADER),
        (2, [], Role.CANDIDATE),
        (2, [True], Role.LEADER),
        (3, [True], Role.LEADER),
        (3, [False], Role.CANDIDATE),
        (3, [False, False], Role.FOLLOWER),
        (3, [False, True], Role.LEADER),
        (5, [True, True], Role.LEADER),
        (5, [True, False], Role.CANDIDATE),
        (5, [True, False, False, False], Role.FOLLOWER),
    ],
)
def test_5_2_a_majority_of_votes_wins(size: int, grants: list[bool], role: Role) -> None:
    raft = make_raft(configuration=voters_of(*range(1, size + 1)))
    turns = Turns(raft)
    raft.step(Campaign(), 0)
    for node_id in range(2, size + 1):
        raft.step(PreVoteReply(Member(node_id), N1, 1, granted=True), 0)
    turns.settle(0)
    for node_id, granted in enumerate(grants, 2):
        raft.step(RequestVoteReply(Member(node_id), N1, 1, granted=granted), 0)
        # A second answer of the same voter counts for nothing.
        raft.step(RequestVoteReply(Member(node_id), N1, 1, granted=not granted), 0)
    assert raft.role is role


def test_5_2_one_vote_per_term_first_come_first_served() -> None:
    raft = make_raft()
    for source, granted in [(N2, True), (N3, False), (N2, True)]:
        raft.step(RequestVote(source, N1, 1, NOTHING), 0)
        assert raft.take_ready(1).after_write == (RequestVoteReply(N1, source, 1, granted=granted),)


def test_5_2_a_candidate_ignores_a_leader_of_an_older_term() -> None:
    raft = make_raft(term=4)
    turns = Turns(raft)
    raft.step(Campaign(), 0)
    raft.step(PreVoteReply(N2, N1, 5, granted=True), 0)
    turns.settle(0)
    raft.step(AppendEntries(N3, N1, 4, NOTHING, 0), 0)
    assert (raft.role, raft.term) == (Role.CANDIDATE, 5)


def test_5_3_the_leader_replicates_and_applies_when_committed() -> None:
    leader, turns = make_leader()
    leader.step(Propose("a", b"some"), 0)
    ready = turns.take()
    assert ready.messages == tuple(AppendEntries(N1, peer, 1, EntryId(1, 1), 1, ready.entries) for peer in (N2, N3))
    assert [entry.payload for entry in ready.entries] == [b"some"]
    leader.step(Persisted(ready.sequence), 0)
    assert turns.take().committed == ()
    leader.step(AppendEntriesReply(N3, N1, 1, 2), 0)
    assert turns.take().committed == ready.entries


def test_5_3_a_follower_applies_what_the_leader_has_committed() -> None:
    raft = make_raft()
    raft.step(AppendEntries(N2, N1, 1, NOTHING, 1, entries_of([1, 1])), 0)
    ready = raft.take_ready(1)
    assert ready.committed == ()
    raft.step(Persisted(1), 0)
    assert [entry.index for entry in raft.take_ready(2).committed] == [1]
    raft.step(Applied(1), 0)
    raft.step(Heartbeat(N2, N1, 1, 2), 0)
    assert [entry.index for entry in raft.take_ready(3).committed] == [2]


@pytest.mark.parametrize(
    "previous, is_accepted",
    [(NOTHING, True), (EntryId(1, 1), True), (EntryId(2, 2), True), (EntryId(2, 1), False), (EntryId(1, 2), False), (EntryId(3, 3), False)],
)
def test_5_3_the_consistency_check(previous: EntryId, is_accepted: bool) -> None:
    raft = make_raft(log=[1, 2], term=3)
    raft.step(AppendEntries(N2, N1, 3, previous, 0), 0)
    reply = Turns(raft).settle(0)[0]
    assert isinstance(reply, AppendEntriesReply)
    assert (reply.rejected == 0) is is_accepted


def test_5_3_a_conflicting_entry_is_deleted_with_all_that_follow_it() -> None:
    raft = make_raft(log=[1, 1, 2, 2, 2], term=3)
    raft.step(AppendEntries(N2, N1, 3, EntryId(1, 2), 0, entries_of([3], first=3)), 0)
    ready = raft.take_ready(1)
    assert [str(entry) for entry in ready.entries] == ["3@3"]
    assert raft.log.last == EntryId(3, 3)
    assert raft.log.persisted_index == 2


def test_5_3_nothing_is_deleted_that_agrees() -> None:
    """An append that arrives late proves nothing about what follows it."""
    raft = make_raft(log=[1, 1, 1, 1], term=1)
    raft.step(AppendEntries(N2, N1, 1, EntryId(1, 1), 0, entries_of([1], first=2)), 0)
    assert raft.log.last_index == 4


def test_5_3_a_leader_never_overwrites_its_own_log() -> None:
    leader, _ = make_leader(log=[1, 1], is_settled=False)
    assert [leader.log.term_at(index) for index in (1, 2, 3)] == [1, 1, 2]


def test_5_4_1_votes_go_to_logs_that_are_at_least_as_up_to_date() -> None:
    for last, granted in [
        (EntryId(2, 2), True),
        (EntryId(3, 1), True),
        (EntryId(2, 3), True),
        (EntryId(2, 1), False),
        (EntryId(1, 9), False),
    ]:
        raft = make_raft(log=[1, 2])
        raft.step(RequestVote(N2, N1, 3, last), 0)
        reply = Turns(raft).settle(0)[0]
        assert isinstance(reply, RequestVoteReply)
        assert reply.granted is granted


def test_5_4_2_a_leader_commits_entries_of_its_own_term_only() -> None:
    leader, turns = make_leader(log=[1, 2], is_settled=False)
    turns.settle(0)
    leader.step(AppendEntriesReply(N2, N1, 3, 2), 0)
    assert leader.commit_index == 0
    leader.step(AppendEntriesReply(N2, N1, 3, 3), 0)
    assert leader.commit_index == 3


def test_5_5_repeated_requests_are_harmless() -> None:
    raft = make_raft()
    message = AppendEntries(N2, N1, 1, NOTHING, 0, entries_of([1]))
    for sequence in (1, 2, 3):
        raft.step(message, 0)
        ready = raft.take_ready(sequence)
        assert len(ready.entries) == (1 if sequence == 1 else 0)
        assert ready.after_write[-1] == AppendEntriesReply(N1, N2, 1, 1)


def test_5_6_a_leader_with_a_majority_stays() -> None:
    network = Network((1, 2, 3, 4, 5))
    network.elect(1)
    network.crash(4)
    network.crash(5)
    network.wait(50 * E)
    assert network.leaders == [1]
    assert network.nodes[1].term == 1


def test_8_a_new_leader_appends_a_no_op() -> None:
    _, turns = make_leader(is_settled=False)
    entries = turns.take().entries
    assert [(entry.kind, entry.index, entry.payload) for entry in entries] == [(EntryKind.NOOP, 1, b"")]


def test_dissertation_3_10_and_4_2_3_a_transfer_is_no_disruption() -> None:
    raft = make_raft(liveness={2: NEVER})
    raft.step(Attach(N2, N1, 1), 0)
    raft.step(RequestVote(N3, N1, 2, NOTHING), 0)
    assert raft.term == 1
    raft.step(RequestVote(N3, N1, 2, NOTHING, transfer=True), 0)
    assert (raft.term, raft.status().vote) == (2, 3)


def test_dissertation_4_1_servers_serve_leaders_and_candidates_that_they_do_not_know() -> None:
    """Votes are granted to, and entries taken from, servers that are in no configuration known here."""
    stranger = Member(9, EntryId(3, 3))
    raft = make_raft()
    raft.step(RequestVote(stranger, N1, 1, NOTHING), 0)
    assert raft.status().vote == 9
    raft.step(AppendEntries(stranger, N1, 1, NOTHING, 0, entries_of([1])), 0)
    assert (raft.leader, raft.log.last_index) == (9, 1)


def test_dissertation_6_2_a_leader_without_a_quorum_steps_down() -> None:
    network = Network()
    network.elect(1)
    network.isolate(1)
    network.wait(2 * E)
    assert network.nodes[1].role is not Role.LEADER
    assert network.nodes[1].term == 1


def test_dissertation_6_4_the_no_op_commits_what_came_before() -> None:
    network = Network(logs={1: [1, 1], 2: [1, 1], 3: [1, 1]})
    network.elect(1)
    assert network.nodes[1].commit_index == 3


def test_dissertation_9_6_a_pre_vote_is_refused_while_there_is_a_leader() -> None:
    network = Network()
    network.elect(1)
    network.campaign(3)
    network.deliver()
    assert network.leaders == [1]
    assert network.nodes[3].leader == 1
    assert {raft.term for raft in network.nodes.values()} == {1}
    assert any(isinstance(m, PreVote) and m.source == N3 for m in network.sent)


def test_dissertation_10_2_1_the_leader_sends_before_its_own_write_is_done() -> None:
    leader, turns = make_leader()
    leader.step(Propose("a", b"a"), 0)
    ready = turns.take()
    assert ready.entries
    assert len(ready.messages) == 2
    assert ready.after_write == ()
    # And may commit by the others' disks alone.
    leader.step(AppendEntriesReply(N2, N1, 1, 2), 0)
    leader.step(AppendEntriesReply(N3, N1, 1, 2), 0)
    assert leader.commit_index == 2
