"""A small HTTP/1.1 server on Trio: h11 speaks the protocol, this file moves the bytes.

Rules:

- One task per connection, requests one after the other (keep-alive and pipelining are h11's business).
- Everything from outside is bounded: size of a head, size of a body, number of connections, and the time for each step.
- One cancel scope per connection; its deadline moves from step to step. A client that is too slow is cut off without a word.
- A connection ends as ours to close whenever we have not read all of a request: what follows could not be told apart from its body.
- `stop` ends in order: no new connection, idle ones closed, requests in flight answered (bounded), then `serve` returns.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs
import h11
import trio

_log = logging.getLogger("http")

_RECEIVE_BYTES = 64 * 1024
_LINGER_BYTES = 4 * 1024 * 1024
"""How much of an unwanted body is read away, so that closing does not reset the connection before the client has read our answer."""


@attrs.frozen(kw_only=True)
class HttpLimits:
    """Bounds on what a client may take."""

    head_bytes_max: int = 16 * 1024
    body_bytes_max: int = 1024 * 1024
    connections_max: int = 512
    idle_seconds: float = 60.0
    """Between two requests."""
    receive_seconds: float = 10.0
    """From the first byte of a request to its last."""
    send_seconds: float = 10.0
    grace_seconds: float = 2.0
    """For requests in flight, once told to stop."""


@attrs.frozen
class Request:
    """One request, completely received."""

    method: str
    path: tuple[str, ...]
    """The segments of the path, percent-decoded."""
    query: dict[str, str]
    body: bytes


@attrs.frozen
class Response:
    """One answer, to be sent as a whole."""

    status: int
    body: bytes = b""
    content_type: str = "application/octet-stream"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Awaitable[Response]]


class BadRequestError(Exception):
    """The request cannot be served; `status` and the text go to the client, and the connection is closed."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


def json_response(status: int, value: Any, *headers: tuple[str, str]) -> Response:
    """An answer whose body is JSON, with a newline at its end for those who use curl."""
    return Response(status, json.dumps(value).encode() + b"\n", "application/json", headers)


def error_response(status: int, error: str, text: str, *headers: tuple[str, str], **more: Any) -> Response:
    """An answer that says what is wrong: a short stable name, and a sentence for a person."""
    return json_response(status, {"error": error, "text": text, **more}, *headers)


@attrs.define(eq=False)
class _Connection:
    """A client, as the server sees it."""

    stream: trio.SocketStream
    protocol: h11.Connection
    scope: trio.CancelScope
    is_idle: bool = True


