"""Losses on their way to whoever must hear of them.

A loss is often noticed inside a verb, that is inside the turn of the very driver that will be told. So it is noted there and told
from a task of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from .._types import NodeId
from ._wakeup import Wakeup


class Incidents:
    def __init__(self) -> None:
        self._peers: dict[NodeId, None] = {}
        self._wakeup = Wakeup()

    def note(self, peer: NodeId) -> None:
        self._peers[peer] = None
        self._wakeup.set()

    async def tell(self, unreachable: Callable[[NodeId], None]) -> None:
        """Tell each peer's incidents as one, until cancelled."""
        while True:
            await self._wakeup.wait()
            peers, self._peers = self._peers, {}
            for peer in peers:
                unreachable(peer)
