"""Clients with sessions: they ask until they are answered, always with the same sequence number, and count on being obeyed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import attrs

from .._errors import BusyError, NotLeaderError, ProposalDroppedError, RaftError, SessionExpiredError
from .._types import GroupId, Millis
from ..core import Entry, EntryKind
from ..group._session_table import encode_call, encode_close, encode_open
from ._applier import Outcome
from ._machine import Command

if TYPE_CHECKING:
    from ._clients import Clients, Operation

SESSIONS = 3
"""Clients with a session, in each group."""
ATTEMPTS_MAX = 6
AGAIN_MS = (100, 2500)
"""How long such a client waits for an answer."""
_LATE = 0.3
"""How often a message with a command comes once more, after its answer."""
_CLOSES = 0.03
"""How often a client closes its session before its next command."""
_HARMLESS = (NotLeaderError, BusyError, ProposalDroppedError)
"""Errors of an attempt that is in no log."""


@attrs.define(eq=False)
class _Sequenced:
    """A command of a session, until nobody asks for it any more."""

    operation: Operation
    session: int
    sequence: int
    open_attempts: int = 0
    """Attempts that may have done something."""
    is_given_up: bool = False


@attrs.frozen(eq=False)
class _Try:
    """One time that something of a session was sent."""

    client: SessionClient
    payload: bytes
    command: _Sequenced | None = None
    """None: it opens or closes the session."""

    kind = EntryKind.SESSION

    def accepted(self) -> None:
        pass

    def succeed(self, outcome: Outcome) -> None:
        if self.command is not None:
            self.client.acknowledged(self.command, self.payload, outcome)
        elif outcome.entry.payload == self.payload:
            self.client.opened(outcome)

    def fail(self, error: RaftError) -> None:
        if self.command is not None:
            self.client.failed(self.command, error)
        else:
            self.client.clients.may_retry(self.client.group, error, 0)


class SessionClient:
    """One client with a session of its own, or with the next one when that has ended."""

    def __init__(self, clients: Clients, group: GroupId) -> None:
        self.clients, self.group = clients, group
        self._session: int | None = None
        self._next = 1
        self._under_way: set[int] = set()
        self._waiting: list[Operation] = []
        self._opening = 0

    def issue(self, size: int) -> Operation:
        """Send a command, once there is a session."""
        operation = self.clients.begin(self.group, size)
        operation.fate = "refused"  # not sent yet
        if self._session is not None and self.clients.random.random() < _CLOSES:
            self._send(_Try(self, encode_close(self._session)))
            self._session = None
        self._waiting.append(operation)
        if self._session is not None:
            self._send_waiting()
        elif not self._opening:
            self._open(ATTEMPTS_MAX)
        return operation

    # --- the session ------------------------------------------------------------------------------------------------------------------

    def _open(self, attempts: int) -> None:
        self._opening = attempts
        if self._session is None and attempts and self._waiting:
            self._send(_Try(self, encode_open(self.clients.simulator.schedule.config.sessions_max)))
            self._later(self._open, attempts - 1)

    def opened(self, outcome: Outcome) -> None:
        if self._session is None and self._opening:
            self._session, self._next, self._opening = outcome.result[0], 1, 0
            self._under_way.clear()
            self._send_waiting()

    def _send_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for operation in waiting:
            command = _Sequenced(operation, self._session or 0, self._next)
            self._next += 1
            self._under_way.add(command.sequence)
            self._ask(command)

    # --- commands ---------------------------------------------------------------------------------------------------------------------

    def _ask(self, command: _Sequenced) -> None:
        """Send a command, unless it is known what became of it, or it has been asked for often enough."""
        operation = command.operation
        if operation.fate == "acknowledged" or command.is_given_up:
            return
        if operation.attempts >= ATTEMPTS_MAX:
            self._forget(command)
            return
        operation.attempts += 1
        operation.fate = "unknown"
        self._send_command(command)
        self._later(self._ask, command)

    def _send_command(self, command: _Sequenced) -> None:
        acknowledged = min(self._under_way, default=self._next) - 1 if command.session == self._session else command.sequence - 1
        self._send_once(command, encode_call(command.session, command.sequence, acknowledged, command.operation.payload))

    def _send_once(self, command: _Sequenced, payload: bytes) -> None:
        command.open_attempts += 1
        if not self._send(_Try(self, payload, command)):
            command.open_attempts -= 1

    def acknowledged(self, command: _Sequenced, payload: bytes, outcome: Outcome) -> None:
        is_news = command.operation.fate != "acknowledged"
        self.clients.acknowledged(command.operation, payload, outcome)
        if is_news:
            self._forget(command)
            if self.clients.random.random() < _LATE:
                self._later(self._send_once, command, payload)

    def failed(self, command: _Sequenced, error: RaftError) -> None:
        if isinstance(error, _HARMLESS):
            command.open_attempts -= 1
            if self.clients.may_retry(self.group, error, 0) and command.operation.fate == "unknown":
                self.clients.later(self._ask, command)
        elif isinstance(error, SessionExpiredError):
            # What is refused by this has done nothing, but an attempt before may have.
            command.open_attempts -= 1
            if command.session == self._session and error.sequence is None:
                self._session = None
            self._forget(command)

    def _forget(self, command: _Sequenced) -> None:
        """Nobody asks for this command any more."""
        command.is_given_up = True
        if command.session == self._session:
            self._under_way.discard(command.sequence)
        if command.operation.fate != "acknowledged":
            command.operation.fate = "unknown" if command.open_attempts else "refused"

    # --- sending ----------------------------------------------------------------------------------------------------------------------

    def _send(self, attempt: _Try) -> bool:
        node = self.clients.choose(self.group)
        if node is not None:
            self.clients.simulator.nodes[node].propose(self.group, attempt)
        return node is not None

    def _later(self, call: Any, *args: object) -> None:
        delay: Millis = self.clients.random.randint(*AGAIN_MS)
        self.clients.simulator.call_in(delay, call, *args)


class SessionClients:
    """All clients with sessions."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._by_group: dict[GroupId, list[SessionClient]] = {}

    def issue(self, group: GroupId, size: int) -> Operation:
        """Send a new command in some session."""
        if group not in self._by_group:
            self._by_group[group] = [SessionClient(self._clients, group) for _ in range(SESSIONS)]
        return self._clients.random.choice(self._by_group[group]).issue(size)

    @staticmethod
    def replay(log: Iterable[Entry]) -> list[int]:
        """The numbers of the commands of a log, in the order in which they take effect: by the rules of sessions, written once more."""
        effects: list[int] = []
        sessions: OrderedDict[int, tuple[int, set[int]]] = OrderedDict()
        for entry in log:
            if entry.kind is EntryKind.COMMAND:
                effects.append(Command.decode(entry.payload).number)
            elif entry.kind is EntryKind.SESSION:
                effects += _replay(entry, sessions)
        return effects


def _replay(entry: Entry, sessions: OrderedDict[int, tuple[int, set[int]]]) -> list[int]:
    """One entry of a session; `sessions` has of each up to which sequence answers are forgotten, and which others were answered."""
    numbers = [int.from_bytes(entry.payload[at : at + 8], "little") for at in (1, 9, 17)]
    if entry.payload[0] == 0:
        sessions[entry.index] = (0, set())
        while len(sessions) > numbers[0]:
            sessions.popitem(last=False)
    elif entry.payload[0] == 2:
        sessions.pop(numbers[0], None)
    elif numbers[0] in sessions:
        session, sequence, acknowledged = numbers
        forgotten, answered = sessions[session]
        forgotten = max(forgotten, acknowledged)
        sessions[session] = (forgotten, answered)
        sessions.move_to_end(session)
        if sequence > forgotten and sequence not in answered:
            answered.add(sequence)
            return [Command.decode(entry.payload[25:]).number]
    return []
