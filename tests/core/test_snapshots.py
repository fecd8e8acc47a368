"""Logs that are shorter in memory than on disk, and cut behind snapshots: reading back, compaction, streams, installs, restarts."""

from __future__ import annotations

import random

import attrs
import pytest

from tests.core.harness import E, H, Network, Turns, entries_of, make_leader, voters_of
from tests.core.schedule import Schedule
from trioraft._errors import InvariantError
from trioraft._types import NEVER, NOTHING, EntryId, Member
from trioraft.core import (
    AppendEntries,
    AppendEntriesReply,
    Applied,
    ChangeMembers,
    Compaction,
    Configuration,
    DiskSpace,
    Durable,
    EntriesLoaded,
    Entry,
    EntryKind,
    GroupConfig,
    HardState,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    LoadEntries,
    PeerDown,
    PeerUp,
    Persisted,
    Propose,
    Raft,
    Role,
    SendSnapshot,
    SnapshotSent,
    SnapshotTaken,
    Target,
    Terms,
    TimePassed,
    Timing,
    TrimMemory,
    Unreachable,
)
from trioraft.core._progress import ProgressState
from trioraft.core._role_changes import become_candidate, become_leader

N1, N2, N3 = Member(1), Member(2), Member(3)
LIVE = {2: NEVER, 3: NEVER}
VOTERS = voters_of(1, 2, 3)
SHORT = GroupConfig(keep_entries=0, log_memory_bytes_max=1)
"""Nothing stays in memory that need not, and nothing in the log that a snapshot has."""


def open_raft(
    start: EntryId = NOTHING,
    terms: list[int] | None = None,
    *,
    snapshot: EntryId | None = None,
    applied: int | None = None,
    term: int | None = None,
    config: GroupConfig | None = None,
    voters: Configuration = VOTERS,
    liveness: dict[int, int] | None = None,
    **durable: object,
) -> Raft:
    """A replica of node 1 whose log is on the disk only: behind `start`, entries of these terms."""
    log = Terms(start)
    for term_of in terms or ():
        log.extend(log.last_index + 1, term_of)
    snapshot = start if snapshot is None else snapshot
    return Raft(
        N1,
        voters,
        Durable(hard_state=HardState(log.last.term if term is None else term), terms=log, snapshot=snapshot, **durable),  # type: ignore[arg-type]
        config=config or GroupConfig(),
        timing=Timing(),
        random=random.Random(0),
        liveness=liveness or {},
        now=0,
        applied=snapshot.index if applied is None else applied,
    )


def lead(raft: Raft, turns: Turns, now: int = 0) -> None:
    """Let a replica that has nobody to ask but us win an election."""
    become_candidate(raft, now)
    turns.settle(now)
    if raft.role is not Role.LEADER:
        become_leader(raft, {2, 3}, now)


def loaded(raft: Raft, load: LoadEntries, terms: list[int], now: int = 0) -> None:
    raft.step(EntriesLoaded(load, entries_of(terms, load.first)), now)


def accept(raft: Raft, source: Member, match: int, now: int = 0, commit: int = 0) -> None:
    raft.step(AppendEntriesReply(source, raft.me, raft.term, match, commit=commit), now)


def install(raft: Raft, at: EntryId, term: int, configuration: Configuration = VOTERS, now: int = 0) -> None:
    raft.step(InstallSnapshot(N2, N1, term, at, configuration), now)


def progress_of(raft: Raft, node_id: int) -> ProgressState:
    return raft.state.members[node_id].progress.state  # type: ignore[union-attr]  # it leads


def purged_leader(**options: object) -> tuple[Raft, Turns]:
    """A leader of term 2 whose log begins behind 100@1 and has its no-op only; n2 has all of it, n3 nothing, and has just said so."""
    options = {"liveness": dict(LIVE), "config": SHORT, **options}
    raft = open_raft(EntryId(1, 100), [], **options)  # type: ignore[arg-type]  # of any type
    turns = Turns(raft)
    lead(raft, turns)
    turns.settle(0)
    accept(raft, N2, 101)
    turns.settle(0)
    raft.step(HeartbeatReply(N2, N1, 2, 101), 0)
    turns.settle(0)
    raft.step(AppendEntriesReply(N3, N1, 2, match=0, rejected=100, hint=NOTHING), 0)
    return raft, turns


# What a start finds


@pytest.mark.parametrize(
    "options, text",
    [
        ({"applied": 3}, "applied 3, but the log goes from 5@1 to 7@2"),
        ({"applied": 8}, "8 is committed, but the log ends with 7@2"),
        ({"snapshot": EntryId(1, 4), "applied": 6}, "newest snapshot on the disk is 4@1, but the log goes from 5@1 to 7@2"),
        ({"snapshot": EntryId(2, 8), "applied": 6}, "newest snapshot on the disk is 8@2, but the log goes from 5@1 to 7@2"),
        ({"snapshot": EntryId(1, 7), "applied": 6}, "newest snapshot on the disk is 7@1, but the log has term 2 there"),
        ({"commit": 9}, "9 is committed, but the log ends with 7@2"),
        ({"configurations": [(8, VOTERS)]}, "configuration of index 8, but the log ends with 7@2"),
        ({"configurations": [(5, VOTERS), (5, VOTERS)]}, r"out of order: \[5, 5\]"),
        ({"term": 1}, "the log ends with 7@2, but the durable term is 1"),
        ({"entries": entries_of([1, 1], first=6)}, "5@1..7@2, and these entries are not its end: 6@1, 7@1"),
        ({"entries": entries_of([1, 1, 2], first=5)}, "5@1..7@2, and these entries are not its end"),
    ],
)
def test_facts_that_contradict_each_other_are_refused_with_both_numbers(options: dict[str, object], text: str) -> None:
    with pytest.raises(InvariantError, match=text):
        open_raft(EntryId(1, 5), [1, 2], **options)  # type: ignore[arg-type]  # of any type


def test_what_is_applied_or_in_a_snapshot_or_cut_off_is_committed() -> None:
    assert open_raft(EntryId(1, 5), [1, 2]).commit_index == 5
    assert open_raft(EntryId(1, 5), [1, 2], applied=6).commit_index == 6
    assert open_raft(EntryId(1, 5), [1, 2], snapshot=EntryId(2, 7), applied=5).commit_index == 7
    raft = open_raft(EntryId(1, 5), [1, 2], commit=6)
    assert (raft.commit_index, raft.applied_index) == (6, 5)
    assert raft.status().start == raft.status().snapshot == EntryId(1, 5)
    assert (raft.status().last, raft.memory_bytes, raft.status().memory_bytes) == (EntryId(2, 7), 0, 0)


