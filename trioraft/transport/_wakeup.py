"""A flag that one task waits for: setting it twice wakes once, and a wake-up that nobody waits for is kept."""

from __future__ import annotations

import trio


class Wakeup:
    """`trio.Event` can be set once and wakes many; here is one waiter, over and over, without an object per round."""

    __slots__ = ("_is_set", "_task")

    def __init__(self) -> None:
        self._is_set = False
        self._task: trio.lowlevel.Task | None = None

    def set(self) -> None:
        self._is_set = True
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    async def wait(self) -> None:
        """Wait until set, then clear.

        Cancellation: the flag stays as it was.
        """
        if self._is_set:
            await trio.lowlevel.checkpoint()
        else:
            await self._park()
        self._is_set = False

    async def _park(self) -> None:
        if self._task is not None:
            raise trio.BusyResourceError("another task waits already")
        self._task = trio.lowlevel.current_task()

        def abort(raise_cancel: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
