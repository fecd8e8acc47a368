"""One node of a Multi-Raft cluster, with a replicated key-value store in each of its groups.

In three terminals:

    python examples/raft_multi_node.py --node-id 1 --port 5001 --peer 127.0.0.1:5002 --peer 127.0.0.1:5003 --http 8001
    python examples/raft_multi_node.py --node-id 2 --port 5002 --peer 127.0.0.1:5001 --peer 127.0.0.1:5003 --http 8002
    python examples/raft_multi_node.py --node-id 3 --port 5003 --peer 127.0.0.1:5001 --peer 127.0.0.1:5002 --http 8003

and in a fourth:

    curl -X PUT --data-binary hello http://127.0.0.1:8001/groups/7/keys/greeting
    curl http://127.0.0.1:8003/groups/7/keys/greeting
    curl http://127.0.0.1:8002/status
    curl -X PUT --data '{"target": 3}' http://127.0.0.1:8001/groups/7/leader

Ctrl-C or SIGTERM ends the node in order; a second one ends it at once, which is safe too: what was acknowledged is on disk.

Exit status: 0 ended when told to, 1 failed, 2 the command line contradicts itself, 3 an address cannot be listened at.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import attrs
import trio
from addresses import Address, AddressError, make_address, number_nodes
from http_api import KeyValueApi
from http_server import HttpServer
from kv import KeyValueMachine
from log_limits import LogLimits, add_limits, read_limits
from parent import die_with_parent, wait_stdin_closed

from trioraft import (
    GroupExistsError,
    MultiRaftConfig,
    MultiRaftManager,
    RaftError,
    RpcServerConfig,
    TcpTransport,
    TcpTransportConfig,
    TransportError,
    WalStorage,
    open_manager,
)

EXIT_FAILED, EXIT_USAGE, EXIT_ADDRESS_IN_USE = 1, 2, 3
GROUPS_MAX = 10_000

_log = logging.getLogger("node")


@attrs.frozen(kw_only=True)
class NodeOptions:
    """What the command line said."""

    node_id: int
    own: Address
    nodes: dict[int, Address]
    """All nodes, this one included."""
    data_dir: Path
    cluster_id: str = "demo"
    groups: int = 8
    replicas: int | None = None
    """Nodes that each group begins on; None: all."""
    limits: LogLimits = attrs.Factory(LogLimits)
    http: Address | None = None
    insecure: bool = False
    """Plain TCP may leave this machine."""
    watch_stdin: bool = False
    """End when stdin does: whoever started this node is gone."""

    def first_members(self, group_id: int) -> list[int]:
        """Who begins a group: some of the nodes in turn, so that all have about equally many."""
        nodes = sorted(self.nodes)
        return [nodes[(group_id + number) % len(nodes)] for number in range(self.replicas or len(nodes))]


def parse_options(arguments: Sequence[str] | None = None) -> NodeOptions:
    """Read the command line; a contradiction ends the program with status 2 and a sentence on stderr."""
    parser = argparse.ArgumentParser(description="One node of a Multi-Raft cluster with a replicated key-value store.")
    parser.add_argument("--node-id", type=int, required=True, help="this node's number, from 1")
    parser.add_argument("--port", type=int, required=True, help="where this node listens for its peers")
    parser.add_argument("--host", default="127.0.0.1", help="the address at which the peers reach this node (default %(default)s)")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="[ID=]HOST:PORT", help="another node, once for each; without ids: in address order"
    )
    parser.add_argument("--data-dir", type=Path, help="where the node keeps its log (default raft-data/node-ID)")
    parser.add_argument("--cluster-id", default="demo", help="nodes of different clusters refuse each other (default %(default)s)")
    parser.add_argument("--groups", type=int, default=8, help="how many groups, numbered from 1 (default %(default)s)")
    parser.add_argument("--replicas", type=int, metavar="N", help="how many nodes each group begins on (default: all)")
    add_limits(parser)
    parser.add_argument("--http", type=int, metavar="PORT", help="serve the key-value store over HTTP")
    parser.add_argument("--http-host", default="127.0.0.1", help="where HTTP listens; it knows no passwords (default %(default)s)")
    parser.add_argument("--insecure", action="store_true", help="allow --host to be no loopback address: plain TCP, no passwords")
    parser.add_argument("--watch-stdin", action="store_true", help="end when stdin is closed (for launchers)")
    given = parser.parse_args(arguments)
    for name, port in (("--port", given.port), ("--http", given.http)):
        if port is not None and not 1 <= port <= 65535:
            parser.error(f"{name} must be from 1 to 65535, not {port}")
    if not 1 <= given.groups <= GROUPS_MAX:
        parser.error(f"--groups must be from 1 to {GROUPS_MAX}, not {given.groups}")
    try:
        own = make_address(given.host, given.port)
        nodes = number_nodes(given.node_id, own, given.peer)
    except AddressError as error:
        parser.error(str(error))
    if given.replicas is not None and not 1 <= given.replicas <= len(nodes):
        parser.error(f"--replicas must be from 1 to {len(nodes)}, the number of nodes, not {given.replicas}")
    return NodeOptions(
        node_id=given.node_id,
        own=own,
        nodes=nodes,
        data_dir=given.data_dir if given.data_dir is not None else Path("raft-data") / f"node-{given.node_id}",
        cluster_id=given.cluster_id,
        groups=given.groups,
        replicas=given.replicas,
        limits=read_limits(parser, given),
        http=None if given.http is None else Address(given.http_host, given.http),
        insecure=given.insecure,
        watch_stdin=given.watch_stdin,
    )


class Stop:
    """The order to end: at once while the node still starts, in order once it serves."""

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.starting = trio.CancelScope()
        self._is_serving = False

    def ask(self) -> None:
        """End the node."""
        self.asked.set()
        if not self._is_serving:
            self.starting.cancel()

    def serving(self) -> None:
        """The start is over: from now on the order cancels nothing."""
        self._is_serving = True


async def run(options: NodeOptions) -> None:
    """Run a node until a signal, or the end of a watched stdin, ends it."""
    stop = Stop()
    async with trio.open_nursery() as watchers:
        await watchers.start(_watch_signals, stop)
        if options.watch_stdin:
            watchers.start_soon(_watch_stdin, stop)
        with stop.starting:
            await run_node(options, stop)
        watchers.cancel_scope.cancel()


async def run_node(options: NodeOptions, stop: Stop) -> None:
    """Open the node and its groups, serve HTTP if wanted, and end in order once told to stop."""
    async with open_manager(
        node_id=options.node_id,
        cluster_id=options.cluster_id,
        storage=WalStorage(options.limits.storage_config(options.data_dir)),
        transport=TcpTransport(TcpTransportConfig(insecure=options.insecure)),
        server=RpcServerConfig(bind_addr=str(options.own), insecure=options.insecure),
        addresses={node_id: str(address) for node_id, address in options.nodes.items()},
        config=MultiRaftConfig(),
        machine_factory=lambda _group_id: KeyValueMachine(),
        group_config=options.limits.group_config(),
    ) as manager:
        await open_groups(manager, options)
        stop.serving()
        await _serve(options, manager, stop)
        _log.info("node %d is ending", options.node_id)


async def open_groups(manager: MultiRaftManager, options: NodeOptions) -> None:
    """Open what is on the disk, whoever brought it there, and begin what this node is to begin.

    NB: what was removed here stays away, though the command line still names it: it has left a tombstone.
    """
    on_disk = manager.group_ids
    for group_id in on_disk:
        manager.get_group(group_id)
    for group_id in range(1, options.groups + 1):
        members = options.first_members(group_id)
        if options.node_id in members and group_id not in on_disk:
            with suppress(GroupExistsError):
                await manager.add_group(group_id, members=members)


async def _serve(options: NodeOptions, manager: MultiRaftManager, stop: Stop) -> None:
    server: HttpServer | None = None
    where = "no http"
    async with trio.open_nursery() as nursery:
        if options.http is not None:
            server = HttpServer(KeyValueApi(manager).handle)
            await nursery.start(server.serve, await trio.open_tcp_listeners(options.http.port, host=options.http.host))
            where = f"http://{options.http}"
        groups, nodes = len(manager.groups), sorted(options.nodes)
        _log.info("node %d of %s serves %d groups: raft %s, %s", options.node_id, nodes, groups, options.own, where)
        await stop.asked.wait()
        if server is not None:
            server.stop()


async def _watch_signals(stop: Stop, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for signal_number in signals:
            if stop.asked.is_set():
                _log.warning("second signal: ending at once")
                os._exit(128 + signal_number)
            stop.ask()


async def _watch_stdin(stop: Stop) -> None:
    await wait_stdin_closed()
    _log.warning("stdin is closed: whoever started this node is gone")
    stop.ask()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a node; returns the exit status."""
    options = parse_options(arguments)
    if options.watch_stdin:
        die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr)
    status = 0
    try:
        trio.run(run, options)
    except* (RaftError, OSError) as errors:
        for error in _leaves(errors):
            print(f"error: {error}", file=sys.stderr)
            status = max(status, EXIT_ADDRESS_IN_USE if _is_address_in_use(error) else EXIT_FAILED)
    return status


def _is_address_in_use(error: BaseException) -> bool:
    if isinstance(error, TransportError):
        return error.kind == "bind"
    return isinstance(error, OSError) and error.errno == errno.EADDRINUSE


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


if __name__ == "__main__":
    sys.exit(main())
