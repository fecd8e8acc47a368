"""A few cores and a network that delivers at once and in order, unless it is cut.

What the pulse between two nodes carries is never lost for good: the newest line of each way arrives when the cut is mended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tests.conformance.replica import Replica
from trioraft._types import NEVER, Millis, NodeId, Term
from trioraft.core import DELIVERY, Campaign, Delivery, InstallSnapshot, Message, PeerDown, PeerUp, SnapshotSent, TimePassed

E: Millis = 1000
"""The election timeout of these cores."""


class Network:
    """Replicas by node id. Nodes that can talk both ways count as live for each other; a cut is noticed after E."""

    def __init__(
        self, voters: Iterable[NodeId] = (1, 2, 3), *, logs: Mapping[NodeId, Iterable[Term]] | None = None, **options: Any
    ) -> None:
        ids = list(voters)
        logs = logs or {}
        self._replicas = {node_id: Replica(logs.get(node_id, ()), me=node_id, voters=ids, seed=node_id, **options) for node_id in ids}
        self._cut: set[tuple[NodeId, NodeId]] = set()
        self._owed: dict[tuple[NodeId, NodeId], Message] = {}
        self.loses: Callable[[Message], bool] = lambda message: False
        """Which messages are lost although there is a way."""
        self.delivered: list[Message] = []
        """Every message that has arrived, in order."""

    def __getitem__(self, node_id: NodeId) -> Replica:
        return self._replicas[node_id]

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._replicas.values())

    @property
    def leaders(self) -> list[NodeId]:
        return [replica.me for replica in self if replica.role == "leader"]

    # Faults

    def cut(self, one: NodeId, other: NodeId) -> None:
        self._cut |= {(one, other), (other, one)}
        for here, there in ((one, other), (other, one)):
            replica = self[here]
            replica.liveness[there] = min(replica.liveness[there], replica.now + E)

    def isolate(self, node_id: NodeId) -> None:
        for replica in self:
            if replica.me != node_id:
                self.cut(node_id, replica.me)

    def heal(self) -> None:
        """Everybody can talk again, and the pulses that now arrive say so."""
        mended, self._cut = sorted(self._cut), set()
        for here, there in mended:
            self[here].liveness[there] = NEVER
        for here, there in mended:
            self[here].step(PeerUp(there, restarted=False))
        owed, self._owed = self._owed, {}
        for (_, there), line in owed.items():
            self[there].step(line)
        self.deliver()

    def depose(self, node_id: NodeId) -> None:
        """Keep a leader from all others until it has stepped down and nobody sticks to it any more; then let it back.

        Where the tables let somebody else win at once, this goes before: a leader that is heard cannot be voted out here.
        """
        before = set(self._cut)
        self.isolate(node_id)
        self.advance(E)
        assert self[node_id].role != "leader"
        self.heal()
        for one, other in before:
            self.cut(one, other)

    # Going on

    def deliver(self) -> None:
        """Deliver until nobody has anything to say."""
        while pending := [message for replica in self for message in self._take_sent(replica)]:
            for message in pending:
                way = message.source.node_id, message.target.node_id
                if way not in self._cut and not self.loses(message):
                    self.delivered.append(message)
                    self[message.target.node_id].step(message)
                elif DELIVERY[type(message)] is Delivery.PULSE:
                    self._owed[way] = message
        for replica in self:
            self._stream(replica)

    def _stream(self, replica: Replica) -> None:
        """Let a snapshot arrive whole, or not at all, and say so."""
        while replica.streams:
            send = replica.streams.pop()
            target = self[send.target.node_id]
            arrives = (replica.me, target.me) not in self._cut
            if arrives:
                configuration = replica.raft.configuration_at(send.at.index)
                target.step(InstallSnapshot(replica.raft.me, send.target, send.term, send.at, configuration))
            replica.step(SnapshotSent(send.target, send.at, arrives))
            self.deliver()

    def _take_sent(self, replica: Replica) -> list[Message]:
        taken = list(replica.sent)
        replica.sent.clear()
        return taken

    def campaign(self, node_id: NodeId) -> None:
        self[node_id].step(Campaign())
        self.deliver()

    def propose(self, node_id: NodeId, count: int = 1) -> None:
        for _ in range(count):
            self[node_id].propose()
        self.deliver()

    def advance(self, duration: Millis, *, only: Iterable[NodeId] | None = None) -> None:
        """Let time pass: each core hears of its deadlines, and of peers whose liveness runs out, when they come."""
        ids = list(self._replicas if only is None else only)
        end = max(self[node_id].now for node_id in ids) + duration
        while True:
            due = {node_id: self._next_event(self[node_id]) for node_id in ids}
            now = max(min(due.values()), min(self[node_id].now for node_id in ids))
            if now > end:
                break
            for node_id in ids:
                self[node_id].now = max(self[node_id].now, now)
            for node_id in ids:
                if due[node_id] <= now:
                    self._wake(self[node_id])
            self.deliver()
        for node_id in ids:
            self[node_id].now = end

    def _next_event(self, replica: Replica) -> Millis:
        return min([replica.raft.deadline, *(until for until in replica.liveness.values() if until > replica.now)])

    def _wake(self, replica: Replica) -> None:
        replica.step(TimePassed())
        for peer, until in replica.liveness.items():
            if until == replica.now:
                replica.step(PeerDown(peer))
        replica.step(TimePassed())