def test_the_state_of_a_disk_is_not_changed_by_the_replica() -> None:
    terms = Terms(EntryId(1, 5), (), 7)
    durable = Durable(hard_state=HardState(1), terms=terms, snapshot=EntryId(1, 5))
    raft = Raft(N1, VOTERS, durable, config=GroupConfig(), timing=Timing(), random=random.Random(0), liveness={}, now=0, applied=5)
    raft.step(AppendEntries(N2, N1, 2, EntryId(1, 6), 0, entries_of([2, 2], first=7)), 0)
    assert raft.log.last == EntryId(2, 8)
    assert terms == Terms(EntryId(1, 5), (), 7)


def test_what_is_to_be_applied_is_read_piece_by_piece() -> None:
    raft = open_raft(EntryId(1, 5), [1, 1, 2, 2, 2], commit=9, config=GroupConfig(apply_entries_max=3))
    turns = Turns(raft)
    ready = turns.take()
    assert ready.loads == (LoadEntries(None, 6, 8, 1 << 20),)
    assert not raft.has_ready
    loaded(raft, ready.loads[0], [1, 1])
    ready = turns.take()
    assert [entry.index for entry in ready.committed] == [6, 7]
    # One more is allowed to be on its way, before any is applied.
    assert ready.loads == (LoadEntries(None, 8, 8, 1 << 20),)
    raft.step(Applied(7), 0)
    loaded(raft, ready.loads[0], [2])
    ready = turns.take()
    assert [entry.index for entry in ready.committed] == [8]
    assert ready.loads == (LoadEntries(None, 9, 9, 1 << 20),)
    raft.step(Applied(8), 0)
    loaded(raft, ready.loads[0], [2])
    assert [entry.index for entry in turns.take().committed] == [9]
    assert not raft.has_ready


def test_bytes_on_their_way_to_the_machine_count_for_what_is_read() -> None:
    raft = open_raft(EntryId(1, 5), [1, 1, 1], commit=8, config=GroupConfig(apply_bytes_max=10))
    turns = Turns(raft)
    (load,) = turns.take().loads
    raft.step(EntriesLoaded(load, (Entry(6, 1, EntryKind.COMMAND, bytes(4)),)), 0)
    ready = turns.take()
    assert ready.loads == (LoadEntries(None, 7, 8, 6),)
    raft.step(EntriesLoaded(ready.loads[0], (Entry(7, 1, EntryKind.COMMAND, bytes(60)),)), 0)
    assert [entry.index for entry in turns.take().committed] == [7]
    assert not raft.has_ready
    raft.step(Applied(7), 0)
    assert turns.take().loads == (LoadEntries(None, 8, 8, 10),)


def test_a_piece_from_the_disk_and_what_follows_in_memory_go_together() -> None:
    raft = open_raft(EntryId(1, 5), [1, 1])
    turns = Turns(raft)
    raft.step(AppendEntries(N2, N1, 1, EntryId(1, 7), 8, entries_of([1, 1], first=8)), 0)
    ready = turns.take()
    assert ready.loads == (LoadEntries(None, 6, 7, 1 << 20),)
    raft.step(Persisted(ready.sequence), 0)
    assert turns.take().committed == ()
    loaded(raft, ready.loads[0], [1, 1])
    assert [entry.index for entry in turns.take().committed] == [6, 7, 8]


@pytest.mark.parametrize("answer", [[], [2]])
def test_a_disk_that_lacks_what_is_committed_stops_the_group(answer: list[int]) -> None:
    raft = open_raft(EntryId(1, 5), [1, 1], commit=7)
    (load,) = Turns(raft).take().loads
    with pytest.raises(InvariantError, match="entry 6@1 is committed and durable here, but its disk has"):
        loaded(raft, load, answer)


def test_a_sole_voter_commits_its_log_anew_without_having_it_in_memory() -> None:
    network = Network((1,), logs={1: [1, 1, 2]})
    network.wait(0)
    assert network.nodes[1].commit_index == 4
    assert [entry.index for entry in network.applied[1]] == [1, 2, 3, 4]
    network.snapshot(1)
    network.propose(1, b"a")
    network.wait(0)
    network.restart(1)
    network.wait(0)
    assert network.restored[1] == EntryId(3, 4)
    assert [entry.index for entry in network.applied[1]] == [5, 6]


# Memory


def test_what_is_durable_and_committed_leaves_memory() -> None:
    leader, turns = make_leader(liveness=LIVE, config=GroupConfig(log_memory_bytes_max=10_000))
    for token in range(100):
        leader.step(Propose(token, bytes(100)), 0)
    ready = turns.take()
    full = leader.memory_bytes
    assert full > 2 * 100 * 100
    accept(leader, N2, 101)
    assert turns.take().committed == ()
    assert leader.memory_bytes == full, "it is not on the own disk"
    leader.step(Persisted(ready.sequence), 0)
    assert len(turns.take().committed) == 100
    # A quarter less than the limit, or just below that.
    assert 7_000 < leader.memory_bytes <= 7_500
    leader.step(TrimMemory(1_200), 0)
    assert leader.memory_bytes <= 900
    leader.step(TrimMemory(1_200), 0)
    leader.step(TrimMemory(0), 0)
    assert leader.memory_bytes == 0
    assert leader.log.last == EntryId(1, 101)
    assert leader.term_at(50) == 1


def test_a_machine_that_is_slow_does_not_keep_the_log_in_memory() -> None:
    leader, turns = make_leader(liveness=LIVE, config=GroupConfig(log_memory_bytes_max=1, apply_entries_max=2))
    for token in range(10):
        leader.step(Propose(token, b"x"), 0)
    ready = turns.take()
    leader.step(Persisted(ready.sequence), 0)
    accept(leader, N2, 11)
    accept(leader, N3, 11)
    assert [entry.index for entry in turns.take().committed] == [2, 3]
    assert leader.memory_bytes == 0
    leader.step(Applied(3), 0)
    assert turns.take().loads == (LoadEntries(None, 4, 5, 1 << 20),)


def test_a_follower_that_lags_is_served_from_the_disk_in_pieces_within_its_window() -> None:
    config = GroupConfig(log_memory_bytes_max=1, append_entries_max=3, window_messages=2)
    leader, turns = make_leader(log=[1] * 9, liveness=LIVE, config=config, is_settled=False)
    ready = turns.take()
    leader.step(Persisted(ready.sequence), 0)
    accept(leader, N2, 10)
    turns.settle(0)
    leader.step(Applied(10), 0)
    turns.take()
    assert leader.memory_bytes == 0
    leader.step(AppendEntriesReply(N3, N1, 2, match=0, rejected=9, hint=NOTHING), 0)
    assert turns.take().loads == (LoadEntries(3, 1, 3, 256 << 10),)
    leader.step(TimePassed(), 1)
    assert not leader.has_ready, "one piece at a time"
    loaded(leader, LoadEntries(3, 1, 3, 256 << 10), [1, 1, 1])
    ready = turns.take()
    (append,) = (m for m in ready.messages if isinstance(m, AppendEntries))
    assert (append.previous, append.entries, append.commit) == (NOTHING, entries_of([1, 1, 1]), 10)
    # It is probed: nothing is read before it has answered.
    assert ready.loads == ()
    accept(leader, N3, 3)
    (load,) = turns.take().loads
    assert (load.first, load.last) == (4, 6)
    loaded(leader, load, [1, 1])
    (load,) = turns.take().loads
    assert (load.first, load.last) == (6, 8)
    loaded(leader, load, [1, 1, 1])
    # Two are on their way: the window is full, and nothing is read for it.
    assert turns.take().loads == ()
    accept(leader, N3, 8)
    (load,) = turns.take().loads
    assert (load.first, load.last) == (9, 10)


