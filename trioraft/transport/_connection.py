"""One connection that we dialled, from the handshake to its end: one task writes, one reads the answers.

The writer sends frames and nothing else ever writes, so a cancellation can cut a frame only together with its connection. The
reader asks for a ping every `ping_interval`, idle or busy, because small writes vanish in the system's buffer for hours before a
peer that is gone is noticed; an answer that does not come within `read_timeout` of the ping ends the connection.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio

from .._errors import WireError
from ..wire import FRAME_HEADER_SIZE, PING, PONG, FrameReader
from ._batcher import Batcher
from ._config import TcpTransportConfig
from ._statistics import LaneCounters

_PONG_BODY = PONG[FRAME_HEADER_SIZE:]
_ANSWER_BYTES_MAX = 1024
DEADLINE_SLACK = 1 / 8
"""A deadline that moves with each frame is set this much later than needed, as a share, so that it is moved seldom."""
_CLOSED = "closed: the peer closed the connection"


class OutgoingConnection:
    def __init__(self, stream: trio.abc.Stream, batcher: Batcher, config: TcpTransportConfig, counters: LaneCounters) -> None:
        self._stream, self._batcher, self._config, self._counters = stream, batcher, config, counters
        self._ping_wanted = False
        self._reason = "closed: by us"
        self._is_sending = False
        # NB: one scope per direction for the whole connection, its deadline moved now and then: a scope per frame costs 13 us.
        self._stall = trio.CancelScope()
        self._silence = trio.CancelScope()

    async def run(self) -> str:
        """Write what the batcher gives until the connection ends, then close it.

        Returns: why it ended, as a kind, a colon and a text.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._part, self._read_answers, nursery.cancel_scope)
                await self._part(self._write, nursery.cancel_scope)
        finally:
            await trio.aclose_forcefully(self._stream)
        return self._reason

    async def _part(self, part: Callable[[], Awaitable[str]], scope: trio.CancelScope) -> None:
        """Run one half; the first one to end says why and takes the other with it."""
        try:
            reason = await part()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            reason = "broken: the connection broke"
        except WireError as error:
            reason = f"protocol: {error}"
        if not scope.cancel_called:
            self._reason = reason
            scope.cancel()

    async def _write(self) -> str:
        while True:
            with self._stall:
                await self._write_on()
            if self._is_sending:
                return "write-timeout: the peer does not read"
            # Nothing was being written: the deadline of an earlier frame ran out while there was nothing to do.
            self._stall = trio.CancelScope()

    async def _write_on(self) -> None:
        outbox = self._batcher.outbox
        while True:
            if self._ping_wanted:
                self._ping_wanted = False
                self._silence.deadline = trio.current_time() + self._config.read_timeout
                await self._send(PING)
            frame = self._batcher.next_frame()
            if frame is None:
                await outbox.wait()
            else:
                await self._send(frame)

    async def _send(self, frame: bytes) -> None:
        until = trio.current_time() + self._config.write_timeout
        if self._stall.deadline == math.inf or self._stall.deadline < until:
            self._stall.deadline = until + self._config.write_timeout * DEADLINE_SLACK
        self._is_sending = True
        await self._stream.send_all(frame)
        self._is_sending = False
        self._counters.frames_sent += 1
        self._counters.bytes_sent += len(frame)

    async def _read_answers(self) -> str:
        answers = FrameReader(_ANSWER_BYTES_MAX)
        with self._silence:
            while True:
                with trio.move_on_after(self._config.ping_interval):
                    unasked = await self._stream.receive_some(_ANSWER_BYTES_MAX)
                    return "protocol: the peer talks without being asked" if unasked else _CLOSED
                self._ping_wanted = True
                self._batcher.outbox.wake()
                body = await self._read_frame(answers)
                if body is None:
                    return _CLOSED
                if body != _PONG_BODY:
                    return "protocol: the answer to a ping is none"
                self._silence.deadline = math.inf
        return "read-timeout: a ping was not answered"

    async def _read_frame(self, answers: FrameReader) -> bytes | None:
        while (body := answers.next_frame()) is None:
            data = await self._stream.receive_some(_ANSWER_BYTES_MAX)
            if not data:
                return None
            self._counters.bytes_received += len(data)
            answers.feed(data)
        self._counters.frames_received += 1
        return bytes(body)
