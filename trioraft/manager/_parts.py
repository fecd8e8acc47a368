"""The parts of a node: who makes what, and who holds whom."""

from __future__ import annotations

import random
from collections.abc import Mapping

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


class Parts:
    """One node, put together."""

    def __init__(
        self,
        record: NodeRecord,
        storage: MultiRaftStorage,
        transport: MultiplexedTransport,
        config: MultiRaftConfig,
        addresses: Mapping[NodeId, str],
        announcer: Announcer,
        generator: random.Random,
        providers: trio.Nursery,
        *,
        machine_factory: MachineFactory | None,
        group_config: GroupConfig,
    ) -> None:
        self._record, self._storage, self._transport, self._config = record, storage, transport, config
        self._providers = providers
        timing = self._timing = config.timing()
        self._running: dict[GroupId, RaftGroup] = {}
        self._clock = NodeClock()
        self._alarm = Alarm()
        self._deadlines = DeadlineQueue(self._alarm.ring)
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
            hurry=self._alarm.ring,
            lost=self._forwards.lost,
        )
        peer_records = PeerRecords(storage)
        self._book = AddressBook(
            record.node_id,
            addresses,
            peer_records,
            peers=self._peers,
            transport=transport,
            counters=announcer.counters,
            nursery=providers,
        )
        self._hosting = Hosting(storage, self._running, machine_factory=machine_factory, config=group_config)
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
            snapshot_threads=trio.CapacityLimiter(config.snapshot_threads),
            snapshot_traffic=NodeSnapshotTraffic(config, transport, announcer.counters),
            snapshot_retry_interval=config.snapshot_retry_interval,
            log_memory=LogMemory(config.log_memory_bytes_max, self._trim_group),
        )
        self._router = Router(
            record.node_id,
            self._running,
            find=self._hosting.find,
            peers=self._peers,
            forwards=self._forwards,
            stores=KnownStores(peer_records, providers),
            book=self._book,
            transport=transport,
            announcer=announcer,
            now=self._clock.now,
            hurry=self._alarm.ring,
        )

    def manager(self, groups: trio.Nursery) -> MultiRaftManager:
        self._hosting.begin(self._node, groups)
        return MultiRaftManager(
            self._record,
            node=self._node,
            receiver=self._router,
            book=self._book,
            forget_store=self._router.forget_store,
            storage=self._storage,
            peers=self._peers,
            clock=self._clock,
            hosting=self._hosting,
            payload_bytes_max=self._transport.payload_bytes_max,
        )

    async def start_providers(self, manager: MultiRaftManager, server: RpcServerConfig | None) -> None:
        start = self._providers.start
        await start(self._storage.serve)
        await start(self._transport.serve, manager.identity, manager.receiver)
        # NB: only now: a transport that serves another node has refused, and none of its addresses has been moved.
        self._book.dial()
        if server is not None:
            manager.bound_addresses = tuple(await start(RpcServer(server, manager).serve))
        self._providers.start_soon(self._tick)

    async def _tick(self) -> None:
        await run_ticker(
            self._clock,
            self._timing.heartbeat_interval,
            deadlines=self._deadlines,
            alarm=self._alarm,
            disk=self._disk_watch,
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
        self._peers.beat(self._clock.now(), is_leaving=True)
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
