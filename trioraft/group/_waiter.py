"""Whoever waits for the answer to one proposal, or for an index to be applied: a task here, or a node that forwarded it.

Not a channel and not an event: a proposal costs one parked task and one reschedule, nothing else.
"""

from __future__ import annotations

from typing import Any, Protocol

import outcome
import trio


class Token(Protocol):
    """How an answer leaves. Exactly one of the two is called, once; both return at once and raise nothing."""

    def succeed(self, result: Any) -> None: ...

    def fail(self, error: Exception) -> None: ...


class Waiter:
    """A local caller, parked until its proposal is answered."""

    __slots__ = ("_outcome", "_task")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._outcome: outcome.Outcome[Any] | None = None

    def succeed(self, result: Any) -> None:
        self._answer(outcome.Value(result))

    def fail(self, error: Exception) -> None:
        self._answer(outcome.Error(error))

    def _answer(self, answer: outcome.Outcome[Any]) -> None:
        if self._task is None:
            self._outcome = answer  # before the caller parked, or after it left
        else:
            trio.lowlevel.reschedule(self._task, answer)
            self._task = None

    async def wait(self) -> Any:
        """Park until answered.

        *Cancellation:* the proposal stays where it is; only the answer is lost.
        """
        if self._outcome is not None:
            await trio.lowlevel.checkpoint()
            return self._outcome.unwrap()
        self._task = trio.lowlevel.current_task()

        def abort(_raise_cancel: Any) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(abort)
