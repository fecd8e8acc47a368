"""The HTTP server against well-behaved, slow, greedy and broken clients, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from http_client import HttpConnection, NoAnswerError, NotSentError
from http_server import HttpLimits, HttpServer, Request, Response, json_response

LIMITS = HttpLimits(
    head_bytes_max=2048, body_bytes_max=1000, connections_max=3, idle_seconds=0.5, receive_seconds=0.3, send_seconds=1, grace_seconds=0.3
)


class Echo:
    """Answers with what it was asked; `hold` keeps requests waiting."""

    def __init__(self) -> None:
        self.release = trio.Event()
        self.arrived = trio.Event()

    async def __call__(self, request: Request) -> Response:
        match request.path:
            case ("fail",):
                raise RuntimeError("planted")
            case ("hold",):
                self.arrived.set()
                await self.release.wait()
        return json_response(200, [request.method, list(request.path), request.query, request.body.decode()])


class Served:
    def __init__(self, nursery: trio.Nursery, port: int, echo: Echo, server: HttpServer) -> None:
        self.nursery, self.port, self.echo, self.server = nursery, port, echo, server

    async def dial(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    def connection(self) -> HttpConnection:
        return HttpConnection("127.0.0.1", self.port)


@pytest.fixture
async def served(nursery: trio.Nursery) -> AsyncIterator[Served]:
    echo = Echo()
    server = HttpServer(echo, LIMITS)
    listeners = await nursery.start(server.serve, await trio.open_tcp_listeners(0, host="127.0.0.1"))
    yield Served(nursery, listeners[0].socket.getsockname()[1], echo, server)
    server.stop()


async def everything(stream: trio.abc.ReceiveStream) -> bytes:
    with trio.fail_after(5):
        return b"".join([part async for part in stream])


async def test_requests_one_after_the_other_on_one_connection(served: Served) -> None:
    async with served.connection() as connection:
        for number in range(3):
            answer = await connection.request("PUT", f"/a%2Fb/{number}?x=1&y=", b"body")
            assert (answer.status, answer.json()) == (200, ["PUT", ["a/b", str(number)], {"x": "1", "y": ""}, "body"])
        assert len(served.server._connections) == 1


async def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    async with await served.dial() as stream:
        await stream.send_all(b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\nGET /2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answers = await everything(stream)
    assert answers.index(b'["1"]') < answers.index(b'["2"]')


async def test_expect_continue(served: Served) -> None:
    async with await served.dial() as stream:
        await stream.send_all(b"PUT /k HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100")
        await stream.send_all(b"hi")
        assert b'"hi"' in await everything(stream)


async def test_a_failing_handler_is_a_500_and_the_server_goes_on(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    async with served.connection() as connection:
        assert (await connection.request("GET", "/fail")).status == 500
        assert (await connection.request("GET", "/ok")).status == 200
    assert "planted" in caplog.text


@pytest.mark.parametrize(
    "sent, status",
    [
        (b"PUT /k HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n", b"413"),
        (b"PUT /k HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001, b"413"),
        (b"GET /k HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 5000, b"431"),
        (b"GARBAGE\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET /%ff HTTP/1.1\r\nhost: x\r\n\r\n", b"400"),
        (b"GET /k?a HTTP/1.1\r\nhost: x\r\n\r\n", b"400"),
        (b"GET /k HTTP/1.1\r\n\r\n", b"400"),
    ],
)
async def test_bad_requests_get_an_answer_and_the_connection_is_closed(served: Served, sent: bytes, status: bytes) -> None:
    async with await served.dial() as stream:
        await stream.send_all(sent)
        answer = await everything(stream)
    assert answer.startswith(b"HTTP/1.1 " + status), answer
    assert b"connection: close" in answer.lower()


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(served: Served) -> None:
    async with await served.dial() as stream:
        await stream.send_all(b"PUT /k HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999\r\n\r\n")
        assert b"at most 1000 bytes" in await everything(stream)


@pytest.mark.parametrize("sent", [b"", b"GET /k HT", b"PUT /k HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab"])
async def test_slow_clients_are_cut_off(served: Served, sent: bytes) -> None:
    async with await served.dial() as stream:
        if sent:
            await stream.send_all(sent)
        assert await everything(stream) == b""


async def test_a_client_that_goes_away_in_the_middle_is_forgotten(served: Served) -> None:
    stream = await served.dial()
    await stream.send_all(b"PUT /k HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab")
    await stream.aclose()
    async with served.connection() as connection:
        assert (await connection.request("GET", "/ok")).status == 200


async def test_connections_are_bounded(served: Served) -> None:
    streams = [await served.dial() for _ in range(LIMITS.connections_max)]
    with trio.fail_after(5):
        while len(served.server._connections) < LIMITS.connections_max:
            await trio.sleep(0.01)
    async with await served.dial() as one_more:
        assert await everything(one_more) == b""
    for stream in streams:
        await stream.aclose()


async def test_stop_answers_what_is_in_flight_and_closes_what_is_idle(served: Served) -> None:
    answers = []

    async def ask() -> None:
        async with served.connection() as connection:
            answers.append(await connection.request("GET", "/hold"))

    async with trio.open_nursery() as nursery, await served.dial() as idle:
        nursery.start_soon(ask)
        await served.echo.arrived.wait()
        served.server.stop()
        assert await everything(idle) == b""
        served.echo.release.set()
    assert answers[0].status == 200
    assert answers[0].headers[b"connection"] == b"close"
    with pytest.raises(NotSentError):
        await served.connection().request("GET", "/late")


async def test_stop_does_not_wait_for_ever(served: Served) -> None:
    async with served.connection() as connection, trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(NoAnswerError):
                await connection.request("GET", "/hold")

        nursery.start_soon(ask)
        await served.echo.arrived.wait()
        served.server.stop()
