"""Requests on their way to another node, and who waits for their answers.

A forward is sent once and never again by the library: where its answer may be lost, the outcome is unknown. Requests to one peer are
numbered; the peer remembers which numbers of this process it has seen, so that one that arrives twice is taken once.
"""

from __future__ import annotations

import attrs

from .._errors import BusyError, OutcomeUnknownError
from .._types import Millis, NodeId
from ..group import RaftGroup, Token
from ..wire import Forward, ForwardReply, RequestKind
from ._outcome import Result, decode_outcome


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

    def add(self, peer: NodeId, group: RaftGroup, kind: RequestKind, payload: bytes, token: Token, now: Millis) -> Forward | None:
        """Number a request and remember who asked; None (the token knows why) when too many wait already."""
        waiting = self._pending.setdefault(peer, {})
        if len(waiting) >= self._pending_max:
            token.fail(BusyError(f"{len(waiting)} requests wait for node {peer} already: ask again later"))
            return None
        number = self._numbers[peer] = self._numbers.get(peer, 0) + 1
        waiting[number] = _Pending(group, token, now + self._timeout)
        return Forward(self._incarnation, number, payload, kind)

    def answer(self, peer: NodeId, reply: ForwardReply) -> None:
        """Tell whoever asked. An answer that nobody waits for any more is ignored."""
        if reply.incarnation != self._incarnation:
            return
        pending = self._pending.get(peer, {}).pop(reply.number, None)
        if pending is None:
            return
        try:
            outcome = decode_outcome(pending.group, reply)
        except Exception:  # noqa: BLE001  # a peer's bytes and a user's exception class: neither may cost this node anything
            outcome = self._unknown(reply.number, pending, f"the answer of node {peer} was not understood")
        if isinstance(outcome, Result):
            pending.token.succeed(outcome.value)
        else:
            pending.token.fail(outcome)

    def lost(self, peer: NodeId) -> None:
        """What was sent to the peer, or its answers, may be lost: nobody can tell what became of it."""
        for number, pending in self._pending.pop(peer, {}).items():
            pending.token.fail(self._unknown(number, pending, f"the connection with node {peer} was lost"))

    def close(self) -> None:
        """This node stops: no answer will be heard any more."""
        for peer in list(self._pending):
            for number, pending in self._pending.pop(peer).items():
                pending.token.fail(self._unknown(number, pending, f"this node stopped while node {peer} had the request"))

    def expire(self, now: Millis) -> None:
        """Give up on what has waited too long. Costs nothing while nothing waits: the oldest come first."""
        for peer, waiting in self._pending.items():
            while waiting:
                number = next(iter(waiting))
                if waiting[number].expires > now:
                    break
                pending = waiting.pop(number)
                pending.token.fail(self._unknown(number, pending, f"node {peer} did not answer in {self._timeout} ms"))

    def _unknown(self, number: int, pending: _Pending, reason: str) -> OutcomeUnknownError:
        return pending.group.unknown_outcome(reason, request_id=(self._incarnation, number))
