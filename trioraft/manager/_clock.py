"""The node's clock.

Time is Trio's, in whole milliseconds, plus what the machine slept: a lease must not outlive a closed lid, and Linux's monotonic clock
stands still while the machine is suspended.
"""

from __future__ import annotations

import time

import trio

from .._types import Millis

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Goes on while the machine is suspended; only how far it runs away from the other one means anything."""

# Of one reading after the other, how many are tried at the start: the scheduler may have come between some of them.
_TRIES = 3


def _offset_at_most() -> float:
    """How far the clock that counts suspended time is ahead, or less: time that passes between the two readings makes it less."""
    ahead = time.clock_gettime(_BOOTTIME)
    return ahead - time.clock_gettime(time.CLOCK_MONOTONIC)


def _offset_at_least() -> float:
    behind = time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.clock_gettime(_BOOTTIME) - behind


class NodeClock:
    """Milliseconds since the node started, suspended time included."""

    def __init__(self) -> None:
        self._start = trio.current_time()
        self._offset = min(_offset_at_least() for _ in range(_TRIES))
        self._slept = 0.0

    def _suspended(self) -> float:
        # NB: at most what it was, so that the time between two readings never shows: time under a mock clock stays exact. And it never
        # goes back, or time would.
        self._slept = max(self._slept, _offset_at_most() - self._offset)
        return self._slept

    def now(self) -> Millis:
        return int((trio.current_time() - self._start + self._suspended()) * 1000) + 1

    def trio_time(self, moment: Millis) -> float:
        """When, on Trio's clock, `now` will have reached `moment` if the machine stays awake."""
        return self._start - self._suspended() + moment / 1000
