"""Replicas that join with nothing, and nodes that come back: by number, each life is another member."""

from __future__ import annotations

import random

import pytest

from tests.core.harness import E, H, Network, Turns, voters_of
from trioraft._types import NEVER, NOTHING, EntryId, Member
from trioraft.core import (
    AppendEntries,
    AppendEntriesReply,
    Attach,
    Configuration,
    Detach,
    Durable,
    GroupConfig,
    HardState,
    Heartbeat,
    InstallSnapshot,
    Message,
    Persisted,
    PreVote,
    Raft,
    Removed,
    RequestVote,
    Role,
    TimePassed,
    Timing,
)
from trioraft.core._role_changes import become_candidate

N1, N2, N3 = Member(1), Member(2), Member(3)
FOUR = Member(4, EntryId(2, 6))


def joining(barred: EntryId = NOTHING) -> Raft:
    """A replica of node 4 that awaits its number."""
    return Raft(
        Member(4, barred),
        Configuration(()),
        Durable(),
        config=GroupConfig(),
        timing=Timing(),
        random=random.Random(0),
        liveness={},
        now=0,
        awaits_number=True,
    )


def test_it_knows_nothing_and_says_nothing() -> None:
    raft = joining(EntryId(1, 3))
    raft.step(TimePassed(), 99 * E)
    assert (raft.deadline, raft.genesis, raft.status().is_removed) == (NEVER, 0, False)
    # Its former life may have promised anything: nobody may mean that any more.
    former = Member(4, EntryId(1, 3))
    for message in (RequestVote(N1, former, 9, EntryId(9, 9)), AppendEntries(N1, former, 9, NOTHING, 0), Removed(N1, former, 9, 9)):
        raft.step(message, 99 * E)
    assert raft.dropped == {"removed": 3}
    # Votes are asked of members: a number in such a question is no call.
    raft.step(RequestVote(N1, FOUR, 9, EntryId(9, 9)), 99 * E)
    assert raft.dropped == {"removed": 3, "wrong target": 1}
    assert (raft.term, raft.has_ready, raft.awaits_number) == (0, False, True)


CALLS: list[Message] = [
    AppendEntries(N1, FOUR, 2, NOTHING, 0),
    Heartbeat(N1, FOUR, 2, 0),
    Attach(N1, FOUR, 2),
    InstallSnapshot(N1, FOUR, 2, EntryId(1, 3), voters_of(1, 2, 3)),
]


@pytest.mark.parametrize("message", CALLS, ids=lambda message: type(message).__name__)
def test_a_leader_calls_it_by_its_number(message: Message) -> None:
    raft = joining(EntryId(1, 3))
    assert raft.status().me == Member(4, EntryId(1, 3))
    raft.step(message, 0)
    assert (raft.status().me, raft.leader, raft.term, raft.is_out) == (FOUR, 1, 2, False)
    ready = raft.take_ready(1)
    assert (ready.me, ready.sequence, ready.hard_state) == (FOUR, 1, HardState(2))
    assert ready.messages == (), "nothing leaves before number and term are durable"
    assert [m.source for m in ready.after_write if not isinstance(m, Heartbeat)] == [FOUR]
    assert raft.take_ready(2).me is None


@pytest.mark.parametrize("number", [EntryId(1, 3), EntryId(1, 2), NOTHING])
def test_a_number_that_is_barred_never_comes_again(number: EntryId) -> None:
    raft = joining(EntryId(1, 3))
    raft.step(Heartbeat(N1, Member(4, number), 2, 0), 0)
    assert (raft.awaits_number, raft.term, raft.has_ready) == (True, 0, False)


def test_a_number_is_forgotten_with_all_that_was_promised_under_it() -> None:
    """Crash before it is durable: no promise has left."""
    network = Network((1, 2))
    network.elect(1)
    network.add_node(4)
    network.stall(4)
    network.change(1, 1, 2, 4)
    network.wait(E)
    assert network.nodes[4].me == Member(4, EntryId(1, 2))
    assert network.disks[4].awaits_number
    assert network.nodes[1].status().match[4] == 0
    assert [m for m in network.sent if m.source.node_id == 4 and isinstance(m, AppendEntriesReply) and m.match] == []
    network.crash(4)
    network.wait(E)
    network.restart(4)
    assert network.nodes[4].awaits_number
    network.wait(E)
    assert network.disks[4].me == network.nodes[4].me == Member(4, EntryId(1, 2))
    assert network.nodes[1].configuration.voters == {1, 2, 4}


def test_a_number_alone_is_a_write() -> None:
    raft = joining()
    raft.ballot.enter(2)
    turns = Turns(raft)
    turns.settle(0)
    raft.step(Attach(N1, FOUR, 2), 0)
    assert raft.has_ready
    ready = turns.take()
    assert (ready.hard_state, ready.entries, ready.me, ready.writes) == (None, (), FOUR, True)
    raft.step(Persisted(ready.sequence), 0)


def test_it_learns_everything_from_the_leader() -> None:
    network = Network((1, 2))
    network.elect(1)
    network.propose(1, *[b"x"] * 8)
    network.wait(E)
    network.add_node(3)
    network.change(1, 1, 2, 3)
    network.wait(E)
    assert network.nodes[3].configuration == network.nodes[1].configuration
    assert network.nodes[3].configuration.index == network.nodes[1].configuration.index == 11
    # As good as any: it can be elected, though it does not know how the group began.
    network.transfer(1, 3)
    network.wait(E)
    assert network.leaders == [3]
    assert [type(error).__name__ for _, error in network.refused] == []