def test_nothing_is_read_for_members_that_are_not_there() -> None:
    liveness = {2: NEVER, 3: 0}
    leader, turns = make_leader(log=[1] * 9, liveness=liveness, config=SHORT, is_settled=False, now=5 * E)
    turns.settle(5 * E)
    accept(leader, N2, 10, 5 * E)
    turns.settle(5 * E)
    leader.state.members[3].progress.next = 4  # type: ignore[union-attr]  # it leads
    leader.state.members[3].progress.waiting = False  # type: ignore[union-attr]  # it leads
    leader.step(HeartbeatReply(N2, N1, 2, 10), 7 * E)
    leader.state.wants_append = True  # type: ignore[union-attr]  # it leads
    assert turns.take().loads == ()
    liveness[3] = NEVER
    leader.step(PeerUp(3), 7 * E)
    assert [load.first for load in turns.take().loads] == [4]


def lagging() -> tuple[Raft, Turns, LoadEntries]:
    """A leader of term 2 that reads entries 1 to 9, of term 1, for n3."""
    leader, turns = make_leader(log=[1] * 9, liveness=LIVE, config=SHORT, is_settled=False)
    turns.settle(0)
    accept(leader, N2, 10)
    turns.settle(0)
    leader.step(AppendEntriesReply(N3, N1, 2, match=0, rejected=9, hint=NOTHING), 0)
    (load,) = turns.take().loads
    return leader, turns, load


def test_a_piece_that_comes_when_the_follower_has_moved_on_is_dropped() -> None:
    leader, turns, load = lagging()
    accept(leader, N3, 5)
    loaded(leader, load, [1] * 9)
    ready = turns.take()
    assert leader.dropped["late load"] == 1
    assert [again.first for again in ready.loads] == [6]
    loaded(leader, ready.loads[0], [1] * 4)
    assert [m.previous.index for m in turns.take().messages if isinstance(m, AppendEntries)] == [5]


def test_a_piece_that_nobody_asked_for_is_dropped() -> None:
    leader, turns, load = lagging()
    loaded(leader, LoadEntries(3, 1, 8, 1), [1] * 8)
    loaded(leader, LoadEntries(None, 1, 8, 1), [1] * 8)
    assert leader.dropped["unexpected load"] == 2
    assert not leader.has_ready
    loaded(leader, load, [1] * 9)
    loaded(leader, load, [1] * 9)
    assert leader.dropped["unexpected load"] == 3
    assert len([m for m in turns.take().messages if isinstance(m, AppendEntries)]) == 1


def test_a_piece_that_was_cut_off_meanwhile_is_dropped() -> None:
    """Its first entry is where the log begins now: known by its term, but nothing leads up to it any more."""
    leader, turns = make_leader(log=[1] * 9, liveness=LIVE, config=attrs.evolve(SHORT, keep_entries=5), is_settled=False)
    turns.settle(0)
    accept(leader, N2, 10)
    turns.settle(0)
    leader.step(AppendEntriesReply(N3, N1, 2, match=0, rejected=9, hint=EntryId(1, 4)), 0)
    (load,) = turns.take().loads
    assert (load.first, load.last) == (5, 10)
    leader.step(SnapshotTaken(EntryId(2, 10)), 0)
    assert leader.status().start == EntryId(1, 5)
    loaded(leader, load, [1, 1, 1, 1, 1, 2])
    ready = turns.take()
    assert not [m for m in ready.messages if isinstance(m, AppendEntries)]
    assert ready.send_snapshots == (SendSnapshot(N3, 2, EntryId(2, 10)),)


def test_a_late_piece_is_used_by_a_new_leadership_only_if_it_is_what_is_there_now() -> None:
    raft = open_raft(EntryId(1, 5), [1, 1, 2], term=2, commit=5, liveness=dict(LIVE))
    turns = Turns(raft)
    lead(raft, turns)
    turns.settle(0)
    raft.step(AppendEntriesReply(N3, N1, 3, match=0, rejected=8, hint=EntryId(1, 5)), 0)
    (load,) = (load for load in turns.take().loads if load.reader == 3)
    assert (load.first, load.last) == (6, 8)
    # Deposed: 8@2 and the no-op are replaced; and then elected once more, with the answer still to come.
    raft.step(AppendEntries(N2, N1, 4, EntryId(1, 7), 5, entries_of([4, 4], first=8)), 0)
    turns.settle(0)
    loaded_entries = entries_of([1, 1, 2], first=6)
    lead(raft, turns)
    turns.settle(0)
    raft.step(AppendEntriesReply(N3, N1, 5, match=0, rejected=9, hint=EntryId(1, 5)), 0)
    assert [again for again in turns.take().loads if again.reader == 3] == [], "one at a time, whoever asked"
    raft.step(EntriesLoaded(load, loaded_entries), 0)
    assert raft.dropped["late load"] == 1
    ready = turns.take()
    assert not [m for m in ready.messages if isinstance(m, AppendEntries)]
    assert [(again.first, again.last) for again in ready.loads if again.reader == 3] == [(6, 7)]
    # What was asked for anew, and is equal.
    loaded(raft, next(again for again in ready.loads if again.reader == 3), [1, 1])
    (append,) = (m for m in turns.take().messages if isinstance(m, AppendEntries))
    assert append.previous == EntryId(1, 5)


def test_a_piece_for_a_follower_comes_to_one_that_leads_no_more() -> None:
    leader, turns, load = lagging()
    leader.step(Heartbeat(N2, N1, 3, 0), 0)
    loaded(leader, load, [1] * 9)
    assert not [m for m in turns.take().messages if isinstance(m, AppendEntries)]


def test_an_empty_answer_means_that_the_log_is_cut() -> None:
    """The storage may be ahead of what this replica has been told."""
    raft = open_raft(NOTHING, [1] * 9, snapshot=EntryId(1, 9), liveness=dict(LIVE))
    turns = Turns(raft)
    lead(raft, turns)
    turns.settle(0)
    raft.step(AppendEntriesReply(N3, N1, 2, match=0, rejected=9, hint=NOTHING), 0)
    (load,) = turns.take().loads
    loaded(raft, load, [])
    assert turns.take().send_snapshots == (SendSnapshot(N3, 2, EntryId(1, 9)),)


