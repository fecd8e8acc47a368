"""Attachments: who counts on whose node, and what happens when that ends."""

from __future__ import annotations

import pytest

from tests.core.harness import E, H, Network, Turns, make_leader, make_raft
from trioraft._types import NEVER, NOTHING, EntryId, Member
from trioraft.core import (
    AppendEntries,
    AppendEntriesReply,
    Attach,
    AttachRefused,
    Campaign,
    Detach,
    Heartbeat,
    HeartbeatReply,
    PeerDown,
    PeerUp,
    PreVote,
    PreVoteReply,
    Propose,
    Raft,
    RequestVote,
    Role,
    TimePassed,
    Unreachable,
)

N1, N2, N3 = Member(1), Member(2), Member(3)


def attached(liveness: dict[int, int], now: int = 0) -> tuple[Raft, Turns]:
    """A follower of n2 in term 1."""
    raft = make_raft(liveness=liveness, term=1)
    raft.step(Attach(N2, N1, 1), now)
    turns = Turns(raft)
    assert turns.settle(now) == [HeartbeatReply(N1, N2, 1, 0)]
    return raft, turns


def test_a_quiet_group_has_no_deadline_and_says_nothing() -> None:
    network = Network((1, 2, 3), learners=(4,))
    network.elect(2)
    network.propose(2, b"a")
    network.wait(2 * E)
    said = len(network.sent)
    assert {raft.deadline for raft in network.nodes.values()} == {NEVER}
    network.wait(1000 * E)
    assert len(network.sent) == said
    assert network.leaders == [2]
    assert network.nodes[2].watched() == {1, 2, 3, 4}
    assert network.nodes[1].watched() == {2}


def test_an_attached_follower_is_as_sticky_as_its_leaders_node_is_live() -> None:
    liveness = {2: 50 * E}
    raft, turns = attached(liveness)
    assert raft.deadline == NEVER
    raft.step(TimePassed(), 49 * E)
    raft.step(RequestVote(N3, N1, 2, NOTHING), 49 * E)
    assert raft.term == 1
    raft.step(PeerDown(2), 50 * E)
    # Silent for E already: a part of E more, so that many groups do not start at once.
    assert 50 * E <= raft.deadline < 51 * E
    deadline = raft.deadline
    raft.step(TimePassed(), deadline - 1)
    assert raft.deadline == deadline
    raft.step(TimePassed(), deadline)
    assert raft.role is Role.PRE_CANDIDATE
    assert turns.settle(deadline)[0] == Detach(N1, N2, 1)


def test_a_node_that_returns_in_time_is_followed_on() -> None:
    liveness = {2: 50 * E}
    raft, turns = attached(liveness)
    raft.step(PeerDown(2), 50 * E)
    liveness[2] = 60 * E
    raft.step(PeerUp(2), 50 * E)
    assert raft.deadline == NEVER
    assert (raft.role, raft.leader) == (Role.FOLLOWER, 2)
    raft.step(PeerDown(2), 60 * E)
    assert 60 * E <= raft.deadline < 61 * E
    assert turns.settle(60 * E) == []


def test_a_leader_that_was_heard_is_given_its_timeout() -> None:
    """Its node's disk may hang while its messages flow."""
    liveness = {2: 10 * E}
    raft, _ = attached(liveness)
    raft.step(Heartbeat(N2, N1, 1, 0), 10 * E - 1)
    raft.step(PeerDown(2), 10 * E)
    assert raft.deadline >= 11 * E - 1


def test_waking_is_staggered() -> None:
    deadlines = set()
    for seed in range(50):
        raft = make_raft(liveness={2: 9 * E}, term=1, seed=seed)
        raft.step(Attach(N2, N1, 1), 0)
        raft.step(PeerDown(2), 9 * E)
        deadlines.add(raft.deadline)
    assert len(deadlines) > 40


def test_a_follower_whose_leaders_node_is_dead_already_has_a_deadline() -> None:
    raft, _ = attached({})
    assert E <= raft.deadline < 2 * E


def test_an_attach_of_an_older_term_is_refused() -> None:
    raft = make_raft(term=5)
    raft.step(Attach(N2, N1, 4), 0)
    assert raft.take_ready(1).messages == (AttachRefused(N1, N2, 5),)
    leader, turns = make_leader(term=3)
    leader.step(AttachRefused(N2, N1, 4), 0)
    assert leader.role is Role.LEADER
    leader.step(AttachRefused(N2, N1, 5), 0)
    assert (leader.role, leader.term) == (Role.FOLLOWER, 5)
    # The old term, so that nobody counts on a leader that is none.
    assert turns.settle(0) == [Detach(N1, N2, 4), Detach(N1, N3, 4)]


def test_a_repeated_attach_is_not_greeted_again() -> None:
    raft, turns = attached({2: NEVER})
    raft.step(Attach(N2, N1, 1), 5)
    assert turns.settle(5) == []
    # Unless the greeting may be lost.
    raft.step(Unreachable(3), 5)
    assert turns.settle(5) == []
    raft.step(Unreachable(2), 5)
    assert turns.settle(5) == [HeartbeatReply(N1, N2, 1, 0)]


