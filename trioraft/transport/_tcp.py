"""The transport over TCP and Unix sockets, or over any other stream that an opener brings. The form of an address decides.

Each node dials its peers, so between two nodes there are two sets of connections, each carrying one direction; that both dial at
once is the normal case and needs no agreement. What comes in is the business of `RpcServer`.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Sequence
from functools import partial

import trio

from .._errors import ConfigError, TransportError
from .._types import NodeId
from ..wire import BODY_OVERHEAD_MAX, MESSAGE_OVERHEAD_MAX, RECORD_HEADER_SIZE, Envelope, Pulse
from ._address import AnyAddress, UnixAddress, parse_address
from ._config import TcpTransportConfig
from ._contract import Identity, MultiplexedTransport, Receiver, TransportStatistics
from ._incidents import Incidents
from ._peer import Peer
from ._sender import OpenStream
from ._socket import open_tcp
from ._unix import open_unix


class TcpTransport(MultiplexedTransport):
    """One node's senders: two lanes per peer, and connections for snapshots. A peer is dialled over TCP, or at its Unix socket."""

    def __init__(
        self, config: TcpTransportConfig | None = None, random: random_module.Random | None = None, *, open_stream: OpenStream | None = None
    ) -> None:
        """
        Args:
            random: draws the jitter of the waits between attempts.
            open_stream: opens a stream to a ``host:port`` instead of plain TCP; whoever brings one answers for what it protects.
                Unix sockets are dialled as such whatever it is.
        """
        self._config = config if config is not None else TcpTransportConfig()
        self._random = random if random is not None else random_module.Random()
        self._may_leave = self._config.insecure or open_stream is not None
        self._open_tcp = open_stream or partial(open_tcp, nodelay=self._config.tcp_nodelay, keepalive=self._config.tcp_keepalive)
        self._peers: dict[NodeId, Peer] = {}
        self._incidents = Incidents()
        self._dropped_unknown = 0
        self._serving: tuple[trio.Nursery, Identity, Receiver] | None = None
        self._is_over = False

    async def serve(self, identity: Identity, receiver: Receiver, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Dial the peers and keep their lanes open until cancelled. Once in the life of a transport.

        Cancellation: all connections are closed; what was queued is gone.
        """
        if self._serving is not None:
            raise trio.BusyResourceError("this transport serves a node already")
        try:
            async with trio.open_nursery() as nursery:
                self._serving = nursery, identity, receiver
                self.remove_peer(identity.node_id)
                for peer in self._peers.values():
                    nursery.start_soon(peer.run, identity, receiver)
                task_status.started()
                await self._incidents.tell(receiver.unreachable)
        finally:
            self._is_over = True

    def check_address(self, address: str) -> str:
        return str(self._parse(address))

    def _parse(self, address: str) -> AnyAddress:
        parsed = parse_address(address)
        if not self._may_leave and not parsed.is_loopback:
            raise ConfigError(f"{address} is no loopback address, and plain TCP protects nothing: say insecure=True in TcpTransportConfig")
        return parsed

    def set_address(self, peer: NodeId, address: str) -> None:
        parsed = self._parse(address)
        if peer in self._peers:
            self._peers[peer].move(parsed)
        elif self._serving is None or peer != self._serving[1].node_id:
            self._add(peer, parsed)

    async def _open_stream(self, address: AnyAddress) -> trio.abc.Stream:
        return await (open_unix(address) if isinstance(address, UnixAddress) else self._open_tcp(address))

    def _add(self, peer: NodeId, address: AnyAddress) -> None:
        added = self._peers[peer] = Peer(
            peer,
            address,
            config=self._config,
            open_stream=self._open_stream,
            random=self._random,
            on_incident=partial(self._incidents.note, peer),
        )
        if self._serving is not None and not self._is_over:
            nursery, identity, receiver = self._serving
            nursery.start_soon(added.run, identity, receiver)

    def remove_peer(self, peer: NodeId) -> None:
        removed = self._peers.pop(peer, None)
        if removed is not None:
            removed.close()

    def retry_now(self, peer: NodeId) -> None:
        if peer in self._peers:
            self._peers[peer].retry_now()

    def send_append_entries(self, peer: NodeId, envelopes: Sequence[Envelope]) -> None:
        target = self._peers.get(peer)
        if target is None:
            self._dropped_unknown += len(envelopes)
        else:
            target.append.outbox.put(envelopes)

    def send_vote(self, peer: NodeId, envelopes: Sequence[Envelope]) -> None:
        target = self._peers.get(peer)
        if target is None:
            self._dropped_unknown += len(envelopes)
        else:
            target.control.outbox.put(envelopes)

    def send_heartbeat_batch(self, peer: NodeId, pulse: Pulse) -> None:
        target = self._peers.get(peer)
        if target is None:
            self._dropped_unknown += 1
        else:
            target.control.outbox.put_pulse(pulse)

    async def send_install_snapshot(self, peer: NodeId, data: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        target = self._peers.get(peer)
        if target is None:
            raise TransportError("unknown-peer", peer, f"there is no address of node {peer}")
        await target.send_snapshot(data)

    @property
    def payload_bytes_max(self) -> int:
        return self._config.frame_bytes_max - BODY_OVERHEAD_MAX - MESSAGE_OVERHEAD_MAX - RECORD_HEADER_SIZE

    def has_room(self, peer: NodeId) -> bool:
        target = self._peers.get(peer)
        return target is not None and target.append.outbox.has_room

    def statistics(self) -> TransportStatistics:
        return TransportStatistics(
            peers={node_id: peer.statistics() for node_id, peer in self._peers.items()}, dropped_unknown=self._dropped_unknown
        )
