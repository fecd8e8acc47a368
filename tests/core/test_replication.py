"""Replication and commitment: what a leader sends, counts, repeats; what a follower takes."""

from __future__ import annotations

import random

import pytest

from tests.core.harness import E, H, Network, Turns, entries_of, make_leader, make_raft, voters_of
from tests.core.schedule import Schedule
from trioraft._errors import BusyError, EntryTooLargeError, InvariantError, NotLeaderError
from trioraft._types import NEVER, NOTHING, EntryId, Member
from trioraft.core import (
    AppendEntries,
    AppendEntriesReply,
    Applied,
    Configuration,
    EntryKind,
    GroupConfig,
    Heartbeat,
    HeartbeatReply,
    Message,
    PeerDown,
    PeerUp,
    Persisted,
    Propose,
    Raft,
    Role,
    TimePassed,
    Unreachable,
)
from trioraft.core._role_changes import become_candidate, become_leader

N1, N2, N3 = Member(1), Member(2), Member(3)
LIVE = {2: NEVER, 3: NEVER}

FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}
LEADER_7 = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]


def rejections(network: Network) -> list[AppendEntriesReply]:
    return [m for m in network.sent if isinstance(m, AppendEntriesReply) and m.rejected]


def accept(raft: Raft, source: Member, match: int, now: int = 0, commit: int = 0) -> None:
    raft.step(AppendEntriesReply(source, raft.me, raft.term, match, commit=commit), now)


def appends_to(messages: list[Message] | tuple[Message, ...], target: Member) -> list[AppendEntries]:
    return [m for m in messages if isinstance(m, AppendEntries) and m.target == target]


# Log matching


@pytest.mark.parametrize("case", FIGURE_7)
def test_LR_1_figure_7(case: str) -> None:
    log = FIGURE_7[case]
    # A third node that is as the leader: otherwise d would be ahead of everybody.
    network = Network(logs={1: LEADER_7, 2: log, 3: LEADER_7}, terms={1: 7, 2: 7, 3: 7})
    network.elect(1)
    network.propose(1, b"new")
    network.wait(E)
    assert network.nodes[1].term == 8
    assert network.log_terms(1) == network.log_terms(2) == network.log_terms(3) == [*LEADER_7, 8, 8]
    assert len(rejections(network)) <= 1
    assert [len(entries) for entries in network.applied.values()] == [12] * 3


def test_LR_3_conflict_below_commit_is_fatal() -> None:
    raft = make_raft(log=[1, 1, 1, 1, 1], term=2)
    raft.step(AppendEntries(N2, N1, 2, EntryId(1, 5), commit=4), 0)
    assert raft.commit_index == 4
    with pytest.raises(InvariantError, match=r"entry 3@1 is committed here .* 3@2"):
        raft.step(AppendEntries(N2, N1, 2, EntryId(1, 2), 0, entries_of([2], first=3)), 0)
    assert [raft.term_at(index) for index in range(7)] == [0, 1, 1, 1, 1, 1, 0]
    with pytest.raises(InvariantError, match=r"entry 4@1 is committed here .* 4@2"):
        raft.step(AppendEntries(N2, N1, 2, EntryId(2, 4), 0), 0)


def test_LR_4_commit_is_clipped_to_what_the_message_proves() -> None:
    raft = make_raft(log=[1, 1, 1, 2, 2], term=3)
    raft.step(AppendEntries(N2, N1, 3, EntryId(1, 3), commit=5), 0)
    assert raft.commit_index == 3
    assert Turns(raft).settle(0) == [AppendEntriesReply(N1, N2, 3, match=3, commit=3)]


