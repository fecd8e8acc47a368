"""The clients of a simulation: what they ask for and what they are told, kept so that the end can be compared with what was promised.

A plain command is sent again only when it is known to be in no log. A command of a session is sent again until there is an answer, and
sometimes once more after that: it must take effect once all the same. Reads are asked of anybody.
"""

from __future__ import annotations

import random
from collections import defaultdict
from typing import TYPE_CHECKING

import attrs

from .._errors import BusyError, NotLeaderError, OutcomeUnknownError, ProposalDroppedError, RaftError
from .._types import GroupId, Millis, NodeId
from ..core import EntryKind
from ._applier import Outcome
from ._linearizability import Read, Write, find_fault
from ._machine import Command
from ._session_clients import SessionClients
from ._violation import PropertyViolation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..core import Entry
    from ._simulator import Simulator

KEYS = 3
"""Registers of a group."""
ATTEMPTS_MAX = 4
RETRY_MS = (5, 60)
FAITH = 0.95
"""How often a client goes to the leader that it believes in, and not to just anybody."""


@attrs.define(eq=False)
class Operation:
    """One command of one client."""

    group: GroupId
    command: Command
    payload: bytes
    called: int
    """A moment, as the clients count them."""
    returned: int | None = None
    fate: str = "unknown"
    """``unknown`` (sent; may or may not happen), ``accepted`` (in a log), ``acknowledged``, ``dropped`` or ``refused`` (in no log)."""
    attempts: int = 0
    place: int = 0
    """Acknowledged: as the how manyth it took effect, as the client was told."""

    def __str__(self) -> str:
        return self.payload[:12].decode(errors="replace").rstrip("-")


@attrs.define(eq=False)
class Reading:
    """One read of one client."""

    group: GroupId
    key: int
    level: str
    called: int
    clients: Clients
    returned: int | None = None
    value: int | None = None
    attempts: int = 0

    def answer(self, value: int | None) -> None:
        if self.returned is None:
            self.value, self.returned = value, self.clients.moment()
            self.clients.simulator.note("read", self)

    def fail(self, error: RaftError) -> None:
        if self.clients.may_retry(self.group, error, self.attempts):
            self.clients.later(self.clients.ask, self)

    def __str__(self) -> str:
        return f"{self.level} read of k{self.key} in g{self.group}: {self.value}"


@attrs.frozen(eq=False)
class Attempt:
    """One time that a plain command was sent: what the core and the applier answer to."""

    clients: Clients
    operation: Operation

    @property
    def payload(self) -> bytes:
        return self.operation.payload

    kind = EntryKind.COMMAND

    def accepted(self) -> None:
        self.operation.fate = "accepted"

    def succeed(self, outcome: Outcome) -> None:
        self.clients.acknowledged(self.operation, self.payload, outcome)

    def fail(self, error: RaftError) -> None:
        operation = self.operation
        if isinstance(error, ProposalDroppedError):
            operation.fate = "dropped"
        elif isinstance(error, OutcomeUnknownError):
            operation.fate = "unknown"
        else:
            operation.fate = "refused"
            if self.clients.may_retry(operation.group, error, operation.attempts):
                self.clients.later(self.clients.attempt, operation)


