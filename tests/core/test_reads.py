"""Linearizable reads: rounds that confirm a leader, and what does not count for them."""

from __future__ import annotations

import attrs
import pytest

from tests.core.harness import E, H, Network, Turns, make_leader, make_raft, voters_of
from trioraft._errors import BusyError, NotLeaderError
from trioraft._types import NEVER, EntryId, Member
from trioraft.core import (
    AppendEntries,
    AppendEntriesReply,
    Configuration,
    Detach,
    DiskSpace,
    Heartbeat,
    HeartbeatReply,
    Persisted,
    Propose,
    Raft,
    Read,
    Ready,
    Role,
    TimePassed,
    TransferLeadership,
)
from trioraft.core._membership import append_configuration
from trioraft.core._reads import READS_MAX
from trioraft.core._roles import Leader

N1, N2, N3, N4 = Member(1), Member(2), Member(3), Member(4)
ALL_LIVE = {2: NEVER, 3: NEVER, 4: NEVER, 5: NEVER}


def rounds(ready: Ready) -> list[tuple[int, int]]:
    """Who is asked, and in which round."""
    return [(message.target.node_id, message.round) for message in ready.messages if isinstance(message, Heartbeat) and message.round]


def ask(raft: Raft, turns: Turns, *tokens: str, now: int = 0) -> Ready:
    for token in tokens:
        raft.step(Read([token]), now)
    return turns.take()


def answer(raft: Raft, source: Member, number: int, *, now: int = 0, term: int | None = None) -> None:
    raft.step(HeartbeatReply(source, raft.me, raft.term if term is None else term, raft.commit_index, number), now)


def put_in_force(raft: Raft, configuration: Configuration, now: int = 0) -> None:
    """Append a configuration: from then on it counts (dissertation 4.1)."""
    assert isinstance(raft.state, Leader)
    append_configuration(raft, raft.state, attrs.evolve(configuration, index=raft.log.last_index + 1), now)


def test_one_round_serves_all_that_wait() -> None:
    raft, turns = make_leader(liveness=ALL_LIVE)
    assert not raft.has_ready
    ready = ask(raft, turns, "a", "b", "c")
    assert rounds(ready) == [(2, 1), (3, 1)]
    assert ready.answered == ()
    assert raft.deadline == H
    answer(raft, N3, 1)
    assert turns.take().answered == (("a", 1), ("b", 1), ("c", 1))
    assert (raft.deadline, raft.has_ready) == (NEVER, False)
    # A late answer to what is done changes nothing.
    answer(raft, N2, 1)
    assert (raft.deadline, raft.has_ready) == (NEVER, False)


def test_a_round_in_flight_does_not_confirm_a_read_that_comes_later() -> None:
    raft, turns = make_leader(liveness=ALL_LIVE)
    ask(raft, turns, "a")
    assert rounds(ask(raft, turns, "b", "c")) == []
    answer(raft, N2, 1)
    ready = turns.take()
    assert ready.answered == (("a", 1),)
    assert rounds(ready) == [(2, 2), (3, 2)]
    # Nor does an answer to the round before, of whoever it is and however often it comes.
    answer(raft, N3, 1)
    answer(raft, N2, 1)
    assert not raft.has_ready
    answer(raft, N3, 2)
    assert turns.take().answered == (("b", 1), ("c", 1))


def test_a_round_has_the_commit_index_of_when_it_was_sent() -> None:
    raft, turns = make_leader(liveness=ALL_LIVE)
    raft.step(Propose("x", b"x"), 0)
    turns.settle(0)
    ask(raft, turns, "before")
    raft.step(AppendEntriesReply(N2, N1, 1, 2), 0)
    turns.settle(0)
    assert raft.commit_index == 2
    raft.step(Read(["behind"]), 0)
    answer(raft, N2, 1)
    assert turns.take().answered == (("before", 1),)
    answer(raft, N2, 2)
    assert turns.take().answered == (("behind", 2),)


def test_no_number_is_used_twice_whatever_role_comes_between() -> None:
    network = Network()
    network.elect(1)
    network.read_index(1, "a")
    network.deliver()
    for leader, target in [(1, 2), (2, 1)]:
        network.transfer(leader, target)
        network.deliver()
    network.read_index(1, "b")
    network.deliver()
    numbers = {m.round for m in network.sent if isinstance(m, Heartbeat) and m.round and m.source == N1}
    assert numbers == {1, 2}
    assert [answer for answer in network.answered if answer[0] in "ab"] == [("a", 1), ("b", 3)]


