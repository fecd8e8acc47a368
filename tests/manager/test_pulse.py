"""The pulse between two nodes: who is live, and which lines arrive, whatever is lost, delayed or restarted."""

from __future__ import annotations

import random

import pytest

from trioraft import ConfigError
from trioraft._types import EntryId, GroupKey
from trioraft.core import Timing
from trioraft.manager._pulse import REFUSALS_MAX, PulseLink
from trioraft.wire import PULSE_LINES_MAX, Pulse, PulseKind, PulseLine

TIMING = Timing(heartbeat_interval=100, election_timeout=1000)


def attach(group: int, term: int = 1) -> PulseLine:
    return PulseLine(PulseKind.ATTACH, GroupKey(group), term)


def detach(group: int, term: int = 1) -> PulseLine:
    return PulseLine(PulseKind.DETACH, GroupKey(group), term)


class Pair:
    """Two links and a clock; pulses cross at once unless the test keeps them."""

    def __init__(self) -> None:
        self.a, self.b = PulseLink(1, TIMING), PulseLink(1, TIMING)
        self.now = 0

    def beat(self, *, a_to_b: bool = True, b_to_a: bool = True) -> tuple[list[PulseLine], list[PulseLine]]:
        """One interval; return the lines that arrived at a and at b."""
        self.now += 100
        from_a, from_b = self.a.next_pulse(self.now, 0), self.b.next_pulse(self.now, 0)
        at_b = self.b.receive(from_a, self.now) if a_to_b else []
        at_a = self.a.receive(from_b, self.now) if b_to_a else []
        return at_a, at_b


def test_a_peer_is_live_once_it_echoes_us() -> None:
    pair = Pair()
    pair.beat()
    assert not pair.a.is_live(pair.now), "the peer's first pulse cannot have heard us yet"
    pair.beat()
    assert pair.a.is_live(pair.now)
    assert pair.b.is_live(pair.now)


def test_liveness_counts_from_when_the_echoed_pulse_was_sent() -> None:
    pair = Pair()
    for _ in range(3):
        pair.beat()
    echoed_at = pair.now - 100
    assert pair.a.live_until == echoed_at + TIMING.election_timeout


def test_PV_3_a_peer_that_does_not_hear_us_is_not_live() -> None:
    pair = Pair()
    for _ in range(5):
        pair.beat()
    for _ in range(11):
        pair.beat(a_to_b=False)
    assert not pair.a.is_live(pair.now), "b talks, but its echoes are old"
    assert not pair.b.is_live(pair.now), "b hears nothing"


def test_a_pulse_that_lay_in_a_buffer_proves_nothing() -> None:
    pair = Pair()
    for _ in range(3):
        pair.beat()
    kept = pair.b.next_pulse(pair.now, 0)
    late = pair.now + 5000  # this process was stopped; then the buffer is read
    pair.a.receive(kept, late)
    assert not pair.a.is_live(late)


@pytest.mark.parametrize("sync_age", [1000, 5000, -1])
def test_a_peer_whose_disk_does_not_move_is_not_live(sync_age: int) -> None:
    pair = Pair()
    for _ in range(3):
        pair.beat()
    pair.a.receive(pair.b.next_pulse(pair.now, sync_age), pair.now)
    assert not pair.a.is_live(pair.now)
    pair.beat()
    assert pair.a.is_live(pair.now), "and is live again once it does"


def test_a_line_arrives_once_and_is_repeated_only_until_acknowledged() -> None:
    pair = Pair()
    pair.beat()
    pair.a.put(attach(7))
    _, at_b = pair.beat()
    assert at_b == [attach(7)]
    _, again = pair.beat()
    assert again == [], "the repeat is no news"
    pair.beat()
    assert pair.a.next_pulse(pair.now, 0).lines == (), "acknowledged: no line any more"
    assert not pair.a.has_news


def test_a_line_survives_lost_pulses() -> None:
    pair = Pair()
    pair.beat()
    pair.a.put(attach(7))
    for _ in range(3):
        _, at_b = pair.beat(a_to_b=False)
        assert at_b == []
    _, at_b = pair.beat()
    assert at_b == [attach(7)]


def test_the_latest_line_of_a_group_wins() -> None:
    pair = Pair()
    pair.beat()
    pair.a.put(attach(7, 1))
    pair.a.put(detach(7, 1))
    pair.a.put(attach(7, 2))
    assert pair.beat()[1] == [attach(7, 2)]


def test_a_new_process_of_the_sender_detaches_what_the_old_one_led() -> None:
    pair = Pair()
    pair.beat()
    pair.a.put(attach(7))
    pair.beat()
    pair.a = PulseLink(2, TIMING)
    _, at_b = pair.beat()
    assert at_b == [detach(7)]
    assert not pair.b.is_live(pair.now), "the new process has not heard us"


def test_a_new_process_of_the_receiver_is_told_everything_again() -> None:
    pair = Pair()
    pair.beat()
    pair.a.put(attach(7))
    pair.a.put(attach(8))
    for _ in range(3):
        pair.beat()
    pair.b = PulseLink(2, TIMING)
    pair.beat()
    arrived = [line for _ in range(3) for line in pair.beat()[1]]
    assert arrived == [attach(7), attach(8)]


