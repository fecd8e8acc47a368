"""The network in memory, on a mock clock."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from tests.transport.kit import FakeReceiver, SnapshotTaker, append, identity, pulse, vote
from trioraft import TransportError
from trioraft.transport import Identity, MemoryNetwork, MemoryTransport, PeerStatistics


class MemoryNode:
    def __init__(self, network: MemoryNetwork, who: Identity, receiver: FakeReceiver | None = None) -> None:
        self.identity, self.receiver = who, receiver if receiver is not None else SnapshotTaker()
        self.transport = MemoryTransport(network)
        for peer in (1, 2, 3):
            self.transport.set_address(peer, f"memory:{peer}")

    async def run(self, nursery: trio.Nursery) -> None:
        await nursery.start(self.transport.serve, self.identity, self.receiver)

    def peer(self, node_id: int) -> PeerStatistics:
        return self.transport.statistics().peers[node_id]


@asynccontextmanager
async def cluster(network: MemoryNetwork | None = None) -> AsyncIterator[tuple[MemoryNetwork, dict[int, MemoryNode], trio.Nursery]]:
    network = network or MemoryNetwork(random.Random(1))
    async with trio.open_nursery() as nursery:
        nodes = {number: MemoryNode(network, identity(number)) for number in (1, 2, 3)}
        for node in nodes.values():
            await node.run(nursery)
        await trio.sleep(0.001)
        yield network, nodes, nursery
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("codec", [True, False])
async def test_verbs_reach_the_receiver(autojump_clock: MockClock, codec: bool) -> None:
    async with cluster(MemoryNetwork(codec=codec)) as (_, nodes, _nursery):
        nodes[1].transport.send_append_entries(2, [append(1, 2, size=10), append(1, 2, group=8)])
        nodes[1].transport.send_vote(2, [vote(1, 2)])
        nodes[1].transport.send_heartbeat_batch(2, pulse(3))
        assert nodes[2].receiver.frames == [], "nothing is delivered from inside a verb"
        await trio.sleep(0.001)
        assert nodes[2].receiver.frames == [(1, [append(1, 2, size=10), append(1, 2, group=8)]), (1, [vote(1, 2)])]
        assert nodes[2].receiver.pulses == [(1, pulse(3))]
        assert nodes[1].transport.has_room(2)
        assert not nodes[1].transport.has_room(9)


async def test_both_sides_hear_of_a_link_and_check_each_other(autojump_clock: MockClock) -> None:
    async with cluster() as (_, nodes, _nursery):
        assert sorted(nodes[1].receiver.connected_peers) == [2, 2, 3, 3]
        assert identity(2) in nodes[1].receiver.checked
        assert identity(1) in nodes[2].receiver.checked
        assert nodes[1].peer(2).connects == 1


async def test_cut_breaks_what_is_under_way_and_is_told_once(autojump_clock: MockClock) -> None:
    async with cluster() as (network, nodes, _):
        network.set_delay(0.5)
        nodes[1].transport.send_vote(2, [vote(1, 2)])
        network.cut(1, 2)
        for _ in range(20):
            nodes[1].transport.send_vote(2, [vote(1, 2)])
            await trio.sleep(0.5)
        assert nodes[2].receiver.frames == []
        assert nodes[1].receiver.unreachable_peers == [2]
        assert nodes[2].receiver.unreachable_peers == [1]
        assert nodes[1].peer(2).dropped_messages == 20
        assert not nodes[1].transport.has_room(2)
        network.heal(1, 2)
        await trio.sleep(0.01)
        nodes[1].transport.send_vote(2, [vote(1, 2, term=2)])
        await trio.sleep(1)
        assert nodes[2].receiver.frames == [(1, [vote(1, 2, term=2)])]


async def test_one_way_cut_leaves_the_other_way(autojump_clock: MockClock) -> None:
    async with cluster() as (network, nodes, _):
        network.cut_one_way(1, 2)
        nodes[1].transport.send_vote(2, [vote(1, 2)])
        nodes[2].transport.send_vote(1, [vote(2, 1)])
        await trio.sleep(0.01)
        assert (nodes[2].receiver.envelopes, nodes[1].receiver.envelopes) == ([], [vote(2, 1)])
        network.heal_all()
        await trio.sleep(0.01)
        assert nodes[1].peer(2).connected_lanes == 2


async def test_isolated_node(autojump_clock: MockClock) -> None:
    async with cluster() as (network, nodes, _):
        network.isolate(3)
        nodes[1].transport.send_vote(2, [vote(1, 2)])
        nodes[1].transport.send_vote(3, [vote(1, 3)])
        nodes[3].transport.send_vote(1, [vote(3, 1)])
        await trio.sleep(0.01)
        assert (len(nodes[2].receiver.frames), nodes[3].receiver.frames, nodes[1].receiver.frames) == (1, [], [])


async def test_delay_with_jitter_keeps_the_order_of_a_link(autojump_clock: MockClock) -> None:
    async with cluster() as (network, nodes, _):
        network.set_delay(0.1, 0.4, source=1, target=2)
        began = trio.current_time()
        for term in range(1, 51):
            nodes[1].transport.send_vote(2, [vote(1, 2, term=term)])
        nodes[3].transport.send_vote(2, [vote(3, 2)])
        await trio.sleep(0.05)
        assert nodes[2].receiver.envelopes == [vote(3, 2)]
        await nodes[2].receiver.wait(lambda: len(nodes[2].receiver.frames) == 51)
        assert 0.1 <= trio.current_time() - began <= 0.5
        assert nodes[2].receiver.envelopes[1:] == [vote(1, 2, term=term) for term in range(1, 51)]


async def test_loss_is_silent_and_counted(autojump_clock: MockClock) -> None:
    async with cluster() as (network, nodes, _):
        network.set_loss(0.5, source=1)
        for _ in range(400):
            nodes[1].transport.send_vote(2, [vote(1, 2)])
        await trio.sleep(0.01)
        arrived = len(nodes[2].receiver.frames)
        assert 140 < arrived < 260
        assert nodes[1].peer(2).dropped_messages == 400 - arrived
        assert nodes[1].receiver.unreachable_peers == []


def weather(seed: int) -> int:
    async def run() -> int:
        async with cluster(MemoryNetwork(random.Random(seed))) as (network, nodes, _):
            network.set_loss(0.3)
            network.set_delay(0.1, 0.5)
            for _ in range(100):
                nodes[1].transport.send_vote(2, [vote(1, 2)])
            await trio.sleep(10)
            return len(nodes[2].receiver.frames)
        raise AssertionError

    return trio.run(run, clock=MockClock(autojump_threshold=0))


def test_same_seed_same_weather() -> None:
    assert weather(5) == weather(5)
    assert len({weather(seed) for seed in range(5)}) > 1


async def test_killed_node_is_dead_at_once_and_what_it_had_sent_arrives(autojump_clock: MockClock) -> None:
    async with cluster() as (network, nodes, _nursery):
        network.set_delay(0.1)
        nodes[1].transport.send_vote(2, [vote(1, 2, term=1)])
        nodes[2].transport.send_vote(1, [vote(2, 1)])
        network.kill(1)
        nodes[1].transport.send_vote(2, [vote(1, 2, term=2)])
        nodes[1].transport.send_heartbeat_batch(2, pulse())
        heard = len(nodes[1].receiver.connected_peers)
        with pytest.raises(TransportError):
            await nodes[1].transport.send_install_snapshot(2, b"x")
        await trio.sleep(1)
        assert nodes[2].receiver.envelopes == [vote(1, 2, term=1)]
        assert nodes[1].receiver.envelopes == []
        assert len(nodes[1].receiver.connected_peers) == heard
        assert nodes[2].receiver.unreachable_peers == [1] == nodes[3].receiver.unreachable_peers
        assert nodes[1].receiver.unreachable_peers == []


async def test_restarted_node_takes_the_place_of_the_killed_one(autojump_clock: MockClock) -> None:
    async with cluster() as (network, nodes, nursery):
        network.set_delay(0.5)
        nodes[1].transport.send_vote(2, [vote(1, 2, term=1)])
        network.kill(1)
        again = MemoryNode(network, identity(1, incarnation=2))
        await again.run(nursery)
        await trio.sleep(0.01)
        again.transport.send_vote(2, [vote(1, 2, term=2)])
        nodes[2].transport.send_vote(1, [vote(2, 1)])
        await trio.sleep(2)
        assert nodes[2].receiver.envelopes == [vote(1, 2, term=2)], "what came on the older connection is not read any more"
        assert again.receiver.envelopes == [vote(2, 1)]
        assert identity(1, incarnation=2) in nodes[2].receiver.checked


async def test_stopped_node_leaves_and_a_second_one_of_its_id_is_refused(autojump_clock: MockClock) -> None:
    async with cluster() as (network, nodes, nursery):
        with pytest.raises(trio.BusyResourceError):
            await MemoryNode(network, identity(1)).transport.serve(identity(1), FakeReceiver())
        with pytest.raises(trio.BusyResourceError):
            await nodes[1].transport.serve(identity(1), FakeReceiver())
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        await MemoryNode(network, identity(1)).run(nursery)
        nursery.cancel_scope.cancel()


async def test_refusals_are_those_of_a_real_handshake_and_are_tried_again_seldom(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        one, two = MemoryNode(network, identity(1, cluster="other")), MemoryNode(network, identity(2))
        three = MemoryNode(network, identity(3))
        three.receiver.refusal = "wrong-store: no"
        for node in (one, two, three):
            await node.run(nursery)
        for _ in range(100):
            one.transport.send_vote(2, [vote(1, 2)])
            two.transport.send_vote(3, [vote(2, 3)])
            await trio.sleep(0.1)
        assert one.peer(2).last_refusal.startswith("wrong-cluster: ")
        assert two.peer(3).last_refusal == "wrong-store: no"
        assert three.peer(2).last_refusal == "wrong-store: no"
        assert one.peer(2).attempts <= 15
        assert two.receiver.frames == three.receiver.frames == []
        three.receiver.refusal = None
        await trio.sleep(1)
        two.transport.send_vote(3, [vote(2, 3)])
        await trio.sleep(0.1)
        two.transport.send_vote(3, [vote(2, 3)])
        await trio.sleep(0.1)
        assert len(three.receiver.frames) == 1
        nursery.cancel_scope.cancel()


async def test_unknown_removed_and_own_peers(autojump_clock: MockClock) -> None:
    async with cluster() as (_, nodes, _nursery):
        nodes[1].transport.send_vote(9, [vote(1, 9)])
        nodes[1].transport.send_heartbeat_batch(9, pulse())
        assert nodes[1].transport.statistics().dropped_unknown == 2
        assert sorted(nodes[1].transport.statistics().peers) == [2, 3]
        nodes[1].transport.remove_peer(2)
        nodes[1].transport.remove_peer(2)
        nodes[1].transport.send_vote(2, [vote(1, 2)])
        assert nodes[1].transport.statistics().dropped_unknown == 3
        nodes[1].transport.set_address(2, "memory:2")
        await trio.sleep(0.01)
        nodes[1].transport.send_vote(2, [vote(1, 2)])
        await trio.sleep(0.01)
        assert len(nodes[2].receiver.frames) == 1


async def test_link_is_bounded_in_bytes(autojump_clock: MockClock) -> None:
    async with cluster(MemoryNetwork(queue_bytes_max=10_000)) as (network, nodes, _):
        network.set_delay(1)
        for _ in range(30):
            nodes[1].transport.send_append_entries(2, [append(1, 2, size=1000)])
        assert nodes[1].peer(2).queued_bytes <= 10_000
        assert nodes[1].peer(2).dropped_messages > 20
        await trio.sleep(0.5)
        assert nodes[1].receiver.unreachable_peers == [2]
        await trio.sleep(1)
        assert nodes[1].peer(2).queued_bytes == nodes[1].peer(2).queued_messages == 0


async def test_snapshot_pieces_arrive_in_order_and_hold_up_their_sender(autojump_clock: MockClock) -> None:
    async with cluster() as (network, nodes, _):
        taker = nodes[2].receiver
        assert isinstance(taker, SnapshotTaker)

        async def slowly() -> None:
            await trio.sleep(1)

        taker.gate = slowly
        began = trio.current_time()
        for number in range(5):
            await nodes[1].transport.send_install_snapshot(2, bytes([number]))
        assert trio.current_time() - began >= 3
        await trio.sleep(2)
        assert taker.pieces == [(1, bytes([number])) for number in range(5)]
        taker.gate = trio.sleep_forever
        await nodes[1].transport.send_install_snapshot(2, b"x")
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with pytest.raises(TransportError) as caught:
                    await nodes[1].transport.send_install_snapshot(2, b"x")
                assert caught.value.kind == "broken"

            nursery.start_soon(send)
            await trio.sleep(1)
            network.cut(1, 2)


async def test_snapshot_to_who_takes_none(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        one, two = MemoryNode(network, identity(1)), MemoryNode(network, identity(2), FakeReceiver())
        for node in (one, two):
            await node.run(nursery)
        await trio.sleep(0.01)
        with pytest.raises(TransportError):
            await one.transport.send_install_snapshot(2, b"x")
        nursery.cancel_scope.cancel()
