"""Connections for snapshots: opened when needed, a bounded number, closed when idle.

A caller sends its piece itself, so it is held up as long as the connection is: nothing is queued here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import trio

from .._errors import TransportError
from .._types import NodeId
from ..wire import encode_frame
from ._config import TcpTransportConfig
from ._statistics import LaneCounters
from ._wakeup import Wakeup


class SnapshotConnections:
    def __init__(
        self, peer: NodeId, open_stream: Callable[[], Awaitable[trio.abc.Stream]], *, config: TcpTransportConfig, counters: LaneCounters
    ) -> None:
        self._peer, self._open_stream, self._config, self._counters = peer, open_stream, config, counters
        self._places = trio.CapacityLimiter(config.max_connections_per_addr - 2)
        self._idle: deque[tuple[trio.abc.Stream, float]] = deque()
        self._sends: set[trio.CancelScope] = set()
        self._idle_changed = Wakeup()
        self._is_running = False

    async def send(self, data: bytes) -> None:
        """Write one piece. Raises TransportError."""
        if len(data) > self._config.frame_bytes_max:
            raise TransportError(
                "too-large", self._peer, f"a piece of {len(data)} bytes; at most {self._config.frame_bytes_max} go into a frame"
            )
        async with self._places:
            if not self._is_running:
                raise TransportError("not-serving", self._peer, "the transport does not run")
            with trio.CancelScope() as scope:
                self._sends.add(scope)
                try:
                    await self._send_on_some(encode_frame([data]))
                finally:
                    self._sends.discard(scope)
            if scope.cancelled_caught:
                raise TransportError("moved", self._peer, "the peer was moved or removed")

    def close_all(self) -> None:
        """The peer is somewhere else now: end what is being sent; idle connections go at the next turn of `run`."""
        for scope in self._sends:
            scope.cancel()
        self._idle = deque((stream, 0.0) for stream, _ in self._idle)
        self._idle_changed.set()

    async def run(self) -> None:
        """Close connections that nobody has used for `ping_interval`, until cancelled; then all."""
        self._is_running = True
        try:
            while True:
                if not self._idle:
                    await self._idle_changed.wait()
                    continue
                stream, until = self._idle[0]
                if until <= trio.current_time():
                    self._idle.popleft()
                    await trio.aclose_forcefully(stream)
                else:
                    with trio.move_on_at(until):
                        await self._idle_changed.wait()
        finally:
            self._is_running = False
            self.close_all()
            with trio.CancelScope(shield=True):  # Forceful closing waits for nobody.
                while self._idle:
                    await trio.aclose_forcefully(self._idle.popleft()[0])

    async def _send_on_some(self, frame: bytes) -> None:
        stream = self._take_idle() or await self._open_stream()
        try:
            with trio.fail_after(self._config.write_timeout):
                await stream.send_all(frame)
        except trio.TooSlowError as error:
            await trio.aclose_forcefully(stream)
            raise TransportError("write-timeout", self._peer, "the peer does not read") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            await trio.aclose_forcefully(stream)
            raise TransportError("broken", self._peer, "the connection broke") from error
        except BaseException:
            # Cut inside a frame: the connection is good for nothing.
            await trio.aclose_forcefully(stream)
            raise
        self._counters.frames_sent += 1
        self._counters.bytes_sent += len(frame)
        if not self._is_running:
            await trio.aclose_forcefully(stream)
            return
        self._idle.append((stream, trio.current_time() + self._config.ping_interval))
        self._idle_changed.set()

    def _take_idle(self) -> trio.abc.Stream | None:
        """The most recently used idle connection, so that the others grow old and go."""
        if self._idle and self._idle[-1][1] > trio.current_time():
            return self._idle.pop()[0]
        return None
