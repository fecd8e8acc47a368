"""Whoever waits for an answer: it comes before, while or after they park, and keeps nothing alive."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from trioraft.group._waiter import Waiter


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class OddError(Exception):
    pass


@pytest.mark.parametrize("is_early", [True, False])
async def test_many_are_answered_each_with_its_own(is_early: bool) -> None:
    waiters = [Waiter() for _ in range(4)]
    heard: dict[int, object] = {}

    async def wait(number: int) -> None:
        try:
            heard[number] = await waiters[number].wait()
        except OddError as error:
            heard[number] = error

    def answer() -> None:
        for number, waiter in enumerate(waiters):
            if number % 2:
                waiter.fail(OddError(number))
            else:
                waiter.succeed(number)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            if is_early:
                answer()
            for number in range(4):
                nursery.start_soon(wait, number)
            if not is_early:
                await trio.testing.wait_all_tasks_blocked()
                answer()
    assert (heard[0], heard[2]) == (0, 2)
    assert [str(heard[number]) for number in (1, 3)] == ["1", "3"]


async def test_whoever_left_is_not_woken_by_the_answer() -> None:
    waiter = Waiter()
    with trio.move_on_after(0) as scope:
        await waiter.wait()
    assert scope.cancelled_caught
    waiter.succeed(1)
    await trio.testing.wait_all_tasks_blocked()


async def test_an_error_that_was_handled_is_gone() -> None:
    waiter, error = Waiter(), OddError()
    remembered = weakref.ref(error)
    waiter.fail(error)
    del error
    with no_garbage_collection():
        try:
            await waiter.wait()
        except OddError:
            pass
        assert remembered() is None
