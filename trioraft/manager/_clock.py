"""The node's clock, and the one queue of deadlines of all its groups.

Time is Trio's, in whole milliseconds, plus what the machine slept: a lease must not outlive a closed lid, and Linux's monotonic clock
stands still while the machine is suspended. A late timer fires once, whatever was missed.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable

import trio

from .._types import NEVER, GroupId, Millis

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


def _boot_offset() -> float:
    """How far the clock that counts suspended time is ahead of the one that does not; only differences of this mean anything."""
    if _BOOTTIME is None:
        return 0.0
    return time.clock_gettime(_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class NodeClock:
    """Milliseconds since the node started, suspended time included."""

    def __init__(self) -> None:
        self._start = trio.current_time()
        self._boot_offset = _boot_offset()

    def _suspended(self) -> int:
        # NB: whole seconds, so that the jitter between two readings never shows: time under a mock clock stays exact.
        return int(_boot_offset() - self._boot_offset)

    def now(self) -> Millis:
        return int((trio.current_time() - self._start + self._suspended()) * 1000) + 1

    def trio_time(self, moment: Millis) -> float:
        """When, on Trio's clock, `now` will have reached `moment` if the machine stays awake."""
        return self._start - self._suspended() + moment / 1000


class DeadlineQueue:
    """Deadlines by group. Moving one later costs a dict store; the heap is touched only when one moves earlier or comes."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._wanted: dict[GroupId, Millis] = {}
        self._queued: dict[GroupId, Millis] = {}  # the earliest heap entry of each group
        self._heap: list[tuple[Millis, GroupId]] = []

    def set(self, group_id: GroupId, deadline: Millis) -> None:
        """Wake the group at `deadline`, instead of any earlier wish; NEVER: not at all."""
        if deadline >= NEVER:
            self._wanted.pop(group_id, None)
            return
        self._wanted[group_id] = deadline
        if deadline < self._queued.get(group_id, NEVER):
            self._queued[group_id] = deadline
            heapq.heappush(self._heap, (deadline, group_id))
            if self._heap[0][1] == group_id:
                self._changed()

    def forget(self, group_id: GroupId) -> None:
        """The group is gone."""
        self._wanted.pop(group_id, None)

    def due(self, now: Millis) -> list[GroupId]:
        """Take the groups whose deadline has come."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            moment, group_id = heapq.heappop(self._heap)
            if self._queued.get(group_id) != moment:
                continue  # a leftover: the group has an earlier entry, which came before this one
            del self._queued[group_id]
            wanted = self._wanted.get(group_id, NEVER)
            if wanted <= now:
                del self._wanted[group_id]
                due.append(group_id)
            else:
                self.set(group_id, wanted)
        return due

    @property
    def next(self) -> Millis:
        """No group wants to be woken before this."""
        return self._heap[0][0] if self._heap else NEVER