def test_RD_1_old_leader() -> None:
    network = Network()
    network.elect(1)
    network.isolate(1)
    network.elect(2)
    network.propose(2, b"x=2")
    network.deliver()
    assert network.leaders == [1, 2]
    network.read_index(1, "x")
    network.deliver()
    assert network.answered == []
    network.wait(E)
    assert network.leaders == [2]
    ((token, error),) = network.refused
    assert (token, type(error)) == ("x", NotLeaderError)
    network.heal()
    network.wait(2 * E)
    assert network.answered == []
    assert {raft.deadline for raft in network.nodes.values()} == {NEVER}


def test_RD_2_new_leader_before_its_first_commit() -> None:
    raft, turns = make_leader(log=[1, 1], liveness=ALL_LIVE, is_settled=False)
    turns.settle(0)
    raft.step(Read(["a"]), 0)
    raft.step(Read(["b"]), 0)
    # What it knows to be committed may be less than what the leader before has acknowledged.
    assert (raft.commit_index, raft.has_ready) == (0, False)
    raft.step(AppendEntriesReply(N2, N1, 2, 2), 0)
    assert rounds(turns.take()) == []
    raft.step(AppendEntriesReply(N2, N1, 2, 3), 0)
    ready = turns.take()
    assert rounds(ready) == [(2, 1), (3, 1)]
    answer(raft, N2, 1)
    assert turns.take().answered == (("a", 3), ("b", 3))


def test_RD_5_the_index_does_not_wait_for_the_machine() -> None:
    """Whoever answers the reads waits until so much is applied."""
    raft, turns = make_leader(liveness=ALL_LIVE)
    raft.step(Propose("x", b"x"), 0)
    raft.step(Persisted(turns.take().sequence), 0)
    raft.step(AppendEntriesReply(N2, N1, 1, 2), 0)
    raft.step(Read(["a"]), 0)
    assert [entry.index for entry in turns.take().committed] == [2]
    answer(raft, N2, 1)
    assert turns.take().answered == (("a", 2),)
    assert raft.applied_index == 1


@pytest.mark.parametrize("has_begun", [False, True])
def test_RD_10_step_down_with_reads_waiting(has_begun: bool) -> None:
    raft, turns = make_leader(liveness=ALL_LIVE, is_settled=has_begun)
    turns.settle(0)
    for token in ("a", "b"):
        raft.step(Read([token]), 0)
    if has_begun:
        turns.take()
    raft.step(Read(["c"]), 0)
    raft.step(AppendEntries(N2, N1, 5, EntryId(1, 1), 0), 0)
    ready = turns.take()
    assert [(token, type(error), error.leader) for token, error in ready.refused] == [(token, NotLeaderError, 2) for token in "abc"]  # type: ignore[attr-defined]  # NotLeaderError
    assert len({id(error) for _, error in ready.refused}) == 3
    turns.settle(0)
    answer(raft, N3, 1)
    assert not raft.has_ready
    # A follower names its leader.
    ((token, error),) = ask(raft, turns, "d").refused
    assert (token, error.leader) == ("d", 2)  # type: ignore[attr-defined]  # NotLeaderError


def test_RD_10_a_leader_without_a_quorum_refuses() -> None:
    raft, turns = make_leader(liveness={2: 0, 3: 0})
    ask(raft, turns, "a")
    for now in range(H, E, H):
        raft.step(TimePassed(), now)
        assert raft.deadline == min(now + H, E)
        assert rounds(turns.take()) == [(2, 1), (3, 1)]
    # The quorum is looked at before the read.
    raft.step(Read(["b"]), E)
    assert raft.role is Role.FOLLOWER
    ready = turns.take()
    assert [token for token, _ in ready.refused] == ["a", "b"]
    assert rounds(ready) == []


def test_RD_10_without_a_disk() -> None:
    raft, turns = make_leader(liveness=ALL_LIVE)
    ask(raft, turns, "a")
    raft.step(DiskSpace(False), 0)
    assert [token for token, _ in turns.take().refused] == ["a"]


def test_RD_11_one_voter_short_cut() -> None:
    raft, turns = make_leader(configuration=voters_of(1))
    assert ask(raft, turns, "a").answered == (("a", 1),)
    put_in_force(raft, voters_of(1, 2))
    # Appended is enough: node 2 may hold a vote already.
    ready = ask(raft, turns, "b")
    assert (ready.answered, raft.commit_index) == ((), 1)
    assert rounds(ready) == [(2, 2)]
    answer(raft, N2, 2)
    assert turns.take().answered == (("b", 1),)


def test_RD_11_before_its_first_commit() -> None:
    raft = make_raft(configuration=voters_of(1))
    turns = Turns(raft)
    raft.step(TimePassed(), 0)
    vote = turns.take()
    raft.step(Persisted(vote.sequence), 0)
    assert raft.role is Role.LEADER
    ready = ask(raft, turns, "a")
    assert ready.answered == ()
    raft.step(Persisted(ready.sequence), 0)
    assert turns.take().answered == (("a", 1),)


