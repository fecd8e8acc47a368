"""Changes of a replica's role, as a stream of its own for each reader."""

from __future__ import annotations

from collections import deque
from typing import Final, Self

import attrs
import trio

from .._types import NodeId, Term
from ..core import Role

KEPT_MAX: Final = 256
"""Changes that wait for a reader; one that is slower than that misses the oldest, and sees it by the numbers."""


@attrs.frozen
class LeaderChange:
    """This replica's role, its term, or the leader that it knows, from now on."""

    number: int
    """Counts the changes of this replica since it was opened, which is 0: a hole is what a slow reader missed, beyond 256 that waited."""
    role: Role
    term: Term
    leader: NodeId | None


class Changes:
    """An iterator over changes, for one task; it ends when the replica stops. It begins with how things are. It needs no closing."""

    def __init__(self, present: LeaderChange, *, has_stopped: bool) -> None:
        self._kept: deque[LeaderChange] = deque([present], maxlen=KEPT_MAX)
        self._has_news = trio.Event()
        self._has_stopped = has_stopped

    def put(self, change: LeaderChange) -> None:
        self._kept.append(change)
        self._has_news.set()

    def stop(self) -> None:
        self._has_stopped = True
        self._has_news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LeaderChange:
        """Return the next change; waits for it.

        *Cancellation:* nothing is skipped.
        """
        if not self._kept and not self._has_stopped:
            self._has_news = trio.Event()
            await self._has_news.wait()
        else:
            await trio.lowlevel.checkpoint()
        if not self._kept:
            raise StopAsyncIteration
        return self._kept.popleft()
