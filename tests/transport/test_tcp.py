"""The four verbs over real sockets, and what a slow, hung or moved peer does to them."""

from __future__ import annotations

import gc
import logging
import random
import time
import tracemalloc
from functools import partial
from typing import Any

import pytest
import trio

from tests.transport.kit import LOCAL, Caller, FakeReceiver, Node, SnapshotTaker, append, identity, pair, pulse, until, vote
from trioraft import ConfigError, TransportError
from trioraft._types import Member
from trioraft.transport import RpcServer, RpcServerConfig, TcpTransport, TcpTransportConfig
from trioraft.transport._address import Address
from trioraft.transport._socket import open_tcp
from trioraft.wire import Envelope


async def test_three_verbs_reach_the_receiver() -> None:
    async with pair() as (one, two, _):
        one.transport.send_append_entries(2, [append(1, 2, group=group, size=100) for group in (1, 2, 3)])
        one.transport.send_vote(2, [vote(1, 2, term=9)])
        one.transport.send_heartbeat_batch(2, pulse(5))
        await two.receiver.wait(lambda: len(two.receiver.envelopes) == 4 and len(two.receiver.pulses) == 1)
        assert two.receiver.pulses == [(1, pulse(5))]
        frames = {len(envelopes): (peer, envelopes) for peer, envelopes in two.receiver.frames}
        assert frames[3] == (1, [append(1, 2, group=group, size=100) for group in (1, 2, 3)])
        assert frames[1] == (1, [vote(1, 2, term=9)])


async def test_two_lanes_each_its_own_connection_and_both_sides_are_told() -> None:
    async with pair() as (one, two, _):
        await until(lambda: one.receiver.connected_peers == [2, 2])
        await until(lambda: two.receiver.connected_peers == [1, 1])
        assert two.server.statistics().connections == 2
        assert one.receiver.checked == [identity(2)] * 2
        assert two.receiver.checked == [identity(1)] * 2


async def test_what_waits_goes_as_one_frame_and_is_delivered_by_one_call() -> None:
    async with pair() as (one, two, _):
        for group in range(500):
            one.transport.send_append_entries(2, [append(1, 2, group=group)])
        await two.receiver.wait(lambda: len(two.receiver.envelopes) == 500)
        assert len(two.receiver.frames) == 1


async def test_batch_bytes_max_splits_and_one_larger_message_goes_alone() -> None:
    one = Node(identity(1), config=TcpTransportConfig(batch_bytes_max=10_000))
    async with pair(one) as (_, two, _nursery):
        one.transport.send_append_entries(2, [append(1, 2, group=group, size=3000) for group in range(9)] + [append(1, 2, size=50_000)])
        await two.receiver.wait(lambda: len(two.receiver.envelopes) == 10)
        assert [len(envelopes) for _, envelopes in two.receiver.frames] == [3, 3, 3, 1]


async def test_messages_of_one_lane_stay_in_order() -> None:
    async with pair() as (one, two, _):
        for index in range(1, 2001):
            one.transport.send_append_entries(2, [append(1, 2, index=index, size=500)])
            if index % 100 == 0:
                await trio.lowlevel.checkpoint()
        await two.receiver.wait(lambda: len(two.receiver.envelopes) == 2000)
        assert [envelope.message.entries[0].index for envelope in two.receiver.envelopes] == list(range(1, 2001))  # type: ignore[union-attr]  # appends


async def test_peer_without_an_address_is_counted() -> None:
    async with pair() as (one, _two, _):
        one.transport.send_append_entries(9, [append(1, 9)])
        one.transport.send_vote(9, [vote(1, 9), vote(1, 9)])
        one.transport.send_heartbeat_batch(9, pulse())
        one.transport.retry_now(9)
        one.transport.remove_peer(9)
        assert one.transport.statistics().dropped_unknown == 4
        assert not one.transport.has_room(9)
        with pytest.raises(TransportError) as caught:
            await one.transport.send_install_snapshot(9, b"x")
        assert (caught.value.kind, caught.value.peer) == ("unknown-peer", 9)