def test_it_joins_however_late_and_whatever_was_cut_off() -> None:
    """Whoever has not answered is asked before a snapshot is sent, for only that calls it by its number."""
    network = Network((1, 2), config=GroupConfig(keep_entries=0))
    network.elect(1)
    network.change(1, 1, 2, learners=(3,))
    network.propose(1, *[b"x"] * 8)
    network.wait(5 * E)
    network.snapshot(1)
    network.wait(5 * E)
    network.add_node(3)
    network.wait(5 * E)
    assert network.restored[3].index == 10
    assert network.nodes[3].me == Member(3, EntryId(1, 2))


# The same node again


def test_a_node_that_comes_back_keeps_its_disk_and_its_promises() -> None:
    """WHY of replica numbers: what the former life has voted, the new one has voted."""
    network = Network()
    network.elect(1)
    network.change(1, 1, 2)
    network.wait(5 * E)
    raft = network.nodes[3]
    assert raft.is_removed
    raft.ballot.cast(1)
    network.change(1, 1, 2, 3)
    network.wait(E)
    again = Member(3, EntryId(1, 3))
    assert (raft.me, network.disks[3].me, raft.is_out) == (again, again, False)
    assert network.nodes[1].configuration.voters == {1, 2, 3}
    assert raft.ballot.vote == 1
    # A candidate of before has no second vote in this term, by neither number.
    for target in (N3, again):
        network.inject(RequestVote(N2, target, 1, EntryId(9, 9), True, raft.genesis))
    network.deliver()
    assert raft.ballot.vote == 1


def test_acknowledgements_of_the_former_replica_do_not_count() -> None:
    """WHY of replica numbers: a late answer of a life that is over, and an empty disk under the same node id."""
    network = Network((1, 2, 3))
    network.elect(1)
    network.change(1, 1, 2)
    network.wait(5 * E)
    network.replace(3)
    network.change(1, 1, 2, 3)
    network.wait(E)
    again = Member(3, EntryId(1, 3))
    leader = network.nodes[1]
    assert network.disks[3].me == again
    network.isolate(1)
    network.propose(1, b"x")
    network.deliver()
    last, commit = leader.log.last_index, leader.commit_index
    network.inject(AppendEntriesReply(N3, N1, leader.term, last))
    network.inject(AppendEntriesReply(N2, N1, leader.term - 1, last))
    network.deliver()
    assert (leader.commit_index, leader.status().match[3]) == (commit, commit)
    # In the other direction: what the leader of before says to the former life.
    network.inject(AppendEntries(N1, N3, 9, EntryId(1, 1), 1))
    network.inject(AppendEntries(N1, N3, 9, NOTHING, 0))
    assert network.nodes[3].term == leader.term
    assert network.nodes[3].dropped["wrong target"] == 2


def test_one_that_believes_to_be_a_member_asks_before_it_goes_by_another_number() -> None:
    """It missed both its removal and its return."""
    network = Network()
    network.elect(1)
    network.wait(E)
    network.isolate(3)
    for voters in ((1, 2), (1, 2, 3)):
        network.change(1, *voters)
        network.wait(E)
    raft, again = network.nodes[3], Member(3, EntryId(1, 3))
    assert (raft.me, raft.has_place, network.nodes[1].configuration.member(3)) == (N3, True, again)
    turns = Turns(raft, first=10_000)
    turns.settle(network.now)
    raft.step(Heartbeat(N1, again, 1, 0), network.now)
    question = PreVote(N3, N1, 2, raft.log.last, raft.genesis)
    assert turns.settle(network.now) == [question]
    assert (raft.me, raft.dropped) == (N3, {"wrong target": 1})
    # The pulse says a line once: it must say this one again when the replica has the number.
    raft.step(Attach(N1, again, 1), network.now)
    assert turns.settle(network.now) == [question, Detach(N3, N1, raft.term)]
    network.heal()
    network.wait(5 * E)
    assert raft.me == network.disks[3].me == again
    assert (network.leader, network.nodes[1].term) == (1, 1)
    assert network.nodes[1].configuration.voters == {1, 2, 3}


def test_one_that_led_when_it_was_removed_comes_back_as_a_follower() -> None:
    network = Network()
    network.elect(1)
    network.change(1, 2, 3)
    network.wait(E)
    leader = network.leader
    assert leader in (2, 3)
    assert network.now < 3 * E
    network.change(leader, 1, 2, 3)
    network.wait(2 * E)
    assert network.nodes[1].me.replica.term == network.nodes[leader].term
    assert network.nodes[leader].configuration.voters == {1, 2, 3}
    assert network.nodes[1].role is Role.FOLLOWER


def test_a_higher_term_of_before_is_told_under_the_new_number() -> None:
    """Else the leader would never hear why nobody answers."""
    network = Network((1, 2))
    network.elect(1)
    network.change(1, 1)
    network.wait(E)
    raft = network.nodes[2]
    become_candidate(raft, network.now)
    raft.step(Removed(N1, raft.me, 1, network.nodes[1].configuration.index), network.now)
    assert raft.term == 2
    network.change(1, 1, 2)
    network.wait(5 * E)
    assert network.nodes[1].configuration.voters == {1, 2} or network.nodes[1].configuration.learners == {2}
    assert network.nodes[2].me.replica != NOTHING
    assert network.nodes[1].term == network.nodes[2].term > 2
    network.propose(1, b"x")
    network.wait(H)
    assert network.applied[2][-1].payload == b"x"
