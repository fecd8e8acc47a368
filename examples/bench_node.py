"""One node under measurement, with the client tasks in the same process.

Run by the scenarios of bench.py, which send one JSON request a line and get one answer to each: ``{"do": "leads", "groups": [...]}`` and
so on, one method of `BenchNode` for each.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio
from bench_load import Measurement, SteadyLoad
from bench_machines import CountingMachine, GeneratedMachine, RingMachine
from bench_probe import Probe
from log_limits import LogLimits, add_limits, read_limits
from parent import die_with_parent

from trioraft import (
    Event,
    Instrument,
    MultiRaftConfig,
    MultiRaftManager,
    RpcServerConfig,
    StateMachine,
    TcpTransport,
    TcpTransportConfig,
    WalStorage,
    open_manager,
)
from trioraft.observe import SnapshotFailed, SnapshotSaved

MACHINES: dict[str, Callable[[int], StateMachine]] = {
    "counting": lambda _: CountingMachine(),
    "ring": RingMachine,
    "generated": GeneratedMachine,
}
_RECEIVE_BYTES = 64 * 1024
_ADDED_AT_ONCE = 256


class SnapshotEvents(Instrument):
    """When snapshots were there, and what went wrong with one."""

    def __init__(self) -> None:
        self.noted: list[dict[str, Any]] = []

    def on_event(self, event: Event) -> None:
        if isinstance(event, SnapshotSaved):
            self.noted.append({"at": time.monotonic(), "received": event.received, "size": event.size})
        elif isinstance(event, SnapshotFailed):
            self.noted.append({"at": time.monotonic(), "failed": str(event)})


class BenchNode:
    """Answers requests: each public method is one."""

    def __init__(self, manager: MultiRaftManager, nursery: trio.Nursery, events: SnapshotEvents) -> None:
        self._manager, self._nursery, self._events = manager, nursery, events
        self._load: SteadyLoad | None = None
        self._probe: Probe | None = None

    async def answer(self, request: dict[str, Any]) -> Any:
        """Do what a request says."""
        name = request.pop("do")
        if name.startswith("_") or name == "answer":
            raise ValueError(f"no such request: {name!r}")
        return await getattr(self, name)(**request)

    async def leads(self, groups: list[int]) -> list[int]:
        """Which of these groups this node leads."""
        return [group_id for group_id in groups if self._manager.get_group(group_id).is_leader]

    async def measure(self, **request: Any) -> dict[str, Any]:
        """Run clients for a time; answers with their latencies in microseconds."""
        return await Measurement(self._manager, request).run()

    async def start_load(self, **request: Any) -> None:
        """Start clients, and answer at once."""
        self._load = SteadyLoad(self._manager, request)
        self._nursery.start_soon(self._load.run)

    async def load(self, *, stop: bool = False) -> dict[str, Any]:
        """How far the clients are; when they have stopped, if told to."""
        if self._load is None:
            raise ValueError("no load was started")
        if stop:
            await self._load.stop()
        return self._load.progress()

    async def watch(self, group: int | None) -> None:
        """Start to watch the node from inside."""
        self._probe = Probe(self._manager, group)
        self._nursery.start_soon(self._probe.run)

    async def watched(self) -> dict[str, Any]:
        """What was noticed since the last time."""
        if self._probe is None:
            raise ValueError("nobody watches")
        return self._probe.take()

    async def status(self, group: int) -> dict[str, Any]:
        """One group on this node, as it is now; opens it if need be."""
        replica = self._manager.get_group(group)
        status, counters = replica.status(), self._manager.counters
        machine = replica.machine
        return {
            "leader": status.leader,
            "first": status.first_index,
            "commit": status.commit_index,
            "applied": status.applied_index,
            "snapshot": status.snapshot.index,
            "snapshots_taken": counters.snapshots_taken,
            "snapshots_received": counters.snapshots_received,
            "snapshot_bytes_in": counters.snapshot_bytes_in,
            "failure": None if replica.failure is None else str(replica.failure),
            "checksum": machine.ring.checksum if isinstance(machine, RingMachine) else None,
            "events": self._events.noted,
        }

    async def propose(self, group: int, count: int = 1) -> dict[str, float]:
        """Propose so many small commands, all at once; answers when the last one is applied."""
        replica = self._manager.get_group(group)
        await replica.wait_leader()
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(replica.propose, b"x")
        return {"at": time.monotonic()}

    async def snapshot(self, group: int) -> dict[str, float]:
        """Take a snapshot now; answers with the seconds that it took."""
        started = time.monotonic()
        await self._manager.get_group(group).snapshot()
        return {"seconds": time.monotonic() - started}

    async def wait_caught_up(self, group: int, index: int) -> dict[str, float]:
        """Answer when this replica has applied everything up to there."""
        await self._manager.get_group(group).wait_applied(index)
        return {"at": time.monotonic()}

    async def wait_leaders(self, groups: list[int]) -> None:
        """Answer when each of these groups has a leader."""
        for group_id in groups:
            await self._manager.get_group(group_id).wait_leader()


async def run(given: argparse.Namespace, limits: LogLimits) -> None:
    """Open the node and answer requests until stdin ends."""
    addresses = {number: f"127.0.0.1:{port}" for number, port in enumerate(given.port, start=1)}
    make_machine = partial(MACHINES[given.machine], given.machine_size)
    events = SnapshotEvents()
    async with open_manager(
        node_id=given.node_id,
        cluster_id="bench",
        storage=WalStorage(limits.storage_config(given.data_dir)),
        transport=TcpTransport(TcpTransportConfig()),
        server=RpcServerConfig(bind_addr=addresses[given.node_id]),
        addresses=addresses,
        config=MultiRaftConfig(),
        machine_factory=lambda _: make_machine(),
        group_config=attrs.evolve(limits.group_config(), lease_reads=True),
        instruments=[events],
    ) as manager:
        known = set(manager.group_ids)
        await _add_groups(manager, [group_id for group_id in range(1, given.groups + 1) if group_id not in known], set(addresses))
        gc.collect()
        gc.freeze()
        async with trio.open_nursery() as nursery:
            node = BenchNode(manager, nursery, events)
            async for request in _requests():
                print(json.dumps(await node.answer(request)), flush=True)
            nursery.cancel_scope.cancel()


async def _add_groups(manager: MultiRaftManager, group_ids: list[int], members: set[int]) -> None:
    """Add groups, many at a time: each waits for a sync, which they then share."""
    for start in range(0, len(group_ids), _ADDED_AT_ONCE):
        async with trio.open_nursery() as nursery:
            for group_id in group_ids[start : start + _ADDED_AT_ONCE]:
                nursery.start_soon(partial(manager.add_group, group_id, members=members))


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
    parser.add_argument("--groups", type=int, required=True, help="to be there, numbered from 1; those on the disk wait until touched")
    parser.add_argument("--machine", choices=sorted(MACHINES), default="counting")
    parser.add_argument("--machine-size", type=int, default=1, help="slots or records")
    add_limits(parser)
    given = parser.parse_args()
    die_with_parent()
    logging.basicConfig(level=logging.ERROR)
    trio.run(run, given, read_limits(parser, given))


if __name__ == "__main__":
    main()
