"""What a node says of itself: sentences for the log, events for instruments."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
import trio.testing

import trioraft
from trioraft import DiskSpaceChanged, GroupFailed, Instrument, PeerLiveness, PeerRefused, Role, RoleChanged, SlowRoundTrip
from trioraft.observe import Announcer, Counters

from .cluster import running_cluster


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (RoleChanged(7, Role.LEADER, 3, 1), "group 7: leader in term 3, led by node 1"),
        (RoleChanged(7, Role.CANDIDATE, 3, None), "group 7: candidate in term 3, no leader known"),
        (GroupFailed(7, ValueError("x")), "group 7 has stopped on this node: ValueError: x"),
        (PeerLiveness(2, True), "node 2 is live"),
        (PeerLiveness(2, False), "node 2 is not live any more"),
        (PeerRefused(2, "wrong-store: y"), "node 2 is refused: wrong-store: y"),
        (DiskSpaceChanged(False), "the disk is full: this node takes no part until there is space"),
        (DiskSpaceChanged(True), "the disk has space again"),
    ],
)
def test_an_event_is_a_sentence(event: trioraft.Event, text: str) -> None:
    assert str(event) == text


def test_an_instrument_that_fails_costs_nothing_but_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Instrument):
        def on_event(self, event: trioraft.Event) -> None:
            raise RuntimeError("a bug in the observer")

    counters, seen = Counters(), list[trioraft.Event]()

    class Fine(Instrument):
        def on_event(self, event: trioraft.Event) -> None:
            seen.append(event)

    announcer = Announcer(counters, [Broken(), Fine()])
    announcer.announce(PeerLiveness(2, True))
    assert seen == [PeerLiveness(2, True)]
    assert counters.instrument_errors == 1
    assert any("instrument failed" in record.message for record in caplog.records)


async def test_PV_10_a_slow_round_trip_is_named_in_the_log_instead_of_flapping_in_silence(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "trioraft")
    async with running_cluster() as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader()
            cluster.network.set_delay(0.36)
            await trio.sleep(20)
            slow: list[Any] = leader.events.of(SlowRoundTrip)
            assert slow
            assert len(slow) <= 2, "once a minute for each peer, not for each pulse"
            assert any("election timeout too short" in record.getMessage() for record in caplog.records)
            assert leader.group().is_leader, "and nothing flaps"
