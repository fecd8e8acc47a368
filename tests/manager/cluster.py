"""Whole managers on a mock clock: memory network, simulated disks, one seed. Crashes are real: handles die first, tasks after."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

import trioraft
from trioraft import (
    ApplyContext,
    GroupConfig,
    Instrument,
    MemoryNetwork,
    MemoryTransport,
    MultiRaftConfig,
    MultiRaftManager,
    RaftGroup,
    StateMachine,
    StorageConfig,
    WalStorage,
    open_manager,
)
from trioraft.storage import SimulatedDisk

BASE = "/data"


class Journal(StateMachine):
    """Remembers every command, in order; the answer is its position among them."""

    declared_errors = (ValueError,)

    def __init__(self) -> None:
        self.commands: list[Any] = []
        self.indexes: list[int] = []

    def apply(self, command: Any, context: ApplyContext) -> Any:
        if command == "declared":
            raise ValueError("no", 5)
        if command == "bug":
            raise RuntimeError("a bug in the machine")
        self.commands.append(command)
        self.indexes.append(context.index)
        return len(self.commands)

    def snapshot(self) -> Iterable[Any]:
        return list(zip(self.indexes, self.commands, strict=True))

    def restore(self, records: Iterator[Any]) -> None:
        pairs = list(records)
        self.indexes, self.commands = [index for index, _ in pairs], [command for _, command in pairs]


class Events(Instrument):
    def __init__(self) -> None:
        self.seen: list[trioraft.Event] = []

    def on_event(self, event: trioraft.Event) -> None:
        self.seen.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.seen if isinstance(event, kind)]


@attrs.define
class SimNode:
    """A node's metal (disk) and, while it runs, its process."""

    node_id: int
    disk: SimulatedDisk
    manager: MultiRaftManager | None = None
    scope: trio.CancelScope | None = None
    quit: trio.Event | None = None
    done: trio.Event | None = None
    machines: dict[int, Journal] = attrs.Factory(dict)
    events: Events = attrs.Factory(Events)

    @property
    def up(self) -> MultiRaftManager:
        assert self.manager is not None, f"node {self.node_id} is down"
        return self.manager

    def group(self, group_id: int = 1) -> RaftGroup:
        return self.up.get_group(group_id)


def address_of(node_id: int) -> str:
    """Where a node is as long as nobody says otherwise. In memory, an address only says that there is such a node."""
    return f"127.0.0.1:{5000 + node_id}"


