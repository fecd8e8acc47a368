"""The small parts of a group: inbox, gate, proposals, applier."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import trioraft
from trioraft import ApplyContext, StateMachine, StateMachineError
from trioraft._types import EntryId, Member
from trioraft.core import (
    DiskSpace,
    Entry,
    EntryKind,
    Heartbeat,
    PeerDown,
    PeerUp,
    Persisted,
    Propose,
    TimePassed,
    Unreachable,
)
from trioraft.group._applier import SLICE, Applier, ApplyThreads
from trioraft.group._codec import ValueCodec
from trioraft.group._gate import WriteGate
from trioraft.group._inbox import Inbox
from trioraft.group._proposals import Proposals
from trioraft.group._waiter import Waiter
from trioraft.wire import encode_value

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
        assert not inbox.put_proposal(Propose(None, b""))
        inbox.persisted(1)
        assert len(inbox.take()) == 17, "a completion always has room"

    def test_proposals_are_bounded_in_bytes_but_one_always_fits(self) -> None:
        inbox = Inbox(16, 10)
        assert inbox.put_proposal(Propose(None, b"x" * 100))
        assert not inbox.put_proposal(Propose(None, b"x"))
        inbox.take()
        assert inbox.put_proposal(Propose(None, b"x"))

    def test_whoever_was_not_heard_learns_it(self) -> None:
        inbox, caller = Inbox(16, 10), Caller()
        inbox.put_message(HEARTBEAT)
        inbox.put_proposal(Propose(caller, b"x"))
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

    def test_abandoned_callers_learn_index_and_term(self) -> None:
        proposals, caller = Proposals(), Caller()
        proposals.add(EntryId(2, 5), caller)
        proposals.abandon("stopped")
        assert isinstance(caller.error, trioraft.OutcomeUnknownError)
        assert (caller.error.index, caller.error.term) == (5, 2)
        assert len(proposals) == 0


class Recorder(StateMachine):
    declared_errors = (ValueError,)

    def __init__(self) -> None:
        self.seen: list[tuple[int, Any]] = []

    def apply(self, command: Any, context: ApplyContext) -> Any:
        self.seen.append((context.index, command))
        if command == "declared":
            raise ValueError("no")
        if command == "bug":
            raise RuntimeError("oops")
        return command


class BlockingRecorder(Recorder):
    blocking = True


def entry(index: int, command: Any = "x", kind: EntryKind = EntryKind.COMMAND) -> Entry:
    return Entry(index, 1, kind, encode_value(command))


class TestApplier:
    def make(self, machine: Recorder) -> tuple[Applier, Proposals, list[int]]:
        proposals, woken = Proposals(), list[int]()
        return (
            Applier(
                7, 1, machine, ValueCodec(), proposals, wake=lambda: woken.append(1), threads=ApplyThreads(trio.CapacityLimiter(2), 1.0)
            ),
            proposals,
            woken,
        )

    async def test_results_and_declared_errors_reach_their_callers(self) -> None:
        machine = Recorder()
        applier, proposals, _ = self.make(machine)
        good, bad = Caller(), Caller()
        proposals.add(EntryId(1, 1), good)
        proposals.add(EntryId(1, 2), bad)
        applier.add([entry(1), entry(2, "declared"), entry(3, kind=EntryKind.NOOP)])
        async with trio.open_nursery() as nursery:
            applier.work(nursery)
        assert good.result == "x"
        assert isinstance(bad.error, ValueError)
        assert applier.applied_index == 3
        assert machine.seen == [(1, "x"), (2, "declared")], "a no-op is not the machine's business"

    async def test_a_long_replay_is_done_in_slices(self) -> None:
        applier, _, woken = self.make(Recorder())
        applier.add([entry(i) for i in range(1, 2 * SLICE + 2)])
        async with trio.open_nursery() as nursery:
            for done in (SLICE, 2 * SLICE, 2 * SLICE + 1):
                applier.work(nursery)
                assert applier.applied_index == done
        assert len(woken) == 2, "woken for the rest, and not after it"

    async def test_an_undeclared_exception_names_its_index(self) -> None:
        applier, _, _ = self.make(Recorder())
        applier.add([entry(1), entry(2, "bug"), entry(3)])
        async with trio.open_nursery() as nursery:
            with pytest.raises(StateMachineError) as caught:
                applier.work(nursery)
        assert caught.value.index == 2
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert applier.applied_index == 1

    async def test_a_command_that_cannot_be_decoded_stops_like_a_failing_machine(self) -> None:
        applier, _, _ = self.make(Recorder())
        applier.add([Entry(1, 1, EntryKind.COMMAND, b"\xff")])
        async with trio.open_nursery() as nursery:
            with pytest.raises(StateMachineError):
                applier.work(nursery)

    async def test_a_blocking_machine_runs_in_a_thread_one_batch_at_a_time(self) -> None:
        machine = BlockingRecorder()
        applier, proposals, woken = self.make(machine)
        caller = Caller()
        proposals.add(EntryId(1, 2), caller)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                applier.add([entry(1), entry(2)])
                applier.work(nursery)
                assert applier.applied_index == 0
                applier.add([entry(3)])
                applier.work(nursery)  # the first batch still runs
            assert applier.applied_index == 2
            assert caller.result == "x"
            assert woken
            async with trio.open_nursery() as nursery:
                applier.work(nursery)
        assert applier.applied_index == 3

    async def test_a_blocking_machine_that_fails_keeps_what_it_did_before(self) -> None:
        applier, _, _ = self.make(BlockingRecorder())
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                applier.add([entry(1), entry(2, "bug"), entry(3)])
                applier.work(nursery)
            async with trio.open_nursery() as nursery:
                with pytest.raises(StateMachineError):
                    applier.work(nursery)
        assert applier.applied_index == 1

    async def test_those_who_wait_for_an_index_are_told(self) -> None:
        applier, _, _ = self.make(Recorder())
        first, second, late = Caller(), Caller(), Caller()
        applier.notify(2, second)
        applier.notify(1, first)
        applier.notify(9, late)
        first.result = second.result = "waiting"
        applier.add([entry(1), entry(2)])
        async with trio.open_nursery() as nursery:
            applier.work(nursery)
        assert first.result is None
        assert second.result is None
        applier.close(trioraft.GroupStoppedError(7))
        assert isinstance(late.error, trioraft.GroupStoppedError)


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
