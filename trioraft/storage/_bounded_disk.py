"""A disk on which one task cannot hang for ever: what it waits for when it is cancelled, it gives up after a while.

As for anybody, an operation that has begun is finished first. But should it not end within so many seconds, it is left to its thread, its
outcome is unknown, and `hung` is set: files and the lock must stay until the process ends, because that thread may still write. All
other tasks use the disk as it is.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from ._disk import Disk, DiskFile

T = TypeVar("T")


class BoundedDisk:
    """A `Disk`.

    Args:
        seconds: how long the task waits once it is cancelled.
    """

    def __init__(self, disk: Disk, seconds: float) -> None:
        self._disk, self._seconds = disk, seconds
        self._own = disk.abandoning()
        self._task: trio.lowlevel.Task | None = None
        self._scope: trio.CancelScope | None = None
        self._deadline = math.inf
        self.hung = False
        """An operation was given up on."""

    async def bound(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` as the task whose operations are bounded."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._bound_once_cancelled)
            self._task = trio.lowlevel.current_task()
            try:
                await work()
            finally:
                self._task = None
            nursery.cancel_scope.cancel()

    async def _bound_once_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._deadline = trio.current_time() + self._seconds
            if self._scope is not None:
                self._scope.deadline = self._deadline

    async def _run(self, operation: Callable[[Disk], Awaitable[T]]) -> T:
        if trio.lowlevel.current_task() is not self._task:
            return await operation(self._disk)
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            with trio.CancelScope(shield=True, deadline=self._deadline) as self._scope:
                return await operation(self._own)
        finally:
            self._scope = None
        self.hung = True
        raise OSError(errno.EIO, f"it did not end within {self._seconds} s of the shutdown: its outcome is unknown")

    # -- the operations ---------------------------------------------------------------------------------------------------------------

    def abandoning(self) -> Disk:
        return self._disk.abandoning()

    async def make_directory(self, path: str) -> None:
        await self._run(lambda disk: disk.make_directory(path))

    async def list_directory(self, path: str) -> list[str]:
        return await self._run(lambda disk: disk.list_directory(path))

    async def read_file(self, path: str, *, settle: bool = False) -> bytes:
        return await self._run(lambda disk: disk.read_file(path, settle=settle))

    async def open(self, path: str, *, create: bool = False) -> DiskFile:
        return await self._run(lambda disk: disk.open(path, create=create))

    async def size(self, file: DiskFile) -> int:
        return await self._run(lambda disk: disk.size(file))

    async def read(self, file: DiskFile, offset: int, size: int) -> bytes:
        return await self._run(lambda disk: disk.read(file, offset, size))

    async def append(self, file: DiskFile, offset: int, data: bytes | bytearray, *, sync: bool) -> None:
        await self._run(lambda disk: disk.append(file, offset, data, sync=sync))

    async def sync(self, file: DiskFile) -> None:
        await self._run(lambda disk: disk.sync(file))

    async def truncate(self, file: DiskFile, size: int) -> None:
        await self._run(lambda disk: disk.truncate(file, size))

    async def rename(self, source: str, target: str) -> None:
        await self._run(lambda disk: disk.rename(source, target))

    async def remove(self, path: str) -> None:
        await self._run(lambda disk: disk.remove(path))

    async def remove_directory(self, path: str) -> None:
        await self._run(lambda disk: disk.remove_directory(path))

    async def sync_directory(self, path: str) -> None:
        await self._run(lambda disk: disk.sync_directory(path))

    async def lock(self, path: str) -> DiskFile:
        return await self._run(lambda disk: disk.lock(path))

    def close(self, file: DiskFile) -> None:
        # NB: what was given up may still be at work on it, and its number could be another file's by then.
        if not self.hung:
            self._disk.close(file)
