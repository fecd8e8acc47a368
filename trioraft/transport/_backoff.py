"""How long to wait before a peer is dialled again.

Each failure doubles the wait up to a limit; each wait is shortened by up to a half at random, so that nodes that lost the same
peer at the same moment do not come back at the same moment.
"""

from __future__ import annotations

import random

import trio

from ._wakeup import Wakeup


class Backoff:
    def __init__(self, low: float, high: float, random: random.Random) -> None:
        self._low, self._high, self._random = low, high, random
        self._next = low
        self._wakeup = Wakeup()
        self._is_waiting = False

    def reset(self) -> None:
        """Start again from the shortest wait."""
        self._next = self._low

    def draw(self) -> float:
        """The next wait in seconds; each call counts as a failure."""
        limit, self._next = self._next, min(self._next * 2, self._high)
        return limit * self._random.uniform(0.5, 1.0)

    async def wait(self) -> None:
        """Wait for one drawn time, or until `wake`."""
        self._is_waiting = True
        try:
            with trio.move_on_after(self.draw()):
                await self._wakeup.wait()
        finally:
            self._is_waiting = False

    def wake(self) -> None:
        """End a wait that is going on; otherwise nothing, so that no wake-up is kept for the next failure."""
        if self._is_waiting:
            self._wakeup.set()
