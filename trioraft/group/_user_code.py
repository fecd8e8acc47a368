"""What users write for snapshots: whether a machine has it, and running it where it can hold up nothing but itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final, Literal, TypeVar

import outcome
import trio

from .._errors import SnapshotError
from .._machine import StateMachine

T = TypeVar("T")

_BREATH_INTERVAL: Final = 0.001
_BREATH: Final = 50e-6

_UNLIMITED: Final = trio.CapacityLimiter(math.inf)  # callers hold a place in a limiter of the node


def defines(machine: StateMachine, method: Literal["snapshot", "restore"]) -> bool:
    """Tell whether the machine has a method of its own."""
    return getattr(getattr(machine, method), "__func__", None) is not getattr(StateMachine, method)


def stores_by_itself(machine: StateMachine) -> bool:
    """Tell whether the machine keeps its state durably, with an index of its own."""
    return getattr(machine.stored_index, "__func__", None) is not StateMachine.stored_index


class Breather:
    """Lets the event loop run while a thread computes.

    By itself such a thread gives up the interpreter's lock every 5 ms, and that is what each wake-up of the loop would wait for: measured
    beside a snapshot of small records, 7 ms in the median instead of 1 ms; all other groups of the node would feel it.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def breathe(self) -> None:
        """Call this often, in the thread."""
        if time.monotonic() >= self._next:
            time.sleep(_BREATH)
            self._next = time.monotonic() + _BREATH_INTERVAL


def _nothing() -> None:
    pass


async def run_in_thread(
    code: Callable[[], T],
    *,
    patience: float,
    stop: Callable[[], None] = _nothing,
    hanging_seconds: float = math.inf,
    on_hanging: Callable[[], None] = _nothing,
) -> T:
    """Run a user's code in a worker thread.

    Args:
        patience: seconds that a cancelled caller waits for the thread; after that it is left to itself.
        stop: called when the caller is cancelled, to make `code` return soon.
        on_hanging: called when `code` has been running for `hanging_seconds`; it goes on.

    Raises:
        SnapshotError: `code` raised what is no `Exception`, such as `SystemExit`: that must not get loose on the event loop.
        Exception: what `code` raised.

    *Cancellation:* what `code` returns is lost, even if it returned.
    """
    finished = trio.Event()
    shield = trio.CancelScope(shield=True)
    answers: list[outcome.Outcome[T]] = []

    async def call() -> None:
        with shield:
            answers.append(await trio.to_thread.run_sync(outcome.capture, code, abandon_on_cancel=True, limiter=_UNLIMITED))
        finished.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        try:
            with trio.move_on_after(hanging_seconds):
                await finished.wait()
            if not finished.is_set():
                on_hanging()
                await finished.wait()
        except trio.Cancelled:
            stop()
            shield.deadline = trio.current_time() + patience
            raise
    answer = answers[0]
    if isinstance(answer, outcome.Error) and not isinstance(answer.error, Exception):
        raise SnapshotError(f"the state machine raised {type(answer.error).__name__}") from answer.error
    return answer.unwrap()