def test_MB_2_a_joint_configuration_needs_both_halves() -> None:
    raft, turns = make_leader(configuration=voters_of(1, 4, 5), liveness=ALL_LIVE)
    put_in_force(raft, Configuration({1, 2, 3}, outgoing={1, 4, 5}))
    assert rounds(ask(raft, turns, "a")) == [(2, 1), (3, 1), (4, 1), (5, 1)]
    for source in (N2, N3):
        answer(raft, source, 1)
    assert not raft.has_ready
    answer(raft, N4, 1)
    assert turns.take().answered == (("a", 1),)


def test_who_has_no_vote_confirms_nothing() -> None:
    raft, turns = make_leader(liveness=ALL_LIVE)
    again, learner = Member(3, EntryId(1, 2)), Member(4, EntryId(1, 2))
    put_in_force(raft, Configuration({1, 2, 3}, learners={4}, replicas={3: again.replica, 4: learner.replica}))
    assert rounds(ask(raft, turns, "a")) == [(2, 1), (3, 1)]
    for source in (learner, N3, Member(9), Member(2, EntryId(1, 1)), Member(3, EntryId(1, 3))):
        answer(raft, source, 1)
        assert turns.take().answered == ()
    answer(raft, again, 1)
    assert turns.take().answered == (("a", 1),)


def test_a_leader_that_is_no_voter_does_not_count_itself() -> None:
    raft, turns = make_leader(configuration=voters_of(1, 2, 3), liveness=ALL_LIVE)
    put_in_force(raft, voters_of(2, 3))
    ask(raft, turns, "a")
    answer(raft, N2, 1)
    assert turns.take().answered == ()
    answer(raft, N3, 1)
    assert turns.take().answered == (("a", 1),)


def test_answers_of_other_terms_and_impossible_ones_count_for_nothing() -> None:
    raft, turns = make_leader(term=3, liveness=ALL_LIVE)
    ask(raft, turns, "a")
    answer(raft, N2, 1, term=3)
    answer(raft, N2, 2)
    answer(raft, N2, 0)
    assert turns.take().answered == ()
    assert raft.dropped == {"stale term": 1, "impossible round": 1}
    answer(raft, N2, 1, term=5)
    ready = turns.take()
    assert (ready.answered, [token for token, _ in ready.refused]) == ((), ["a"])


def test_a_lost_round_is_sent_again_to_those_who_have_not_answered() -> None:
    raft, turns = make_leader(configuration=voters_of(1, 2, 3, 4, 5), liveness=dict(ALL_LIVE))
    ask(raft, turns, "a")
    raft.step(TimePassed(), H - 1)
    assert rounds(turns.take()) == []
    answer(raft, N3, 1, now=H - 1)
    raft.step(TimePassed(), H)
    assert rounds(turns.take()) == [(2, 1), (4, 1), (5, 1)]
    assert raft.deadline == 2 * H
    # A timer that fires late fires once.
    raft.step(TimePassed(), 5 * H + 7)
    assert rounds(turns.take()) == [(2, 1), (4, 1), (5, 1)]
    assert raft.deadline == 6 * H + 7
    answer(raft, N4, 1, now=6 * H)
    assert turns.take().answered == (("a", 1),)
    assert raft.deadline == NEVER


def test_nothing_is_sent_to_a_node_that_is_not_there() -> None:
    liveness = {2: NEVER, 3: NEVER}
    raft, turns = make_leader(liveness=liveness)
    liveness[3] = 0
    now = 2 * E
    assert rounds(ask(raft, turns, "a", now=now)) == [(2, 1)]
    raft.step(TimePassed(), now + H)
    assert rounds(turns.take()) == [(2, 1)]
    # When it is back, it is asked like the others.
    liveness[3] = NEVER
    raft.step(TimePassed(), now + 2 * H)
    assert rounds(turns.take()) == [(2, 1), (3, 1)]
    answer(raft, N3, 1, now=now + 2 * H)
    assert turns.take().answered == (("a", 1),)


def test_a_change_that_adds_a_voter_needs_its_word() -> None:
    raft, turns = make_leader(configuration=voters_of(1, 2), liveness=ALL_LIVE)
    ask(raft, turns, "a")
    put_in_force(raft, voters_of(1, 2, 3, 4))
    answer(raft, N2, 1)
    assert turns.take().answered == ()
    raft.step(TimePassed(), H)
    assert rounds(turns.take()) == [(3, 1), (4, 1)]
    answer(raft, N4, 1, now=H)
    assert turns.take().answered == (("a", 1),)