def test_an_empty_answer_beyond_the_snapshot_means_that_entries_are_lost() -> None:
    raft = open_raft(NOTHING, [1] * 9, liveness=dict(LIVE))
    turns = Turns(raft)
    lead(raft, turns)
    turns.settle(0)
    raft.step(AppendEntriesReply(N3, N1, 2, match=0, rejected=9, hint=NOTHING), 0)
    (load,) = turns.take().loads
    with pytest.raises(InvariantError, match="entry 1@1 is in the log behind the snapshot 0@0"):
        loaded(raft, load, [])


# Compaction


def compacting(keep: int, hold: int = 1000) -> tuple[Raft, Turns]:
    config = GroupConfig(keep_entries=keep, stream_hold_entries=hold)
    leader, turns = make_leader(log=[1] * 9, liveness=dict(LIVE), config=config)
    return leader, turns


@pytest.mark.parametrize("keep, start", [(0, EntryId(2, 10)), (3, EntryId(1, 7)), (10, NOTHING), (99, NOTHING)])
def test_the_log_is_cut_some_way_before_the_snapshot(keep: int, start: EntryId) -> None:
    leader, turns = compacting(keep)
    leader.step(SnapshotTaken(EntryId(2, 10)), 0)
    assert turns.take().compaction == Compaction(EntryId(2, 10), start, 10)
    assert leader.status().start == start
    assert leader.status().snapshot == EntryId(2, 10)
    assert turns.take().compaction is None
    # Not twice, and not back.
    leader.step(SnapshotTaken(EntryId(2, 10)), 0)
    leader.step(SnapshotTaken(EntryId(1, 9)), 0)
    assert not leader.has_ready


@pytest.mark.parametrize("keep, start", [(0, 20), (99, 20), (100, 19), (550, 15), (1000, 10), (1 << 30, 10)])
@pytest.mark.parametrize("in_memory", [True, False])
def test_what_stays_behind_a_snapshot_fits_both_entries_and_bytes(keep: int, start: int, in_memory: bool) -> None:
    """10 entries at most, each of 100 bytes: known one by one, or found by a start that was told what they take together."""
    config = GroupConfig(keep_entries=10, keep_bytes=keep)
    entries = tuple(Entry(index, 1, EntryKind.COMMAND, bytes(100)) for index in range(1, 23))
    raft = open_raft(NOTHING, [1] * 22, applied=20, config=config, log_bytes=2200, entries=entries if in_memory else ())
    raft.step(SnapshotTaken(EntryId(1, 20)), 0)
    assert Turns(raft).take().compaction == Compaction(EntryId(1, 20), EntryId(1, start), 20)


def test_large_entries_that_have_left_memory_count() -> None:
    leader, turns = make_leader(liveness=dict(LIVE), config=GroupConfig(keep_bytes=1 << 20, log_memory_bytes_max=1))
    for _ in range(20):
        leader.step(Propose("a", bytes(200 << 10)), 0)
        turns.settle(0)
        accept(leader, N2, leader.log.last_index)
        accept(leader, N3, leader.log.last_index)
        turns.settle(0)
    assert leader.memory_bytes == 0
    leader.step(SnapshotTaken(EntryId(1, 21)), 0)
    assert leader.status().start == EntryId(1, 16)


def test_nothing_is_cut_during_a_restore() -> None:
    """The snapshot that is being restored may be older than the newest one; a cut would tell the storage that it may go."""
    raft, turns = purged_leader()
    assert turns.take().send_snapshots == (SendSnapshot(N3, 2, EntryId(1, 100)),)
    for index, restore in ((200, EntryId(3, 200)), (300, None)):
        install(raft, EntryId(3, index), 3)
        raft.step(Persisted(turns.take().sequence), 0)
        assert turns.take().restore == restore
    # Elected again meanwhile, it hears that its stream has failed: what it held back may be cut, but not now.
    lead(raft, turns)
    turns.settle(0)
    raft.step(SnapshotSent(N3, EntryId(1, 100), arrived=False), 0)
    assert turns.take().compaction is None
    raft.step(Applied(200), 0)
    ready = turns.take()
    assert (ready.restore, ready.compaction) == (EntryId(3, 300), None)
    raft.step(Applied(300), 0)
    assert turns.take().compaction == Compaction(EntryId(3, 300), EntryId(3, 300), 300)


def test_a_snapshot_of_what_is_not_there_is_refused() -> None:
    leader, _ = compacting(0)
    leader.step(Propose("a", b"a"), 0)
    with pytest.raises(InvariantError, match="a snapshot at 11@2, but only 10 has been handed out"):
        leader.step(SnapshotTaken(EntryId(2, 11)), 0)
    with pytest.raises(InvariantError, match="a snapshot at 9@2, but the log has term 1 there"):
        leader.step(SnapshotTaken(EntryId(2, 9)), 0)


def test_a_dead_follower_does_not_keep_the_log() -> None:
    """RS-5: it gets the snapshot when it is back."""
    network = Network(config=SHORT)
    network.elect(1)
    network.wait(E)
    network.crash(3)
    for number in range(30):
        network.propose(1, b"%d" % number)
        network.wait(H)
        if number % 5 == 4:
            network.snapshot(1)
            network.snapshot(2)
    assert network.nodes[1].status().start == EntryId(1, 31)
    assert network.nodes[1].memory_bytes == 0
    network.restart(3)
    network.wait(E)
    assert network.restored[3] == EntryId(1, 31)
    assert network.nodes[3].commit_index == 31
    assert network.nodes[1].deadline == NEVER


def test_a_stream_holds_the_log_until_the_follower_has_caught_up() -> None:
    network = Network(config=attrs.evolve(SHORT, stream_hold_entries=20))
    network.holds_streams = True
    network.elect(1)
    network.wait(E)
    network.isolate(3)
    network.propose(1, *[b"x"] * 9)
    network.wait(E)
    network.snapshot(1)
    network.heal()
    network.wait(E)
    assert [send.at for _, send in network.streams] == [EntryId(1, 10)]
    network.propose(1, *[b"y"] * 10)
    network.wait(H)
    network.snapshot(1)
    leader = network.nodes[1]
    network.wait(H)
    assert (leader.status().snapshot, leader.status().start) == (EntryId(1, 20), EntryId(1, 10))
    # It arrives; but the answer, and what follows, has yet to come: a snapshot now still keeps what it needs.
    network.stall(3)
    # NB: the newer one is sent, and has replaced the older.
    network.end_stream()
    network.propose(1, *[b"z"] * 5)
    network.wait(H)
    network.snapshot(1)
    network.wait(H)
    assert leader.status().start == EntryId(1, 20)
    network.sync(3)
    network.wait(E)
    assert network.nodes[3].commit_index == 25
    assert network.restored[3] == EntryId(1, 20)
    network.propose(1, b"end")
    network.wait(E)
    network.snapshot(1)
    network.wait(0)
    assert leader.status().start == EntryId(1, 26)


