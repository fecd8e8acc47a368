"""Where nodes are: told once, heard everywhere, remembered, and never half of it."""

from __future__ import annotations

import errno
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

import trioraft
from tests.manager.cluster import Cluster, Journal, SimNode, address_of, eventually, propose_until_done, running_cluster
from trioraft import (
    MultiRaftManager,
    RpcServerConfig,
    StorageConfig,
    TcpTransport,
    TcpTransportConfig,
    WalStorage,
    open_manager,
)
from trioraft.manager import _address_book
from trioraft.manager._peer_records import PeerRecords
from trioraft.storage import DiskCall, MemoryStorage, PeerRecord
from trioraft.wire import ADDRESS_BYTES_MAX, NodeAddress

NEW = "127.0.0.1:9000"


def known(node: SimNode, node_id: int) -> str | None:
    return node.up.addresses.get(node_id)


def everybody_says(cluster: Cluster, node_id: int, address: str) -> bool:
    return all(known(node, node_id) == address for node in cluster.running())


def all_live(cluster: Cluster) -> bool:
    nodes = cluster.running()
    return all(len([peer for peer in node.up.status().peers.values() if peer.live]) == len(nodes) - 1 for node in nodes)


async def test_MB_17_a_node_that_moves_is_found_by_all_and_its_old_address_gets_nothing(tmp_path: Path) -> None:
    """On real sockets, groups untouched: the node starts at another port, and says so itself."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            town = _Town(nursery, tmp_path)
            for node_id in (1, 2, 3):
                await town.start(node_id)
            for here in town.managers.values():
                for there in town.managers.values():
                    await here.set_address(there.node_id, there.bound_addresses[0])
            for manager in town.managers.values():
                await manager.add_group(1, Journal(), members={1, 2, 3})
            group = town.managers[1].get_group(1)
            assert await propose_until_done(lambda: group.propose("before")) == 1

            left = town.managers[2].bound_addresses[0]
            await town.stop(2)
            [old] = await trio.open_tcp_listeners(int(left.rpartition(":")[2]), host="127.0.0.1")
            callers = 0

            async def count(stream: trio.SocketStream) -> None:
                nonlocal callers
                callers += 1
                await stream.aclose()

            await nursery.start(trio.serve_listeners, count, [old])
            moved = await town.start(2)
            machine = Journal()
            await moved.add_group(1, machine, members={1, 2, 3})
            await moved.set_address(2, moved.bound_addresses[0])
            assert moved.bound_addresses[0] != left

            while not all(manager.addresses[2] == moved.bound_addresses[0] for manager in town.managers.values()):
                await trio.sleep(0.01)
            await trio.sleep(0.1)  # what had been dialled before the word came has come in
            before = callers
            assert await propose_until_done(lambda: group.propose("after")) == 2
            while machine.commands != ["before", "after"]:
                await trio.sleep(0.01)
            while not all(town.managers[i].status().peers[2].live for i in (1, 3)):
                await trio.sleep(0.01)
            assert callers == before, "the old address is dialled no more"
            nursery.cancel_scope.cancel()


class _Town:
    """Nodes on loopback sockets that are told nothing of each other at their start."""

    def __init__(self, nursery: trio.Nursery, base: Path) -> None:
        self._nursery, self._base = nursery, base
        self.managers: dict[int, MultiRaftManager] = {}
        self._ends: dict[int, tuple[trio.CancelScope, trio.Event]] = {}

    async def start(self, node_id: int) -> MultiRaftManager:
        await self._nursery.start(self._serve, node_id)
        return self.managers[node_id]

    async def _serve(self, node_id: int, *, task_status: trio.TaskStatus[None]) -> None:
        scope, done = self._ends[node_id] = trio.CancelScope(), trio.Event()
        try:
            with scope:
                async with open_manager(
                    node_id=node_id,
                    cluster_id="town",
                    storage=WalStorage(StorageConfig(base_dir=str(self._base / str(node_id)))),
                    transport=TcpTransport(TcpTransportConfig(backoff_min=0.02, backoff_max=0.1)),
                    server=RpcServerConfig(bind_addr="127.0.0.1:0"),
                ) as manager:
                    self.managers[node_id] = manager
                    task_status.started()
                    await trio.sleep_forever()
        finally:
            done.set()

    async def stop(self, node_id: int) -> None:
        scope, done = self._ends[node_id]
        scope.cancel()
        await done.wait()


async def test_an_unknown_node_is_refused_until_its_address_is_known_and_then_needs_no_restart(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        cluster = Cluster(nursery, groups=0)
        for node_id in (1, 2):
            del cluster.addresses[node_id][3]
        with trio.fail_after(100):
            await cluster.start()
            await trio.sleep(10)
            assert 3 not in cluster.nodes[1].up.status().peers
            refusals = cluster.nodes[1].events.of(trioraft.PeerRefused)
            assert {refusal.node_id for refusal in refusals} == {3}
            assert all("set_address" in refusal.reason for refusal in refusals)
            await cluster.nodes[1].up.set_address(3, address_of(3))
            await eventually(lambda: all_live(cluster))

            # Both have it on their disks by now: whoever hears of a node remembers it.
            await cluster.crash(1, 2)
            await cluster.start(1, 2)
            await eventually(lambda: all_live(cluster))
            nursery.cancel_scope.cancel()


async def test_what_was_told_wins_over_what_a_node_is_given_at_its_start(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(groups=0) as cluster:
        with trio.fail_after(100):
            await cluster.nodes[1].up.set_address(3, NEW)
            await eventually(lambda: everybody_says(cluster, 3, NEW))
            await cluster.crash(1, 2, 3)
            await cluster.start()
            assert everybody_says(cluster, 3, NEW)
            # And the next word wins over this one, whoever says it.
            await cluster.nodes[2].up.set_address(3, address_of(3))
            await eventually(lambda: everybody_says(cluster, 3, address_of(3)))


async def test_a_node_may_say_where_it_moves_to_itself(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(groups=0) as cluster:
        with trio.fail_after(100):
            await cluster.nodes[2].up.set_address(2, NEW)
            await eventually(lambda: everybody_says(cluster, 2, NEW))
            assert 2 not in cluster.nodes[2].up.status().peers, "it does not become a peer of itself"


async def test_who_was_away_hears_of_it_when_it_comes_back(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(groups=0) as cluster:
        with trio.fail_after(100):
            await cluster.stop(3)
            await cluster.nodes[1].up.set_address(2, NEW)
            await eventually(lambda: known(cluster.nodes[2], 2) == NEW)
            await cluster.start(3)
            await eventually(lambda: everybody_says(cluster, 2, NEW))


async def test_a_stranger_is_told_everything_before_its_disk_is_known(autojump_clock: trio.testing.MockClock) -> None:
    """More than fit into one portion, and before its store is on the other's disk."""
    async with trio.open_nursery() as nursery:
        cluster = Cluster(nursery, groups=0, nodes=2)
        with trio.fail_after(100):
            await cluster.start(1)
            for node_id in range(3, 303):
                await cluster.nodes[1].up.set_address(node_id, f"{'long.' * 40}example:{node_id}")
            await cluster.start(2)
            await eventually(lambda: len(cluster.nodes[2].up.addresses) == 302)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("first", [1, 2])
