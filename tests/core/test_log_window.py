"""The log as a window over its disk, against a plain list of entries and a disk that executes writes in order."""

from __future__ import annotations

from collections import deque

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from tests.core.harness import Disk, cut, entries_of, voters_of
from trioraft._errors import InvariantError
from trioraft._types import NOTHING, EntryId, Member
from trioraft.core import Entry, EntryKind, InstallSnapshot, LoadEntries, Ready, Terms, encode_configuration
from trioraft.core._applying import Applying
from trioraft.core._configurations import Configurations
from trioraft.core._log import Log

BASE = voters_of(1, 2, 3)
MIB = 1 << 20


def sized(index: int, size: int, term: int = 1) -> Entry:
    return Entry(index, term, EntryKind.COMMAND, bytes(size))


def on_disk(start: EntryId, *terms: int, commit: int = 0, in_memory: int = 0) -> Log:
    """A log whose entries are on the disk, the last few in memory too."""
    known = Terms(start)
    for index, term in enumerate(terms, start.index + 1):
        known.extend(index, term)
    return Log(entries_of(terms, start.index + 1)[len(terms) - in_memory :], known, commit=commit)


def test_what_is_not_in_memory_cannot_be_sliced() -> None:
    log = on_disk(EntryId(1, 5), 1, 1, 2, 2, in_memory=2)
    assert [entry.index for entry in log.slice(8, MIB)[0]] == [8, 9]
    for first in (5, 6, 7):
        with pytest.raises(InvariantError, match=f"entry {first} is not in memory, which begins behind 7"):
            log.slice(first, MIB)


def test_terms_are_known_without_entries() -> None:
    log = on_disk(EntryId(1, 5), 1, 2, 2)
    assert [log.term_at(index) for index in range(3, 11)] == [0, 0, 1, 1, 2, 2, 0, 0]
    assert log.holds(EntryId(1, 5))
    assert not log.holds(EntryId(1, 4))
    assert log.find_term(8, 1) == 6
    assert log.find_conflict(entries_of([1, 2, 3], first=6)) == 8


def test_an_index_outside_the_log_is_returned_as_it_is() -> None:
    log = on_disk(EntryId(3, 10), 3, 3, 4)
    assert [log.find_term(index, 3) for index in (3, 9, 10, 13, 14)] == [3, 9, 10, 12, 14]
    # Nothing of a lower term is left: only what was cut off can agree.
    assert log.find_term(13, 2) == 10


def test_memory_is_counted_with_what_an_entry_takes_beside_its_payload() -> None:
    log = Log()
    log.append(sized(1, 0))
    overhead = log.memory_bytes
    assert overhead > 100
    log.append(sized(2, 1000))
    assert log.memory_bytes == 2 * overhead + 2 * 1000


def test_only_what_is_durable_and_committed_leaves_memory() -> None:
    log = Log()
    for index in range(1, 11):
        log.append(sized(index, 10))
    log.evict(0)
    assert log.evicted_index == 0
    log.commit_to(8)
    log.evict(0)
    assert log.evicted_index == 0
    log.take_unwritten(1)
    log.persisted(1)
    log.evict(log.memory_bytes)
    assert log.evicted_index == 0
    log.evict(log.memory_bytes - 1)
    assert log.evicted_index == 3, "a quarter more than needed"
    log.evict(0)
    assert log.evicted_index == 8
    assert log.slice(9, MIB) == ((sized(9, 10), sized(10, 10)), 20)
    assert log.uncommitted_bytes == 20
    log.commit_to(9)
    assert log.uncommitted_bytes == 10


def test_what_a_start_found_does_not_count_as_waiting() -> None:
    log = on_disk(EntryId(1, 5), 1, 1, 1, commit=6)
    assert log.uncommitted_bytes == 0
    log.append(sized(9, 7))
    assert log.uncommitted_bytes == 7
    log.commit_to(8)
    assert log.uncommitted_bytes == 7
    log.commit_to(9)
    assert log.uncommitted_bytes == 0