async def test_absent_peer_costs_messages_and_one_word() -> None:
    async with pair(wait=False) as (one, _two, _nursery):
        one.transport.set_address(3, "127.0.0.1:1")
        await until(lambda: one.peer(3).last_refusal is not None)
        for _ in range(100):
            one.transport.send_append_entries(3, [append(1, 3)])
        await one.receiver.wait(lambda: one.receiver.unreachable_peers.count(3) == 1)
        one.transport.send_append_entries(3, [append(1, 3)])
        await trio.testing.wait_all_tasks_blocked()
        assert one.receiver.unreachable_peers.count(3) == 1
        assert (one.peer(3).dropped_messages, one.peer(3).queued_messages) == (101, 0)
        assert one.peer(3).last_refusal.startswith("away: ")


async def test_receiver_is_not_entered_from_inside_a_verb() -> None:
    one = Node(identity(1), config=TcpTransportConfig(queue_messages_max=1))
    async with pair(one):
        one.transport.send_append_entries(2, [append(1, 2)] * 5)
        assert one.receiver.unreachable_peers == []
        await one.receiver.wait(lambda: one.receiver.unreachable_peers == [2])


async def test_broken_connection_is_told_and_dialled_anew() -> None:
    async with pair() as (one, two, _nursery):
        for callers in list(two.server._callers.values()):
            for caller in list(callers):
                caller.close()
        await one.receiver.wait(lambda: 2 in one.receiver.unreachable_peers)
        await until(lambda: one.peer(2).connected_lanes == 2 and one.peer(2).connects == 4)
        one.transport.send_append_entries(2, [append(1, 2)])
        await two.receiver.wait(lambda: len(two.receiver.envelopes) == 1)


async def test_message_above_frame_bytes_max_is_dropped_and_the_others_go() -> None:
    one = Node(identity(1), config=TcpTransportConfig(frame_bytes_max=1 << 20))
    async with pair(one) as (_, two, _nursery):
        one.transport.send_append_entries(2, [append(1, 2, group=1), append(1, 2, group=2, size=2 << 20), append(1, 2, group=3)])
        await two.receiver.wait(lambda: len(two.receiver.envelopes) == 2)
        assert [envelope.group.group_id for envelope in two.receiver.envelopes] == [1, 3]
        assert one.peer(2).dropped_messages == 1


async def test_message_that_cannot_be_encoded_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as (one, two, _):
        bad = Envelope(append(1, 2).group, append(8, 2).message)
        one.transport.send_append_entries(2, [append(1, 2, group=1), bad, append(1, 2, group=3)])
        await two.receiver.wait(lambda: len(two.receiver.envelopes) == 2)
        assert (one.peer(2).dropped_messages, one.peer(2).messages_sent) == (1, 2)
        assert "cannot be sent" in caplog.text