async def test_nodes_that_were_told_differently_at_once_agree(autojump_clock: trio.testing.MockClock, first: int) -> None:
    async with running_cluster(groups=0) as cluster:
        with trio.fail_after(100):
            cluster.network.cut(1, 2)
            cluster.network.isolate(3)
            await cluster.nodes[first].up.set_address(3, "127.0.0.1:7777")
            await cluster.nodes[3 - first].up.set_address(3, "127.0.0.1:8888")
            await trio.sleep(1)
            cluster.network.heal_all()
            await eventually(lambda: everybody_says(cluster, 3, "127.0.0.1:8888"))


@pytest.mark.parametrize(
    ("node_id", "address", "text"),
    [
        (0, NEW, "node id"),
        (1 << 32, NEW, "node id"),
        (True, NEW, "node id"),
        ("2", NEW, "node id"),
        (2, "nowhere", "no address"),
        (2, "127.0.0.1:0", "port"),
        (2, "host\n:80", "printable"),
        (2, "", "no address"),
        (2, None, "printable"),
        (2, "x" * ADDRESS_BYTES_MAX + ":1", "printable"),
        (2, address_of(1), "node 1 already"),
        (2, address_of(3), "node 3 already"),
        (1, address_of(3), "node 3 already"),
        (9, "localhost:07", "node 4 already"),
    ],
)
async def test_a_bad_address_is_refused_and_changes_nothing(
    autojump_clock: trio.testing.MockClock, node_id: int, address: str, text: str
) -> None:
    async with running_cluster(groups=0) as cluster:
        with trio.fail_after(100):
            manager = cluster.nodes[1].up
            await manager.set_address(4, "localhost:7")
            before = dict(manager.addresses)
            with pytest.raises(trioraft.ConfigError, match=text):
                await manager.set_address(node_id, address)
            assert manager.addresses == before