def test_configurations_roll_back_with_their_entries_and_are_known_where_the_log_begins() -> None:
    log = Log(configurations=Configurations([(0, BASE)]))
    more, most = attrs.evolve(voters_of(1, 2, 3, 4), index=2), attrs.evolve(voters_of(1, 2, 3, 4, 5), index=4)
    log.append(sized(1, 0))
    log.append(Entry(2, 1, EntryKind.CONFIGURATION, encode_configuration(more)))
    log.merge(EntryId(1, 2), [sized(3, 0), Entry(4, 1, EntryKind.CONFIGURATION, encode_configuration(most)), sized(5, 0)])
    assert [log.configurations.at(index) for index in range(6)] == [BASE, BASE, more, more, most, most]
    log.merge(EntryId(1, 4), [sized(5, 0, term=2)])
    assert (log.configurations.newest, log.configurations.newest_index) == (most, 4)
    log.merge(EntryId(1, 3), [sized(4, 0, term=3)])
    assert (log.configurations.newest, log.configurations.newest_index) == (more, 2)
    log.commit_to(4)
    log.take_unwritten(1)
    log.persisted(1)
    log.compact(3)
    assert [log.configurations.at(index) for index in (3, 4)] == [more, more]
    log.install(EntryId(4, 20), most)
    assert (log.configurations.newest, log.configurations.newest_index) == (most, 20)


def test_a_configuration_that_cannot_be_read_stops_the_group() -> None:
    bad = Entry(1, 1, EntryKind.CONFIGURATION, b"nonsense")
    for log in (Log(), Log()):
        with pytest.raises(InvariantError, match="entry 1@1: not a configuration"):
            log.append(bad)
    with pytest.raises(InvariantError, match="entry 1@1: not a configuration"):
        Log().merge(NOTHING, [bad])
    other = Entry(1, 1, EntryKind.CONFIGURATION, encode_configuration(attrs.evolve(BASE, index=2)))
    with pytest.raises(InvariantError, match="entry 1@1: a configuration that says it is that of index 2"):
        Log().append(other)


def test_an_install_cannot_vouch_before_it_is_durable() -> None:
    log = on_disk(NOTHING, 1, 1, 1)
    log.install(EntryId(2, 9), BASE)
    assert (log.persisted_index, log.commit_index, log.has_unwritten) == (8, 9, True)
    assert log.take_unwritten(7) == ()
    assert not log.has_unwritten
    log.persisted(6)
    assert log.persisted_index == 8
    log.persisted(7)
    assert log.persisted_index == 9


