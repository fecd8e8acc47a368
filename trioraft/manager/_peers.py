"""The other nodes: the pulse with each, who of them is live, and which groups want to know.

A node that goes down or comes back wakes the groups that watch it, in portions, so that thousands of them do not hold up the clock.
Nothing here is done per group otherwise.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator

import attrs
import trio

from .._types import NEVER, GroupId, GroupKey, Member, Millis, NodeId
from ..core import Attach, AttachRefused, Detach, PeerDown, PeerUp, Timing
from ..observe import Announcer, PeerLiveness, SlowRoundTrip
from ..transport import MultiplexedTransport
from ..wire import Pulse, PulseKind, PulseLine
from ._pulse import PulseLink

WAKE_PORTION = 256
"""Groups woken between two checkpoints of the clock when a node goes down."""

COMPLAINT_INTERVAL = 60_000
"""Milliseconds between two complaints about the slowness of one peer."""


@attrs.frozen(kw_only=True)
class PeerStatus:
    """A peer as this node sees it."""

    node_id: NodeId
    live: bool
    """It hears us, we hear it, and its disk moves."""
    incarnation: int
    """Its newest process that was heard of; 0: none yet."""
    round_trip_ms: int
    """Of the last pulse, waiting for the next one to carry the echo included."""


@attrs.define
class _Peer:
    link: PulseLink
    complained: Millis = -COMPLAINT_INTERVAL
    known: int = 0
    """The incarnation that was live last."""


class Peers:
    """All peers of a node."""

    def __init__(
        self,
        node_id: NodeId,
        incarnation: int,
        timing: Timing,
        *,
        transport: MultiplexedTransport,
        sync_age: Callable[[], float],
        announcer: Announcer,
        wake: Callable[[GroupId, PeerUp | PeerDown], None],
        lost: Callable[[NodeId], None],
        hurry: Callable[[], None],
    ) -> None:
        """
        Args:
            sync_age: seconds for which the oldest unfinished write has been with this node's disk.
            wake: tells one group that a node it watches went down or came back.
            lost: tells that a node went down, so that nobody waits for its answers.
            hurry: has `wake_some` called soon.
        """
        self._node_id, self._incarnation, self._timing = node_id, incarnation, timing
        self._transport, self._sync_age = transport, sync_age
        self._announcer, self._counters = announcer, announcer.counters
        self._wake, self._lost, self._hurry = wake, lost, hurry
        self._peers: dict[NodeId, _Peer] = {}
        self._live = {node_id}
        self._watchers: dict[NodeId, set[GroupId]] = {node_id: set()}
        self._watching: dict[GroupId, frozenset[NodeId]] = {}
        self._is_leaving = False
        self._said = trio.Event()  # set: nobody waits for it, or all is said
        self._said.set()
        self._to_wake: deque[tuple[GroupId, PeerUp | PeerDown]] = deque()
        self.liveness: dict[NodeId, Millis] = {node_id: NEVER}
        """Until when each node, this one included, counts as live; the cores read it."""

    def add(self, node_id: NodeId) -> None:
        self._peers[node_id] = _Peer(PulseLink(self._incarnation, self._timing))
        self._watchers.setdefault(node_id, set())  # a group may have had it as a member before its address was known
        self.liveness[node_id] = 0

    def forget(self, node_id: NodeId, now: Millis) -> None:
        """The node's disk was replaced, and so counts its processes from 1 again: nothing that was heard of it holds any more."""
        peer = self._peers[node_id]
        peer.link.forget_peer()
        peer.known = 0
        self.liveness[node_id] = 0
        self._judge(node_id, now)

    def __contains__(self, node_id: NodeId) -> bool:
        return node_id in self._peers

    def __iter__(self) -> Iterator[NodeId]:
        return iter(self._peers)

    def status(self, now: Millis) -> dict[NodeId, PeerStatus]:
        return {
            node_id: PeerStatus(
                node_id=node_id,
                live=now < self.liveness[node_id],
                incarnation=peer.link.peer_incarnation,
                round_trip_ms=peer.link.round_trip,
            )
            for node_id, peer in self._peers.items()
        }

    # --- the pulse --------------------------------------------------------------------------------------------------------------------

    def leave(self, now: Millis) -> None:
        """The groups have stopped: from here on nobody need count on this node, for whatever the pulse before said."""
        self._is_leaving = True
        self.beat(now)

    def beat(self, now: Millis) -> None:
        """Once an interval: see who is not live any more, this node included, and send each peer its pulse."""
        age = self._sync_age()
        sync_age = -1 if self._is_leaving or math.isinf(age) else int(age * 1000)
        is_sick = not 0 <= sync_age < self._timing.election_timeout
        self.liveness[self._node_id] = min(now, self.liveness[self._node_id]) if is_sick else NEVER
        self._judge(self._node_id, now)
        for node_id, peer in self._peers.items():
            self._judge(node_id, now)
            self._transport.send_heartbeat_batch(node_id, peer.link.next_pulse(now, sync_age))
            self._counters.pulses_out += 1

    def receive(self, node_id: NodeId, pulse: Pulse, now: Millis) -> list[PulseLine]:
        """Take a peer's pulse; return the lines that are news to our groups."""
        peer = self._peers.get(node_id)
        if peer is None:
            return []
        self._counters.pulses_in += 1
        # NB: also before the pulse moves the point: a core may have compared it with the time, and then must hear of the return.
        self._judge(node_id, now)
        lines = peer.link.receive(pulse, now)
        self.liveness[node_id] = peer.link.live_until
        self._judge(node_id, now)
        self._complain_if_slow(node_id, peer, now)
        return lines

    def newest_incarnation(self, node_id: NodeId) -> int:
        peer = self._peers.get(node_id)
        return peer.link.peer_incarnation if peer is not None else 0

    def _judge(self, node_id: NodeId, now: Millis) -> None:
        if not self._said.is_set():
            self._check_all_said()
        live = now < self.liveness[node_id]
        if live == (node_id in self._live):
            return
        self._live ^= {node_id}
        event = self._return_of(node_id) if live else PeerDown(node_id)
        self._to_wake.extend((group_id, event) for group_id in self._watchers[node_id])
        if not live:
            self._lost(node_id)
        self._hurry()
        self._announcer.announce(PeerLiveness(node_id, live))

    def _return_of(self, node_id: NodeId) -> PeerUp:
        """A node is live again: the process that was live before, or one that has forgotten what only the old one knew."""
        peer = self._peers.get(node_id)
        if peer is None:
            return PeerUp(node_id, restarted=False)
        before, peer.known = peer.known, peer.link.peer_incarnation
        return PeerUp(node_id, restarted=before != peer.known)

    def wake_some(self) -> bool:
        """Tell the next portion of groups about a node that went or came; True: there are more."""
        for _ in range(min(WAKE_PORTION, len(self._to_wake))):
            self._wake(*self._to_wake.popleft())
        return bool(self._to_wake)

    def _complain_if_slow(self, node_id: NodeId, peer: _Peer, now: Millis) -> None:
        limit = self._timing.election_timeout // 2
        if peer.link.round_trip - self._timing.heartbeat_interval > limit and now - peer.complained >= COMPLAINT_INTERVAL:
            peer.complained = now
            self._announcer.announce(SlowRoundTrip(node_id, peer.link.round_trip, self._timing.election_timeout))

    # --- groups -----------------------------------------------------------------------------------------------------------------------

    def watch(self, group_id: GroupId, nodes: frozenset[NodeId]) -> None:
        """Tell the group when one of `nodes` goes or comes, instead of any earlier wish."""
        before = self._watching.get(group_id, frozenset())
        for node_id in before - nodes:
            self._watchers.get(node_id, set()).discard(group_id)
        for node_id in nodes - before:
            self._watchers.setdefault(node_id, set()).add(group_id)
        self._watching[group_id] = nodes

    def watchers(self, node_id: NodeId) -> list[GroupId]:
        """The groups that watch a node."""
        return sorted(self._watchers.get(node_id, ()))

    def put(self, key: GroupKey, message: Attach | Detach | AttachRefused) -> None:
        """Put a group's line on the pulse."""
        peer = self._peers.get(message.target.node_id)
        if peer is not None:
            peer.link.put(PulseLine(_KIND[type(message)], key, message.term, message.source.replica, message.target.replica))

    def answer_unknown(self, node_id: NodeId, line: PulseLine) -> None:
        """A peer counts on a group that does not run here: a live node must not hide a dead group."""
        link = self._peers[node_id].link
        if line.kind is PulseKind.ATTACH:
            link.refuse(line)
        else:
            link.forget(line)

    def detach(self, key: GroupKey) -> None:
        """The group runs here no more: nobody may count on it, as leader or as follower."""
        self.watch(key.group_id, frozenset())
        del self._watching[key.group_id]
        for peer in self._peers.values():
            peer.link.leave(key)

    async def wait_all_said(self) -> None:
        """Wait until every live peer has acknowledged every line."""
        self._said = trio.Event()
        self._check_all_said()
        await self._said.wait()

    def _check_all_said(self) -> None:
        if not any(peer.link.has_news for node_id, peer in self._peers.items() if node_id in self._live):
            self._said.set()


_KIND = {Attach: PulseKind.ATTACH, Detach: PulseKind.DETACH, AttachRefused: PulseKind.REFUSED}


def line_as_message(line: PulseLine, source: NodeId, target: NodeId) -> Attach | Detach | AttachRefused:
    """A pulse's line as the message that it is to a group."""
    members = Member(source, line.source_replica), Member(target, line.target_replica)
    match line.kind:
        case PulseKind.ATTACH:
            return Attach(*members, line.term)
        case PulseKind.DETACH:
            return Detach(*members, line.term)
        case PulseKind.REFUSED:
            return AttachRefused(*members, line.term)
