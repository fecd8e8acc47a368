"""Waits, pings and timeouts, on a mock clock: whole senders and listeners over streams in memory."""

from __future__ import annotations

import gc
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.transport.kit import LOCAL, Cable, Node, append, identity, pulse, vote
from trioraft._types import GroupKey
from trioraft.transport import RpcServerConfig, TcpTransportConfig
from trioraft.transport._backoff import Backoff
from trioraft.transport._inbound import InboundReader
from trioraft.transport._wakeup import Wakeup
from trioraft.wire import PING, PULSE_LINES_MAX, Hello, PulseKind, PulseLine, encode_frame, encode_hello


@asynccontextmanager
async def wired(
    config: TcpTransportConfig | None = None, *, server: RpcServerConfig = LOCAL, is_up: bool = True
) -> AsyncIterator[tuple[Node, Node, Cable]]:
    """Node 1 dials node 2 over a `Cable`."""
    async with trio.open_nursery() as nursery:
        two = Node(identity(2), server=server)
        cable = Cable(nursery, two.server)
        cable.is_up = is_up
        one = Node(identity(1), config=config, open_stream=cable.open)
        one.transport._random.seed(1)
        one.transport.set_address(2, "peer:1")
        await one.dial(nursery)
        if is_up:
            await trio.sleep(0.001)
            assert one.peer(2).connected_lanes == 2
        yield one, two, cable
        nursery.cancel_scope.cancel()


async def test_idle_lanes_stay_open_by_pings(autojump_clock: MockClock) -> None:
    async with wired() as (one, _two, _):
        await trio.sleep(3600)
        assert (one.peer(2).connects, one.peer(2).connected_lanes) == (2, 2)
        asked = one.peer(2).frames_sent
        assert 2 * 3600 / 10 * 0.9 <= asked <= 2 * 3600 / 10
        assert one.peer(2).frames_received == asked


async def test_ping_interval_is_kept_by_busy_lanes_too(autojump_clock: MockClock) -> None:
    """Pulses never pause, and never fill a system's buffer: only a ping notices that nobody is there."""
    async with wired(TcpTransportConfig(ping_interval=2)) as (one, two, _):
        for sequence in range(1, 201):
            one.transport.send_heartbeat_batch(2, pulse(sequence))
            await trio.sleep(0.1)
        assert len(two.receiver.pulses) == 200
        assert one.peer(2).frames_received in (18, 20)


