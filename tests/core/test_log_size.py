"""How large the part of a log is that is not in memory: never too small, and too large by no more than a step."""

from __future__ import annotations

import random

from hypothesis import given, settings, strategies as st

from tests.core.harness import entries_of
from trioraft._types import NOTHING, EntryId
from trioraft.core import Configuration, Entry, EntryKind, Terms
from trioraft.core._log import UNBOUNDED, Log
from trioraft.core._log_size import _MARKS_MAX, _STEP, _STEPS

KIB = 1 << 10


class Pair:
    """A log, and how large each of its entries is."""

    def __init__(self) -> None:
        self.log = Log()
        self.totals = [0]
        self.sequence = 0
        self.step = _STEP

    def append(self, *sizes: int) -> None:
        """Entries that are durable and committed at once."""
        log = self.log
        for size in sizes:
            log.append(Entry(log.last_index + 1, 1, EntryKind.COMMAND, bytes(size)))
            self.totals.append(self.totals[-1] + size)
        self.sequence += 1
        log.take_unwritten(self.sequence)
        log.persisted(self.sequence)
        log.commit_to(log.last_index)
        self.step = max(self.step, (self.totals[-1] - self.totals[log.start.index]) // _STEPS)

    def between(self, low: int, high: int) -> int:
        return self.totals[high] - self.totals[low]

    def check(self, index: int, bytes_max: int) -> None:
        log = self.log
        exact = self.between(index, log.last_index)
        assert exact <= log.bytes_behind(index) <= exact + self.step
        if index >= log.evicted_index:
            assert log.bytes_behind(index) == exact
        first = log.first_within(index, bytes_max)
        assert log.start.index <= first <= index
        assert first == log.start.index or self.between(first, index) <= bytes_max + self.step
        # Nor is it much less than it could be: one entry more, and it would be too much.
        assert first == log.start.index or self.between(first - 1, index) > bytes_max - self.step


sizes = st.integers(0, 200) | st.integers(0, 300 * KIB)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(sizes, min_size=1, max_size=30)),
        st.tuples(st.just("evict"), st.integers(1, 2000 * KIB)),
        st.tuples(st.just("compact"), st.floats(0, 1)),
    ),
    max_size=20,
)


@settings(deadline=None)
@given(steps, st.floats(0, 1), st.integers(0, 3000 * KIB))
def test_any_log_is_measured_to_a_step(acts: list[tuple[str, object]], place: float, bytes_max: int) -> None:
    pair = Pair()
    log = pair.log
    for verb, value in acts:
        if verb == "append":
            pair.append(*value)  # type: ignore[misc]  # of any type
        elif verb == "evict":
            log.evict(value)  # type: ignore[arg-type]  # of any type
        else:
            log.compact(log.start.index + round(value * (log.last_index - log.start.index)))  # type: ignore[operator]  # a float
        held = log.last_index - log.start.index
        for index in {log.start.index, log.start.index + round(place * held), log.evicted_index, log.last_index}:
            pair.check(index, bytes_max)


def test_a_large_log_has_few_marks_and_is_still_measured_to_a_64th() -> None:
    """Also after it has been cut, and grows anew."""
    generator = random.Random(1)
    pair = Pair()
    log = pair.log
    marks = log._evicted_size
    for _ in range(3):
        for number in range(400):
            large = (3 << 20) * (number % 50 == 0)
            pair.append(large, *[generator.randrange(128 * KIB) for _ in range(8)])
            log.evict(1)
            assert len(marks._marks) <= _MARKS_MAX
        assert sorted(set(marks._marks)) == marks._marks
        start = log.start.index
        for index in (*range(start, start + 200), *range(start, log.last_index, 97)):
            pair.check(index, generator.randrange(128 << 20))
        log.compact(log.last_index - 100)
        pair.check(log.start.index, 0)
        assert len(marks._marks) <= 20


def test_a_mark_stands_on_either_side_of_a_large_entry() -> None:
    """So that small ones next to it are not counted with it."""
    pair = Pair()
    pair.append(10, 8 << 20, 10, 10)
    pair.log.evict(1)
    assert [pair.log.bytes_behind(index) for index in range(5)] == [30 + (8 << 20), 20 + (8 << 20), 20, 20, 0]
    assert pair.log.first_within(4, 1 << 20) == 2


def test_a_log_that_never_let_go_of_an_entry_has_no_marks() -> None:
    pair = Pair()
    pair.append(*[100] * 1000)
    pair.log.evict(1 << 20)
    assert pair.log._evicted_size._marks == ()
    assert pair.log.bytes_behind(990) == 1000


def test_an_index_before_the_log_stands_for_its_start() -> None:
    pair = Pair()
    pair.append(*[100] * 10)
    pair.log.compact(4)
    assert pair.log.bytes_behind(0) == pair.log.bytes_behind(4) == 600
    assert pair.log.first_within(10, UNBOUNDED) == 4


