"""The log alone: agreeing with a leader's, what is on disk, what is handed out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from tests.core.harness import entries_of
from trioraft._errors import InvariantError
from trioraft._types import NOTHING, EntryId
from trioraft.core import Entry, EntryKind
from trioraft.core._applying import Applying
from trioraft.core._entries import is_well_formed
from trioraft.core._log import Log

MIB = 1 << 20


def log_of(*terms: int) -> Log:
    return Log(entries_of(terms))


def terms_in(log: Log) -> list[int]:
    return [log.term_at(index) for index in range(1, log.last_index + 1)]


def sized(index: int, size: int, term: int = 1) -> Entry:
    return Entry(index, term, EntryKind.COMMAND, bytes(size))


def test_an_empty_log() -> None:
    log = Log()
    applying = Applying(log, 0)
    assert (log.last, log.last_index, log.persisted_index) == (NOTHING, 0, 0)
    assert log.holds(NOTHING)
    assert not log.holds(EntryId(1, 1))
    assert log.term_at(0) == log.term_at(1) == 0
    assert not log.has_unwritten
    assert log.take_unwritten(1) == ()
    assert applying.take(MIB) == ()


def test_what_the_disk_held_is_persisted_and_not_committed() -> None:
    log = log_of(1, 1, 2)
    assert (log.last, log.persisted_index, log.commit_index, log.has_unwritten) == (EntryId(2, 3), 3, 0, False)
    assert log.uncommitted_bytes == 0


@pytest.mark.parametrize("entries", [entries_of([1], first=2), entries_of([2, 1]), [*entries_of([1]), *entries_of([1], first=3)]])
def test_a_damaged_log_from_disk_is_refused(entries: list[Entry]) -> None:
    with pytest.raises(InvariantError, match="hole or falling terms"):
        Log(entries)


@pytest.mark.parametrize(
    "previous, entries, term, is_valid",
    [
        (EntryId(0, 0), (), 1, True),
        (EntryId(2, 3), entries_of([2, 3, 3], first=4), 3, True),
        (EntryId(2, 3), [*entries_of([2], first=4), *entries_of([2], first=6)], 3, False),
        (EntryId(2, 3), entries_of([2], first=5), 3, False),
        (EntryId(2, 3), entries_of([2], first=3), 3, False),
        (EntryId(2, 3), entries_of([3, 2], first=4), 3, False),
        (EntryId(2, 3), entries_of([1], first=4), 3, False),
        (EntryId(2, 3), entries_of([4], first=4), 3, False),
        (EntryId(4, 3), (), 3, False),
        (EntryId(0, 3), (), 3, False),
        (EntryId(3, 0), (), 3, False),
        (EntryId(3, -1), (), 3, False),
        (EntryId(0, 0), entries_of([0]), 3, False),
    ],
)
def test_LR_12_what_can_follow(previous: EntryId, entries: tuple[Entry, ...], term: int, is_valid: bool) -> None:
    assert is_well_formed(previous, entries, term) is is_valid


@pytest.mark.parametrize(
    "first, terms, conflict",
    [(1, [], 0), (2, [2, 3], 0), (1, [1, 2, 3, 4, 4], 4), (3, [3, 4, 4], 4), (1, [4, 4], 1), (3, [1, 2, 4], 3), (4, [4], 4)],
)
def test_first_difference(first: int, terms: list[int], conflict: int) -> None:
    assert log_of(1, 2, 3).find_conflict(entries_of(terms, first)) == conflict


@pytest.mark.parametrize("index, term, answer", [(100, 2, 100), (5, 5, 5), (5, 2, 2), (5, 4, 2), (1, 2, 1), (5, 1, 0), (0, 0, 0)])
def test_going_back_by_term(index: int, term: int, answer: int) -> None:
    assert log_of(2, 2, 5, 5, 5).find_term(index, term) == answer


def test_merge_replaces_only_what_differs() -> None:
    log = log_of(1, 1, 2, 2)
    before = log.slice(1, MIB)[0]
    log.merge(EntryId(1, 1), entries_of([1, 3], first=2))
    assert terms_in(log) == [1, 1, 3]
    assert log.slice(1, MIB)[0][1] is before[1]
    log.merge(EntryId(1, 1), entries_of([1], first=2))
    assert terms_in(log) == [1, 1, 3]
    log.merge(EntryId(1, 2), ())
    assert terms_in(log) == [1, 1, 3]
    log.merge(EntryId(1, 2), entries_of([3, 3, 4], first=3))
    assert terms_in(log) == [1, 1, 3, 3, 4]


def test_LR_3_nothing_committed_is_ever_replaced() -> None:
    log = log_of(1, 1, 2, 2, 2)
    log.commit_to(4)
    with pytest.raises(InvariantError, match=r"3@2 is committed here .* 3@3"):
        log.merge(EntryId(1, 2), entries_of([3], first=3))
    assert terms_in(log) == [1, 1, 2, 2, 2]
    log.check_committed(EntryId(2, 4))
    log.check_committed(EntryId(9, 5))
    with pytest.raises(InvariantError, match="committed here"):
        log.check_committed(EntryId(9, 4))


def test_commit_never_goes_back_nor_beyond_the_log() -> None:
    log = log_of(1, 1)
    log.commit_to(2)
    log.commit_to(1)
    assert log.commit_index == 2
    with pytest.raises(InvariantError, match=r"3 is beyond the end of the log, 2@1"):
        log.commit_to(3)


def test_entries_are_written_once() -> None:
    log = log_of(1)
    log.append(sized(2, 1))
    log.append(sized(3, 1))
    assert [entry.index for entry in log.take_unwritten(7)] == [2, 3]
    assert log.take_unwritten(8) == ()
    assert log.persisted_index == 1
    log.persisted(6)
    assert log.persisted_index == 1
    log.persisted(7)
    assert log.persisted_index == 3


def test_only_the_last_write_of_an_index_vouches_for_it() -> None:
    """2@1, then 2@2, then 2@1 again: the first write's completion says nothing of the third (ABA)."""
    log = log_of(1)
    log.merge(EntryId(1, 1), entries_of([1], first=2))
    log.take_unwritten(1)
    log.merge(EntryId(1, 1), entries_of([2], first=2))
    log.take_unwritten(2)
    # NB: a leader of term 3 may bring back the entry of term 1, because 2@2 was never committed.
    log.merge(EntryId(1, 1), entries_of([1], first=2))
    log.take_unwritten(3)
    for sequence, persisted in [(1, 1), (2, 1), (3, 2)]:
        log.persisted(sequence)
        assert log.persisted_index == persisted


