"""What the others notice: how late the event loop and the pulse come, and how long one quiet group waits for its proposals.

Times are those of `time.monotonic`, which is one clock for all processes of a machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import trio

from trioraft import MultiRaftManager, RaftError

TICK_SECONDS = 0.005
_PROPOSE_SECONDS = 0.01
_NOTED_SECONDS = 0.002
"""Smaller delays of the loop are not noted: there would be one for each tick."""
_NOTED_MAX = 100_000


class Probe:
    """Watches a node from inside, while it runs."""

    def __init__(self, manager: MultiRaftManager, group_id: int | None) -> None:
        """
        Args:
            group_id: where to propose, one at a time; None: nowhere.
        """
        self._manager, self._group_id = manager, group_id
        self._ticks: list[tuple[float, float]] = []
        self._proposals: list[tuple[float, float]] = []
        self._pulses = {"out": Gap(lambda: manager.counters.pulses_out), "in": Gap(lambda: manager.counters.pulses_in)}
        self._errors = 0

    async def run(self) -> None:
        """Watch until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tick)
            if self._group_id is not None:
                nursery.start_soon(self._propose, self._group_id)

    def take(self) -> dict[str, Any]:
        """What was noticed since the last time: (moment, seconds late) of the loop, (moment, seconds) of each proposal; pulses."""
        taken = {
            "ticks": self._ticks,
            "proposals": self._proposals,
            "errors": self._errors,
            **{f"pulse_{name}_gap": gap.take() for name, gap in self._pulses.items()},
        }
        self._ticks, self._proposals, self._errors = [], [], 0
        return taken

    async def _tick(self) -> None:
        while True:
            due = time.monotonic() + TICK_SECONDS
            await trio.sleep(TICK_SECONDS)
            now = time.monotonic()
            if now - due > _NOTED_SECONDS and len(self._ticks) < _NOTED_MAX:
                self._ticks.append((now, now - due))
            for gap in self._pulses.values():
                gap.look(now)

    async def _propose(self, group_id: int) -> None:
        group = self._manager.get_group(group_id)
        while True:
            started = time.monotonic()
            try:
                await group.propose(b"probe")
            except RaftError:
                self._errors += 1
            else:
                if len(self._proposals) < _NOTED_MAX:
                    self._proposals.append((time.monotonic(), time.monotonic() - started))
            await trio.sleep(_PROPOSE_SECONDS)


class Gap:
    """The longest time for which a counter stood still."""

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read
        self._last = read()
        self._since = time.monotonic()
        self._longest = 0.0

    def look(self, now: float) -> None:
        """Has it moved?"""
        self._longest = max(self._longest, now - self._since)
        count = self._read()
        if count != self._last:
            self._last, self._since = count, now

    def take(self) -> float:
        """The longest time since this was asked last, in seconds."""
        longest, self._longest = self._longest, 0.0
        return longest
