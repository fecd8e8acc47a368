"""Where clients send their requests: what they have learned of leaders, and of nodes that do not answer.

A node that stands still accepts connections and answers nothing, so each client that turns to it would wait for its whole time limit. But
the clients have a common memory: a node that answered none of them for a while, though some are waiting, is taken for hung. Whoever waits
for it gives up at once (the outcome is unknown, as after any time limit), and from then on it gets one request at a time until it answers.

Groups move: a node that has none of a group says so, and is not asked for that group for a while.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import attrs
import trio

SILENCE_SECONDS = 1.0
"""Without any answer, though asked, for so long, a node counts as hung."""
_ANY_NODE_SHARE = 0.05
"""Requests that go to a random node although the leader is known."""
_PROBE_SECONDS = 0.5
"""Between two requests to a node that failed."""
_ABSENT_SECONDS = 2.0
"""How long a node that has no replica of a group is not asked for it."""
_LOOK_SECONDS = 0.1


@attrs.define(eq=False)
class Route:
    """One node, as its clients know it."""

    node_id: int
    waiting: dict[trio.CancelScope, float] = attrs.Factory(dict)
    """Requests under way, and since when."""
    heard: float = float("-inf")
    """When the node last answered anything."""
    failed_at: float | None = None
    """When it last failed to answer; None since it answered."""
    absent: dict[int, float] = attrs.Factory(dict)
    """Groups that it said it has not, and when."""

    def may_take_one(self, group_id: int, now: float) -> bool:
        """Whether to send it a request: freely while it answers, one at a time when it did not."""
        if now < self.absent.get(group_id, float("-inf")) + _ABSENT_SECONDS:
            return False
        return self.failed_at is None or (not self.waiting and now >= self.failed_at + _PROBE_SECONDS)

    def is_silent(self, now: float) -> bool:
        """Whether it lets somebody wait and has answered nobody."""
        return any(now - max(since, self.heard) > SILENCE_SECONDS for since in self.waiting.values())


class Routes:
    """All nodes, and who leads which group, as far as answers told."""

    def __init__(self, node_ids: Iterable[int]) -> None:
        self._routes = {node_id: Route(node_id) for node_id in node_ids}
        self._leaders: dict[int, int] = {}

    def choose(self, group_id: int, rng: random.Random) -> Route | None:
        """A node for a request to that group: mostly its leader, sometimes any; None when none should be asked now."""
        now = trio.current_time()
        candidates = [route for route in self._routes.values() if route.may_take_one(group_id, now)]
        if not candidates:
            return None
        leader = self._leaders.get(group_id)
        if leader is not None and self._routes[leader] in candidates and rng.random() >= _ANY_NODE_SHARE:
            return self._routes[leader]
        return rng.choice(candidates)

    def answered(self, route: Route, group_id: int, leader: bytes) -> None:
        """The node answered, and named the leader of the group, or none: then it is not the leader itself, and nothing else is known."""
        route.heard, route.failed_at = trio.current_time(), None
        if leader.isdigit() and int(leader) in self._routes:
            self._leaders[group_id] = int(leader)
        elif self._leaders.get(group_id) == route.node_id:
            del self._leaders[group_id]

    def absent(self, route: Route, group_id: int) -> None:
        """The node answered that it has no replica of the group."""
        self.answered(route, group_id, b"")
        route.absent[group_id] = trio.current_time()

    def failed(self, route: Route) -> None:
        """The node did not answer: forget that it leads anything."""
        route.failed_at = trio.current_time()
        self._leaders = {group_id: leader for group_id, leader in self._leaders.items() if leader != route.node_id}

    async def watch(self) -> None:
        """Free the clients of silent nodes, until cancelled."""
        while True:
            now = trio.current_time()
            for route in self._routes.values():
                if route.is_silent(now):
                    for scope in route.waiting:
                        scope.cancel()
            await trio.sleep(_LOOK_SECONDS)
