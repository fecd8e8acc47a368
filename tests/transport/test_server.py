"""The listener, over real sockets: strangers, liars, floods, and what their connections may cost."""

from __future__ import annotations

import logging
import random
import socket
import tracemalloc
from typing import Self

import pytest
import trio

from tests.transport.kit import LOCAL, Caller, Node, append, identity, pair, pulse, until, vote
from trioraft import TransportError
from trioraft.transport import RpcServer, RpcServerConfig, ServerStatistics, TcpTransportConfig
from trioraft.wire import PING, PONG, Hello, decode_welcome, encode_frame, encode_hello, encode_messages, encode_pulse

FAST = TcpTransportConfig(backoff_min=0.05, backoff_max=0.2)


def server_config(**fields: object) -> RpcServerConfig:
    return RpcServerConfig(bind_addr="127.0.0.1:0", **fields)  # type: ignore[arg-type]  # whatever the test says


class Listening:
    """A node that only listens."""

    def __init__(self, **fields: object) -> None:
        self.node = Node(identity(2), server=server_config(**fields))
        self.receiver = self.node.receiver
        self._callers: list[Caller] = []

    async def __aenter__(self) -> Self:
        self._manager = trio.open_nursery()
        self.nursery = await self._manager.__aenter__()
        self.nursery.cancel_scope.deadline = trio.current_time() + 15
        await self.node.listen(self.nursery)
        self.address = self.node.address
        return self

    async def dial(self) -> Caller:
        """A raw connection, closed with the listener if not before."""
        self._callers.append(await Caller.dial(self.address))
        return self._callers[-1]

    async def __aexit__(self, *error: object) -> None:
        timed_out = self.nursery.cancel_scope.cancel_called
        self.nursery.cancel_scope.cancel()
        for caller in self._callers:
            caller.stream.socket.close()
        await self._manager.__aexit__(*error)  # type: ignore[arg-type]  # the three as they came
        assert not timed_out, "the test took too long"

    @property
    def seen(self) -> ServerStatistics:
        return self.node.server.statistics()


async def test_bound_addresses_are_told_and_a_taken_one_is_an_error() -> None:
    async with Listening() as here:
        host, _, port = here.address.rpartition(":")
        assert (host, int(port) > 0) == ("127.0.0.1", True)
        with pytest.raises(TransportError) as caught:
            await RpcServer(RpcServerConfig(bind_addr=here.address), here.node).serve()
        assert caught.value.kind == "bind"
        assert here.address in str(caught.value)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
async def test_ipv6_listener() -> None:
    node = Node(identity(1), server=RpcServerConfig(bind_addr="[::1]:0"))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await node.listen(nursery)
            assert node.address.startswith("[::1]:")
            nursery.cancel_scope.cancel()


async def test_backlog_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = trio.open_tcp_listeners

    async def remember(*arguments: object, **more: object) -> object:
        asked.append(more["backlog"])
        return await real(*arguments, **more)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(trio, "open_tcp_listeners", remember)
    async with Listening(backlog=7):
        assert asked == [7]


@pytest.mark.parametrize("nodelay", [True, False])
async def test_socket_options_of_accepted_connections(nodelay: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    async with Listening(tcp_nodelay=nodelay, tcp_keepalive=nodelay) as here:
        real = here.node.server.serve_stream

        async def look(stream: trio.SocketStream, remote: str) -> None:
            seen.append(bool(stream.getsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY)))
            seen.append(bool(stream.getsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_KEEPALIVE)))
            await real(stream, remote)

        monkeypatch.setattr(here.node.server, "serve_stream", look)
        caller = await here.dial()
        assert (await caller.hello(1, 2)).refusal is None
        assert seen == [nodelay, nodelay]
        await caller.close()


# Who is let in.


