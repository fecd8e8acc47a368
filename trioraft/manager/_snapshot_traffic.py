"""How many snapshots move at once, and how fast: one node's limits, for all its groups.

Places are taken in the order in which they were asked for; who waits for a busy peer holds up nobody who sends to another one. The
bandwidth is given out piece by piece, in the order of the asking: so all streams get on at the same pace.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import trio

from .._errors import ConfigError
from .._types import NodeId
from ..observe import Counters
from ..transport import MultiplexedTransport
from ..wire import SnapshotPiece, encode_piece
from ._config import MultiRaftConfig

_REPLY_TIMEOUT: Final = 3.0
"""Election timeouts to wait for an answer."""

_PIECE_BYTES_MIN: Final = 4096
_BURST_SECONDS: Final = 0.1
"""Bandwidth that was not used for so long may be used later."""


class NodeSnapshotTraffic:
    """What a node's groups share when they move snapshots: implements `SnapshotTraffic`."""

    def __init__(self, config: MultiRaftConfig, transport: MultiplexedTransport, counters: Counters) -> None:
        """
        Raises:
            ConfigError: a piece would not fit into what the transport carries.
        """
        wanted, room = config.snapshot_piece_bytes, transport.payload_bytes_max
        if wanted > room:
            raise ConfigError(f"snapshot_piece_bytes must be at most the {room} that the transport carries, not {wanted}")
        self._transport, self._counters = transport, counters
        self._bandwidth: Final = config.snapshot_bandwidth
        self._per_peer_max: Final = config.snapshot_streams_per_peer_max
        self._streams_max: Final = config.snapshot_streams_max
        # NB: at a low bandwidth smaller pieces, so that each of the streams moves at least once in an election timeout: one that seems
        # to stand still loses its place on the other side.
        share = int(config.snapshot_bandwidth * config.election_timeout) // config.snapshot_streams_max
        self.piece_bytes: Final = min(wanted, max(_PIECE_BYTES_MIN, share))
        self.reply_timeout: Final = _REPLY_TIMEOUT * config.election_timeout
        self._outgoing = trio.CapacityLimiter(config.snapshot_streams_max)
        self._outgoing_to: dict[NodeId, trio.CapacityLimiter] = {}
        self._incoming = 0
        self._next_send = -1.0
        """When the bandwidth that was given out so far will have been used."""

    @asynccontextmanager
    async def outgoing(self, peer: NodeId) -> AsyncIterator[None]:
        places = self._outgoing_to.get(peer)
        if places is None:
            places = self._outgoing_to[peer] = trio.CapacityLimiter(self._per_peer_max)
        async with places, self._outgoing:
            yield

    @contextmanager
    def incoming(self) -> Iterator[bool]:
        if self._incoming >= self._streams_max:
            yield False
            return
        self._incoming += 1
        try:
            yield True
        finally:
            self._incoming -= 1

    async def send(self, peer: NodeId, piece: SnapshotPiece) -> None:
        body = encode_piece(piece)
        start = max(self._next_send, trio.current_time() - _BURST_SECONDS)
        self._next_send = start + len(body) / self._bandwidth
        await trio.sleep_until(start)
        await self._transport.send_install_snapshot(peer, body)
        self._counters.snapshot_bytes_out += len(piece.data)
