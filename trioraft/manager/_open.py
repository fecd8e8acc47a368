"""Two doors to one node: `open_manager` owns the nurseries, `serve_manager` is for a nursery of the user's.

The task tree: providers (log, senders, listener, clock) outlive the groups, which use them. A stop ends the groups first.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NotRequired, TypedDict, Unpack

import trio

from .._errors import ConfigError
from .._types import GroupId, NodeId
from ..core import PeerDown, PeerUp
from ..group import ApplyThreads, RaftGroup
from ..observe import Announcer, Counters, Instrument
from ..storage import MultiRaftStorage, NodeRecord
from ..transport import MultiplexedTransport, RpcServer, RpcServerConfig
from ._clock import DeadlineQueue, NodeClock
from ._config import MultiRaftConfig
from ._disk_watch import DiskWatch
from ._forwards import Forwards
from ._manager import MultiRaftManager
from ._node import Node
from ._peers import Peers
from ._router import Router
from ._stores import KnownStores
from ._ticker import Wakeup, run_ticker


@asynccontextmanager
async def open_manager(
    *,
    node_id: NodeId,
    cluster_id: str,
    storage: MultiRaftStorage,
    transport: MultiplexedTransport,
    server: RpcServerConfig | None = None,
    addresses: Mapping[NodeId, str] | None = None,
    config: MultiRaftConfig | None = None,
    instruments: Sequence[Instrument] = (),
    generator: random.Random | None = None,
) -> AsyncIterator[MultiRaftManager]:
    """Run a node while the block runs.

    Args:
        node_id: this node, 1 to 2**32 - 1; the same for the life of the storage's directory.
        cluster_id: equal on all nodes of a cluster; nodes of another cluster are refused.
        server: where to listen; None for a transport that brings its own listener (memory).
        addresses: of all nodes that groups may name as members, this one included or not.
        generator: the source of all randomness; give a seeded one to make a test repeatable.

    Raises:
        StorageError: the directory is locked, foreign, unwritable or from a newer version.
        ConfigError: an argument is out of range.
        TransportError: the address to listen at cannot be bound (kind ``bind``).

    What the block raises leaves as it is, never in an exception group. At the end, groups stop first; every caller is answered.

    *Cancellation:* everything is stopped; writes in flight are waited for (bounded by the storage's configuration).
    """
    config = config or MultiRaftConfig()
    addresses = dict(addresses or {})
    _check_ids(node_id, addresses)
    body_error: BaseException | None = None
    try:
        record = await storage.open(node_id, cluster_id)
        async with trio.open_nursery() as providers:
            parts = _Parts(record, storage, transport, config, Announcer(Counters(), instruments), generator or random.Random(), providers)
            for peer, address in sorted(addresses.items()):
                if peer != node_id:
                    parts.add_peer(peer, address)
            try:
                async with trio.open_nursery() as groups:
                    manager = parts.manager(groups)
                    await parts.start_providers(manager, server)
                    try:
                        yield manager
                    except BaseException as error:  # noqa: BLE001, ASYNC103  # re-raised below, where no nursery wraps it in a group
                        body_error = error
                    groups.cancel_scope.cancel()
            finally:
                parts.answer_rest()
            await parts.say_goodbye()
            providers.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        if body_error is None or _is_cancellation(body_error):
            raise _first_error(errors)  # noqa: B904  # its own cause says more than the group around it
    finally:
        with trio.CancelScope(shield=True):
            await storage.aclose()
    if body_error is not None:
        raise body_error


async def serve_manager(
    *, task_status: trio.TaskStatus[MultiRaftManager] = trio.TASK_STATUS_IGNORED, **arguments: Unpack[_Arguments]
) -> None:
    """Run a node in a nursery of yours until cancelled: ``manager = await nursery.start(partial(serve_manager, node_id=1, ...))``.

    Arguments and errors are those of `open_manager`.
    """
    async with open_manager(**arguments) as manager:
        task_status.started(manager)
        await trio.sleep_forever()


class _Arguments(TypedDict):
    node_id: NodeId
    cluster_id: str
    storage: MultiRaftStorage
    transport: MultiplexedTransport
    server: NotRequired[RpcServerConfig | None]
    addresses: NotRequired[Mapping[NodeId, str] | None]
    config: NotRequired[MultiRaftConfig | None]
    instruments: NotRequired[Sequence[Instrument]]
    generator: NotRequired[random.Random | None]


class _Parts:
    """The parts of a node, and who holds whom."""

    def __init__(
        self,
        record: NodeRecord,
        storage: MultiRaftStorage,
        transport: MultiplexedTransport,
        config: MultiRaftConfig,
        announcer: Announcer,
        generator: random.Random,
        providers: trio.Nursery,
    ) -> None:
        self._record, self._storage, self._transport, self._config = record, storage, transport, config
        self._providers = providers
        timing = self._timing = config.timing()
        self._running: dict[GroupId, RaftGroup] = {}
        self._clock = NodeClock()
        self._changed = Wakeup()
        self._deadlines = DeadlineQueue(self._changed.set)
        self._disk_watch = DiskWatch(storage, announcer)
        self._forwards = Forwards(record.incarnation, pending_max=config.forwards_max, timeout=round(config.forward_timeout * 1000))
        self._peers = Peers(
            record.node_id,
            record.incarnation,
            timing,
            transport=transport,
            sync_age=storage.sync_age,
            announcer=announcer,
            wake=self._wake_group,
            lost=self._forwards.lost,
        )
        self._node = Node(
            record.node_id,
            timing,
            self._running,
            generator=generator,
            clock=self._clock,
            deadlines=self._deadlines,
            peers=self._peers,
            forwards=self._forwards,
            storage=storage,
            transport=transport,
            announcer=announcer,
            apply_threads=ApplyThreads(trio.CapacityLimiter(config.apply_threads), config.shutdown_timeout),
        )
        self._router = Router(
            record.node_id,
            self._running,
            peers=self._peers,
            forwards=self._forwards,
            stores=KnownStores(storage, providers),
            transport=transport,
            announcer=announcer,
            now=self._clock.now,
        )

    def add_peer(self, peer: NodeId, address: str) -> None:
        """A peer's address: what the directory remembers wins over what the caller says, if it is newer."""
        known = self._storage.peers.get(peer)
        if known is not None and known.address is not None and known.address_version > 0:
            address = known.address
        self._peers.add(peer)
        self._transport.set_address(peer, address)

    def manager(self, groups: trio.Nursery) -> MultiRaftManager:
        return MultiRaftManager(
            self._record,
            node=self._node,
            receiver=self._router,
            storage=self._storage,
            peers=self._peers,
            clock=self._clock,
            running=self._running,
            payload_bytes_max=self._transport.payload_bytes_max,
            nursery=groups,
        )

    async def start_providers(self, manager: MultiRaftManager, server: RpcServerConfig | None) -> None:
        start = self._providers.start
        await start(self._storage.serve)
        await start(self._transport.serve, manager.identity, manager.receiver)
        if server is not None:
            manager.bound_addresses = tuple(await start(RpcServer(server, manager).serve))
        self._providers.start_soon(self._tick)

    async def _tick(self) -> None:
        await run_ticker(
            self._clock,
            self._timing.heartbeat_interval,
            deadlines=self._deadlines,
            changed=self._changed,
            disk=self._disk_watch,
            peers=self._peers,
            forwards=self._forwards,
            groups=self._running,
        )

    def answer_rest(self) -> None:
        """Nobody may wait for ever, whatever ended the groups."""
        self._forwards.close()

    async def say_goodbye(self) -> None:
        """The groups have stopped: let the live peers hear it, so that they elect at once instead of after a silence."""
        self._peers.beat(self._clock.now())
        with trio.move_on_after(self._config.shutdown_timeout):
            await self._peers.wait_all_said()

    def _wake_group(self, group_id: GroupId, event: PeerUp | PeerDown) -> None:
        group = self._running.get(group_id)
        if group is not None:
            group.inbox.put_peer(event)


def _is_cancellation(error: BaseException) -> bool:
    """Nothing but `Cancelled`, as a block that ran tasks of its own leaves it too."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)


def _first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first that is no cancellation, out of all groups: users meet errors, not groups of them."""
    cancelled, others = errors.split(trio.Cancelled)
    error: BaseException = others or cancelled or errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _check_ids(node_id: NodeId, addresses: Mapping[NodeId, str]) -> None:
    for checked in (node_id, *addresses):
        if type(checked) is not int or not 1 <= checked < 1 << 32:
            raise ConfigError(f"a node id is a whole number from 1 to 2**32 - 1, not {checked!r}")
