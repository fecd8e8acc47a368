"""Lines of pulses for groups that do not run yet, a few at a time.

A node that starts again hears at once of all the groups that count on it: thousands of lines in one pulse. To start a group takes a
fraction of a millisecond, and what its machine takes; all in one stretch would hold up pulses for longer than an election timeout.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from .._types import GroupId, NodeId
from ..wire import PulseLine

PORTION_SECONDS = 0.005
"""How long groups are woken in one stretch."""


class WakingLines:
    """Lines in the order in which they came, each group's after another."""

    def __init__(self, deliver: Callable[[NodeId, PulseLine], None], hurry: Callable[[], None]) -> None:
        """
        Args:
            deliver: gives a line to its group, which it may have to start for that.
            hurry: has `wake_some` called soon.
        """
        self._deliver, self._hurry = deliver, hurry
        self._lines: deque[tuple[NodeId, PulseLine]] = deque()
        self._groups: set[GroupId] = set()

    def __contains__(self, group_id: GroupId) -> bool:
        """Whether lines of the group wait, so that another one must wait behind them."""
        return group_id in self._groups

    def put(self, peer: NodeId, line: PulseLine) -> None:
        self._lines.append((peer, line))
        self._groups.add(line.group.group_id)
        self._hurry()

    def wake_some(self) -> bool:
        """Deliver what can be delivered quickly; True: there is more."""
        end = time.perf_counter() + PORTION_SECONDS
        while self._lines:
            self._deliver(*self._lines.popleft())
            if not self._lines:
                self._groups.clear()
            elif time.perf_counter() >= end:
                return True
        return False
