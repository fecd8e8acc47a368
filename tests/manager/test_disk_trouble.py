"""Full, hung and poisoned disks under whole managers: nothing acknowledged is lost, and the other nodes take over."""

from __future__ import annotations

import random
from contextlib import AbstractAsyncContextManager

import pytest
import trio
import trio.testing

import trioraft
from trioraft import DiskSpaceChanged, GroupFailed
from trioraft.storage import DiskCall, SimulatedDisk

from .cluster import Journal, SimNode, eventually, propose_until_done, running_cluster


def fill(node: SimNode) -> None:
    """Let the node's disk have no space beyond what it uses now."""
    node.disk.capacity = 0


async def test_ST_6_a_full_disk_hands_leadership_over_and_takes_part_again_when_there_is_space(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running_cluster(groups=3) as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader(1)
            assert await leader.group().propose("before") == 1
            fill(leader)
            with trio.move_on_after(1):
                await propose_until_done(lambda: leader.group().propose("meanwhile"))
            others = set(cluster.node_ids) - {leader.node_id}
            successor = await cluster.leader(1, among=others)
            assert not leader.group().is_leader
            assert DiskSpaceChanged(False) in leader.events.seen
            assert not leader.up.status().has_room
            await propose_until_done(lambda: successor.group().propose("after"))
            term = leader.group().status().term
            await trio.sleep(20)
            assert successor.group().is_leader, "the full node neither votes nor campaigns"
            leader.disk.capacity = None
            await eventually(lambda: DiskSpaceChanged(True) in leader.events.seen)
            commands = await cluster.settle(1)
            assert commands[0] == "before"
            assert "after" in commands
            assert leader.group().status().term >= term
            assert leader.group().failure is None, "without a restart"


async def test_ST_6_acknowledged_writes_survive_a_restart_after_a_full_disk(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader()
            assert await leader.group().propose("x") == 1
            for node in cluster.nodes.values():
                fill(node)
            with trio.move_on_after(3):
                await propose_until_done(lambda: leader.group().propose("y"), 60)
            await cluster.crash(*cluster.node_ids)
            for node in cluster.nodes.values():
                node.disk.capacity = None
            await cluster.start()
            await cluster.leader()
            assert (await cluster.settle())[0] == "x"


async def test_ST_5_a_failed_sync_stops_every_group_of_the_node_and_its_pulse_says_so(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(groups=3) as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader(1)
            await leader.group().propose("before")
            leader.disk.failing_syncs = 1
            with pytest.raises((trioraft.OutcomeUnknownError, trioraft.GroupStoppedError)):
                await leader.group().propose("doomed")
            failed = leader.events.of(GroupFailed)
            assert {event.group_id for event in failed} == set(cluster.group_ids)
            assert all(isinstance(event.error, trioraft.StorageError) for event in failed)
            others = set(cluster.node_ids) - {leader.node_id}
            start = trio.current_time()
            for group_id in cluster.group_ids:
                await cluster.leader(group_id, among=others)
            assert trio.current_time() - start < 5
            for other in others:
                assert not cluster.nodes[other].up.status().peers[leader.node_id].live
            assert leader.up.status().sync_age == float("inf")
            syncs = leader.disk.calls["sync"]
            await trio.sleep(30)
            assert leader.disk.calls["sync"] == syncs, "the same data is never synced twice"
            await cluster.crash(leader.node_id)
            await cluster.start(leader.node_id)
            assert (await cluster.settle())[0] == "before"


async def test_a_hung_disk_loses_leadership_though_the_node_talks_on(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(300):
            leader = await cluster.leader()
            await leader.group().propose("before")
            hung = trio.Event()

            async def hang(call: DiskCall) -> None:
                if call.verb == "sync":
                    await hung.wait()

            leader.disk.hook = hang
            with trio.move_on_after(0.1):
                await leader.group().propose("doomed")
            others = set(cluster.node_ids) - {leader.node_id}
            start = trio.current_time()
            successor = await cluster.leader(among=others)
            assert trio.current_time() - start < 5
            await propose_until_done(lambda: successor.group().propose("after"))
            hung.set()
            leader.disk.hook = None
            commands = await cluster.settle()
            assert commands[0] == "before"
            assert "after" in commands


async def test_MG_12_a_slow_machine_in_a_thread_does_not_delay_other_groups(autojump_clock: trio.testing.MockClock) -> None:
    """Inline machines share the loop; this one is `blocking`, and its thread is only waited for by its own group."""
    import threading

    from .cluster import Journal

    gate = threading.Event()

    class Slow(Journal):
        blocking = True

        def apply(self, command: object, context: trioraft.ApplyContext) -> object:
            assert gate.wait(30)
            return super().apply(command, context)

    async with running_cluster(nodes=1) as cluster:
        # NB: the mock clock does not see threads, so this test waits for no virtual time while one runs.
        autojump_clock.autojump_threshold = float("inf")
        autojump_clock.rate = 1.0
        try:
            with trio.fail_after(30):
                leader = await cluster.leader()
                slow = await leader.up.add_group(77, Slow(), members={1})
                await slow.wait_leader()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(slow.propose, "waits")
                    start = trio.current_time()
                    for n in range(50):
                        await leader.group().propose(n)
                    assert trio.current_time() - start < 5
                    assert slow.status().applied_index < slow.status().commit_index
                    gate.set()
        finally:
            gate.set()


async def test_removing_a_group_of_which_damage_hides_who_it_was(autojump_clock: trio.testing.MockClock) -> None:
    """Its incarnation must be named: a guess would let the same replica come again, without its vote."""
    disk = SimulatedDisk(random.Random(1))

    def node() -> AbstractAsyncContextManager[trioraft.RaftManager]:
        storage = trioraft.WalStorage(trioraft.StorageConfig(base_dir="/data"), disk=disk.mount())
        transport = trioraft.MemoryTransport(trioraft.MemoryNetwork())
        return trioraft.open_manager(node_id=1, cluster_id="c", storage=storage, transport=transport)

    with trio.fail_after(60):
        async with node() as manager:
            await manager.add_group(7, Journal(), members={1}, incarnation=3)
            await manager.add_group(8, Journal(), members={1}, incarnation=3)
        path = "/data/wal/00000001.wal"
        data = bytearray(disk.contents(path))
        data[512 + 100] ^= 1
        disk.overwrite(path, bytes(data))
        async with node() as manager:
            with pytest.raises(trioraft.CorruptLogError):
                await manager.add_group(7, Journal(), members={1}, incarnation=3)
            with pytest.raises(trioraft.ConfigError, match="incarnation"):
                await manager.remove_group(7, force=True)
            for wrong in (0, 1 << 32, True):
                with pytest.raises(trioraft.ConfigError, match="whole number"):
                    await manager.remove_group(7, force=True, incarnation=wrong)
            await manager.remove_group(7, force=True, incarnation=4)
            with pytest.raises(trioraft.GroupExistsError, match="incarnation=5"):
                await manager.add_group(7, Journal(), members={1}, incarnation=3)
            await manager.add_group(7, Journal(), members={1}, incarnation=5)
            group = await manager.add_group(8, Journal(), members={1}, incarnation=3)
            with pytest.raises(trioraft.GroupNotFoundError, match="incarnation 3"):
                await manager.remove_group(8, force=True, incarnation=4)
            assert group.failure is None
            await group.wait_leader()
            await manager.remove_group(8, force=True, incarnation=3)


async def test_a_removal_that_was_given_up_is_taken_up_again(autojump_clock: trio.testing.MockClock) -> None:
    disk = SimulatedDisk(random.Random(1))
    storage = trioraft.WalStorage(trioraft.StorageConfig(base_dir="/data"), disk=disk.mount())
    transport = trioraft.MemoryTransport(trioraft.MemoryNetwork())
    with trio.fail_after(60):
        async with trioraft.open_manager(node_id=1, cluster_id="c", storage=storage, transport=transport) as manager:
            await (await manager.add_group(7, Journal(), members={1})).wait_leader()
            disk.capacity = 0
            for _ in range(2):
                with trio.move_on_after(1) as scope:
                    await manager.remove_group(7, force=True)
                assert scope.cancelled_caught, "not durable yet"
            disk.capacity = None
            await manager.remove_group(7)
            with pytest.raises(trioraft.GroupNotFoundError):
                await manager.remove_group(7, force=True)
            await (await manager.add_group(7, Journal(), members={1}, incarnation=2)).wait_leader()