async def test_TP_8_wrong_cluster_is_named_on_both_sides(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with pair(Node(identity(1, cluster="other"), config=FAST), wait=False) as (one, two, _):
        await until(lambda: one.peer(2).attempts >= 4)
        assert one.peer(2).connects == 0
        assert str(one.peer(2).last_refusal).startswith("wrong-cluster: ")
        assert two.server.statistics().refusals["wrong-cluster"] >= 2
        assert two.receiver.checked == []
        assert two.receiver.connected_peers == []
    texts = [record.getMessage() for record in caplog.records]
    assert any(text.startswith("refused node 1") and "wrong-cluster" in text for text in texts)
    assert any("to node 2" in text and "wrong-cluster" in text for text in texts)
    assert len(texts) <= 3, "a refusal that repeats itself is not said aloud again"


async def test_wrong_node_behind_an_address() -> None:
    """The address of node 2 is node 3's: nothing is sent there."""
    async with pair(Node(identity(1), config=FAST), wait=False) as (one, two, _nursery):
        one.transport.set_address(3, two.address)
        await until(lambda: one.peer(3).last_refusal is not None)
        assert one.peer(3).last_refusal == "wrong-node: refused by the other side: this is node 2, and the caller wants node 3"
        assert one.peer(3).connects == 0


async def test_answer_of_another_node_is_refused_by_who_dialled() -> None:
    async with pair(Node(identity(1), config=FAST), wait=False) as (one, _two, nursery):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def liar(stream: trio.SocketStream) -> None:
            from trioraft.transport._greeting import answer, receive_greeting

            await receive_greeting(stream)
            await answer(stream, identity(4), None)
            await stream.aclose()

        nursery.start_soon(trio.serve_listeners, liar, listeners)
        one.transport.set_address(3, f"127.0.0.1:{listeners[0].socket.getsockname()[1]}")
        await until(lambda: one.peer(3).last_refusal is not None)
        assert one.peer(3).last_refusal == "wrong-node: node 4 answers there"


async def test_what_is_no_node_is_refused_by_who_dialled() -> None:
    async with pair(Node(identity(1), config=FAST), wait=False) as (one, _two, nursery):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def other(stream: trio.SocketStream) -> None:
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await stream.aclose()

        nursery.start_soon(trio.serve_listeners, other, listeners)
        one.transport.set_address(3, f"127.0.0.1:{listeners[0].socket.getsockname()[1]}")
        await until(lambda: str(one.peer(3).last_refusal).startswith("protocol: "))


async def test_wrong_store_of_the_caller_and_of_the_answerer() -> None:
    """A wiped disk under an old node id: the receiver knows, both logs say it."""
    two = Node(identity(2))
    two.receiver.refusal = "wrong-store: node 1 was another store"
    async with pair(Node(identity(1), config=FAST), two, wait=False) as (one, _, _nursery):
        await until(lambda: one.peer(2).last_refusal is not None)
        assert one.peer(2).last_refusal == "wrong-store: refused by the other side: node 1 was another store"
        two.receiver.refusal, one.receiver.refusal = None, "wrong-store: node 2 was another store"
        await until(lambda: one.peer(2).last_refusal == "wrong-store: refused by us: node 2 was another store")
        assert one.peer(2).connects == 0
        one.receiver.refusal = None
        await until(lambda: one.peer(2).connected_lanes == 2)


async def test_refusal_without_a_kind_still_travels() -> None:
    two = Node(identity(2))
    two.receiver.refusal = "No, THANKS"
    async with pair(Node(identity(1), config=FAST), two, wait=False) as (one, _, _nursery):
        await until(lambda: one.peer(2).last_refusal is not None)
        assert one.peer(2).last_refusal == "refused: refused by the other side: No, THANKS"


async def test_caller_with_our_own_node_id_is_refused() -> None:
    async with Listening() as here:
        caller = await here.dial()
        assert (await caller.hello(2, 2)).refusal == "wrong-node"
        assert await caller.is_closed()
        await caller.close()


async def test_TP_15_unknown_version_is_refused_by_name() -> None:
    async with Listening() as here:
        caller = await here.dial()
        who = identity(1)
        body = bytearray(encode_hello(Hello("test", 1, 2, who.store_id, 1, "append")))
        body[8] = 99
        await caller.say(bytes(body))
        answer = await caller.hear()
        assert answer is not None
        assert decode_welcome(answer).refusal == "version"
        assert "99" in decode_welcome(answer).detail
        assert await caller.is_closed()
        assert here.seen.refusals == {"version": 1}
        await caller.close()


async def test_TP_15_unknown_message_is_skipped_and_unknown_body_ends_the_connection() -> None:
    async with Listening() as here:
        caller = await here.dial()
        await caller.hello(1, 2)
        body = bytearray(encode_messages([vote(1, 2, group=1), vote(1, 2, group=2)], 1, 2))
        kinds = [offset for offset in range(5, len(body)) if body[offset] & 0xE0 == 0x80 and offset > 5]
        body[kinds[0] + 1] = 0x17  # the kind of the first message becomes 23, which there is not
        await caller.say(bytes(body))
        await here.receiver.wait(lambda: len(here.receiver.envelopes) == 1)
        assert here.receiver.envelopes == [vote(1, 2, group=2)]
        assert here.seen.peers[1].bad_messages == 1
        await caller.say(b"\xf0what is this")
        assert await caller.is_closed()
        assert here.seen.bad_frames == 1
        await caller.close()


async def test_TP_10_recorded_connection_of_an_older_start_is_refused() -> None:
    async with Listening() as here:
        old = encode_frame([encode_hello(Hello("test", 1, 2, identity(1).store_id, 4, "append"))]) + encode_frame(
            [encode_messages([append(1, 2)], 1, 2)]
        )
        now = await here.dial()
        assert (await now.hello(1, 2, incarnation=5)).refusal is None
        replayed = await here.dial()
        await replayed.stream.send_all(old)
        answer = await replayed.hear()
        assert answer is not None
        assert decode_welcome(answer).refusal == "old-incarnation"
        assert await replayed.is_closed()
        assert here.receiver.envelopes == []
        assert here.seen.connections == 1
        await now.close()
        await replayed.close()


async def test_a_new_store_starts_counting_anew() -> None:
    """The receiver has accepted the node with another store (added anew): its first start must not lose against the old one's fifth."""
    async with Listening() as here:
        old, new = await here.dial(), await here.dial()
        await old.hello(1, 2, incarnation=5)
        assert (await new.hello(1, 2, incarnation=1, store=99)).refusal is None
        assert await old.is_closed()
        await old.close()
        await new.close()


# What strangers may cost.


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 64, b"\xff" * 2000, encode_frame([b"hello"]), encode_frame([b"trioraft"]), PING],
    ids=["http", "zeros", "ones", "a frame", "magic alone", "ping"],
)
async def test_garbage_is_hung_up_on_without_an_answer(garbage: bytes) -> None:
    async with Listening() as here:
        caller = await here.dial()
        await caller.stream.send_all(garbage)
        assert await caller.is_closed()
        await until(lambda: here.seen.unauthenticated == 0)
        assert here.seen.refusals == {"garbage": 1}
        await caller.close()