class Cluster:
    """Nodes that share a network."""

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        seed: int = 1,
        nodes: int = 3,
        groups: int = 1,
        members: Iterable[int] = (),
        config: MultiRaftConfig | None = None,
        group_config: GroupConfig | None = None,
        machine: Callable[[], Journal] = Journal,
        sync_seconds: float = 0.001,
        lazy: bool = False,
        **storage: Any,
    ) -> None:
        """
        Args:
            members: of all groups at their beginning; empty: all nodes. Other nodes are there, and join when they are told to.
            lazy: groups that are on a disk wait there until somebody needs them.
            storage: fields of `StorageConfig`.
        """
        self.rng = random.Random(seed)
        self.network = MemoryNetwork(random.Random(seed + 1))
        self.network.set_delay(0.001, 0.002)
        self.node_ids = range(1, nodes + 1)
        self.group_ids = range(1, groups + 1)
        self.members = frozenset(members) or frozenset(self.node_ids)
        self.joined: set[int] = set()
        """Nodes whose replicas have not been there from the beginning."""
        self.config = config or MultiRaftConfig()
        self.group_config = group_config or GroupConfig()
        self.machine = machine
        self.lazy = lazy
        self.storage = StorageConfig(base_dir=BASE, **storage)
        self.nodes = {i: SimNode(i, SimulatedDisk(random.Random(seed * 100 + i), sync_seconds=sync_seconds)) for i in self.node_ids}
        self.addresses = {i: {j: address_of(j) for j in self.node_ids} for i in self.node_ids}
        """What each node is told at its start of where the nodes are."""
        self._nursery = nursery

    async def start(self, *node_ids: int) -> None:
        for node_id in node_ids or self.node_ids:
            await self._nursery.start(self._serve, self.nodes[node_id])

    async def _serve(self, node: SimNode, *, task_status: trio.TaskStatus[None]) -> None:
        node.scope, node.quit, node.done = trio.CancelScope(), trio.Event(), trio.Event()
        node.machines, node.events = {}, Events()

        def make_machine(group_id: int) -> StateMachine:
            machine = node.machines[group_id] = self.machine()
            return machine

        try:
            with node.scope:
                async with open_manager(
                    node_id=node.node_id,
                    cluster_id="sim",
                    storage=WalStorage(self.storage, disk=node.disk.mount()),
                    transport=MemoryTransport(self.network),
                    addresses=self.addresses[node.node_id],
                    config=self.config,
                    machine_factory=make_machine,
                    group_config=self.group_config,
                    instruments=[node.events],
                    generator=random.Random(self.rng.random()),
                ) as manager:
                    node.manager = manager
                    if not (self.lazy and manager.group_ids):
                        await self._open_groups(node.node_id, manager)
                    task_status.started()
                    await node.quit.wait()
        finally:
            node.manager = None
            node.done.set()

    async def _open_groups(self, node_id: int, manager: MultiRaftManager) -> None:
        for group_id in {*manager.group_ids, *self.group_ids}:
            if group_id in manager.group_ids:
                await manager.add_group(group_id, join=node_id in self.joined, members=() if node_id in self.joined else self.members)
            elif node_id in self.members - self.joined:
                await manager.add_group(group_id, members=self.members)

    async def join(self, *node_ids: int, group_id: int = 1) -> None:
        """Have nodes that are no members be ready to become some."""
        self.joined |= {*node_ids}
        for node_id in node_ids:
            await self.nodes[node_id].up.add_group(group_id, join=True)

    async def crash(self, *node_ids: int, keep: Any = "random") -> None:
        """Cut the power: disk and network are dead before any task of the node notices; then the process is gone."""
        for node_id in node_ids:
            node = self.nodes[node_id]
            self.network.kill(node_id)
            node.disk.crash(keep)
        for node_id in node_ids:
            await self.stop(node_id)

    async def stop(self, node_id: int) -> None:
        """Cancel a node's process and wait until it is gone."""
        node = self.nodes[node_id]
        assert node.scope is not None
        assert node.done is not None
        node.scope.cancel()
        await node.done.wait()

    async def quit(self, node_id: int) -> None:
        """Have a node leave its block as a program does that has come to its end."""
        node = self.nodes[node_id]
        assert node.quit is not None
        assert node.done is not None
        node.quit.set()
        await node.done.wait()

    def running(self) -> list[SimNode]:
        return [node for node in self.nodes.values() if node.manager is not None]

    async def leader(self, group_id: int = 1, *, among: set[int] | None = None) -> SimNode:
        """Wait until a running node leads the group and some other running one agrees, or it is alone."""
        while True:
            for node in self.running():
                if (among is None or node.node_id in among) and group_id in node.up.groups and node.group(group_id).is_leader:
                    return node
            await trio.sleep(0.05)

    async def settle(self, group_id: int = 1) -> list[Any]:
        """Wait until all running replicas have applied the same; return it."""
        while True:
            status = [node.group(group_id).status() for node in self.running()]
            applied = {s.applied_index for s in status}
            if len(applied) == 1 and all(s.last_index == s.applied_index for s in status) and any(s.leader for s in status):
                machines = [node.machines[group_id].commands for node in self.running()]
                assert all(commands == machines[0] for commands in machines), "replicas differ at the same applied index"
                return machines[0]
            await trio.sleep(0.05)


@asynccontextmanager
async def running_cluster(**options: Any) -> AsyncIterator[Cluster]:
    """A started cluster; everything is gone at the end."""
    async with trio.open_nursery() as nursery:
        cluster = Cluster(nursery, **options)
        await cluster.start()
        yield cluster
        nursery.cancel_scope.cancel()


async def eventually(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something is so, in virtual time."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.02)


async def propose_until_done(propose: Callable[[], Awaitable[Any]], seconds: float = 30) -> Any:
    """Propose, again after each refusal that says it is safe to."""
    with trio.fail_after(seconds):
        while True:
            try:
                return await propose()
            except (trioraft.NotLeaderError, trioraft.BusyError, trioraft.ProposalDroppedError):
                await trio.sleep(0.05)
