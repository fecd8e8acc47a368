"""Frames: how bodies follow each other on a connection.

    4 bytes  length of the body, little-endian, 1 to the limit
    4 bytes  CRC-32 (zlib) of the body, little-endian
    n bytes  the body

The length is checked before anything is allocated. An empty body is refused: the CRC-32 of nothing is 0, so eight zero bytes would
otherwise pass as a frame. After an error nothing that follows can be trusted, because frames have no mark to find the next one by:
the reader stays broken, and the connection must be closed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final
from zlib import crc32

from .._errors import WireError

FRAME_HEADER_SIZE: Final = 8

_HEADER: Final = struct.Struct("<II")


def encode_frame(body_parts: Sequence[bytes]) -> bytes:
    """Join the parts of a body and put the frame header in front."""
    body = body_parts[0] if len(body_parts) == 1 else b"".join(body_parts)
    return _HEADER.pack(len(body), crc32(body)) + body


class FrameReader:
    """Cuts a stream of bytes into bodies. Sans-I/O: `feed` what arrived, then call `next_frame` until it returns None.

    Holds at most one incomplete frame, so at most `frame_bytes_max` and what one `feed` brought.
    """

    def __init__(self, frame_bytes_max: int) -> None:
        self.frame_bytes_max = frame_bytes_max
        """The largest body. May be raised between two frames, when a handshake has made a stranger a peer."""
        self._buffer = bytearray()
        self._failure: WireError | None = None

    @property
    def buffered(self) -> int:
        """Bytes that wait for the rest of their frame; not 0 at the end of a connection: it was cut inside a frame."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes as they came from the connection. Drain with `next_frame` before the next call."""
        if self._failure is None:
            self._buffer += data

    def next_frame(self) -> bytes | None:
        """Return the next body, or None while it is incomplete.

        Raises:
            WireError: the length is out of range or the checksum is wrong. Every later call raises it again.
        """
        if self._failure is not None:
            raise self._failure
        if len(self._buffer) < FRAME_HEADER_SIZE:
            return None
        length, checksum = _HEADER.unpack_from(self._buffer)
        if not 1 <= length <= self.frame_bytes_max:
            raise self._fail(f"frame of {length} bytes; 1 to {self.frame_bytes_max} are accepted")
        end = FRAME_HEADER_SIZE + length
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            body = bytes(view[FRAME_HEADER_SIZE:end])
        if crc32(body) != checksum:
            raise self._fail("wrong checksum of a frame")
        del self._buffer[:end]
        return body

    def _fail(self, text: str) -> WireError:
        self._failure = WireError(text)
        self._buffer = bytearray()
        return self._failure
