"""An HTTP client for one server: a keep-alive connection, and errors that say whether a request may have been carried out.

It speaks only as much HTTP/1.1 as `http_server` answers with: a status, headers, and a body of stated length. That takes a quarter of the
time of a full parser, and counts: the clients of the launcher share the machine with the nodes that they measure.
"""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Self

import attrs
import trio

_RECEIVE_BYTES = 64 * 1024
_HEAD_BYTES_MAX = 64 * 1024
_BODY_BYTES_MAX = 64 * 1024 * 1024


class NotSentError(Exception):
    """No connection: the server has seen nothing of the request."""


class NoAnswerError(Exception):
    """The request went out and no answer came back: it may have been carried out."""


@attrs.frozen
class Answer:
    """What the server said."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class HttpConnection:
    """One connection, for one request at a time; dials when needed, and dials anew after any error.

    *Cancellation:* a request that is cancelled may have been carried out; its connection is closed, for nobody could tell any more which
    answer belongs to which request.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._stream: trio.SocketStream | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection, whatever it was doing."""
        if self._stream is not None:
            self._stream.socket.close()
            self._stream = None

    async def request(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Send one request and return the answer.

        Raises:
            NotSentError: there is no server; nothing was sent.
            NoAnswerError: the connection broke before the answer was complete, or the answer cannot be understood.
        """
        stream = await self._connect()
        is_reusable = False
        try:
            head = f"{method} {path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\ncontent-length: {len(body)}\r\n\r\n"
            await stream.send_all(head.encode("ascii") + body)
            answer = await _receive(stream)
            is_reusable = answer.headers.get(b"connection") != b"close"
            return answer
        except (OSError, trio.BrokenResourceError, ValueError) as error:
            raise NoAnswerError(f"{method} {path}: {error}") from error
        finally:
            if not is_reusable:
                self.close()

    async def _connect(self) -> trio.SocketStream:
        if self._stream is None:
            try:
                self._stream = await trio.open_tcp_stream(self._host, self._port)
            except OSError as error:
                raise NotSentError(f"{self._host}:{self._port}: {error}") from error
        return self._stream


async def _receive(stream: trio.SocketStream) -> Answer:
    received = bytearray()
    while (end := received.find(b"\r\n\r\n")) < 0:
        if len(received) > _HEAD_BYTES_MAX:
            raise ValueError("the head of the answer has no end")
        received += await _receive_some(stream)
    status, headers = _parse_head(bytes(received[:end]))
    length = int(headers.get(b"content-length", b"0"))
    if not 0 <= length <= _BODY_BYTES_MAX:
        raise ValueError(f"the answer announces a body of {length} bytes")
    whole = end + 4 + length
    while len(received) < whole:
        received += await _receive_some(stream)
    if len(received) > whole:
        raise ValueError("the server sent more than it announced")
    return Answer(status, headers, bytes(received[end + 4 :]))


async def _receive_some(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some(_RECEIVE_BYTES)
    if not data:
        raise trio.BrokenResourceError("the server closed the connection")
    return bytes(data)


def _parse_head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    first, *lines = head.split(b"\r\n")
    if not first.startswith(b"HTTP/1.1 "):
        raise ValueError(f"not an answer of HTTP/1.1: {first[:40]!r}")
    headers = {}
    for line in lines:
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip().lower()
    return int(first[9:12]), headers