async def test_two_nodes_given_one_address_at_once_do_not_both_get_it(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(groups=0) as cluster:
        with trio.fail_after(100):
            refused: list[int] = []

            async def move(node_id: int) -> None:
                try:
                    await cluster.nodes[1].up.set_address(node_id, NEW)
                except trioraft.ConfigError:
                    refused.append(node_id)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(move, 2)
                nursery.start_soon(move, 3)
            assert len(refused) == 1


async def test_an_address_that_the_transport_may_not_dial_is_refused() -> None:
    with trio.fail_after(30):
        async with open_manager(node_id=1, cluster_id="c", storage=MemoryStorage(), transport=TcpTransport()) as manager:
            for node_id in (1, 2):
                with pytest.raises(trioraft.ConfigError, match="insecure"):
                    await manager.set_address(node_id, "example.com:80")
            assert manager.addresses == {}


async def test_a_node_that_stops_takes_no_address() -> None:
    with trio.fail_after(30):
        async with open_manager(node_id=1, cluster_id="c", storage=MemoryStorage(), transport=TcpTransport()) as manager:
            pass
        with pytest.raises(trioraft.RaftError, match="stopping"):
            await manager.set_address(2, NEW)


async def test_a_node_may_stop_while_it_writes_an_address_down(autojump_clock: trio.testing.MockClock) -> None:
    """The caller hears that it is written; the others hear of it after the next start."""
    async with running_cluster(groups=0) as cluster:
        with trio.fail_after(100):
            await eventually(lambda: all_live(cluster))
            node, is_writing = cluster.nodes[1], trio.Event()

            async def write_slowly(call: DiskCall) -> None:
                if "node.toml" in call.path:
                    is_writing.set()
                    await trio.sleep(0.5)

            node.disk.hook = write_slowly
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.up.set_address, 3, NEW)
                await is_writing.wait()
                await cluster.quit(1)
            node.disk.hook = None
            assert known(cluster.nodes[2], 3) == address_of(3)
            await cluster.start(1)
            await eventually(lambda: everybody_says(cluster, 3, NEW))


async def test_a_remembered_address_that_may_not_be_dialled_any_more_does_not_stop_the_node(caplog: pytest.LogCaptureFixture) -> None:
    storage = MemoryStorage()
    await storage.open(1, "c")
    await storage.remember_peer(PeerRecord(2, None, "example.com:80", 5))
    storage = storage.restart()
    with trio.fail_after(30):
        async with open_manager(
            node_id=1, cluster_id="c", storage=storage, transport=TcpTransport(), addresses={2: address_of(2)}
        ) as manager:
            assert manager.addresses == {2: address_of(2)}
            assert "example.com" in caplog.text
            await manager.set_address(2, NEW)
            assert storage.peers[2].address_version == 6, "newer than what others may still have"


