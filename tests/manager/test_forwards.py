"""Forwarded requests: taken once, answered with what the leader's node would have raised."""

from __future__ import annotations

from typing import Any

import pytest

import trioraft
from trioraft import StateMachine
from trioraft.manager._forwarded import WINDOW, RemoteToken, SeenRequests
from trioraft.manager._forwards import Forwards
from trioraft.manager._outcome import TEXT_MAX
from trioraft.wire import Forward, ForwardOutcome, ForwardReply, RequestKind


class Refusing(StateMachine):
    declared_errors = (ValueError, KeyError)


class FakeGroup:
    machine = Refusing()

    def unknown_outcome(
        self, reason: str, index: int | None = None, term: int | None = None, *, request_id: tuple[int, int] | None = None
    ) -> trioraft.OutcomeUnknownError:
        return trioraft.OutcomeUnknownError(reason, index, term, request_id=request_id)


class Caller:
    def __init__(self) -> None:
        self.result: Any = None
        self.error: Exception | None = None

    def succeed(self, result: Any) -> None:
        self.result = result

    def fail(self, error: Exception) -> None:
        self.error = error


def asked(forwards: Forwards, caller: Caller, now: int = 0, kind: RequestKind = RequestKind.COMMAND) -> Forward:
    request = forwards.add(2, FakeGroup(), kind, b"x", caller, now)  # type: ignore[arg-type]  # a group as far as forwards look at one
    assert request is not None
    return request


def make(**limits: int) -> Forwards:
    return Forwards(3, pending_max=limits.get("pending_max", 10), timeout=1000)


def test_the_answer_reaches_the_caller() -> None:
    forwards, caller = make(), Caller()
    request = asked(forwards, caller)
    replies: list[ForwardReply] = []
    RemoteToken(request, replies.append, ()).succeed({"n": [1, b"2"]})
    forwards.answer(2, replies[0])
    assert caller.result == {"n": [1, b"2"]}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (trioraft.NotLeaderError(3), trioraft.NotLeaderError),
        (trioraft.NotLeaderError(None), trioraft.NotLeaderError),
        (trioraft.ProposalDroppedError("gone"), trioraft.ProposalDroppedError),
        (trioraft.BusyError("full"), trioraft.BusyError),
        (trioraft.EntryTooLargeError("big"), trioraft.EntryTooLargeError),
        (trioraft.GroupStoppedError(7), trioraft.ProposalDroppedError),
        (trioraft.GroupNotFoundError("none"), trioraft.ProposalDroppedError),
        (trioraft.OutcomeUnknownError("lost", 5, 2), trioraft.OutcomeUnknownError),
        (trioraft.ChangeRefusedError("learner_silent", "where is it?"), trioraft.ChangeRefusedError),
        (trioraft.TransferRefusedError("timeout", "too slow"), trioraft.TransferRefusedError),
        (trioraft.SessionExpiredError(7), trioraft.SessionExpiredError),
        (trioraft.SessionExpiredError(7, 3), trioraft.SessionExpiredError),
        (trioraft.ConfigError("no such thing"), trioraft.ConfigError),
        (trioraft.WireError("no CBOR"), trioraft.ConfigError),
        (RuntimeError("surprise"), trioraft.OutcomeUnknownError),
        (ValueError("no", 5), ValueError),
        (KeyError("k"), KeyError),
    ],
)
def test_errors_arrive_as_what_they_are(error: Exception, expected: type[Exception]) -> None:
    forwards, caller = make(), Caller()
    request = asked(forwards, caller)
    replies: list[ForwardReply] = []
    RemoteToken(request, replies.append, Refusing.declared_errors).fail(error)
    forwards.answer(2, replies[0])
    assert type(caller.error) is expected
    if isinstance(error, trioraft.NotLeaderError):
        assert caller.error.leader == error.leader  # type: ignore[union-attr]  # of that kind
    if isinstance(error, trioraft.OutcomeUnknownError):
        assert (caller.error.index, caller.error.term) == (5, 2)  # type: ignore[union-attr]  # of that kind
    if isinstance(error, trioraft.ChangeRefusedError | trioraft.TransferRefusedError):
        assert caller.error.kind == error.kind  # type: ignore[union-attr]  # of that kind
    if isinstance(error, trioraft.SessionExpiredError):
        assert (caller.error.session_id, caller.error.sequence) == (error.session_id, error.sequence)  # type: ignore[union-attr]
    if type(error) is expected and not isinstance(error, trioraft.OutcomeUnknownError):
        assert str(caller.error) == str(error)
    if type(error) in Refusing.declared_errors:
        assert caller.error is not None
        assert caller.error.args == error.args


def answer_to(kind: RequestKind, error: Exception) -> Exception | None:
    forwards, caller = make(), Caller()
    request = asked(forwards, caller, kind=kind)
    assert request.kind is kind
    replies: list[ForwardReply] = []
    RemoteToken(request, replies.append, Refusing.declared_errors).fail(error)
    forwards.answer(2, replies[0])
    return caller.error


