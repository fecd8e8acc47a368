"""A transport around another one that remembers the last messages sent: what did this node say before it fell silent?

It passes the conformance suite of the library (`trioraft.testing.TransportSuite`), see ``tests/examples/test_recording_transport.py``,
since everything that the contract asks for is done by the transport inside.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import trio

from trioraft.transport import Identity, MultiplexedTransport, Receiver, TransportStatistics
from trioraft.wire import Envelope, Pulse


class Sent(NamedTuple):
    """A line of the record."""

    time: float
    peer: int
    group: int
    kind: str


class RecordingTransport(MultiplexedTransport):
    def __init__(self, inner: MultiplexedTransport, keep: int = 1000) -> None:
        self._inner = inner
        self.sent: deque[Sent] = deque(maxlen=keep)  # bounded: this runs for years

    def _record(self, peer: int, envelopes: Sequence[Envelope]) -> None:
        now = trio.current_time()
        self.sent.extend(Sent(now, peer, each.group.group_id, type(each.message).__name__) for each in envelopes)

    # The verbs. The first three return at once and raise nothing; only the last one waits.

    def send_append_entries(self, peer: int, envelopes: Sequence[Envelope]) -> None:
        self._record(peer, envelopes)
        self._inner.send_append_entries(peer, envelopes)

    def send_vote(self, peer: int, envelopes: Sequence[Envelope]) -> None:
        self._record(peer, envelopes)
        self._inner.send_vote(peer, envelopes)

    def send_heartbeat_batch(self, peer: int, pulse: Pulse) -> None:
        self._inner.send_heartbeat_batch(peer, pulse)

    async def send_install_snapshot(self, peer: int, data: bytes) -> None:
        await self._inner.send_install_snapshot(peer, data)

    # Everything else is the inner transport's affair.

    async def serve(self, identity: Identity, receiver: Receiver, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self._inner.serve(identity, receiver, task_status=task_status)

    def set_address(self, peer: int, address: str) -> None:
        self._inner.set_address(peer, address)

    def remove_peer(self, peer: int) -> None:
        self._inner.remove_peer(peer)

    def retry_now(self, peer: int) -> None:
        self._inner.retry_now(peer)

    def has_room(self, peer: int) -> bool:
        return self._inner.has_room(peer)

    def statistics(self) -> TransportStatistics:
        return self._inner.statistics()

    @property
    def payload_bytes_max(self) -> int:
        return self._inner.payload_bytes_max