async def test_hello_never_finished_is_hung_up_on_after_handshake_timeout() -> None:
    async with Listening(handshake_timeout=0.1) as here:
        silent, half, slow = [await here.dial() for _ in range(3)]
        hello = encode_frame([encode_hello(Hello("test", 1, 2, identity(1).store_id, 1, "append"))])
        await half.stream.send_all(hello[:20])
        for byte in hello[:3]:
            await slow.stream.send_all(bytes([byte]))
            await trio.sleep(0.02)
        for caller in (silent, half, slow):
            assert await caller.is_closed()
            await caller.close()
        await until(lambda: here.seen.unauthenticated == 0)
        assert here.seen.refusals == {"handshake-timeout": 3}


async def test_caller_that_hangs_up_in_the_handshake_is_forgotten() -> None:
    async with Listening() as here:
        for _ in range(20):
            caller = await here.dial()
            await caller.close()
        await until(lambda: sum(here.seen.refusals.values()) == 20 and here.seen.unauthenticated == 0)


async def test_flood_of_silent_connections_is_bounded_and_peers_still_get_in() -> None:
    async with Listening(unauthenticated_connections_max=8) as here:
        flood = [await here.dial() for _ in range(100)]
        await until(lambda: here.seen.evicted == 92)
        assert here.seen.unauthenticated == 8
        caller = await here.dial()
        assert (await caller.hello(1, 2)).refusal is None
        await caller.say(encode_messages([append(1, 2)], 1, 2))
        await here.receiver.wait(lambda: len(here.receiver.envelopes) == 1)
        for one in [*flood, caller]:
            await one.close()


