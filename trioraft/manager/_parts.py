"""The parts of a node: who makes what, and who holds whom."""

from __future__ import annotations

import random
from collections.abc import Mapping

import attrs
import trio

from .._types import GroupId, NodeId
from ..core import GroupConfig, PeerDown, PeerUp, TrimMemory
from ..group import ApplyThreads, RaftGroup
from ..observe import Announcer
from ..storage import MultiRaftStorage, NodeRecord
from ..transport import MultiplexedTransport, RpcServer, RpcServerConfig
from ._address_book import AddressBook
from ._clock import NodeClock
from ._config import MultiRaftConfig
from ._deadlines import DeadlineQueue
from ._disk_watch import DiskWatch
from ._forwards import Forwards
from ._handing_over import leave_to_others
from ._hosting import Hosting, MachineFactory
from ._log_memory import LogMemory
from ._manager import MultiRaftManager
from ._node import Node
from ._peer_records import PeerRecords
from ._peers import Peers
from ._router import Router
from ._snapshot_traffic import NodeSnapshotTraffic
from ._stores import KnownStores
from ._ticker import Alarm, run_ticker


@attrs.frozen(kw_only=True)
class Given:
    """What a node is made of: its user's choices, and who it is by its disk."""

    record: NodeRecord
    storage: MultiRaftStorage
    transport: MultiplexedTransport
    config: MultiRaftConfig
    addresses: Mapping[NodeId, str]
    announcer: Announcer
    generator: random.Random
    machine_factory: MachineFactory | None
    group_config: GroupConfig

    @property
    def node_id(self) -> NodeId:
        return self.record.node_id


class Parts:
    """One node, put together."""

    def __init__(self, given: Given, providers: trio.Nursery) -> None:
        self._given, self._providers = given, providers
        config = self._config = given.config
        self._timing = config.timing()
        self._running: dict[GroupId, RaftGroup] = {}
        self._clock = NodeClock()
        self._alarm = Alarm()
        self._deadlines = DeadlineQueue(self._alarm.ring)
        self._forwards = Forwards(given.record.incarnation, pending_max=config.forwards_max, timeout=round(config.forward_timeout * 1000))
        self._peers = self._make_peers()
        peer_records = PeerRecords(given.storage)
        self._book = self._make_book(peer_records)
        self._hosting = Hosting(given.storage, self._running, machine_factory=given.machine_factory, config=given.group_config)
        self._node = self._make_node()
        self._router = self._make_router(KnownStores(peer_records, providers))

    def _make_peers(self) -> Peers:
        return Peers(
            self._given.node_id,
            self._given.record.incarnation,
            self._timing,
            transport=self._given.transport,
            sync_age=self._given.storage.sync_age,
            announcer=self._given.announcer,
            wake=self._wake_group,
            hurry=self._alarm.ring,
            lost=self._forwards.lost,
        )

    def _make_book(self, records: PeerRecords) -> AddressBook:
        return AddressBook(
            self._given.node_id,
            self._given.addresses,
            records,
            peers=self._peers,
            transport=self._given.transport,
            counters=self._given.announcer.counters,
            nursery=self._providers,
        )

    def _make_node(self) -> Node:
        given, config = self._given, self._config
        return Node(
            given.node_id,
            self._timing,
            self._running,
            generator=given.generator,
            clock=self._clock,
            deadlines=self._deadlines,
            peers=self._peers,
            forwards=self._forwards,
            storage=given.storage,
            transport=given.transport,
            announcer=given.announcer,
            apply_threads=ApplyThreads(trio.CapacityLimiter(config.apply_threads), config.shutdown_timeout),
            snapshot_threads=trio.CapacityLimiter(config.snapshot_threads),
            snapshot_traffic=NodeSnapshotTraffic(config, given.transport, given.announcer.counters),
            snapshot_retry_interval=config.snapshot_retry_interval,
            log_memory=LogMemory(config.log_memory_bytes_max, self._trim_group),
        )

    def _make_router(self, stores: KnownStores) -> Router:
        return Router(
            self._given.node_id,
            self._running,
            find=self._hosting.find,
            peers=self._peers,
            forwards=self._forwards,
            stores=stores,
            book=self._book,
            transport=self._given.transport,
            announcer=self._given.announcer,
            now=self._clock.now,
            hurry=self._alarm.ring,
        )

    def manager(self, groups: trio.Nursery) -> MultiRaftManager:
        self._hosting.begin(self._node, groups)
        return MultiRaftManager(
            self._given.record,
            node=self._node,
            receiver=self._router,
            book=self._book,
            forget_store=self._router.forget_store,
            storage=self._given.storage,
            peers=self._peers,
            clock=self._clock,
            hosting=self._hosting,
            payload_bytes_max=self._given.transport.payload_bytes_max,
        )

    async def start_providers(self, manager: MultiRaftManager, server: RpcServerConfig | None) -> None:
        start = self._providers.start
        await start(self._given.storage.serve)
        await start(self._given.transport.serve, manager.identity, manager.receiver)
        # NB: only now: a transport that serves another node has refused, and none of its addresses has been moved.
        self._book.dial()
        self._providers.start_soon(self._book.tell)
        if server is not None:
            manager.bound_addresses = tuple(await start(RpcServer(server, manager).serve))
        self._providers.start_soon(self._tick)

    async def _tick(self) -> None:
        await run_ticker(
            self._clock,
            self._timing.heartbeat_interval,
            deadlines=self._deadlines,
            alarm=self._alarm,
            disk=DiskWatch(self._given.storage, self._given.announcer),
            peers=self._peers,
            waking=self._router.waking,
            forwards=self._forwards,
            groups=self._running,
        )

    async def leave_to_others(self) -> None:
        """The node is about to stop: let other nodes lead what it leads, if they are there."""
        patience = min(self._config.shutdown_timeout, self._timing.election_timeout / 1000)
        await leave_to_others(list(self._running.values()), patience)

    def answer_rest(self) -> None:
        """Nobody may wait for ever, whatever ended the groups."""
        self._forwards.close()

    async def say_goodbye(self) -> None:
        """The groups have stopped: let the live peers hear it, so that they elect at once instead of after a silence."""
        self._peers.leave(self._clock.now())
        with trio.move_on_after(self._config.shutdown_timeout):
            await self._peers.wait_all_said()

    def _wake_group(self, group_id: GroupId, event: PeerUp | PeerDown) -> None:
        group = self._running.get(group_id)
        if group is not None:
            group.inbox.put_peer(event)

    def _trim_group(self, group_id: GroupId) -> None:
        group = self._running.get(group_id)
        if group is not None:
            group.inbox.put_completion(TrimMemory(0))
