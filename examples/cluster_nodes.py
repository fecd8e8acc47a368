"""All nodes of the launched cluster: started together, faulted one at a time, ended together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import trio
from log_limits import LogLimits
from node_process import HOST, NodeEndedError, NodeProcess, NodeState
from ports import free_ports, is_free

EXIT_ADDRESS_IN_USE = 3
"""What raft_multi_node.py returns when somebody else listens on its port."""
START_SECONDS = 60.0
"""How long a node may take until it answers; it replays its log first."""
_START_TRIES = 5
_PORT_PAUSE_SECONDS = 0.5


class StartError(Exception):
    """The cluster could not be started. The text says why."""


class ClusterNodes:
    """The processes, by node id. Owns them: whoever opens it must `end` it."""

    def __init__(
        self, count: int, groups: int, data_dir: Path, limits: LogLimits, tell: Callable[[str], None], *, replicas: int | None = None
    ) -> None:
        self._count, self._groups, self._data_dir, self._limits, self._tell = count, groups, data_dir, limits, tell
        self._replicas = count if replicas is None else replicas
        """Nodes that each group begins on."""
        self.nodes: dict[int, NodeProcess] = {}
        self.crashes: list[str] = []
        """Nodes that ended though nobody told them to."""

    @property
    def addresses(self) -> dict[int, tuple[str, int]]:
        """Where each node serves HTTP."""
        return {node_id: (HOST, node.http_port) for node_id, node in self.nodes.items()}

    def up(self) -> list[NodeProcess]:
        """The nodes that run, as far as the launcher knows."""
        return [node for node in self.nodes.values() if node.state is NodeState.UP]

    def may_lose_one(self) -> bool:
        """Whether each group has a majority left if one more node goes down, wherever its replicas are."""
        return self._count - len(self.up()) < (self._replicas - 1) // 2

    async def start(self) -> None:
        """Start all nodes and wait until they answer.

        Ports are found by looking, and somebody else may be quicker: then the start is repeated with other ports.

        Raises:
            StartError: a node ended, or did not answer in time.
        """
        for attempt in range(1, _START_TRIES + 1):
            self._make_nodes(fresh=attempt > 1)
            try:
                await self._start_all()
                return
            except NodeEndedError as error:
                await self.end()
                if error.status != EXIT_ADDRESS_IN_USE or attempt == _START_TRIES:
                    raise StartError(str(error)) from error
                self._tell("a port was taken by somebody else: trying others")

    async def restart(self, node: NodeProcess) -> None:
        """Start a node again on its own ports, and wait until it answers.

        Raises:
            StartError: it ended, or did not answer in time.
        """
        for attempt in range(1, _START_TRIES + 1):
            node.start()
            try:
                with trio.fail_after(START_SECONDS):
                    await node.wait_ready()
                return
            except NodeEndedError as error:
                if error.status != EXIT_ADDRESS_IN_USE or attempt == _START_TRIES:
                    raise StartError(str(error)) from error
                await trio.sleep(_PORT_PAUSE_SECONDS)
            except trio.TooSlowError:
                raise StartError(f"node {node.node_id} did not answer within {START_SECONDS:g} s; see {node.log_path}") from None

    async def end(self) -> None:
        """End all processes, in order if they can, all at the same time."""
        async with trio.open_nursery() as nursery:
            for node in self.nodes.values():
                nursery.start_soon(node.end)

    async def _start_all(self) -> None:
        for node in self.nodes.values():
            node.start()
        try:
            with trio.fail_after(START_SECONDS):
                for node in self.nodes.values():
                    await node.wait_ready()
        except trio.TooSlowError:
            raise StartError(f"the nodes did not answer within {START_SECONDS:g} s; see the logs in {self._data_dir}") from None

    def _make_nodes(self, *, fresh: bool) -> None:
        ports = self._choose_ports(fresh=fresh)
        peers = {node_id: f"{node_id}={HOST}:{ports[node_id - 1]}" for node_id in range(1, self._count + 1)}
        self.nodes = {
            node_id: NodeProcess(
                node_id,
                raft_port=ports[node_id - 1],
                http_port=ports[self._count + node_id - 1],
                data_dir=self._data_dir,
                arguments=(
                    "--groups",
                    str(self._groups),
                    "--replicas",
                    str(self._replicas),
                    *self._limits.arguments(),
                    *(word for other, peer in peers.items() if other != node_id for word in ("--peer", peer)),
                ),
            )
            for node_id in peers
        }

    def _choose_ports(self, *, fresh: bool) -> list[int]:
        """The ports of the last run on this directory if they are free; the nodes remember each other's addresses."""
        path = self._data_dir / "ports.json"
        if path.exists():
            replicas, ports = _read_ports(path)
            if len(ports) != 2 * self._count:
                raise StartError(
                    f"{self._data_dir} holds a cluster of {len(ports) // 2} nodes: use --nodes {len(ports) // 2}, or another --data-dir"
                )
            if replicas != self._replicas:
                raise StartError(
                    f"{self._data_dir} holds groups that began on {replicas} nodes each, not on {self._replicas}: it was made "
                    f"with{'' if replicas < self._count else 'out'} --churn"
                )
            if not fresh and all(is_free(port, HOST) for port in ports):
                return ports
        ports = free_ports(2 * self._count, HOST)
        path.write_text(json.dumps({"replicas": self._replicas, "ports": ports}))
        return ports


def _read_ports(path: Path) -> tuple[int, list[int]]:
    try:
        match json.loads(path.read_text()):
            case {"replicas": int(replicas), "ports": [*ports]} if all(isinstance(port, int) and 0 < port < 65536 for port in ports):
                return replicas, ports
    except ValueError as error:
        raise StartError(f"{path} is damaged ({error}): remove the directory, or use another --data-dir") from error
    raise StartError(f"{path} has no ports: remove the directory, or use another --data-dir")
