"""Whoever waits for the answer to one proposal, or for an index to be applied: a task here, or a node that forwarded it.

Not a channel and not an event: a proposal costs one parked task and one reschedule, nothing else.
"""

from __future__ import annotations

from typing import Any, Final, Protocol, cast

import outcome
import trio


class Token(Protocol):
    """How an answer leaves. Exactly one of the two is called, once; both return at once and raise nothing."""

    def succeed(self, result: Any) -> None: ...

    def fail(self, error: Exception) -> None: ...


class _Woken:
    """What a parked caller gets from Trio: nothing, since its answer is in the waiter. One for all: an `Outcome` serves once only."""

    def unwrap(self) -> None:
        """All that Trio does with it."""


_WOKEN: Final = cast("outcome.Outcome[object]", _Woken())


class Waiter:
    """A local caller, parked until its proposal is answered."""

    __slots__ = ("_error", "_is_answered", "_result", "_task")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._result: Any = None
        self._error: Exception | None = None
        self._is_answered = False  # maybe before the caller parked, or after it left

    def succeed(self, result: Any) -> None:
        self._result = result
        self._wake()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._wake()

    def _wake(self) -> None:
        self._is_answered = True
        if self._task is not None:
            trio.lowlevel.reschedule(self._task, _WOKEN)
            self._task = None

    async def wait(self) -> Any:
        """Park until answered.

        *Cancellation:* the proposal stays where it is; only the answer is lost.
        """
        if self._is_answered:
            await trio.lowlevel.checkpoint()
        else:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._leave)
        error, self._error = self._error, None
        if error is None:
            return self._result
        try:
            raise error
        finally:
            del error  # or it and its traceback would keep each other

    def _leave(self, _raise_cancel: Any) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED
