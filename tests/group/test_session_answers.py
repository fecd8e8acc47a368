"""What a session keeps of its answers, and that no answer, however odd, stops the group or its snapshots."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import pytest
import trio
import trio.testing

from trioraft import ApplyContext, ConfigError, WireError
from trioraft._types import EntryId, GroupKey
from trioraft.core import Configuration
from trioraft.group._declared import describe_error, rebuild_error
from trioraft.group._session import Session
from trioraft.group._session_table import ANSWER_BYTES_MAX, ANSWERS_MAX, SessionTable, encode_call
from trioraft.wire import SnapshotEncoder, encode_value

from ..manager.cluster import Journal, running_cluster
from ..manager.test_reads import leader_and_other
from .test_session import FakeGroup
from .test_session_table import Log, RefusedError


class Broad(Journal):
    """Declares a base of an error of ours."""

    def apply(self, command: Any, context: ApplyContext) -> Any:
        if command == "odd":
            raise ConfigError("of the machine")
        return super().apply(command, context)


async def test_a_machine_that_raises_an_error_of_ours_goes_on_when_it_is_asked_for_again(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster(machine=Broad) as cluster:
        with trio.fail_after(60):
            leader, _ = await leader_and_other(cluster)
            session = await leader.group().open_session()
            with pytest.raises(ConfigError, match="of the machine"):
                await session.propose("odd")
            with pytest.raises(WireError, match="could not be kept"):
                await leader.group().resume_session(session.id, 1).propose("odd", sequence=1)
            assert await session.propose("next") == 1
            assert await cluster.settle() == ["next"]
            assert [node.group().failure for node in cluster.running()] == [None] * 3


@pytest.mark.parametrize(
    "declared, now, error",
    [
        (ValueError, (ValueError,), ConfigError("a RaftError and a ValueError")),
        (RefusedError, (), RefusedError("declared then, and not now")),
        (ExceptionGroup, (ExceptionGroup,), ExceptionGroup("with a constructor of its own", [ValueError()])),
    ],
    ids=["ours", "then", "odd"],
)
def test_an_error_that_cannot_be_made_again_is_told_as_such(
    declared: type[Exception], now: tuple[type[Exception], ...], error: Exception
) -> None:
    log = Log(SessionTable((declared,)))
    session = log.open()
    log.result = None, error
    assert log.apply(encode_call(session, 1, 0, b"a")) == log.result
    log.table = SessionTable(now).restored(iter(log.table.records()))
    result, answer = log.apply(encode_call(session, 1, 0, b"a"))
    assert result is None
    assert isinstance(answer, WireError)
    assert log.applied == [b"a"]


class Colour(IntEnum):
    RED = 1


@pytest.mark.parametrize("argument", [Colour.RED, 2**70, "\udc80", object(), [1, 2]], ids=["enum", "large", "letter", "object", "list"])
def test_an_argument_that_is_no_value_travels_as_text(argument: object) -> None:
    declared = (RefusedError,)
    description = describe_error(declared, RefusedError("no", argument))
    encode_value(description)
    error = rebuild_error(declared, description)
    assert (type(error), error.args[0], type(error.args[1])) == (RefusedError, "no", str)


def test_a_session_with_all_the_answers_that_it_may_have_fits_into_a_snapshot() -> None:
    log = Log()
    first, second = log.open(), log.open()
    log.result = b"x" * (ANSWER_BYTES_MAX - 100), None
    for sequence in range(1, ANSWERS_MAX + 1):
        log.apply(encode_call(second, sequence, 0, b"a"))
    log.result = "small", None
    log.apply(encode_call(first, 1, 0, b"a"))
    records = log.table.records()
    assert all(len(encode_value(record)) < 2 << 20 for record in records)
    encoder = SnapshotEncoder(GroupKey(1, 1), EntryId(1, 1), Configuration(voters={1}), compression="none")
    for record in records:
        encoder.add(record)
        encoder.take()
    restored = SessionTable((RefusedError,)).restored(iter(records))
    assert restored.records() == records, "in the same order too"
    assert len(restored) == 2


@pytest.mark.parametrize("number", [0, -1, 1 << 63, 1.0, True, None, "1"])
class TestNumbers:
    async def test_an_impossible_sequence_is_refused_and_the_session_goes_on(self, number: Any) -> None:
        group = FakeGroup()
        session = group.session()
        with trio.fail_after(5):
            if number is not None:  # which means the next one
                with pytest.raises(ConfigError, match="a sequence number"):
                    await session.propose("x", sequence=number)
            assert await session.propose("y") == 1
        assert group.asked == [(1, 0, b"y")]

    async def test_an_impossible_session_is_refused(self, number: Any) -> None:
        for session_id, next_sequence in ((number, 1), (1, number)):
            with pytest.raises(ConfigError, match="is a whole number from 1"):
                Session(session_id, next_sequence, encode=FakeGroup()._encode, ask=FakeGroup()._ask, wait_leader=FakeGroup()._wait_leader)