@attrs.define
class Model:
    """The log as a plain list, and the disk that it is written to."""

    disk: Disk = attrs.Factory(lambda: Disk(BASE, Member(1)))
    entries: list[Entry] = attrs.Factory(list)
    start: EntryId = NOTHING
    commit: int = 0
    applied: int = 0
    queue: deque[tuple[int, Ready]] = attrs.Factory(deque)

    @property
    def last(self) -> EntryId:
        return self.entries[-1].id if self.entries else self.start

    def cut(self, index: int) -> None:
        count = index - self.start.index
        if count > 0:
            self.start = self.entries[count - 1].id
            del self.entries[:count]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_against_a_plain_list(data: st.DataObject) -> None:
    log, model, term, sequence = Log(configurations=Configurations([(0, BASE)])), Model(), 1, 0
    applying = Applying(log, 0)
    install: InstallSnapshot | None = None
    load: LoadEntries | None = None
    history: dict[int, Entry] = {}

    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    def new_entries(first: int, count: int) -> list[Entry]:
        return [sized(first + number, draw(0, 20), term) for number in range(count)]

    actions = ["append", "merge", "replace", "commit", "take", "finish", "evict", "compact", "install", "apply", "load", "loaded"]
    for _ in range(draw(1, 40)):
        start, last = model.start.index, model.last.index
        match data.draw(st.sampled_from(actions)):
            case "append":
                model.entries += new_entries(last + 1, 1)
                log.append(model.entries[-1])
            case "merge":
                # From the same leader: what is there already, and more; or from before the log begins.
                first = draw(start + 1, last + 1)
                entries = model.entries[first - start - 1 :] + new_entries(last + 1, draw(0, 3))
                model.entries[first - start - 1 :] = entries
                previous = EntryId(log.term_at(first - 1), first - 1)
                if first == start + 1 and start in history and (start == 1 or start - 1 in history):
                    entries = [history[start], *entries]
                    previous = history[start - 1].id if start > 1 else NOTHING
                log.merge(previous, entries)
            case "replace" if last > model.commit:
                term += 1
                first = draw(model.commit + 1, last)
                entries = new_entries(first, draw(1, 3))
                model.entries[first - start - 1 :] = entries
                log.merge(EntryId(log.term_at(first - 1), first - 1), entries)
            case "commit":
                model.commit = max(model.commit, draw(0, last))
                log.commit_to(model.commit)
            case "take":
                sequence += 1
                ready = Ready(sequence=sequence, install=install, entries=log.take_unwritten(sequence))
                if ready.writes:
                    model.queue.append((sequence, ready))
                install = None
            case "finish" if model.queue:
                done, ready = model.queue.popleft()
                model.disk.write(ready)
                log.persisted(done)
            case "evict":
                log.evict(draw(0, 3000))
            case "compact" if not applying.is_restoring:
                index = draw(0, min(model.applied, log.persisted_index))
                log.compact(index)
                model.cut(index)
            case "install" if install is None:
                index = draw(model.commit + 1, model.commit + 6)
                matches = index <= last and draw(0, 1) == 1
                if not matches:
                    term += 1
                at = EntryId(log.term_at(index), index) if matches else EntryId(term, index)
                log.install(at, BASE)
                applying.restore = at
                model.disk.snapshots[at] = BASE
                install = InstallSnapshot(Member(2), Member(1), term, at, BASE)
                if matches:
                    model.cut(index)
                else:
                    model.start, model.entries = at, []
                model.commit = index
            case "apply":
                restored = applying.take_restore()
                taken = [] if restored else applying.take(draw(1, 40), 3)
                if restored:
                    model.applied = restored.index
                for entry in taken:
                    model.applied += 1
                    assert (entry.index, history.get(entry.index, entry)) == (model.applied, entry)
                applying.applied(model.applied)
            case "load" if load is None and applying.has_next(MIB, 3) and not applying.is_next_in_memory:
                load = LoadEntries(None, *applying.missing(MIB, 3))
                assert start < load.first <= load.last <= log.evicted_index
            case "loaded" if load is not None:
                entries = list(cut(model.disk.entries, load))
                if applying.deliver(load.first, entries):
                    assert entries[0].index == model.applied + 1
                    model.applied = entries[-1].index
                    applying.applied(model.applied)
                load = None
            case _:
                continue
        for entry in model.entries:
            if entry.index <= model.commit:
                assert history.setdefault(entry.index, entry) == entry
        start = model.start.index
        assert (log.start, log.last, log.commit_index) == (model.start, model.last, model.commit)
        assert [log.term_at(index) for index in range(start + 1, log.last_index + 1)] == [entry.term for entry in model.entries]
        assert start <= log.evicted_index <= log.last_index
        in_memory = model.entries[log.evicted_index - start :]
        if in_memory:
            assert log.slice(log.evicted_index + 1, MIB) == (tuple(in_memory), sum(len(entry.payload) for entry in in_memory))
        assert log.memory_bytes == sum(2 * len(entry.payload) + 300 for entry in in_memory)
        assert log.uncommitted_bytes == sum(len(entry.payload) for entry in model.entries if entry.index > model.commit)
        # What counts as persisted is on the disk, and no write that is still to come touches it; what left memory is persisted.
        assert log.evicted_index <= max(log.persisted_index, start)
        disk = {entry.index: entry for entry in model.disk.entries}
        for entry in model.entries:
            if entry.index <= log.persisted_index:
                assert disk[entry.index] == entry
                assert all(not ready.entries or ready.entries[0].index > entry.index for _, ready in model.queue)
