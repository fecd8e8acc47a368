"""A leader's view of a follower: rules, and invariants under any sequence of events."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trioraft._errors import InvariantError
from trioraft.core._progress import Progress, ProgressState
from trioraft.core._window import Window


def fresh(next_index: int = 1, *, messages: int = 4, size: int = 1000) -> Progress:
    return Progress(next=next_index, window_messages=messages, window_bytes=size)


def is_paused(progress: Progress) -> bool:
    """Ask anew: a type checker takes a property that it has seen once for settled."""
    return progress.is_paused


def indexes(window: Window) -> list[int]:
    """The last index of each append in flight, oldest first."""
    return [index for index, _ in window._sent]


def test_begins_by_probing_one_append_at_a_time() -> None:
    progress = fresh(11)
    assert (progress.state, progress.match, progress.next) == (ProgressState.PROBE, 0, 11)
    assert not is_paused(progress)
    progress.sent(20, 100)
    assert is_paused(progress)
    assert (progress.next, progress.window.count) == (11, 0)
    with pytest.raises(InvariantError):
        progress.sent(20, 100)
    progress.resend()
    progress.sent(20, 100)


def test_a_probe_without_entries_waits_too() -> None:
    progress = fresh(11)
    progress.sent(10, 0)
    assert is_paused(progress)


def test_replicating_hopes_for_the_best() -> None:
    """Dissertation 10.2.1: `next` moves on with each append, and the window bounds the hope."""
    progress = fresh(1, messages=2)
    progress.become_replicate()
    progress.sent(3, 10)
    assert (progress.next, progress.window.count, progress.is_paused) == (4, 1, False)
    progress.sent(4, 10)
    assert (progress.next, progress.window.count, progress.is_paused) == (5, 2, True)
    with pytest.raises(InvariantError):
        progress.sent(5, 10)
    assert progress.acknowledge(3)
    assert (progress.match, progress.next, progress.window.count, progress.is_paused) == (3, 5, 1, False)
    assert progress.acknowledge(4)
    assert progress.window.count == 0


def test_an_append_without_entries_passes_a_full_window() -> None:
    """It only tells the commit index, so there is nothing that it could overfill."""
    progress = fresh(1, messages=1)
    progress.become_replicate()
    progress.sent(1, 10)
    assert is_paused(progress)
    progress.sent(1, 0)
    assert (progress.next, progress.window.count) == (2, 1)


def test_rs_3_the_last_append_may_overshoot_the_bytes() -> None:
    """RS-3: an append above the whole window is still sent, alone."""
    progress = fresh(1, messages=10, size=100)
    progress.become_replicate()
    progress.sent(1, 99)
    assert not is_paused(progress)
    progress.sent(2, 5000)
    assert is_paused(progress)
    progress.acknowledge(1)
    assert is_paused(progress)
    progress.acknowledge(2)
    assert not is_paused(progress)


def test_lr_9_one_of_ten_appends_is_lost() -> None:
    """LR-9: the follower rejects what follows the lost one; the leader goes back once, to where it is safe."""
    progress = fresh(1, messages=10)
    progress.become_replicate()
    for batch in range(1, 11):
        progress.sent(batch * 10, 10)
    for batch in (1, 2, 3):
        assert progress.acknowledge(batch * 10)
    assert progress.reject(40, 30)
    progress.become_probe()
    assert (progress.next, progress.window.count) == (31, 0)
    for batch in range(5, 10):
        assert not progress.reject(batch * 10, 30)
    progress.sent(40, 10)
    assert is_paused(progress)
    assert progress.acknowledge(40)
    progress.become_replicate()
    assert progress.next == 41
    # What is still under way of the first attempt is older than everything sent since: no reason to go back again.
    assert not progress.reject(90, 30)


def test_a_rejection_of_what_was_acknowledged_is_late() -> None:
    """A follower cannot take back what it has said is durable."""
    progress = fresh(6)
    progress.match = 5
    progress.waiting = True
    assert not progress.reject(5, 3)
    assert (progress.match, progress.next, progress.waiting) == (5, 6, True)


@given(st.integers(1, 1000), st.integers(0, 1100))
def test_lr_6_each_genuine_rejection_gets_somewhere(first: int, hint: int) -> None:
    """LR-6: whatever the hint, a probe goes back by at least one, and never below 1."""
    progress = fresh(first + 1)
    rejections = 0
    while progress.next > 1:
        before = progress.next
        progress.sent(progress.next, 1)
        assert progress.reject(progress.next - 1, hint)
        assert 1 <= progress.next < before
        assert not is_paused(progress)
        rejections += 1
    assert rejections <= first
    assert not progress.reject(0, hint)


def test_a_snapshot_silences_the_appends() -> None:
    progress = fresh(11)
    progress.sent(11, 1)
    progress.become_snapshot(20)
    assert is_paused(progress)
    assert (progress.next, progress.pending_snapshot, progress.waiting) == (21, 20, False)
    assert not progress.reject(20, 0)
    progress.resend()
    assert is_paused(progress)
    with pytest.raises(InvariantError):
        progress.sent(21, 1)
    assert progress.acknowledge(20)
    progress.become_probe()
    assert (progress.next, progress.pending_snapshot) == (21, 0)


def test_a_lost_snapshot_leads_back_to_the_match() -> None:
    progress = fresh(11)
    progress.acknowledge(3)
    progress.become_snapshot(20)
    progress.snapshot_failed()
    assert (progress.state, progress.next, progress.pending_snapshot) == (ProgressState.PROBE, 4, 0)
    assert is_paused(progress)
    progress.resend()
    assert not is_paused(progress)


def test_a_snapshot_is_for_who_lacks_it() -> None:
    progress = fresh(11)
    progress.acknowledge(20)
    with pytest.raises(InvariantError):
        progress.become_snapshot(20)


def test_a_log_starts_at_one() -> None:
    with pytest.raises(InvariantError):
        fresh(0)


def test_a_window_holds_its_appends_in_order() -> None:
    window = Window(3)
    window.add(5, 1)
    with pytest.raises(InvariantError):
        window.add(5, 1)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9), st.integers(0, 50)), max_size=60), st.integers(1, 6), st.integers(0, 120))
def test_a_window_counts_what_is_in_it(script: list[tuple[bool, int, int]], count_max: int, bytes_max: int) -> None:
    window, model, last = Window(count_max, bytes_max), [], 0
    for is_add, step, size in script:
        if is_add and not window.is_full:
            last += step
            window.add(last, size)
            model.append((last, size))
        elif not is_add:
            window.free_to(last - step)
            model = [(index, held) for index, held in model if index > last - step]
        assert indexes(window) == [index for index, _ in model]
        assert (window.count, window.bytes) == (len(model), sum(held for _, held in model))
        assert window.is_full == (len(model) >= count_max or (bytes_max > 0 and window.bytes >= bytes_max))


class AnyEvents(RuleBasedStateMachine):
    """A leader with a log of a hundred entries does anything that it may, and hears anything that a network may deliver late."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = fresh(101, messages=4, size=64)
        self.match = 0

    @precondition(lambda self: not self.progress.is_paused)
    @rule(count=st.integers(0, 10), size=st.integers(0, 100))
    def send(self, count: int, size: int) -> None:
        before = self.progress.next
        self.progress.sent(min(before - 1 + count, 100), size)
        assert self.progress.next >= before

    @rule(index=st.integers(0, 100))
    def acknowledge(self, index: int) -> None:
        news = index > self.progress.match
        assert self.progress.acknowledge(index) == news
        assert self.progress.match == max(self.match, index)

    @rule(rejected=st.integers(0, 110), hint=st.integers(0, 110))
    def reject(self, rejected: int, hint: int) -> None:
        before = self.progress.next
        genuine = self.progress.reject(rejected, hint)
        assert self.progress.next <= before
        assert genuine or self.progress.next == before
        if genuine and self.progress.state is ProgressState.REPLICATE:
            self.progress.become_probe()

    @rule()
    def probe(self) -> None:
        self.progress.become_probe()

    @rule()
    def replicate(self) -> None:
        self.progress.become_replicate()

    @rule()
    def resend(self) -> None:
        self.progress.resend()

    @precondition(lambda self: self.progress.match < 100)
    @rule(data=st.data())
    def snapshot(self, data: st.DataObject) -> None:
        self.progress.become_snapshot(data.draw(st.integers(self.progress.match + 1, 100)))

    @precondition(lambda self: self.progress.state is ProgressState.SNAPSHOT)
    @rule()
    def snapshot_failed(self) -> None:
        self.progress.snapshot_failed()

    @invariant()
    def holds(self) -> None:
        progress = self.progress
        assert progress.match < progress.next
        assert progress.match >= self.match
        self.match = progress.match
        assert progress.window.count == 0 or progress.state is ProgressState.REPLICATE
        assert progress.window.count <= 4
        assert all(progress.match < index < progress.next for index in indexes(progress.window))
        assert not progress.waiting or progress.state is ProgressState.PROBE
        assert (progress.pending_snapshot > 0) == (progress.state is ProgressState.SNAPSHOT)


TestAnyEvents = AnyEvents.TestCase
