"""The parts of the simulator by themselves: what a disk loses, what a network does to packets, how a trace reads."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from trioraft._errors import InvariantError
from trioraft._types import EntryId, Member
from trioraft.core import (
    AppendEntries,
    AppendEntriesReply,
    Attach,
    Compaction,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    LoadEntries,
    Message,
    PreVote,
    PreVoteReply,
    RequestVote,
    RequestVoteReply,
    Terms,
    encode_configuration,
)
from trioraft.testing import PropertyViolation, Schedule, Simulator, Trace, Weather
from trioraft.testing._disk import GroupDisk, SimulatedDisk, Write
from trioraft.testing._log_window import LogWindow
from trioraft.testing._machine import Snapshot
from trioraft.testing._network import SimulatedNetwork
from trioraft.testing._trace import render_message

N1, N2 = Member(1), Member(2, EntryId(3, 7))


class Scheduler:
    """Virtual time for one part."""

    def __init__(self) -> None:
        self.now = 0
        self.calls: list[tuple[int, Callable[..., None], tuple[object, ...]]] = []

    def call_in(self, delay: int, call: Callable[..., None], *args: object) -> None:
        self.calls.append((self.now + delay, call, args))

    def run(self) -> None:
        while self.calls:
            self.calls.sort(key=lambda item: item[0])
            self.now, call, args = self.calls.pop(0)
            call(*args)


def entry(index: int, term: int) -> Entry:
    return Entry(index, term, EntryKind.COMMAND, b"x")


class Disk:
    def __init__(self, seed: int = 0) -> None:
        self.scheduler = Scheduler()
        self.told: list[dict[int, int]] = []
        self.synced: list[int] = []
        self.disk = SimulatedDisk(
            self.scheduler, random.Random(seed), synced=lambda write, _disk: self.synced.append(write.sequence), told=self.told.append
        )
        self.disk.sync_ms = (10, 10)

    def write(self, sequence: int, *entries: Entry, group: int = 1, term: int = 1) -> None:
        self.disk.write(Write(group, sequence, HardState(term), entries))


def test_writes_that_queue_up_become_one_batch_and_complete_in_order() -> None:
    held = Disk()
    held.write(1, entry(1, 1))
    held.write(2, entry(2, 1))
    held.write(3, entry(1, 1), group=2)
    held.write(4, entry(3, 1))
    held.scheduler.run()
    assert held.told == [{1: 1}, {1: 4, 2: 3}]
    assert held.synced == [1, 2, 3, 4]
    assert [e.index for e in held.disk.group(1).log.entries] == [1, 2, 3]
    assert held.scheduler.now == 20


def test_the_first_entry_of_a_write_replaces_the_tail() -> None:
    disk = GroupDisk()
    disk.write(Write(1, 1, HardState(1, 1), [entry(1, 1), entry(2, 1), entry(3, 1)]))
    disk.write(Write(1, 2, None, [entry(2, 2)]))
    assert [(e.index, e.term) for e in disk.log.entries] == [(1, 1), (2, 2)]
    assert disk.hard_state == HardState(1, 1)
    assert disk.log.term_at(2) == 2
    assert disk.log.term_at(3) == 0 == disk.log.term_at(0)
    with pytest.raises(InvariantError, match="the log goes from 0 to 2"):
        disk.write(Write(1, 3, None, [entry(4, 2)]))


def test_a_crash_keeps_what_was_synced_and_a_prefix_of_what_was_in_flight() -> None:
    survivors = set()
    for seed in range(40):
        held = Disk(seed)
        held.write(1, entry(1, 1))
        held.scheduler.run()
        held.write(2, entry(2, 1))
        held.scheduler.calls.clear()
        held.disk._batch += [Write(1, 3, None, [entry(3, 1)]), Write(1, 4, None, [entry(4, 1)])]
        held.disk._queue.append(Write(1, 5, None, [entry(5, 1)]))
        held.disk.crash()
        survivors.add(len(held.disk.group(1).log.entries))
        held.scheduler.run()
        assert held.told == [{1: 1}]
    assert survivors == {1, 2, 4}


def test_a_batch_in_flight_at_a_crash_never_completes() -> None:
    held = Disk()
    held.write(1, entry(1, 1))
    held.disk.crash()
    held.scheduler.run()
    assert held.told == []


def test_a_full_disk_keeps_its_writes_and_goes_on_when_there_is_space() -> None:
    held = Disk()
    held.write(1, entry(1, 1))
    held.disk.is_full = True
    held.write(2, entry(2, 1))
    held.scheduler.run()
    assert held.told == []
    assert held.disk.sync_age() == 0
    held.disk.is_full = False
    held.disk.begin()
    held.scheduler.run()
    assert held.told == [{1: 2}]


def test_the_age_of_the_oldest_sync_is_that_of_the_batch_in_flight() -> None:
    held = Disk()
    assert held.disk.sync_age() == 0
    held.write(1, entry(1, 1))
    held.scheduler.now = 7
    assert held.disk.sync_age() == 7


def long_log() -> LogWindow:
    held = LogWindow(configurations=[(0, Configuration({1}))])
    added = Entry(3, 2, EntryKind.CONFIGURATION, encode_configuration(Configuration({1}, learners={2})))
    held.write([entry(1, 1), entry(2, 1), added, entry(4, 2), entry(5, 4)])
    return held


def test_a_log_that_is_cut_knows_its_terms_and_configurations() -> None:
    held = long_log()
    held.compact(EntryId(1, 2))
    assert (held.start, held.last, [held.term_at(index) for index in range(7)]) == (EntryId(1, 2), EntryId(4, 5), [0, 0, 1, 2, 2, 4, 0])
    assert held.terms() == Terms(EntryId(1, 2), [(3, 2), (5, 4)], 5)
    assert held.configuration_at(2) == Configuration({1})
    held.compact(EntryId(2, 4))
    assert held.configurations == [(4, Configuration({1}, learners={2}))]
    held.compact(EntryId(1, 2))  # cut off already
    assert [e.index for e in held.behind(0, 9)] == [5]
    assert held.holds(entry(3, 7))
    assert not held.holds(entry(5, 3))
    for wrong in (EntryId(3, 5), EntryId(4, 6)):
        with pytest.raises(InvariantError, match="does not hold"):
            held.compact(wrong)


def test_a_truncation_takes_the_configuration_back() -> None:
    held = long_log()
    held.write([entry(3, 3)])
    assert held.configurations == [(0, Configuration({1}))]
    assert held.last == EntryId(3, 3)
    with pytest.raises(InvariantError):
        held.write([entry(5, 3)])


@pytest.mark.parametrize(("at", "left"), [(EntryId(2, 4), [5]), (EntryId(3, 4), []), (EntryId(4, 9), [])], ids=["same", "other", "beyond"])
def test_an_install_keeps_what_follows_only_if_the_log_holds_the_snapshots_entry(at: EntryId, left: list[int]) -> None:
    held = long_log()
    held.install(at, Configuration({1}, learners={2}))
    assert [e.index for e in held.entries] == left
    assert held.start == at
    assert held.configurations == [(at.index, Configuration({1}, learners={2}))]


def test_a_disk_cuts_its_log_and_prunes_its_snapshots() -> None:
    disk = GroupDisk(HardState(4), long_log())
    for index, term in ((2, 1), (4, 2)):
        disk.files[EntryId(term, index)] = Snapshot(EntryId(term, index), Configuration({1}), ())
    disk.write(Write(1, 0, compaction=Compaction(EntryId(2, 4), EntryId(1, 2), 4)))
    assert (disk.snapshot, disk.log.start, disk.commit, [*disk.files]) == (EntryId(2, 4), EntryId(1, 2), 4, [EntryId(2, 4)])
    durable = disk.recover(1)
    assert (durable.terms.start, durable.terms.last_index, [e.index for e in durable.entries]) == (EntryId(1, 2), 5, [5])
    assert (durable.snapshot, durable.commit) == (EntryId(2, 4), 4)
    with pytest.raises(InvariantError, match="relies on the snapshot"):
        disk.write(Write(1, 0, compaction=Compaction(EntryId(4, 5), EntryId(2, 4), 5)))
    with pytest.raises(InvariantError, match="behind the snapshot"):
        disk.write(Write(1, 0, compaction=Compaction(EntryId(2, 4), EntryId(4, 5), 5)))


def test_a_disk_reads_at_least_one_entry_and_nothing_that_was_cut_off() -> None:
    disk = GroupDisk(HardState(4), long_log())
    assert [e.index for e in disk.read(LoadEntries(None, 1, 2, 0))] == [1]
    assert [e.index for e in disk.read(LoadEntries(None, 4, 9, 100))] == [4, 5]
    assert disk.read(LoadEntries(None, 6, 9, 100)) == ()
    disk.log.compact(EntryId(2, 4))
    assert disk.read(LoadEntries(None, 4, 5, 100)) == ()


def test_a_crash_loses_that_a_log_was_cut_or_does_not() -> None:
    survivors = set()
    for seed in range(40):
        held = Disk(seed)
        held.write(1, entry(1, 1), entry(2, 1))
        held.scheduler.run()
        disk = held.disk.group(1)
        disk.files[EntryId(1, 2)] = Snapshot(EntryId(1, 2), Configuration({1}), ())
        held.disk.write(Write(1, 0, compaction=Compaction(EntryId(1, 2), EntryId(1, 1), 2)))
        held.disk.crash()
        survivors.add(disk.log.start.index)
    assert survivors == {0, 1}


def test_a_replica_that_is_removed_takes_its_writes_with_it() -> None:
    held = Disk()
    held.write(1, entry(1, 1))
    held.write(2, entry(2, 1))
    new = held.disk.create(1, Member(1, EntryId(1, 9)), Configuration({2}))
    held.write(3, entry(1, 2))
    held.scheduler.run()
    assert [e.term for e in new.log.entries] == [2]
    assert held.told[-1] == {1: 3}


def deliveries(weather: Weather, count: int = 2000) -> tuple[list[tuple[int, object]], Scheduler]:
    scheduler = Scheduler()
    arrived: list[tuple[int, object]] = []
    network = SimulatedNetwork(scheduler, random.Random(1), lambda _source, _target, packet: arrived.append((scheduler.now, packet)))
    network.weather = weather
    for number in range(count):
        network.send(1, 2, number)
    scheduler.run()
    return arrived, scheduler


def test_a_calm_network_delivers_everything_once_within_its_delay() -> None:
    arrived, _ = deliveries(Weather(delay=(2, 5)))
    assert sorted(packet for _, packet in arrived) == list(range(2000))  # type: ignore[type-var]  # packets are numbers here
    assert {at for at, _ in arrived} == {2, 3, 4, 5}


def test_a_stormy_network_loses_repeats_and_delays() -> None:
    arrived, scheduler = deliveries(Weather(delay=(1, 10), loss=300, duplicate=300, straggle=50))
    packets = [packet for _, packet in arrived]
    assert 1250 < len(set(packets)) < 1550
    assert 1.2 < len(packets) / len(set(packets)) < 1.7
    assert packets != sorted(packets)  # type: ignore[type-var]  # as above
    assert scheduler.now > 100


def test_cuts_are_one_way_and_counted_and_a_history_is_replayed() -> None:
    scheduler = Scheduler()
    arrived: list[tuple[int, int]] = []
    network = SimulatedNetwork(scheduler, random.Random(1), lambda source, target, _packet: arrived.append((source, target)))
    network.cut(1, 2)
    network.cut(1, 2)
    network.mend(1, 2)
    assert network.is_cut(1, 2)
    assert not network.send(1, 2, "lost")
    assert network.send(2, 1, "heard")
    network.heal()
    assert network.send(1, 2, "heard")
    scheduler.run()
    assert sorted(arrived) == [(1, 2), (2, 1)]
    assert network.replay(10, 100) == 3
    scheduler.run()
    assert len(arrived) == 5


AT, LAST = EntryId(1, 5), EntryId(2, 9)
ENTRIES = tuple(entry(index, 2) for index in range(6, 12))
LINES = [
    (AppendEntries(N1, N2, 2, AT, 4, ENTRIES[:1]), "n1@2 -> n2/7@3 AppendEntries 5@1 [6@2] commit 4"),
    (AppendEntries(N1, N2, 2, AT, 4, ENTRIES), "n1@2 -> n2/7@3 AppendEntries 5@1 [6@2 .. 11@2] commit 4"),
    (AppendEntriesReply(N2, N1, 2, match=6), "n2/7@3@2 -> n1 AppendEntriesReply match 6"),
    (AppendEntriesReply(N2, N1, 2, match=0, rejected=5, hint=AT), "n2/7@3@2 -> n1 AppendEntriesReply rejected 5 hint 5@1"),
    (PreVote(N1, N2, 3, LAST), "n1@3 -> n2/7@3 PreVote last 9@2"),
    (PreVoteReply(N2, N1, 3, False), "n2/7@3@3 -> n1 PreVoteReply refused"),
    (RequestVote(N1, N2, 3, LAST), "n1@3 -> n2/7@3 RequestVote last 9@2"),
    (RequestVoteReply(N2, N1, 3, True), "n2/7@3@3 -> n1 RequestVoteReply granted"),
    (Heartbeat(N1, N2, 2, 4, 8), "n1@2 -> n2/7@3 Heartbeat commit 4 round 8"),
    (HeartbeatReply(N2, N1, 2, 4), "n2/7@3@2 -> n1 HeartbeatReply commit 4"),
    (Attach(N1, N2, 2), "n1@2 -> n2/7@3 Attach"),
    (InstallSnapshot(N1, N2, 2, AT, Configuration({1}, learners={2})), "n1@2 -> n2/7@3 InstallSnapshot 5@1 (1) learners (2)"),
]


@pytest.mark.parametrize(("message", "line"), LINES, ids=[type(message).__name__ for message, _ in LINES])
def test_messages_read_like_golden_scripts(message: Message, line: str) -> None:
    assert render_message(message) == line


def test_a_trace_keeps_the_last_events_and_its_digest_tells_them_apart() -> None:
    trace, other = Trace(keep=2), Trace(keep=2)
    for number in range(4):
        trace.add(number, "note", f"event {number}")
    assert list(trace) == ["      2 note      event 2", "      3 note      event 3"]
    other.add(2, "note", "event 2")
    other.add(3, "note", "event 3")
    assert trace.digest() == other.digest()
    other.add(3, "note", "event 3")
    assert trace.digest() != other.digest()


def test_an_exception_of_the_core_is_a_violation_with_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = Simulator(Schedule.calm(9, duration=3000))

    def broken(*_args: object) -> None:
        raise ZeroDivisionError("in the core")

    monkeypatch.setattr("trioraft.core.Raft.take_ready", broken)
    with pytest.raises(PropertyViolation, match="ZeroDivisionError") as violation:
        sim.run()
    assert violation.value.seed == 9


def test_a_group_without_a_quorum_is_a_violation_of_liveness() -> None:
    with pytest.raises(PropertyViolation, match="liveness"):
        Simulator(Schedule.calm(1, duration=100, left_dead=(1, 2))).run()


def test_a_group_that_talks_for_ever_is_a_violation_of_quietness(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = Simulator(Schedule.calm(1, duration=100))
    original = sim.run_for

    def run_for(span: int) -> None:
        original(span)
        sim.group_messages += 1

    monkeypatch.setattr(sim, "run_for", run_for)
    with pytest.raises(PropertyViolation, match="quietness"):
        sim.run()