def test_a_stream_does_not_hold_the_log_for_ever() -> None:
    raft, turns = purged_leader(config=GroupConfig(keep_entries=0, stream_hold_entries=5))
    assert turns.take().send_snapshots == (SendSnapshot(N3, 2, EntryId(1, 100)),)
    for upto in (106, 107):
        while raft.log.last_index < upto:
            raft.step(Propose("x", b"x"), 0)
        turns.settle(0)
        accept(raft, N2, upto)
        turns.settle(0)
        raft.step(SnapshotTaken(EntryId(2, upto)), 0)
        turns.settle(0)
    assert raft.status().start == EntryId(2, 107)
    # Here it is, in vain: a newer one is needed.
    raft.step(SnapshotSent(N3, EntryId(1, 100), arrived=True), 0)
    accept(raft, N3, 100)
    assert turns.take().send_snapshots == (SendSnapshot(N3, 2, EntryId(2, 107)),)


@pytest.mark.parametrize("hold, start", [(599, 106), (600, 100)])
def test_a_stream_does_not_hold_more_than_so_many_bytes(hold: int, start: int) -> None:
    raft, turns = purged_leader(config=GroupConfig(keep_entries=0, stream_hold_bytes=hold))
    assert turns.take().send_snapshots == (SendSnapshot(N3, 2, EntryId(1, 100)),)
    while raft.log.last_index < 107:
        raft.step(Propose("x", bytes(100)), 0)
    turns.settle(0)
    accept(raft, N2, 106)
    turns.settle(0)
    raft.step(SnapshotTaken(EntryId(2, 106)), 0)
    assert raft.status().start.index == start


def test_a_member_that_is_gone_holds_nothing() -> None:
    raft, turns = purged_leader()
    turns.settle(0)
    accept(raft, N3, 100, commit=100)
    turns.settle(0)
    assert raft.state.members[3].holds_log  # type: ignore[union-attr]  # it leads
    raft._liveness[3] = 5 * E  # type: ignore[index]  # a dict, here
    raft.step(PeerDown(3), 5 * E)
    assert not raft.state.members[3].holds_log  # type: ignore[union-attr]  # it leads


# Streams


def test_SN_5_a_leader_without_any_log_sends_its_snapshot_although_nothing_else_is_said() -> None:
    """SN-5: the log is empty behind 100, the follower is at 0, and nobody proposes anything."""
    network = Network(config=SHORT)
    network.isolate(3)
    network.elect(1)
    network.propose(1, *[b"x"] * 99)
    network.wait(E)
    network.snapshot(1)
    network.wait(E)
    leader = network.nodes[1]
    assert (leader.status().start, leader.log.last) == (EntryId(1, 100), EntryId(1, 100))
    assert leader.deadline == NEVER
    before = len(network.sent)
    network.heal()
    network.wait(E)
    assert network.restored[3] == EntryId(1, 100)
    assert network.nodes[3].commit_index == network.nodes[3].applied_index == 100
    assert {raft.deadline for raft in network.nodes.values()} == {NEVER}
    assert len(network.sent) - before < 20


def test_SN_5_also_if_the_answer_to_the_snapshot_is_lost() -> None:
    """Nothing follows the snapshot: so the follower is asked without any entry whether it has that."""
    network = Network(config=SHORT)
    network.isolate(3)
    network.elect(1)
    network.propose(1, *[b"x"] * 99)
    network.wait(E)
    network.snapshot(1)
    network.heal()
    network.holds_streams = True
    network.wait(H)
    network.stall(3)
    network.end_stream()
    network.cut(3, 1, both_ways=False)
    network.sync(3)
    network.deliver()
    network.heal()
    network.wait(E)
    assert network.nodes[3].commit_index == 100
    probes = [m for m in network.sent if isinstance(m, AppendEntries) and m.target == N3 and m.previous == EntryId(1, 100)]
    # Once when its node is back, and once behind the snapshot.
    assert [m.entries for m in probes] == [(), ()]
    assert network.nodes[1].deadline == NEVER


def test_while_a_snapshot_is_on_its_way_nothing_is_repeated() -> None:
    raft, turns = purged_leader()
    assert turns.take().send_snapshots == (SendSnapshot(N3, 2, EntryId(1, 100)),)
    raft.step(HeartbeatReply(N2, N1, 2, 101), 0)
    assert progress_of(raft, 3) is ProgressState.SNAPSHOT
    assert raft.deadline == H, "n3 is to be told of the commit index"
    for event in (TimePassed(), HeartbeatReply(N3, N1, 2, 0), Unreachable(3), PeerUp(3), PeerDown(3), TimePassed()):
        raft.step(event, 3 * E)
    raft.step(AppendEntriesReply(N3, N1, 2, match=0, rejected=100, hint=NOTHING), 3 * E)
    assert [type(m) for m in turns.settle(3 * E)] in ([], [Heartbeat])
    assert progress_of(raft, 3) is ProgressState.SNAPSHOT
    assert raft.state.members[3].resend_at == NEVER  # type: ignore[union-attr]  # it leads
    raft.step(Propose("a", b"a"), 3 * E)
    assert not [m for m in turns.settle(3 * E) if m.target == N3 and isinstance(m, AppendEntries)]