async def test_TP_3_slow_peer_is_bounded_and_others_do_not_notice() -> None:
    """A peer that reads next to nothing: its queue is bounded in bytes, memory is flat, the other peer's latency stays."""
    limit = 4 << 20
    one = Node(identity(1), config=TcpTransportConfig(queue_bytes_max=limit))
    async with pair(one) as (_, two, nursery):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def slow(stream: trio.SocketStream) -> None:
            await Slow(3).handshake(stream)
            while await stream.receive_some(1):
                await trio.sleep(1)

        nursery.start_soon(trio.serve_listeners, slow, listeners)
        one.transport.set_address(3, f"127.0.0.1:{listeners[0].socket.getsockname()[1]}")
        await until(lambda: one.peer(3).connected_lanes == 2)
        tracemalloc.start()
        try:
            latencies, peak = [], 0
            for round_ in range(60):
                one.transport.send_append_entries(3, [append(1, 3, group=group, size=64 << 10) for group in range(16)])
                assert one.peer(3).queued_bytes <= limit
                if round_ == 20:
                    gc.collect()
                    peak = tracemalloc.get_traced_memory()[0]
                before, seen = time.perf_counter(), len(two.receiver.envelopes)
                one.transport.send_append_entries(2, [append(1, 2)])
                await two.receiver.wait(partial(two.receiver.has_more_than, seen))
                latencies.append(time.perf_counter() - before)
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - peak
        finally:
            tracemalloc.stop()
        assert one.peer(3).dropped_messages > 500
        assert not one.transport.has_room(3)
        assert one.transport.has_room(2)
        assert grown < 512 << 10, f"{grown} bytes more after 40 MiB offered"
        assert sorted(latencies)[len(latencies) // 2] < 0.05
        assert one.receiver.unreachable_peers == [3], "an overflow is one incident"
        one.transport.send_heartbeat_batch(3, pulse(1))
        one.transport.send_vote(3, [vote(1, 3)])


async def test_TP_3_write_timeout_cuts_off_a_peer_that_does_not_read() -> None:
    one = Node(identity(1), config=TcpTransportConfig(write_timeout=0.2, read_timeout=30))
    async with pair(one, wait=False) as (_, _two, nursery):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def deaf(stream: trio.SocketStream) -> None:
            await Slow(3).handshake(stream)
            await trio.sleep_forever()

        nursery.start_soon(trio.serve_listeners, deaf, listeners)
        one.transport.set_address(3, f"127.0.0.1:{listeners[0].socket.getsockname()[1]}")
        await until(lambda: one.peer(3).connected_lanes == 2)
        for _ in range(100):
            one.transport.send_append_entries(3, [append(1, 3, size=256 << 10)])
        await one.receiver.wait(lambda: 3 in one.receiver.unreachable_peers)
        await until(lambda: "write-timeout" in str(one.transport._peers[3].append.counters.last_refusal))
        assert one.peer(3).queued_bytes == 0


class Slow:
    """A peer that introduces itself properly and then does what its test wants."""

    def __init__(self, node_id: int) -> None:
        self.identity, self.receiver = identity(node_id), FakeReceiver()

    async def handshake(self, stream: trio.abc.Stream) -> None:
        server = RpcServer(LOCAL, self)
        from trioraft.transport._server import _Caller

        caller = _Caller("test")
        server._strangers[caller] = None
        assert await server._greet(stream, caller) is not None


async def test_LR_10_hung_peer_that_accepts_and_never_answers() -> None:
    """Its backlog takes our connection, and nobody says welcome: nothing grows, and the attempts are spaced."""
    one = Node(identity(1), config=TcpTransportConfig(connect_timeout=0.1, backoff_min=0.05, backoff_max=0.1))
    async with pair(one) as (_, two, _nursery):
        with trio.socket.socket() as hung:
            await hung.bind(("127.0.0.1", 0))
            hung.listen(16)
            one.transport.set_address(3, f"127.0.0.1:{hung.getsockname()[1]}")
            for _ in range(100):
                one.transport.send_append_entries(3, [append(1, 3, size=10_000)])
            await until(lambda: one.peer(3).attempts >= 4)
            assert str(one.peer(3).last_refusal).startswith("timeout: ")
            assert (one.peer(3).queued_bytes, one.peer(3).dropped_messages, one.peer(3).connects) == (0, 100, 0)
            assert one.receiver.unreachable_peers == [3]
            one.transport.send_append_entries(2, [append(1, 2)])
            await two.receiver.wait(lambda: len(two.receiver.envelopes) == 1)


async def test_TP_13_both_dial_at_once() -> None:
    """Each direction has connections of its own, so nobody has to give way: two attempts a side and no more."""
    async with pair(both_ways=True) as (one, two, _):
        await until(lambda: two.peer(1).connected_lanes == 2)
        one.transport.retry_now(2)
        two.transport.retry_now(1)
        await trio.sleep(0.3)
        assert (one.peer(2).attempts, two.peer(1).attempts) == (2, 2)
        assert one.receiver.unreachable_peers == two.receiver.unreachable_peers == []
        one.transport.send_vote(2, [vote(1, 2)])
        two.transport.send_vote(1, [vote(2, 1)])
        await two.receiver.wait(lambda: len(two.receiver.envelopes) == 1)
        await one.receiver.wait(lambda: len(one.receiver.envelopes) == 1)


async def test_MB_17_moved_peer_gets_nothing_at_its_old_address() -> None:
    async with pair() as (one, old, nursery):
        new = Node(identity(2))
        await new.listen(nursery)
        one.transport.send_append_entries(2, [append(1, 2, group=1)])
        await old.receiver.wait(lambda: len(old.receiver.envelopes) == 1)
        one.transport.set_address(2, new.address)
        await until(lambda: one.peer(2).connected_lanes == 2 and one.peer(2).connects == 4)
        await until(lambda: old.server.statistics().connections == 0)
        one.transport.send_append_entries(2, [append(1, 2, group=2)])
        await new.receiver.wait(lambda: len(new.receiver.envelopes) == 1)
        assert len(old.receiver.envelopes) == 1
        assert one.peer(2).attempts == 4


async def test_same_address_again_changes_nothing() -> None:
    async with pair() as (one, two, _):
        one.transport.set_address(2, two.address)
        await trio.testing.wait_all_tasks_blocked()
        assert (one.peer(2).connected_lanes, one.peer(2).attempts) == (2, 2)


async def test_removed_peer_is_hung_up_on_and_may_come_back() -> None:
    async with pair() as (one, two, _):
        one.transport.remove_peer(2)
        await until(lambda: two.server.statistics().connections == 0)
        assert one.transport.statistics().peers == {}
        one.transport.set_address(2, two.address)
        await until(lambda: one.peer(2).connected_lanes == 2)


async def test_own_address_is_not_dialled() -> None:
    one = Node(identity(1))
    one.transport.set_address(1, "127.0.0.1:1")
    async with pair(one):
        one.transport.set_address(1, "127.0.0.1:1")
        assert list(one.transport.statistics().peers) == [2]


async def test_transport_serves_once() -> None:
    async with pair() as (one, _two, _):
        with pytest.raises(trio.BusyResourceError):
            await one.transport.serve(one.identity, one.receiver)


def test_SE_1_plain_tcp_is_not_dialled_beyond_this_machine_without_a_word() -> None:
    with pytest.raises(ConfigError, match="insecure=True"):
        TcpTransport(TcpTransportConfig()).set_address(2, "192.0.2.1:5001")
    TcpTransport(TcpTransportConfig(insecure=True)).set_address(2, "192.0.2.1:5001")


async def test_SE_1_warning_when_listening_beyond_this_machine(caplog: pytest.LogCaptureFixture) -> None:
    node = Node(identity(1), server=RpcServerConfig(bind_addr="0.0.0.0:0", insecure=True))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await node.listen(nursery)
            nursery.cancel_scope.cancel()
    assert any(record.levelno == logging.WARNING and "plain TCP" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("nodelay", [True, False])
@pytest.mark.parametrize("keepalive", [True, False])
async def test_socket_options_of_dialled_connections(nodelay: bool, keepalive: bool) -> None:
    config = TcpTransportConfig(tcp_nodelay=nodelay, tcp_keepalive=keepalive)
    opened: list[trio.SocketStream] = []
    one = Node(identity(1), config=config)
    open_stream: Any = one.transport._open_stream

    async def remember(address: Address) -> trio.abc.Stream:
        opened.append(await open_stream(address))
        return opened[-1]

    one.transport._open_stream = remember
    async with pair(one):
        for stream in opened:
            assert bool(stream.getsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY)) is nodelay
            assert bool(stream.getsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_KEEPALIVE)) is keepalive


