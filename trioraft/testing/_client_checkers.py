"""What clients rely on, one checker each: commands of sessions, reads that a round confirms, and leases (dissertation 6.3, 6.4)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from .._types import GroupId, Index, Member, Millis, NodeId, Term
from ..core import Configuration, Entry, Heartbeat, HeartbeatReply, Message, RequestVote, RequestVoteReply
from ._checker import Checker, Who, World
from ._checkers import ElectionSafety
from ._disk import GroupDisk
from ._machine import SimulatedMachine


def has_quorum(configuration: Configuration, nodes: Iterable[NodeId]) -> bool:
    """Whether these are a majority of each half of the voters: written once more, and more simply, than in the core."""
    found = set(nodes)
    return all(2 * len(half & found) > len(half) for half in (configuration.voters, configuration.outgoing) if half)


class ExactlyOnce(Checker):
    """Dissertation 6.3: a command takes effect once at each replica, however often it is in the log, before or behind a snapshot."""

    name = "exactly-once"

    def takes_effect(self, who: Who, entry: Entry, machine: SimulatedMachine) -> None:
        if machine.effects != len(machine.places):
            self.fail(f"{who} applies {entry} {entry.payload!r}, whose command has taken effect before")


class ReadsAreConfirmed(Checker):
    """Dissertation 6.4: a read is answered by nobody but a leader that a quorum has confirmed since the read came; and the answer shows
    whatever was acknowledged before it came.
    """

    name = "reads-are-confirmed"

    def __init__(self) -> None:
        self._count = 0
        self._acknowledged: dict[GroupId, Index] = {}
        self._confirmed: defaultdict[tuple[GroupId, Term, NodeId], dict[Member, int]] = defaultdict(dict)
        self._asked: dict[Any, tuple[int, Index]] = {}

    def acknowledges(self, who: Who, entry: Entry) -> None:
        self._acknowledged[who.group] = max(entry.index, self._acknowledged.get(who.group, 0))

    def asks(self, who: Who, question: object) -> None:
        self._asked[question] = (self._count, self._acknowledged.get(who.group, 0))

    def sends(self, who: Who, message: Message, disk: GroupDisk) -> None:
        if type(message) is HeartbeatReply and message.round:
            self._count += 1
            self._confirmed[who.group, message.term, message.target.node_id][message.source] = self._count

    def tells(self, who: Who, question: object, index: Index, term: Term, in_force: Sequence[Configuration]) -> None:
        asked, acknowledged = self._asked.pop(question)
        if index < acknowledged:
            self.fail(f"{who} reads at {index}, but {acknowledged} was acknowledged before the read came")
        confirmed = self._confirmed[who.group, term, who.node]
        heard = {member for member, at in confirmed.items() if at > asked}
        if not any(has_quorum(one, {who.node, *(node for node in one.voter_ids() if one.member(node) in heard)}) for one in in_force):
            text = f"since it came only {sorted(map(str, heard))} of {' or '.join(map(str, in_force))} have said a word"
            self.fail(f"{who} answers a read in term {term}, but {text}")


class LeaseIsBacked(Checker):
    """Dissertation 6.4.1: while a leader answers by its lease, a quorum has promised to help nobody else, and nobody else is elected."""

    name = "lease-is-backed"

    def __init__(self, world: World, promised: Millis) -> None:
        """
        Args:
            promised: for how long whoever confirms a leader is bound, by the fastest clock, in simulated milliseconds.
        """
        self._world, self._promised = world, promised
        self._bound: defaultdict[tuple[GroupId, Term, NodeId], dict[Member, Millis]] = defaultdict(dict)
        self._newest: dict[GroupId, tuple[Term, NodeId]] = {}

    def elected(self, who: Who, term: Term) -> None:
        self._newest[who.group] = max(self._newest.get(who.group, (0, 0)), (term, who.node))

    def sends(self, who: Who, message: Message, disk: GroupDisk) -> None:
        if type(message) is HeartbeatReply and message.round:
            self._bound[who.group, message.term, message.target.node_id][message.source] = self._world.now() + self._promised

    def leases(self, who: Who, term: Term, configuration: Configuration) -> None:
        newest, leader = self._newest[who.group]
        if newest > term:
            self.fail(f"{who} answers by its lease of term {term}, but n{leader} leads in term {newest}")
        bound, now = self._bound[who.group, term, who.node], self._world.now()
        held = {member.node_id for member in map(configuration.member, configuration.voter_ids()) if bound.get(member, 0) > now}
        if not has_quorum(configuration, held | {who.node}):
            self.fail(f"{who} answers by its lease of term {term}, but only {sorted(held)} of {configuration} are bound to it")


class PromisesAreKept(Checker):
    """Dissertation 6.4.1: who has confirmed a leader neither votes for another nor campaigns for a while, unless the leader asks for that.

    Counted from when the leader asked, which is the least that it may count on.
    """

    name = "promises-are-kept"

    def __init__(self, world: World, elections: ElectionSafety, promised: Millis) -> None:
        self._world, self._elections, self._promised = world, elections, promised
        self._asked: dict[tuple[GroupId, Term, int], Millis] = {}
        self._bound: dict[tuple[GroupId, NodeId, int], tuple[Millis, Term, NodeId]] = {}
        self._transfers: set[tuple[GroupId, Term, NodeId]] = set()

    def sends(self, who: Who, message: Message, disk: GroupDisk) -> None:
        kind = type(message)
        if kind is Heartbeat and message.round:  # type: ignore[union-attr]  # by its kind
            self._asked.setdefault((who.group, message.term, message.round), self._world.now())  # type: ignore[union-attr]  # as above
        elif kind is HeartbeatReply and message.round:  # type: ignore[union-attr]  # as above
            self._binds(who, message, disk)  # type: ignore[arg-type]  # as above
        elif kind is RequestVote:
            if message.transfer:  # type: ignore[union-attr]  # as above
                self._transfers.add((who.group, message.term, who.node))
            self._helps(who, message.term, who.node, disk)
        elif kind is RequestVoteReply and message.granted:  # type: ignore[union-attr]  # as above
            self._helps(who, message.term, message.target.node_id, disk)

    def _binds(self, who: Who, message: HeartbeatReply, disk: GroupDisk) -> None:
        asked = self._asked.get((who.group, message.term, message.round))
        if asked is not None and self._elections.leaders.get((who.group, message.term)) == message.target.node_id:
            until = asked + self._promised
            place = (who.group, who.node, disk.number)
            self._bound[place] = max(self._bound.get(place, (0, 0, 0)), (until, message.term, message.target.node_id))

    def _helps(self, who: Who, term: Term, candidate: NodeId, disk: GroupDisk) -> None:
        until, bound_in, leader = self._bound.get((who.group, who.node, disk.number), (0, 0, 0))
        if self._world.now() < until and term > bound_in and candidate != leader and (who.group, term, candidate) not in self._transfers:
            self.fail(f"{who} helps n{candidate} to lead in term {term}, but n{leader} has its word from term {bound_in} until {until}")
