"""Bugs on purpose in what clients and operators rely on: changes of members, reads, leases, sessions, answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs

from .._errors import ChangeRefusedError
from .._types import EntryId, Index, Millis, NodeId, Term
from ..core import AppendEntriesReply, Configuration, Event, Raft, _membership, _reads, _replication
from ..core._configurations import Configurations
from ..core._replica import Replica
from ..core._roles import Leader, ReadRound
from ..group._proposals import Proposals
from ..group._session_table import SessionTable
from ._applier import SimulatedApplier
from ._plant import Plant, on_step


def _agree(_original: object) -> Callable[..., bool]:
    return lambda *_args: True


def _do_nothing(_original: object) -> Callable[..., None]:
    return lambda *_args: None


def _answer_at_once(_original: object) -> Callable[..., None]:
    return lambda _applier, _index, call: call()


def _reuse_round(original: Callable[[Replica, Leader, Millis], None]) -> Callable[[Replica, Leader, Millis], None]:
    def begin_round(replica: Replica, state: Leader, now: Millis) -> None:
        replica.rounds = 0
        original(replica, state, now)

    return begin_round


def _lease_from_answer(original: Callable[[Replica, Leader, ReadRound], bool]) -> Callable[[Replica, Leader, ReadRound], bool]:
    def confirm(replica: Replica, state: Leader, current: ReadRound) -> bool:
        is_confirmed = original(replica, state, current)
        if is_confirmed:
            state.lease_until += replica._now - current.sent_at
        return is_confirmed

    return confirm


def _count_learners(_original: object) -> Callable[[Configuration, dict[NodeId, Index]], Index]:
    """Wait for as many as there must be, whoever they are."""

    def index(configuration: Configuration, values: dict[NodeId, Index]) -> Index:
        found = sorted((values.get(node_id, 0) for node_id in configuration.members()), reverse=True)
        return found[len(configuration.voters) // 2]

    return index


def _ignore_pending(original: Callable[..., None]) -> Callable[..., None]:
    def check(*args: object) -> None:
        try:
            original(*args)
        except ChangeRefusedError as error:
            if error.kind != "change_pending":
                raise

    return check


def _count_former(raft: Raft, event: Event) -> Event:
    """Let an acknowledgement count for the node, whichever of its lives has given it."""
    if isinstance(event, AppendEntriesReply) and event.source.node_id in raft.configuration.replicas:
        return attrs.evolve(event, source=raft.configuration.member(event.source.node_id))
    return event


def _forget_answers(original: Callable[..., SessionTable]) -> Callable[..., SessionTable]:
    def restored(self: SessionTable, records: Iterator[Any]) -> SessionTable:
        table = original(self, records)
        for session in table._sessions.values():
            session.answers.clear()
        return table

    return restored


def _answer_whoever_waits(original: Callable[..., None]) -> Callable[..., None]:
    def answer(self: Proposals, index: Index, term: Term, result: Any, error: Exception | None = None) -> None:
        link = self._waiting.pop(index, None)
        while link is not None:
            _, token, link = link
            self.add(EntryId(term, index), token)
        original(self, index, term, result, error)

    return answer


CLIENT_PLANTS: dict[str, Plant] = {
    "read-before-own-term-commits": Plant(
        "a new leader does not know yet what was acknowledged before (scenario RD-2)", 50, _reads, "_has_begun", _agree
    ),
    "read-before-it-is-applied": Plant(
        "the index is right, and the machine is not there yet (scenario RD-5)", 50, SimulatedApplier, "when_applied", _answer_at_once
    ),
    "read-round-reused": Plant("answers to an older round confirm who may be replaced by now", 20, _reads, "begin_round", _reuse_round),
    "learner-counted": Plant("what learners hold counts as committed (paper 6)", 50, _replication, "joint_index", _count_learners),
    "configuration-not-rolled-back": Plant(
        "a replica goes by members whose entry was replaced (dissertation 4.1)", 200, Configurations, "truncate", _do_nothing
    ),
    "second-change-while-one-is-pending": Plant(
        "two configurations whose quorums need not meet (scenario MB-3)", 50, _membership, "_check_ready", _ignore_pending
    ),
    "former-replica-acknowledges": Plant(
        "what a node held before it was wiped and added again counts for what it holds now", 100, *on_step(_count_former)
    ),
    "lease-from-acknowledgement": Plant("a lease outlives the promises that it counts on", 100, _reads, "_confirm", _lease_from_answer),
    "duplicate-after-snapshot": Plant(
        "a command that comes again behind a snapshot takes effect again",
        100,
        SessionTable,
        "restored",
        _forget_answers,
    ),
    "waiters-by-index-only": Plant(
        "who waits for an entry is told that another one in its place is done", 50, Proposals, "answer", _answer_whoever_waits
    ),
}
