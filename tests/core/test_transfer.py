"""Leadership that is handed over: to whom, how long that takes, and what comes in between."""

from __future__ import annotations

import pytest

from tests.core.harness import E, H, Network, Turns, make_leader, make_raft, voters_of
from tests.core.test_reads import ALL_LIVE, N1, N2, N3, answer, ask, put_in_force
from trioraft._errors import BusyError, NotLeaderError, TransferRefusedError
from trioraft._types import NEVER, EntryId, Member
from trioraft.core import (
    AppendEntries,
    AppendEntriesReply,
    Configuration,
    DiskSpace,
    EntryKind,
    GroupConfig,
    Heartbeat,
    Message,
    Propose,
    Raft,
    RequestVote,
    Role,
    TimeoutNow,
    TimePassed,
    TransferLeadership,
)


def hand_over(raft: Raft, target: int | None, *, token: str = "t", now: int = 0) -> None:
    raft.step(TransferLeadership(token, target), now)


def told(messages: list[Message] | tuple[Message, ...]) -> list[Member]:
    """Who is told to campaign."""
    return [message.target for message in messages if isinstance(message, TimeoutNow)]


def refusals(turns: Turns) -> list[tuple[object, str]]:
    return [(token, error.kind) for token, error in turns.take().refused if isinstance(error, TransferRefusedError)]


def behind(network: Network) -> None:
    """Node 1 leads, and node 3 has missed 100 entries."""
    network.elect(1)
    network.isolate(3)
    network.propose(1, *[b"x"] * 100)
    network.deliver()
    network.wait(2 * E)


def check_follows(network: Network, leader: int) -> None:
    assert network.leaders == [leader]
    assert network.answered == [("transfer", None)]
    assert network.refused == []


def test_LT_1_lagging_target() -> None:
    network = Network()
    behind(network)
    network.heal()
    assert network.nodes[3].log.last_index < 101
    network.transfer(1, 3)
    network.deliver()
    check_follows(network, 3)
    assert network.log_terms(3)[:101] == [1] * 101
    # It was told once it had everything, and not before.
    call = next(i for i, message in enumerate(network.sent) if isinstance(message, TimeoutNow))
    assert any(isinstance(m, AppendEntriesReply) and (m.source, m.match) == (N3, 101) for m in network.sent[:call])


def test_LT_1_target_that_lags_by_a_snapshot() -> None:
    network = Network(config=GroupConfig(keep_entries=0))
    behind(network)
    at = network.snapshot(1)
    network.deliver()
    network.holds_streams = True
    network.heal()
    network.transfer(1, 3)
    network.deliver()
    network.wait(H)
    assert (network.leaders, network.answered, len(network.streams)) == ([1], [], 1)
    network.end_stream()
    network.deliver()
    check_follows(network, 3)
    assert network.restored[3] == at
    assert network.nodes[3].commit_index > at.index


def test_LT_1_what_was_lost_is_sent_again_soon() -> None:
    """Nobody can write meanwhile: the usual E / 2 is too long."""
    network = Network()
    network.elect(1)
    network.wait(E)
    network.cut(1, 3)
    network.propose(1, b"x")
    network.deliver()
    network.heal()
    network.transfer(1, 3)
    network.deliver()
    assert network.leaders == [1]
    network.wait(H)
    check_follows(network, 3)


@pytest.mark.parametrize(
    "configuration",
    [voters_of(1, 2), voters_of(1, 2, learners=[3]), Configuration({1, 2}, outgoing={1, 2, 3}), voters_of(2, 4, learners=[1])],
    ids=str,
)
def test_LT_3_target_removed_or_demoted_while_pending(configuration: Configuration) -> None:
    raft, turns = make_leader(liveness=ALL_LIVE)
    hand_over(raft, 3)
    assert raft.status().transfer_target == 3
    turns.take()
    put_in_force(raft, configuration, 1)
    assert refusals(turns) == [("t", "no_voter")]
    assert raft.status().transfer_target is None
    assert raft.role is Role.LEADER
    raft.step(TimePassed(), H)
    assert told(turns.take().messages) == []


