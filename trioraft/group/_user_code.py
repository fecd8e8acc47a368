"""What users write for snapshots: whether a machine has it, and running it where it can hold up nothing but itself."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal, TypeVar

import outcome
import trio

from .._errors import SnapshotError
from .._machine import StateMachine

T = TypeVar("T")

_BREATH_INTERVAL: Final = 0.001
_BREATH: Final = 50e-6

_UNLIMITED: Final = trio.CapacityLimiter(math.inf)  # callers hold a place in a limiter of the node


def defines(machine: StateMachine, method: Literal["snapshot", "restore", "stored_index"]) -> bool:
    """Tell whether the machine has a method of its own."""
    return getattr(getattr(machine, method), "__func__", None) is not getattr(StateMachine, method)


def refuse_generator(machine: StateMachine, method: Literal["snapshot", "save"]) -> None:
    """
    Raises:
        SnapshotError: the method, which should make a view of the state as it is now, is a generator function.
    """
    if inspect.isgeneratorfunction(getattr(machine, method)):
        text = "is a generator function, so nothing in it runs before the first record is pulled, and the state has changed by then"
        raise SnapshotError(f"{type(machine).__name__}.{method} {text}: copy what changes, and return an iterator over the copy")


class LedView:
    """A user's view of a machine's state (`StateMachine.snapshot`), with records of the library's own before it."""

    def __init__(self, records: list[Any], view: Iterable[Any]) -> None:
        self._records, self._view = records, view

    def __iter__(self) -> Iterator[Any]:
        yield from self._records
        yield from self._view

    def close(self) -> None:
        """End what the user's view has open, if nobody has begun to read it."""
        close = getattr(self._view, "close", None)
        if close is not None:
            close()


def as_exception(error: BaseException) -> Exception:
    """What a user's code raised, as something that cannot get loose on the event loop, as a `SystemExit` would."""
    return error if isinstance(error, Exception) else SnapshotError(f"the state machine raised {type(error).__name__}")


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
        raise as_exception(answer.error) from answer.error
    return answer.unwrap()