@pytest.mark.parametrize("term_count", [1, 3, 10])
def test_LR_6_back_off_is_bounded(term_count: int) -> None:
    """10,000 divergent entries over k terms: at most k + 1 rejections."""
    generator = random.Random(term_count)
    common = [1] * 10
    mine = sorted(generator.choices(range(2, 2 * term_count + 2, 2), k=10_000))
    theirs = sorted(generator.choices(range(3, 2 * term_count + 3, 2), k=10_000))
    terms = dict.fromkeys((1, 2, 3), 2 * term_count + 2)
    network = Network(logs={1: common + mine, 2: common + theirs, 3: common + mine}, terms=terms)
    # The other one need not win: it only needs to be written over.
    network.cut(1, 2)
    become_candidate(network.nodes[1], 0)
    network.sync(1)
    become_leader(network.nodes[1], {3}, 0)
    network.deliver()
    network.heal()
    network.wait(3 * E)
    assert network.log_terms(2) == network.log_terms(1)
    assert len(rejections(network)) <= term_count + 1


def test_a_rejection_carries_the_last_entry_that_may_match() -> None:
    raft = make_raft(log=[1, 1, 3, 3, 3], term=4)
    turns = Turns(raft)
    raft.step(AppendEntries(N2, N1, 4, EntryId(2, 8), 0), 0)
    raft.step(AppendEntries(N2, N1, 4, EntryId(2, 4), 0), 0)
    raft.step(AppendEntries(N2, N1, 4, EntryId(4, 9), 0), 0)
    # Refusals promise nothing: they need not wait for the disk.
    assert turns.take().messages == (
        AppendEntriesReply(N1, N2, 4, match=0, rejected=8, hint=EntryId(1, 2)),
        AppendEntriesReply(N1, N2, 4, match=0, rejected=4, hint=EntryId(1, 2)),
        AppendEntriesReply(N1, N2, 4, match=0, rejected=9, hint=EntryId(3, 5)),
    )


def test_LR_9_pipeline_loses_one_batch() -> None:
    config = GroupConfig(append_bytes_max=1, window_messages=10)
    leader, turns = make_leader(liveness=LIVE, config=config)
    follower = make_raft(2, log=[1], term=1)
    for token in range(10):
        leader.step(Propose(token, b"x"), 0)
    batches = appends_to(turns.take().messages, N2)
    assert [message.previous.index for message in batches] == list(range(1, 11))
    assert leader.state.members[2].progress.window.count == 10  # type: ignore[union-attr]  # it leads
    for message in batches[:3] + batches[4:]:
        follower.step(message, 0)
    answers = [message for message in Turns(follower).settle(0) if isinstance(message, AppendEntriesReply)]
    assert sorted(answer.rejected for answer in answers if answer.rejected) == list(range(5, 11))
    sent = []
    for answer in sorted(answers, key=lambda answer: answer.rejected):
        leader.step(answer, 0)
        assert leader.state.members[2].progress.window.count <= 10  # type: ignore[union-attr]  # it leads
        sent += appends_to(turns.take().messages, N2)
    assert [(message.previous.index, len(message.entries)) for message in sent] == [(4, 1)]
    follower.step(sent[0], 0)
    for answer in Turns(follower, first=100).settle(0):
        leader.step(answer, 0)
    assert [message.previous.index for message in appends_to(turns.take().messages, N2)] == list(range(5, 11))


def test_LR_10_hung_follower() -> None:
    """n3's node is live, its group never answers: n2 commits as before, and n3's share stays bounded."""
    network = Network(config=GroupConfig(window_messages=8))
    network.elect(1)
    network.wait(E)
    network.stall(3)
    before = len(network.sent)
    for number in range(1000):
        network.propose(1, b"%d" % number)
        network.deliver()
        assert network.nodes[1].commit_index == 2 + number
    to_hung = [m for m in network.sent[before:] if m.target == N3]
    assert len(to_hung) <= 8
    network.wait(20 * E)
    repeated = [m for m in network.sent[before:] if m.target == N3]
    # One append each half timeout, none of them larger than a message may be.
    assert len(repeated) - len(to_hung) <= 41
    network.sync(3)
    network.wait(E)
    assert network.log_terms(3) == network.log_terms(1)


