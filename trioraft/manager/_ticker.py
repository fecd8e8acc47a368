"""The clock task: deadlines of groups, pulses, liveness, forwards that waited too long. One task for the whole node."""

from __future__ import annotations

from collections.abc import Mapping

import trio

from .._types import GroupId, Millis
from ..group import RaftGroup
from ._clock import NodeClock
from ._deadlines import DeadlineQueue
from ._disk_watch import DiskWatch
from ._forwards import Forwards
from ._peers import Peers
from ._waking import WakingLines


async def run_ticker(
    clock: NodeClock,
    interval: Millis,
    *,
    deadlines: DeadlineQueue,
    alarm: Alarm,
    disk: DiskWatch,
    peers: Peers,
    waking: WakingLines,
    forwards: Forwards,
    groups: Mapping[GroupId, RaftGroup],
) -> None:
    """Tick until cancelled.

    Whatever was missed happens once: after a pause there is one pulse, and each group hears of its deadline once.
    """
    next_beat = clock.now()
    while True:
        now = clock.now()
        if now >= next_beat:
            disk.look()
            peers.beat(now)
            forwards.expire(now)
            next_beat = max(next_beat + interval, now + interval // 2)
        for group_id in deadlines.due(now):
            if (group := groups.get(group_id)) is not None:
                group.inbox.deadline_passed()
        is_more_to_wake = peers.wake_some()
        if waking.wake_some() or is_more_to_wake:
            await trio.lowlevel.checkpoint()
        else:
            await alarm.wait_until(clock.trio_time(min(next_beat, deadlines.next)))


class Alarm:
    """One task that sleeps until a point in time, or until somebody has an earlier one."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def ring(self) -> None:
        """There is something earlier."""
        self._event.set()

    async def wait_until(self, trio_time: float) -> None:
        with trio.move_on_at(trio_time):
            await self._event.wait()
        self._event = trio.Event()
