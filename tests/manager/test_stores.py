"""Which disk speaks for a node: the first one seen, until an operator says that it was replaced."""

from __future__ import annotations

import errno

import pytest
import trio
import trio.testing

import trioraft
from tests.manager.cluster import Cluster, eventually, running_cluster
from trioraft._types import GroupKey
from trioraft.group import Token
from trioraft.storage import DiskCall, SimulatedDisk
from trioraft.wire import NO_GROUP, Envelope, Forward, NodeAddress


def sees(cluster: Cluster, node_id: int, *others: int) -> bool:
    peers = cluster.nodes[node_id].up.status().peers
    return all(peers[other].live for other in others)


async def replace_disk(cluster: Cluster, node_id: int) -> SimulatedDisk:
    """Cut the power and put in an empty disk; return the old one."""
    await cluster.crash(node_id)
    old, cluster.nodes[node_id].disk = cluster.nodes[node_id].disk, SimulatedDisk(cluster.rng)
    return old


async def test_a_replaced_disk_is_let_in_once_the_old_one_is_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(groups=0) as cluster:
        with trio.fail_after(200):
            await eventually(lambda: sees(cluster, 1, 2, 3))
            await cluster.stop(3)
            await cluster.start(3)  # its second start: the new disk begins to count anew
            await eventually(lambda: all(cluster.nodes[i].up.status().peers[3].incarnation == 2 for i in (1, 2)))
            old_disk = await replace_disk(cluster, 3)
            await cluster.start(3)
            await trio.sleep(10)
            assert not sees(cluster, 1, 3)
            for node_id in (1, 2):
                await cluster.nodes[node_id].up.forget_store(3)
            await eventually(lambda: sees(cluster, 1, 3) and sees(cluster, 2, 3) and sees(cluster, 3, 1, 2))

            # The new one is remembered as well as the old one was.
            await cluster.crash(1, 3)
            cluster.nodes[3].disk = old_disk
            await cluster.start(1, 3)
            await trio.sleep(10)
            assert not sees(cluster, 1, 3)
            refusals = cluster.nodes[1].events.of(trioraft.PeerRefused)
            assert any(refusal.reason.startswith("wrong-store") and "forget_store" in refusal.reason for refusal in refusals)


async def test_forgetting_a_store_that_is_still_there_costs_a_new_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(groups=0) as cluster:
        with trio.fail_after(100):
            await eventually(lambda: sees(cluster, 1, 2, 3))
            await cluster.nodes[1].up.forget_store(3)
            assert not sees(cluster, 1, 3)
            await eventually(lambda: sees(cluster, 1, 3) and sees(cluster, 3, 1), seconds=3)
            assert cluster.nodes[1].up._storage.peers[3].store_id == cluster.nodes[3].up.identity.store_id


@pytest.mark.parametrize("is_open", [True, False])
async def test_the_store_of_a_member_is_not_forgotten(autojump_clock: trio.testing.MockClock, is_open: bool) -> None:
    async with running_cluster(groups=12, lazy=True) as cluster:
        with trio.fail_after(100):
            if not is_open:
                for node_id in cluster.node_ids:
                    await cluster.stop(node_id)
                await cluster.start(1)
                assert not cluster.nodes[1].up.groups
            manager = cluster.nodes[1].up
            with pytest.raises(trioraft.ConfigError, match=r"12 groups of node 1: 1, 2, .*10, \.\.\."):
                await manager.forget_store(3)
            assert manager._storage.peers[3].store_id is not None


@pytest.mark.parametrize("node_id", [1, 9, "2", None])
async def test_only_the_store_of_a_peer_can_be_forgotten(autojump_clock: trio.testing.MockClock, node_id: int) -> None:
    async with running_cluster(groups=0) as cluster:
        with trio.fail_after(100):
            with pytest.raises(trioraft.ConfigError, match="no peer"):
                await cluster.nodes[1].up.forget_store(node_id)


