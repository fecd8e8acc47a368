"""The small parts of a group: inbox, gate, proposals, waiter."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import trioraft
from trioraft._types import EntryId, Member
from trioraft.core import (
    DiskSpace,
    Heartbeat,
    PeerDown,
    PeerUp,
    Persisted,
    Propose,
    TimePassed,
    Unreachable,
)
from trioraft.group._gate import WriteGate
from trioraft.group._inbox import Inbox
from trioraft.group._proposals import Proposals
from trioraft.group._waiter import Waiter

HEARTBEAT = Heartbeat(Member(1), Member(2), 1, 0)


class Caller:
    def __init__(self) -> None:
        self.result: Any = None
        self.error: Exception | None = None

    def succeed(self, result: Any) -> None:
        self.result = result

    def fail(self, error: Exception) -> None:
        self.error = error


class TestInbox:
    def test_completions_have_one_slot_each_and_the_newest_wins(self) -> None:
        inbox = Inbox(16, 1000)
        for sequence in range(1, 100):
            inbox.persisted(sequence)
            inbox.deadline_passed()
        inbox.space_changed(False)
        inbox.space_changed(True)
        assert inbox.take() == [DiskSpace(True), Persisted(99), TimePassed()]
        assert inbox.take() == []

    def test_the_last_word_on_a_peer_wins_and_a_loss_is_remembered_beside_it(self) -> None:
        inbox = Inbox(16, 1000)
        for event in (PeerDown(2), Unreachable(2), PeerUp(2), Unreachable(2), PeerDown(3)):
            inbox.put_peer(event)
        assert inbox.take() == [Unreachable(2), PeerUp(2), PeerDown(3)]

    def test_a_restart_is_remembered_until_the_group_hears_of_it(self) -> None:
        inbox = Inbox(16, 1000)
        for event in (PeerUp(2, restarted=True), PeerDown(2), PeerUp(2, restarted=False)):
            inbox.put_peer(event)
        assert inbox.take() == [PeerUp(2, restarted=True)]

    def test_messages_beyond_the_bound_are_lost_and_proposals_refused(self) -> None:
        inbox = Inbox(16, 1000)
        assert all(inbox.put_message(HEARTBEAT) for _ in range(16))
        assert not inbox.put_message(HEARTBEAT)
        assert not inbox.put_request(Propose(None, b""))
        inbox.persisted(1)
        assert len(inbox.take()) == 17, "a completion always has room"

    def test_proposals_are_bounded_in_bytes_but_one_always_fits(self) -> None:
        inbox = Inbox(16, 10)
        assert inbox.put_request(Propose(None, b"x" * 100))
        assert not inbox.put_request(Propose(None, b"x"))
        inbox.take()
        assert inbox.put_request(Propose(None, b"x"))

    def test_whoever_was_not_heard_learns_it(self) -> None:
        inbox, caller = Inbox(16, 10), Caller()
        inbox.put_message(HEARTBEAT)
        inbox.put_request(Propose(caller, b"x"))
        inbox.refuse_rest(trioraft.GroupStoppedError(7))
        assert isinstance(caller.error, trioraft.GroupStoppedError)

    def test_a_poisoned_log_stops_whoever_takes(self) -> None:
        inbox = Inbox(16, 10)
        inbox.storage_failed(trioraft.StorageError("poisoned", "wal", "EIO"))
        with pytest.raises(trioraft.StorageError):
            inbox.take()

    async def test_waiting_ends_with_the_next_event_and_survives_cancellation(self) -> None:
        inbox = Inbox(16, 10)
        with trio.fail_after(5):
            with trio.move_on_after(0):
                await inbox.wait()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(inbox.wait)
                await trio.testing.wait_all_tasks_blocked()
                inbox.persisted(1)
            await inbox.wait()  # still there: nobody took it
        assert inbox.take() == [Persisted(1)]


class TestGate:
    def test_messages_wait_for_every_earlier_write(self) -> None:
        gate = WriteGate()
        assert gate.hold((HEARTBEAT,)) == (HEARTBEAT,), "nothing is outstanding"
        gate.wrote(3)
        assert gate.hold((HEARTBEAT,)) == ()
        gate.wrote(5)
        other = Heartbeat(Member(1), Member(3), 1, 0)
        assert gate.hold((other,)) == ()
        assert gate.durable(2) == []
        assert gate.durable(4) == [HEARTBEAT]
        assert gate.durable(5) == [other]
        assert gate.hold((other,)) == (other,)


class TestProposals:
    def test_waiters_are_keyed_by_term_too(self) -> None:
        proposals, old, new = Proposals(), Caller(), Caller()
        proposals.add(EntryId(1, 5), old)
        proposals.add(EntryId(3, 5), new)
        proposals.answer(5, 3, "done")
        assert new.result == "done"
        assert isinstance(old.error, trioraft.ProposalDroppedError)

    def test_the_old_entry_may_still_win(self) -> None:
        proposals, old, new = Proposals(), Caller(), Caller()
        proposals.add(EntryId(1, 5), old)
        proposals.add(EntryId(3, 5), new)
        proposals.answer(5, 1, "done")
        assert old.result == "done"
        assert isinstance(new.error, trioraft.ProposalDroppedError)

    def test_callers_whose_entries_are_in_a_snapshot_learn_that_the_outcome_is_unknown(self) -> None:
        proposals, old, other, late = Proposals(), Caller(), Caller(), Caller()
        proposals.add(EntryId(2, 5), old)
        proposals.add(EntryId(3, 5), other)
        proposals.add(EntryId(3, 6), late)
        proposals.abandon_to(5, "a snapshot")
        assert isinstance(old.error, trioraft.OutcomeUnknownError)
        assert isinstance(other.error, trioraft.OutcomeUnknownError)
        assert (old.error.term, other.error.term) == (2, 3)
        assert late.error is None
        proposals.answer(6, 3, "done")
        assert late.result == "done"

    def test_abandoned_callers_learn_index_and_term(self) -> None:
        proposals, caller = Proposals(), Caller()
        proposals.add(EntryId(2, 5), caller)
        proposals.abandon_from(0, "stopped")
        assert isinstance(caller.error, trioraft.OutcomeUnknownError)
        assert (caller.error.index, caller.error.term) == (5, 2)
        assert len(proposals) == 0


class TestWaiter:
    async def test_an_answer_before_the_wait_is_kept(self) -> None:
        waiter = Waiter()
        waiter.succeed(5)
        with trio.fail_after(5):
            assert await waiter.wait() == 5

    async def test_an_answer_to_a_caller_that_left_is_no_error(self) -> None:
        waiter = Waiter()
        with trio.move_on_after(0):
            await waiter.wait()
        waiter.fail(trioraft.BusyError("late"))  # and raises nothing