async def test_dialled_socket_that_dies_at_once_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("gone")

    monkeypatch.setattr("trioraft.transport._socket.set_options", fail)
    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        with pytest.raises(OSError, match="gone"):
            await open_tcp(Address("127.0.0.1", listener.getsockname()[1]), nodelay=True, keepalive=True)


async def test_shutdown_closes_every_socket() -> None:
    """With ResourceWarning as an error: a socket that is left open fails the test when it is collected."""
    async with pair(both_ways=True) as (one, two, nursery):
        one.transport.send_append_entries(2, [append(1, 2, size=1 << 20)] * 8)
        caller = await Caller.dial(two.address)
        await until(lambda: two.server.statistics().unauthenticated == 1)
        nursery.cancel_scope.cancel()
    assert two.server.statistics().connections == two.server.statistics().unauthenticated == 0
    with trio.fail_after(2):
        assert await caller.is_closed()
    await caller.close()
    gc.collect()


# Snapshots.


async def test_snapshot_pieces_arrive_in_order_on_one_connection() -> None:
    two = Node(identity(2), receiver=SnapshotTaker())
    async with pair(two=two) as (one, _, _nursery):
        for number in range(5):
            await one.transport.send_install_snapshot(2, bytes([number]) * 100_000)
        taker: Any = two.receiver
        await taker.wait(lambda: len(taker.pieces) == 5)
        assert taker.pieces == [(1, bytes([number]) * 100_000) for number in range(5)]
        assert two.server.statistics().connections == 3