async def test_max_connections_bounds_those_that_are_let_in() -> None:
    async with Listening(max_connections=2) as here:
        callers = [await here.dial() for _ in range(3)]
        refusals = [(await caller.hello(10 + number, 2)).refusal for number, caller in enumerate(callers)]
        assert refusals == [None, None, "busy"]
        await callers[0].close()
        await until(lambda: here.seen.connections == 1)
        again = await here.dial()
        assert (await again.hello(12, 2)).refusal is None
        for one in [*callers, again]:
            await one.close()


async def test_newest_connection_of_a_lane_wins() -> None:
    async with Listening() as here:
        old, new = await here.dial(), await here.dial()
        await old.hello(1, 2)
        await new.hello(1, 2)
        assert await old.is_closed()
        assert (here.seen.connections, here.seen.replaced) == (1, 1)
        await new.say(encode_messages([append(1, 2)], 1, 2))
        await here.receiver.wait(lambda: len(here.receiver.envelopes) == 1)
        await old.close()
        await new.close()


async def test_newer_start_of_a_peer_ends_all_of_the_older_one() -> None:
    async with Listening() as here:
        lanes = {lane: await here.dial() for lane in ("control", "append")}
        for lane, caller in lanes.items():
            await caller.hello(1, 2, lane=lane)
        new = await here.dial()
        await new.hello(1, 2, lane="control", incarnation=2)
        for caller in lanes.values():
            assert await caller.is_closed()
        assert here.seen.connections == 1
        for caller in [*lanes.values(), new]:
            await caller.close()


async def test_max_connections_per_addr_of_one_peer() -> None:
    from tests.transport.kit import SnapshotTaker

    node = Node(identity(2), receiver=SnapshotTaker(), server=server_config(max_connections_per_addr=3))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await node.listen(nursery)
            callers = [await Caller.dial(node.address) for _ in range(4)]
            lanes = ["control", "append", "snapshot", "snapshot"]
            refusals = [(await caller.hello(1, 2, lane=lane)).refusal for caller, lane in zip(callers, lanes, strict=True)]
            assert refusals == [None, None, None, "busy"]
            for caller in callers:
                await caller.close()
            nursery.cancel_scope.cancel()


async def test_callers_under_ever_new_node_ids_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trioraft.transport._server._ABSENT_PEERS_MAX", 5)
    async with Listening(max_connections=3) as here:
        for node_id in range(10, 40):
            caller = await here.dial()
            assert (await caller.hello(node_id, 2)).refusal is None
            await caller.close()
            await until(lambda: here.seen.connections == 0)
        assert list(here.seen.peers) == list(range(32, 40))


# What a peer may send.