class HttpServer:
    """Serves one handler. The handler's errors become a 500; they never reach the nursery."""

    def __init__(self, handler: Handler, limits: HttpLimits | None = None) -> None:
        self._handler = handler
        self._limits = limits if limits is not None else HttpLimits()
        self._connections: set[_Connection] = set()
        self._stopping = False
        self._accepting = trio.CancelScope()

    async def serve(
        self,
        listeners: Sequence[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept and answer until `stop`; the listeners are closed on the way out.

        Cancellation: requests in flight are dropped; whatever they proposed may still be applied.
        """
        async with trio.open_nursery() as connections:
            with self._accepting:
                await trio.serve_listeners(self._serve_connection, list(listeners), handler_nursery=connections, task_status=task_status)
            connections.cancel_scope.deadline = trio.current_time() + self._limits.grace_seconds

    def stop(self) -> None:
        """Accept no more, close what is idle, let requests in flight end. `serve` then returns."""
        self._stopping = True
        self._accepting.cancel()
        for connection in self._connections:
            if connection.is_idle:
                connection.scope.cancel()

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head_bytes_max)
        connection = _Connection(stream, protocol, trio.CancelScope())
        try:
            with connection.scope:
                if len(self._connections) >= self._limits.connections_max or self._stopping:
                    return
                self._connections.add(connection)
                await self._serve_requests(connection)
        except trio.BrokenResourceError:
            pass  # The client went away in the middle: its business.
        except h11.LocalProtocolError:
            _log.exception("an answer was no valid HTTP")
        finally:
            self._connections.discard(connection)
            await trio.aclose_forcefully(stream)

    async def _serve_requests(self, connection: _Connection) -> None:
        while True:
            try:
                request = await self._receive_request(connection)
            except (BadRequestError, h11.RemoteProtocolError) as error:
                await self._refuse(connection, error)
                return
            if request is None:
                return
            connection.scope.deadline = float("inf")  # The handler has a bound of its own.
            response = await self._handle(request)
            await self._send_response(connection, request.method, response)
            if connection.protocol.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
                return
            connection.protocol.start_next_cycle()

    async def _handle(self, request: Request) -> Response:
        try:
            return await self._handler(request)
        except Exception:  # noqa: BLE001 - one request must not end the node; the log has it
            _log.exception("%s /%s failed", request.method, "/".join(request.path[:3]))
            return error_response(500, "internal", "the server failed on this request; its log says why")

    async def _receive_request(self, connection: _Connection) -> Request | None:
        """Read one request; None when the client has no more."""
        connection.is_idle = True
        connection.scope.deadline = trio.current_time() + self._limits.idle_seconds
        head = await self._next_event(connection)
        if not isinstance(head, h11.Request):
            return None
        connection.is_idle = False
        self._check_length(head)
        body = bytearray()
        while isinstance(event := await self._next_event(connection), h11.Data):
            body += event.data
            if len(body) > self._limits.body_bytes_max:
                raise BadRequestError(413, f"a body may have at most {self._limits.body_bytes_max} bytes")
        return _parse_request(head, bytes(body)) if isinstance(event, h11.EndOfMessage) else None

    def _check_length(self, head: h11.Request) -> None:
        """Refuse a body that is announced too large, before any of it is read."""
        for name, value in head.headers:
            if name == b"content-length" and int(value) > self._limits.body_bytes_max:
                raise BadRequestError(413, f"a body may have at most {self._limits.body_bytes_max} bytes")

    async def _next_event(self, connection: _Connection) -> Any:
        protocol = connection.protocol
        while (event := protocol.next_event()) is h11.NEED_DATA:
            if protocol.they_are_waiting_for_100_continue:
                await connection.stream.send_all(protocol.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            data = await connection.stream.receive_some(_RECEIVE_BYTES)
            if data and connection.is_idle:
                connection.is_idle = False
                connection.scope.deadline = trio.current_time() + self._limits.receive_seconds
            protocol.receive_data(data)
        return event

    async def _send_response(self, connection: _Connection, method: str, response: Response, *, close: bool = False) -> None:
        connection.scope.deadline = trio.current_time() + self._limits.send_seconds
        headers = [("content-length", str(len(response.body))), *response.headers]
        if response.body:
            headers.append(("content-type", response.content_type))
        if close or self._stopping:
            headers.append(("connection", "close"))
        if response.status == 204:
            headers = [header for header in headers if header[0] != "content-length"]
        protocol = connection.protocol
        parts = [protocol.send(h11.Response(status_code=response.status, headers=headers))]
        if response.body and method != "HEAD":
            parts.append(protocol.send(h11.Data(data=response.body)))
        parts.append(protocol.send(h11.EndOfMessage()))
        await connection.stream.send_all(b"".join(part for part in parts if part))

    async def _refuse(self, connection: _Connection, error: BadRequestError | h11.RemoteProtocolError) -> None:
        if connection.protocol.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        status = error.status if isinstance(error, BadRequestError) else error.error_status_hint
        response = error_response(status, "too-large" if status in (413, 431) else "bad-request", str(error))
        await self._send_response(connection, "", response, close=True)
        await connection.stream.send_eof()
        unread = _LINGER_BYTES
        while unread > 0 and (data := await connection.stream.receive_some(_RECEIVE_BYTES)):
            unread -= len(data)


def _parse_request(head: h11.Request, body: bytes) -> Request:
    try:
        target = urlsplit(head.target.decode("ascii"))
        path = tuple(unquote(part, errors="strict") for part in target.path.split("/")[1:])
        query = dict(parse_qsl(target.query, keep_blank_values=True, strict_parsing=bool(target.query), errors="strict", max_num_fields=16))
    except ValueError as error:
        raise BadRequestError(400, "the path or the query is not valid UTF-8 in percent encoding") from error
    return Request(head.method.decode("ascii"), path, query, body)
