"""A steady load: clients that write, one request at a time each, and note what they are told.

The clients know no more than a stranger would: the addresses of the nodes, and what the answers say (`routes`). A retry is a new write
with a new key: so a write whose outcome is unknown is never sent twice.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import attrs
import trio
from http_client import Answer, HttpConnection, NoAnswerError, NotSentError
from latency import Histogram, RollingHistogram
from ledger import Ledger, Write
from routes import Route, Routes

REQUEST_SECONDS = 3.0
"""A request without an answer for so long has an unknown outcome."""
_PAUSE_SECONDS = 0.05
"""After a refusal, so that a group without a leader is not hammered."""


@attrs.frozen(order=True)
class Request:
    """A write that was sent: where, and what came of it."""

    seconds: float
    began: float
    """Seconds since the start."""
    group_id: int
    node_id: int
    status: int
    """0: no answer."""


class Load:
    """All clients of a run, and what is measured of them."""

    def __init__(self, ledger: Ledger, addresses: Mapping[int, tuple[str, int]], groups: int, seed: int) -> None:
        self._ledger = ledger
        self._addresses = dict(addresses)
        self._groups = groups
        self._seed = seed
        self._routes = Routes(addresses)
        self._stopping = False
        self.latencies = Histogram()
        self.recent = {node_id: RollingHistogram() for node_id in addresses}
        self.longest_gap = 0.0
        """The longest time, in seconds, that any one client went without an acknowledged write."""
        self.slowest = Request(0, 0, 0, 0, 0)
        """Where to look when a gap is long."""
        self._began = trio.current_time()
        self.unexpected: list[str] = []
        """Answers that no request of ours should get."""

    async def run(self, clients: int) -> None:
        """Run the clients until `stop`, and the request that each then has under way."""
        async with trio.open_nursery() as watcher:
            watcher.start_soon(self._routes.watch)
            async with trio.open_nursery() as nursery:
                for client in range(clients):
                    nursery.start_soon(self._run_client, client)
            watcher.cancel_scope.cancel()

    def stop(self) -> None:
        """Start no more requests."""
        self._stopping = True

    async def _run_client(self, client: int) -> None:
        rng = random.Random(f"{self._seed}/{client}")
        connections = {node_id: HttpConnection(host, port) for node_id, (host, port) in self._addresses.items()}
        last = trio.current_time()
        try:
            while not self._stopping:
                group_id = rng.randint(1, self._groups)
                route = self._routes.choose(group_id, rng)
                is_acknowledged = route is not None and await self._write(client, group_id, route, connections[route.node_id])
                now = trio.current_time()
                self.longest_gap = max(self.longest_gap, now - last)
                if is_acknowledged:
                    last = now
                elif not self._stopping:
                    await trio.sleep(_PAUSE_SECONDS)
        finally:
            for connection in connections.values():
                connection.close()

    async def _write(self, client: int, group_id: int, route: Route, connection: HttpConnection) -> bool:
        """Send one write and note what came of it; returns whether it was acknowledged."""
        write = self._ledger.open(group_id, client)
        started = trio.current_time()
        answer: Answer | None = None
        with trio.move_on_after(REQUEST_SECONDS) as scope:
            route.waiting[scope] = started
            try:
                answer = await connection.request("PUT", f"/groups/{group_id}/keys/{write.key}", write.value.encode())
            except NotSentError:
                self._ledger.refuse(write)
            except NoAnswerError:
                pass  # Unknown, as the write already is.
            finally:
                del route.waiting[scope]
        took, status = trio.current_time() - started, 0 if answer is None else answer.status
        self.slowest = max(self.slowest, Request(round(took, 3), round(started - self._began, 3), group_id, route.node_id, status))
        if answer is None:
            self._routes.failed(route)
            return False
        if answer.status == 404:
            self._routes.absent(route, group_id)
        else:
            self._routes.answered(route, group_id, answer.headers.get(b"raft-leader", b""))
        if answer.status == 200:
            self._acknowledged(write, answer, route, started)
            return True
        self._not_done(write, answer, route)
        return False

    def _acknowledged(self, write: Write, answer: Answer, route: Route, started: float) -> None:
        now = trio.current_time()
        self._ledger.acknowledge(write, answer.json()["index"])
        self.latencies.record(now - started)
        self.recent[route.node_id].record(now, now - started)

    def _not_done(self, write: Write, answer: Answer, route: Route) -> None:
        """503, and 404 (no such group there): nothing was done. 504: unknown, as the write already is. Anything else should not be."""
        if answer.status in (404, 503):
            self._ledger.refuse(write)
        elif answer.status != 504:
            self.unexpected.append(f"node {route.node_id} answered {answer.status} to {write.key}: {answer.body[:200]!r}")
