"""The clients of the benchmarks, each a task in the process of a node: for a time (`Measurement`), or until told to stop (`SteadyLoad`)."""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
from latency import Histogram

from trioraft import MultiRaftManager, RaftError, RaftGroup, ReadLevel

_RETRY_SECONDS = 0.01


class Measurement:
    """One run of some clients, and the latency of each of their proposals, or of their reads."""

    def __init__(self, manager: MultiRaftManager, request: dict[str, Any]) -> None:
        self._manager, self._request = manager, request
        self._begin = time.perf_counter() + request["warm_up"]
        self._end = self._begin + request["seconds"]
        self._latencies = array("l")
        self._errors = 0

    async def run(self) -> dict[str, Any]:
        """Run all clients to the end; readers beside writers are not measured."""
        groups, level = self._request["groups"], self._request.get("level")
        async with trio.open_nursery() as nursery:
            for client in range(self._request["clients"]):
                group = self._manager.get_group(groups[client % len(groups)])
                nursery.start_soon(self._run_client, self._writer(group) if level is None else self._reader(group, level), True)
            for client in range(self._request.get("readers", 0)):
                group = self._manager.get_group(groups[client % len(groups)])
                nursery.start_soon(self._run_client, self._reader(group, "linearizable"), False)
        return {"latencies": self._latencies.tolist(), "errors": self._errors}

    def _writer(self, group: RaftGroup) -> Callable[[], Awaitable[Any]]:
        return partial(group.propose, os.urandom(self._request["bytes"]))

    def _reader(self, group: RaftGroup, level: ReadLevel) -> Callable[[], Awaitable[Any]]:
        return partial(group.read, None, level=level)

    async def _run_client(self, ask: Callable[[], Awaitable[Any]], is_measured: bool) -> None:
        while (started := time.perf_counter()) < self._end:
            try:
                await ask()
            except RaftError:
                self._errors += 1
                await trio.sleep(_RETRY_SECONDS)
                continue
            now = time.perf_counter()
            if is_measured and self._begin <= now < self._end:
                self._latencies.append(round((now - started) * 1e6))


class SteadyLoad:
    """Clients that propose until so many proposals are acknowledged, or until `stop`."""

    def __init__(self, manager: MultiRaftManager, request: dict[str, Any]) -> None:
        """
        Args:
            request: ``groups``, ``clients`` in all, ``bytes`` of a command, ``count`` of proposals (None: no end), and ``pause`` seconds
                of each client after each proposal.
        """
        self._manager, self._request = manager, request
        self._left = float("inf") if request["count"] is None else request["count"]
        self._latencies = Histogram()
        self._errors = 0
        self._is_over = trio.Event()

    async def run(self) -> None:
        """Run all clients to the end."""
        groups = self._request["groups"]
        async with trio.open_nursery() as nursery:
            for client in range(self._request["clients"]):
                nursery.start_soon(self._run_client, groups[client % len(groups)])
        self._is_over.set()

    async def stop(self) -> None:
        """Propose no more, and wait for what is under way."""
        self._left = 0
        await self._is_over.wait()

    def progress(self) -> dict[str, Any]:
        """What has been done by now."""
        return {
            "acknowledged": self._latencies.count,
            "errors": self._errors,
            "is_over": self._is_over.is_set(),
            "p50_ms": (self._latencies.quantile(0.5) or 0) * 1000,
            "p99_ms": (self._latencies.quantile(0.99) or 0) * 1000,
        }

    async def _run_client(self, group_id: int) -> None:
        group = self._manager.get_group(group_id)
        command = os.urandom(self._request["bytes"])
        while self._left > 0:
            self._left -= 1
            started = trio.current_time()
            try:
                await group.propose(command)
            except RaftError:
                # NB: of unknown outcome, maybe; then there is one proposal more than counted, which is nothing to a benchmark.
                self._errors += 1
                self._left += 1
                await trio.sleep(_RETRY_SECONDS)
                continue
            self._latencies.record(trio.current_time() - started)
            if self._request["pause"]:
                await trio.sleep(self._request["pause"])