class Clients:
    """All clients of a simulation. They go where they believe the leader is, and follow its hints."""

    def __init__(self, simulator: Simulator, generator: random.Random) -> None:
        self.simulator = simulator
        self.random = generator
        self.operations: list[Operation] = []
        self.readings: list[Reading] = []
        self.sessions = SessionClients(self)
        self._believed_leader: dict[GroupId, NodeId] = {}
        self._moments = 0
        self.are_gone = False
        """Nobody asks for anything any more."""

    def moment(self) -> int:
        """What happens now comes behind everything that has happened."""
        self._moments += 1
        return self._moments

    def believe(self, group: GroupId, leader: NodeId) -> None:
        """Send the next commands to this node, until it names another."""
        self._believed_leader[group] = leader

    def choose(self, group: GroupId, faith: float = FAITH) -> NodeId | None:
        """Whom to ask: the believed leader, as often as `faith` says, or anybody; None: nobody is up."""
        if self.are_gone:
            return None
        up = [node.id for node in self.simulator.nodes.values() if node.is_up]
        believed = self._believed_leader.get(group)
        if believed in up and self.random.random() < faith:
            return believed
        return self.random.choice(up) if up else None

    def may_retry(self, group: GroupId, error: RaftError, attempts: int) -> bool:
        """Take in why something was refused; tell whether to ask again."""
        if isinstance(error, NotLeaderError):
            if error.leader is not None:
                self._believed_leader[group] = error.leader
            else:
                self._believed_leader.pop(group, None)
        elif not isinstance(error, BusyError):
            return False
        return attempts < ATTEMPTS_MAX

    def later(self, call: object, *args: object) -> None:
        delay: Millis = self.random.randint(*RETRY_MS)
        self.simulator.call_in(delay, call, *args)  # type: ignore[arg-type]  # a bound method of this floor

    # --- commands -----------------------------------------------------------------------------------------------------------------------

    def begin(self, group: GroupId, size: int) -> Operation:
        """Make up a new command of at least `size` bytes."""
        command = Command(len(self.operations), len(self.operations) % KEYS)
        operation = Operation(group, command, command.encode(size), self.moment())
        self.operations.append(operation)
        return operation

    def issue(self, group: GroupId, size: int) -> Operation:
        """Send a new plain command to somebody."""
        operation = self.begin(group, size)
        self.attempt(operation)
        return operation

    def attempt(self, operation: Operation) -> None:
        node = self.choose(operation.group)
        if node is not None:
            operation.attempts += 1
            operation.fate = "unknown"
            self.simulator.nodes[node].propose(operation.group, Attempt(self, operation))

    def acknowledged(self, operation: Operation, payload: bytes, outcome: Outcome) -> None:
        """A command was applied."""
        who, entry, (place, _) = outcome
        if entry.payload != payload:
            raise PropertyViolation("client-answers", f"the answer to {payload!r} is {entry}, which is {entry.payload!r}")
        for check in self.simulator.checkers.acknowledges:
            check(who, entry)
        if operation.fate == "acknowledged" and operation.place != place:
            raise PropertyViolation("client-answers", f"{operation} took effect as number {operation.place}, and again as number {place}")
        operation.fate, operation.place = "acknowledged", place
        if operation.returned is None:
            operation.returned = self.moment()
        self.simulator.note("ack", who, operation, entry)

    # --- reads ------------------------------------------------------------------------------------------------------------------------

    def read(self, group: GroupId, level: str) -> Reading:
        """Ask somebody for the state of one register."""
        reading = Reading(group, self.random.randrange(KEYS), level, self.moment(), self)
        self.readings.append(reading)
        self.ask(reading)
        return reading

    def ask(self, reading: Reading) -> None:
        node = self.choose(reading.group, faith=0 if reading.level == "follower" else FAITH)
        if node is not None:
            reading.attempts += 1
            self.simulator.nodes[node].read(reading.group, reading)

    # --- the end ----------------------------------------------------------------------------------------------------------------------

    def check(self, committed: Mapping[GroupId, Sequence[Entry]]) -> None:
        """Compare every promise with what was committed in the end.

        Raises:
            PropertyViolation: an acknowledged command is not there, or any took effect twice, or one that was refused did; or no register
                could have answered as these have.
        """
        for group, log in committed.items():
            self._check_commands(group, self.sessions.replay(log))
            self._check_history(group)

    def _check_commands(self, group: GroupId, effects: Sequence[int]) -> None:
        places: defaultdict[int, list[int]] = defaultdict(list)
        for place, number in enumerate(effects, 1):
            places[number].append(place)
        for operation in self.operations:
            if operation.group != group:
                continue
            found = places[operation.command.number]
            if len(found) > 1:
                raise PropertyViolation("client-answers", f"{operation} took effect {len(found)} times")
            if operation.fate == "acknowledged" and found != [operation.place]:
                text = f"{operation} was acknowledged as number {operation.place}"
                raise PropertyViolation("client-answers", f"{text} and " + (f"is number {found[0]}" if found else "is not committed"))
            if operation.fate in ("refused", "dropped") and found:
                raise PropertyViolation("client-answers", f"{operation} was {operation.fate} and is committed")

    def _check_history(self, group: GroupId) -> None:
        for key in range(KEYS):
            writes = [
                Write(one.command.number, one.called, one.returned, is_refused=one.fate in ("refused", "dropped"))
                for one in self.operations
                if one.group == group and one.command.key == key
            ]
            reads = [
                Read(one.value, one.called, one.returned)
                for one in self.readings
                if one.group == group and one.key == key and one.returned is not None
            ]
            fault = find_fault(writes, reads)
            if fault is not None:
                raise PropertyViolation("linearizability", f"register {key} of group {group}: {fault}")
