"""What a group needs of the node that runs it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol

import trio

from .._types import GroupId, GroupKey, Millis, NodeId
from ..core import Message, Timing
from ..observe import Announcer, Counters
from ..wire import RequestKind, SnapshotPiece, SnapshotReply
from ._applier import ApplyThreads
from ._waiter import Token


class SnapshotTraffic(Protocol):
    """A node's limits on snapshots that move, and the way out for their pieces."""

    @property
    def piece_bytes(self) -> int:
        """How much of a snapshot's file goes into one piece."""

    @property
    def reply_timeout(self) -> float:
        """Seconds to wait for the answer to an offer, or to the last piece."""

    def outgoing(self, peer: NodeId) -> AbstractAsyncContextManager[None]:
        """Take one of the places for streams to `peer`; waits for one."""

    def incoming(self) -> AbstractContextManager[bool]:
        """Take one of the places for streams to this node; False if there is none, and then nothing is taken."""

    async def send(self, peer: NodeId, piece: SnapshotPiece) -> None:
        """Send a piece, not faster than the node's bandwidth for snapshots allows.

        Raises:
            TransportError: the peer is away or the connection broke.
        """


class Host(Protocol):
    """The node as its groups see it. Everything here is synchronous and returns at once."""

    @property
    def node_id(self) -> NodeId: ...

    @property
    def timing(self) -> Timing: ...

    @property
    def random(self) -> random.Random: ...

    @property
    def liveness(self) -> Mapping[NodeId, Millis]:
        """Until when each peer counts as live; moved by the node, read by the cores."""

    @property
    def counters(self) -> Counters: ...

    @property
    def announcer(self) -> Announcer: ...

    @property
    def has_room(self) -> bool:
        """False while the log cannot take proposals."""

    @property
    def apply_threads(self) -> ApplyThreads:
        """What blocking machines run in."""

    @property
    def snapshot_traffic(self) -> SnapshotTraffic:
        """Who may stream a snapshot when, and how fast."""

    @property
    def snapshot_threads(self) -> trio.CapacityLimiter:
        """What users' snapshot code runs in: of its own, so that one that hangs holds up no `apply`."""

    @property
    def snapshot_retry_interval(self) -> float:
        """Seconds from a snapshot that failed to the next try; doubled with each failure in a row, up to 64 times."""

    def set_log_memory(self, group_id: GroupId, size: int) -> None:
        """Tell how many bytes of entries the group holds in memory."""

    def now(self) -> Millis: ...

    def next_sequence(self) -> int:
        """The number of this group's next write."""

    def set_deadline(self, group_id: GroupId, deadline: Millis) -> None:
        """Have the group's inbox told at `deadline`, instead of any earlier wish."""

    def watch(self, group_id: GroupId, nodes: frozenset[NodeId]) -> None:
        """Have the group's inbox told when one of `nodes` goes down or comes back, instead of any earlier wish."""

    def send(self, key: GroupKey, messages: Iterable[Message]) -> None:
        """Hand messages to the senders of their targets, in order."""

    def send_snapshot_reply(self, key: GroupKey, reply: SnapshotReply) -> None:
        """Hand the answer to a snapshot's pieces to the sender of its target; it may be lost."""

    def forward(self, peer: NodeId, key: GroupKey, kind: RequestKind, payload: bytes, token: Token) -> None:
        """Pass a request on to `peer`, once; the token hears the answer."""

    def knows_address(self, node_id: NodeId) -> bool:
        """Whether messages can be sent to a node; this one is always known."""

    def group_stopped(self, key: GroupKey) -> None:
        """The group runs no more: route nothing to it, wake it no more, detach it from its peers."""