MALFORMED = [
    (NOTHING, [*entries_of([1]), *entries_of([1], first=3)]),
    (NOTHING, entries_of([2, 1])),
    (NOTHING, entries_of([1, 4])),
    (EntryId(2, 1), entries_of([1], first=2)),
    (EntryId(4, 1), ()),
]


@pytest.mark.parametrize("previous, entries", MALFORMED)
def test_LR_12_malformed_append(previous: EntryId, entries: tuple) -> None:
    raft = make_raft(log=[1], term=2)
    raft.step(AppendEntries(N2, N1, 3, previous, 1, tuple(entries)), 0)
    assert raft.dropped == {"malformed": 1}
    assert (raft.term, raft.log.last, raft.commit_index, raft.has_ready) == (2, EntryId(1, 1), 0, False)


def test_old_appends_change_nothing() -> None:
    raft = make_raft(log=[1, 1, 1], term=1)
    turns = Turns(raft)
    raft.step(AppendEntries(N2, N1, 1, NOTHING, 3, entries_of([1])), 0)
    ready = turns.take()
    assert not ready.entries
    assert ready.after_write == (AppendEntriesReply(N1, N2, 1, match=1, commit=1),)
    assert raft.log.last_index == 3


# Commitment


def test_CM_1_figure_8() -> None:
    """An entry of term 2 on a majority is not committed by a leader of term 4, and may be replaced (paper 5.4.2)."""
    voters = (1, 2, 3, 4, 5)
    network = Network(voters, logs={1: [1, 2], 2: [1, 2], 3: [1], 4: [1], 5: [1, 3]}, terms=dict.fromkeys(voters, 3))
    leader = network.nodes[1]
    network.isolate(4)
    network.isolate(5)
    # S1 leads term 4 and copies 2@2 to S3, but the own entry 3@4 does not get that far.
    network.campaign(1)
    while not (isinstance(message := network.deliver_one(), AppendEntriesReply) and message.rejected):
        assert message is not None
    network.stall(2)
    network.drop_all()
    accept(leader, N2, 2)
    accept(leader, N3, 2)
    assert (leader.role, leader.term, leader.commit_index) == (Role.LEADER, 4, 0)
    # S1 crashes, and S5 may win term 5 with the others and replace 2@2.
    network.crash(1)
    network.restart(2)
    network.heal()
    network.wait(2 * E)
    network.elect(5)
    assert network.log_terms(5)[:2] == [1, 3]
    network.wait(E)
    assert network.log_terms(3)[:2] == [1, 3]


def test_CM_1_once_an_own_entry_is_on_a_majority_nobody_without_it_wins() -> None:
    voters = (1, 2, 3, 4, 5)
    network = Network(voters, logs={1: [1, 2], 2: [1, 2], 3: [1], 4: [1], 5: [1, 3]}, terms=dict.fromkeys(voters, 3))
    network.isolate(4)
    network.isolate(5)
    network.elect(1)
    assert network.nodes[1].commit_index == 3
    network.crash(1)
    network.heal()
    for _ in range(20):
        network.campaign(5)
        network.wait(E)
        assert network.nodes[5].role is not Role.LEADER
    assert network.leader in (2, 3)
    assert network.log_terms(5)[:3] == [1, 2, 4]


def test_CM_2_only_own_term_entries_commit_by_counting() -> None:
    leader, turns = make_leader(log=[1, 1, 2], term=2, is_settled=False)
    turns.settle(0)
    assert leader.term == 3
    accept(leader, N2, 3)
    accept(leader, N3, 3)
    assert leader.commit_index == 0
    accept(leader, N2, 4)
    assert leader.commit_index == 4


def test_CM_3_idle_new_leader() -> None:
    """The old leader's last entries are on a majority; nobody proposes: the no-op commits them at once."""
    network = Network(logs={1: [1, 1], 2: [1, 1], 3: [1]})
    network.elect(2)
    assert network.now == 0
    assert network.nodes[2].commit_index == 3
    network.wait(H)
    assert [[entry.term for entry in entries] for entries in network.applied.values()] == [[1, 1, 2]] * 3
    assert network.applied[1][-1].kind is EntryKind.NOOP


