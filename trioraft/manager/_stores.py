"""Which disk belongs to which node: the first store id seen of a node is remembered durably, and no other one counts.

A wiped disk under an old node id would vote and acknowledge as if it still had what it lost. Messages of a peer are dropped until its store
id is on our own disk: remembered only in memory, it would be forgotten by a crash, and the wiped one believed after it.
"""

from __future__ import annotations

import logging

import attrs
import trio

from .._errors import StorageError
from .._types import NodeId
from ..storage import MultiRaftStorage, PeerRecord

RETRY_SECONDS = 1.0
"""Between two tries to remember a store id."""

_log = logging.getLogger("trioraft.node")


class KnownStores:
    """Store ids by node."""

    def __init__(self, storage: MultiRaftStorage, nursery: trio.Nursery) -> None:
        self._storage, self._nursery = storage, nursery
        self._pending: dict[NodeId, str] = {}
        self._known = {node_id for node_id, record in storage.peers.items() if record.store_id is not None}

    def check(self, node_id: NodeId, store_id: str) -> str | None:
        """Return why this store must not speak for the node; None: it may. The first one of a node is being remembered from here on."""
        record = self._storage.peers.get(node_id)
        known = record.store_id if record is not None else None
        if known is None:
            known = self._pending.get(node_id)
            if known is None:
                self._pending[node_id] = store_id
                self._nursery.start_soon(self._remember, node_id, store_id)
                return None
        if known != store_id:
            return (
                f"wrong-store: node {node_id} had store {known} and now speaks from {store_id}: its disk was wiped or replaced. "
                f"Give it back its disk; without it, it is another node, and needs another id"
            )
        return None

    def is_known(self, node_id: NodeId) -> bool:
        """The node's store id is on our disk."""
        return node_id in self._known

    async def _remember(self, node_id: NodeId, store_id: str) -> None:
        record = self._storage.peers.get(node_id, PeerRecord(node_id))
        while node_id not in self._known:
            try:
                await self._storage.remember_peer(attrs.evolve(record, store_id=store_id))
            except StorageError as error:
                _log.warning("the store id of node %d cannot be remembered, so its messages are dropped; trying again: %s", node_id, error)
                await trio.sleep(RETRY_SECONDS)
            else:
                self._known.add(node_id)
        del self._pending[node_id]
