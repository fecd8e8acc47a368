"""Takes committed entries to the state machine, and results to whoever waits for them.

Inline machines are fed in slices between two checkpoints of the driver, so that a long replay does not hold up other groups. Blocking
machines run in a worker thread, one batch at a time, in a child task that exists only while there is work.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import trio

from .._errors import StateMachineError
from .._machine import ApplyContext, Codec, StateMachine
from .._types import GroupId, Index, NodeId
from ..core import Entry, EntryKind
from ._proposals import Proposals
from ._waiter import Token

SLICE: Final = 256
"""Entries applied between two checkpoints: about a millisecond for a machine as quick as it should be."""


@attrs.frozen
class ApplyThreads:
    """The worker threads that a node lends to its blocking machines."""

    limiter: trio.CapacityLimiter
    patience: float
    """Seconds that a stopping group waits for its batch in a thread; after that the thread is left to itself."""


class Applier:
    """Applies in order, exactly once in the life of a machine."""

    def __init__(
        self,
        group_id: GroupId,
        node_id: NodeId,
        machine: StateMachine,
        codec: Codec,
        proposals: Proposals,
        *,
        wake: Callable[[], None],
        threads: ApplyThreads,
    ) -> None:
        self._group_id, self._node_id = group_id, node_id
        self._machine, self._codec = machine, codec
        self._proposals = proposals
        self._wake, self._threads = wake, threads
        self._thread_scope: trio.CancelScope | None = None
        self._closed = False
        self._queue: deque[Entry] = deque()
        self._batch_running = False
        self._failure: StateMachineError | None = None
        self._waiting: list[tuple[Index, int, Token]] = []
        self._tickets = itertools.count()
        self.applied_index: Index = 0

    def add(self, entries: Sequence[Entry]) -> None:
        self._queue.extend(entries)

    def work(self, nursery: trio.Nursery) -> None:
        """Do the next slice, or hand it to a thread; wakes the driver when there is more to do or to tell.

        Raises:
            StateMachineError: the machine raised what it had not declared, now or in its thread.
        """
        if self._failure is not None:
            raise self._failure
        if not self._queue or self._batch_running:
            return
        batch = [self._queue.popleft() for _ in range(min(SLICE, len(self._queue)))]
        if self._machine.blocking:
            self._batch_running = True
            nursery.start_soon(self._run_in_thread, batch)
            return
        for entry in batch:
            self._applied(entry, *self._apply(entry))
        if self._queue:
            self._wake()

    async def _run_in_thread(self, batch: list[Entry]) -> None:
        if self._is_closed():
            return
        # NB: shielded, so that a stop waits for the batch (the application may close its files next); `close` sets the bound.
        with trio.CancelScope(shield=True) as self._thread_scope:
            answers, failure = await trio.to_thread.run_sync(
                self._apply_batch, batch, abandon_on_cancel=True, limiter=self._threads.limiter
            )
        if self._is_closed():
            return  # all callers have been answered
        for entry, (result, error) in zip(batch, answers, strict=False):
            self._applied(entry, result, error)
        self._failure = failure
        self._batch_running = False
        self._wake()

    def _is_closed(self) -> bool:
        return self._closed

    def _apply_batch(self, batch: list[Entry]) -> tuple[list[tuple[Any, Exception | None]], StateMachineError | None]:
        answers = []
        for entry in batch:
            try:
                answers.append(self._apply(entry))
            except StateMachineError as error:
                return answers, error
        return answers, None

    def _apply(self, entry: Entry) -> tuple[Any, Exception | None]:
        if entry.kind is not EntryKind.COMMAND:
            return None, None
        context = ApplyContext(self._group_id, entry.index, entry.term, self._node_id)
        try:
            return self._machine.apply(self._codec.decode(entry.payload), context), None
        except self._machine.declared_errors as error:
            return None, error
        except Exception as error:
            raise StateMachineError(self._group_id, entry.index) from error

    def _applied(self, entry: Entry, result: Any, error: Exception | None) -> None:
        self.applied_index = entry.index
        self._proposals.answer(entry.index, entry.term, result, error)
        while self._waiting and self._waiting[0][0] <= entry.index:
            heapq.heappop(self._waiting)[2].succeed(None)

    # --- who waits for an index ---------------------------------------------------------------------------------------------------------

    def notify(self, index: Index, token: Token) -> None:
        """Tell `token` once everything up to `index` is applied."""
        if index <= self.applied_index:
            token.succeed(None)
        else:
            heapq.heappush(self._waiting, (index, next(self._tickets), token))

    def forget(self, token: Token) -> None:
        """Whoever waited has left."""
        self._waiting = [waiting for waiting in self._waiting if waiting[2] is not token]
        heapq.heapify(self._waiting)

    def close(self, error: Exception) -> None:
        """Nothing more will be applied, but for the batch that is in a thread."""
        self._closed = True
        if self._thread_scope is not None:
            self._thread_scope.deadline = trio.current_time() + self._threads.patience
        waiting, self._waiting = self._waiting, []
        for _, _, token in waiting:
            token.fail(error)
