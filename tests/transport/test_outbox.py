from __future__ import annotations

import random
from typing import Any

import pytest
import trio

from tests.transport.kit import append, pulse, vote
from trioraft.transport._outbox import Outbox, Overflow
from trioraft.wire import message_size

SIZE = message_size(append(1, 2, size=100))


class Box:
    def __init__(
        self, overflow: Overflow = Overflow.DROP_NEWEST, *, messages_max: int = 1000, bytes_max: int = 10 * SIZE, is_open: bool = True
    ) -> None:
        self.incidents = 0
        self.box = Outbox(overflow, bytes_max=bytes_max, messages_max=messages_max, message_bytes_max=20 * SIZE, on_incident=self.note)
        if is_open:
            self.box.open()

    def note(self) -> None:
        self.incidents += 1

    def put(self, *groups: int) -> None:
        self.box.put([append(1, 2, group=group, size=100) for group in groups])

    def take(self, bytes_max: int = 1 << 30) -> list[int]:
        return [envelope.group.group_id for envelope in self.box.take(bytes_max)]


def test_everything_that_waits_makes_one_batch_in_order() -> None:
    box = Box()
    box.put(1, 2)
    box.put(3)
    assert box.box.queued_bytes == 3 * SIZE
    assert box.take() == [1, 2, 3]
    assert (box.box.queued_bytes, box.box.queued_messages, box.take()) == (0, 0, [])


def test_batch_ends_before_its_limit() -> None:
    box = Box()
    box.put(1, 2, 3, 4, 5)
    assert box.take(2 * SIZE) == [1, 2]
    assert box.take(3 * SIZE - 1) == [3, 4]
    assert box.take(1) == [5], "one message above the limit still goes, alone"


@pytest.mark.parametrize("limit", [{"messages_max": 3}, {"bytes_max": 3 * SIZE}])
def test_append_lane_gives_up_the_newest(limit: dict[str, Any]) -> None:
    box = Box(**limit)
    box.put(1, 2, 3, 4, 5)
    assert (box.take(), box.box.dropped, box.incidents) == ([1, 2, 3], 2, 1)


@pytest.mark.parametrize("limit", [{"messages_max": 3}, {"bytes_max": 3 * SIZE}])
def test_control_lane_gives_up_the_oldest(limit: dict[str, Any]) -> None:
    box = Box(Overflow.DROP_OLDEST, **limit)
    box.put(1, 2, 3, 4, 5)
    assert (box.take(), box.box.dropped, box.incidents) == ([3, 4, 5], 2, 1)
    assert box.box.queued_bytes == 0


def test_MG_17_a_group_with_many_messages_delays_another_by_one_of_them() -> None:
    box = Box(bytes_max=1000 * SIZE)
    box.put(*[1] * 100)
    assert box.take(4 * SIZE) == [1] * 4
    box.put(2, 3, 3)
    assert box.take(4 * SIZE) == [1, 2, 3, 1]
    assert box.take(4 * SIZE) == [3, 1, 1, 1]
    assert (box.box.queued_messages, box.box.queued_bytes) == (91, 91 * SIZE)


def test_MG_17_a_small_message_behind_ten_huge_ones_waits_for_one_of_them() -> None:
    box = Box(bytes_max=1000 * SIZE)
    huge = [append(1, 2, group=1, size=8 * SIZE) for _ in range(10)]
    box.box.put(huge)
    assert box.box.take(SIZE) == huge[:1]
    box.put(2)
    assert box.take(2 * SIZE) == [1]
    assert box.take(2 * SIZE) == [2]
    assert [box.take(2 * SIZE) for _ in range(9)] == [[1]] * 8 + [[]]


@pytest.mark.parametrize("seed", range(10))
def test_messages_of_a_group_keep_their_order_whatever_the_load(seed: int) -> None:
    rng = random.Random(seed)
    box = Box(bytes_max=100_000 * SIZE, messages_max=100_000)
    put: dict[int, list[object]] = {}
    got: dict[int, list[object]] = {}
    for _ in range(200):
        for _ in range(rng.randrange(8)):
            envelope = append(1, 2, group=rng.randrange(4), size=rng.choice([0, 100, 1000]))
            put.setdefault(envelope.group.group_id, []).append(envelope)
            box.box.put([envelope])
        for envelope in box.box.take(rng.choice([1, 5 * SIZE, 50 * SIZE])):
            got.setdefault(envelope.group.group_id, []).append(envelope)
    while taken := box.box.take(20 * SIZE):
        for envelope in taken:
            got.setdefault(envelope.group.group_id, []).append(envelope)
    assert {group: list(map(id, of)) for group, of in got.items()} == {group: list(map(id, of)) for group, of in put.items()}
    assert (box.box.queued_messages, box.box.queued_bytes) == (0, 0)


def test_what_waits_for_its_turn_counts_against_the_limits_and_is_lost_with_the_connection() -> None:
    box = Box(messages_max=4)
    box.put(1, 1, 1, 2)
    assert box.take(SIZE) == [1]
    box.put(2, 3)
    assert (box.box.dropped, box.box.queued_messages) == (1, 4)
    box.box.shut()
    assert (box.box.dropped, box.box.queued_messages, box.box.queued_bytes) == (5, 0, 0)
    box.box.open()
    assert box.take() == []


def test_message_above_the_queue_limit_goes_alone_but_not_above_the_frame_limit() -> None:
    box = Box()
    box.box.put([append(1, 2, size=15 * SIZE), append(1, 2)])
    assert len(box.box.take(1)) == 1
    box.box.put([append(1, 2, size=25 * SIZE)])
    assert (box.box.take(1), box.box.dropped) == ([], 2)


def test_shut_box_keeps_only_the_newest_pulse() -> None:
    box = Box(is_open=False)
    box.put(1, 2)
    box.box.put_pulse(pulse(1))
    box.box.put_pulse(pulse(2))
    assert (box.box.dropped, box.box.replaced_pulses, box.incidents) == (2, 1, 1)
    box.box.open()
    assert (box.box.take_pulse(), box.box.take_pulse()) == (pulse(2), None)


def test_incident_is_told_once_until_the_queue_is_at_its_half() -> None:
    box = Box(messages_max=4)
    box.put(1, 2, 3, 4, 5)
    box.put(6)
    assert box.incidents == 1
    box.take(SIZE)
    box.put(7, 8)
    assert box.incidents == 1, "three of four still waited"
    box.take(2 * SIZE)
    box.put(9, 10, 11)
    assert box.incidents == 2


def test_shutting_is_an_incident_even_if_nothing_waits() -> None:
    box = Box()
    box.put(1)
    box.box.shut()
    assert (box.incidents, box.box.dropped, box.box.queued_bytes) == (1, 1, 0)
    box.put(2)
    box.box.shut()
    assert box.incidents == 1
    box.box.open()
    box.box.shut()
    assert box.incidents == 2


def test_room_is_for_open_boxes_that_are_not_full() -> None:
    box = Box(messages_max=1, is_open=False)
    seen = [box.box.has_room]
    box.box.open()
    seen.append(box.box.has_room)
    box.put(1)
    seen.append(box.box.has_room)
    assert seen == [False, True, False]


async def test_one_wake_up_for_many_messages(autojump_clock: trio.testing.MockClock) -> None:
    box = Box()
    box.put(1)
    box.put(2)
    await box.box.wait()
    with trio.move_on_after(1) as patience:
        await box.box.wait()
    assert patience.cancelled_caught, "two puts are one wake-up"
    box.box.put([vote(1, 2)])
    await box.box.wait()
