"""One task that writes what all groups have queued: one batch, one thread hop, one sync, one word to each group.

While a batch is on its way, the next one gathers: the slower the disk, the larger the batches. Nothing is delayed on purpose.

What fits into one batch goes, all of it, in the order in which it came. When more than that waits, the groups take turns, write by
write: a group that floods the log fills the room that the others leave, and delays none of them by more than one of its writes.
A group's own writes and marks never overtake each other; between groups there is no order that anything relies on, since sequences
are compared within a group only.

What was written is applied to the table of groups before anybody is told: so what is confirmed is in the table, and nothing else is. A
new file gets the whole table as its checkpoint before any batch. That takes a few batches of their own; the queue waits meanwhile, so the
table stands still. Lest it wait long, rows are encoded beforehand: bit by bit between the batches, while the rest of the old file fills.

The log is in one of three states.

* *Open*: as above.
* *Full*: the disk has no space. Nothing is lost and nothing is confirmed; all listeners have been told, once; the batch that found no
  room is tried again until it does, and the others wait behind it.
* *Failed* (`failure` is set), for ever: a sync failed, or a write hung beyond a shutdown's patience. What was handed over and not
  confirmed may or may not be on the disk. It is not written again: a second sync of the same data could succeed and prove nothing.

A group that writes what cannot follow what it wrote before has failed by itself: its row says so, as it will at the next start.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from itertools import chain

import attrs
import trio

from .._errors import StorageError
from .._types import GroupId
from ._config import StorageConfig
from ._contract import WriteListener
from ._disk import NoSpaceError
from ._log_file import LogFile, Written
from ._segment import encode_end_of_checkpoint
from ._table import Body, Table

CHECKPOINT_BATCH_BYTES = 1 << 20
# Others get their turn after so many rows or writes, each a few microseconds.
ROWS_PER_CHECKPOINT = 256
WRITES_PER_CHECKPOINT = 1024


def _do_nothing() -> None:
    pass


@attrs.define(eq=False)
class Mark:
    """A segment that something hangs on: a group made or removed, a log cut, entries moved. It is synced, whatever `sync_on_write` says,
    because files are removed on its word. Whoever waits for it may leave; it is written all the same.
    """

    on_durable: Callable[[], None] = _do_nothing
    """Called once it is on stable storage and applied."""
    on_end: Callable[[], None] = _do_nothing
    """Called after that, or when it has failed: with its group, or with the log."""
    _done: trio.Event = attrs.Factory(trio.Event)
    _error: StorageError | None = None

    async def wait(self) -> None:
        await self._done.wait()
        if self._error is not None:
            raise self._error

    def durable(self) -> None:
        if not self._done.is_set():
            self.on_durable()
            self._done.set()
            self.on_end()

    def fail(self, error: StorageError) -> None:
        if not self._done.is_set():
            self._error = error
            self._done.set()
            self.on_end()


# NB: a plain class with slots. There is one for each write of each group.
class _Item:
    __slots__ = ("data", "group_id", "mark", "sequence")

    def __init__(self, group_id: GroupId, data: bytes, sequence: int, mark: Mark | None) -> None:
        self.group_id, self.data, self.sequence, self.mark = group_id, data, sequence, mark


class Committer:
    """The queue of a log and the task that empties it."""

    def __init__(self, log: LogFile, table: Table, config: StorageConfig) -> None:
        self.on_new_file: Callable[[], None] = _do_nothing
        """Called when a new file has its checkpoint: older ones may be cleaned."""
        self.failure: StorageError | None = None
        self.is_full = False
        self.queued_bytes = 0
        """Handed over and not confirmed, the batch on its way included."""
        self.in_hand_since: float | None = None
        """When the disk got the batch that is on its way."""
        self.hung = False
        """A write was given up on: its thread may still be there, and so must the files and the lock."""
        self._log = log
        self._table = table
        self._config = config
        # What came since the last batch was taken. Moved to `_backlog` only if it does not fit into one.
        self._queue: deque[_Item] = deque()
        # Of each group that has something left over: its writes, oldest first. Only these groups have a place in `_turns`, one each.
        self._backlog: dict[GroupId, deque[_Item]] = {}
        self._turns: deque[GroupId] = deque()
        self._batch: list[_Item] = []
        self._batch_bytes = 0
        self._listeners: dict[GroupId, WriteListener] = {}
        self._wake: trio.Event | None = None
        self._write_scope: trio.CancelScope | None = None
        self._stopping = False

    # -- what groups call: nothing here waits -------------------------------------------------------------------------------------

    def attach(self, group_id: GroupId, listener: WriteListener) -> None:
        """Name who hears of a group's writes. Where the log has failed or the disk is full, it is told at once."""
        self._listeners[group_id] = listener
        if self.failure is not None:
            listener.storage_failed(self.failure)
        elif self.is_full:
            listener.space_changed(False)

    def detach(self, group_id: GroupId) -> None:
        self._listeners.pop(group_id, None)

    def submit(self, group_id: GroupId, data: bytes, sequence: int = 0, mark: Mark | None = None) -> None:
        """Queue segments of one group; after a failure there is nothing to queue for."""
        if self.failure is not None:
            if mark is not None:
                mark.fail(self.failure)
            return
        self._queue.append(_Item(group_id, data, sequence, mark))
        self.queued_bytes += len(data)
        if self._wake is not None:
            self._wake.set()

    def sync_age(self) -> float:
        if self.failure is not None:
            return math.inf
        return 0.0 if self.in_hand_since is None else trio.current_time() - self.in_hand_since

    # -- the task -----------------------------------------------------------------------------------------------------------------

    async def serve(self, task_status: trio.TaskStatus[None]) -> None:
        """Empty the queue until cancelled.

        *Cancellation:* the batch on its way is finished and confirmed first, within `shutdown_write_timeout`. What is still queued is
        dropped: whoever waits for it must not count on it.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._bound_write_once_cancelled)
                task_status.started()
                await self._run()
        finally:
            # Stopped, but not told to listeners: their groups stop with the node, or did so before.
            self._drop_all(StorageError("closed", self._log.directory, "the log was closed before this was written; it may come back"))

    async def _run(self) -> None:
        while True:
            # Everybody else first: groups that have something to write, and senders, which would contend with the disk's thread for the
            # interpreter. Under steady load this is also the only statement of the loop that notices a cancellation.
            await trio.lowlevel.checkpoint()
            if not (self._queue or self._turns) or self.failure is not None:
                self._wake = trio.Event()
                await self._wake.wait()
                self._wake = None
                continue
            self._take_batch()
            await self._commit_batch()
            # A bit of the work of the next checkpoint, so that nobody waits long for all of it.
            while self._table.encoded_rows.prepare(self._log.fullness, ROWS_PER_CHECKPOINT):  # noqa: ASYNC110  # it works, in pieces
                await trio.lowlevel.checkpoint()

    def _take_batch(self) -> None:
        if self.queued_bytes <= self._config.batch_bytes_max and not self._turns:
            self._batch.extend(self._queue)
            self._queue.clear()
            self._batch_bytes = self.queued_bytes
            return
        self._sort_queue()
        self._take_turns()

    def _sort_queue(self) -> None:
        backlog = self._backlog
        for item in self._queue:
            waiting = backlog.get(item.group_id)
            if waiting is None:
                waiting = backlog[item.group_id] = deque()
                self._turns.append(item.group_id)
            waiting.append(item)
        self._queue.clear()

    def _take_turns(self) -> None:
        """One write of each group, again and again, until nothing that waits first in its group fits any more.

        Who is passed over keeps its place, and is among the first in the next batch. A write that fits into no batch goes as soon as no
        group before it has been passed over: after the others, beyond the limit.
        """
        turns, batch_bytes_max = self._turns, self._config.batch_bytes_max
        self._batch_bytes = 0
        passed_over: deque[GroupId] = deque()
        while turns:
            group_id = turns[0]
            if self._batch_bytes + len(self._backlog[group_id][0].data) <= batch_bytes_max:
                self._take_turn()
            else:
                passed_over.append(turns.popleft())
        self._turns = passed_over
        if passed_over and len(self._backlog[passed_over[0]][0].data) > batch_bytes_max:
            self._take_turn()

    def _take_turn(self) -> None:
        """The first write of the group whose turn it is; the group goes to the end, if it has more."""
        group_id = self._turns.popleft()
        waiting = self._backlog[group_id]
        item = waiting.popleft()
        self._batch.append(item)
        self._batch_bytes += len(item.data)
        if waiting:
            self._turns.append(group_id)
        else:
            del self._backlog[group_id]

    async def _commit_batch(self) -> None:
        """See one batch through, whatever it takes: written, or tried until there is space, or the log has failed."""
        segments = [item.data for item in self._batch]
        # The last number of each group is all that its listener needs: a dict keeps the last.
        last = {item.group_id: item.sequence for item in self._batch if item.mark is None}
        groups = last.keys() | {item.group_id for item in self._batch if item.mark is not None}
        has_marks = any(item.mark is not None for item in self._batch)
        while (written := await self._write(groups, segments, sync=has_marks)) is None:
            if self.failure is not None:
                return
            self._set_full(True)
            await trio.sleep(self._config.space_poll_interval)
        self._set_full(False)
        self._confirm(last, await self._apply(groups, written))

    async def _apply(self, groups: set[GroupId], written: Written) -> list[GroupId]:
        """Let the table know, in pieces of so many writes. Returns the groups that failed in it."""
        file, offset, data, start, end = written
        failed: list[GroupId] = []
        for place in range(WRITES_PER_CHECKPOINT, len(self._batch), WRITES_PER_CHECKPOINT):
            piece = self._batch[place - WRITES_PER_CHECKPOINT : place]
            following = start + sum(len(item.data) for item in piece)
            failed += self._table.apply(Body(groups, file, offset, data, start, following, offset))
            start = following
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
        return failed + self._table.apply(Body(groups, file, offset, data, start, end, offset))

    async def _write(self, groups: set[GroupId], segments: list[bytes], *, sync: bool) -> Written | None:
        """Write the batch; in a new file, behind its checkpoint. None: the disk is full, or the log has failed."""
        self.in_hand_since = trio.current_time()
        try:
            with trio.CancelScope(shield=True, deadline=self._write_deadline()) as self._write_scope:
                if self._log.is_full:
                    await self._log.start_file()
                    self._table.add_file(self._log.end.number)
                if not self._log.has_checkpoint:
                    await self._write_checkpoint()
                return await self._log.append(groups, segments, sync=sync)
        except NoSpaceError:
            return None
        except OSError as error:
            text = f"writing or syncing failed ({error.strerror or error}): what was not confirmed may or may not be on the disk"
            self.fail(StorageError("io", self._log.directory, text))
            return None
        finally:
            self._write_scope = None
            self.in_hand_since = None
        self.hung = True
        text = f"a write did not end within {self._config.shutdown_write_timeout} s of the shutdown: its outcome is unknown"
        self.fail(StorageError("hung", self._log.directory, text))
        return None

    async def _write_checkpoint(self) -> None:
        """The whole table, in batches of its own, each synced: so that only the last one can ever be torn."""
        groups: list[GroupId] = []
        segments: list[bytes] = []
        rows = size = 0
        # NB: nobody may begin with a checkpoint that lacks a refused group: it would come back empty, and could vote a second time.
        is_whole = not self._table.has_damage
        for group_id, row in self._table.encoded_rows.take_all():
            groups.append(group_id)
            segments.append(row)
            size += len(row)
            rows += 1
            if size >= CHECKPOINT_BATCH_BYTES:
                await self._log.append(groups, segments, sync=True)
                groups, segments, size = [], [], 0
            if rows % ROWS_PER_CHECKPOINT == 0:
                await trio.lowlevel.checkpoint()
        segments.append(encode_end_of_checkpoint(rows, is_whole=is_whole))
        await self._log.append(groups, segments, sync=True)
        self._log.finish_checkpoint()
        if is_whole:
            self._table.files.set_complete(self._log.end.number)
        self.on_new_file()

    def _confirm(self, last: dict[GroupId, int], failed: list[GroupId]) -> None:
        batch, self._batch = self._batch, []
        self.queued_bytes -= self._batch_bytes
        for group_id in failed:
            self._tell_failure(group_id, batch)
            last.pop(group_id, None)
        for item in batch:
            if item.mark is not None:
                item.mark.durable()
        for group_id, sequence in last.items():
            listener = self._listeners.get(group_id)
            if listener is not None:
                listener.persisted(sequence)

    def _tell_failure(self, group_id: GroupId, batch: list[_Item]) -> None:
        """Nothing of that group is confirmed any more."""
        failure = self._table.rows[group_id].failure
        if failure is None:
            return
        for item in batch:
            if item.mark is not None and item.group_id == group_id:
                item.mark.fail(failure)
        listener = self._listeners.pop(group_id, None)
        if listener is not None:
            listener.storage_failed(failure)

    def _set_full(self, full: bool) -> None:
        if full != self.is_full:
            self.is_full = full
            for listener in list(self._listeners.values()):
                listener.space_changed(not full)

    def fail(self, error: StorageError) -> None:
        """The log takes nothing any more, and everybody hears of it, once."""
        if self.failure is None:
            self._drop_all(error)
            for listener in list(self._listeners.values()):
                listener.storage_failed(error)

    def _drop_all(self, error: StorageError) -> None:
        if self.failure is None:
            self.failure = error
        for item in chain(self._batch, *self._backlog.values(), self._queue):
            if item.mark is not None:
                item.mark.fail(self.failure)
        for emptied in (self._batch, self._backlog, self._turns, self._queue):
            emptied.clear()
        self.queued_bytes = 0

    # -- the end ------------------------------------------------------------------------------------------------------------------

    async def _bound_write_once_cancelled(self) -> None:
        """A cancelled task does not stop its write. Wait for it, but not for ever."""
        try:
            await trio.sleep_forever()
        finally:
            self._stopping = True
            if self._write_scope is not None:
                self._write_scope.deadline = self._write_deadline()

    def _write_deadline(self) -> float:
        return trio.current_time() + self._config.shutdown_write_timeout if self._stopping else math.inf
