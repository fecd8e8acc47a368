"""Answers reads at a simulated replica, in one life, as the group floor does: the core tells from which index on a state is new enough.

- *linearizable*: the leader's core tells the index, after a round; the answer is the leader's machine's.
- *lease*: the leader answers at once while it holds a lease, and looks again right before the answer: it may have been stopped.
- *follower*: any replica asks the leader for the index, by messages that may be lost or come twice, and answers from its own machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import attrs

from .._errors import NotLeaderError, RaftError
from .._types import Index, NodeId

if TYPE_CHECKING:
    from ._replica import SimulatedReplica

LEVELS = ("linearizable", "follower", "lease")


class Asker(Protocol):
    """A client that reads."""

    @property
    def key(self) -> int: ...

    @property
    def level(self) -> str: ...

    def answer(self, value: int | None) -> None: ...

    def fail(self, error: RaftError) -> None: ...


class IndexAsked(NamedTuple):
    """From which index on may the source answer reads that have come by now?"""

    source: NodeId
    target: NodeId
    life: int
    """Of the source: numbers begin anew with each."""
    number: int

    def __str__(self) -> str:
        return f"n{self.source} -> n{self.target} which index? ({self.life}.{self.number})"


class IndexTold(NamedTuple):
    """The leader's answer; None: it does not lead."""

    source: NodeId
    target: NodeId
    life: int
    number: int
    read_index: Index | None

    def __str__(self) -> str:
        return f"n{self.source} -> n{self.target} index {self.read_index} ({self.life}.{self.number})"


@attrs.frozen(eq=False)
class Question:
    """What the core is asked for an index with."""

    succeed: Callable[[Index], None]
    fail: Callable[[RaftError], None]


class SimulatedReader:
    """Reads of one replica."""

    def __init__(self, replica: SimulatedReplica) -> None:
        self._replica = replica
        self._asked: dict[int, Asker] = {}
        self._count = 0

    def read(self, asker: Asker) -> None:
        """A client asks this replica."""
        raft = self._replica.raft
        if asker.level == "follower" and raft.leader is None:
            asker.fail(NotLeaderError(None))
        elif asker.level == "follower" and raft.leader != self._replica.node.id:
            self._ask_leader(asker, raft.leader)
        elif asker.level == "lease" and self._holds_lease:
            self._replica.applier.when_applied(raft.commit_index, lambda: self._end_lease(asker))
        else:
            self._ask_core(asker)

    def _ask_core(self, asker: Asker) -> None:
        self._replica.ask_index(Question(lambda index: self._answer_at(index, asker), asker.fail))

    def _answer_at(self, index: Index, asker: Asker) -> None:
        applier = self._replica.applier
        applier.when_applied(index, lambda: asker.answer(applier.machine.registers.get(asker.key)))

    # --- leases -----------------------------------------------------------------------------------------------------------------------

    @property
    def _holds_lease(self) -> bool:
        return self._replica.node.local_now() < self._replica.raft.lease_until

    def _end_lease(self, asker: Asker) -> None:
        """The machine is as far as it was when the lease was looked at first."""
        replica = self._replica
        if not self._holds_lease:
            self._ask_core(asker)
            return
        replica.node.simulator.counts["leases"] += 1
        for check in replica.node.simulator.checkers.leases:
            check(replica.who, replica.raft.term, replica.log.configurations[-1][1])
        asker.answer(replica.applier.machine.registers.get(asker.key))

    # --- indexes from the leader --------------------------------------------------------------------------------------------------------

    def _ask_leader(self, asker: Asker, leader: NodeId | None) -> None:
        node = self._replica.node
        self._count += 1
        self._asked[self._count] = asker
        node.send(self._replica.group, IndexAsked(node.id, leader or 0, node.life, self._count))

    def asked(self, message: IndexAsked) -> None:
        """Another replica asks; nobody keeps the same question from being answered twice."""
        self._replica.ask_index(Question(lambda index: self._tell(message, index), lambda _error: self._tell(message, None)))

    def _tell(self, message: IndexAsked, index: Index | None) -> None:
        told = IndexTold(message.target, message.source, message.life, message.number, index)
        self._replica.node.send(self._replica.group, told)

    def told(self, message: IndexTold) -> None:
        """The leader has answered, maybe to a former life, or once more."""
        if message.life != self._replica.node.life or (asker := self._asked.pop(message.number, None)) is None:
            return
        if message.read_index is None:
            asker.fail(NotLeaderError(None))
        else:
            self._answer_at(message.read_index, asker)
