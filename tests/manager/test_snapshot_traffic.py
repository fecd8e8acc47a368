"""A node's limits on snapshots that move: how many at once, how fast, in which order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from trioraft._errors import ConfigError, TransportError
from trioraft._types import EntryId, GroupKey, Member
from trioraft.manager import MultiRaftConfig
from trioraft.manager._snapshot_traffic import NodeSnapshotTraffic
from trioraft.observe import Counters
from trioraft.transport import MultiplexedTransport
from trioraft.wire import SnapshotPiece, decode_piece, encode_piece


class Wire:
    """Takes pieces, and remembers when."""

    def __init__(self, payload_bytes_max: int = 16 << 20) -> None:
        self.payload_bytes_max = payload_bytes_max
        self.taken: list[tuple[float, int, SnapshotPiece]] = []
        self.seconds = 0.0
        self.error: Exception | None = None

    async def send_install_snapshot(self, peer: int, data: bytes) -> None:
        await trio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        self.taken.append((trio.current_time(), peer, decode_piece(data, 1, peer)))

    @property
    def bytes_taken(self) -> int:
        return sum(len(encode_piece(piece)) for _, _, piece in self.taken)


def make(wire: Wire | None = None, **settings: Any) -> NodeSnapshotTraffic:
    return NodeSnapshotTraffic(MultiRaftConfig(**settings), cast(MultiplexedTransport, wire or Wire()), Counters())


def piece(group_id: int = 7, *, size: int = 1000, target: int = 2) -> SnapshotPiece:
    return SnapshotPiece(
        group=GroupKey(group_id),
        source=Member(1),
        target=Member(target),
        term=3,
        at=EntryId(2, 100),
        sha256=bytes(32),
        size=size,
        offset=0,
        data=bytes(size),
    )


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"snapshot_threads": 0}, "snapshot_threads must be a whole number from 1"),
        ({"snapshot_streams_max": 0}, "snapshot_streams_max must be a whole number from 1"),
        ({"snapshot_streams_per_peer_max": 0}, "snapshot_streams_per_peer_max must be a whole number from 1"),
        ({"snapshot_bandwidth": 1023}, "snapshot_bandwidth must be a whole number from 1024"),
        ({"snapshot_bandwidth": 1e6}, "snapshot_bandwidth must be a whole number"),
        ({"snapshot_piece_bytes": (1 << 20) + 1}, "snapshot_piece_bytes must be a whole number from 1024 to 1048576"),
        ({"snapshot_retry_interval": 0}, "snapshot_retry_interval must be 0.01 to 3600 seconds"),
        ({"log_memory_bytes_max": -1}, "log_memory_bytes_max must be a whole number from 0"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_range(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        MultiRaftConfig(**settings)


def test_a_piece_must_fit_into_what_the_transport_carries() -> None:
    with pytest.raises(ConfigError, match="snapshot_piece_bytes must be at most the 100000 that the transport carries, not 262144"):
        make(Wire(payload_bytes_max=100_000))
    assert make(Wire(payload_bytes_max=262_144)).piece_bytes == 262_144


def test_pieces_get_smaller_at_a_low_bandwidth_so_that_all_streams_keep_moving() -> None:
    assert make(snapshot_bandwidth=1 << 20, snapshot_streams_max=8).piece_bytes == (1 << 20) // 8
    assert make(snapshot_bandwidth=1 << 10).piece_bytes == 4096
    assert make(snapshot_piece_bytes=2048, snapshot_bandwidth=1 << 10).piece_bytes == 2048


def test_answers_are_waited_for_in_election_timeouts() -> None:
    assert make(election_timeout=2.0).reply_timeout == 6.0


class Places:
    """How many streams run at once, by peer."""

    def __init__(self, traffic: NodeSnapshotTraffic) -> None:
        self.traffic = traffic
        self.now: list[int] = []
        self.most = 0
        self.order: list[int] = []

    async def stream(self, number: int, peer: int, seconds: float = 1.0) -> None:
        async with self.traffic.outgoing(peer):
            self.order.append(number)
            self.now.append(peer)
            self.most = max(self.most, len(self.now))
            await trio.sleep(seconds)
            self.now.remove(peer)


class TestPlaces:
    async def test_as_many_streams_go_out_as_the_node_may_have(self, autojump_clock: trio.testing.MockClock) -> None:
        places = Places(make(snapshot_streams_max=3, snapshot_streams_per_peer_max=1))
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for peer in range(2, 12):
                nursery.start_soon(places.stream, peer, peer)
        assert places.most == 3
        assert trio.current_time() - start == pytest.approx(4.0)

    async def test_a_peer_gets_its_share_in_the_order_of_asking_and_holds_up_no_other(self, autojump_clock: trio.testing.MockClock) -> None:
        places = Places(make(snapshot_streams_max=4, snapshot_streams_per_peer_max=1))
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(places.stream, number, 2)
                await trio.testing.wait_all_tasks_blocked()
            assert places.now == [2]
            nursery.start_soon(places.stream, 9, 3)
            await trio.testing.wait_all_tasks_blocked()
            assert places.now == [2, 3]
        assert places.order == [0, 9, 1, 2, 3, 4, 5]

    async def test_a_stream_that_is_cancelled_gives_its_place_back(self, autojump_clock: trio.testing.MockClock) -> None:
        places = Places(make(snapshot_streams_max=1, snapshot_streams_per_peer_max=1))
        async with trio.open_nursery() as nursery:
            for number in range(2):
                nursery.start_soon(places.stream, number, 2)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await places.stream(5, 2)
        await places.stream(6, 3)
        assert places.order[-2:] == [5, 6]

    def test_places_for_what_comes_in_are_counted_apart_and_never_waited_for(self) -> None:
        traffic = make(snapshot_streams_max=2)
        first, second, third = traffic.incoming(), traffic.incoming(), traffic.incoming()
        with first as one, second as two, third as three:
            assert (one, two, three) == (True, True, False)
        with traffic.incoming() as one, traffic.incoming() as two:
            assert (one, two) == (True, True)


class TestBandwidth:
    async def test_it_is_kept_and_used(self, autojump_clock: trio.testing.MockClock) -> None:
        wire = Wire()
        traffic = make(wire, snapshot_bandwidth=1_000_000)
        start = trio.current_time()

        async def stream(group_id: int) -> None:
            while trio.current_time() < start + 10:
                await traffic.send(2, piece(group_id, size=20_000))

        async with trio.open_nursery() as nursery:
            for group_id in range(4):
                nursery.start_soon(stream, group_id)
        seconds = trio.current_time() - start
        assert wire.bytes_taken / seconds == pytest.approx(1_000_000, rel=0.05)
        shares = [sum(len(sent.data) for _, _, sent in wire.taken if sent.group.group_id == group_id) for group_id in range(4)]
        assert max(shares) - min(shares) <= 20_000

    async def test_no_second_has_more_than_its_share(self, autojump_clock: trio.testing.MockClock) -> None:
        """Not after a pause either: what was not used is lost, but for a moment's worth."""
        wire = Wire()
        traffic = make(wire, snapshot_bandwidth=100_000)
        for _ in range(3):
            await trio.sleep(100)
            for _ in range(30):
                await traffic.send(2, piece(size=10_000))
        times = [(when, len(encode_piece(sent))) for when, _, sent in wire.taken]
        for start, _ in times:
            assert sum(size for when, size in times if start <= when < start + 1) <= 1.2 * 100_000 + 10_200

    async def test_several_senders_take_turns_in_the_order_of_asking(self, autojump_clock: trio.testing.MockClock) -> None:
        wire = Wire()
        traffic = make(wire, snapshot_bandwidth=10_000)
        async with trio.open_nursery() as nursery:
            for group_id in range(5):
                nursery.start_soon(traffic.send, 2, piece(group_id))
                await trio.testing.wait_all_tasks_blocked()
        assert [sent.group.group_id for _, _, sent in wire.taken] == [0, 1, 2, 3, 4]

    async def test_a_slow_connection_costs_the_others_nothing(self, autojump_clock: trio.testing.MockClock) -> None:
        slow = Wire()
        slow.seconds = 1000.0
        traffic = make(slow, snapshot_bandwidth=1_000_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(traffic.send, 2, piece())
            await trio.testing.wait_all_tasks_blocked()
            slow.seconds = 0.0
            start = trio.current_time()
            for _ in range(100):
                await traffic.send(3, piece(target=3))
            assert trio.current_time() - start < 1
            nursery.cancel_scope.cancel()

    async def test_what_left_is_counted_and_what_did_not_is_not(self, autojump_clock: trio.testing.MockClock) -> None:
        wire, counters = Wire(), Counters()
        traffic = NodeSnapshotTraffic(MultiRaftConfig(), cast(MultiplexedTransport, wire), counters)
        await traffic.send(2, piece(size=500))
        wire.error = TransportError("away", 2, "nobody answers")
        with pytest.raises(TransportError, match="nobody answers"):
            await traffic.send(2, piece(size=500))
        assert counters.snapshot_bytes_out == 500

    async def test_it_never_blocks_the_loop_and_is_always_a_checkpoint(self, autojump_clock: trio.testing.MockClock) -> None:
        traffic = make(cast(Any, SimpleNamespace(payload_bytes_max=1 << 20, send_install_snapshot=_at_once)))
        with trio.testing.assert_checkpoints():
            await traffic.send(2, piece())


async def _at_once(peer: int, data: bytes) -> None:
    """A transport that has room."""