def test_a_truncation_takes_back_what_was_persisted() -> None:
    log = log_of(1, 1, 1)
    log.merge(EntryId(1, 1), entries_of([2], first=2))
    assert log.persisted_index == 1
    log.take_unwritten(1)
    log.append(sized(3, 0, term=2))
    log.persisted(1)
    assert log.persisted_index == 2


def test_only_what_is_committed_and_persisted_is_handed_out() -> None:
    log = Log()
    applying = Applying(log, 0)
    for index in (1, 2, 3):
        log.append(sized(index, 1))
    log.take_unwritten(1)
    log.commit_to(2)
    assert applying.take(MIB) == ()
    log.persisted(1)
    assert applying.has_next(MIB)
    assert [entry.index for entry in applying.take(MIB)] == [1, 2]
    assert not applying.has_next(MIB)
    with pytest.raises(InvariantError, match="applied 3, but only 2"):
        applying.applied(3)
    applying.applied(2)
    applying.applied(1)
    assert applying.applied_index == 2


def test_portions_to_apply_are_bounded() -> None:
    log = Log([sized(index, 10) for index in range(1, 8)])
    applying = Applying(log, 0)
    log.commit_to(7)
    assert [entry.index for entry in applying.take(25)] == [1, 2]
    # 20 of 25 bytes are on their way: one more entry always fits, and then nothing until some are applied.
    assert [entry.index for entry in applying.take(25)] == [3]
    assert applying.take(25) == ()
    applying.applied(1)
    assert applying.take(25) == ()
    applying.applied(2)
    assert [entry.index for entry in applying.take(25)] == [4]
    applying.applied(4)
    assert [entry.index for entry in applying.take(5)] == [5]


def test_a_slice_is_cut_by_size_but_never_empty() -> None:
    log = Log([sized(1, 10), sized(2, 100), sized(3, 10), sized(4, 0)])
    assert log.slice(1, 50) == ((sized(1, 10),), 10)
    assert log.slice(2, 50) == ((sized(2, 100),), 100)
    assert log.slice(3, 10) == ((sized(3, 10), sized(4, 0)), 10)


def test_a_slice_is_cut_by_number_too() -> None:
    log = Log([sized(index, 0) for index in range(1, 8)])
    assert [entry.index for entry in log.slice(2, MIB, 3)[0]] == [2, 3, 4]
    assert [entry.index for entry in log.slice(6, MIB, 3)[0]] == [6, 7]


def test_portions_to_apply_are_bounded_in_number_too() -> None:
    log = Log([sized(index, 0) for index in range(1, 8)])
    applying = Applying(log, 0)
    log.commit_to(7)
    assert [entry.index for entry in applying.take(MIB, 3)] == [1, 2, 3]
    assert not applying.has_next(MIB, 3)
    assert applying.take(MIB, 3) == ()
    applying.applied(1)
    assert [entry.index for entry in applying.take(MIB, 3)] == [4]
    applying.applied(4)
    assert [entry.index for entry in applying.take(MIB, 3)] == [5, 6, 7]


def test_uncommitted_bytes() -> None:
    log = Log([sized(1, 10), sized(2, 7)])
    log.append(sized(3, 5))
    assert log.uncommitted_bytes == 22
    log.commit_to(2)
    assert log.uncommitted_bytes == 5
    log.merge(EntryId(1, 2), [sized(3, 1, term=2)])
    assert log.uncommitted_bytes == 1


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_persisted_is_what_a_disk_that_is_cut_off_anywhere_would_hold(data: st.DataObject) -> None:
    """Against a model: a disk that executes writes in order, and loses those that are not complete."""
    log, disk, queue, term, sequence = Log(), [], [], 1, 0
    for _ in range(data.draw(st.integers(1, 25))):
        action = data.draw(st.sampled_from(["append", "replace", "take", "finish"]))
        if action == "append":
            log.append(sized(log.last_index + 1, 1, term))
        elif action == "replace" and log.last_index:
            term += 1
            first = data.draw(st.integers(1, log.last_index))
            log.merge(EntryId(log.term_at(first - 1), first - 1), entries_of([term], first))
        elif action == "take":
            sequence += 1
            entries = log.take_unwritten(sequence)
            if entries:
                queue.append((sequence, entries))
        elif action == "finish" and queue:
            done, entries = queue.pop(0)
            disk[entries[0].index - 1 :] = [entry.term for entry in entries]
            log.persisted(done)
        agreed = log.persisted_index
        assert disk[:agreed] == terms_in(log)[:agreed]
        # Whatever write of the queue is the last to get through, it leaves the persisted part alone.
        assert all(entries[0].index > agreed for _, entries in queue)
    sequence += 1
    log.take_unwritten(sequence)
    log.persisted(sequence)
    assert log.persisted_index == log.last_index