def test_a_leader_that_detaches_is_replaced_without_a_timeout() -> None:
    raft, _ = attached({2: NEVER})
    raft.step(Detach(N3, N1, 1), 10)
    raft.step(Detach(Member(2, EntryId(1, 1)), N1, 1), 10)
    assert raft.leader == 2
    raft.step(Detach(N2, N1, 1), 10)
    assert raft.leader is None
    assert 10 <= raft.deadline < 10 + E
    raft.step(RequestVote(N3, N1, 2, NOTHING), 10)
    assert raft.term == 2
    raft.step(Unreachable(2), 10)


def test_a_follower_that_learns_of_a_higher_term_detaches() -> None:
    raft, turns = attached({2: NEVER})
    raft.step(Heartbeat(N3, N1, 2, 0), 10)
    ready = turns.take()
    # The term told has ended and is durable: it need not wait for the new one.
    assert ready.messages == (Detach(N1, N2, 1),)
    assert raft.leader == 3


def test_a_follower_does_not_detach_from_a_leader_that_leads_again() -> None:
    raft, turns = attached({2: NEVER})
    raft.step(Heartbeat(N2, N1, 2, 0), 10)
    assert turns.take().messages == ()


def test_a_leader_counts_a_detached_member_only_while_it_speaks() -> None:
    liveness = {2: NEVER, 3: NEVER}
    raft, turns = make_leader(liveness=liveness)
    assert raft.deadline == NEVER
    raft.step(Detach(N2, N1, 1), 10 * E)
    assert raft.deadline == NEVER
    raft.step(Detach(N3, N1, 1), 10 * E + 5)
    assert raft.deadline == 11 * E + 5
    raft.step(Detach(Member(9, EntryId(1, 1)), N1, 1), 10 * E + 5)
    assert raft.dropped == {"stranger": 1}
    # It speaks again, in this term: it is called back, and counts again.
    raft.step(HeartbeatReply(N2, N1, 1, 1), 11 * E)
    assert turns.settle(11 * E) == [Attach(N1, N2, 1), Heartbeat(N1, N2, 1, 1)]
    assert raft.deadline == NEVER
    raft.step(HeartbeatReply(N2, N1, 1, 1), 11 * E)
    assert turns.settle(11 * E) == []
    raft.step(Detach(N2, N1, 1), 20 * E)
    raft.step(TimePassed(), raft.deadline)
    assert (raft.role, raft.term, raft.leader) == (Role.FOLLOWER, 1, None)
    assert turns.settle(21 * E) == [Detach(N1, N2, 1), Detach(N1, N3, 1)]


def test_a_detached_member_whose_node_returns_is_called_back() -> None:
    liveness = {2: NEVER, 3: NEVER}
    raft, turns = make_leader(liveness=liveness)
    raft.step(Detach(N2, N1, 1), 10 * E)
    raft.step(PeerUp(2, restarted=False), 10 * E)
    assert turns.settle(10 * E) == [Attach(N1, N2, 1), Heartbeat(N1, N2, 1, 1)]
    # Not for nodes that host no member.
    raft.step(PeerUp(9), 10 * E)
    raft.step(PeerDown(9), 10 * E)
    assert turns.settle(10 * E) == []


def test_check_quorum_comes_before_what_relies_on_it() -> None:
    """The process stood still for three seconds: on resume it must not answer anything as the leader it was."""
    raft, turns = make_leader(liveness={2: E, 3: E})
    raft.step(Propose("late", b"x"), 3 * E)
    ready = turns.take()
    assert raft.role is Role.FOLLOWER
    assert [token for token, _ in ready.refused] == ["late"]
    assert ready.accepted == ()


def test_live_members_are_the_nodes_business_until_they_go_down() -> None:
    liveness = {2: 5 * E, 3: 7 * E}
    raft, _ = make_leader(liveness=liveness)
    assert raft.deadline == NEVER
    raft.step(PeerDown(2), 5 * E)
    assert (raft.role, raft.deadline) == (Role.LEADER, NEVER)
    raft.step(PeerDown(3), 7 * E)
    assert raft.role is Role.FOLLOWER


def test_a_node_that_is_found_dead_before_its_time_counts_no_more() -> None:
    """Its disk hangs, say: the node moves the point back, and says so."""
    liveness = {2: NEVER, 3: NEVER}
    raft, _ = make_leader(liveness=liveness)
    raft.step(TimePassed(), 5 * E)
    liveness[2] = liveness[3] = 5 * E
    raft.step(PeerDown(2), 5 * E)
    raft.step(TimePassed(), raft.deadline)
    assert raft.role is Role.FOLLOWER


def test_contact_counts_without_any_pulse() -> None:
    raft, turns = make_leader()
    assert raft.deadline == E
    raft.step(HeartbeatReply(N2, N1, 1, 1), E - 1)
    raft.step(TimePassed(), E)
    assert raft.role is Role.LEADER
    assert raft.deadline == 2 * E - 1
    raft.step(TimePassed(), 2 * E - 1)
    assert raft.role is Role.FOLLOWER
    assert len(turns.settle(2 * E)) == 2


