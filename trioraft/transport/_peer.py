"""Everything that a `TcpTransport` holds for one peer: two lanes and the connections for snapshots."""

from __future__ import annotations

import random
from collections.abc import Callable

import trio

from .._errors import TransportError
from .._types import NodeId
from ._address import AnyAddress
from ._backoff import Backoff
from ._config import TcpTransportConfig
from ._contract import Identity, PeerStatistics, Receiver
from ._greeting import APPEND, CONTROL, SNAPSHOT
from ._outbox import Outbox, Overflow
from ._sender import OpenAny, Sender
from ._snapshots import SnapshotConnections


class Peer:
    def __init__(
        self,
        node_id: NodeId,
        address: AnyAddress,
        *,
        config: TcpTransportConfig,
        open_stream: OpenAny,
        random: random.Random,
        on_incident: Callable[[], None],
    ) -> None:
        self.node_id, self.address = node_id, address
        self._config, self._open_stream, self._random, self._on_incident = config, open_stream, random, on_incident
        self.control = self._sender(CONTROL, Overflow.DROP_OLDEST)
        self.append = self._sender(APPEND, Overflow.DROP_NEWEST)
        # Dials and introduces itself as the lanes do, but only when a snapshot is sent.
        self._dialler = self._sender(SNAPSHOT, Overflow.DROP_NEWEST)
        self._snapshots = SnapshotConnections(node_id, self._open_snapshot, config=config, counters=self._dialler.counters)
        self._scope = trio.CancelScope()
        self._who: tuple[Identity, Receiver] | None = None

    def _sender(self, lane: str, overflow: Overflow) -> Sender:
        config = self._config
        outbox = Outbox(
            overflow,
            bytes_max=config.queue_bytes_max,
            messages_max=config.queue_messages_max,
            message_bytes_max=config.frame_bytes_max,
            on_incident=self._on_incident,
        )
        backoff = Backoff(config.backoff_min, config.backoff_max, self._random)
        return Sender(self.node_id, lane, self.address, outbox, config=config, open_stream=self._open_stream, backoff=backoff)

    async def run(self, me: Identity, receiver: Receiver) -> None:
        """Keep both lanes open, until cancelled or closed."""
        self._who = me, receiver
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._snapshots.run)
                nursery.start_soon(self.control.run, me, receiver)
                nursery.start_soon(self.append.run, me, receiver)

    def move(self, address: AnyAddress) -> None:
        if address == self.address:
            return
        self.address = address
        for sender in (self.control, self.append, self._dialler):
            sender.move(address)
        self._snapshots.close_all()

    def retry_now(self) -> None:
        self.control.retry_now()
        self.append.retry_now()

    def close(self) -> None:
        """End everything; final."""
        self._scope.cancel()

    async def send_snapshot(self, data: bytes) -> None:
        await self._snapshots.send(data)

    async def _open_snapshot(self) -> trio.abc.Stream:
        if self._who is None:
            raise TransportError("not-serving", self.node_id, "the transport does not run")
        return await self._dialler.open(*self._who)

    def statistics(self) -> PeerStatistics:
        lanes = (self.control, self.append)
        counters = [sender.counters for sender in (*lanes, self._dialler)]
        return PeerStatistics(
            connected_lanes=sum(sender.outbox.is_open for sender in lanes),
            queued_messages=sum(sender.outbox.queued_messages for sender in lanes),
            queued_bytes=sum(sender.outbox.queued_bytes for sender in lanes),
            dropped_messages=sum(sender.outbox.dropped for sender in lanes),
            replaced_pulses=self.control.outbox.replaced_pulses,
            messages_sent=sum(one.messages_sent for one in counters),
            frames_sent=sum(one.frames_sent for one in counters),
            bytes_sent=sum(one.bytes_sent for one in counters),
            frames_received=sum(one.frames_received for one in counters),
            bytes_received=sum(one.bytes_received for one in counters),
            attempts=sum(one.attempts for one in counters),
            connects=sum(one.connects for one in counters),
            last_refusal=self.control.counters.last_refusal or self.append.counters.last_refusal,
        )