def test_TP_10_a_dead_process_is_not_listened_to() -> None:
    pair = Pair()
    old = PulseLink(1, TIMING)
    old.put(attach(9))
    yesterday = old.next_pulse(0, 0)
    pair.a = PulseLink(2, TIMING)
    pair.beat()
    assert pair.b.receive(yesterday, pair.now) == []


def test_a_receiver_that_missed_something_asks_for_all_of_it() -> None:
    pair = Pair()
    pair.a.put(attach(7))
    for _ in range(4):
        pair.beat()
    gap = Pulse(1, 1000, 1, 0, 0, 999)
    assert pair.b.receive(gap, pair.now) == [detach(7)], "what it held may be outdated"
    assert pair.b.next_pulse(pair.now, 0).heard == 0


def test_leaving_an_attachment_makes_the_next_attach_news() -> None:
    pair = Pair()
    pair.a.put(attach(7))
    for _ in range(3):
        pair.beat()
    pair.b.put(detach(7))
    pair.beat()
    pair.a.put(attach(7))
    assert attach(7) in [line for _ in range(2) for line in pair.beat()[1]]


def test_whoever_takes_back_an_earlier_leadership_stays_attached_to_the_later_leader() -> None:
    """Its own detach comes after the attach that it follows from; nobody but the pulse could tell it that this leader is gone."""
    pair = Pair()
    pair.b.put(attach(7, 5))
    pair.beat()
    pair.a.put(attach(7, 6))
    assert [line for _ in range(3) for line in pair.beat()[1]] == [attach(7, 6)]
    pair.b.put(detach(7, 5))
    pair.beat()
    pair.a = PulseLink(2, TIMING)
    assert pair.beat()[1] == [detach(7, 6)]


def test_a_group_that_is_gone_detaches_both_ways() -> None:
    pair = Pair()
    pair.a.put(attach(7, 3))
    pair.b.put(attach(8, 4))
    for _ in range(3):
        pair.beat()
    pair.a.leave(GroupKey(7))  # led here
    pair.a.leave(GroupKey(8))  # followed here
    pair.a.leave(GroupKey(9))  # never heard of
    _, at_b = pair.beat()
    assert at_b == [detach(7, 3), detach(8, 4)]


def test_an_attach_to_an_unknown_group_is_refused_with_both_replica_numbers_turned() -> None:
    pair = Pair()
    line = PulseLine(PulseKind.ATTACH, GroupKey(7), 5, EntryId(2, 9), EntryId(3, 11))
    pair.a.put(line)
    (told,) = pair.beat()[1]
    pair.b.refuse(told)
    at_a, _ = pair.beat()
    assert at_a == [PulseLine(PulseKind.DETACH, GroupKey(7), 5, EntryId(3, 11), EntryId(2, 9))]


def test_MG_11_refusals_are_bounded() -> None:
    link = PulseLink(1, TIMING)
    for group in range(REFUSALS_MAX + 1000):
        link.refuse(attach(group))
    assert len(link._changes) == REFUSALS_MAX
    assert len(link.next_pulse(0, 0).lines) == PULSE_LINES_MAX


def test_more_lines_than_fit_arrive_in_turns() -> None:
    pair = Pair()
    total = 2 * PULSE_LINES_MAX + 10
    for group in range(total):
        pair.a.put(attach(group))
    seen: set[int] = set()
    for _ in range(8):
        seen |= {line.group.group_id for line in pair.beat()[1]}
    assert len(seen) == total


def test_an_incarnation_counts_from_one() -> None:
    with pytest.raises(ConfigError, match="from 1"):
        PulseLink(0, TIMING)


@pytest.mark.parametrize("seed", range(30))
def test_after_any_losses_both_ends_agree(seed: int) -> None:
    """Lines put at random, pulses lost at random, processes restarted at random: when it calms down, b holds what a says."""
    rng = random.Random(seed)
    pair = Pair()
    truth: dict[int, PulseLine] = {}
    held: dict[int, PulseLine] = {}
    incarnation = {"a": 1, "b": 1}
    for step in range(300):
        if rng.random() < 0.4 and step < 280:
            group = rng.randrange(8)
            line = (attach if rng.random() < 0.6 else detach)(group, step)
            pair.a.put(line)
            truth[group] = line
        if rng.random() < 0.02 and step < 280:
            if rng.random() < 0.5:
                incarnation["a"] += 1
                pair.a, truth = PulseLink(incarnation["a"], TIMING), {}
            else:
                incarnation["b"] += 1
                pair.b, held = PulseLink(incarnation["b"], TIMING), {}
        calm = step >= 280
        _, at_b = pair.beat(a_to_b=calm or rng.random() < 0.6, b_to_a=calm or rng.random() < 0.6)
        for line in at_b:
            held[line.group.group_id] = line
    attached = {group: line for group, line in truth.items() if line.kind is PulseKind.ATTACH}
    assert {group: line for group, line in held.items() if line.kind is PulseKind.ATTACH} == attached
    assert pair.a.is_live(pair.now)
    assert pair.b.is_live(pair.now)