def test_a_snapshot_that_has_arrived_is_answered_or_asked_for() -> None:
    raft, turns = purged_leader()
    turns.settle(0)
    raft.step(SnapshotSent(N3, EntryId(1, 100), arrived=True), 1000)
    turns.settle(1000)
    assert raft.state.members[3].resend_at == 1000 + E // 2  # type: ignore[union-attr]  # it leads
    raft.step(TimePassed(), 1000 + E // 2)
    assert progress_of(raft, 3) is ProgressState.PROBE
    (load,) = turns.take().loads
    loaded(raft, load, [2], 1000 + E // 2)
    (append,) = (m for m in turns.settle(1000 + E // 2) if isinstance(m, AppendEntries) and m.target == N3)
    assert append.previous == EntryId(1, 100)
    # It does not have it after all.
    raft.step(AppendEntriesReply(N3, N1, 2, match=0, rejected=100, hint=NOTHING), 2000)
    assert turns.take().send_snapshots == (SendSnapshot(N3, 2, EntryId(1, 100)),)


def test_a_newer_snapshot_may_have_been_sent() -> None:
    raft, turns = purged_leader()
    turns.settle(0)
    raft.step(Propose("a", b"a"), 0)
    turns.settle(0)
    accept(raft, N2, 102)
    turns.settle(0)
    raft.step(SnapshotTaken(EntryId(2, 102)), 0)
    raft.step(SnapshotSent(N3, EntryId(2, 102), arrived=True), 0)
    view = raft.state.members[3]  # type: ignore[union-attr]  # it leads
    assert (view.progress.pending_snapshot, view.progress.next) == (102, 103)
    accept(raft, N3, 102)
    assert progress_of(raft, 3) is ProgressState.REPLICATE


def test_streams_that_fail_are_tried_again_later_and_later() -> None:
    raft, turns = purged_leader()
    now, delays = 10 * E, []
    raft.step(HeartbeatReply(N2, N1, 2, 101), now)
    for _ in range(6):
        assert len(turns.take().send_snapshots) == 1
        raft.step(SnapshotSent(N3, EntryId(1, 100), arrived=False), now)
        assert progress_of(raft, 3) is ProgressState.PROBE
        assert turns.take().send_snapshots == ()
        due = raft.state.members[3].resend_at  # type: ignore[union-attr]  # it leads
        raft.step(TimePassed(), due - 1)
        assert turns.take().send_snapshots == ()
        raft.step(TimePassed(), due)
        delays.append(due - now)
        now = due
    assert delays == [H, 2 * H, 4 * H, 8 * H, E, E]
    assert len(turns.take().send_snapshots) == 1
    raft.step(SnapshotSent(N3, EntryId(1, 100), arrived=True), now)
    assert raft.state.members[3].streams_failed == 0  # type: ignore[union-attr]  # it leads


def test_a_stream_to_a_node_that_is_gone_is_tried_again_when_it_is_back() -> None:
    raft, turns = purged_leader()
    turns.take()
    raft._liveness[3] = 5 * E  # type: ignore[index]  # a dict, here
    raft.step(PeerDown(3), 5 * E)
    raft.step(SnapshotSent(N3, EntryId(1, 100), arrived=False), 5 * E)
    raft.step(TimePassed(), 9 * E)
    assert turns.take().send_snapshots == ()
    raft._liveness[3] = NEVER  # type: ignore[index]  # a dict, here
    raft.step(PeerUp(3), 9 * E)
    # It may be another replica by now, or have more: it is asked first.
    ready = turns.take()
    assert ready.send_snapshots == ()
    assert [(m.target, m.previous.index) for m in ready.messages if isinstance(m, AppendEntries)] == [(N3, 101)]
    raft.step(AppendEntriesReply(N3, raft.me, 2, 0, rejected=101), 9 * E)
    assert len(turns.take().send_snapshots) == 1


def test_a_follower_that_needs_no_snapshot_after_all_leaves_at_once() -> None:
    raft, turns = purged_leader()
    assert len(turns.take().send_snapshots) == 1
    # Not this: the log does not lead on from there.
    accept(raft, N3, 50)
    assert progress_of(raft, 3) is ProgressState.SNAPSHOT
    accept(raft, N3, 100)
    assert progress_of(raft, 3) is ProgressState.REPLICATE
    assert [(load.first, load.last) for load in turns.take().loads] == [(101, 101)]
    # The end of the stream changes nothing any more.
    raft.step(SnapshotSent(N3, EntryId(1, 100), arrived=False), 0)
    assert progress_of(raft, 3) is ProgressState.REPLICATE


def test_one_stream_at_a_time_goes_to_a_node_whoever_started_it() -> None:
    raft, turns = purged_leader()
    assert len(turns.take().send_snapshots) == 1
    raft.step(Heartbeat(N2, N1, 3, 0), 0)
    turns.settle(0)
    lead(raft, turns)
    turns.settle(0)
    raft.step(AppendEntriesReply(N3, N1, raft.term, match=0, rejected=101, hint=NOTHING), 0)
    assert turns.take().send_snapshots == ()
    assert progress_of(raft, 3) is ProgressState.PROBE
    raft.step(SnapshotSent(N3, EntryId(1, 100), arrived=True), 0)
    assert turns.take().send_snapshots == (SendSnapshot(N3, raft.term, EntryId(1, 100)),)


def test_the_end_of_a_stream_comes_to_one_that_leads_no_more() -> None:
    raft, turns = purged_leader()
    turns.take()
    raft.step(Heartbeat(N2, N1, 3, 0), 0)
    turns.settle(0)
    raft.step(SnapshotSent(N3, EntryId(1, 100), arrived=True), 0)
    assert not raft.has_ready
    assert raft.streams == set()


@pytest.mark.parametrize("arrived", [True, False])
def test_the_end_of_a_stream_to_one_that_was_removed_meanwhile(arrived: bool) -> None:
    raft, turns = purged_leader()
    assert len(turns.take().send_snapshots) == 1
    raft.step(ChangeMembers("change", Target(frozenset({1, 2}))), 0)
    turns.settle(0)
    assert list(raft.state.members) == [2]  # type: ignore[union-attr]  # it leads
    raft.step(SnapshotSent(N3, EntryId(1, 100), arrived), 0)
    assert raft.streams == set()
    assert turns.take().send_snapshots == ()


def test_no_stream_goes_to_a_node_that_is_not_there() -> None:
    raft, turns = purged_leader(liveness={2: NEVER, 3: 0})
    raft.state.members[3].contact = -9 * E  # type: ignore[union-attr]  # it leads
    assert turns.take().send_snapshots == ()


# Installing


def test_SN_1_an_install_over_a_divergent_tail() -> None:
    """SN-1: log 1..20 of term 2 uncommitted, snapshot (15, t3): the log starts at 16, empty."""
    raft = open_raft(NOTHING, [2] * 20, term=3)
    turns = Turns(raft)
    install(raft, EntryId(3, 15), 3)
    assert (raft.status().start, raft.log.last, raft.commit_index) == (EntryId(3, 15), EntryId(3, 15), 15)
    ready = turns.take()
    assert ready.install is not None
    assert (ready.writes, ready.install.at, ready.messages) == (True, EntryId(3, 15), ())
    assert ready.after_write == (AppendEntriesReply(N1, N2, 3, match=15, commit=15),)
    assert ready.restore is None, "the install is not durable yet"
    assert not raft.has_ready
    raft.step(Persisted(ready.sequence), 0)
    ready = turns.take()
    assert (ready.restore, ready.committed, ready.writes) == (EntryId(3, 15), (), False)
    raft.step(Applied(15), 0)
    # Older snapshots are needed no more.
    assert turns.take().compaction == Compaction(EntryId(3, 15), EntryId(3, 15), 15)
    assert raft.applied_index == 15


@pytest.mark.parametrize("in_memory", [True, False])
def test_SN_1_an_install_keeps_a_tail_that_matches(in_memory: bool) -> None:
    """SN-1: with (15, t2) matching, 16..20 are kept."""
    entries = entries_of([2] * 5, first=16) if in_memory else ()
    raft = open_raft(NOTHING, [2] * 20, term=3, entries=entries)
    turns = Turns(raft)
    install(raft, EntryId(2, 15), 3)
    assert (raft.status().start, raft.log.last, raft.commit_index) == (EntryId(2, 15), EntryId(2, 20), 15)
    ready = turns.take()
    assert (ready.install is not None, ready.entries) == (True, ())
    assert ready.after_write == (AppendEntriesReply(N1, N2, 3, match=15, commit=15),)
    raft.step(Heartbeat(N2, N1, 3, 18), 0)
    turns.settle(0)
    raft.step(Persisted(ready.sequence), 0)
    ready = turns.take()
    assert ready.restore == EntryId(2, 15)
    if in_memory:
        assert [entry.index for entry in ready.committed] == [16, 17, 18]
    else:
        assert [(load.first, load.last) for load in ready.loads] == [(16, 18)]


def test_SN_2_an_old_snapshot_is_ignored_and_the_reply_says_commit() -> None:
    raft = open_raft(EntryId(1, 5), [1, 1, 2], commit=8)
    turns = Turns(raft)
    (load,) = turns.take().loads
    for at in (EntryId(1, 3), EntryId(1, 5), EntryId(1, 7), EntryId(2, 8)):
        install(raft, at, 2)
        ready = turns.take()
        assert (ready.install, ready.messages) == (None, ())
        # After the write gate, like any promise.
        assert ready.after_write == (AppendEntriesReply(N1, N2, 2, match=8, commit=8),)
    assert (raft.status().start, raft.status().snapshot) == (EntryId(1, 5), EntryId(1, 5))
    with pytest.raises(InvariantError, match=r"entry 7@1 is committed here .* 7@2"):
        install(raft, EntryId(2, 7), 2)
    loaded(raft, load, [1])
    assert [entry.index for entry in turns.take().committed] == [6]


def test_an_install_while_a_piece_is_read_and_another_applied() -> None:
    raft = open_raft(NOTHING, [1] * 9, commit=9, config=GroupConfig(apply_entries_max=4))
    turns = Turns(raft)
    (load,) = turns.take().loads
    loaded(raft, load, [1, 1])
    ready = turns.take()
    assert [entry.index for entry in ready.committed] == [1, 2]
    (load,) = ready.loads
    install(raft, EntryId(2, 30), 2)
    written = turns.take()
    raft.step(Applied(1), 0)
    # Too late: nothing is applied any more before the snapshot is.
    loaded(raft, load, [1, 1])
    assert raft.dropped == {"late load": 1}
    assert not raft.has_ready
    raft.step(Persisted(written.sequence), 0)
    assert turns.take().restore == EntryId(2, 30)
    raft.step(Applied(2), 0)
    assert not raft.has_ready
    raft.step(Applied(30), 0)
    raft.step(AppendEntries(N2, N1, 2, EntryId(2, 30), 31, entries_of([2], first=31)), 0)
    written = turns.take()
    raft.step(Persisted(written.sequence), 0)
    assert [entry.index for entry in turns.take().committed] == [31]


def test_a_piece_that_was_handed_out_before_the_install_goes_first() -> None:
    raft = open_raft(NOTHING, [1] * 9, commit=9)
    turns = Turns(raft)
    (load,) = turns.take().loads
    loaded(raft, load, [1] * 9)
    install(raft, EntryId(2, 30), 2)
    ready = turns.take()
    assert (len(ready.committed), ready.restore) == (9, None)
    raft.step(Persisted(ready.sequence), 0)
    assert turns.take().restore == EntryId(2, 30)


def test_restores_come_one_at_a_time_and_only_the_newest_is_of_use() -> None:
    raft = open_raft()
    turns = Turns(raft)
    install(raft, EntryId(1, 10), 1)
    raft.step(Persisted(turns.take().sequence), 0)
    assert turns.take().restore == EntryId(1, 10)
    for index in (20, 30):
        install(raft, EntryId(1, index), 1)
        raft.step(Persisted(turns.take().sequence), 0)
        assert not raft.has_ready
    raft.step(Applied(10), 0)
    # NB: no compaction yet: it would remove what is being restored.
    ready = turns.take()
    assert (ready.restore, ready.compaction) == (EntryId(1, 30), None)
    raft.step(Applied(30), 0)
    assert turns.take().compaction == Compaction(EntryId(1, 30), EntryId(1, 30), 30)


def test_an_install_takes_back_what_was_to_be_told_to_the_storage() -> None:
    raft = open_raft(NOTHING, [1] * 9, applied=9, config=SHORT)
    turns = Turns(raft)
    raft.step(SnapshotTaken(EntryId(1, 9)), 0)
    install(raft, EntryId(2, 30), 2)
    ready = turns.take()
    assert (ready.compaction, ready.install is not None) == (None, True)
    # A snapshot that was being taken meanwhile comes too late.
    raft.step(SnapshotTaken(EntryId(1, 9)), 0)
    assert not raft.has_ready


@pytest.mark.parametrize("unwritten", [True, False])
@pytest.mark.parametrize("at", [EntryId(1, 6), EntryId(2, 6)])
def test_an_install_over_entries_that_are_being_written(at: EntryId, unwritten: bool) -> None:
    """What the disk ends up with is what the log has, whichever of the writes came before."""
    raft = open_raft(NOTHING, [1, 1, 1], term=2)
    turns = Turns(raft)
    disk = list(entries_of([1, 1, 1]))
    raft.step(AppendEntries(N2, N1, 2, EntryId(1, 3), 3, entries_of([1] * 5, first=4)), 0)
    first = None if unwritten else turns.take()
    install(raft, at, 2)
    second = turns.take()
    assert raft.log.persisted_index < 6
    # The kept part that no write has carried goes with the install, so that the disk need not know it.
    kept = at.term == 1
    assert [entry.index for entry in second.entries] == ([7, 8] if kept and unwritten else [])
    if first is not None:
        disk += first.entries
        raft.step(Persisted(first.sequence), 0)
        assert not turns.take().restore
    disk = [entry for entry in disk if entry.index > 6 and kept and first is not None] + list(second.entries)
    raft.step(Persisted(second.sequence), 0)
    assert [(entry.index, entry.term) for entry in disk] == [(index, raft.term_at(index)) for index in range(7, raft.log.last_index + 1)]
    assert raft.log.persisted_index == raft.log.last_index == (8 if kept else 6)
    assert turns.take().restore == at


def test_an_install_brings_its_configuration() -> None:
    old, new = voters_of(1, 2, 3), voters_of(1, 2, 3, 4)
    raft = open_raft(NOTHING, [1] * 9, voters=old)
    install(raft, EntryId(2, 30), 2, new)
    assert raft.configuration == new
    assert raft.configuration_at(30) == new
    assert raft.is_counted(Member(4))
    for index in (29, 31):
        with pytest.raises(InvariantError, match=f"configuration at {index} is asked of a log from 30@2 to 30@2"):
            raft.configuration_at(index)


def test_a_snapshot_with_another_configuration_than_the_log_has_there_is_refused() -> None:
    raft = open_raft(NOTHING, [1] * 9)
    with pytest.raises(InvariantError, match=r"configuration at 5@1 is \(1 2 3\) here, but \(1 2 3 4\) in the leader's snapshot"):
        install(raft, EntryId(1, 5), 1, voters_of(1, 2, 3, 4))


@pytest.mark.parametrize("at", [NOTHING, EntryId(3, 5)])
def test_LR_12_an_impossible_snapshot_is_dropped_unseen(at: EntryId) -> None:
    raft = open_raft(NOTHING, [1] * 3)
    install(raft, at, 2)
    assert raft.dropped == {"malformed": 1}
    assert raft.term == 1


def test_a_snapshot_of_a_former_leader_tells_it_the_term() -> None:
    raft = open_raft(NOTHING, [1] * 3, term=5)
    install(raft, EntryId(2, 9), 2)
    (reply,) = Turns(raft).take().messages
    assert reply == AppendEntriesReply(N1, N2, 5, match=0, rejected=9)
    assert raft.dropped == {"stale term": 1}


def test_nothing_is_installed_on_a_full_disk() -> None:
    raft = open_raft()
    turns = Turns(raft)
    raft.step(Heartbeat(N2, N1, 1, 0), 0)
    turns.settle(0)
    raft.step(DiskSpace(False), 0)
    install(raft, EntryId(1, 9), 1)
    assert raft.dropped == {"disk full": 1}
    assert not turns.settle(0)


def test_a_leader_that_gets_a_snapshot_of_its_own_term_stops() -> None:
    leader, _ = make_leader()
    with pytest.raises(InvariantError, match="two leaders in term 1"):
        install(leader, EntryId(1, 9), 1)


# Appends to a log that is cut


def test_an_append_that_begins_before_the_log_is_taken_from_there_on() -> None:
    raft = open_raft(EntryId(1, 5), [1, 1, 2], commit=7)
    turns = Turns(raft)
    turns.take()
    raft.step(AppendEntries(N2, N1, 3, EntryId(1, 3), 9, entries_of([1, 1, 1, 1, 3, 3], first=4)), 0)
    assert (raft.log.last, raft.commit_index) == (EntryId(3, 9), 9)
    ready = turns.take()
    assert [str(entry) for entry in ready.entries] == ["8@3", "9@3"]
    assert ready.after_write == (AppendEntriesReply(N1, N2, 3, match=9, commit=9),)
    # One that lies before it altogether is as old as it is true.
    raft.step(AppendEntries(N2, N1, 3, EntryId(1, 1), 2, entries_of([1, 1], first=2)), 0)
    assert turns.take().after_write == (AppendEntriesReply(N1, N2, 3, match=3, commit=9),)
    raft.step(AppendEntries(N2, N1, 3, NOTHING, 0), 0)
    raft.step(AppendEntries(N2, N1, 3, EntryId(1, 5), 9, ()), 0)
    assert [reply.match for reply in turns.take().after_write] == [0, 5]  # type: ignore[union-attr]  # of that kind
    assert raft.log.last == EntryId(3, 9)


def test_LR_3_what_contradicts_the_end_of_what_was_cut_is_fatal() -> None:
    raft = open_raft(EntryId(1, 5), [1, 1, 2], commit=7)
    with pytest.raises(InvariantError, match=r"entry 5@1 is committed here .* 5@2"):
        raft.step(AppendEntries(N2, N1, 3, EntryId(2, 5), 0), 0)
    with pytest.raises(InvariantError, match=r"entry 6@1 is committed here .* 6@2"):
        raft.step(AppendEntries(N2, N1, 3, EntryId(1, 3), 0, entries_of([1, 1, 2], first=4)), 0)


def test_a_rejection_never_leads_below_what_is_cut() -> None:
    raft = open_raft(EntryId(1, 5), [2, 2], term=3)
    turns = Turns(raft)
    raft.step(AppendEntries(N2, N1, 3, EntryId(1, 7), 0), 0)
    raft.step(AppendEntries(N2, N1, 3, EntryId(3, 9), 0), 0)
    assert [reply.hint for reply in turns.take().messages] == [EntryId(1, 5), EntryId(2, 7)]  # type: ignore[union-attr]  # of that kind


def test_a_tail_on_the_disk_is_replaced_without_being_read() -> None:
    raft = open_raft(EntryId(1, 5), [1, 2, 2, 2])
    turns = Turns(raft)
    raft.step(AppendEntries(N2, N1, 3, EntryId(1, 6), 6, entries_of([3], first=7)), 0)
    ready = turns.take()
    assert [str(entry) for entry in ready.entries] == ["7@3"]
    assert [(load.first, load.last) for load in ready.loads] == [(6, 6)]
    raft.step(Persisted(ready.sequence), 0)
    assert (raft.log.last, raft.log.persisted_index, raft.log.uncommitted_bytes) == (EntryId(3, 7), 7, 0)


# Everything together


def test_a_restart_at_each_point_of_an_install() -> None:
    for point in range(4):
        network = Network(config=SHORT)
        network.isolate(3)
        network.elect(1)
        network.propose(1, *[b"x"] * 9)
        network.wait(E)
        network.snapshot(1)
        network.holds_streams = True
        network.heal()
        network.wait(E)
        if point == 0:
            network.restart(3)
        network.stall(3)
        network.end_stream()
        if point == 1:
            # The snapshot is on the disk, and the log does not say so.
            network.restart(3)
        network.deliver()
        if point == 2:
            network.restart(3)
        network.holds_streams = False
        network.sync(3)
        if point == 3:
            network.restart(3)
        network.propose(1, b"end")
        network.wait(5 * E)
        assert network.nodes[3].applied_index == network.nodes[1].log.last_index, f"point {point}"
        assert network.applied[3][-1].payload == b"end"
        assert network.restored[3].index == 10


@pytest.mark.parametrize("seed", range(40))
def test_random_schedules_with_short_logs_end_equal(seed: int) -> None:
    """Cuts, crashes, slow disks, late reads, lost streams and snapshots at random; afterwards all are equal."""
    generator = random.Random(seed)
    config = GroupConfig(
        append_bytes_max=20,
        append_entries_max=3,
        window_messages=3,
        apply_entries_max=generator.choice([2, 100]),
        keep_entries=generator.choice([0, 3, 20]),
        stream_hold_entries=generator.choice([0, 10, 1000]),
        log_memory_bytes_max=generator.choice([1, 2000, 1 << 20]),
    )
    network = Network((1, 2, 3, 4, 5), seed=seed, config=config)
    schedule = Schedule(network, generator)
    actions = "cut heal crash restart stall sync wait snapshot snapshot hold_loads hold_streams end_stream propose propose"
    schedule.run(250, actions, deliveries_max=1)
    schedule.settle()
    assert [entries[-1].payload for entries in network.applied.values()] == [b"end"] * 5
    assert len({(raft.log.last, raft.applied_index) for raft in network.nodes.values()}) == 1
    assert {raft.deadline for raft in network.nodes.values()} == {NEVER}
