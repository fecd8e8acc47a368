"""The reader of one connection that a peer dialled, from the handshake to its end.

It only ever writes the answers to pings. A frame that fails its check ends the connection with nothing of it delivered, because
frames have no mark at which reading could go on; a single message that cannot be understood is skipped and counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import trio

from .._errors import WireError
from .._types import NodeId
from ..wire import PONG, BodyKind, FrameReader, body_kind, decode_messages, decode_pulse
from ._config import RpcServerConfig
from ._connection import DEADLINE_SLACK
from ._contract import Receiver, SnapshotReceiver
from ._remarks import Remarks, logger
from ._statistics import InboundCounters

_RECEIVE_BYTES = 64 << 10

_Decoded = TypeVar("_Decoded")


class BadFrame(Exception):
    """What came in cannot be read on: the connection ends. Never leaves this package."""


class InboundReader:
    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        me: NodeId,
        peer: NodeId,
        receiver: Receiver,
        config: RpcServerConfig,
        counters: InboundCounters,
        remarks: Remarks,
    ) -> None:
        self._stream, self._config = stream, config
        self._me, self._peer, self._receiver = me, peer, receiver
        self._counters, self._remarks = counters, remarks
        self._frames = FrameReader(config.frame_bytes_max)
        self._silence = trio.CancelScope()

    async def run(self, *, is_snapshot: bool) -> str:
        """Read until the connection ends.

        Returns: why it ended, as a kind, a colon and a text.

        Raises:
            BadFrame: something came in that is no frame, or none that belongs here.
        """
        try:
            with self._silence:
                if is_snapshot:
                    await self._read_pieces()
                else:
                    await self._read_frames()
                if self._frames.buffered:
                    raise BadFrame("the connection was cut inside a frame")
                return "closed: by the peer"
        except WireError as error:
            raise BadFrame(str(error)) from error
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return "broken: the connection broke"
        return f"read-timeout: nothing came for {self._config.read_timeout} s"

    async def _receive(self) -> bool:
        """Feed what comes next; False at the end of the connection."""
        # NB: the deadline of one scope is moved now and then, instead of a scope made per read.
        until = trio.current_time() + self._config.read_timeout
        if not until <= self._silence.deadline < math.inf:
            self._silence.deadline = until + self._config.read_timeout * DEADLINE_SLACK
        data = await self._stream.receive_some(_RECEIVE_BYTES)
        self._counters.bytes += len(data)
        self._frames.feed(data)
        return bool(data)

    async def _read_frames(self) -> None:
        while await self._receive():
            while (body := self._frames.next_frame()) is not None:
                self._counters.frames += 1
                kind = body_kind(body)
                if kind is BodyKind.MESSAGES:
                    self._take_messages(body)
                elif kind is BodyKind.PULSE:
                    self._take_pulse(body)
                elif kind is BodyKind.PING:
                    await self._answer_ping()
                else:
                    raise BadFrame("a body that does not belong on this connection")

    async def _read_pieces(self) -> None:
        """On a connection for snapshots each body is a piece; the next one is read when the receiver is done with it."""
        receiver = self._receiver
        if not isinstance(receiver, SnapshotReceiver):
            raise BadFrame("this node takes no snapshots")
        while await self._receive():
            while (body := self._frames.next_frame()) is not None:
                self._counters.frames += 1
                self._silence.deadline = math.inf
                await receiver.snapshot(self._peer, body)

    async def _answer_ping(self) -> None:
        with trio.CancelScope(deadline=trio.current_time() + self._config.write_timeout) as scope:
            await self._stream.send_all(PONG)
        if scope.cancelled_caught:
            raise trio.BrokenResourceError("the peer asks for answers and does not take them")

    def _take_messages(self, body: bytes) -> None:
        frame = self._guarded(
            lambda: decode_messages(body, self._peer, self._me, payload_bytes_max=self._config.frame_bytes_max), "message frame"
        )
        if frame.bad:
            self._counters.bad_messages += frame.bad
            self._remarks.warn(("bad-message", self._peer), "%d messages of node %d were skipped: not understood", frame.bad, self._peer)
        if frame.envelopes:
            self._counters.messages += len(frame.envelopes)
            self._receiver.messages(self._peer, frame.envelopes)

    def _take_pulse(self, body: bytes) -> None:
        self._receiver.pulse(self._peer, self._guarded(lambda: decode_pulse(body), "pulse"))

    def _guarded(self, decode: Callable[[], _Decoded], what: str) -> _Decoded:
        """Only `WireError` should leave a decoder. Should another error do so, it costs the peer its connection, not us the node."""
        try:
            return decode()
        except WireError:
            raise
        except Exception as error:
            logger.exception("the decoder failed on a %s of node %d", what, self._peer)
            raise BadFrame(f"the decoder failed on a {what}") from error