def test_questions_are_no_contact() -> None:
    """A leader that nobody hears is asked for votes all the time; that must not keep it in office."""
    raft, turns = make_leader()
    raft.step(PreVote(N2, N1, 2, EntryId(1, 1)), E - 1)
    raft.step(TimePassed(), E)
    assert raft.role is Role.FOLLOWER
    assert turns.settle(E)


def test_whoever_follows_a_former_leader_is_told() -> None:
    """An attach line that was overtaken by its detach line must not leave a follower attached to nobody."""
    raft, turns = make_leader()
    raft.step(TimePassed(), E)
    turns.settle(E)
    raft.step(HeartbeatReply(N2, N1, 1, 0), E)
    assert turns.settle(E) == [Detach(N1, N2, 1)]
    raft.step(AppendEntriesReply(N2, N1, 1, 1), E)
    assert turns.settle(E) == []


def test_a_stale_detach_does_not_disturb_candidates() -> None:
    raft = make_raft()
    raft.step(Campaign(), 0)
    raft.step(Detach(N2, N1, 0), 0)
    raft.step(Unreachable(2), 0)
    assert raft.role is Role.PRE_CANDIDATE


@pytest.mark.parametrize("seed", range(10))
def test_MG_7_leader_restarts_while_followers_sleep(seed: int) -> None:
    network = Network(seed=seed)
    network.elect(1)
    network.wait(50 * E)
    network.restart(1)
    network.wait(5 * E)
    assert network.leader is not None
    assert len({raft.leader for raft in network.nodes.values()}) == 1


@pytest.mark.parametrize("seed", range(10))
def test_a_follower_restarts_so_quickly_that_nobody_missed_it(seed: int) -> None:
    """It has forgotten what is committed, and the group is quiet: somebody must tell it."""
    network = Network(seed=seed)
    network.elect(1)
    network.propose(1, b"a", b"b")
    network.wait(2 * E)
    network.restart(2)
    network.wait(H + 1)
    assert [entry.payload for entry in network.applied[2]] == [b"", b"a", b"b"]
    assert network.nodes[1].term == 1
    assert network.nodes[1].deadline == NEVER


def test_a_restart_is_noticed_by_what_it_has_forgotten() -> None:
    """No event of the node, only the greeting of the new process."""
    liveness = {2: NEVER, 3: NEVER}
    raft, turns = make_leader(liveness=liveness)
    assert raft.deadline == NEVER
    raft.step(HeartbeatReply(N2, N1, 1, 0), 10 * E)
    assert raft.deadline == 10 * E + H
    # Again, as fast as it likes: the first deadline stands.
    raft.step(HeartbeatReply(N2, N1, 1, 0), 10 * E + 1)
    assert raft.deadline == 10 * E + H
    raft.step(TimePassed(), raft.deadline)
    assert turns.settle(10 * E + H) == [Heartbeat(N1, N2, 1, 1)]


def test_an_append_speaks_for_the_leader_too() -> None:
    raft = make_raft(term=1)
    now = raft.deadline - 1
    raft.step(AppendEntries(N2, N1, 1, NOTHING, 0), now)
    assert now + E <= raft.deadline < now + 2 * E


def test_a_leader_whose_disk_hangs_leads_no_longer() -> None:
    """Its peers count its node as dead by then; but it would call everybody back who asks, and never apply anything."""
    liveness = {1: NEVER, 2: NEVER, 3: NEVER}
    raft, turns = make_leader(liveness=liveness)
    raft.step(TimePassed(), 10 * E)
    assert raft.role is Role.LEADER
    liveness[1] = 10 * E
    raft.step(PeerDown(1), 10 * E)
    assert (raft.role, raft.term, raft.leader) == (Role.FOLLOWER, 1, None)
    assert turns.settle(10 * E) == [Detach(N1, N2, 1), Detach(N1, N3, 1)]


def test_nobody_campaigns_while_its_disk_hangs() -> None:
    liveness = {1: 0}
    raft = make_raft(liveness=liveness)
    for _ in range(10):
        now = raft.deadline
        raft.step(TimePassed(), now)
        assert (raft.role, raft.term) == (Role.FOLLOWER, 0)
        assert E <= raft.deadline - now < 2 * E
    # In the middle of an election: it waits for its disk, and does not run through terms.
    liveness[1] = NEVER
    raft.step(TimePassed(), raft.deadline)
    raft.step(PreVoteReply(N2, N1, 1, granted=True), raft.deadline - 1)
    assert (raft.role, raft.term) == (Role.CANDIDATE, 1)
    liveness[1] = 0
    for _ in range(10):
        raft.step(TimePassed(), raft.deadline)
    assert (raft.role, raft.term) == (Role.CANDIDATE, 1)
    liveness[1] = NEVER
    raft.step(TimePassed(), raft.deadline)
    assert raft.role is Role.PRE_CANDIDATE