def test_a_change_that_removes_a_voter_may_leave_enough_answers() -> None:
    raft, turns = make_leader(configuration=voters_of(1, 2, 3, 4), liveness=ALL_LIVE)
    ask(raft, turns, "a")
    answer(raft, N2, 1)
    assert turns.take().answered == ()
    put_in_force(raft, voters_of(1, 2, 3))
    raft.step(TimePassed(), H)
    ready = turns.take()
    assert ready.answered == (("a", 1),)
    assert rounds(ready) == []


def test_a_follower_answers_at_any_time() -> None:
    """It promises nothing about its disk, but that its term is there."""
    raft = make_raft()
    raft.step(Heartbeat(N2, N1, 1, 0, 7), 0)
    ready = raft.take_ready(1)
    assert (ready.messages, ready.after_write) == ((), (HeartbeatReply(N1, N2, 1, 0, 7),))
    raft.step(Persisted(1), 0)
    # In a later term it does not confirm the earlier one.
    raft.step(Heartbeat(N3, N1, 2, 0), 0)
    raft.step(Persisted(raft.take_ready(2).sequence), 0)
    raft.step(Heartbeat(N2, N1, 1, 0, 8), 0)
    assert raft.take_ready(3).messages == (HeartbeatReply(N1, N2, 2, 0, 8),)


def test_a_lost_round_does_not_hide_that_a_commit_must_be_told() -> None:
    network = Network()
    network.elect(1)
    network.propose(1, b"x")
    network.deliver()
    network.cut(1, 2)
    network.cut(1, 3)
    network.read_index(1, "a")
    network.deliver()
    network.heal()
    network.wait(E)
    assert network.answered == [("a", 2)]
    assert {raft.commit_index for raft in network.nodes.values()} == {2}
    assert {raft.deadline for raft in network.nodes.values()} == {NEVER}


def test_who_waits_is_known_until_the_answer_is_handed_out() -> None:
    """Whoever stops a replica has to tell them."""
    raft, turns = make_leader(liveness=ALL_LIVE)
    ask(raft, turns, "in flight")
    raft.step(Read(["waiting"]), 0)
    raft.step(TransferLeadership("transfer", 2), 0)
    raft.step(Propose("refused", b""), 0)
    assert sorted(raft.waiting()) == ["in flight", "refused", "transfer", "waiting"]
    answer(raft, N2, 1)
    assert sorted(raft.waiting()) == ["in flight", "refused", "transfer", "waiting"]
    turns.take()
    assert sorted(raft.waiting()) == ["transfer", "waiting"]
    raft.step(DiskSpace(False), 0)
    assert sorted(raft.waiting()) == ["transfer", "waiting"]
    turns.take()
    assert raft.waiting() == []


def test_reads_that_wait_are_bounded() -> None:
    raft, turns = make_leader(liveness=ALL_LIVE)
    ask(raft, turns, "first")
    for token in range(READS_MAX):
        raft.step(Read([token]), 0)
    ((token, error),) = ask(raft, turns, "too many").refused
    assert (token, type(error)) == ("too many", BusyError)
    answer(raft, N2, 1)
    turns.take()
    answer(raft, N2, 2)
    assert len(turns.take().answered) == READS_MAX


@pytest.mark.parametrize("seed", range(20))
def test_reads_go_on_while_leaders_change(seed: int) -> None:
    """Whatever is acknowledged before a read is asked has an index up to the answer; and each read is answered once."""
    network = Network(seed=seed)
    random = network.random
    floors: dict[object, int] = {}
    for number in range(150):
        node_id = random.choice([1, 2, 3])
        match random.randrange(8):
            case 0:
                network.cut(node_id, random.choice([n for n in (1, 2, 3) if n != node_id]), both_ways=random.random() < 0.5)
            case 1:
                network.heal()
            case 2:
                network.restart(node_id)
            case 3:
                network.inject(Detach(Member(node_id % 3 + 1), Member(node_id), network.nodes[node_id].term))
                network.campaign(node_id)
            case _:
                network.propose(node_id, b"x")
                token = f"r{number}"
                floors[token] = max(raft.commit_index for raft in network.nodes.values())
                network.read_index(node_id, token)
        for _ in range(random.randrange(30)):
            network.deliver_one()
        network.wait(random.randrange(2 * H))
    network.heal()
    network.wait(6 * E)
    answers = [(token, index) for token, index in network.answered if token in floors]
    assert len(answers) > 5
    assert all(index >= floors[token] for token, index in answers if isinstance(index, int))
    done = [token for token, _ in answers] + [token for token, _ in network.refused if token in floors]
    assert len(done) == len(set(done))
    assert {raft.deadline for raft in network.nodes.values()} == {NEVER}
