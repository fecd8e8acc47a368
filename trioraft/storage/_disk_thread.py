"""One thread that does one job after the other, for the write that every acknowledgement waits for.

`trio.to_thread.run_sync` costs two to three times as much per hop: it looks for an idle thread, copies the context, names the thread and
counts against a limiter. None of that is needed by a single writer. (Measured on two cores: 70-105 µs a hop against 200-300 µs.)

The thread starts with the first job, ends after `IDLE_SECONDS` without one, and does not hold up the end of the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

import outcome
import trio

T = TypeVar("T")

IDLE_SECONDS: Final = 10.0


class _Job:
    __slots__ = ("arguments", "function", "task", "token")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments
        self.task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        self.token = trio.lowlevel.current_trio_token()

    def answer(self, result: outcome.Outcome[Any]) -> None:
        try:
            self.token.run_sync_soon(self._finish, result)
        except trio.RunFinishedError:
            pass  # nobody is left who could wait for it

    def _finish(self, result: outcome.Outcome[Any]) -> None:
        if self.task is not None:
            trio.lowlevel.reschedule(self.task, result)


class _Worker:
    """The thread. Whoever pops `parked` decides: the caller that it has a job, the thread itself that it ends."""

    def __init__(self) -> None:
        self.job: _Job | None = None
        self.parked: list[None] = []
        self._ready = threading.Lock()
        self._ready.acquire()
        threading.Thread(target=self._work, name="trioraft disk", daemon=True).start()

    def give(self, job: _Job) -> None:
        self.job = job
        self._ready.release()

    def _work(self) -> None:
        while True:
            if not self._ready.acquire(timeout=IDLE_SECONDS):
                try:
                    self.parked.pop()
                except IndexError:
                    self._ready.acquire()  # a job is on its way
                else:
                    return
            job, self.job = self.job, None
            if job is not None:
                result = outcome.capture(job.function, *job.arguments)
                # NB: parked before the answer leaves: whoever hears it may have the next job at once.
                self.parked.append(None)
                job.answer(result)


class DiskThread:
    """Runs jobs one at a time, in order, each to its end."""

    def __init__(self) -> None:
        self._worker: _Worker | None = None

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run ``function(*arguments)`` in the thread and return what it returns. One call at a time.

        *Cancellation:* the job goes on, and nobody hears of its end: bound the wait from outside, and count the outcome as unknown.
        """
        job = _Job(function, arguments)
        self._hand_over(job)

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            job.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        result: T = await trio.lowlevel.wait_task_rescheduled(abort)
        return result

    def _hand_over(self, job: _Job) -> None:
        worker = self._worker
        if worker is not None:
            try:
                worker.parked.pop()
            except IndexError:
                pass  # it has ended, or is stuck in a job that was given up
            else:
                worker.give(job)
                return
        self._worker = _Worker()
        self._worker.give(job)