def test_a_change_that_keeps_the_target_does_not_end_it() -> None:
    raft, turns = make_leader(liveness=ALL_LIVE)
    hand_over(raft, 3)
    assert told(turns.take().messages) == [N3]
    put_in_force(raft, voters_of(1, 3), 1)
    # It lacks the change, and is told again when it has it.
    raft.step(TimePassed(), H)
    assert told(turns.take().messages) == []
    raft.step(AppendEntriesReply(N3, N1, 1, 2), H)
    assert told(turns.take().messages) == [N3]
    assert raft.status().transfer_target == 3


@pytest.mark.parametrize(("target", "kind"), [(1, "leads"), (4, "no_voter"), (9, "no_voter"), (5, "no_voter")])
def test_LT_4_target_is_learner_unknown_or_self(target: int, kind: str) -> None:
    raft, turns = make_leader(liveness=ALL_LIVE)
    put_in_force(raft, Configuration({1, 2, 3}, outgoing={1, 2, 5}, learners={4}))
    turns.settle(0)
    before = raft.status(), raft.deadline
    hand_over(raft, target)
    ready = turns.take()
    ((token, error),) = ready.refused
    assert (token, error.kind) == ("t", kind)  # type: ignore[attr-defined]  # TransferRefusedError
    assert (ready.messages, ready.writes) == ((), False)
    assert (raft.status(), raft.deadline) == before


def test_LT_6_transfer_beats_the_lease() -> None:
    network = Network(config=GroupConfig(lease_reads=True))
    network.wait(E)
    network.campaign(1)
    network.deliver()
    network.read_index(1, "r")
    network.deliver()
    network.wait(1)
    assert network.nodes[1].lease_until > network.now
    network.transfer(1, 2)
    network.deliver()
    assert network.leaders == [2]