def test_CM_5_ack_before_sync() -> None:
    raft = make_raft(log=[1], term=1)
    raft.step(AppendEntries(N2, N1, 1, EntryId(1, 1), 1, entries_of([1, 1], first=2)), 0)
    ready = raft.take_ready(5)
    assert [entry.index for entry in ready.entries] == [2, 3]
    assert ready.messages == ()
    assert ready.after_write == (AppendEntriesReply(N1, N2, 1, match=3, commit=1),)
    # A repeat of the same append while the write is on its way: its answer waits for that write too.
    raft.step(AppendEntries(N2, N1, 1, EntryId(1, 1), 1, entries_of([1, 1], first=2)), 0)
    again = raft.take_ready(6)
    assert not again.writes
    assert again.messages == ()
    assert len(again.after_write) == 1


@pytest.mark.parametrize("seed", range(30))
def test_CM_5_nothing_acknowledged_is_lost_by_a_crash(seed: int) -> None:
    """A follower crashes at any moment with unsynced data dropped: whatever it has acknowledged is there again."""
    generator = random.Random(seed)
    network = Network(seed=seed)
    network.elect(1)
    for _ in range(60):
        network.propose(1, b"x")
        if generator.random() < 0.3:
            network.stall(2)
        for _ in range(generator.randrange(6)):
            network.deliver_one()
        if generator.random() < 0.3:
            network.sync(2)
        if generator.random() < 0.2:
            acknowledged = max((m.match for m in network.sent if isinstance(m, AppendEntriesReply) and m.source == N2), default=0)
            network.restart(2)
            assert network.nodes[2].log.last_index >= acknowledged
    network.wait(3 * E)
    assert network.log_terms(1) == network.log_terms(2) == network.log_terms(3)


def test_CM_8_learners_do_not_count() -> None:
    leader, turns = make_leader(configuration=voters_of(1, 2, learners=[3, 4]), is_settled=False)
    turns.settle(0)
    accept(leader, N3, 1)
    accept(leader, Member(4), 1)
    assert leader.commit_index == 0
    accept(leader, N2, 1)
    assert leader.commit_index == 1
    assert leader.status().match == {1: 1, 2: 1, 3: 1, 4: 1}


def test_acks_of_a_former_life_and_of_strangers_count_for_nothing() -> None:
    configuration = Configuration(frozenset({1, 2, 3}), replicas={1: NOTHING, 2: NOTHING, 3: EntryId(2, 7)})
    leader, turns = make_leader(configuration=configuration, is_settled=False)
    turns.settle(0)
    accept(leader, N3, 1)
    accept(leader, Member(3, EntryId(5, 9)), 1)
    accept(leader, Member(9, EntryId(1, 1)), 1)
    leader.step(HeartbeatReply(Member(9, EntryId(1, 1)), N1, 1, 0), 0)
    assert leader.dropped == {"former replica": 1, "stranger": 3}
    assert leader.commit_index == 0


def test_an_impossible_ack_is_dropped() -> None:
    leader, _ = make_leader()
    accept(leader, N2, 99)
    assert leader.dropped == {"impossible match": 1}
    assert leader.commit_index == 1


def test_the_leaders_own_disk_is_counted_when_it_is_done() -> None:
    leader, turns = make_leader(configuration=voters_of(1, 2))
    leader.step(Propose("a", b"a"), 0)
    ready = turns.take()
    accept(leader, N2, 2)
    assert leader.commit_index == 1
    leader.step(Persisted(ready.sequence), 0)
    assert leader.commit_index == 2


def test_a_leader_applies_only_what_its_own_disk_has() -> None:
    leader, turns = make_leader()
    leader.step(Propose("a", b"a"), 0)
    first = turns.take()
    accept(leader, N2, 2)
    accept(leader, N3, 2)
    assert leader.commit_index == 2
    assert turns.take().committed == ()
    leader.step(Persisted(first.sequence), 0)
    assert [entry.payload for entry in turns.take().committed] == [b"a"]
    leader.step(Applied(2), 0)
    assert leader.applied_index == 2


