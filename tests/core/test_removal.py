"""Replicas that are in the group no more: they are told of what is committed, and go quiet."""

from __future__ import annotations

import attrs
import pytest

from tests.core.harness import E, Network, Turns, make_raft, voters_of
from trioraft._types import NEVER, NOTHING, EntryId, Member
from trioraft.core import (
    AppendEntries,
    AppendEntriesReply,
    Attach,
    Campaign,
    Configuration,
    Detach,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    Propose,
    Raft,
    Removed,
    RequestVote,
    Role,
    TimePassed,
    encode_configuration,
)
from trioraft.core._role_changes import become_candidate

N1, N2, N3, N9 = Member(1), Member(2), Member(3), Member(9, EntryId(1, 1))


def configuration_entry(index: int, configuration: Configuration) -> Entry:
    return Entry(index, 1, EntryKind.CONFIGURATION, encode_configuration(attrs.evolve(configuration, index=index)))


def follower(*, commit: int = 2, configuration: Configuration | None = None) -> tuple[Raft, Turns]:
    """A follower in term 1 whose entry 2 has removed node 3."""
    raft = make_raft(log=[1], term=1)
    turns = Turns(raft)
    raft.step(AppendEntries(N2, N1, 1, EntryId(1, 1), commit, (configuration_entry(2, configuration or voters_of(1, 2)),)), 0)
    turns.settle(0)
    return raft, turns


FROM_A_FORMER_MEMBER: list[Message] = [
    PreVote(N3, N1, 9, EntryId(9, 9)),
    RequestVote(N3, N1, 9, EntryId(9, 9), transfer=True),
    AppendEntries(N3, N1, 9, EntryId(1, 1), 1),
    Heartbeat(N3, N1, 9, 1),
    Attach(N3, N1, 9),
    AppendEntries(N3, N1, 0, NOTHING, 0),
]


@pytest.mark.parametrize("message", FROM_A_FORMER_MEMBER, ids=lambda message: type(message).__name__)
def test_whoever_asks_or_leads_without_being_a_member_is_told(message: Message) -> None:
    raft, turns = follower()
    raft.step(message, 0)
    assert turns.settle(0) == [Removed(N1, N3, 1, 2)]
    assert (raft.term, raft.leader, raft.dropped) == (1, 2, {"removed source": 1})


def test_nobody_is_told_of_a_removal_that_may_be_rolled_back() -> None:
    message = PreVote(N3, N1, 9, EntryId(9, 9))
    raft, turns = follower(commit=1)
    raft.step(message, 0)
    assert turns.settle(0) == [PreVoteReply(N1, N3, 1, granted=False)]
    # It is: the entry gives way to another one.
    raft.step(AppendEntries(N2, N1, 2, EntryId(1, 1), 2, (Entry(2, 2, EntryKind.NOOP, b""),)), 0)
    turns.settle(0)
    now = raft.deadline - 1
    raft.step(attrs.evolve(message, term=3, last=EntryId(2, 2)), now)
    assert turns.settle(now) == [PreVoteReply(N1, N3, 3, granted=True)]


def test_a_member_that_lags_behind_tells_a_newer_one_nothing() -> None:
    raft, turns = follower()
    for source in (Member(3, EntryId(1, 3)), Member(4, EntryId(1, 3))):
        raft.step(RequestVote(source, N1, 2, EntryId(1, 3), transfer=True), 0)
        assert not [m for m in turns.settle(0) if isinstance(m, Removed)]


def test_a_life_that_never_was_committed_is_told_too() -> None:
    """Its number is that of an entry that another one has replaced."""
    raft, turns = follower()
    raft.step(PreVote(Member(4, EntryId(1, 2)), N1, 9, EntryId(1, 2)), 0)
    assert turns.settle(0) == [Removed(N1, Member(4, EntryId(1, 2)), 1, 2)]


def test_a_life_that_cannot_begin_any_more_is_told_although_its_entry_was_further_on() -> None:
    """Two leaders add the same node. The first one's entry is lost, and the other's has a lower index; both have reached the node."""
    network = Network((1, 2, 3))
    network.elect(1)
    network.wait(E)
    network.add_node(4)
    network.cut(1, 2)
    network.cut(1, 3)
    network.propose(1, b"a", b"b", b"c", b"d")
    network.change(1, 1, 2, 3, learners=(4,))
    network.deliver()
    assert (network.nodes[4].me, network.nodes[4].has_place) == (Member(4, EntryId(1, 6)), True)
    network.isolate(1)
    network.wait(5 * E)
    leader = network.leader
    assert leader in (2, 3)
    network.change(leader, 1, 2, 3, learners=(4,))
    network.wait(E)
    network.heal()
    network.wait(5 * E)
    again = Member(4, EntryId(2, 3))
    assert (network.nodes[4].me, network.nodes[leader].configuration.member(4)) == (again, again)
    network.change(network.leader, 1, 2, 3, 4)
    network.wait(5 * E)
    assert network.nodes[4].configuration.voters == {1, 2, 3, 4}


