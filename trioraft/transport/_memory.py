"""One node's end of a network in memory: see `_memory_network` for what happens on the way.

Everything is done in the transport's own task: dialling, delivering, telling of losses. A verb only puts something under way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from typing import TypeAlias

import attrs
import trio

from .._errors import InvariantError, TransportError
from .._types import NodeId
from ..wire import Envelope, Hello, Pulse, decode_messages, decode_pulse, encode_messages, encode_pulse
from ._contract import Identity, MultiplexedTransport, PeerStatistics, Receiver, SnapshotReceiver, TransportStatistics
from ._greeting import CONTROL, judge, split_reason
from ._incidents import Incidents
from ._memory_network import MemoryNetwork
from ._remarks import Remarks
from ._statistics import LaneCounters
from ._wakeup import Wakeup

_PAYLOAD_BYTES_MAX = 64 << 20
_REDIAL_SECONDS = 1.0

Deliver: TypeAlias = Callable[[Receiver], None]
"""Hands something that has arrived to its receiver."""


@attrs.define(eq=False)
class _Link:
    """One direction, as its sender sees it."""

    source: MemoryTransport
    target: NodeId
    end: MemoryTransport | None = None
    """Who it leads to while it is open."""
    is_wanted: bool = True
    """To be dialled at the next turn."""
    next_dial: float = 0.0
    last_due: float = 0.0
    queued_bytes: int = 0
    queued_messages: int = 0
    dropped: int = 0
    in_incident: bool = False
    counters: LaneCounters = attrs.Factory(LaneCounters)
    pieces: trio.MemorySendChannel[bytes] | None = None

    def lose(self, messages: int) -> None:
        self.dropped += messages
        if not self.in_incident:
            self.in_incident = True
            self.source.incidents.note(self.target)

    def shut(self) -> None:
        """Break: what is under way on it will not be delivered."""
        if self.end is None:
            return
        if self.end.inbound.get(self.source.node_id) is self:
            del self.end.inbound[self.source.node_id]
        self.end = None
        if self.pieces is not None:
            self.pieces.close()
            self.pieces = None
        self.in_incident = False
        self.lose(0)


class MemoryTransport(MultiplexedTransport):
    """One node's end of a `MemoryNetwork`: sender and listener in one. Addresses only say which peers there are."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self.node_id: NodeId = 0
        self.is_dead = False
        self.links: dict[NodeId, _Link] = {}
        self.inbound: dict[NodeId, _Link] = {}
        """The links that lead here, by where they come from; what comes on an older one is not delivered."""
        self.incidents = Incidents()
        self._me: Identity | None = None
        self._receiver: Receiver | None = None
        self._nursery: trio.Nursery | None = None
        self._arrivals: list[tuple[float, int, _Link, int, int, Deliver]] = []
        self._wakeup = Wakeup()
        self._remarks = Remarks()
        self._dropped_unknown = 0

    async def serve(self, identity: Identity, receiver: Receiver, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take part in the network until cancelled or killed (then: do nothing until cancelled)."""
        if self._me is not None:
            raise trio.BusyResourceError("this transport serves a node already")
        self._me, self._receiver, self.node_id = identity, receiver, identity.node_id
        self.links.pop(identity.node_id, None)
        self._network.join(self)
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self.incidents.tell, self._tell_unreachable)
                task_status.started()
                await self._turn_for_ever()
        finally:
            self.is_dead = True
            self._network.leave(self)

    # The verbs.

    def set_address(self, peer: NodeId, address: str) -> None:
        if peer != self.node_id and peer not in self.links:
            self.links[peer] = _Link(self, peer)
            self._wakeup.set()

    def remove_peer(self, peer: NodeId) -> None:
        link = self.links.pop(peer, None)
        if link is not None:
            link.shut()

    def retry_now(self, peer: NodeId) -> None:
        self.dial_soon(peer)

    def send_append_entries(self, peer: NodeId, envelopes: Sequence[Envelope]) -> None:
        self._send_messages(peer, envelopes)

    def send_vote(self, peer: NodeId, envelopes: Sequence[Envelope]) -> None:
        self._send_messages(peer, envelopes)

    def send_heartbeat_batch(self, peer: NodeId, pulse: Pulse) -> None:
        link = self._open_link(peer, 1)
        if link is None:
            return
        if not self._network.codec:
            self._send(link, 0, 0, lambda receiver: receiver.pulse(self.node_id, pulse))
            return
        body = encode_pulse(pulse)
        self._send(link, len(body), 0, lambda receiver: receiver.pulse(self.node_id, decode_pulse(body)))

    async def send_install_snapshot(self, peer: NodeId, data: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        link = self.links.get(peer)
        if self.is_dead or link is None or link.end is None:
            raise TransportError("away", peer, f"there is no link to node {peer}")
        weather = self._network.weather(self.node_id, peer)
        await trio.sleep(weather.delay)
        try:
            if link.pieces is None and link.end is not None:
                link.pieces = link.end.take_pieces(self.node_id)
            if link.pieces is None:
                raise trio.ClosedResourceError
            await link.pieces.send(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise TransportError("broken", peer, f"the link to node {peer} broke") from error

    @property
    def payload_bytes_max(self) -> int:
        return _PAYLOAD_BYTES_MAX

    def has_room(self, peer: NodeId) -> bool:
        link = self.links.get(peer)
        return link is not None and link.end is not None and link.queued_bytes < self._network.queue_bytes_max

    def statistics(self) -> TransportStatistics:
        return TransportStatistics(peers={peer: _frozen(link) for peer, link in self.links.items()}, dropped_unknown=self._dropped_unknown)

    # Links.

    def dial_soon(self, peer: NodeId) -> None:
        """Dial at the next turn, if there is a link and it is not open."""
        link = self.links.get(peer)
        if link is not None and link.end is None:
            link.is_wanted = True
            self._wakeup.set()

    def _dial(self, link: _Link, me: Identity, receiver: Receiver) -> None:
        link.is_wanted = False
        link.next_dial = trio.current_time() + _REDIAL_SECONDS
        link.counters.attempts += 1
        other = self._network.reach(self.node_id, link.target)
        if other is None or other._me is None or other._receiver is None:
            link.counters.last_refusal = "away: nobody answers"
            return
        refusal = _greet(me, receiver, link.target, other._me, other._receiver)
        if refusal is not None:
            link.counters.last_refusal = f"{refusal[0]}: {refusal[1]}"
            self._remarks.warn(
                (link.target, refusal[0]), "the link from node %d to node %d is refused: %s: %s", me.node_id, link.target, *refusal
            )
            return
        self._remarks = Remarks()
        link.end, link.in_incident = other, False
        link.counters.connects += 1
        other.inbound[self.node_id] = link
        other.arrive(trio.current_time(), link, 0, 0, lambda theirs: theirs.connected(me.node_id))
        receiver.connected(link.target)

    def _open_link(self, peer: NodeId, messages: int) -> _Link | None:
        """The link to a peer if it is open; otherwise `messages` are lost, counted, and the peer is dialled now and then."""
        link = self.links.get(peer)
        if self.is_dead:
            return None
        if link is None:
            self._dropped_unknown += messages
        elif link.end is not None:
            return link
        else:
            link.lose(messages)
            if trio.current_time() >= link.next_dial:
                self.dial_soon(peer)
        return None

    # Moving.

    def _send_messages(self, peer: NodeId, envelopes: Sequence[Envelope]) -> None:
        link = self._open_link(peer, len(envelopes))
        if link is None or not envelopes:
            return
        if not self._network.codec:
            kept = tuple(envelopes)
            self._send(link, 0, len(kept), lambda receiver: receiver.messages(self.node_id, kept))
            return
        body = encode_messages(envelopes, self.node_id, peer)
        self._send(link, len(body), len(envelopes), partial(self._decode_messages, body, peer))

    def _decode_messages(self, body: bytes, target: NodeId, receiver: Receiver) -> None:
        frame = decode_messages(body, self.node_id, target, payload_bytes_max=_PAYLOAD_BYTES_MAX)
        if frame.bad:
            raise InvariantError(f"{frame.bad} messages of node {self.node_id} were encoded and cannot be decoded")
        receiver.messages(self.node_id, frame.envelopes)

    def _send(self, link: _Link, size: int, messages: int, deliver: Deliver) -> None:
        network, random = self._network, self._network.random
        weather = network.weather(self.node_id, link.target)
        link.counters.frames_sent += 1
        link.counters.bytes_sent += size
        link.counters.messages_sent += messages
        if weather.loss and random.random() < weather.loss:
            link.dropped += messages
        elif link.queued_bytes and link.queued_bytes + size > network.queue_bytes_max:
            link.lose(messages)
        elif link.end is not None:
            due = trio.current_time() + weather.delay + (random.random() * weather.jitter if weather.jitter else 0.0)
            link.last_due = max(due, link.last_due)
            link.queued_bytes += size
            link.queued_messages += messages
            link.end.arrive(link.last_due, link, size, messages, deliver)

    def arrive(self, due: float, link: _Link, size: int, messages: int, deliver: Deliver) -> None:
        """Take something that is under way to us; `deliver` is called with our receiver when it is due."""
        heappush(self._arrivals, (due, next(self._network.order), link, size, messages, deliver))
        self._wakeup.set()

    async def _turn_for_ever(self) -> None:
        while not self.is_dead:
            self._dial_wanted()
            self._deliver_due()
            with trio.move_on_at(self._arrivals[0][0] if self._arrivals else math.inf):
                await self._wakeup.wait()
        await trio.sleep_forever()

    def _dial_wanted(self) -> None:
        if self._me is None or self._receiver is None:
            return
        for link in list(self.links.values()):
            if link.is_wanted and link.end is None:
                self._dial(link, self._me, self._receiver)

    def _deliver_due(self) -> None:
        now = trio.current_time()
        while self._arrivals and self._arrivals[0][0] <= now and self._receiver is not None and not self.is_dead:
            _, _, link, size, messages, deliver = heappop(self._arrivals)
            link.queued_bytes -= size
            link.queued_messages -= messages
            if link.queued_bytes * 2 <= self._network.queue_bytes_max and link.end is not None:
                link.in_incident = False
            if self.inbound.get(link.source.node_id) is link:
                deliver(self._receiver)

    def _tell_unreachable(self, peer: NodeId) -> None:
        if self._receiver is not None and not self.is_dead:
            self._receiver.unreachable(peer)

    def take_pieces(self, source: NodeId) -> trio.MemorySendChannel[bytes] | None:
        """Open a way in for snapshots, or None if nobody here takes any."""
        nursery, receiver = self._nursery, self._receiver
        if nursery is None or receiver is None or not isinstance(receiver, SnapshotReceiver):
            return None
        send, receive = trio.open_memory_channel[bytes](0)
        nursery.start_soon(self._read_pieces, source, receive, receiver)
        return send

    async def _read_pieces(self, source: NodeId, pieces: trio.MemoryReceiveChannel[bytes], receiver: SnapshotReceiver) -> None:
        async with pieces:
            async for data in pieces:
                if self.is_dead:
                    return
                await receiver.snapshot(source, data)


def _greet(me: Identity, mine: Receiver, target: NodeId, other: Identity, theirs: Receiver) -> tuple[str, str] | None:
    """The handshake without its bytes: both sides check what they check on a real connection."""
    hello = Hello(me.cluster_id, me.node_id, target, me.store_id, me.incarnation, CONTROL)
    refusal = judge(hello, other, theirs)
    if refusal is not None:
        return refusal
    reason = mine.check_peer(other)
    return None if reason is None else split_reason(reason)


def _frozen(link: _Link) -> PeerStatistics:
    counters = link.counters
    return PeerStatistics(
        connected_lanes=2 if link.end is not None else 0,
        queued_messages=link.queued_messages,
        queued_bytes=link.queued_bytes,
        dropped_messages=link.dropped,
        messages_sent=counters.messages_sent,
        frames_sent=counters.frames_sent,
        bytes_sent=counters.bytes_sent,
        attempts=counters.attempts,
        connects=counters.connects,
        last_refusal=counters.last_refusal,
    )
