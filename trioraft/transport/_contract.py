"""What the floors above hold of a transport: four verbs, because there are four classes of delivery.

====================  ==============================  ==========================  ==================================
verb                  carries                         lane                        when there is no room
====================  ==============================  ==========================  ==================================
send_append_entries   entries, forwards and replies   append                      drops the newest, says `unreachable`
send_vote             votes, replies, heartbeats      control                     drops the oldest, says `unreachable`
send_heartbeat_batch  the pulse                       control                     the newest pulse replaces an unsent one
send_install_snapshot one piece of a snapshot         connections of their own    waits
====================  ==============================  ==========================  ==================================

While a lane is not open, only the newest pulse is kept for it: votes and entries of before would be stale by the time it opens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import attrs
import trio

from .._types import NodeId
from ..wire import Envelope, Pulse
from ._address import parse_address


@attrs.frozen
class Identity:
    """Who a node is towards its peers."""

    cluster_id: str
    node_id: NodeId
    store_id: str
    incarnation: int


class Receiver(Protocol):
    """What a transport hands upwards. All synchronous, quick, and never raising; called from the transport's tasks.

    Never called from inside a verb: whoever sends is not entered anew while it sends.
    """

    def check_peer(self, peer: Identity) -> str | None:
        """A peer introduced itself, on either side of a connection. Return None to accept it, or why not (``wrong-store: ...``).

        Cluster and node ids have been checked by the transport; store ids and incarnations are for the receiver to judge.
        The word before the colon is the refusal's kind: short, stable, and shown in the logs of both sides.
        """

    def messages(self, peer: NodeId, envelopes: Sequence[Envelope]) -> None:
        """All messages of one frame."""

    def pulse(self, peer: NodeId, pulse: Pulse) -> None:
        """The peer's pulse. Some may be missing: a newer one has taken their place."""

    def unreachable(self, peer: NodeId) -> None:
        """Messages to this peer may have been lost since the last call: a connection broke, or a queue overflowed.

        Once per incident: an incident ends when the lane is open again, or the queue has drained to its half.
        """

    def connected(self, peer: NodeId) -> None:
        """A lane to this peer has been opened, or a peer opened one to us."""


@runtime_checkable
class SnapshotReceiver(Protocol):
    """What a receiver also has if it takes snapshots. Without it, connections for snapshots are refused."""

    async def snapshot(self, peer: NodeId, data: bytes) -> None:
        """One piece of a snapshot stream. The next piece on that connection is read when this returns: the back-pressure."""


@attrs.frozen(kw_only=True)
class PeerStatistics:
    """What has gone to one peer since the transport was made."""

    connected_lanes: int = 0
    """Of the two lanes, how many are open."""
    queued_messages: int = 0
    queued_bytes: int = 0
    """Estimated size of what waits in the queues of both lanes; what is being written is not in it."""
    dropped_messages: int = 0
    """Accepted by a verb and never written: no room, no connection, too large, not encodable."""
    replaced_pulses: int = 0
    """Unsent pulses that a newer one replaced."""
    messages_sent: int = 0
    frames_sent: int = 0
    bytes_sent: int = 0
    frames_received: int = 0
    """Frames that came back on connections of ours: answers to pings. What peers send is counted by the listener."""
    bytes_received: int = 0
    attempts: int = 0
    """Times that an address was dialled."""
    connects: int = 0
    """Times that a lane was opened, handshake included."""
    last_refusal: str | None = None
    """Why the last attempt or connection ended: a short kind, a colon, a text. None: none ended yet."""


@attrs.frozen(kw_only=True)
class TransportStatistics:
    """What a transport has done since it was made."""

    peers: Mapping[NodeId, PeerStatistics]
    dropped_unknown: int = 0
    """Messages and pulses for nodes that have no address here."""


class MultiplexedTransport(ABC):
    """Moves messages between nodes, for all groups. The first three verbs never block and never raise for a peer that is away."""

    @abstractmethod
    async def serve(self, identity: Identity, receiver: Receiver, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the senders until cancelled; `started()` once the verbs may be used."""

    def check_address(self, address: str) -> str:
        """Return an address in the one form in which addresses are compared and told to other nodes.

        Raises:
            ConfigError: as `set_address`.
        """
        return str(parse_address(address))

    @abstractmethod
    def set_address(self, peer: NodeId, address: str) -> None:
        """Add a peer, or move it: the old connections are closed, the new address is dialled. The same address again: nothing.

        Raises:
            ConfigError: no address of a form that this transport knows, or one that it may not dial.
        """

    @abstractmethod
    def remove_peer(self, peer: NodeId) -> None:
        """Close the connections to a peer and forget it. Unknown: nothing."""

    @abstractmethod
    def retry_now(self, peer: NodeId) -> None:
        """The peer was heard of (its handshake came in): dial it now if it is waiting to be dialled. Unknown or connected: nothing."""

    @abstractmethod
    def send_append_entries(self, peer: NodeId, envelopes: Sequence[Envelope]) -> None:
        """Queue entries, forwards and replies to forwards, in this order. No room: dropped, and told as `unreachable`."""

    @abstractmethod
    def send_vote(self, peer: NodeId, envelopes: Sequence[Envelope]) -> None:
        """Queue votes, replies and heartbeats. No room: the oldest are dropped, and told as `unreachable`."""

    @abstractmethod
    def send_heartbeat_batch(self, peer: NodeId, pulse: Pulse) -> None:
        """Send the pulse; it takes the place of an earlier one that has not left yet."""

    @abstractmethod
    async def send_install_snapshot(self, peer: NodeId, data: bytes) -> None:
        """Send one piece of a snapshot stream over a connection of its own; returns when the connection has taken it.

        Raises:
            TransportError: the peer is away or the connection broke.
        Cancellation: the connection is closed; the piece may have arrived.
        """

    @property
    @abstractmethod
    def payload_bytes_max(self) -> int:
        """The largest command or result that fits into a message."""

    @abstractmethod
    def has_room(self, peer: NodeId) -> bool:
        """False while the append queue to this peer is full, or its lane is not open: refuse forwards with `BusyError`."""

    @abstractmethod
    def statistics(self) -> TransportStatistics:
        """Counters as of now, frozen."""


class Acceptor(ABC):
    """The listening side: `RpcServer` for TCP and Unix sockets; the in-memory transport needs none."""

    @abstractmethod
    async def serve(self, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept peers until cancelled; `started()` with the addresses that are bound."""
