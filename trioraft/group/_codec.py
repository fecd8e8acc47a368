"""The codec of machines that name none: plain CBOR values."""

from __future__ import annotations

from typing import Any

from .._machine import Codec, StateMachine
from ..wire import decode_value, encode_value


class ValueCodec:
    """Any CBOR value, encoded deterministically and decoded strictly."""

    def encode(self, command: Any) -> bytes:
        return encode_value(command)

    def decode(self, payload: bytes) -> Any:
        return decode_value(payload)


def codec_of(machine: StateMachine) -> Codec:
    """The machine's own codec, or CBOR."""
    return machine.codec if machine.codec is not None else ValueCodec()
