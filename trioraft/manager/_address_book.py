"""Where the nodes are: one address per node id, on every node's disk, for all groups.

How it works:

- What `open_manager` is given has version 0 and stays here. Whoever moves a node gives its address the next version; the highest one wins,
  of two with one version the larger text, so that all nodes agree whatever they hear first.
- A node that learns something newer writes it to its disk, uses it, and only then tells all its peers: none hears what a crash could undo.
- What is told may be lost: so two nodes that meet tell each other everything of a version above 0.
- A node that was not known becomes a peer when its address is: from then on it is dialled, and let in.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, NamedTuple

import attrs
import trio

from .._errors import ConfigError, StorageError
from .._types import NodeId
from ..observe import Counters
from ..storage import PeerRecord
from ..transport import MultiplexedTransport
from ..wire import ADDRESS_BYTES_MAX, NO_GROUP, Envelope, NodeAddress
from ._peer_records import PeerRecords
from ._peers import Peers

ADDRESSES_MAX: Final = 4096
"""Nodes whose addresses are taken from others, and told to others: a peer may name any number of nodes."""

TELL_SECONDS: Final = 0.1
"""What is to be told is gathered for so long: of a peer that connects, several connections open within a moment."""

RETRY_SECONDS: Final = 1.0
"""Between two tries to write down an address that a peer told."""

_PORTION: Final = 256  # addresses handed to the transport at once; even the longest of so many fit into the header of one frame

_log = logging.getLogger("trioraft.node")


class Place(NamedTuple):
    """Where a node is, or was. The larger of two is the newer one."""

    version: int
    """0: as somebody configured it on this node, and nobody else's business."""
    address: str


_NOWHERE: Final = Place(0, "")