# What a start found


def found(last: int, size: int, start: int = 0, entries: tuple[Entry, ...] = ()) -> Log:
    return Log(entries, Terms(EntryId(1, start) if start else NOTHING, [(1, 1)] if not start else [], last), size=size)


def test_what_a_start_found_counts_as_spread_evenly() -> None:
    log = found(110, 5000, start=10)
    assert [log.bytes_behind(index) for index in (0, 10, 11, 60, 109, 110)] == [5000, 5000, 4950, 2500, 50, 0]
    assert [log.first_within(110, bytes_max) for bytes_max in (0, 49, 50, 4999, 5000, 9999)] == [110, 110, 109, 11, 10, 10]
    assert [log.first_within(60, bytes_max) for bytes_max in (0, 1000, 9999)] == [60, 40, 10]
    log.append(Entry(111, 1, EntryKind.COMMAND, bytes(70)))
    assert [log.bytes_behind(index) for index in (10, 109, 110, 111)] == [5070, 120, 70, 0]
    log.compact(60)
    assert [log.bytes_behind(index) for index in (0, 60, 110)] == [2570, 2570, 70]


@given(st.integers(0, 1000), st.integers(1, 1000), st.integers(0, 1 << 30), st.floats(0, 1), st.integers(0, 1 << 31))
def test_what_fits_never_begins_behind_its_end(start: int, count: int, size: int, place: float, bytes_max: int) -> None:
    """Or more would be cut off than the snapshot holds."""
    log = found(start + count, size, start)
    end = start + round(place * count)
    first = log.first_within(end, bytes_max)
    assert start <= first <= end
    assert log.bytes_behind(first) - log.bytes_behind(end) <= bytes_max
    assert log.bytes_behind(first) >= size * (start + count - first) // count


def test_what_is_in_memory_at_a_start_is_not_counted_twice() -> None:
    entries = tuple(Entry(index, 1, EntryKind.COMMAND, bytes(1000)) for index in (9, 10))
    log = found(10, 2800, entries=entries)
    assert [log.bytes_behind(index) for index in (0, 4, 8, 9)] == [2800, 2400, 2000, 1000]
    # Nor is it less than nothing: what the storage says is rough.
    assert found(10, 1500, entries=entries).bytes_behind(0) == 2000


def test_a_size_that_is_not_known_is_nothing() -> None:
    log = found(100, 0)
    log.append(Entry(101, 1, EntryKind.COMMAND, bytes(70)))
    assert (log.bytes_behind(0), log.bytes_behind(100), log.first_within(101, 70), log.first_within(101, 69)) == (70, 70, 0, 101)
    assert log.first_within(100, 0) == 0


def test_what_is_replaced_is_not_counted() -> None:
    log = found(100, 10_000)
    log.merge(EntryId(1, 50), entries_of([2], first=51))
    assert [log.bytes_behind(index) for index in (0, 40, 50, 51)] == [5000, 1000, 0, 0]
    log.append(Entry(52, 2, EntryKind.COMMAND, bytes(70)))
    log.merge(EntryId(1, 40), (Entry(41, 3, EntryKind.COMMAND, bytes(5)),))
    assert [log.bytes_behind(index) for index in (0, 40, 41)] == [4005, 5, 0]
    log.merge(NOTHING, entries_of([4]))
    assert (log.bytes_behind(0), log.uncommitted_bytes) == (0, 0)


def test_what_left_memory_goes_on_from_what_a_start_found() -> None:
    log = found(100, 10_000)
    for index in range(101, 111):
        log.append(Entry(index, 1, EntryKind.COMMAND, bytes(100 * KIB)))
    log.take_unwritten(1)
    log.persisted(1)
    log.commit_to(110)
    log.evict(1)
    assert log.evicted_index == 110
    exact = [10_000 + 1000 * KIB, 5000 + 1000 * KIB, 1000 * KIB, 500 * KIB, 0]
    assert [log.bytes_behind(index) for index in (0, 50, 100, 105, 110)] == exact
    assert [log.first_within(110, bytes_max) for bytes_max in (99 * KIB, 300 * KIB, 1000 * KIB + 500)] == [110, 107, 95]


def test_an_install_forgets_what_was_there() -> None:
    pair = Pair()
    log = pair.log
    pair.append(*[100 * KIB] * 10)
    log.evict(1)
    log.install(EntryId(2, 500), Configuration(()))
    assert (log.bytes_behind(500), log.first_within(500, 0)) == (0, 500)
    for index in range(501, 511):
        log.append(Entry(index, 2, EntryKind.COMMAND, bytes(100 * KIB)))
    log.take_unwritten(2)
    log.persisted(2)
    log.commit_to(510)
    log.evict(1)
    assert log.evicted_index == 510
    assert [log.bytes_behind(index) for index in (500, 505, 510)] == [1000 * KIB, 500 * KIB, 0]