def test_a_life_of_the_present_term_may_begin_yet() -> None:
    raft, turns = follower()
    raft.step(PreVote(Member(4, EntryId(1, 3)), N1, 9, EntryId(1, 3)), 0)
    assert not [m for m in turns.settle(0) if isinstance(m, Removed)]


def test_the_first_configuration_has_removed_nobody() -> None:
    raft = make_raft(log=[1], term=1)
    raft.step(PreVote(N9, N1, 1, EntryId(1, 1)), 0)
    assert [type(m) for m in Turns(raft).settle(0)] == [PreVoteReply]


def test_the_answer_to_a_former_life_is_that_too_whatever_it_says() -> None:
    raft, turns = follower(configuration=Configuration({1, 2}, learners={3}, replicas={3: EntryId(1, 2)}))
    raft.step(HeartbeatReply(N3, N1, 1, 0), 0)
    assert turns.settle(0) == [Removed(N1, N3, 1, 2)]
    # Not to what tells of a removal itself, or two that know nothing of each other would go on for ever.
    raft.step(Removed(N3, N1, 1, 1), 0)
    assert not [m for m in turns.settle(0) if isinstance(m, Removed)]


def test_a_former_life_is_dropped_in_silence_while_its_end_is_not_committed() -> None:
    raft, turns = follower(commit=1, configuration=Configuration({1, 2}, learners={3}, replicas={3: EntryId(1, 2)}))
    raft.step(HeartbeatReply(N3, N1, 1, 0), 0)
    assert (turns.settle(0), raft.dropped) == ([], {"former replica": 1})


@pytest.mark.parametrize("role", list(Role))
def test_whoever_is_told_goes_quiet(role: Role) -> None:
    network = Network((1, 2, 3))
    raft = network.nodes[1]
    if role is Role.LEADER:
        network.elect(1)
        network.change(1, 1, 2, 3, 4)
    elif role is not Role.FOLLOWER:
        network.step(1, Campaign())
        if role is Role.CANDIDATE:
            network.step(1, PreVoteReply(N2, N1, 1, granted=True))
    assert raft.role is role
    term = raft.term
    raft.step(Removed(N2, N1, 77, 5), 0)
    status = raft.status()
    assert (status.role, status.term, status.is_removed, raft.deadline) == (Role.FOLLOWER, term, True, NEVER)
    raft.step(Campaign(), 99 * E)
    assert raft.role is Role.FOLLOWER
    # Nobody can mean it any more.
    for message in (RequestVote(N2, N1, 9, EntryId(9, 9)), Heartbeat(N2, N1, 9, 0), HeartbeatReply(N2, N1, 9, 0)):
        raft.step(message, 99 * E)
    assert (raft.term, raft.dropped) == (term, {"removed": 3})
    refused = raft.take_ready(1000).refused
    assert [type(error).__name__ for _, error in refused] == ["OutcomeUnknownError"] * (role is Role.LEADER)


def test_word_of_a_removal_is_for_one_life_only() -> None:
    configuration = Configuration({1, 2, 3}, replicas={1: EntryId(4, 7)})
    raft = make_raft(configuration=configuration, term=5)
    me = Member(1, EntryId(4, 7))
    raft.step(Removed(N2, N1, 5, 6), 0)
    raft.step(Removed(N2, me, 4, 6), 0)
    raft.step(Removed(me, me, 5, 7), 0)
    assert raft.dropped == {"wrong target": 2, "malformed": 1}
    assert not raft.is_removed
    raft.step(Removed(N2, me, 5, 7), 0)
    assert raft.is_removed


def test_a_replica_whose_own_log_says_so_is_removed_once_that_is_committed() -> None:
    raft = make_raft(log=[1], term=1)
    gone = configuration_entry(2, voters_of(2, 3))
    raft.step(AppendEntries(N2, N1, 1, EntryId(1, 1), 1, (gone,)), 0)
    assert not raft.is_removed
    raft.step(AppendEntries(N3, N1, 2, EntryId(1, 1), 1, (Entry(2, 2, EntryKind.NOOP, b""),)), 0)
    assert raft.has_place, "rolled back"
    raft = make_raft(log=[1], term=1)
    raft.step(AppendEntries(N2, N1, 1, EntryId(1, 1), 2, (gone,)), 0)
    assert raft.status().is_removed
    raft.step(RequestVote(N2, N1, 9, EntryId(9, 9)), 9 * E)
    assert (raft.term, raft.dropped) == (1, {"removed": 1})


def cut_off_and_removed() -> Network:
    """Node 3 of three is removed, and hears nothing of it."""
    network = Network()
    network.elect(1)
    network.wait(E)
    network.isolate(3)
    network.wait(E)
    network.change(1, 1, 2)
    network.wait(E)
    assert network.nodes[1].configuration == voters_of(1, 2)
    return network