def test_a_heartbeat_beyond_the_log_means_that_the_log_was_lost() -> None:
    raft = make_raft(log=[1], term=1)
    with pytest.raises(InvariantError, match="commit index 2 is beyond the end of the log"):
        raft.step(Heartbeat(N2, N1, 1, commit=2), 0)


# Proposals


def test_only_leaders_take_proposals() -> None:
    raft = make_raft(term=1)
    raft.step(Propose("a", b""), 0)
    raft.step(Heartbeat(N2, N1, 1, 0), 0)
    raft.step(Propose("b", b""), 0)
    refused = raft.take_ready(1).refused
    assert [(token, type(error), error.leader) for token, error in refused] == [  # type: ignore[attr-defined]  # of that kind
        ("a", NotLeaderError, None),
        ("b", NotLeaderError, 2),
    ]


def test_the_proposals_of_a_turn_make_one_append_each() -> None:
    leader, turns = make_leader()
    for token in range(500):
        leader.step(Propose(token, b"x" * 128), 0)
    ready = turns.take()
    assert [(m.target, len(m.entries), m.commit) for m in ready.messages if isinstance(m, AppendEntries)] == [(N2, 500, 1), (N3, 500, 1)]
    assert len(ready.entries) == 500
    assert ready.accepted == tuple((token, EntryId(1, token + 2)) for token in range(500))
    assert ready.after_write == ()
    assert not leader.has_ready


def test_the_window_bounds_what_is_on_its_way() -> None:
    config = GroupConfig(append_bytes_max=10, window_messages=100, window_bytes=35)
    leader, turns = make_leader(config=config)
    for token in range(20):
        leader.step(Propose(token, bytes(10)), 0)
    assert len(appends_to(turns.take().messages, N2)) == 4
    accept(leader, N2, 3)
    assert len(appends_to(turns.take().messages, N2)) == 2
    # An entry that is larger than a message and the window still goes, alone.
    leader, turns = make_leader(config=config)
    leader.step(Propose("large", bytes(100)), 0)
    leader.step(Propose("small", b"x"), 0)
    assert [len(m.entries) for m in appends_to(turns.take().messages, N2)] == [1]


def test_proposals_over_a_limit_are_refused_before_the_log() -> None:
    config = GroupConfig(entry_bytes_max=100, uncommitted_bytes_max=50)
    leader, turns = make_leader(config=config)
    leader.step(Propose("too large", bytes(101)), 0)
    leader.step(Propose("alone", bytes(100)), 0)
    leader.step(Propose("empty", b""), 0)
    leader.step(Propose("more", b"x"), 0)
    ready = turns.take()
    assert [(token, type(error)) for token, error in ready.refused] == [
        ("too large", EntryTooLargeError),
        ("empty", BusyError),
        ("more", BusyError),
    ]
    assert [token for token, _ in ready.accepted] == ["alone"]
    leader.step(Persisted(ready.sequence), 0)
    accept(leader, N2, 2)
    leader.step(Propose("again", bytes(50)), 0)
    assert [token for token, _ in turns.take().accepted] == ["again"]


def test_proposals_without_payload_are_bounded_by_number() -> None:
    """Bytes of payload do not bound them at all, yet each takes its place in memory, in the log and in a frame."""
    leader, turns = make_leader(config=GroupConfig(uncommitted_entries_max=3, append_entries_max=2))
    for token in "abcd":
        leader.step(Propose(token, b""), 0)
    ready = turns.take()
    assert [token for token, _ in ready.accepted] == ["a", "b", "c"]
    assert [(token, type(error)) for token, error in ready.refused] == [("d", BusyError)]
    assert [len(m.entries) for m in appends_to(ready.messages, N2)] == [2, 1], "as many messages as it takes"
    leader.step(Persisted(ready.sequence), 0)
    accept(leader, N2, 2)
    leader.step(Propose("e", b""), 0)
    leader.step(Propose("f", b""), 0)
    ready = turns.take()
    assert [token for token, _ in ready.accepted] == ["e"]
    assert [token for token, _ in ready.refused] == ["f"]


