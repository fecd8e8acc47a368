"""From an outbox to frames: whatever waits becomes one frame, so batches grow with the load and never wait for it."""

from __future__ import annotations

from .._errors import RaftError, WireError
from .._types import NodeId
from ..wire import Envelope, encode_frame, encode_messages, encode_pulse
from ._outbox import Outbox
from ._remarks import logger
from ._statistics import LaneCounters


class Batcher:
    def __init__(
        self, outbox: Outbox, counters: LaneCounters, *, source: NodeId, target: NodeId, batch_bytes_max: int, frame_bytes_max: int
    ) -> None:
        self.outbox = outbox
        self._counters = counters
        self._source, self._target = source, target
        self._batch_bytes_max, self._frame_bytes_max = batch_bytes_max, frame_bytes_max

    def next_frame(self) -> bytes | None:
        """The next frame to write, or None if nothing waits. The pulse goes first: liveness depends on it."""
        pulse = self.outbox.take_pulse()
        if pulse is not None:
            try:
                return encode_frame([encode_pulse(pulse)])
            except RaftError as error:
                logger.error("a pulse to node %d cannot be sent and is dropped: %s", self._target, error)
        while envelopes := self.outbox.take(self._batch_bytes_max):
            try:
                body = self._encode(envelopes)
            except RaftError:
                envelopes = self._good_ones(envelopes)
                if not envelopes:
                    continue
                body = self._encode(envelopes)
            self._counters.messages_sent += len(envelopes)
            return encode_frame([body])
        return None

    def _encode(self, envelopes: list[Envelope]) -> bytes:
        body = encode_messages(envelopes, self._source, self._target)
        if len(body) > self._frame_bytes_max:
            raise WireError(f"{len(body)} bytes are more than frame_bytes_max")
        return body

    def _good_ones(self, envelopes: list[Envelope]) -> list[Envelope]:
        """One message that cannot be encoded must not cost the others of its frame, nor the node its sender."""
        good = []
        for envelope in envelopes:
            try:
                self._encode([envelope])
            except RaftError as error:
                logger.error("a message to node %d cannot be sent and is dropped: %s", self._target, error)
                self.outbox.lose(1)
            else:
                good.append(envelope)
        return good
