"""Proposals on their way to another node, and those that came from one.

A forward is sent once and never again by the library: the only answer that may get lost is "unknown". Requests to one peer are numbered;
the peer remembers which numbers of this process it has seen, so that a frame that arrives twice proposes once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs

from .._errors import (
    BusyError,
    EntryTooLargeError,
    GroupNotFoundError,
    GroupStoppedError,
    NotLeaderError,
    OutcomeUnknownError,
    ProposalDroppedError,
    WireError,
)
from .._types import Millis, NodeId
from ..group import RaftGroup, Token
from ..wire import Forward, ForwardOutcome, ForwardReply, decode_value, encode_value

WINDOW: Final = 4096
"""Requests of one peer that are remembered behind the newest one; an older one counts as seen."""


class SeenRequests:
    """Which request numbers of one process have come in: the newest, and a bit for each of the `WINDOW` before it."""

    def __init__(self, incarnation: int) -> None:
        self.incarnation: Final = incarnation
        self._newest = 0
        self._bits = 0

    def is_news(self, number: int) -> bool:
        """True the first time a number comes, False every time after, and for numbers too old to tell."""
        if number > self._newest:
            self._bits = ((self._bits << (number - self._newest)) | 1) & ((1 << WINDOW) - 1) if number - self._newest < WINDOW else 1
            self._newest = number
            return True
        age = self._newest - number
        if age >= WINDOW or self._bits >> age & 1:
            return False
        self._bits |= 1 << age
        return True


@attrs.define
class _Pending:
    group: RaftGroup
    token: Token
    expires: Millis


class Forwards:
    """The asking side: who waits for an answer of which peer."""

    def __init__(self, incarnation: int, *, pending_max: int, timeout: Millis) -> None:
        self._incarnation = incarnation
        self._pending_max = pending_max
        self._timeout = timeout
        self._numbers: dict[NodeId, int] = {}
        self._pending: dict[NodeId, dict[int, _Pending]] = {}

    def add(self, peer: NodeId, group: RaftGroup, payload: bytes, token: Token, now: Millis) -> Forward | None:
        """Number a request and remember who asked; None (the token knows why) when too many wait already."""
        waiting = self._pending.setdefault(peer, {})
        if len(waiting) >= self._pending_max:
            token.fail(BusyError(f"{len(waiting)} proposals wait for node {peer} already: propose again later"))
            return None
        number = self._numbers[peer] = self._numbers.get(peer, 0) + 1
        waiting[number] = _Pending(group, token, now + self._timeout)
        return Forward(self._incarnation, number, payload)

    def answer(self, peer: NodeId, reply: ForwardReply) -> None:
        """Tell whoever asked. An answer that nobody waits for any more is ignored."""
        if reply.incarnation != self._incarnation:
            return
        pending = self._pending.get(peer, {}).pop(reply.number, None)
        if pending is None:
            return
        try:
            outcome = _decode_outcome(pending.group, reply)
        except Exception:  # noqa: BLE001  # a peer's bytes and a user's exception class: neither may cost this node anything
            outcome = pending.group.unknown_outcome(f"the answer of node {peer} was not understood")
        if isinstance(outcome, _Result):
            pending.token.succeed(outcome.value)
        else:
            pending.token.fail(outcome)

    def lost(self, peer: NodeId) -> None:
        """What was sent to the peer, or its answers, may be lost: nobody can tell what became of it."""
        for pending in self._pending.pop(peer, {}).values():
            pending.token.fail(pending.group.unknown_outcome(f"the connection with node {peer} was lost"))

    def close(self) -> None:
        """This node stops: no answer will be heard any more."""
        for peer in list(self._pending):
            for pending in self._pending.pop(peer).values():
                pending.token.fail(pending.group.unknown_outcome(f"this node stopped while node {peer} had the proposal"))

    def expire(self, now: Millis) -> None:
        """Give up on what has waited too long. Costs nothing while nothing waits: the oldest come first."""
        for peer, waiting in self._pending.items():
            while waiting:
                number = next(iter(waiting))
                if waiting[number].expires > now:
                    break
                pending = waiting.pop(number)
                pending.token.fail(pending.group.unknown_outcome(f"node {peer} did not answer in {self._timeout} ms"))


@attrs.frozen
class _Result:
    value: Any


def _decode_outcome(group: RaftGroup, reply: ForwardReply) -> _Result | Exception:
    """The answer as a value, or as the error that the leader's node would have raised."""
    outcome = ForwardOutcome(reply.outcome)
    body = decode_value(reply.body)
    match outcome:
        case ForwardOutcome.RESULT:
            return _Result(body)
        case ForwardOutcome.DECLARED_ERROR:
            kind, *arguments = body
            return _rebuild(group.machine.declared_errors[kind], arguments)
        case ForwardOutcome.NOT_LEADER:
            return NotLeaderError(body)
        case ForwardOutcome.DROPPED:
            return ProposalDroppedError(str(body))
        case ForwardOutcome.BUSY:
            return BusyError(str(body))
        case ForwardOutcome.TOO_LARGE:
            return EntryTooLargeError(str(body))
        case ForwardOutcome.STOPPED | ForwardOutcome.NOT_FOUND:
            return ProposalDroppedError(str(body))
        case ForwardOutcome.UNKNOWN:
            index, term = body
            return group.unknown_outcome("the leader lost its office or stopped", index, term)