def test_MB_8_a_removed_voter_that_keeps_calling_is_told_and_disturbs_nobody() -> None:
    network = cut_off_and_removed()
    network.nodes[3].step(Detach(N1, N3, 1), network.now)
    network.wait(100 * E)
    assert network.nodes[3].term == 1
    network.heal()
    network.wait(9 * E)
    assert network.nodes[3].status().is_removed
    assert network.nodes[3].deadline == NEVER
    assert (network.leader, network.nodes[1].term, network.nodes[2].term) == (1, 1, 1)
    # It is not durable: it is told again.
    network.restart(3)
    assert not network.nodes[3].status().is_removed
    before = len(network.sent)
    network.wait(100 * E)
    assert network.nodes[3].is_removed
    assert (network.leader, network.nodes[1].term, network.nodes[2].term) == (1, 1, 1)
    assert len([m for m in network.sent[before:] if m.source == N3]) <= 4


def test_MB_8_whatever_its_term() -> None:
    network = cut_off_and_removed()
    network.wait(3 * E)
    raft = network.nodes[3]
    become_candidate(raft, network.now)
    for voter in (N1, N2):
        network.inject(RequestVote(N3, voter, 9, EntryId(9, 9), transfer=True))
    network.heal()
    network.wait(5 * E)
    assert raft.is_removed
    assert (network.leader, network.nodes[1].term, network.nodes[2].term) == (1, 1, 1)


@pytest.mark.parametrize("voters", [(1, 2), (4,)], ids=["all came back", "all gone"])
def test_MB_8_whatever_has_become_of_those_that_it_asks(voters: tuple[int, ...]) -> None:
    """It asks for lives that are over: of members that have been added again, or of others that have been removed."""
    network = cut_off_and_removed()
    network.add_node(4)
    for step in ((1, 2, 4), (4,), voters):
        network.change(network.leader or 0, *step)
        network.wait(5 * E)
    assert network.nodes[network.leader or 0].configuration.voters == {*voters}
    assert Member(1) not in {network.nodes[node_id].me for node_id in voters}
    network.heal()
    network.wait(9 * E)
    assert network.nodes[3].is_removed
    assert network.nodes[3].deadline == NEVER


def test_an_old_leader_that_was_removed_while_it_was_cut_off_is_told() -> None:
    network = Network()
    network.elect(1)
    network.wait(E)
    network.isolate(1)
    # It is stopped, so it does not notice.
    old = network.nodes.pop(1)
    network.wait(5 * E)
    assert network.leader in (2, 3)
    network.change(network.leader, 2, 3)
    network.wait(E)
    network.nodes[1] = old
    network.heal()
    assert old.role is Role.LEADER
    leader, term = network.leader, network.nodes[2].term
    for member in (N2, N3):
        network.inject(Heartbeat(N1, member, old.term, 1))
        network.inject(AppendEntries(N1, member, old.term + 5, EntryId(1, 1), 1))
    network.deliver()
    network.wait(3 * E)
    assert (old.role, old.is_removed) == (Role.FOLLOWER, True)
    assert old.term <= term
    assert (network.leader, network.nodes[2].term) == (leader, term)
    network.step(1, Propose("late", b"late"))
    network.deliver()
    assert [token for token, _ in network.refused] == ["late"]


def test_MB_15_two_groups_of_one_name_never_become_one() -> None:
    one, other = make_raft(log=[1], term=1), make_raft(2, voters_of(2), log=[5], term=5)
    Turns(one).settle(0)
    # It has nobody to wait for.
    other.step(TimePassed(), 0)
    assert one.genesis != other.genesis
    assert 0 not in (one.genesis, other.genesis)
    # Whoever is no member of the other's first members is not heard at all, least of all its term.
    answer = AppendEntriesReply(N3, N2, 9, 1)
    for heard in (Heartbeat(N1, N2, 9, 1), AppendEntries(N1, N2, 9, NOTHING, 0), answer, Removed(N1, N2, 9, 9)):
        other.step(heard, 0)
    assert (other.term, other.dropped) == (6, {"other genesis": 4})
    # One that both know is recognised where it counts: by its votes.
    for message in (RequestVote(N2, N1, 9, EntryId(9, 9), True, other.genesis), PreVote(N2, N1, 9, EntryId(9, 9), other.genesis)):
        one.step(message, 0)
    assert (one.term, one.dropped) == (1, {"other genesis": 2})
    assert not one.has_ready
    # A replica that joined does not know how the group began.
    one.step(PreVote(N2, N1, 9, EntryId(9, 9), 0), 0)
    assert one.has_ready


def test_MB_15_the_number_of_a_group_is_that_of_its_first_voters() -> None:
    assert voters_of(1, 2, 3).genesis == voters_of(3, 2, 1).genesis != voters_of(1, 2).genesis
    assert Configuration(()).genesis == 0


def test_a_removed_learner_is_told_though_it_never_asks_for_anything() -> None:
    network = Network()
    network.elect(1)
    network.wait(E)
    network.change(1, 1, 2, learners=[3])
    network.wait(E)
    network.change(1, 1, 2)
    network.wait(E)
    assert network.nodes[3].status().is_removed
