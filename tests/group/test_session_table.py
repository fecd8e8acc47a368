"""The table of sessions by itself: what is applied once, what is kept, who is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from trioraft import SessionExpiredError, SnapshotError, WireError
from trioraft.group._session_table import (
    ANSWERS_MAX,
    Result,
    SessionTable,
    check_entry,
    command_of,
    encode_call,
    encode_close,
    encode_open,
)
from trioraft.group._user_code import LedView


class RefusedError(Exception):
    """Declared by the machine."""


class Log:
    """Entries of sessions, applied one after the other."""

    def __init__(self, table: SessionTable | None = None) -> None:
        self.table = SessionTable((RefusedError,)) if table is None else table
        self.index = 0
        self.applied: list[bytes] = []
        self.result: Result = None, None

    def apply(self, payload: bytes) -> Result:
        check_entry(payload)
        self.index += 1
        return self.table.apply(self.index, payload, self.run)

    def run(self, command: bytes) -> Result:
        self.applied.append(command)
        return self.result

    def open(self, sessions_max: int = 8) -> int:
        session_id, error = self.apply(encode_open(sessions_max))
        assert error is None
        return int(session_id)


def test_a_command_that_comes_twice_is_applied_once() -> None:
    log = Log()
    session = log.open()
    log.result = {"n": 1}, None
    assert log.apply(encode_call(session, 1, 0, b"a")) == ({"n": 1}, None)
    log.result = {"n": 2}, None
    assert log.apply(encode_call(session, 1, 0, b"a")) == ({"n": 1}, None)
    assert log.apply(encode_call(session, 2, 0, b"b")) == ({"n": 2}, None)
    assert log.applied == [b"a", b"b"]


def test_a_declared_error_is_an_answer_like_any_other() -> None:
    log = Log()
    session = log.open()
    log.result = None, RefusedError("no", 7)
    log.apply(encode_call(session, 1, 0, b"a"))
    _, error = log.apply(encode_call(session, 1, 0, b"a"))
    assert isinstance(error, RefusedError)
    assert error.args == ("no", 7)
    assert log.applied == [b"a"]


def test_a_result_that_is_no_value_is_answered_once_and_applied_once() -> None:
    log = Log()
    session = log.open()
    log.result = object(), None
    assert log.apply(encode_call(session, 1, 0, b"a")) == log.result
    result, error = log.apply(encode_call(session, 1, 0, b"a"))
    assert result is None
    assert isinstance(error, WireError)
    assert log.applied == [b"a"]


def test_what_the_client_is_done_with_is_forgotten_and_not_applied_again() -> None:
    log = Log()
    session = log.open()
    log.apply(encode_call(session, 1, 0, b"a"))
    log.apply(encode_call(session, 2, 1, b"b"))
    _, error = log.apply(encode_call(session, 1, 0, b"a"))
    assert isinstance(error, SessionExpiredError)
    assert (error.session_id, error.sequence) == (session, 1)
    assert log.applied == [b"a", b"b"]


def test_the_session_that_has_been_quiet_for_longest_goes() -> None:
    log = Log()
    first, second = log.open(2), log.open(2)
    log.apply(encode_call(first, 1, 0, b"a"))
    third = log.open(2)
    assert log.apply(encode_call(first, 2, 0, b"b"))[1] is None
    assert log.apply(encode_call(third, 1, 0, b"c"))[1] is None
    _, error = log.apply(encode_call(second, 1, 0, b"d"))
    assert isinstance(error, SessionExpiredError)
    assert log.applied == [b"a", b"b", b"c"]


def test_a_closed_session_is_gone_and_closing_it_again_is_fine() -> None:
    log = Log()
    session = log.open()
    for _ in range(2):
        assert log.apply(encode_close(session)) == (None, None)
    assert isinstance(log.apply(encode_call(session, 1, 0, b"a"))[1], SessionExpiredError)
    assert log.applied == []


def test_answers_of_a_client_that_is_never_done_are_bounded() -> None:
    log = Log()
    session = log.open()
    for sequence in range(1, ANSWERS_MAX + 2):
        log.apply(encode_call(session, sequence, 0, b"a"))
    _, (_, acknowledged, answers) = log.table.records()
    assert (acknowledged, len(answers)) == (1, ANSWERS_MAX)


def test_a_table_survives_a_snapshot_in_its_order() -> None:
    log = Log()
    first, second = log.open(2), log.open(2)
    log.result = "one", None
    log.apply(encode_call(first, 1, 0, b"a"))
    records = iter(LedView(log.table.records(), ["state"]))
    restored = Log(log.table.restored(records))
    assert list(records) == ["state"], "the machine's records follow"
    restored.index = log.index
    assert restored.apply(encode_call(first, 1, 0, b"a")) == ("one", None)
    assert restored.applied == []
    restored.open(2)
    assert isinstance(restored.apply(encode_call(second, 1, 0, b"a"))[1], SessionExpiredError), "the second was quiet for longer"


def test_records_are_of_the_moment() -> None:
    log = Log()
    session = log.open()
    records = log.table.records()
    log.apply(encode_call(session, 1, 0, b"a"))
    assert records == [1, [session, 0, {}]]


@pytest.mark.parametrize("records", [[], ["two"], [1], [1, [1, 0]], [1, None]])
def test_a_snapshot_without_a_table_is_refused(records: list[Any]) -> None:
    with pytest.raises(SnapshotError, match="table of sessions"):
        SessionTable(()).restored(iter(records))


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x03" + bytes(8), b"\x01" + bytes(8), bytes(10)])
def test_what_is_no_entry_is_refused_before_the_log(payload: bytes) -> None:
    with pytest.raises(WireError):
        check_entry(payload)


def test_the_command_of_an_entry() -> None:
    assert command_of(encode_call(1, 2, 3, b"xyz")) == b"xyz"
    assert command_of(encode_open(3)) is None
    assert command_of(encode_close(3)) is None


def test_a_view_ends_what_the_machine_has_open() -> None:
    ended = []

    def state() -> Iterator[int]:
        try:
            yield 1
        finally:
            ended.append(True)

    view = state()
    next(view)
    LedView([0], view).close()
    assert ended == [True]
    LedView([0], [1]).close()
