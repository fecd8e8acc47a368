"""What the groups of `FileStorage` have in common: a few of them write at once, and what goes wrong with one goes wrong with all.

As for the shared log, there are three states. *Open*. *Full*: a group found no space; nothing of it is lost, nothing is confirmed, and it
tries again until there is space; all listeners are told, once. *Failed*, for ever: a sync failed, or a write hung beyond a shutdown's
patience; what was handed over and not confirmed may or may not be on the disk, and nobody writes it again.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final

import trio

from .._errors import StorageError
from ._config import StorageConfig
from ._contract import WriteListener
from ._disk import Disk, NoSpaceError

if TYPE_CHECKING:
    from ._file_group import FileGroup
    from ._file_log import FileLog

# How many groups write at once: more would wait for the same disk.
WRITERS: Final = 4


class FileWriters:
    """Runs the groups that have something to do."""

    def __init__(self, config: StorageConfig, disk: Disk) -> None:
        self.failure: StorageError | None = None
        self.queued_bytes = 0
        """Handed over and not confirmed."""
        self.is_hung = False
        """A write was given up on: its thread may still be there, and so must the files and the lock."""
        self._config = config
        self._groups: list[FileGroup] = []
        # A thread each, because a write that hangs is given up in the end.
        self._idle_disks = [disk.abandoning() for _ in range(WRITERS)]
        self._turns = trio.Semaphore(WRITERS)
        self._nursery: trio.Nursery | None = None
        self._full: set[FileGroup] = set()
        self._in_hand_since: dict[FileGroup, float] = {}
        self._scopes: set[trio.CancelScope] = set()
        self._is_stopping = False

    # -- what groups call: nothing here waits -------------------------------------------------------------------------------------

    def add(self, group: FileGroup) -> None:
        self._groups.append(group)

    def wake(self, group: FileGroup) -> None:
        """The group has something to do; or, after a failure, to drop."""
        if self.failure is not None:
            group.drop(self.failure)
        elif self._nursery is not None and group.has_work and not group.is_working:
            group.is_working = True
            self._nursery.start_soon(group.work)

    def greet(self, listener: WriteListener) -> None:
        """Where the storage has failed or the disk is full, a new listener is told at once."""
        if self.failure is not None:
            listener.storage_failed(self.failure)
        elif self.is_full:
            listener.space_changed(False)

    @property
    def is_full(self) -> bool:
        return bool(self._full)

    def sync_age(self) -> float:
        if self.failure is not None:
            return math.inf
        return trio.current_time() - min(self._in_hand_since.values()) if self._in_hand_since else 0.0

    # -- the task -----------------------------------------------------------------------------------------------------------------

    async def serve(self, task_status: trio.TaskStatus[None]) -> None:
        """Let the groups write until cancelled.

        *Cancellation:* what is in the hands of the disk is waited for, within `shutdown_write_timeout`. What is queued is dropped.
        """
        try:
            async with trio.open_nursery() as self._nursery:
                for group in self._groups:
                    self.wake(group)
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    self._is_stopping = True
                    for scope in self._scopes:
                        scope.deadline = self._deadline()
        finally:
            self._nursery = None
            # Stopped, but not told to listeners: their groups stop with the node, or did so before.
            self._drop_all(StorageError("closed", self._config.base_dir, "the log was closed before this was written; it may come back"))

    async def carry_out(self, group: FileGroup, act: Callable[[Disk], Awaitable[None]]) -> bool:
        """Do something on the disk, again and again while there is no space. False: the storage has failed."""
        while self.failure is None:
            async with self._turns:
                disk = self._idle_disks.pop()
                try:
                    is_done = await self._try(group, act, disk)
                finally:
                    self._idle_disks.append(disk)
            if self.failure is None:
                self._set_full(group, not is_done)
            if is_done or self.failure is not None:
                return is_done
            await trio.sleep(self._config.space_poll_interval)
        return False

    async def _try(self, group: FileGroup, act: Callable[[Disk], Awaitable[None]], disk: Disk) -> bool:
        """False: the disk is full, or the storage has failed."""
        self._in_hand_since[group] = trio.current_time()
        scope = trio.CancelScope(shield=True, deadline=self._deadline())
        self._scopes.add(scope)
        try:
            with scope:
                await act(disk)
                return True
        except NoSpaceError:
            return False
        except OSError as error:
            text = f"writing or syncing failed ({error.strerror or error}): what was not confirmed may or may not be on the disk"
            self.fail(StorageError("io", group.path, text))
            return False
        finally:
            self._scopes.discard(scope)
            del self._in_hand_since[group]
        self._give_up(group.path)
        return False

    async def sync_all(self, logs: Iterable[FileLog]) -> None:
        """Sync what is not synced yet, once nobody writes any more; an error is nobody's, since nothing was promised."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self._config.shutdown_write_timeout) as scope:
            try:
                for log in logs:
                    await log.sync(self._idle_disks[0])
            except OSError:
                pass
        if scope.cancelled_caught:
            self._give_up(self._config.base_dir)

    def fail(self, error: StorageError) -> None:
        """Nothing is taken any more, and everybody hears of it, once."""
        if self.failure is None:
            self._drop_all(error)
            self._tell(lambda listener: listener.storage_failed(error))

    def _give_up(self, path: str) -> None:
        self.is_hung = True
        text = f"a write did not end within {self._config.shutdown_write_timeout} s of the shutdown: its outcome is unknown"
        self.fail(StorageError("hung", path, text))

    def _deadline(self) -> float:
        return trio.current_time() + self._config.shutdown_write_timeout if self._is_stopping else math.inf

    def _set_full(self, group: FileGroup, full: bool) -> None:
        was_full = self.is_full
        (self._full.add if full else self._full.discard)(group)
        if self.is_full != was_full:
            self._tell(lambda listener: listener.space_changed(was_full))

    def _tell(self, what: Callable[[WriteListener], None]) -> None:
        for group in self._groups:
            if group.listener is not None:
                what(group.listener)

    def _drop_all(self, error: StorageError) -> None:
        if self.failure is None:
            self.failure = error
        for group in self._groups:
            group.drop(self.failure)
