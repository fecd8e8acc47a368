"""What the launcher does to its nodes: kill -9, standing still, a power cut for all, a long absence.

Rules: a fault never takes the majority away, except the power cut, which takes all; whatever was taken comes back; when the faults are
over, `heal` leaves every node running.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import trio
from cluster_nodes import ClusterNodes
from node_process import NodeEndedError, NodeProcess, NodeState
from observer import Observer

RESTART_SECONDS = 2.0
"""How long a killed node stays down."""
STOP_SECONDS = 3.0
"""How long a stopped node stands still: long enough to lose its leaderships."""
POWER_CUT_SECONDS = 1.0
_LOOK_SECONDS = 0.25


class Faults:
    """Plans and carries out the faults of one run."""

    def __init__(self, nodes: ClusterNodes, observer: Observer, seed: int, tell: Callable[[str], None]) -> None:
        self._nodes, self._observer, self._tell = nodes, observer, tell
        self._rng = random.Random(seed)
        self.kills = 0
        self.stops = 0
        self.lagged: int | None = None
        """The node that was away for as long as wanted."""
        self._over = trio.Event()
        self._cutting = False

    async def run(self, *, kill_every: float | None, stop_every: float | None, kill_all_at: float | None, lag: int | None) -> None:
        """Cause faults until `heal`; returns when every fault has been undone.

        Raises:
            StartError: a node did not come back.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._supervise)
            if lag is not None:
                nursery.start_soon(self._lag_one, lag)
            if kill_every is not None:
                nursery.start_soon(self._repeat, kill_every, self._kill_one)
            if stop_every is not None:
                nursery.start_soon(self._repeat, stop_every, self._stop_one)
            if kill_all_at is not None:
                nursery.start_soon(self._cut_power, kill_all_at)

    def heal(self) -> None:
        """No more faults; bring back what is down now."""
        self._over.set()

    async def _pause(self, seconds: float) -> bool:
        """Wait, or until the faults are over; returns whether they are not."""
        with trio.move_on_after(max(0.0, seconds)):
            await self._over.wait()
        return not self._over.is_set()

    async def _repeat(self, interval: float, fault: Callable[[NodeProcess], Awaitable[None]]) -> None:
        due = trio.current_time() + interval
        while await self._pause(due - trio.current_time()):
            if self._nodes.may_lose_one() and not self._cutting:
                await fault(self._rng.choice(self._nodes.up()))
            due = max(due + interval, trio.current_time())

    async def _kill_one(self, node: NodeProcess) -> None:
        self._tell(f"node {node.node_id} killed (kill -9)")
        self.kills += 1
        await node.kill()
        await self._pause(RESTART_SECONDS)
        await self._bring_back(node)

    async def _stop_one(self, node: NodeProcess) -> None:
        self._tell(f"node {node.node_id} stopped (SIGSTOP)")
        self.stops += 1
        node.stop()
        await self._pause(STOP_SECONDS)
        if node.state is NodeState.STOPPED:  # A power cut may have come in between.
            node.resume()
            self._tell(f"node {node.node_id} goes on (SIGCONT)")

    async def _lag_one(self, entries: int) -> None:
        """Keep one node away until every group has gone on by so many entries."""
        node = self._rng.choice(self._nodes.up())
        self._tell(f"node {node.node_id} killed (kill -9), away for {entries} entries")
        self.kills += 1
        await node.kill()
        before = self._observer.commits()
        while await self._pause(_LOOK_SECONDS):
            if all(commit - before.get(group_id, 0) >= entries for group_id, commit in self._observer.commits().items()):
                self.lagged = node.node_id
                break
        await self._bring_back(node)

    async def _cut_power(self, at: float) -> None:
        if not await self._pause(at):
            return
        self._tell("power cut: all nodes killed at once (kill -9)")
        self._cutting = True
        victims = [node for node in self._nodes.nodes.values() if node.state is not NodeState.DOWN]
        async with trio.open_nursery() as nursery:
            for node in victims:
                self.kills += 1
                nursery.start_soon(node.kill)
        await self._pause(POWER_CUT_SECONDS)
        async with trio.open_nursery() as nursery:
            for node in victims:
                nursery.start_soon(self._bring_back, node)
        self._cutting = False

    async def _bring_back(self, node: NodeProcess) -> None:
        if node.state is NodeState.DOWN:
            await self._nodes.restart(node)
            self._tell(f"node {node.node_id} is back (life {node.lives})")

    async def _supervise(self) -> None:
        """Notice nodes that end by themselves, and start them again: the run goes on, and is a failure."""
        while await self._pause(_LOOK_SECONDS):
            for node in self._nodes.up():
                try:
                    node.check_alive()
                except NodeEndedError as error:
                    self._nodes.crashes.append(str(error))
                    self._tell(str(error))
                    await self._bring_back(node)