def test_LT_6_a_forged_mark_costs_an_election_at_worst() -> None:
    network = Network()
    network.elect(1)
    network.propose(1, b"x")
    network.wait(E)
    for target in (N1, N2):
        network.inject(RequestVote(N3, target, 2, EntryId(1, 1), transfer=True))
    network.deliver()
    assert network.leaders == []
    network.wait(4 * E)
    assert len(network.leaders) == 1
    assert [entry.payload for entry in network.applied[3] if entry.kind is EntryKind.COMMAND] == [b"x"]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_LT_8_transfer_under_full_load(seed: int, loss: float) -> None:
    """64 clients, each with one command under way. What was refused is nowhere; what was taken is applied once at most."""
    network = Network(seed=seed)
    random = network.random
    network.elect(1)
    waiting: set[bytes] = set()
    count = 0

    def refill() -> None:
        nonlocal count
        done = {entry.payload for entries in network.applied.values() for entry in entries}
        waiting.difference_update(done, [token for token, _ in network.refused])
        while len(waiting) < 64:
            count += 1
            command = b"%d" % count
            waiting.add(command)
            network.propose(network.leader or 1, command)

    refill()
    for _ in range(30):
        network.deliver_one()
    network.transfer(1, 2)
    start = network.now
    while not network.answered and not any(token == "transfer" for token, _ in network.refused) and network.now < start + 2 * E:
        for _ in range(40):
            if random.random() < loss / 10:
                network.drop_all()
            network.deliver_one()
            refill()
        network.wait(H // 4)
    assert network.now < start + 2 * E
    if not loss:
        assert network.leaders == [2]
    network.heal()
    network.wait(6 * E)
    refused = [token for token, error in network.refused if token != "transfer"]
    assert {type(error) for token, error in network.refused if token != "transfer"} <= {BusyError, NotLeaderError}
    applied = [entry.payload for entry in network.applied[3] if entry.kind is EntryKind.COMMAND]
    assert len(applied) == len(set(applied))
    assert not set(refused) & set(applied)
    assert network.applied[1] == network.applied[2] == network.applied[3]


# The leader


def test_the_target_that_has_everything_is_told_at_once_and_again() -> None:
    raft, turns = make_leader(liveness=ALL_LIVE)
    hand_over(raft, 2)
    assert told(turns.take().messages) == [N2]
    assert raft.deadline == H
    for now in (H, 2 * H):
        raft.step(TimePassed(), now - 1)
        assert told(turns.take().messages) == []
        raft.step(TimePassed(), now)
        assert told(turns.take().messages) == [N2]


def test_a_target_that_never_answers() -> None:
    raft, turns = make_leader(liveness=ALL_LIVE)
    hand_over(raft, 2)
    raft.step(Propose("early", b"x"), E - 1)
    ((token, error),) = turns.take().refused
    assert (token, type(error)) == ("early", BusyError)
    raft.step(TimePassed(), E)
    assert refusals(turns) == [("t", "timeout")]
    assert (raft.deadline, raft.status().transfer_target) == (NEVER, None)
    raft.step(Propose("late", b"x"), E)
    assert turns.take().accepted == (("late", EntryId(1, 2)),)


def test_a_target_that_never_catches_up() -> None:
    raft, turns = make_leader(liveness=ALL_LIVE)
    raft.step(Propose("x", b"x"), 0)
    turns.settle(0)
    hand_over(raft, 2)
    # That of another one is of no use.
    raft.step(AppendEntriesReply(N3, N1, 1, 2), 0)
    messages = []
    while raft.status().transfer_target is not None:
        raft.step(TimePassed(), raft.deadline)
        messages += turns.settle(raft._now)
    assert raft._now == E
    assert told(messages) == []


def test_one_at_a_time_and_the_same_target_again_is_no_longer_wait() -> None:
    raft, turns = make_leader(liveness=ALL_LIVE)
    hand_over(raft, 3)
    for now, target in [(H, 3), (H, 2), (H, None), (E - 1, 1)]:
        hand_over(raft, target, token="again", now=now)
        assert refusals(turns) == [("again", "pending")]
    raft.step(TimePassed(), E)
    assert refusals(turns) == [("t", "timeout")]
    hand_over(raft, 2, now=E)
    assert told(turns.take().messages) == [N2]


def test_to_whom_it_is_handed_over_if_nobody_is_named() -> None:
    liveness = dict(ALL_LIVE)
    raft, turns = make_leader(configuration=voters_of(1, 2, 3, 4, learners=[5]), liveness=liveness)
    hand_over(raft, None)
    assert told(turns.take().messages) == [N2]
    raft.step(TimePassed(), E)
    turns.take()
    raft.step(Propose("x", b"x"), E)
    turns.settle(E)
    for source in (N3, Member(4), Member(5)):
        raft.step(AppendEntriesReply(source, N1, 1, 2), E)
    turns.settle(E)
    hand_over(raft, None, now=E)
    assert told(turns.take().messages) == [N3]
    raft.step(TimePassed(), 2 * E)
    turns.take()
    # Who has most of the log and is not there is of no use.
    liveness[3] = 0
    hand_over(raft, None, now=2 * E)
    assert told(turns.take().messages) == [Member(4)]


@pytest.mark.parametrize("target", [None, 2])
def test_a_silent_target_is_refused(target: int | None) -> None:
    raft, turns = make_leader(configuration=voters_of(1, 2, 3), liveness={3: NEVER} if target else {})
    now = 2 * E if target else E - 1
    if target is None:
        put_in_force(raft, voters_of(1, learners=[2, 3]))
        turns.settle(0)
    hand_over(raft, target, now=now)
    assert refusals(turns) == [("t", "silent")]
    assert raft.status().transfer_target is None


def test_reads_go_on_meanwhile() -> None:
    raft, turns = make_leader(liveness=ALL_LIVE)
    hand_over(raft, 2)
    ask(raft, turns, "r")
    answer(raft, N3, 1)
    assert turns.take().answered == (("r", 1),)


@pytest.mark.parametrize("reason", ["higher term", "disk", "quorum"])
def test_whoever_leads_no_longer_has_done_what_was_asked(reason: str) -> None:
    raft, turns = make_leader(liveness={2: E // 2, 3: E // 2})
    now = E // 4
    hand_over(raft, 2, now=now)
    turns.take()
    if reason == "quorum":
        now = E
        raft.step(TimePassed(), now)
    elif reason == "disk":
        raft.step(DiskSpace(False), now)
    else:
        raft.step(AppendEntries(N3, N1, 2, EntryId(1, 1), 0), now)
    ready = turns.take()
    assert (ready.answered, ready.refused) == ((("t", None),), ())
    assert raft.status().transfer_target is None


# The target


def follower() -> tuple[Raft, Turns]:
    raft = make_raft(liveness={2: NEVER})
    turns = Turns(raft)
    raft.step(Heartbeat(N2, N1, 3, 0), 0)
    turns.settle(0)
    return raft, turns


def test_the_target_asks_for_votes_at_once() -> None:
    raft, turns = follower()
    raft.step(TimeoutNow(N2, N1, 3), 1)
    assert (raft.role, raft.term) == (Role.CANDIDATE, 4)
    messages = turns.settle(1)
    assert [message for message in messages if isinstance(message, RequestVote)] == [
        RequestVote(N1, target, 4, raft.log.last, transfer=True, genesis=raft.genesis) for target in (N2, N3)
    ]
    # Word that was sent again, or arrives late, is of an older term now.
    raft.step(TimeoutNow(N2, N1, 3), 2)
    assert (raft.role, raft.term) == (Role.CANDIDATE, 4)


def test_a_candidate_that_nobody_has_called_carries_no_mark() -> None:
    raft, turns = follower()
    raft.step(TimeoutNow(N2, N1, 3), 1)
    turns.settle(1)
    raft.step(TimePassed(), raft.deadline)
    assert raft.role is Role.PRE_CANDIDATE


@pytest.mark.parametrize(
    ("source", "term"),
    [(N2, 2), (N3, 3), (Member(2, EntryId(1, 1)), 3), (Member(9), 3), (N3, 4)],
    ids=["older term", "not the leader", "another life", "stranger", "higher term"],
)
def test_word_from_others_is_ignored(source: Member, term: int) -> None:
    raft, turns = follower()
    raft.step(TimeoutNow(source, N1, term), 1)
    assert (raft.role, raft.term) == (Role.FOLLOWER, max(term, 3))
    assert not [message for message in turns.settle(1) if isinstance(message, RequestVote)]


def test_a_replica_without_leader_is_not_called() -> None:
    raft = make_raft(term=3)
    raft.step(TimeoutNow(N2, N1, 3), 1)
    assert (raft.role, raft.term) == (Role.FOLLOWER, 3)


@pytest.mark.parametrize("why", ["learner", "no space", "hung disk"])
def test_who_cannot_lead_ignores_it(why: str) -> None:
    configuration = voters_of(2, 3, learners=[1]) if why == "learner" else voters_of(1, 2, 3)
    raft = make_raft(configuration=configuration, liveness={1: 0} if why == "hung disk" else {})
    turns = Turns(raft)
    raft.step(Heartbeat(N2, N1, 3, 0), 0)
    turns.settle(0)
    raft.step(DiskSpace(why != "no space"), 0)
    raft.step(TimeoutNow(N2, N1, 3), 1)
    assert (raft.role, raft.term) == (Role.FOLLOWER, 3)
    assert turns.settle(1) == []


@pytest.mark.parametrize("seed", range(20))
def test_lost_word_is_repeated(seed: int) -> None:
    network = Network(seed=seed)
    network.elect(1)
    network.wait(E)
    network.transfer(1, 2)
    network.drop_all()
    network.deliver()
    assert network.leaders == [1]
    network.wait(H)
    check_follows(network, 2)