def test_a_follower_that_was_away_gets_small_entries_in_bounded_messages() -> None:
    leader, turns = make_leader(log=[1] * 10, config=GroupConfig(append_entries_max=4), is_settled=False)
    turns.settle(0)
    leader.step(AppendEntriesReply(N2, N1, leader.term, match=0, rejected=10, hint=EntryId(0, 0)), 0)
    assert [len(m.entries) for m in appends_to(turns.settle(0), N2)] == [4]
    accept(leader, N2, 4)
    assert [len(m.entries) for m in appends_to(turns.settle(0), N2)] == [4, 3]


def test_what_is_committed_is_handed_out_in_bounded_portions() -> None:
    leader, turns = make_leader(config=GroupConfig(apply_entries_max=2))
    for token in "abc":
        leader.step(Propose(token, b""), 0)
    ready = turns.take()
    leader.step(Persisted(ready.sequence), 0)
    accept(leader, N2, 4)
    assert [entry.index for entry in turns.take().committed] == [2, 3]
    assert not leader.has_ready
    leader.step(Applied(3), 0)
    assert [entry.index for entry in turns.take().committed] == [4]


# Telling the commit index, and repeating


def test_the_commit_index_is_told_once_after_a_burst() -> None:
    leader, turns = make_leader(liveness=LIVE)
    leader.step(Propose("a", b"a"), 1000)
    turns.settle(1000)
    accept(leader, N2, 2, 1000)
    accept(leader, N3, 2, 1000)
    assert turns.settle(1000) == []
    assert leader.deadline == 1000 + H
    leader.step(TimePassed(), 1000 + H)
    assert turns.settle(1000 + H) == [Heartbeat(N1, N2, 1, 2), Heartbeat(N1, N3, 1, 2)]
    leader.step(HeartbeatReply(N2, N1, 1, 2), 1000 + H)
    # n3 does not say that it knows: it is told again, and again, each half timeout after its last word.
    for number in (1, 2):
        now = 1000 + number * E // 2
        assert leader.deadline == now
        leader.step(TimePassed(), now)
        assert turns.settle(now) == [Heartbeat(N1, N3, 1, 2)]
    leader.step(HeartbeatReply(N3, N1, 1, 2), now)
    assert leader.deadline == NEVER


def test_an_append_carries_the_commit_index() -> None:
    leader, turns = make_leader(liveness=LIVE)
    leader.step(Propose("a", b"a"), 1000)
    turns.settle(1000)
    accept(leader, N2, 2, 1000)
    leader.step(Propose("b", b"b"), 1001)
    assert [m.commit for m in turns.settle(1001) if isinstance(m, AppendEntries)] == [2, 2]
    leader.step(TimePassed(), 1000 + H)
    assert turns.settle(1000 + H) == []
    accept(leader, N2, 3, 1000 + H, commit=2)
    accept(leader, N3, 3, 1000 + H, commit=2)
    accept(leader, N3, 3, 1000 + H, commit=1)
    assert leader.deadline == 1000 + 2 * H
    leader.step(TimePassed(), 1000 + 2 * H)
    assert turns.settle(1000 + 2 * H) == [Heartbeat(N1, N2, 1, 3), Heartbeat(N1, N3, 1, 3)]


def test_a_single_voter_has_nobody_to_tell() -> None:
    network = Network((1,))
    network.wait(0)
    network.propose(1, b"a")
    network.deliver()
    assert network.nodes[1].commit_index == 2
    assert network.nodes[1].deadline == NEVER


