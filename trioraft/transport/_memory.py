"""One node's end of a network in memory: see `_memory_network` for what happens on the way.

Everything is done in the transport's own task: dialling, delivering, telling of losses. A verb only puts something under way; the
pulse waits for the task's next turn, so that a newer one can take its place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from heapq import heappop, heappush

import trio

from .._errors import InvariantError, RaftError, TransportError
from .._types import NodeId
from ..wire import (
    BODY_OVERHEAD_MAX,
    MESSAGE_OVERHEAD_MAX,
    RECORD_HEADER_SIZE,
    Envelope,
    Hello,
    Pulse,
    decode_messages,
    decode_pulse,
    encode_messages,
    encode_pulse,
    message_size,
)
from ._contract import Identity, MultiplexedTransport, PeerStatistics, Receiver, SnapshotReceiver, TransportStatistics
from ._greeting import CONTROL, judge, split_reason
from ._incidents import Incidents
from ._memory_link import Deliver, Lane, Link, Parcel
from ._memory_network import MemoryNetwork
from ._remarks import Remarks, logger
from ._wakeup import Wakeup

_PAYLOAD_BYTES_MAX = 64 << 20
_MESSAGE_BYTES_MAX = _PAYLOAD_BYTES_MAX + BODY_OVERHEAD_MAX + MESSAGE_OVERHEAD_MAX + RECORD_HEADER_SIZE
_REDIAL_SECONDS = 1.0


class MemoryTransport(MultiplexedTransport):
    """One node's end of a `MemoryNetwork`: sender and listener in one. Addresses only say which peers there are."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self.node_id: NodeId = 0
        self.is_dead = False
        self.links: dict[NodeId, Link] = {}
        self.inbound: dict[NodeId, Link] = {}
        """The links that lead here, by where they come from; what comes on an older one is not delivered."""
        self.incidents = Incidents()
        self._me: Identity | None = None
        self._receiver: Receiver | None = None
        self._nursery: trio.Nursery | None = None
        self._arrivals: list[tuple[float, int, Parcel]] = []
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
            for link in self.links.values():
                link.close_pieces()

    # The verbs.

    def set_address(self, peer: NodeId, address: str) -> None:
        if peer != self.node_id and peer not in self.links:
            self.links[peer] = Link(self, peer)
            self._wakeup.set()

    def remove_peer(self, peer: NodeId) -> None:
        link = self.links.pop(peer, None)
        if link is not None:
            link.shut()

    def retry_now(self, peer: NodeId) -> None:
        self.dial_soon(peer)

    def send_append_entries(self, peer: NodeId, envelopes: Sequence[Envelope]) -> None:
        link = self._open_link(peer, len(envelopes))
        if link is not None:
            self._send_messages(link, link.append, envelopes)

    def send_vote(self, peer: NodeId, envelopes: Sequence[Envelope]) -> None:
        link = self._open_link(peer, len(envelopes))
        if link is not None:
            self._send_messages(link, link.control, envelopes)

    def send_heartbeat_batch(self, peer: NodeId, pulse: Pulse) -> None:
        link = self.links.get(peer)
        if link is None:
            self._dropped_unknown += not self.is_dead
            return
        link.replaced_pulses += link.pulse is not None
        link.pulse = pulse
        self._dial_now_and_then(link)
        self.wake()

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
        except trio.Cancelled:
            link.close_pieces()
            raise
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise TransportError("broken", peer, f"the link to node {peer} broke") from error

    @property
    def payload_bytes_max(self) -> int:
        return _PAYLOAD_BYTES_MAX

    def has_room(self, peer: NodeId) -> bool:
        link = self.links.get(peer)
        if self.is_dead or link is None or link.end is None or link.in_incident:
            return False
        return link.append.queued_bytes < self._network.queue_bytes_max

    def statistics(self) -> TransportStatistics:
        return TransportStatistics(peers={peer: _frozen(link) for peer, link in self.links.items()}, dropped_unknown=self._dropped_unknown)

    # Links.

    def dial_soon(self, peer: NodeId) -> None:
        """Dial at the next turn, if there is a link and it is not open."""
        link = self.links.get(peer)
        if link is not None and link.end is None:
            link.is_wanted = True
            self.wake()

    def wake(self) -> None:
        """Have another turn: there is something to do."""
        self._wakeup.set()

    def _dial_now_and_then(self, link: Link) -> None:
        if trio.current_time() >= link.next_dial:
            self.dial_soon(link.target)

    def _dial(self, link: Link, me: Identity, receiver: Receiver) -> None:
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
        self._put_under_way(link, link.control, 0, 0, trio.current_time(), lambda theirs: theirs.connected(me.node_id))
        receiver.connected(link.target)

    def _open_link(self, peer: NodeId, messages: int) -> Link | None:
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
            self._dial_now_and_then(link)
        return None

    # Moving.

    def _send_messages(self, link: Link, lane: Lane, envelopes: Sequence[Envelope]) -> None:
        kept = [envelope for envelope in envelopes if message_size(envelope) <= _MESSAGE_BYTES_MAX]
        size, deliver = 0, lambda receiver: receiver.messages(self.node_id, kept)
        if self._network.codec:
            try:
                body = encode_messages(kept, self.node_id, link.target)
            except RaftError:
                kept = [envelope for envelope in kept if self._can_encode(envelope, link.target)]
                body = encode_messages(kept, self.node_id, link.target)
            size, deliver = len(body), partial(self._decode_messages, body, link.target)
        if len(kept) < len(envelopes):
            link.lose(len(envelopes) - len(kept))
        if kept:
            self._send(link, lane, size, len(kept), deliver)

    def _can_encode(self, envelope: Envelope, target: NodeId) -> bool:
        try:
            encode_messages([envelope], self.node_id, target)
        except RaftError as error:
            logger.error("a message to node %d cannot be sent and is dropped: %s", target, error)
            return False
        return True

    def _send_pulse(self, link: Link, pulse: Pulse) -> None:
        link.pulse = None
        if not self._network.codec:
            self._send(link, link.control, 0, 0, lambda receiver: receiver.pulse(self.node_id, pulse))
            return
        try:
            body = encode_pulse(pulse)
        except RaftError as error:
            logger.error("a pulse to node %d cannot be sent and is dropped: %s", link.target, error)
            return
        self._send(link, link.control, len(body), 0, lambda receiver: receiver.pulse(self.node_id, decode_pulse(body)))

    def _decode_messages(self, body: bytes, target: NodeId, receiver: Receiver) -> None:
        frame = decode_messages(body, self.node_id, target, payload_bytes_max=_PAYLOAD_BYTES_MAX)
        if frame.bad:
            raise InvariantError(f"{frame.bad} messages of node {self.node_id} were encoded and cannot be decoded")
        receiver.messages(self.node_id, frame.envelopes)

    def _send(self, link: Link, lane: Lane, size: int, messages: int, deliver: Deliver) -> None:
        network, random = self._network, self._network.random
        weather = network.weather(self.node_id, link.target)
        if weather.loss and random.random() < weather.loss:
            link.counters.messages_sent += messages
            link.dropped += messages
        elif self._make_room(link, lane, size):
            link.counters.frames_sent += 1
            link.counters.bytes_sent += size
            link.counters.messages_sent += messages
            due = trio.current_time() + weather.delay + (random.random() * weather.jitter if weather.jitter else 0.0)
            self._put_under_way(link, lane, size, messages, due, deliver)
        else:
            link.lose(messages)

    def _make_room(self, link: Link, lane: Lane, size: int) -> bool:
        """An empty lane takes anything. A full one refuses what is new if it is for appends, and gives up its oldest if it is not."""
        while lane.queued_bytes and lane.queued_bytes + size > self._network.queue_bytes_max:
            if lane is link.append:
                return False
            lost = lane.lose_oldest()
            link.counters.messages_sent -= lost
            link.lose(lost)
        return True

    def _put_under_way(self, link: Link, lane: Lane, size: int, messages: int, due: float, deliver: Deliver) -> None:
        if link.end is not None:
            link.last_due = max(due, link.last_due)
            parcel = Parcel(link, lane, size, messages, deliver)
            lane.put(parcel)
            link.end.arrive(link.last_due, parcel)

    def arrive(self, due: float, parcel: Parcel) -> None:
        """Take something that is under way to us; it is delivered when it is due."""
        heappush(self._arrivals, (due, next(self._network.order), parcel))
        self.wake()

    async def _turn_for_ever(self) -> None:
        while not self.is_dead:
            self._tend_links()
            self._deliver_due()
            with trio.move_on_at(self._arrivals[0][0] if self._arrivals else math.inf):
                await self._wakeup.wait()
        await trio.sleep_forever()

    def _tend_links(self) -> None:
        if self._me is None or self._receiver is None:
            return
        for link in list(self.links.values()):
            link.end_incident(self._network.queue_bytes_max)
            if link.is_wanted and link.end is None:
                self._dial(link, self._me, self._receiver)
            if link.pulse is not None and link.end is not None:
                self._send_pulse(link, link.pulse)

    def _deliver_due(self) -> None:
        now = trio.current_time()
        while self._arrivals and self._arrivals[0][0] <= now and self._receiver is not None and not self.is_dead:
            _, _, parcel = heappop(self._arrivals)
            if parcel.deliver is None:
                continue
            link = parcel.link
            parcel.lane.take_oldest()
            link.end_incident(self._network.queue_bytes_max)
            if self.inbound.get(link.source.node_id) is link:
                parcel.deliver(self._receiver)

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


def _frozen(link: Link) -> PeerStatistics:
    counters = link.counters
    return PeerStatistics(
        connected_lanes=2 if link.end is not None else 0,
        queued_messages=link.control.queued_messages + link.append.queued_messages,
        queued_bytes=link.control.queued_bytes + link.append.queued_bytes,
        dropped_messages=link.dropped,
        replaced_pulses=link.replaced_pulses,
        messages_sent=counters.messages_sent,
        frames_sent=counters.frames_sent,
        bytes_sent=counters.bytes_sent,
        attempts=counters.attempts,
        connects=counters.connects,
        last_refusal=counters.last_refusal,
    )
