"""A client's session against a group of a few lines: what is asked for again, in which form, and when it ends."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
import trio.testing

from trioraft import (
    BusyError,
    GroupStoppedError,
    NotLeaderError,
    OutcomeUnknownError,
    ProposalDroppedError,
    SessionExpiredError,
    WireError,
)
from trioraft.group._session import WINDOW, Session
from trioraft.group._session_table import _CALL, encode_close

ID = 5


@attrs.define(eq=False)
class FakeGroup:
    """Answers what the test says; None: what was asked, as (sequence, acknowledged, command)."""

    answers: list[Any] = attrs.Factory(list)
    asked: list[tuple[int, int, bytes]] = attrs.Factory(list)
    closed: list[bytes] = attrs.Factory(list)
    holds: dict[int, trio.Event] = attrs.Factory(dict)
    """By sequence, what the answer waits for."""
    has_stopped: bool = False

    def session(self, next_sequence: int = 1) -> Session:
        return Session(ID, next_sequence, encode=self._encode, ask=self._ask, wait_leader=self._wait_leader)

    def _encode(self, command: Any) -> bytes:
        if not isinstance(command, str):
            raise WireError("no text")
        return command.encode()

    async def _ask(self, payload: bytes) -> Any:
        if payload == encode_close(ID):
            self.closed.append(payload)
            await trio.lowlevel.checkpoint()
            answer = self.answers.pop(0) if self.answers else None
        else:
            _, session_id, sequence, acknowledged = _CALL.unpack_from(payload)
            assert session_id == ID
            self.asked.append((sequence, acknowledged, payload[_CALL.size :]))
            await trio.lowlevel.checkpoint()
            if sequence in self.holds:
                await self.holds[sequence].wait()
            answer = self.answers.pop(0) if self.answers else sequence
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _wait_leader(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.has_stopped:
            raise GroupStoppedError(7)


async def test_what_may_be_asked_again_is_asked_again_by_the_same_name(autojump_clock: trio.testing.MockClock) -> None:
    again = [NotLeaderError(2), BusyError("full"), ProposalDroppedError("replaced"), OutcomeUnknownError("lost")]
    group = FakeGroup([*again, "done"])
    with trio.fail_after(30):
        assert await group.session().propose("x") == "done"
    assert group.asked == [(1, 0, b"x")] * 5


async def test_pauses_grow_up_to_half_a_second(autojump_clock: trio.testing.MockClock) -> None:
    group = FakeGroup([BusyError("full")] * 20)
    with trio.fail_after(30):
        await group.session().propose("x")
    assert 6 < trio.current_time() < 8, "ten milliseconds, doubled, then half a second each"


@pytest.mark.parametrize("answer", [SessionExpiredError(ID), ValueError("declared"), WireError("could not be kept")])
async def test_an_answer_is_an_answer(answer: Exception) -> None:
    group = FakeGroup([answer])
    session = group.session()
    with trio.fail_after(5):
        with pytest.raises(type(answer)):
            await session.propose("x")
        await session.propose("y")
    assert group.asked == [(1, 0, b"x"), (2, 1, b"y")]


async def test_a_command_that_cannot_be_encoded_takes_no_number() -> None:
    group = FakeGroup()
    session = group.session()
    with trio.fail_after(5), pytest.raises(WireError):
        await session.propose(5)
    assert (session.next_sequence, group.asked) == (1, [])


@pytest.mark.parametrize("before", [BusyError("full"), OutcomeUnknownError("lost")])
@pytest.mark.parametrize("is_told", [True, False])
async def test_a_replica_that_stops_tells_whether_the_command_may_be_in_a_log(
    autojump_clock: trio.testing.MockClock, before: Exception, is_told: bool
) -> None:
    group = FakeGroup([before, GroupStoppedError(7)], has_stopped=not is_told)
    session = group.session(next_sequence=9)
    with trio.fail_after(5), pytest.raises((GroupStoppedError, OutcomeUnknownError)) as caught:
        await session.propose("x")
    if isinstance(before, BusyError):
        assert isinstance(caught.value, GroupStoppedError)
    else:
        assert isinstance(caught.value, OutcomeUnknownError)
        assert caught.value.request_id == (ID, 9)


class TestAcknowledging:
    async def test_what_is_under_way_is_not_said_to_be_done_with(self) -> None:
        held = trio.Event()
        group = FakeGroup(holds={2: held})
        session = group.session()
        with trio.fail_after(5):
            await session.propose("a")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.propose, "b")
                await trio.testing.wait_all_tasks_blocked()
                await session.propose("c")
                await session.propose("d")
                held.set()
            await session.propose("e")
        assert [(sequence, acknowledged) for sequence, acknowledged, _ in group.asked] == [(1, 0), (2, 1), (3, 1), (4, 1), (5, 4)]

    async def test_a_cancelled_command_can_be_asked_for_again_for_a_while(self) -> None:
        group = FakeGroup(holds={1: trio.Event()})
        session = group.session()
        with trio.fail_after(5):
            with trio.move_on_after(0):
                await session.propose("given up")
            for _ in range(WINDOW):
                await session.propose("x")
            assert {acknowledged for _, acknowledged, _ in group.asked} == {0}, "its answer is kept"
            group.holds.clear()
            assert await session.propose("given up", sequence=1) == 1
            assert group.asked[-1] == (1, 0, b"given up")
            await session.propose("y")
            assert group.asked[-1][1] == WINDOW + 1

    async def test_one_that_nobody_asks_for_again_is_done_with_in_the_end(self) -> None:
        group = FakeGroup(holds={1: trio.Event()})
        session = group.session()
        with trio.fail_after(5):
            with trio.move_on_after(0):
                await session.propose("given up")
            for _ in range(WINDOW + 1):
                await session.propose("x")
            assert group.asked[-1][1] == group.asked[-1][0] - 1

    async def test_the_next_command_waits_when_the_oldest_is_far_behind(self) -> None:
        held = trio.Event()
        group = FakeGroup(holds={1: held})
        session = group.session()
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for _ in range(WINDOW + 2):
                    nursery.start_soon(session.propose, "x")
                await trio.testing.wait_all_tasks_blocked()
                assert max(sequence for sequence, _, _ in group.asked) == WINDOW
                held.set()
            assert sorted(sequence for sequence, _, _ in group.asked) == list(range(1, WINDOW + 3))

    async def test_a_resumed_session_goes_on_where_it_was_told(self) -> None:
        group = FakeGroup()
        session = group.session(next_sequence=7)
        with trio.fail_after(5):
            assert await session.propose("old", sequence=4) == 4
            assert await session.propose("new") == 7
        assert group.asked == [(4, 3, b"old"), (7, 6, b"new")]
        assert session.next_sequence == 8


@pytest.mark.parametrize("answer", [None, NotLeaderError(None), GroupStoppedError(7)])
async def test_closing_is_tried_once(answer: Exception | None) -> None:
    group = FakeGroup([answer])
    with trio.fail_after(5):
        async with group.session():
            pass
    assert len(group.closed) == 1
