"""Groups that come and go: begun on three nodes, written to, read at other nodes, removed everywhere, and begun anew.

Each life of such a group is an incarnation of its own, so nothing of an earlier life may show. Incarnations go by the clock: a run that
continues in a kept directory begins with one that no run before it has used.
"""

from __future__ import annotations

import random
import time
from collections import Counter

import trio
from cluster_nodes import ClusterNodes
from operator_client import NoOutcomeError, OperatorClient, RefusedError

SCRATCH_GROUPS = 2
REPLICAS = 3
KINDS = ("begin_group", "write_and_read", "remove_group")
STUCK_SECONDS = 60.0
"""No step of a life may take so long, whatever is killed meanwhile."""
_RETRY_SECONDS = 0.25
_PAUSE_SECONDS = 1.0
"""Between two lives: not two of them in one second, or their incarnations were equal."""


class ScratchGroups:
    """The lives of one group after the other."""

    def __init__(self, nodes: ClusterNodes, client: OperatorClient, group_id: int, rng: random.Random, done: Counter[str]) -> None:
        self._nodes, self._client, self._group_id, self._rng, self._done = nodes, client, group_id, rng, done
        self._path = f"/groups/{group_id}"
        self.problems: list[str] = []

    async def live(self) -> None:
        """One life, from the first replica to the last."""
        await self._remove(sorted(self._nodes.nodes))  # an earlier run may have ended in the middle
        incarnation = int(time.time())
        members = self._rng.sample(sorted(self._nodes.nodes), REPLICAS)
        for node_id in members:
            await self._insist(node_id, "PUT", self._path, {"members": sorted(members), "incarnation": incarnation})
        self._done["begin_group"] += 1
        await self._check(members, f"incarnation {incarnation}")
        await self._remove(members)
        self._done["remove_group"] += 1
        await trio.sleep(_PAUSE_SECONDS)

    async def _check(self, members: list[int], value: str) -> None:
        writer, reader, follower = self._rng.sample(members, len(members))
        await self._insist(writer, "PUT", f"{self._path}/keys/k", value.encode())
        for node_id, level in ((reader, "linearizable"), (follower, "follower")):
            found = await self._insist(node_id, "GET", f"{self._path}/keys/k?level={level}")
            if found != value.encode():
                self.problems.append(f"group {self._group_id}: node {node_id} read {found!r} ({level}), not {value!r}")
        self._done["write_and_read"] += 1

    async def _remove(self, nodes: list[int]) -> None:
        for node_id in nodes:
            await self._insist(node_id, "DELETE", f"{self._path}?force=1")

    async def _insist(self, node_id: int, method: str, path: str, value: object = None) -> bytes:
        """Ask until it is done: a node that was killed comes back. What is gone is removed."""
        reason: Exception | None = None
        with trio.move_on_after(STUCK_SECONDS):
            while True:
                try:
                    return (await self._client.ask(node_id, method, path, value)).body
                except RefusedError as error:
                    if method == "DELETE" and error.kind == "no-such-group":
                        return b""
                    reason = error
                except NoOutcomeError as error:
                    reason = error
                await trio.sleep(_RETRY_SECONDS)
        raise StuckError(f"group {self._group_id}: node {node_id} did not do {method} {path} in {STUCK_SECONDS:g} s: {reason}")


class StuckError(Exception):
    """A step of a life took too long."""
