"""The node as its groups see it: one object that puts clock, peers, log and senders behind the `Host` contract."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Final, cast

import trio

from .._errors import BusyError, EntryTooLargeError
from .._types import GroupId, GroupKey, Millis, NodeId
from ..core import DELIVERY, Attach, AttachRefused, Delivery, Detach, Message, Timing
from ..group import ApplyThreads, RaftGroup, SnapshotTraffic, Token
from ..observe import Announcer
from ..storage import MultiRaftStorage
from ..transport import MultiplexedTransport
from ..wire import Envelope, RequestKind, SnapshotReply
from ._clock import NodeClock
from ._deadlines import DeadlineQueue
from ._forwards import Forwards
from ._log_memory import LogMemory
from ._peers import Peers


class Node:
    """Implements `Host`. Everything here is synchronous."""

    def __init__(
        self,
        node_id: NodeId,
        timing: Timing,
        groups: dict[GroupId, RaftGroup],
        *,
        generator: random.Random,
        clock: NodeClock,
        deadlines: DeadlineQueue,
        peers: Peers,
        forwards: Forwards,
        storage: MultiRaftStorage,
        transport: MultiplexedTransport,
        announcer: Announcer,
        apply_threads: ApplyThreads,
        snapshot_threads: trio.CapacityLimiter,
        snapshot_traffic: SnapshotTraffic,
        snapshot_retry_interval: float,
        log_memory: LogMemory,
    ) -> None:
        self.node_id: Final = node_id
        self.timing: Final = timing
        self.random: Final = generator
        self.announcer: Final = announcer
        self.apply_threads: Final = apply_threads
        self.snapshot_threads: Final = snapshot_threads
        self.snapshot_traffic: Final = snapshot_traffic
        self.snapshot_retry_interval: Final = snapshot_retry_interval
        self._log_memory = log_memory
        self.set_log_memory = log_memory.set
        self.counters: Final = announcer.counters
        self.liveness: Final[Mapping[NodeId, Millis]] = peers.liveness
        self._groups = groups
        self._deadlines, self._peers, self._forwards = deadlines, peers, forwards
        self._storage, self._transport = storage, transport
        self.now = clock.now
        self.next_sequence = storage.next_sequence
        self.set_deadline = deadlines.set
        self.watch = peers.watch

    @property
    def log_memory(self) -> int:
        return self._log_memory.total

    @property
    def has_room(self) -> bool:
        return self._storage.has_room

    def send(self, key: GroupKey, messages: Iterable[Message]) -> None:
        transport, counters = self._transport, self.counters
        for message in messages:
            counters.messages_out += 1
            delivery = DELIVERY[type(message)]
            if delivery is Delivery.APPEND:
                transport.send_append_entries(message.target.node_id, (Envelope(key, message),))
            elif delivery is Delivery.VOTE:
                transport.send_vote(message.target.node_id, (Envelope(key, message),))
            else:
                self._peers.put(key, cast(Attach | Detach | AttachRefused, message))

    def send_snapshot_reply(self, key: GroupKey, reply: SnapshotReply) -> None:
        self.counters.messages_out += 1
        self._transport.send_vote(reply.target.node_id, (Envelope(key, reply),))

    def forward(self, peer: NodeId, key: GroupKey, kind: RequestKind, payload: bytes, token: Token) -> None:
        # NB: a request that no frame can hold would be lost with an incident, which makes the outcomes of all others unknown.
        if len(payload) > (payload_bytes_max := self._transport.payload_bytes_max):
            token.fail(EntryTooLargeError(f"the request has {len(payload)} bytes; the transport carries at most {payload_bytes_max}"))
            return
        if not self._transport.has_room(peer):
            token.fail(BusyError(f"the queue to node {peer}, which leads group {key.group_id}, is full: ask again later"))
            return
        request = self._forwards.add(peer, self._groups[key.group_id], kind, payload, token, self.now())
        if request is not None:
            self.counters.forwards += 1
            self._transport.send_append_entries(peer, (Envelope(key, request),))

    def knows_address(self, node_id: NodeId) -> bool:
        return node_id == self.node_id or node_id in self._peers

    def group_stopped(self, key: GroupKey) -> None:
        self._groups.pop(key.group_id, None)
        self._deadlines.forget(key.group_id)
        self.set_log_memory(key.group_id, 0)
        self._peers.detach(key)
