"""Sessions: which answers a group keeps, and what it does with a command that comes again."""

from __future__ import annotations

from typing import Any

from tests.conformance.tables import Case, table
from trioraft import SessionExpiredError
from trioraft.group._session_table import Result, SessionTable, encode_call, encode_open
from trioraft.wire import decode_value, encode_value


class Client:
    """One session of a table, and how often the machine was asked."""

    def __init__(self) -> None:
        self.table = SessionTable(())
        self.id, _ = self.table.apply(1, encode_open(10), self.run)
        self.index = 1
        self.applied: list[Any] = []

    def run(self, command: bytes) -> Result:
        self.applied.append(decode_value(command))
        return self.applied[-1], None

    def call(self, sequence: int, value: Any, acknowledged: int = 0) -> Result:
        self.index += 1
        return self.table.apply(self.index, encode_call(self.id, sequence, acknowledged, encode_value(value)), self.run)

    @property
    def cached(self) -> dict[int, bytes]:
        _, (_, _, answers) = self.table.records()
        return dict(answers)


@table("client_sessions", "cached_answer")
def test_cached_answer(case: Case) -> None:
    client = Client()
    for sequence, result in case["history"].items():
        client.call(int(sequence), result)
    before = list(client.applied)
    answer, error = client.call(case["ask"], "again")
    assert error is None
    if case["answer"] is None:
        assert client.applied == [*before, "again"]
    else:
        assert (answer, client.applied) == (case["answer"], before)


@table("client_sessions", "forget_answers")
def test_forget_answers(case: Case) -> None:
    client = Client()
    for sequence in case["history_ids"]:
        client.call(sequence, sequence)
    # The next command says what the client is done with; it is kept like the others.
    client.call(100, 100, acknowledged=case["client_says_done_up_to"])
    cached = client.cached.keys() - {100}
    assert len(cached) == case["cached_left"]
    assert (case["ask"] in cached) == case["still_cached"]


@table("client_sessions", "has_responded")
def test_has_responded(case: Case) -> None:
    client = Client()
    for sequence in case["history_ids"]:
        client.call(sequence, sequence)
    applied = len(client.applied)
    _, error = client.call(case["ask"], case["ask"], acknowledged=case["client_says_done_up_to"])
    assert isinstance(error, SessionExpiredError) == case["already_answered_and_forgotten"]
    assert len(client.applied) == applied, "nothing is applied twice"
