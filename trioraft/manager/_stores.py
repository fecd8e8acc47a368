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
from ..storage import PeerRecord
from ._peer_records import PeerRecords

RETRY_SECONDS = 1.0
"""Between two tries to remember a store id."""

_log = logging.getLogger("trioraft.node")


class KnownStores:
    """Store ids by node."""

    def __init__(self, records: PeerRecords, nursery: trio.Nursery) -> None:
        self._records, self._nursery = records, nursery
        self._pending: dict[NodeId, str] = {}
        self._known = {node_id for node_id in records.node_ids() if records.find(node_id).store_id is not None}

    def check(self, node_id: NodeId, store_id: str) -> str | None:
        """Return why this store must not speak for the node; None: it may. The first one of a node is being remembered from here on."""
        known = self._records.find(node_id).store_id or self._pending.get(node_id)
        if known is None:
            self._pending[node_id] = store_id
            self._nursery.start_soon(self._remember, node_id, store_id)
        elif known != store_id:
            return (
                f"wrong-store: node {node_id} had store {known} and now speaks from {store_id}: its disk was wiped or replaced. "
                f"Give it back its disk; without it, it is another node, and needs another id, or to be removed from all groups "
                f"and then forgotten by forget_store on every node"
            )
        return None

    def is_known(self, node_id: NodeId) -> bool:
        """The node's store id is on our disk."""
        return node_id in self._known

    async def forget(self, node_id: NodeId) -> None:
        """Let another store speak for the node: the next one that is seen.

        Raises:
            StorageError: it could not be written.
        """
        try:
            await self._records.change(node_id, lambda record: attrs.evolve(record, store_id=None))
        finally:
            # NB: no checkpoint between the end of that write and this: nobody can begin to remember a store in between.
            if self._records.find(node_id).store_id is None:
                self._known.discard(node_id)
                self._pending.pop(node_id, None)

    async def _remember(self, node_id: NodeId, store_id: str) -> None:
        def with_store(record: PeerRecord) -> PeerRecord:
            return attrs.evolve(record, store_id=store_id) if self._pending.get(node_id) == store_id else record

        # It may be forgotten while it waits to be written, and then the next one seen is remembered instead.
        while self._pending.get(node_id) == store_id:
            try:
                await self._records.change(node_id, with_store)
            except StorageError as error:
                _log.warning("the store id of node %d cannot be remembered, so its messages are dropped; trying again: %s", node_id, error)
                await trio.sleep(RETRY_SECONDS)
            else:
                if self._pending.pop(node_id, None) == store_id:
                    self._known.add(node_id)
