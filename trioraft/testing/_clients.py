"""The clients of a simulation: each command once, with its fate kept, so that the end can be compared with what was promised."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from .._errors import BusyError, NotLeaderError, RaftError
from .._types import GroupId, Millis, NodeId
from ..core import Entry, EntryKind
from ._violation import PropertyViolation

if TYPE_CHECKING:
    from ._simulator import Simulator

ATTEMPTS_MAX = 4
RETRY_MS = (5, 60)
FAITH = 0.95
"""How often a client goes to the leader that it believes in, and not to just anybody."""


@attrs.define(eq=False)
class Operation:
    """One command of one client."""

    group: GroupId
    payload: bytes
    fate: str = "unknown"
    """``unknown`` (sent; may or may not happen), ``accepted`` (in a log), ``acknowledged``, ``dropped`` or ``refused`` (in no log)."""
    attempts: int = 0

    def accepted(self) -> None:
        self.fate = "accepted"

    def dropped(self) -> None:
        self.fate = "dropped"

    def acknowledged(self, entry: Entry) -> None:
        if entry.payload != self.payload:
            raise PropertyViolation("client-answers", f"the answer to {self.payload!r} is {entry}, which is {entry.payload!r}")
        self.fate = "acknowledged"

    def __str__(self) -> str:
        return self.payload[:12].decode(errors="replace").rstrip("-")


class Clients:
    """All clients of a simulation. They go where they believe the leader is, and follow its hints."""

    def __init__(self, simulator: Simulator, generator: random.Random) -> None:
        self._simulator = simulator
        self._random = generator
        self.operations: list[Operation] = []
        self._believed_leader: dict[GroupId, NodeId] = {}

    def believe(self, group: GroupId, leader: NodeId) -> None:
        """Send the next commands to this node, until it names another."""
        self._believed_leader[group] = leader

    def issue(self, group: GroupId, size: int) -> Operation:
        """Send a new command of at least `size` bytes to somebody."""
        operation = Operation(group, f"c{len(self.operations)}-".encode().ljust(size, b"-"))
        self.operations.append(operation)
        self._attempt(operation)
        return operation

    def _attempt(self, operation: Operation) -> None:
        node = self._choose(operation.group)
        if node is None:
            return
        operation.attempts += 1
        operation.fate = "unknown"
        self._simulator.nodes[node].propose(operation)

    def _choose(self, group: GroupId) -> NodeId | None:
        up = [node.id for node in self._simulator.nodes.values() if node.is_up]
        believed = self._believed_leader.get(group)
        if believed in up and self._random.random() < FAITH:
            return believed
        return self._random.choice(up) if up else None

    def refused(self, operation: Operation, error: RaftError) -> None:
        """Take in that the command is in no log; try again where that may help."""
        operation.fate = "refused"
        if isinstance(error, NotLeaderError):
            if error.leader is not None:
                self._believed_leader[operation.group] = error.leader
            else:
                self._believed_leader.pop(operation.group, None)
        elif not isinstance(error, BusyError):
            return
        if operation.attempts < ATTEMPTS_MAX:
            delay: Millis = self._random.randint(*RETRY_MS)
            self._simulator.call_in(delay, self._attempt, operation)

    def check(self, committed: Mapping[GroupId, Sequence[Entry]]) -> None:
        """Compare every promise with what was committed in the end.

        Raises:
            PropertyViolation: an acknowledged command is not there, or any is there twice, or one that was refused is there.
        """
        counts = Counter((group, entry.payload) for group, log in committed.items() for entry in log if entry.kind is EntryKind.COMMAND)
        for operation in self.operations:
            count = counts[operation.group, operation.payload]
            if count > 1:
                raise PropertyViolation("client-answers", f"{operation} was proposed once at a time and committed {count} times")
            if operation.fate == "acknowledged" and count != 1:
                raise PropertyViolation("client-answers", f"{operation} was acknowledged and is not committed")
            if operation.fate in ("refused", "dropped") and count:
                raise PropertyViolation("client-answers", f"{operation} was {operation.fate} and is committed")