async def test_snapshot_to_a_slow_receiver_holds_up_its_sender_and_nothing_else() -> None:
    two = Node(identity(2), receiver=SnapshotTaker())
    two.receiver.gate = trio.sleep_forever  # type: ignore[attr-defined]  # it is a SnapshotTaker
    async with pair(two=two) as (one, _, _nursery):
        with trio.move_on_after(0.3) as patience:
            for _ in range(1000):
                await one.transport.send_install_snapshot(2, b"x" * (1 << 20))
        assert patience.cancelled_caught
        one.transport.send_append_entries(2, [append(1, 2)])
        await two.receiver.wait(lambda: len(two.receiver.envelopes) == 1)


async def test_max_connections_per_addr_bounds_snapshot_connections() -> None:
    two = Node(identity(2), receiver=SnapshotTaker())
    two.receiver.gate = trio.sleep_forever  # type: ignore[attr-defined]  # it is a SnapshotTaker
    one = Node(identity(1), config=TcpTransportConfig(max_connections_per_addr=4))
    async with pair(one, two) as (_, _two, nursery):
        for _ in range(6):
            nursery.start_soon(one.transport.send_install_snapshot, 2, b"x" * (8 << 20))
        await until(lambda: two.server.statistics().connections == 4)
        await trio.sleep(0.2)
        assert two.server.statistics().connections == 4


async def test_snapshot_that_stalls_fails_by_name() -> None:
    two = Node(identity(2), receiver=SnapshotTaker())
    two.receiver.gate = trio.sleep_forever  # type: ignore[attr-defined]  # it is a SnapshotTaker
    async with pair(Node(identity(1), config=TcpTransportConfig(write_timeout=0.2)), two) as (one, _, _nursery):

        async def send_many() -> None:
            for _ in range(100):
                await one.transport.send_install_snapshot(2, b"x" * (8 << 20))

        with pytest.raises(TransportError) as caught:
            await send_many()
        assert caught.value.kind == "write-timeout"


async def test_snapshot_to_a_peer_that_moves_fails_by_name() -> None:
    two = Node(identity(2), receiver=SnapshotTaker())
    two.receiver.gate = trio.sleep_forever  # type: ignore[attr-defined]  # it is a SnapshotTaker
    async with pair(two=two) as (one, _, nursery):
        kinds = []

        async def send() -> None:
            try:
                for _ in range(100):
                    await one.transport.send_install_snapshot(2, b"x" * (8 << 20))
            except TransportError as error:
                kinds.append(error.kind)

        nursery.start_soon(send)
        await until(lambda: two.server.statistics().connections == 3)
        one.transport.set_address(2, "127.0.0.1:1")
        await until(lambda: kinds == ["moved"])


async def test_snapshot_to_nobody_and_to_who_takes_none() -> None:
    async with pair() as (one, _two, _):
        with pytest.raises(TransportError) as caught:
            await one.transport.send_install_snapshot(2, b"x")
        assert caught.value.kind == "unknown-lane"
        with pytest.raises(TransportError) as caught:
            await one.transport.send_install_snapshot(2, b"x" * (17 << 20))
        assert caught.value.kind == "too-large"
        one.transport.set_address(3, "127.0.0.1:1")
        await until(lambda: one.peer(3).last_refusal is not None)
        with pytest.raises(TransportError) as caught:
            await one.transport.send_install_snapshot(3, b"x")
        assert (caught.value.kind, caught.value.peer) == ("away", 3)


async def test_snapshot_before_serve_fails_by_name() -> None:
    transport = TcpTransport(random=random.Random(1))
    transport.set_address(2, "127.0.0.1:1")
    with pytest.raises(TransportError) as caught:
        await transport.send_install_snapshot(2, b"x")
    assert caught.value.kind == "not-serving"


def test_member_names_are_of_the_connection() -> None:
    """The kit's messages are from node 1 to node 2; another source would not be encoded."""
    assert append(1, 2).message.source == Member(1)  # type: ignore[union-attr]  # it is an append


async def test_verbs_after_the_end_are_harmless() -> None:
    async with pair() as (one, two, _):
        pass
    one.transport.set_address(2, "127.0.0.1:2")
    one.transport.set_address(3, two.address)
    one.transport.send_append_entries(2, [append(1, 2)])
    one.transport.send_vote(3, [vote(1, 3)])
    one.transport.send_heartbeat_batch(3, pulse())
    one.transport.retry_now(2)
    one.transport.remove_peer(3)
    assert not one.transport.has_room(2)
    assert one.peer(2).connected_lanes == 0
    with pytest.raises(TransportError):
        await one.transport.send_install_snapshot(2, b"x")