async def test_a_store_that_cannot_be_forgotten_stays_known(autojump_clock: trio.testing.MockClock) -> None:
    async def fail(call: DiskCall) -> None:
        if "node.toml" in call.path:
            raise OSError(errno.EIO, "broken")

    async with running_cluster(groups=0) as cluster:
        with trio.fail_after(100):
            await eventually(lambda: sees(cluster, 1, 2, 3))
            cluster.nodes[1].disk.hook = fail
            with pytest.raises(trioraft.StorageError):
                await cluster.nodes[1].up.forget_store(3)
            await trio.sleep(5)
            assert sees(cluster, 1, 3)
            cluster.nodes[1].disk.hook = None
            await replace_disk(cluster, 3)
            await cluster.start(3)
            await trio.sleep(5)
            assert not sees(cluster, 1, 3)


async def test_a_store_is_forgotten_while_it_waits_to_be_remembered(autojump_clock: trio.testing.MockClock) -> None:
    """The disk was replaced before the first one was ever written down; what waited must not be remembered after all."""

    async def fail(call: DiskCall) -> None:
        if "node.toml" in call.path:
            raise OSError(errno.EIO, "broken")

    async with trio.open_nursery() as nursery:
        cluster = Cluster(nursery, groups=0, nodes=2)
        with trio.fail_after(100):
            await cluster.start(1)
            cluster.nodes[1].disk.hook = fail
            await cluster.start(2)
            await trio.sleep(3)
            await replace_disk(cluster, 2)
            cluster.nodes[1].disk.hook = None
            await cluster.nodes[1].up.forget_store(2)
            await cluster.start(2)
            await eventually(lambda: sees(cluster, 1, 2) and sees(cluster, 2, 1))
            await trio.sleep(5)
            assert cluster.nodes[1].up._storage.peers[2].store_id == cluster.nodes[2].up.identity.store_id
            nursery.cancel_scope.cancel()


async def test_requests_of_a_replaced_node_count_anew(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(groups=0) as cluster:
        with trio.fail_after(100):
            await eventually(lambda: sees(cluster, 1, 2, 3))
            manager = cluster.nodes[1].up
            request = Envelope(GroupKey(5), Forward(7, 1, b""))
            manager.receiver.messages(3, [request])
            manager.receiver.messages(3, [request])
            assert manager.counters.messages_duplicate == 1
            await manager.forget_store(3)
            await eventually(lambda: sees(cluster, 1, 3))
            manager.receiver.messages(3, [Envelope(GroupKey(5), Forward(1, 1, b""))])
            assert manager.counters.messages_duplicate == 1


async def test_what_the_former_process_asked_for_is_not_answered_to_the_next_one(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its processes and requests are numbered from 1 again: the answer would be taken for that to another request."""
    async with running_cluster(nodes=2, members={1}) as cluster:
        with trio.fail_after(100):
            await eventually(lambda: sees(cluster, 1, 2))
            manager, tokens = (await cluster.leader()).up, list[Token]()
            monkeypatch.setattr(manager.get_group(1), "hand_over", lambda kind, payload, token, forwarded: tokens.append(token))
            manager.receiver.messages(2, [Envelope(GroupKey(1), Forward(1, number, b"")) for number in (1, 2)])
            tokens[0].succeed("before")
            await manager.forget_store(2)
            await eventually(lambda: sees(cluster, 1, 2))
            manager.receiver.messages(2, [Envelope(GroupKey(1), Forward(1, 1, b""))])
            before = manager.counters.messages_out
            tokens[1].succeed("late")
            assert manager.counters.messages_out == before
            tokens[2].succeed("of the next one")
            assert manager.counters.messages_out == before + 1


async def test_nothing_counts_between_the_old_store_and_the_next_one(autojump_clock: trio.testing.MockClock) -> None:
    """A connection of the old one may still be open."""
    async with running_cluster(groups=0) as cluster:
        with trio.fail_after(100):
            await eventually(lambda: sees(cluster, 1, 2, 3))
            await cluster.stop(3)
            manager = cluster.nodes[1].up
            await manager.forget_store(3)
            before = manager.counters.messages_in
            manager.receiver.messages(3, [Envelope(GroupKey(5), Forward(7, 1, b""))])
            assert manager.counters.messages_in == before
            # But for where nodes are, which no disk vouches for.
            manager.receiver.messages(3, [Envelope(NO_GROUP, NodeAddress(9, 1, "127.0.0.1:5009"))])
            await eventually(lambda: manager.addresses.get(9) == "127.0.0.1:5009")