def test_a_lost_append_is_repeated() -> None:
    leader, turns = make_leader(liveness=LIVE)
    leader.step(Propose("a", b"a"), 1000)
    turns.settle(1000)
    accept(leader, N2, 2, 1010, commit=1)
    assert leader.deadline == 1010 + H
    leader.step(TimePassed(), 1010 + H)
    turns.settle(1010 + H)
    leader.step(HeartbeatReply(N2, N1, 1, 2), 1010 + H)
    for number in (1, 2, 3):
        now = 1000 + number * E // 2
        assert leader.deadline == now
        leader.step(TimePassed(), now)
        assert [(m.target, m.previous.index, len(m.entries)) for m in turns.settle(now)] == [(N3, 1, 1)]  # type: ignore[union-attr]


def test_under_load_an_answering_follower_is_never_probed() -> None:
    leader, turns = make_leader(liveness=LIVE)
    for step in range(100):
        now = 1000 + step * 20
        leader.step(Propose(step, b"x"), now)
        messages = turns.settle(now)
        # Each answer comes 20 ms later, so something is always unanswered.
        assert len(appends_to(messages, N2)) == 1
        accept(leader, N2, leader.log.last_index - 1, now + 19)
        accept(leader, N3, leader.log.last_index - 1, now + 19)
    assert leader.state.members[2].progress.window.count == 1  # type: ignore[union-attr]  # it leads


def test_dead_members_get_nothing_until_their_node_is_up() -> None:
    liveness = {2: NEVER, 3: 10 * E}
    leader, turns = make_leader(liveness=liveness)
    leader.step(PeerDown(3), 10 * E)
    for number in range(10):
        now = 10 * E + number
        leader.step(Propose(number, b"x"), now)
        assert appends_to(turns.settle(now), N3) == []
        accept(leader, N2, leader.log.last_index, now, commit=leader.log.last_index)
    assert leader.deadline == 10 * E + 9 + H or leader.deadline == 10 * E + H
    leader.step(TimePassed(), 11 * E)
    assert turns.settle(11 * E) == []
    assert leader.deadline == NEVER
    liveness[3] = NEVER
    leader.step(PeerUp(3), 20 * E)
    assert [(m.previous.index, len(m.entries), m.commit) for m in appends_to(turns.settle(20 * E), N3)] == [(1, 10, 11)]
    accept(leader, N3, 11, 20 * E, commit=11)
    assert leader.deadline == NEVER


def test_a_member_that_dies_unnoticed_is_given_up() -> None:
    """Nobody has said `PeerDown`: the leader sees for itself that repeating is in vain."""
    leader, turns = make_leader(liveness={2: NEVER})
    leader.step(Propose("a", b"a"), 0)
    turns.settle(0)
    accept(leader, N2, 2, 0, commit=2)
    leader.step(HeartbeatReply(N2, N1, 1, 2), 0)
    sent = []
    while leader.deadline != NEVER:
        now = leader.deadline
        leader.step(TimePassed(), now)
        sent += turns.settle(now)
        assert now <= 3 * E
    assert len(sent) == 1
    # It speaks: it is served again, without any event of its node.
    leader.step(HeartbeatReply(N3, N1, 1, 1), 50 * E)
    assert leader.deadline == 50 * E + E // 2
    leader.step(TimePassed(), leader.deadline)
    assert len(turns.settle(leader.deadline)) == 1


def test_a_member_that_was_gone_and_lacks_nothing_gets_the_next_entry() -> None:
    liveness = {2: NEVER, 3: 10 * E}
    leader, turns = make_leader(liveness=liveness)
    leader.step(PeerDown(3), 10 * E)
    liveness[3] = NEVER
    leader.step(PeerUp(3, restarted=False), 11 * E)
    leader.step(Propose("a", b"a"), 11 * E)
    assert [len(m.entries) for m in appends_to(turns.settle(11 * E), N3)] == [1]