async def test_nobody_hears_of_an_address_that_a_crash_could_undo(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(groups=0) as cluster:
        gate = trio.Event()

        async def hold(call: DiskCall) -> None:
            if "node.toml" in call.path:
                await gate.wait()

        with trio.fail_after(100):
            await eventually(lambda: all_live(cluster))
            cluster.nodes[1].disk.hook = hold
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cluster.nodes[1].up.set_address, 3, NEW)
                await trio.sleep(5)
                assert everybody_says(cluster, 3, address_of(3))
                gate.set()
            await eventually(lambda: everybody_says(cluster, 3, NEW))


async def test_a_failing_disk_is_told_to_the_caller_and_tried_again_by_those_who_hear(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(groups=0) as cluster:

        async def fail(call: DiskCall) -> None:
            if "node.toml" in call.path:
                raise OSError(errno.EIO, "broken")

        with trio.fail_after(100):
            await eventually(lambda: all_live(cluster))
            cluster.nodes[1].disk.hook = cluster.nodes[2].disk.hook = fail
            with pytest.raises(trioraft.StorageError):
                await cluster.nodes[1].up.set_address(3, NEW)
            assert everybody_says(cluster, 3, address_of(3))
            cluster.nodes[1].disk.hook = None
            await cluster.nodes[1].up.set_address(3, NEW)
            await trio.sleep(5)
            assert known(cluster.nodes[2], 3) == address_of(3), "not on its disk, so not in use"
            # A newer word that comes meanwhile is the one that is taken.
            await cluster.nodes[3].up.set_address(3, "127.0.0.1:9001")
            await trio.sleep(5)
            cluster.nodes[2].disk.hook = None
            await eventually(lambda: everybody_says(cluster, 3, "127.0.0.1:9001"))
            assert cluster.nodes[2].up._storage.peers[3].address == "127.0.0.1:9001"


async def test_no_more_nodes_are_taken_from_others_than_the_book_holds(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_address_book, "ADDRESSES_MAX", 5)
    async with running_cluster(groups=0) as cluster:
        with trio.fail_after(100):
            book = cluster.nodes[1].up._book
            for node_id in range(4, 20):
                book.hear(NodeAddress(node_id, 1, address_of(node_id)))
            await trio.sleep(5)
            assert sorted(cluster.nodes[1].up.addresses) == [1, 2, 3, 4, 5]
            book.hear(NodeAddress(5, 2, NEW))
            await eventually(lambda: everybody_says(cluster, 5, NEW))
            with pytest.raises(trioraft.ConfigError, match="no room"):
                await cluster.nodes[1].up.set_address(20, address_of(20))


async def test_several_connections_at_once_cost_one_telling(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(groups=0, nodes=2) as cluster:
        with trio.fail_after(100):
            manager = cluster.nodes[1].up
            await manager.set_address(9, address_of(9))
            await trio.sleep(5)
            sent = manager.counters.messages_out
            for _ in range(20):
                manager.receiver.connected(2)
            await trio.sleep(5)
            assert manager.counters.messages_out == sent + 1


async def test_records_of_peers_are_changed_one_after_the_other() -> None:
    """The store of a node and its address are one record, and two tasks write it."""
    storage = MemoryStorage()
    await storage.open(1, "c")
    records = PeerRecords(storage)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(records.change, 2, lambda record: attrs.evolve(record, store_id="ab" * 16))
            nursery.start_soon(records.change, 2, lambda record: attrs.evolve(record, address=NEW, address_version=1))
    assert records.find(2) == PeerRecord(2, "ab" * 16, NEW, 1)
