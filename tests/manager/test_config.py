"""Each setting of a node has an effect that can be seen, and a range that is enforced."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import trio
import trio.testing

import trioraft
from trioraft import MultiRaftConfig

from .cluster import Journal, running_cluster


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"heartbeat_interval": 0}, "heartbeat_interval"),
        ({"heartbeat_interval": float("nan")}, "heartbeat_interval"),
        ({"heartbeat_interval": "0.1"}, "heartbeat_interval"),
        ({"election_timeout": -1}, "election_timeout"),
        ({"forward_timeout": 0}, "forward_timeout"),
        ({"forwards_max": 0}, "forwards_max"),
        ({"forwards_max": True}, "forwards_max"),
        ({"apply_threads": 0}, "apply_threads"),
        ({"shutdown_timeout": -1}, "shutdown_timeout"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_range(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(trioraft.ConfigError, match=text):
        MultiRaftConfig(**settings)


@pytest.mark.parametrize("interval", [0.05, 0.2])
async def test_heartbeat_interval_is_the_pace_of_the_pulse(autojump_clock: trio.testing.MockClock, interval: float) -> None:
    async with running_cluster(config=MultiRaftConfig(heartbeat_interval=interval)) as cluster:
        with trio.fail_after(60):
            counters = (await cluster.leader()).up.counters
            before = counters.pulses_out
            await trio.sleep(10)
            assert abs(counters.pulses_out - before - 2 * 10 / interval) <= 4


@pytest.mark.parametrize("timeout", [1.0, 5.0])
async def test_election_timeout_is_how_long_a_silent_leader_is_waited_for(autojump_clock: trio.testing.MockClock, timeout: float) -> None:
    async with running_cluster(config=MultiRaftConfig(election_timeout=timeout)) as cluster:
        with trio.fail_after(120):
            leader = await cluster.leader()
            await trio.sleep(2 * timeout)
            await cluster.crash(leader.node_id)
            start = trio.current_time()
            await cluster.leader()
            assert 0.8 * timeout <= trio.current_time() - start <= 3 * timeout


async def test_forward_timeout_bounds_the_wait_for_a_leader_that_does_not_answer(autojump_clock: trio.testing.MockClock) -> None:
    """Its disk hangs for less than E: it is live, and nothing is lost but time."""
    config = MultiRaftConfig(election_timeout=20.0, forward_timeout=0.5)
    async with running_cluster(config=config) as cluster:
        with trio.fail_after(300):
            leader = await cluster.leader()
            other = next(node for node in cluster.nodes.values() if node is not leader)
            await other.group().wait_leader()
            for node in cluster.nodes.values():
                node.disk.sync_seconds = 5.0
            start = trio.current_time()
            with pytest.raises(trioraft.OutcomeUnknownError, match="did not answer in 500 ms"):
                await other.group().propose("x")
            assert 0.5 <= trio.current_time() - start <= 0.7


async def test_forwards_max_bounds_the_proposals_that_wait_for_another_node(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(config=MultiRaftConfig(forwards_max=1)) as cluster:
        with trio.fail_after(60):
            leader = await cluster.leader()
            other = next(node for node in cluster.nodes.values() if node is not leader)
            await other.group().wait_leader()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(other.group().propose, "first")
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
                with pytest.raises(trioraft.BusyError, match="wait for node"):
                    await other.group().propose("second")


class Meeting(Journal):
    """Counts how many machines are in a thread at once."""

    blocking = True
    lock = threading.Lock()
    inside = 0
    most = 0

    def apply(self, command: Any, context: trioraft.ApplyContext) -> Any:
        with Meeting.lock:
            Meeting.inside += 1
            Meeting.most = max(Meeting.most, Meeting.inside)
        threading.Event().wait(0.02)
        with Meeting.lock:
            Meeting.inside -= 1
        return super().apply(command, context)


@pytest.mark.parametrize("threads", [1, 4])
async def test_apply_threads_is_how_many_blocking_machines_run_at_once(threads: int) -> None:
    """On the real clock: a mock clock does not see threads."""
    Meeting.most = 0
    config = MultiRaftConfig(heartbeat_interval=0.04, election_timeout=0.2, apply_threads=threads)
    async with running_cluster(nodes=1, groups=4, machine=Meeting, config=config) as cluster:
        with trio.fail_after(30):
            for group_id in cluster.group_ids:
                await cluster.leader(group_id)
            async with trio.open_nursery() as nursery:
                for group_id in cluster.group_ids:
                    nursery.start_soon(cluster.nodes[1].group(group_id).propose, "x")
    assert Meeting.most <= threads
    assert (Meeting.most > 1) == (threads > 1)


async def test_shutdown_timeout_bounds_the_wait_for_peers_that_do_not_acknowledge(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(config=MultiRaftConfig(shutdown_timeout=0.2, election_timeout=20.0)) as cluster:
        with trio.fail_after(200):
            leader = await cluster.leader()
            await trio.sleep(1)
            cluster.network.set_loss(1.0)  # live for E, as far as anybody can tell, and nothing arrives
            start = trio.current_time()
            await cluster.quit(leader.node_id)
            # Once for its leaders to be taken over, once for the peers to hear that it is gone.
            assert trio.current_time() - start == pytest.approx(0.4, abs=0.01)
