"""Snapshots between whole managers: taken, sent, installed, restored; and what they must never stop.

Machines are snapshotted and restored in threads, which virtual time does not wait for by itself: `thread_clock` sees to it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

import trioraft
from trioraft import ApplyContext, GroupConfig, MultiRaftConfig, StateMachine

from .cluster import Cluster, Journal, SimNode, eventually, propose_until_done, running_cluster

SMALL = GroupConfig(snapshot_entries=20, keep_entries=5)


async def write(node: SimNode, count: int, name: str = "v", group_id: int = 1) -> None:
    for n in range(count):
        await propose_until_done(lambda n=n: node.group(group_id).propose(f"{name}{n}"))


async def test_a_log_is_cut_behind_its_snapshots(thread_clock: trio.testing.MockClock, seed: int) -> None:
    with trio.fail_after(300):
        async with running_cluster(seed=seed, group_config=SMALL) as cluster:
            leader = await cluster.leader()
            await write(leader, 100)
            await cluster.settle()
            for node in cluster.running():
                await eventually(lambda n=node: n.group().status().first_index > 60)
                status = node.group().status()
                assert status.snapshot.index - status.first_index + 1 <= SMALL.keep_entries
                assert node.up.counters.snapshots_taken >= 2


async def test_SN_15_a_follower_that_was_away_too_long_gets_a_snapshot_and_agrees(thread_clock: trio.testing.MockClock, seed: int) -> None:
    with trio.fail_after(300):
        async with running_cluster(seed=seed, group_config=SMALL) as cluster:
            leader = await cluster.leader()
            await write(leader, 10, "a")
            away = next(node for node in cluster.running() if node is not leader)
            await cluster.crash(away.node_id)
            leader = await cluster.leader()
            await write(leader, 100, "b")
            await eventually(lambda: leader.group().status().first_index > 50)
            await cluster.start(away.node_id)
            await write(leader, 3, "c")
            commands = await cluster.settle()
            assert len(commands) == 113
            assert away.up.counters.snapshots_received == 1
            assert away.machines[1].indexes == leader.machines[1].indexes
            # It is a replica like any other: it goes on, and starts again from what it has.
            await cluster.crash(away.node_id)
            await write(leader, 3, "d")
            await cluster.start(away.node_id)
            assert len(await cluster.settle()) == 116


async def test_all_nodes_start_again_from_their_snapshots(thread_clock: trio.testing.MockClock, seed: int) -> None:
    with trio.fail_after(300):
        async with running_cluster(seed=seed, group_config=SMALL, max_log_file_size=8192) as cluster:
            await write(await cluster.leader(), 150, "a")
            before = await cluster.settle()
            for node_id in cluster.node_ids:
                await cluster.stop(node_id)
            await cluster.start()
            leader = await cluster.leader()
            await write(leader, 1, "b")
            after = await cluster.settle()
            assert after == [*before, "b0"]
            assert all(len(set(node.machines[1].indexes)) == len(after) for node in cluster.running())


async def test_SN_5_a_leader_whose_log_is_gone_sends_its_snapshot_to_one_that_has_nothing(
    thread_clock: trio.testing.MockClock, seed: int
) -> None:
    with trio.fail_after(300):
        async with running_cluster(seed=seed, group_config=GroupConfig(keep_entries=0)) as cluster:
            leader = await cluster.leader()
            away = next(node for node in cluster.running() if node is not leader)
            await cluster.crash(away.node_id)
            leader = await cluster.leader(among=set(cluster.node_ids) - {away.node_id})
            await write(leader, 100)
            at = await leader.group().snapshot()
            assert at.index == leader.group().status().applied_index
            await eventually(lambda: leader.group().status().first_index == at.index + 1)
            await cluster.start(away.node_id)
            # No traffic: nobody proposes anything.
            await eventually(lambda: len(away.machines[1].commands) == 100, 60)


async def test_a_snapshot_that_has_rotted_is_taken_again_when_a_follower_needs_it(thread_clock: trio.testing.MockClock, seed: int) -> None:
    with trio.fail_after(600):
        async with running_cluster(seed=seed, group_config=GroupConfig(keep_entries=0)) as cluster:
            leader = await cluster.leader()
            away = next(node for node in cluster.running() if node is not leader)
            await cluster.crash(away.node_id)
            leader = await cluster.leader(among=set(cluster.node_ids) - {away.node_id})
            await write(leader, 20)
            at = await leader.group().snapshot()
            path = f"/data/group-1/snapshots/{at.index}-{at.term}.snap"
            data = bytearray(leader.disk.contents(path))
            data[len(data) // 2] ^= 1
            leader.disk.overwrite(path, bytes(data))
            await cluster.start(away.node_id)
            await eventually(lambda: len(away.machines[1].commands) == 20, 300)
            assert leader.events.of(trioraft.SnapshotFailed)


async def test_a_stream_to_a_group_that_is_removed_there_is_refused_at_once(thread_clock: trio.testing.MockClock, seed: int) -> None:
    with trio.fail_after(600):
        async with running_cluster(seed=seed, group_config=GroupConfig(keep_entries=0)) as cluster:
            leader = await cluster.leader()
            other = next(node for node in cluster.running() if node is not leader)
            await other.up.remove_group(1, force=True)
            await write(leader, 20)
            await leader.group().snapshot()
            await eventually(lambda: any("does not run" in str(event.error) for event in leader.events.of(trioraft.SnapshotFailed)))
            tries = len(leader.events.of(trioraft.SnapshotFailed))
            await trio.sleep(60)
            assert len(leader.events.of(trioraft.SnapshotFailed)) <= tries + 5
            await write(leader, 1, "on")


async def test_a_dead_follower_does_not_let_the_log_grow(thread_clock: trio.testing.MockClock, seed: int) -> None:
    with trio.fail_after(600):
        async with running_cluster(seed=seed, group_config=SMALL, max_log_file_size=8192) as cluster:
            leader = await cluster.leader()
            dead = next(node for node in cluster.running() if node is not leader)
            await cluster.crash(dead.node_id)
            leader = await cluster.leader()
            await write(leader, 600)
            await eventually(lambda: len(leader.disk.names("/data/wal")) <= 3)
            assert leader.group().status().first_index > 500


class Stubborn(Journal):
    """Its snapshots fail as told."""

    trouble: str = "none"
    released = threading.Event()

    def snapshot(self) -> Iterable[Any]:
        if self.trouble == "raises":
            raise RuntimeError("no snapshot today")
        if self.trouble == "leaves":
            raise SystemExit(3)
        return self._records(list(zip(self.indexes, self.commands, strict=True)))

    def _records(self, pairs: list[Any]) -> Iterator[Any]:
        yield from pairs[:5]
        if self.trouble == "raises later":
            raise RuntimeError("no more records")
        if self.trouble == "hangs":
            self.released.wait(20)
        if self.trouble == "cannot be encoded":
            yield object()
        yield from pairs[5:]


@pytest.mark.parametrize("trouble", ["raises", "leaves", "raises later", "cannot be encoded"])
async def test_SN_12_snapshot_code_that_fails_stops_nothing_and_is_tried_again(
    thread_clock: trio.testing.MockClock, seed: int, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stubborn, "trouble", trouble)
    with trio.fail_after(300):
        async with running_cluster(seed=seed, group_config=SMALL, machine=Stubborn) as cluster:
            leader = await cluster.leader()
            await write(leader, 60)
            await cluster.settle()
            status = leader.group().status()
            assert status.first_index == 1
            assert status.snapshot_failure is not None
            failures = leader.events.of(trioraft.SnapshotFailed)
            assert failures
            assert failures[0].what == "taking"
            with pytest.raises(trioraft.SnapshotError):
                await leader.group().snapshot()
            monkeypatch.setattr(Stubborn, "trouble", "none")
            await eventually(lambda: leader.group().status().first_index > 1, 300)
            assert leader.group().status().snapshot_failure is None


async def test_SN_12_snapshot_code_that_hangs_stops_nothing_and_is_seen(
    autojump_clock: trio.testing.MockClock, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stubborn, "trouble", "hangs")
    monkeypatch.setattr(Stubborn, "released", threading.Event())
    config = MultiRaftConfig(shutdown_timeout=0.2)
    try:
        with trio.fail_after(300):
            async with running_cluster(seed=seed, group_config=SMALL, machine=Stubborn, config=config) as cluster:
                leader = await cluster.leader()
                await write(leader, 60)
                assert len(await cluster.settle()) == 60
                status = leader.group().status()
                assert status.first_index == 1
                assert status.snapshot_running_since is not None
                assert status.snapshot_running_since < trio.current_time()
    finally:
        Stubborn.released.set()


async def test_snapshots_of_a_machine_without_any_are_refused_by_name(autojump_clock: trio.testing.MockClock, seed: int) -> None:
    class Plain(StateMachine):
        def __init__(self) -> None:
            self.commands: list[Any] = []

        def apply(self, command: Any, context: ApplyContext) -> Any:
            self.commands.append(command)

    with trio.fail_after(120):
        async with running_cluster(seed=seed, group_config=SMALL, machine=Plain) as cluster:  # type: ignore[arg-type]  # of any type
            leader = await cluster.leader()
            await write(leader, 60)
            assert leader.group().status().first_index == 1
            with pytest.raises(trioraft.SnapshotError, match="snapshot"):
                await leader.group().snapshot()


async def test_memory_for_logs_is_bounded_and_what_left_it_is_read_back(thread_clock: trio.testing.MockClock, seed: int) -> None:
    config = GroupConfig(log_memory_bytes_max=4096, snapshot_entries=10_000, append_bytes_max=2048)
    with trio.fail_after(600):
        async with running_cluster(seed=seed, group_config=config) as cluster:
            leader = await cluster.leader()
            away = next(node for node in cluster.running() if node is not leader)
            await cluster.crash(away.node_id)
            leader = await cluster.leader()
            await write(leader, 300, "x" * 50)
            await eventually(lambda: leader.group().status().memory_bytes <= 4096)
            assert leader.up.status().log_memory <= 4096
            await cluster.start(away.node_id)
            assert len(await cluster.settle()) == 300
            assert leader.up.counters.entries_loaded > 200
            await cluster.crash(leader.node_id)
            await cluster.start(leader.node_id)
            assert len(await cluster.settle()) == 300


async def test_a_node_that_is_full_of_entries_trims_the_groups_that_rest(thread_clock: trio.testing.MockClock, seed: int) -> None:
    config = MultiRaftConfig(log_memory_bytes_max=65536)
    with trio.fail_after(600):
        async with running_cluster(
            seed=seed, nodes=1, groups=10, config=config, group_config=GroupConfig(snapshot_entries=10_000)
        ) as cluster:
            node = cluster.nodes[1]
            for group_id in cluster.group_ids:
                await node.group(group_id).wait_leader()
                await write(node, 100, "x" * 50, group_id)
            await eventually(lambda: node.up.status().log_memory <= 65536)
            assert sum(node.group(group_id).status().memory_bytes for group_id in cluster.group_ids) <= 65536
            for group_id in cluster.group_ids:
                assert len(node.machines[group_id].commands) == 100


async def test_entries_that_could_not_leave_memory_leave_it_when_they_can(autojump_clock: trio.testing.MockClock, seed: int) -> None:
    config = MultiRaftConfig(log_memory_bytes_max=65536)
    with trio.fail_after(600):
        async with running_cluster(seed=seed, groups=8, config=config) as cluster:
            async with trio.open_nursery() as nursery:
                for group_id in cluster.group_ids:
                    leader = await cluster.leader(group_id)
                    for n in range(8):
                        nursery.start_soon(leader.group(group_id).propose, f"{n}" * 10_000)
            await trio.sleep(5)
            for node in cluster.running():
                assert node.up.status().log_memory <= 65536


async def _clients(cluster: Cluster, rng: random.Random, acknowledged: list[Any], name: str) -> None:
    for n in range(10_000):
        value = f"{name}-{n}"
        node = rng.choice(cluster.running())
        try:
            await node.group().propose(value)
        except trioraft.RaftError:
            await trio.sleep(rng.random() * 0.2)
        else:
            acknowledged.append(value)
            await trio.sleep(rng.random() * 0.01)


@pytest.mark.parametrize("run", range(4))
async def test_nothing_is_lost_with_snapshots_small_files_and_power_cuts(thread_clock: trio.testing.MockClock, seed: int, run: int) -> None:
    rng = random.Random(seed + run)
    acknowledged: list[Any] = []
    config = GroupConfig(snapshot_entries=15, keep_entries=rng.choice([0, 3]), log_memory_bytes_max=2048)
    with trio.fail_after(900):
        async with running_cluster(seed=seed + run, group_config=config, max_log_file_size=4096) as cluster:
            for cut in range(4):
                await cluster.leader()
                async with trio.open_nursery() as clients:
                    for n in range(3):
                        clients.start_soon(_clients, cluster, rng, acknowledged, f"c{cut}n{n}")
                    await trio.sleep(rng.uniform(0.2, 1.0))
                    one = rng.choice(list(cluster.node_ids))
                    await cluster.crash(one)
                    await trio.sleep(rng.uniform(0.5, 3.0))
                    clients.cancel_scope.cancel()
                await cluster.start(one)
                if rng.random() < 0.5:
                    await cluster.crash(*cluster.node_ids, keep=rng.choice(["none", "random", "all"]))
                    await cluster.start()
            await cluster.leader()
            commands = await cluster.settle()
            assert set(acknowledged) <= set(commands)
            assert len(commands) == len(set(commands))
            assert any(node.up.counters.snapshots_taken or node.group().status().snapshot.index for node in cluster.running())