def test_a_new_leader_probes_a_dead_member_from_where_it_stood() -> None:
    """Not from the first entry: it has nearly everything."""
    liveness = {2: NEVER, 3: 0}
    leader, turns = make_leader(log=[1] * 100, liveness=liveness, is_settled=False)
    turns.settle(0)
    leader.step(PeerDown(3), 0)
    liveness[3] = NEVER
    leader.step(PeerUp(3), E)
    assert [m.previous.index for m in appends_to(turns.settle(E), N3)] == [100]


def test_a_quiet_group_stays_quiet_when_a_node_returns_that_lacks_nothing() -> None:
    leader, turns = make_leader(liveness=LIVE)
    leader.step(PeerUp(3, restarted=False), 10 * E)
    assert turns.settle(10 * E) == []
    # Another process has forgotten what is committed.
    leader.step(PeerUp(3), 10 * E)
    assert turns.settle(10 * E) == [Heartbeat(N1, N3, 1, 1)]


def test_a_node_down_that_was_just_heard_is_no_news() -> None:
    leader, turns = make_leader(liveness={2: NEVER})
    leader.step(PeerDown(3), E - 1)
    leader.step(Propose("a", b"a"), E - 1)
    assert len(appends_to(turns.settle(E - 1), N3)) == 1


def test_unreachable_goes_back_to_probing_but_not_at_once() -> None:
    leader, turns = make_leader(liveness=LIVE)
    leader.step(Unreachable(9), 1000)
    leader.step(Unreachable(3), 1000)
    assert leader.deadline == NEVER
    leader.step(Propose("a", b"a"), 1000)
    turns.settle(1000)
    leader.step(Unreachable(3), 1000)
    leader.step(Unreachable(3), 1001)
    leader.step(Propose("b", b"b"), 1001)
    assert appends_to(turns.settle(1001), N3) == []
    assert leader.deadline == 1000 + H
    leader.step(TimePassed(), 1000 + H)
    assert [len(m.entries) for m in appends_to(turns.settle(1000 + H), N3)] == [2]


def test_rejections_that_have_been_overtaken_are_ignored() -> None:
    leader, turns = make_leader(log=[1, 1, 1], term=1, is_settled=False)
    turns.settle(0)
    accept(leader, N2, 4)
    leader.step(AppendEntriesReply(N2, N1, 2, match=0, rejected=3, hint=EntryId(1, 1)), 0)
    assert turns.settle(0) == []
    # An absurd hint still leads somewhere.
    leader.step(AppendEntriesReply(N3, N1, 2, match=0, rejected=3, hint=EntryId(9, 99)), 0)
    assert [m.previous.index for m in appends_to(turns.settle(0), N3)] == [2]


def test_an_old_ack_is_no_news() -> None:
    leader, turns = make_leader(liveness=LIVE)
    accept(leader, N2, 1)
    accept(leader, N2, 0)
    assert turns.settle(0) == []
    assert leader.status().match[2] == 1


def test_a_ready_is_taken_once() -> None:
    leader, turns = make_leader()
    assert not leader.has_ready
    leader.step(Propose("a", b"a"), 0)
    assert leader.has_ready
    ready = turns.take()
    assert (ready.writes, ready.sequence) == (True, turns.sequence)
    again = turns.take()
    assert (again.writes, again.sequence, again.messages) == (False, 0, ())


@pytest.mark.parametrize("seed", range(25))
def test_random_schedules_end_equal(seed: int) -> None:
    """Cuts, crashes and slow disks at random; afterwards all logs are equal, and nothing that was applied differs."""
    network = Network((1, 2, 3, 4, 5), seed=seed, config=GroupConfig(append_bytes_max=20, window_messages=3))
    schedule = Schedule(network, random.Random(seed))
    schedule.run(150, "cut heal crash restart stall sync wait propose propose", deliveries_max=1)
    schedule.settle()
    assert [entries[-1].payload for entries in network.applied.values()] == [b"end"] * 5
    assert len({tuple(network.log_terms(node_id)) for node_id in network.nodes}) == 1
    assert {raft.deadline for raft in network.nodes.values()} == {NEVER}
