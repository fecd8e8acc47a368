"""Questions to a machine: when they are asked, where, and what they show."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import trio
import trio.testing

import trioraft
from trioraft import ApplyContext
from trioraft.group._queries import QueryFailedError, Question

from .taking_kit import BlockingRecorder, Caller, Recorder, encoded, entry
from .test_applier import AT, Bench


class Asked(Recorder):
    def query(self, query: Any) -> Any:
        if isinstance(query, BaseException):
            raise query
        return len(self.seen)


class BlockingAsked(BlockingRecorder, Asked):
    """Remembers which thread it was asked in."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[int] = []

    def query(self, query: Any) -> Any:
        self.threads.append(threading.get_ident())
        return super().query(query)


def ask(bench: Bench, index: int, query: Any = None) -> Caller:
    caller = Caller()
    question = Question(query, caller, bench.applier.ask)
    caller.question = question  # type: ignore[attr-defined]  # kept beside it, for the test
    question.succeed(index)
    return caller


async def test_an_inline_machine_is_asked_at_once_and_never_before_its_index() -> None:
    bench = Bench(Asked())
    assert ask(bench, 0).result == 0
    early, late = ask(bench, 2), ask(bench, 9)
    bench.applier.add([entry(1), entry(2), entry(3)])
    await bench.turn()
    assert early.result == 2, "between two commands, and not after the batch"
    assert (late.result, late.error) == (None, None)
    assert ask(bench, 3).result == 3


@pytest.mark.parametrize(
    ("raised", "arrives"),
    [(ValueError("a"), ValueError), (KeyError("b"), KeyError), (SystemExit(), QueryFailedError), (GeneratorExit(), QueryFailedError)],
)
@pytest.mark.parametrize("machine", [Asked, BlockingAsked])
async def test_what_a_query_raises_goes_to_whoever_asked_and_stops_nothing(
    machine: type[Recorder], raised: BaseException, arrives: type[Exception]
) -> None:
    bench = Bench(machine())
    caller = ask(bench, 0, raised)
    await bench.turn()
    assert type(caller.error) is arrives
    bench.applier.add([entry(1)])
    await bench.turn()
    assert bench.applier.applied_index == 1


async def test_the_end_of_the_program_is_no_answer() -> None:
    bench = Bench(Asked())
    with pytest.raises(KeyboardInterrupt):
        ask(bench, 0, KeyboardInterrupt())


async def test_a_blocking_machine_is_asked_in_its_thread_all_that_are_due_in_one_hop() -> None:
    machine = BlockingAsked()
    bench = Bench(machine)
    callers = [ask(bench, 0) for _ in range(5)]
    assert bench.wakes == 5
    await bench.turn()
    assert [caller.result for caller in callers] == [0] * 5
    assert len(set(machine.threads)) == 1
    assert machine.threads[0] != threading.get_ident()


async def test_those_who_ask_all_the_time_do_not_keep_commands_waiting() -> None:
    bench = Bench(BlockingAsked())
    bench.applier.add([entry(1), entry(2)])
    caller = ask(bench, 0)
    await bench.turn()
    assert bench.applier.applied_index == 2, "in the same hop"
    assert caller.result == 0
    assert caller.question.applied_index == 0, "and it says what it showed"  # type: ignore[attr-defined]  # kept beside it, for the test


async def test_a_question_waits_for_a_restore_and_shows_it() -> None:
    bench = Bench(Asked())
    bench.shelf.files[AT] = encoded([[9, "from afar"], [10, "too"]], AT)
    in_it = ask(bench, 7)
    bench.applier.restore(AT)
    at_once = ask(bench, 0)
    assert at_once.result is None, "the state is about to be another"
    await bench.turn()
    await bench.turn()
    assert (in_it.result, at_once.result) == (2, 2)
    assert at_once.question.applied_index == AT.index  # type: ignore[attr-defined]  # kept beside it, for the test


@pytest.mark.parametrize("index", [0, 5])
async def test_whoever_leaves_is_forgotten(index: int) -> None:
    machine = BlockingAsked()
    bench = Bench(machine)
    caller = ask(bench, index)
    question = caller.question  # type: ignore[attr-defined]  # kept beside it, for the test
    bench.applier.forget(question)
    assert bench.applier.waiting == 0
    bench.applier.add([entry(n) for n in range(1, 6)])
    await bench.turn()
    assert machine.threads == []
    assert (caller.result, caller.error) == (None, None)


class Held(BlockingAsked):
    def __init__(self) -> None:
        super().__init__()
        self.is_reached, self.may_go = threading.Event(), threading.Event()

    def apply(self, command: Any, context: ApplyContext) -> Any:
        self.is_reached.set()
        self.may_go.wait(10)
        return super().apply(command, context)


async def test_a_stop_answers_those_in_the_thread_those_that_are_due_and_those_that_wait() -> None:
    machine = Held()
    bench = Bench(machine, patience=5)
    try:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                callers = [ask(bench, 0)]
                bench.applier.add([entry(1)])
                bench.applier.work(nursery)
                await trio.to_thread.run_sync(machine.is_reached.wait)
                callers += [ask(bench, 0), ask(bench, 9)]
                bench.applier.close(trioraft.GroupStoppedError(7))
                told = [caller.error for caller in callers]
                machine.may_go.set()
    finally:
        machine.may_go.set()
    assert [type(error) for error in told] == [trioraft.GroupStoppedError] * 3
    assert [caller.error for caller in callers] == told, "once"
    assert [caller.result for caller in callers] == [None] * 3
    assert isinstance(ask(bench, 0).error, trioraft.GroupStoppedError)
    with trio.fail_after(5), pytest.raises(trioraft.GroupStoppedError):
        await bench.applier.wait_applied(0)