class AddressBook:
    """The addresses of all nodes that are known, this one included."""

    def __init__(
        self,
        node_id: NodeId,
        configured: Mapping[NodeId, str],
        records: PeerRecords,
        *,
        peers: Peers,
        transport: MultiplexedTransport,
        counters: Counters,
        nursery: trio.Nursery,
    ) -> None:
        self._node_id, self._records = node_id, records
        self._peers, self._transport, self._counters = peers, transport, counters
        self._nursery = nursery
        self._places = {peer: Place(0, address) for peer, address in configured.items()}
        self._heard: dict[NodeId, Place] = {}  # on their way to the disk
        self._setting = trio.Lock()
        self._met: set[NodeId] = set()
        self._news: set[NodeId] = set()
        self._to_tell = trio.Event()
        self._recall()
        for peer in sorted(self._places.keys() - {node_id}):
            peers.add(peer)

    def _recall(self) -> None:
        """Take what the disk says over what the caller says, if it was told since."""
        for node_id in self._records.node_ids():
            place = _place_of(self._records.find(node_id))
            try:
                if place > _NOWHERE:
                    self._transport.check_address(place.address)
                    self._places[node_id] = place
            except ConfigError as error:
                _log.warning("the address that is remembered of node %d is not used: %s", node_id, error)

    def __getitem__(self, node_id: NodeId) -> str:
        return self._places[node_id].address

    def addresses(self) -> dict[NodeId, str]:
        return {node_id: self[node_id] for node_id in sorted(self._places)}

    def dial(self) -> None:
        """Tell the transport where all are. Not before it serves: one that serves another node refuses to, and must not move its peers."""
        for peer in self._peers:
            self._transport.set_address(peer, self[peer])

    # --- what this node's user says -----------------------------------------------------------------------------------------------------

    async def set(self, node_id: NodeId, address: str) -> None:
        """See `MultiRaftManager.set_address`."""
        if type(node_id) is not int or not 1 <= node_id < 1 << 32:
            raise ConfigError(f"a node id is a whole number from 1 to 2**32 - 1, not {node_id!r}")
        address = self._checked(address)
        async with self._setting:
            newest = self._newest(node_id)
            holder = next((other for other, place in self._all() if place.address == address and other != node_id), None)
            if holder is not None:
                raise ConfigError(f"{address} is the address of node {holder} already, so it cannot be that of node {node_id}")
            if node_id not in self._places and len(self._places) >= ADDRESSES_MAX:
                raise ConfigError(f"node {self._node_id} knows the addresses of {len(self._places)} nodes already: no room for more")
            version = max(newest.version, self._records.find(node_id).address_version) + 1
            # NB: also what is said already: it may only have been heard, and not be on the disk.
            await self._adopt(node_id, newest if newest.version and newest.address == address else Place(version, address))
        self._news.add(node_id)
        self._to_tell.set()

    def _checked(self, address: str) -> str:
        if type(address) is not str or not address.isprintable() or len(address.encode()) > ADDRESS_BYTES_MAX:
            raise ConfigError(f"an address is printable text of up to {ADDRESS_BYTES_MAX} bytes, not {address!r:.100}")
        return self._transport.check_address(address)

    def _all(self) -> list[tuple[NodeId, Place]]:
        return [(node_id, self._newest(node_id)) for node_id in self._places.keys() | self._heard.keys()]

    def _newest(self, node_id: NodeId) -> Place:
        return max(self._places.get(node_id, _NOWHERE), self._heard.get(node_id, _NOWHERE))

    # --- what others say ----------------------------------------------------------------------------------------------------------------

    def hear(self, told: NodeAddress) -> None:
        """A peer says where a node is."""
        node_id, place = told.node_id, Place(told.version, told.address)
        if place <= self._newest(node_id):
            return
        if node_id not in self._places and len(self._places.keys() | self._heard.keys()) >= ADDRESSES_MAX:
            _log.warning("the address of node %d is not taken: those of %d nodes are known already", node_id, ADDRESSES_MAX)
            return
        try:
            self._checked(told.address)
        except ConfigError as error:
            _log.warning("the address that a peer told of node %d is not taken: %s", node_id, error)
            return
        is_being_taken = node_id in self._heard
        self._heard[node_id] = place
        if not is_being_taken:
            self._nursery.start_soon(self._take, node_id)

    async def _take(self, node_id: NodeId) -> None:
        while (place := self._heard[node_id]) > self._places.get(node_id, _NOWHERE):
            try:
                await self._adopt(node_id, place)
            except StorageError as error:
                _log.warning("the new address of node %d cannot be remembered, so it is not used; trying again: %s", node_id, error)
                await trio.sleep(RETRY_SECONDS)
        del self._heard[node_id]

    async def _adopt(self, node_id: NodeId, place: Place) -> None:
        """Make it durable, use it, and pass it on."""
        await self._records.change(node_id, lambda record: _with_place(record, place))
        if place <= self._places.get(node_id, _NOWHERE):
            return  # a newer one overtook it
        before = self._places.get(node_id, _NOWHERE)
        self._places[node_id] = place
        _log.info("node %d is at %s from now on; it was at %s", node_id, place.address, before.address or "no known place")
        if node_id != self._node_id:
            if node_id not in self._peers:
                self._peers.add(node_id)
            self._transport.set_address(node_id, place.address)
        self._news.add(node_id)
        self._to_tell.set()

    # --- what others hear ---------------------------------------------------------------------------------------------------------------

    def greet(self, peer: NodeId) -> None:
        """A connection with the peer was opened: it may not know what we know."""
        if any(place.version for place in self._places.values()):
            self._met.add(peer)
            self._to_tell.set()

    async def tell(self) -> None:
        """Tell the peers what they may not know, until cancelled.

        A task of its own: who calls `set` may do so while the node stops, when no task can be begun for him.
        """
        while True:
            await self._to_tell.wait()
            await trio.sleep(TELL_SECONDS)
            self._to_tell = trio.Event()
            await self._tell_news()

    async def _tell_news(self) -> None:
        met, self._met = self._met, set()
        news, self._news = self._news, set()
        book = [node_id for node_id, place in sorted(self._places.items()) if place.version]
        for peer in sorted(self._peers):
            self._say(peer, book if peer in met else [node_id for node_id in book if node_id in news])
            await trio.lowlevel.checkpoint()

    def _say(self, peer: NodeId, node_ids: list[NodeId]) -> None:
        self._counters.messages_out += len(node_ids)
        for start in range(0, len(node_ids), _PORTION):
            told = (NodeAddress(node_id, *self._places[node_id]) for node_id in node_ids[start : start + _PORTION])
            self._transport.send_vote(peer, [Envelope(NO_GROUP, address) for address in told])


def _place_of(record: PeerRecord) -> Place:
    return Place(record.address_version, record.address) if record.address is not None and record.address_version > 0 else _NOWHERE


def _with_place(record: PeerRecord, place: Place) -> PeerRecord:
    """The record with that place, unless it has a newer one by now."""
    if _place_of(record) >= place:
        return record
    return attrs.evolve(record, address=place.address, address_version=place.version)