@pytest.mark.parametrize("kind", RequestKind)
def test_only_a_machine_answers_with_declared_errors(kind: RequestKind) -> None:
    asks_the_machine = kind in (RequestKind.COMMAND, RequestKind.SESSION, RequestKind.QUERY)
    assert type(answer_to(kind, ValueError("no"))) is (ValueError if asks_the_machine else trioraft.OutcomeUnknownError)


@pytest.mark.parametrize("kind", RequestKind)
@pytest.mark.parametrize("error", [trioraft.GroupStoppedError(7), trioraft.GroupNotFoundError("none")])
def test_only_what_is_proposed_can_be_dropped(kind: RequestKind, error: Exception) -> None:
    """Reads, changes and transfers are asked for again where another leads."""
    is_proposed = kind in (RequestKind.COMMAND, RequestKind.SESSION)
    assert type(answer_to(kind, error)) is (trioraft.ProposalDroppedError if is_proposed else trioraft.NotLeaderError)


@pytest.mark.parametrize("text", ["x" * (TEXT_MAX + 1), "a lone \ud800"])
def test_a_refusal_stays_one_whatever_its_text(text: str) -> None:
    for error in (trioraft.BusyError(text), trioraft.ChangeRefusedError("stale_expect", text), trioraft.ConfigError(text)):
        heard = answer_to(RequestKind.CHANGE_MEMBERS, error)
        assert type(heard) is type(error)
        assert len(str(heard)) <= TEXT_MAX


def test_a_result_that_cannot_travel_is_never_called_dropped() -> None:
    forwards, caller = make(), Caller()
    request = asked(forwards, caller)
    replies: list[ForwardReply] = []
    RemoteToken(request, replies.append, ()).succeed(object())
    forwards.answer(2, replies[0])
    assert isinstance(caller.error, trioraft.OutcomeUnknownError)


@pytest.mark.parametrize(
    "reply",
    [
        ForwardReply(3, 1, ForwardOutcome.RESULT, b"\xff garbage"),
        ForwardReply(3, 1, ForwardOutcome.DECLARED_ERROR, b"\x81\x18\x63"),  # class number 99
        ForwardReply(3, 1, ForwardOutcome.UNKNOWN, b"\x01"),
        ForwardReply(3, 1, ForwardOutcome.CHANGE_REFUSED, b"\xf6"),
        ForwardReply(3, 1, ForwardOutcome.TRANSFER_REFUSED, b"\x81\x01"),
        ForwardReply(3, 1, ForwardOutcome.SESSION_EXPIRED, b"\x01"),
        ForwardReply(3, 1, 99, b"\xf6"),
    ],
)
def test_an_answer_that_makes_no_sense_leaves_the_outcome_unknown(reply: ForwardReply) -> None:
    forwards, caller = make(), Caller()
    asked(forwards, caller)
    forwards.answer(2, reply)
    assert isinstance(caller.error, trioraft.OutcomeUnknownError)


def test_answers_to_another_process_or_twice_are_ignored() -> None:
    forwards, caller = make(), Caller()
    request = asked(forwards, caller)
    forwards.answer(2, ForwardReply(2, request.number, ForwardOutcome.RESULT, b"\x01"))
    assert caller.result is None
    forwards.answer(2, ForwardReply(3, request.number, ForwardOutcome.RESULT, b"\x01"))
    forwards.answer(2, ForwardReply(3, request.number, ForwardOutcome.RESULT, b"\x02"))
    assert caller.result == 1


def test_a_lost_connection_leaves_outcomes_unknown() -> None:
    forwards, caller = make(), Caller()
    asked(forwards, caller)
    forwards.lost(2)
    assert isinstance(caller.error, trioraft.OutcomeUnknownError)


def test_what_waits_too_long_expires_oldest_first() -> None:
    forwards, first, second = make(), Caller(), Caller()
    asked(forwards, first, now=0)
    asked(forwards, second, now=500)
    forwards.expire(1000)
    assert isinstance(first.error, trioraft.OutcomeUnknownError)
    assert second.error is None


def test_too_many_waiting_are_refused_as_busy() -> None:
    forwards, caller = make(pending_max=1), Caller()
    asked(forwards, Caller())
    assert forwards.add(2, FakeGroup(), RequestKind.COMMAND, b"x", caller, 0) is None  # type: ignore[arg-type]  # as above
    assert isinstance(caller.error, trioraft.BusyError)


def test_CL_6_a_request_that_arrives_twice_is_taken_once() -> None:
    seen = SeenRequests(1)
    assert [seen.is_news(number) for number in (1, 2, 2, 5, 3, 5, 3, 4, 1)] == [True, True, False, True, True, False, False, True, False]


def test_a_request_too_old_to_tell_counts_as_seen() -> None:
    seen = SeenRequests(1)
    assert seen.is_news(1)
    assert seen.is_news(10 * WINDOW)
    assert not seen.is_news(2)
    assert seen.is_news(10 * WINDOW - WINDOW + 1)
