"""One node under measurement, with the client tasks in the same process.

Run by bench.py, which sends one JSON request a line and gets one answer to each: ``{"leads": [group, ...]}`` asks which of these groups
this node leads; ``{"groups": [...], "clients": n, "seconds": s, "warm_up": w, "bytes": b}`` runs n clients on them, each a task that
proposes again and again, and answers with their latencies in microseconds.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio
from parent import die_with_parent

from trioraft import (
    ApplyContext,
    MultiRaftConfig,
    MultiRaftManager,
    RaftError,
    RpcServerConfig,
    StateMachine,
    StorageConfig,
    TcpTransport,
    TcpTransportConfig,
    WalStorage,
    open_manager,
)

_RECEIVE_BYTES = 64 * 1024
_RETRY_SECONDS = 0.01


class CountingMachine(StateMachine):
    """As little as a machine can do."""

    def __init__(self) -> None:
        self.applied = 0

    def apply(self, command: Any, context: ApplyContext) -> int:
        """Count."""
        self.applied += 1
        return self.applied


class Measurement:
    """One run of some clients."""

    def __init__(self, manager: MultiRaftManager, request: dict[str, Any]) -> None:
        self._manager, self._request = manager, request
        self._begin = trio.current_time() + request["warm_up"]
        self._end = self._begin + request["seconds"]
        self._latencies = array("l")
        self._errors = 0

    async def run(self) -> dict[str, Any]:
        """Run all clients to the end."""
        groups = self._request["groups"]
        async with trio.open_nursery() as nursery:
            for client in range(self._request["clients"]):
                nursery.start_soon(self._run_client, groups[client % len(groups)])
        return {"latencies": self._latencies.tolist(), "errors": self._errors}

    async def _run_client(self, group_id: int) -> None:
        group = self._manager.get_group(group_id)
        command = os.urandom(self._request["bytes"])
        while (started := trio.current_time()) < self._end:
            try:
                await group.propose(command)
            except RaftError:
                self._errors += 1
                await trio.sleep(_RETRY_SECONDS)
                continue
            now = trio.current_time()
            if self._begin <= now < self._end:
                self._latencies.append(round((now - started) * 1e6))


async def run(node_id: int, ports: list[int], data_dir: Path, groups: int) -> None:
    """Open the node and answer requests until stdin ends."""
    addresses = {number: f"127.0.0.1:{port}" for number, port in enumerate(ports, start=1)}
    async with open_manager(
        node_id=node_id,
        cluster_id="bench",
        storage=WalStorage(StorageConfig(base_dir=str(data_dir))),
        transport=TcpTransport(TcpTransportConfig()),
        server=RpcServerConfig(bind_addr=addresses[node_id]),
        addresses=addresses,
        config=MultiRaftConfig(),
    ) as manager:
        for group_id in range(1, groups + 1):
            await manager.add_group(group_id, CountingMachine(), members=set(addresses))
        gc.collect()
        gc.freeze()
        async for request in _requests():
            answer: Any
            if "leads" in request:
                answer = [group_id for group_id in request["leads"] if manager.get_group(group_id).is_leader]
            else:
                answer = await Measurement(manager, request).run()
            print(json.dumps(answer), flush=True)


async def _requests() -> AsyncIterator[dict[str, Any]]:
    buffer = b""
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
        while data := await stdin.receive_some(_RECEIVE_BYTES):
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                yield json.loads(line)


def main() -> None:
    """Run a node for bench.py."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--node-id", type=int, required=True)
    parser.add_argument("--port", type=int, action="append", required=True, help="of each node, in order")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--groups", type=int, required=True)
    given = parser.parse_args()
    die_with_parent()
    logging.basicConfig(level=logging.ERROR)
    trio.run(run, given.node_id, given.port, given.data_dir, given.groups)


if __name__ == "__main__":
    main()
