"""What this node's disk remembers of the others, changed by several at once: one at a time, each from what the one before left."""

from __future__ import annotations

from collections.abc import Callable

import trio

from .._types import NodeId
from ..storage import MultiRaftStorage, PeerRecord


class PeerRecords:
    """The storage's records of peers. Each is written whole, so nobody may write one that was read before another write of it."""

    def __init__(self, storage: MultiRaftStorage) -> None:
        self._storage = storage
        self._turn = trio.Lock()

    def find(self, node_id: NodeId) -> PeerRecord:
        return self._storage.peers.get(node_id, PeerRecord(node_id))

    def node_ids(self) -> list[NodeId]:
        """The nodes of which something is remembered, ascending."""
        return sorted(self._storage.peers)

    async def change(self, node_id: NodeId, change: Callable[[PeerRecord], PeerRecord]) -> None:
        """Make something else of what is remembered of a node; returns after the sync.

        Raises:
            StorageError: it could not be written; the old record stands, and asking again is safe.

        *Cancellation:* either record may be on the disk.
        """
        async with self._turn:
            await self._storage.remember_peer(change(self.find(node_id)))
