"""The deadline queue: cost follows the changes, and a late timer fires once."""

from __future__ import annotations

import random
import time

import pytest
import trio
import trio.testing

from trioraft._types import NEVER
from trioraft.manager._clock import NodeClock
from trioraft.manager._deadlines import DeadlineQueue


def test_groups_come_due_once_and_in_time() -> None:
    queue = DeadlineQueue(lambda: None)
    queue.set(1, 100)
    queue.set(2, 50)
    assert queue.due(49) == []
    assert queue.due(50) == [2]
    assert queue.due(1000) == [1]
    assert queue.due(5000) == []
    assert queue.next == NEVER


def test_a_later_wish_replaces_an_earlier_one_and_an_earlier_one_a_later_one() -> None:
    queue = DeadlineQueue(lambda: None)
    queue.set(1, 100)
    queue.set(1, 300)
    assert queue.due(200) == []
    queue.set(1, 250)
    assert queue.due(250) == [1]
    assert queue.due(300) == []


def test_never_takes_the_wish_back() -> None:
    queue = DeadlineQueue(lambda: None)
    queue.set(1, 100)
    queue.set(1, NEVER)
    assert queue.due(1000) == []


def test_a_forgotten_group_is_not_woken() -> None:
    queue = DeadlineQueue(lambda: None)
    queue.set(1, 100)
    queue.forget(1)
    assert queue.due(1000) == []


def test_only_a_new_earliest_deadline_wakes_the_clock() -> None:
    woken: list[int] = []
    queue = DeadlineQueue(lambda: woken.append(1))
    queue.set(1, 100)
    queue.set(2, 200)
    queue.set(1, 300)
    assert len(woken) == 1
    queue.set(3, 10)
    assert len(woken) == 2


def test_the_heap_does_not_grow_with_moves() -> None:
    queue = DeadlineQueue(lambda: None)
    for moment in range(10_000):
        queue.set(1, 100 + moment)
    assert len(queue._heap) == 1


def test_any_sequence_of_wishes_behaves_like_a_plain_dict() -> None:
    rng = random.Random(5)
    queue, model = DeadlineQueue(lambda: None), dict[int, int]()
    now = 0
    for _ in range(20_000):
        group = rng.randrange(20)
        if rng.random() < 0.7:
            moment = rng.choice([NEVER, now + rng.randrange(100)])
            queue.set(group, moment)
            model[group] = moment
        else:
            now += rng.randrange(30)
            expected = {group for group, moment in model.items() if moment <= now}
            assert set(queue.due(now)) == expected
            for group in expected:
                model[group] = NEVER
            assert queue.next <= min([*model.values(), NEVER])


async def test_node_time_is_whole_milliseconds_of_trio_time(mock_clock: trio.testing.MockClock) -> None:
    clock = NodeClock()
    start = clock.now()
    mock_clock.jump(1.25)
    assert clock.now() == start + 1250


async def test_sleeping_until_a_moment_reaches_it(autojump_clock: trio.testing.MockClock) -> None:
    clock = NodeClock()
    for ahead in (1, 7, 100, 999):
        moment = clock.now() + ahead
        await trio.sleep_until(clock.trio_time(moment))
        assert moment <= clock.now() <= moment + 1


async def test_time_that_the_machine_was_suspended_counts_and_never_goes_back(
    mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a moment of it: a lease lasts no longer than an election timeout."""
    asleep, between = 0.0, 0.0
    awake = 100.0

    def read(which: int) -> float:
        nonlocal awake
        awake += between  # the scheduler comes between two readings
        return awake + (asleep if which == getattr(time, "CLOCK_BOOTTIME", None) else 0.0)

    monkeypatch.setattr(time, "clock_gettime", read)
    clock = NodeClock()
    start = clock.now()
    between = 0.25
    assert clock.now() == start, "only the scheduler was there"
    between, asleep = 0.0, 0.3
    assert clock.now() == pytest.approx(start + 300, abs=1)
    assert clock.trio_time(start + 1000) == pytest.approx(trio.current_time() + 0.7, abs=0.002)
    between = 0.25
    assert clock.now() == pytest.approx(start + 300, abs=1), "what was counted stays"
    asleep = 3600.0
    mock_clock.jump(1)
    assert start + 1000 + 3_599_000 < clock.now() <= start + 1000 + 3_600_000