async def test_TP_6_flipped_bit_ends_the_connection_and_nothing_is_delivered() -> None:
    """Every bit of a sample frame, a connection each. A flip in the length may also leave a frame without its rest: it is cut."""
    frame = encode_frame([encode_messages([vote(1, 2)], 1, 2)])
    assert len(frame) < 64
    async with Listening(max_connections_per_addr=3) as here:
        for bit in range(len(frame) * 8):
            damaged = bytearray(frame)
            damaged[bit // 8] ^= 1 << bit % 8
            caller = await here.dial()
            await caller.hello(1, 2)
            await caller.stream.send_all(damaged)
            await caller.stream.send_eof()
            assert await caller.is_closed(), f"bit {bit}"
            await caller.close()
        await until(lambda: here.seen.connections == 0)
        assert here.seen.bad_frames == len(frame) * 8
        assert here.receiver.envelopes == []


async def test_oversized_frame_is_cut_off_before_it_is_read() -> None:
    async with Listening(frame_bytes_max=1 << 20) as here:
        caller = await here.dial()
        await caller.hello(1, 2)
        tracemalloc.start()
        try:
            await caller.stream.send_all((1 << 30).to_bytes(4, "little") + b"\x00" * 60)
            assert await caller.is_closed()
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()
        await until(lambda: here.seen.bad_frames == 1)
        await caller.close()


async def test_cut_frame_is_counted_and_nothing_of_it_delivered() -> None:
    async with Listening() as here:
        caller = await here.dial()
        await caller.hello(1, 2)
        await caller.stream.send_all(encode_frame([encode_messages([append(1, 2)] * 3, 1, 2)])[:-1])
        await caller.close()
        await until(lambda: here.seen.connections == 0)
        assert (here.seen.bad_frames, here.receiver.envelopes) == (1, [])


@pytest.mark.parametrize(
    "body", [b"\x01", b"\x01\xff\xff\xff\xff", b"\x02\x9f", b"\x02\x80", PONG[8:], b"\x03more"], ids=lambda body: body.hex()
)
async def test_body_that_cannot_be_decoded_ends_the_connection(body: bytes) -> None:
    async with Listening() as here:
        caller = await here.dial()
        await caller.hello(1, 2, lane="control")
        await caller.say(encode_pulse(pulse(1)))
        await caller.say(body)
        await caller.say(encode_pulse(pulse(2)))
        assert await caller.is_closed()
        assert here.receiver.pulses == [(1, pulse(1))]
        assert here.seen.bad_frames == 1
        await caller.close()


async def test_decoder_that_fails_costs_the_peer_its_connection_and_not_the_node(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RecursionError("bug")

    monkeypatch.setattr("trioraft.transport._inbound.decode_messages", fail)
    async with Listening() as here:
        caller = await here.dial()
        await caller.hello(1, 2)
        await caller.say(encode_messages([append(1, 2)], 1, 2))
        assert await caller.is_closed()
        assert here.seen.bad_frames == 1
        assert "the decoder failed" in caplog.text
        await caller.close()


async def test_random_bytes_after_the_handshake_never_do_more_than_end_the_connection(seed: int) -> None:
    draw = random.Random(seed)
    async with Listening() as here:
        for _ in range(50):
            caller = await here.dial()
            await caller.hello(1, 2)
            body = bytes([draw.choice((1, 2, 3, 4))]) + draw.randbytes(draw.randrange(200))
            await caller.stream.send_all(encode_frame([body]) + draw.randbytes(draw.randrange(200)))
            await caller.stream.send_eof()
            while await caller.hear() is not None:
                pass
            await caller.close()
        await until(lambda: here.seen.connections == 0)


async def test_ping_is_answered_on_the_same_connection() -> None:
    async with Listening() as here:
        caller = await here.dial()
        await caller.hello(1, 2, lane="control")
        for _ in range(3):
            await caller.stream.send_all(PING)
            assert await caller.hear() == PONG[8:]
        await caller.close()


async def test_MG_11_flood_of_messages_leaves_memory_flat() -> None:
    """Random group ids, delivered and forgotten: the listener itself keeps nothing of them."""
    async with Listening() as here:
        here.receiver.messages = lambda peer, envelopes: None  # type: ignore[method-assign]  # forgets them
        caller = await here.dial()
        await caller.hello(1, 2)
        draw, sent, before = random.Random(1), 0, 0
        tracemalloc.start()
        try:
            for round_ in range(30):
                await caller.say(encode_messages([vote(1, 2, group=draw.randrange(1 << 62)) for _ in range(500)], 1, 2))
                sent += 500
                await until(lambda: here.seen.peers[1].messages == sent)  # noqa: B023  # it is called before the loop goes on
                if round_ == 10:
                    before = tracemalloc.get_traced_memory()[0]
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert grown < 128 << 10
        await caller.close()


async def test_payloads_are_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Listening() as here:
        caller = await here.dial()
        await caller.hello(1, 2)
        secret = append(1, 2, size=30)
        secret.message.entries[0].payload = b"s3cret-s3cret"  # type: ignore[union-attr]  # it is an append
        await caller.say(encode_messages([secret], 1, 2)[:-1] + b"?")
        await caller.say(b"\xf0s3cret-s3cret")
        assert await caller.is_closed()
        await caller.close()
    assert caplog.records
    assert "s3cret" not in caplog.text


def test_local_config_is_loopback() -> None:
    assert LOCAL.address.is_loopback
