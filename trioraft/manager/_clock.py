"""The node's clock.

Time is Trio's, in whole milliseconds, plus what the machine slept: a lease must not outlive a closed lid, and Linux's monotonic clock
stands still while the machine is suspended.
"""

from __future__ import annotations

import time

import trio

from .._types import Millis

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
