"""Leases: when a leader may answer reads by itself, and what its followers leave undone for that (dissertation 6.4.1)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.core.harness import E, H, Network, Turns, make_leader, make_raft, voters_of
from tests.core.test_reads import ALL_LIVE, N1, N2, N3, answer, ask, put_in_force
from trioraft._types import NEVER, NOTHING, EntryId, Member
from trioraft.core import (
    AppendEntries,
    AppendEntriesReply,
    Campaign,
    Detach,
    GroupConfig,
    Heartbeat,
    HeartbeatReply,
    Persisted,
    PreVote,
    PreVoteReply,
    Raft,
    RequestVote,
    RequestVoteReply,
    Role,
    TimeoutNow,
    TimePassed,
    TransferLeadership,
)

LEASED = GroupConfig(lease_reads=True)
BEGUN = 5 * E
"""Long after the start, whose own bond is over."""
LEASE = E * 9 // 10


def leased_leader(live_until: int = NEVER) -> tuple[Raft, Turns]:
    raft = make_raft(config=LEASED, liveness=dict.fromkeys([2, 3], live_until))
    turns = Turns(raft)
    raft.step(Campaign(), BEGUN)
    turns.settle(BEGUN)
    for kind in (PreVoteReply, RequestVoteReply):
        for voter in raft.other_voters():
            raft.step(kind(voter, raft.me, 1, granted=True), BEGUN)
        turns.settle(BEGUN)
    for voter in raft.other_voters():
        raft.step(AppendEntriesReply(voter, raft.me, 1, 1), BEGUN)
        raft.step(HeartbeatReply(voter, raft.me, 1, 1), BEGUN)
    turns.settle(BEGUN)
    assert raft.role is Role.LEADER
    return raft, turns


def bound_follower(config: GroupConfig = LEASED) -> tuple[Raft, Turns]:
    """It has confirmed node 2, the leader of term 1, at BEGUN."""
    raft = make_raft(config=config)
    turns = Turns(raft)
    raft.step(Heartbeat(N2, N1, 1, 0, 1), BEGUN)
    turns.settle(BEGUN)
    return raft, turns


def request(source: Member, term: int, *, transfer: bool = False) -> RequestVote:
    return RequestVote(source, N1, term, EntryId(9, 9), transfer)


# The leader


def test_a_lease_counts_from_when_the_round_was_sent() -> None:
    raft, turns = leased_leader()
    assert raft.lease_until == 0
    ask(raft, turns, "a", now=BEGUN + 5)
    # Sent again at + 105; the answer at + 150 may be to either.
    raft.step(TimePassed(), BEGUN + 5 + H)
    assert raft.lease_until == 0
    answer(raft, N3, 1, now=BEGUN + 150)
    assert raft.lease_until == BEGUN + 5 + LEASE
    # The next round extends it, when it is confirmed.
    ask(raft, turns, "b", now=BEGUN + 200)
    assert raft.lease_until == BEGUN + 5 + LEASE
    answer(raft, N3, 1, now=BEGUN + 210)
    assert raft.lease_until == BEGUN + 5 + LEASE
    answer(raft, N3, 2, now=BEGUN + 210)
    assert raft.lease_until == BEGUN + 200 + LEASE


@pytest.mark.parametrize(("percent", "lease"), [(1, 990), (10, 900), (50, 500)])
def test_the_drift_of_clocks_shortens_it(percent: int, lease: int) -> None:
    raft, turns = make_leader(liveness=ALL_LIVE)
    assert raft.lease_until == 0
    ask(raft, turns, "a")
    answer(raft, N2, 1)
    # Not asked for.
    assert raft.lease_until == 0
    raft.config = GroupConfig(lease_reads=True, lease_drift_percent=percent)
    ask(raft, turns, "b", now=1)
    answer(raft, N2, 2, now=2)
    assert raft.lease_until == 1 + lease


def test_a_sole_voter_has_it_once_it_has_begun() -> None:
    raft = make_raft(configuration=voters_of(1), config=LEASED)
    turns = Turns(raft)
    # It waits for nobody, itself included.
    raft.step(TimePassed(), 0)
    raft.step(Persisted(turns.take().sequence), 0)
    assert (raft.role, raft.lease_until) == (Role.LEADER, 0)
    turns.settle(0)
    assert raft.lease_until == NEVER
    put_in_force(raft, voters_of(1, 2))
    assert raft.lease_until == 0


def test_a_suspended_leader_finds_its_lease_over() -> None:
    raft, turns = leased_leader(BEGUN + E)
    ask(raft, turns, "a", now=BEGUN)
    answer(raft, N2, 1, now=BEGUN)
    # The clock has gone on: whoever compares reads it anew, and no event is needed for that.
    assert raft.lease_until < BEGUN + 10 * E
    raft.step(TimePassed(), BEGUN + 10 * E)
    assert (raft.role, raft.lease_until) == (Role.FOLLOWER, 0)


def test_it_ends_with_the_role() -> None:
    raft, turns = leased_leader()
    ask(raft, turns, "a", now=BEGUN)
    answer(raft, N2, 1, now=BEGUN)
    assert raft.lease_until == BEGUN + LEASE
    raft.step(AppendEntries(N2, N1, 2, NOTHING, 0), BEGUN)
    assert raft.lease_until == 0


def test_it_ends_with_the_configuration_that_gave_it() -> None:
    raft, turns = leased_leader()
    ask(raft, turns, "a", now=BEGUN)
    answer(raft, N2, 1, now=BEGUN)
    put_in_force(raft, voters_of(1, 2, 3, 4), BEGUN + 1)
    assert raft.lease_until == 0
    ask(raft, turns, "b", now=BEGUN + 2)
    answer(raft, N2, 2, now=BEGUN + 3)
    assert raft.lease_until == 0
    answer(raft, N3, 2, now=BEGUN + 3)
    assert raft.lease_until == BEGUN + 2 + LEASE


def test_it_ends_when_leadership_is_handed_over_and_for_the_rest_of_the_term() -> None:
    raft, turns = leased_leader()
    ask(raft, turns, "a", now=BEGUN)
    answer(raft, N2, 1, now=BEGUN)
    raft.step(TransferLeadership("t", 2), BEGUN + 1)
    assert raft.lease_until == 0
    raft.step(TimePassed(), BEGUN + 1 + E)
    assert [token for token, _ in turns.take().refused] == ["t"]
    # Word may still arrive, and those votes are given whatever is promised.
    ask(raft, turns, "b", now=BEGUN + 2 * E)
    answer(raft, N2, 2, now=BEGUN + 2 * E)
    assert turns.take().answered == (("b", 1),)
    assert raft.lease_until == 0


def test_it_returns_if_nobody_was_told_to_campaign() -> None:
    raft, turns = leased_leader()
    put_in_force(raft, voters_of(1, 2, 3, 4), BEGUN)
    raft.step(TransferLeadership("t", 2), BEGUN + 1)
    ask(raft, turns, "a", now=BEGUN + 2)
    answer(raft, N2, 1, now=BEGUN + 2)
    answer(raft, N3, 1, now=BEGUN + 2)
    assert raft.lease_until == 0
    # Node 2 never has the whole log.
    raft.step(TimePassed(), BEGUN + 1 + E)
    assert raft.lease_until == BEGUN + 2 + LEASE


# Those that it counts on


def test_RD_8_a_bound_replica_helps_nobody_to_lead() -> None:
    """Leases without CheckQuorum cannot be configured: it is always on. Here is the other half."""
    raft, turns = bound_follower()
    # It forgets its leader, and moves on to a higher term: the bond stays.
    raft.step(Detach(N2, N1, 1), BEGUN + 1)
    end = BEGUN + E - 1
    raft.step(Campaign(), end)
    assert raft.role is Role.FOLLOWER
    raft.step(PreVote(N3, N1, 2, EntryId(9, 9)), end)
    assert turns.settle(end) == [PreVoteReply(N1, N3, 1, granted=False)]
    raft.step(request(N3, 2), end)
    assert turns.settle(end) == []
    assert raft.dropped == {"sticky": 1}
    raft.step(AppendEntriesReply(N3, N1, 2, 0), end)
    assert (raft.term, raft.leader) == (2, None)
    turns.settle(end)
    raft.step(request(N3, 2), end)
    assert turns.settle(end) == [RequestVoteReply(N1, N3, 2, granted=False)]
    raft.step(PreVote(N3, N1, 2, EntryId(9, 9)), end)
    assert turns.settle(end) == [PreVoteReply(N1, N3, 2, granted=False)]
    # Then it is over.
    raft.step(request(N3, 2), BEGUN + E)
    assert turns.settle(BEGUN + E) == [RequestVoteReply(N1, N3, 2, granted=True)]


def test_a_bound_replica_does_not_wake_before_it_may_campaign() -> None:
    raft, turns = bound_follower()
    raft.step(Detach(N2, N1, 1), BEGUN + 1)
    assert raft.deadline < BEGUN + E
    raft.step(TimePassed(), raft.deadline)
    assert raft.role is Role.FOLLOWER
    assert BEGUN + E <= raft.deadline < BEGUN + 2 * E
    raft.step(TimePassed(), raft.deadline)
    assert raft.role is Role.PRE_CANDIDATE
    turns.settle(raft.deadline)


def test_a_restart_forgets_to_whom_it_is_bound_but_not_that_it_may_be() -> None:
    raft = make_raft(term=1, config=LEASED, now=BEGUN)
    turns = Turns(raft)
    end = BEGUN + E - 1
    raft.step(Campaign(), end)
    assert raft.role is Role.FOLLOWER
    for source in (N2, N3):
        raft.step(PreVote(source, N1, 2, EntryId(9, 9)), end)
        assert turns.settle(end) == [PreVoteReply(N1, source, 1, granted=False)]
    raft.step(PreVote(N2, N1, 2, EntryId(9, 9)), BEGUN + E)
    assert turns.settle(BEGUN + E) == [PreVoteReply(N1, N2, 2, granted=True)]


def test_the_leader_that_has_the_lease_may_replace_itself() -> None:
    raft, turns = bound_follower()
    raft.step(PreVote(N2, N1, 2, EntryId(9, 9)), BEGUN)
    raft.step(request(N2, 2), BEGUN)
    assert turns.settle(BEGUN) == [PreVoteReply(N1, N2, 2, granted=True), RequestVoteReply(N1, N2, 2, granted=True)]


@pytest.mark.parametrize("is_higher", [False, True])
def test_LT_6_a_transfer_goes_before_a_lease(is_higher: bool) -> None:
    raft, turns = bound_follower()
    if not is_higher:
        raft.step(AppendEntriesReply(N3, N1, 2, 0), BEGUN)
        turns.settle(BEGUN)
    raft.step(request(N3, 2, transfer=True), BEGUN + 1)
    assert turns.settle(BEGUN + 1)[-1] == RequestVoteReply(N1, N3, 2, granted=True)


def test_a_bound_replica_campaigns_if_its_leader_says_so() -> None:
    raft, turns = bound_follower()
    raft.step(TimeoutNow(N2, N1, 1), BEGUN + 1)
    assert (raft.role, raft.term) == (Role.CANDIDATE, 2)
    turns.settle(BEGUN + 1)
    # Once: when that has come to nothing, it waits like the others.
    for source in (N2, N3):
        raft.step(RequestVoteReply(source, N1, 2, granted=False), BEGUN + 2)
    raft.step(Campaign(), BEGUN + 3)
    assert raft.role is Role.FOLLOWER


def test_without_leases_nobody_is_bound() -> None:
    raft, turns = bound_follower(GroupConfig())
    raft.step(Detach(N2, N1, 1), BEGUN + 1)
    raft.step(request(N3, 2), BEGUN + 2)
    assert turns.settle(BEGUN + 2) == [RequestVoteReply(N1, N3, 2, granted=True)]
    raft = make_raft()
    raft.step(Campaign(), 0)
    assert raft.role is Role.PRE_CANDIDATE


def test_a_heartbeat_without_a_round_binds_nobody() -> None:
    raft = make_raft(config=LEASED)
    raft.step(Heartbeat(N2, N1, 1, 0), BEGUN)
    raft.step(Detach(N2, N1, 1), BEGUN)
    raft.step(Campaign(), BEGUN)
    assert raft.role is Role.PRE_CANDIDATE


# All together


def _walk(network: Network, steps: int) -> Iterator[None]:
    """Do this and that to a network; yield after everything that happens."""
    random = network.random
    ids = sorted(network.disks)
    for number in range(steps):
        node_id, other = random.sample(ids, 2)
        match random.randrange(10):
            case 0:
                network.cut(node_id, other, both_ways=random.random() < 0.5)
            case 1 | 2:
                network.heal()
            case 3:
                network.restart(node_id)
            case 4:
                network.campaign(node_id)
            case 5:
                network.transfer(node_id, other)
            case 6:
                # Somebody in a higher term, for whatever reason: only its term counts.
                network.inject(PreVoteReply(Member(other), Member(node_id), network.nodes[node_id].term + 1, granted=False))
            case _:
                network.propose(node_id, b"x")
                network.read_index(node_id, f"r{number}")
        yield
        for _ in range(random.randrange(40)):
            network.deliver_one()
            yield
        if random.random() < 0.3:
            network.wait(random.randrange(E // 2))
            yield


@pytest.mark.parametrize("seed", range(25))
def test_while_a_lease_counts_nobody_else_leads(seed: int) -> None:
    network = Network(seed=seed, config=LEASED)
    network.wait(2 * E)
    leased = 0
    for _ in _walk(network, 300):
        for node_id, raft in network.nodes.items():
            if raft.lease_until > network.now:
                leased += 1
                assert not [other for other in network.leaders if network.nodes[other].term > raft.term]
                assert raft.commit_index == max(other.commit_index for other in network.nodes.values()), node_id
    assert leased > 20
    network.heal()
    network.wait(8 * E)
    assert len(network.leaders) == 1
    assert {raft.deadline for raft in network.nodes.values()} == {NEVER}


def test_a_sole_voter_that_starts_again_waits_for_whoever_made_it_that() -> None:
    """Node 2 has removed itself, does not know yet that this is committed, and has a lease from node 1 alone."""
    network = Network((1, 2), config=LEASED)
    network.wait(2 * E)
    network.elect(2)
    network.wait(3 * E)
    network.stall(1)
    network.change(2, 1)
    network.deliver()
    network.read_index(2, "read")
    network.deliver()
    assert network.answered == [("read", 1)]
    lease_until = network.nodes[2].lease_until
    assert lease_until > network.now
    # The entry is durable, but word of that is lost; then the process ends.
    network.cut(1, 2)
    network.sync(1)
    network.restart(1)
    while network.now <= lease_until:
        assert network.nodes[1].role is Role.FOLLOWER
        network.wait(H)
    network.wait(2 * E)
    assert network.nodes[1].role is Role.LEADER


def test_a_sole_voter_that_knows_so_waits_for_nobody() -> None:
    network = Network((1,), config=LEASED)
    network.wait(0)
    network.restart(1)
    network.wait(0)
    assert network.leaders == [1]
