"""The one small object that all file operations go through.

Everything above asks a `Disk` and nothing else, so a simulated one can lose, tear, reorder, fail or stall at any call.

Two kinds of failure must never be mixed up. A *write* that finds no space has promised nothing: cut it off and try again later
(`NoSpaceError`). A *sync* that fails, for whatever reason, leaves it unknown what is on the disk, and the kernel may already have
marked the lost pages clean: a second sync would succeed and prove nothing. It is a plain `OSError`, even if its errno is ENOSPC.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import attrs
import trio

from ._disk_thread import DiskThread

T = TypeVar("T")

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})

# Of their own, so that users' threads never hold up the log, and so that reads never wait for the sync of a large file.
DISK_THREADS = 2
READ_THREADS = 2


class NoSpaceError(OSError):
    """The disk or the quota is full: a file could not be made, or was written only in part. Nothing of it was synced."""


@attrs.define(eq=False)
class DiskFile:
    """An open file. `handle` means something only to the disk that opened it."""

    path: str
    handle: Any


class Disk(Protocol):
    """File operations as storage needs them. Errors are `OSError`; nothing is durable before a sync unless it says so.

    *Cancellation:* an operation that has begun is finished before `Cancelled` is raised, however long it takes.
    """

    def abandoning(self) -> Disk:
        """The same disk, but what is cancelled is given up: it may go on in its thread, and its outcome is unknown.

        For whoever shields each operation and gives up on purpose, after a bound.
        """

    async def make_directory(self, path: str) -> None:
        """Make a directory and its parents, durably. One that exists is fine."""

    async def list_directory(self, path: str) -> list[str]:
        """The names in a directory, sorted."""

    async def read_file(self, path: str, *, settle: bool = False) -> bytes:
        """All of a file.

        Args:
            settle: sync the file first and forget what is cached of it. What a killed process wrote is then durable before anybody
                builds on it, and what a failed sync left in the cache alone is not mistaken for data.
        """

    async def open(self, path: str, *, create: bool = False) -> DiskFile:
        """Open to read and write; `create` makes the file, or empties it. Its directory entry is durable after `sync_directory` only."""

    async def size(self, file: DiskFile) -> int:
        """The bytes of an open file."""

    async def read(self, file: DiskFile, offset: int, size: int) -> bytes:
        """Read `size` bytes at `offset`; fewer only where the file ends. An open file stays readable when its name is gone."""

    async def append(self, file: DiskFile, offset: int, data: bytes | bytearray, *, sync: bool) -> None:
        """Write all of `data` at `offset`, then sync if asked to: both in one thread hop.

        Raises:
            NoSpaceError: from the write; the file may hold a part of `data`.
        """

    async def sync(self, file: DiskFile) -> None: ...

    async def truncate(self, file: DiskFile, size: int) -> None:
        """Cut the file and sync it."""

    async def rename(self, source: str, target: str) -> None:
        """Replace `target` atomically; durable after `sync_directory`."""

    async def remove(self, path: str) -> None:
        """Remove a file; one that is not there is fine."""

    async def remove_directory(self, path: str) -> None:
        """Remove an empty directory; one that is not there is fine. Durable after `sync_directory` of its parent."""

    async def sync_directory(self, path: str) -> None: ...

    async def lock(self, path: str) -> DiskFile:
        """Take an exclusive lock that ends with the process at the latest.

        Raises:
            BlockingIOError: another process holds it; ``strerror`` may say which.
        """

    def close(self, file: DiskFile) -> None:
        """Close the file and release its lock. Never raises."""


class RealDisk:
    """The file system, one thread hop for each operation."""

    def __init__(self) -> None:
        self._limiter: trio.CapacityLimiter | None = None
        self._read_limiter: trio.CapacityLimiter | None = None
        self._abandon_on_cancel = False
        self._writer: DiskThread | None = None

    def abandoning(self) -> Disk:
        disk = RealDisk()
        disk._abandon_on_cancel = True
        disk._writer = DiskThread()
        return disk

    async def make_directory(self, path: str) -> None:
        await self._run(_make_directory, path)

    async def list_directory(self, path: str) -> list[str]:
        return await self._run(lambda: sorted(os.listdir(path)))

    async def read_file(self, path: str, *, settle: bool = False) -> bytes:
        return await self._run(_read_file, path, settle)

    async def open(self, path: str, *, create: bool = False) -> DiskFile:
        if create:
            return await self._run(_open, path, create)
        return await trio.to_thread.run_sync(_open, path, create, abandon_on_cancel=self._abandon_on_cancel, limiter=self._readers())

    async def size(self, file: DiskFile) -> int:
        return await trio.to_thread.run_sync(lambda: os.fstat(file.handle).st_size, limiter=self._readers())

    async def read(self, file: DiskFile, offset: int, size: int) -> bytes:
        return await trio.to_thread.run_sync(_read, file.handle, offset, size, limiter=self._readers())

    async def append(self, file: DiskFile, offset: int, data: bytes | bytearray, *, sync: bool) -> None:
        if self._writer is not None:
            await self._writer.run(_append, file.handle, offset, data, sync)
        else:
            await self._run(_append, file.handle, offset, data, sync)

    async def sync(self, file: DiskFile) -> None:
        await self._run(_sync_data, file.handle)

    async def truncate(self, file: DiskFile, size: int) -> None:
        await self._run(_truncate, file.handle, size)

    async def rename(self, source: str, target: str) -> None:
        await self._run(_rename, source, target)

    async def remove(self, path: str) -> None:
        await self._run(_remove, path)

    async def remove_directory(self, path: str) -> None:
        await self._run(_remove_directory, path)

    async def sync_directory(self, path: str) -> None:
        await self._run(_sync_directory, path)

    async def lock(self, path: str) -> DiskFile:
        return await self._run(_lock, path)

    def close(self, file: DiskFile) -> None:
        # NB: the number is forgotten first. Closing it twice could close a stranger's file that got the number since.
        descriptor, file.handle = file.handle, -1
        if descriptor >= 0:
            try:
                os.close(descriptor)
            except OSError:
                pass  # nothing relies on close: what had to be durable was synced

    def _readers(self) -> trio.CapacityLimiter:
        if self._read_limiter is None:
            self._read_limiter = trio.CapacityLimiter(READ_THREADS)
        return self._read_limiter

    async def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        if self._limiter is None:
            self._limiter = trio.CapacityLimiter(DISK_THREADS)
        return await trio.to_thread.run_sync(function, *arguments, abandon_on_cancel=self._abandon_on_cancel, limiter=self._limiter)


def _sync_data(descriptor: int) -> None:
    if sys.platform == "darwin":
        # There, fsync only reaches the drive's own cache.
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def _append(descriptor: int, offset: int, data: bytes | bytearray, sync: bool) -> None:
    # pwrite and not O_APPEND: after a write that was cut off, the place to go on is ours to say.
    rest = memoryview(data)
    try:
        while rest:
            written = os.pwrite(descriptor, rest, offset)
            if written == 0:
                raise OSError(errno.ENOSPC, "short write")
            rest, offset = rest[written:], offset + written
    except OSError as error:
        raise _no_space(error) from None
    if sync:
        _sync_data(descriptor)


def _truncate(descriptor: int, size: int) -> None:
    os.ftruncate(descriptor, size)
    _sync_data(descriptor)


def _open(path: str, create: bool) -> DiskFile:
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if create else 0)
    try:
        return DiskFile(path, os.open(path, flags, 0o600))
    except OSError as error:
        raise _no_space(error) from None


def _rename(source: str, target: str) -> None:
    try:
        os.replace(source, target)
    except OSError as error:
        raise _no_space(error) from None


def _remove(path: str) -> None:
    try:
        os.remove(path)
    except FileNotFoundError:
        pass


def _remove_directory(path: str) -> None:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass


def _read(descriptor: int, offset: int, size: int) -> bytes:
    # One read returns less than asked for at the end of the file, and for very large sizes elsewhere too.
    pieces: list[bytes] = []
    while size and (piece := os.pread(descriptor, size, offset)):
        pieces.append(piece)
        offset, size = offset + len(piece), size - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _read_file(path: str, settle: bool) -> bytes:
    with open(path, "r+b" if settle else "rb", buffering=0) as file:
        if settle:
            _sync_data(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return file.readall()


def _make_directory(path: str) -> None:
    parent = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path):
        # Whoever made it may have been killed before its sync.
        try:
            _sync_directory(parent)
        except PermissionError:
            pass  # a parent that is not ours to read: the operator made this directory
        return
    if not os.path.isdir(parent):
        _make_directory(parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    except OSError as error:
        raise _no_space(error) from None
    _sync_directory(parent)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(path: str) -> DiskFile:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _name_holder(descriptor)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace")
        os.close(descriptor)
        raise BlockingIOError(error.errno, f"held by process {holder}" if holder.isdigit() else "held by another process") from None
    except BaseException:
        os.close(descriptor)
        raise
    return DiskFile(path, descriptor)


def _name_holder(descriptor: int) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    except OSError:
        pass  # a full disk: the lock holds all the same


def _no_space(error: OSError) -> OSError:
    return NoSpaceError(error.errno, error.strerror) if error.errno in NO_SPACE else error