class RemoteToken:
    """The answering side: a proposal's answer goes back to the node that forwarded it."""

    __slots__ = ("_errors", "_request", "_send")

    def __init__(self, request: Forward, send: Callable[[ForwardReply], None], errors: tuple[type[Exception], ...]) -> None:
        self._request, self._send, self._errors = request, send, errors

    def succeed(self, result: Any) -> None:
        self._reply(ForwardOutcome.RESULT, result)

    def fail(self, error: Exception) -> None:
        outcome, body = self._describe(error)
        self._reply(outcome, body)

    def _describe(self, error: Exception) -> tuple[ForwardOutcome, Any]:
        kind = _declared_kind(self._errors, error)
        if kind is not None:
            return ForwardOutcome.DECLARED_ERROR, [kind, *map(_plain, error.args)]
        match error:
            case NotLeaderError():
                return ForwardOutcome.NOT_LEADER, error.leader
            case ProposalDroppedError():
                return ForwardOutcome.DROPPED, str(error)
            case BusyError():
                return ForwardOutcome.BUSY, str(error)
            case EntryTooLargeError():
                return ForwardOutcome.TOO_LARGE, str(error)
            case GroupStoppedError():
                return ForwardOutcome.STOPPED, str(error)
            case GroupNotFoundError():
                return ForwardOutcome.NOT_FOUND, str(error)
            case OutcomeUnknownError():
                return ForwardOutcome.UNKNOWN, [error.index, error.term]
        return ForwardOutcome.UNKNOWN, [None, None]

    def _reply(self, outcome: ForwardOutcome, body: Any) -> None:
        """Send the answer; what cannot travel becomes "unknown", for it was applied: never say that nothing happened."""
        try:
            encoded = encode_value(body)
        except WireError:
            outcome, encoded = ForwardOutcome.UNKNOWN, encode_value([None, None])
        self._send(ForwardReply(self._request.incarnation, self._request.number, outcome, encoded))


def _declared_kind(declared: tuple[type[Exception], ...], error: Exception) -> int | None:
    """Which of the machine's declared errors this is: the class itself before a base of it."""
    if type(error) in declared:
        return declared.index(type(error))
    return next((kind for kind, base in enumerate(declared) if isinstance(error, base)), None)


def _rebuild(kind: type[Exception], arguments: list[Any]) -> Exception:
    """The error as it was raised, without running its constructor: that may want other arguments than it kept."""
    error = kind.__new__(kind, *arguments)
    error.args = tuple(arguments)
    return error


def too_large_to_send(reply: ForwardReply) -> ForwardReply:
    """What is said instead of a result that no frame can hold: the proposal was taken, and its answer cannot come."""
    return ForwardReply(reply.incarnation, reply.number, ForwardOutcome.UNKNOWN, encode_value([None, None]))


def _plain(argument: Any) -> Any:
    """An exception's argument as something that can travel."""
    return argument if isinstance(argument, int | str | bytes | float | None) else str(argument)