async def test_half_open_peer_is_noticed_within_read_timeout_of_a_ping(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with wired(TcpTransportConfig(ping_interval=5, read_timeout=7)) as (one, _two, cable):
        cable.lose_what_is_sent()
        cable.is_up = False
        began = trio.current_time()
        await one.receiver.wait(lambda: one.receiver.unreachable_peers == [2])
        reasons = [record.getMessage() for record in caplog.records if "is not open: read-timeout" in record.getMessage()]
        assert trio.current_time() - began == pytest.approx(12, abs=0.1)
        assert len(reasons) == 2
        assert all("read-timeout: a ping was not answered" in reason for reason in reasons)
        assert one.peer(2).connected_lanes == 0


async def test_reader_closes_after_read_timeout_of_silence(autojump_clock: MockClock) -> None:
    async with wired(TcpTransportConfig(ping_interval=20), server=RpcServerConfig(bind_addr="127.0.0.1:0", read_timeout=8)) as (
        one,
        two,
        cable,
    ):
        cable.is_up = False
        await trio.sleep(7.9)
        assert two.server.statistics().connections == 2
        await trio.sleep(1.2)
        assert two.server.statistics().connections == 0
        assert one.receiver.unreachable_peers == [2]


async def test_peer_that_talks_unasked_is_hung_up_on(autojump_clock: MockClock) -> None:
    async with wired() as (one, _two, cable):
        await cable.ends[0][1].send_all(PING)
        await trio.sleep(0.001)
        await one.receiver.wait(lambda: one.receiver.unreachable_peers == [2])


async def test_write_timeout_ends_a_peer_that_pings_and_never_reads(autojump_clock: MockClock) -> None:
    node = Node(identity(2), server=RpcServerConfig(bind_addr="127.0.0.1:0", write_timeout=3))
    async with trio.open_nursery() as nursery:
        ours, theirs = trio.testing.lockstep_stream_pair()
        nursery.start_soon(node.server.serve_stream, theirs, "memory:1")
        await ours.send_all(encode_frame([encode_hello(Hello("test", 1, 2, identity(1).store_id, 1, "control"))]))
        assert (await ours.receive_some())[8:16] == b"trioraft"
        await ours.send_all(PING)
        await trio.sleep(2.9)
        assert node.server.statistics().connections == 1
        await trio.sleep(0.2)
        assert node.server.statistics().connections == 0


@pytest.mark.parametrize("answer, reason", [(b"\x01", "the answer to a ping is none"), (b"", "frame of 0 bytes")])
async def test_wrong_answer_to_a_ping_ends_the_connection(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, answer: bytes, reason: str
) -> None:
    monkeypatch.setattr("trioraft.transport._inbound.PONG", encode_frame([answer]))
    async with wired() as (one, _two, _):
        await one.receiver.wait(lambda: one.receiver.unreachable_peers == [2])
        assert reason in str(one.peer(2).last_refusal)


async def test_peer_that_goes_instead_of_answering_a_ping(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: InboundReader) -> None:
        raise trio.BrokenResourceError

    monkeypatch.setattr(InboundReader, "_answer_ping", fail)
    async with wired() as (one, _two, _):
        await one.receiver.wait(lambda: one.receiver.unreachable_peers == [2])
        assert one.peer(2).last_refusal == "closed: the peer closed the connection"


async def test_deadline_of_an_earlier_frame_does_not_end_an_idle_connection(autojump_clock: MockClock) -> None:
    async with wired(TcpTransportConfig(write_timeout=1)) as (one, two, _):
        one.transport.send_vote(2, [vote(1, 2)])
        await trio.sleep(5)
        one.transport.send_vote(2, [vote(1, 2)])
        await two.receiver.wait(lambda: len(two.receiver.frames) == 2)
        assert one.receiver.unreachable_peers == []


async def test_connection_that_breaks_in_a_write(autojump_clock: MockClock) -> None:
    async with wired() as (one, _two, cable):

        async def fail() -> None:
            raise trio.BrokenResourceError

        for ours, _ in cable.ends:
            ours.send_stream.send_all_hook = fail
        one.transport.send_vote(2, [vote(1, 2)])
        await one.receiver.wait(lambda: one.receiver.unreachable_peers == [2])
        assert one.peer(2).last_refusal == "broken: the connection broke"


async def test_pulse_that_cannot_be_encoded_costs_only_itself(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with wired() as (one, two, _):
        huge = pulse(1)
        huge.lines = (PulseLine(PulseKind.ATTACH, GroupKey(1), 1),) * (PULSE_LINES_MAX + 1)
        one.transport.send_heartbeat_batch(2, huge)
        one.transport.send_vote(2, [vote(1, 2)])
        await two.receiver.wait(lambda: len(two.receiver.frames) == 1)
        one.transport.send_heartbeat_batch(2, pulse(2))
        await two.receiver.wait(lambda: two.receiver.pulses == [(1, pulse(2))])
        assert "a pulse to node 2 cannot be sent" in caplog.text


async def test_TP_14_peer_that_is_away_for_an_hour(autojump_clock: MockClock) -> None:
    """Attempts are bounded and jittered, memory is flat, and the lanes open within two seconds of its return."""
    async with wired(is_up=False) as (one, two, cable):
        before = 0
        for sequence in range(1, 361):
            if sequence == 10:
                before = len(gc.get_objects())
            one.transport.send_append_entries(2, [append(1, 2, size=1000)] * 10)
            one.transport.send_vote(2, [vote(1, 2)] * 10)
            one.transport.send_heartbeat_batch(2, pulse(sequence))
            await trio.sleep(10)
        assert len(gc.get_objects()) - before < 500
        assert 2 * 3600 <= len(cable.attempts) <= 2 * 3600 / 0.5 * 1.05
        assert one.peer(2).dropped_messages == 2 * 3600
        assert one.peer(2).queued_bytes == 0
        assert one.receiver.unreachable_peers == [2]
        waits = {round(after - before, 3) for before, after in zip(cable.attempts[-40:-2:2], cable.attempts[-38::2], strict=True)}
        assert len(waits) > 10, "the waits are drawn, not fixed"
        cable.is_up = True
        back = trio.current_time()
        await two.receiver.wait(lambda: len(two.receiver.pulses) == 1)
        await one.receiver.wait(lambda: len(one.receiver.connected_peers) == 2)
        assert trio.current_time() - back <= 2
        assert two.receiver.pulses[0][1].sequence == 360, "the newest pulse was kept"
        assert two.receiver.envelopes == []


async def test_retry_now_ends_a_wait(autojump_clock: MockClock) -> None:
    async with wired(TcpTransportConfig(backoff_max=60, backoff_min=60), is_up=False) as (one, _two, cable):
        await trio.sleep(1)
        assert len(cable.attempts) == 2
        cable.is_up = True
        one.transport.retry_now(2)
        await trio.sleep(0.01)
        assert one.peer(2).connected_lanes == 2
        one.transport.retry_now(2)
        await trio.sleep(0.01)
        assert len(cable.attempts) == 4


async def test_retry_now_resets_the_waits_of_a_peer_that_was_away(autojump_clock: MockClock) -> None:
    async with wired(TcpTransportConfig(backoff_min=0.1, backoff_max=100), is_up=False) as (one, _two, cable):
        await trio.sleep(500)
        count = len(cable.attempts)
        one.transport.retry_now(2)
        await trio.sleep(0.5)
        assert len(cable.attempts) - count >= 2 * 3


async def test_refused_caller_backs_off_and_hearing_of_the_peer_does_not_make_it_hurry(autojump_clock: MockClock) -> None:
    async with wired(is_up=False) as (one, two, cable):
        two.receiver.refusal = "wrong-store: no"
        cable.is_up = True
        await trio.sleep(60)
        count = len(cable.attempts)
        assert count <= 2 * 60 / 0.5 + 20
        for _ in range(10):
            one.transport.retry_now(2)
            await trio.sleep(1)
        assert len(cable.attempts) - count <= 2 * (10 + 20)


async def test_peer_that_accepts_and_closes_at_once_is_not_dialled_in_a_tight_loop(autojump_clock: MockClock) -> None:
    async with wired(is_up=False) as (one, two, cable):
        real = two.server.serve_stream

        async def flap(stream: trio.abc.Stream) -> None:
            with trio.move_on_after(0.01):
                await real(stream, "memory:1")

        cable.handler, cable.is_up = flap, True
        await trio.sleep(100)
        assert one.peer(2).connects > 100
        assert len(cable.attempts) <= 2 * 100 / 0.5 + 20


async def test_connection_that_lived_resets_the_waits(autojump_clock: MockClock) -> None:
    async with wired(TcpTransportConfig(backoff_min=0.1, backoff_max=50), is_up=False) as (one, two, cable):
        await trio.sleep(1000)
        cable.is_up = True
        await trio.sleep(200)
        count = len(cable.attempts)
        for callers in list(two.server._callers.values()):
            for caller in list(callers):
                caller.close()
        await trio.sleep(0.2)
        assert (len(cable.attempts) - count, one.peer(2).connected_lanes) == (2, 2)


async def test_connect_timeout_covers_the_handshake(autojump_clock: MockClock) -> None:
    async with wired(TcpTransportConfig(connect_timeout=4, backoff_max=0.1), is_up=False) as (one, _two, cable):

        async def hung(stream: trio.abc.Stream) -> None:
            await trio.sleep_forever()

        cable.handler, cable.is_up = hung, True
        await trio.sleep(41)
        assert 2 * 9 <= len(cable.attempts) <= 2 * 11
        assert one.peer(2).last_refusal == "timeout: no handshake within 4 s"


async def test_idle_snapshot_connection_is_closed_after_ping_interval(autojump_clock: MockClock) -> None:
    from tests.transport.kit import SnapshotTaker

    async with wired() as (one, two, _):
        two.receiver = SnapshotTaker()
        await one.transport.send_install_snapshot(2, b"piece")
        await trio.sleep(5)
        assert two.server.statistics().connections == 3
        await one.transport.send_install_snapshot(2, b"piece")
        await trio.sleep(9)
        assert two.server.statistics().connections == 3
        await trio.sleep(2)
        assert two.server.statistics().connections == 2


def test_waits_double_with_jitter_up_to_a_limit_and_start_anew() -> None:
    backoff = Backoff(0.1, 1.0, random.Random(7))
    for low in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        assert low / 2 <= backoff.draw() <= low
    backoff.reset()
    assert backoff.draw() <= 0.1


def test_waits_are_those_of_the_given_generator() -> None:
    draws = [[Backoff(0.1, 1.0, random.Random(seed)).draw() for _ in range(5)] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


async def test_wakeup_is_kept_and_has_one_waiter(autojump_clock: MockClock) -> None:
    wakeup = Wakeup()
    wakeup.set()
    await wakeup.wait()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wakeup.wait)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await wakeup.wait()
        wakeup.set()
    with trio.move_on_after(1) as patience:
        await wakeup.wait()
    assert patience.cancelled_caught
