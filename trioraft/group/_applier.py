"""Takes committed entries to the state machine, and results to whoever waits for them.

Inline machines are fed in slices between two checkpoints of the driver, so that a long replay does not hold up other groups. Blocking
machines run in a worker thread, one batch at a time, in a child task that exists only while there is work.

One thing at a time is done with the machine: a batch is applied, its state is replaced by a snapshot, or a view of it is taken. So a view
shows exactly what was applied up to `applied_index`, and nothing of a half-applied batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import attrs
import outcome
import trio

from .._errors import StateMachineError
from .._machine import ApplyContext, Codec, StateMachine
from .._types import EntryId, GroupKey, Index, NodeId
from ..core import Entry, EntryKind
from ..storage import SnapshotStorage
from ._index_waiters import IndexWaiters
from ._proposals import Proposals
from ._queries import Question, Questions, ask_machine, capture_answer
from ._restoring import restore_machine
from ._session_table import Result, SessionTable
from ._user_code import LedView, as_exception
from ._waiter import Token, Waiter

T = TypeVar("T")

SLICE: Final = 256
"""Entries applied between two checkpoints: about a millisecond for a machine as quick as it should be."""


@attrs.frozen
class ApplyThreads:
    """The worker threads that a node lends to its blocking machines."""

    limiter: trio.CapacityLimiter
    patience: float
    """Seconds that a stopping group waits for its batch in a thread; after that the thread is left to itself."""


@attrs.frozen
class _ViewRequest:
    """Somebody waits for a view of the state."""

    describe: Callable[[Index], Any]
    waiter: Waiter


class Applier:
    """Applies in order, exactly once in the life of a machine."""

    def __init__(
        self,
        key: GroupKey,
        node_id: NodeId,
        machine: StateMachine,
        codec: Codec,
        proposals: Proposals,
        snapshots: SnapshotStorage,
        *,
        wake: Callable[[], None],
        threads: ApplyThreads,
    ) -> None:
        self._key, self._node_id = key, node_id
        self._machine, self._codec = machine, codec
        self._proposals, self._snapshots = proposals, snapshots
        self._sessions = SessionTable(machine.declared_errors)
        self._wake, self._threads = wake, threads
        self._thread_scope: trio.CancelScope | None = None
        self._restore_scope: trio.CancelScope | None = None
        self._closed_error: Exception | None = None
        self._queue: deque[Entry] = deque()
        self._is_busy = False
        self._snapshot: EntryId | None = None  # to be restored before anything is applied
        self._view_request: _ViewRequest | None = None
        self._questions = Questions(machine)
        self._failure: Exception | None = None
        self._waiting = IndexWaiters()
        self.applied_index: Index = 0
        self.applied_bytes = 0
        """Payload that was applied in this process."""

    def begin(self, applied: Index, snapshot: EntryId | None) -> None:
        """Say where the machine stands at the start: it has everything up to `applied`, once it has been restored from `snapshot`."""
        if snapshot is None:
            self.applied_index = applied
        else:
            self.restore(snapshot)
            self._wake()

    def add(self, entries: Sequence[Entry]) -> None:
        self._queue.extend(entries)

    def restore(self, at: EntryId) -> None:
        """Replace the machine's state by the snapshot at `at`, before anything that is added from now on; what waits is in it."""
        self._queue.clear()
        self._snapshot = at

    def work(self, nursery: trio.Nursery) -> None:
        """Do the next slice, or hand it to a thread; wakes the driver when there is more to do or to tell.

        Raises:
            StateMachineError: the machine raised what it had not declared, now or in its thread.
            SnapshotError, StorageError: it could not be restored from a snapshot.
        """
        if self._failure is not None:
            raise self._failure
        if self._is_busy:
            return
        if self._snapshot is not None:
            snapshot, self._snapshot = self._snapshot, None
            self._is_busy = True
            nursery.start_soon(self._restore, snapshot)
            return
        if self._view_request is not None:
            self._show(self._view_request, nursery)
        if not (self._queue or self._questions) or self._is_busy:
            return
        batch = [self._queue.popleft() for _ in range(min(SLICE, len(self._queue)))]
        if self._machine.blocking:
            self._is_busy = True
            nursery.start_soon(self._apply_in_thread, batch)
            return
        self._questions.begin()
        self._questions.tell(self._questions.ask(), self.applied_index)
        for entry in batch:
            self._applied(entry, *self._apply(entry))
        if self._queue:
            self._wake()

    # --- batches ------------------------------------------------------------------------------------------------------------------------

    async def _apply_in_thread(self, batch: list[Entry]) -> None:
        if self._is_closed():
            return
        # NB: both in one hop, or those who ask all the time would keep the commands waiting.
        questions = self._questions
        questions.begin()
        done = await self._in_thread(lambda: (questions.ask(), *self._apply_batch(batch)))
        if self._is_closed() or done is None:
            return  # all callers have been answered
        replies, answers, failure = done
        questions.tell(replies, self.applied_index)
        for entry, (result, error) in zip(batch, answers, strict=False):
            self._applied(entry, result, error)
        self._failure = failure
        self._is_busy = False
        self._wake()

    async def _in_thread(self, code: Callable[[], T]) -> T | None:
        """Run `code` on the machine's behalf; None: the group stopped, and it was left to itself."""
        # NB: shielded, so that a stop waits for the code (the application may close its files next); `close` sets the bound.
        with trio.CancelScope(shield=True) as self._thread_scope:
            return await trio.to_thread.run_sync(code, abandon_on_cancel=True, limiter=self._threads.limiter)
        return None

    def _is_closed(self) -> bool:
        return self._closed_error is not None

    def _apply_batch(self, batch: list[Entry]) -> tuple[list[Result], StateMachineError | None]:
        answers = []
        for entry in batch:
            try:
                answers.append(self._apply(entry))
            except StateMachineError as error:
                return answers, error
        return answers, None

    def _apply(self, entry: Entry) -> Result:
        if entry.kind is EntryKind.COMMAND:
            return self._run_command(entry, entry.payload)
        if entry.kind is EntryKind.SESSION:
            return self._sessions.apply(entry.index, entry.payload, lambda command: self._run_command(entry, command))
        return entry.index, None

    def _run_command(self, entry: Entry, command: bytes) -> Result:
        context = ApplyContext(self._key.group_id, entry.index, entry.term, self._node_id)
        try:
            return self._machine.apply(self._codec.decode(command), context), None
        except self._machine.declared_errors as error:
            return None, error
        except (KeyboardInterrupt, trio.Cancelled):
            raise  # meant for the program
        except BaseException as error:  # such as SystemExit: it stops this group, and not the node
            raise StateMachineError(self._key.group_id, entry.index) from error

    def _applied(self, entry: Entry, result: Any, error: Exception | None) -> None:
        self.applied_bytes += len(entry.payload)
        self._proposals.answer(entry.index, entry.term, result, error)
        self._advance(entry.index)

    def _advance(self, index: Index) -> None:
        self.applied_index = index
        self._waiting.reach(index)

    # --- queries ------------------------------------------------------------------------------------------------------------------------

    def ask(self, index: Index, question: Question) -> None:
        """Ask the machine once everything up to `index` is applied, and not before."""
        if self._closed_error is not None:
            question.fail(self._closed_error)
        elif index > self.applied_index:
            self._wait(index, question)
        elif self.may_answer(index):
            question.tell(capture_answer(self._machine, question.query), self.applied_index)
        else:
            self._questions.add(question)
            self._wake()

    def may_answer(self, index: Index) -> bool:
        """Whether the machine can be asked right here, by `answer`, and shows everything up to `index`."""
        is_untouched = not (self._is_busy or self._machine.blocking) and self._snapshot is None
        return is_untouched and index <= self.applied_index and self._closed_error is None

    def answer(self, query: Any) -> Any:
        """What the machine says, as of `applied_index`. Raises what it raises, and `QueryFailedError` for what is no `Exception`."""
        return ask_machine(self._machine, query)

    # --- snapshots ----------------------------------------------------------------------------------------------------------------------

    async def _restore(self, at: EntryId) -> None:
        if self._is_closed():
            return
        failure: Exception | None = None
        with trio.CancelScope() as self._restore_scope:
            try:
                self._sessions = await restore_machine(
                    self._machine, self._sessions, self._snapshots, self._key, at, self._threads.limiter, patience=self._threads.patience
                )
            except Exception as error:  # noqa: BLE001  # whatever it is, it stops this group and no other
                failure = error
        if self._is_closed():
            return
        if failure is None:
            self._proposals.abandon_to(at.index, f"this node got a snapshot up to {at} instead of the entry's result")
            self._proposals.begin_term(at.term)
            self._advance(at.index)
        elif self._snapshot is None:  # or a newer one is to be restored, and may have taken the place of this
            self._failure = failure
        self._is_busy = False
        self._wake()

    async def take_view(self, describe: Callable[[Index], T]) -> tuple[T, Iterable[Any]]:
        """Return a view of the machine's state (`StateMachine.snapshot`), and what `describe` said of the index that it shows.

        `describe` is called in the same synchronous stretch in which the view is taken, or begun to be taken in the machine's thread.

        Raises:
            Exception: what either of the two raised.
            GroupStoppedError: nothing will be applied any more.
        """
        self._view_request = request = _ViewRequest(describe, Waiter())
        self._wake()
        try:
            view: tuple[T, Iterable[Any]] = await request.waiter.wait()
        finally:
            if self._view_request is request:
                self._view_request = None
        return view

    def _show(self, request: _ViewRequest, nursery: trio.Nursery) -> None:
        try:
            description = request.describe(self.applied_index)
            if self._machine.blocking:
                self._is_busy = True
                nursery.start_soon(self._show_in_thread, request, description)
                return
            view = self._view()
        except (KeyboardInterrupt, trio.Cancelled):
            raise  # meant for the program
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is the business of whoever wants the view
            request.waiter.fail(as_exception(error))
        else:
            request.waiter.succeed((description, view))
        self._view_request = None

    def _view(self) -> LedView:
        return LedView(self._sessions.records(), self._machine.snapshot())

    async def _show_in_thread(self, request: _ViewRequest, description: Any) -> None:
        if self._is_closed():
            return
        view = await self._in_thread(lambda: outcome.capture(self._view))
        if self._is_closed() or view is None:
            return  # whoever waited has been told
        self._view_request = None
        if isinstance(view, outcome.Value):
            request.waiter.succeed((description, view.value))
        else:
            request.waiter.fail(as_exception(view.error))
        self._is_busy = False
        self._wake()

    # --- who waits for an index ---------------------------------------------------------------------------------------------------------

    async def wait_applied(self, index: Index) -> None:
        """Wait until everything up to `index` is applied.

        Raises:
            GroupStoppedError: nothing will be applied any more.
            NotLeaderError: entries from `index` on will not come here any more.

        *Cancellation:* nothing is left behind.
        """
        waiter = Waiter()
        self.notify(index, waiter)
        try:
            await waiter.wait()
        except trio.Cancelled:
            self.forget(waiter)
            raise

    def notify(self, index: Index, token: Token) -> None:
        """Tell `token` once everything up to `index` is applied."""
        if self._closed_error is not None:
            token.fail(self._closed_error)
        elif index <= self.applied_index:
            token.succeed(index)
        else:
            self._wait(index, token)

    def _wait(self, index: Index, token: Token) -> None:
        self._waiting.add(index, token)
        self._wake()  # NB: whether it can still come is looked at in the driver's turns, and there may be none for long

    def forget(self, token: Token) -> None:
        """Whoever waited, or asked, has left."""
        self._waiting.forget(token)
        if isinstance(token, Question):
            self._questions.forget(token)

    def abandon_from(self, index: Index, error: Exception) -> None:
        """Entries from `index` on will not come here any more."""
        self._waiting.abandon_from(index, error)

    @property
    def waiting(self) -> int:
        """How many wait for an index."""
        return len(self._waiting)

    def close(self, error: Exception) -> None:
        """Nothing more will be applied, but for the batch that is in a thread."""
        self._closed_error = error
        if self._restore_scope is not None:
            self._restore_scope.cancel()
        if self._view_request is not None:
            self._view_request.waiter.fail(error)
        if self._thread_scope is not None:
            self._thread_scope.deadline = trio.current_time() + self._threads.patience
        self._waiting.abandon_from(0, error)
        self._questions.fail(error)
