"""A disk in memory that misbehaves on purpose, by named options and one seed.

A `SimulatedDisk` is the metal; a process works on it through a `mount()`. `crash()` first makes all mounts dead, so that nothing the
dead process still does (its clean-up, its cancelled tasks) has any effect, and then decides what was on the metal:

* of each unsynced write, every 512-byte sector is there or not; a missing one reads as zeros, or as what was there before;
* a file may be cut at any byte after its last synced end;
* every unsynced directory entry (made, renamed, removed) is there or not, whatever was synced inside the file.

There are no threads here, and time passes by `trio.sleep` only, so it runs on Trio's mock clock with autojump.
"""

from __future__ import annotations

import copy
import errno
import posixpath
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Literal, NoReturn, TypeAlias

import attrs
import trio

from ._disk import NO_SPACE, DiskFile, NoSpaceError

SECTOR = 512

Keep: TypeAlias = Literal["all", "none", "random"]
"""What of the unsynced data survives a crash."""


@attrs.frozen
class DiskCall:
    """One step of a disk operation, as a hook sees it. An append that syncs is two: ``write`` and ``sync``."""

    number: int
    """Counts from 1 over the life of the disk."""
    verb: str
    path: str


Hook: TypeAlias = Callable[[DiskCall], Awaitable[None]]
"""Called before each step: it may raise `OSError` (the step fails), sleep (it stalls), or crash the disk."""


@attrs.define(eq=False)
class _File:
    data: bytearray = attrs.Factory(bytearray)
    """What reads show."""
    durable: bytearray = attrs.Factory(bytearray)
    """What survives a crash for sure."""
    pending: list[tuple[int, bytes | None]] = attrs.Factory(list)
    """What happened since the last sync: (offset, data) written, or (size, None) cut."""

    def write(self, offset: int, data: bytes) -> None:
        _put(self.data, offset, data)
        self.pending.append((offset, data))

    def cut(self, size: int) -> None:
        _cut(self.data, size)
        self.pending.append((size, None))

    def sync(self) -> None:
        for offset, data in self.pending:
            _cut(self.durable, offset) if data is None else _put(self.durable, offset, data)
        self.pending.clear()

    def settle(self, keep: Keep, rng: random.Random) -> None:
        """Decide which of the pending changes are on the metal."""
        if keep == "all":
            self.sync()
        elif keep == "random":
            self._settle_at_random(rng)
        self.pending.clear()

    def _settle_at_random(self, rng: random.Random) -> None:
        floor, grown = len(self.durable), False
        chance = rng.choice((0.1, 0.5, 0.9))
        for offset, data in self.pending:
            if data is None:
                if rng.random() < chance:
                    _cut(self.durable, offset)
                    floor = min(floor, offset)
                continue
            grown = True
            for start, piece in _sectors(offset, data):
                if rng.random() < chance:
                    _put(self.durable, start, piece)
        if not grown:
            return
        # The length is metadata of its own: it may have been written with the data, without it, or only in part.
        length = rng.choice((len(self.durable), max(len(self.data), len(self.durable)), rng.randint(floor, max(floor, len(self.durable)))))
        self.durable.extend(bytes(max(0, length - len(self.durable))))
        _cut(self.durable, length)


@attrs.define(eq=False)
class _Directory:
    entries: dict[str, _File | _Directory] = attrs.Factory(dict)
    durable: dict[str, _File | _Directory] = attrs.Factory(dict)
    pending: list[dict[str, _File | _Directory | None]] = attrs.Factory(list)
    """Each change at once or not at all: a rename is two entries in one."""

    def change(self, changes: dict[str, _File | _Directory | None]) -> None:
        _assign(self.entries, changes)
        self.pending.append(changes)

    def sync(self) -> None:
        for changes in self.pending:
            _assign(self.durable, changes)
        self.pending.clear()

    def crash(self, keep: Keep, rng: random.Random) -> None:
        for changes in self.pending:
            if keep == "all" or (keep == "random" and rng.random() < 0.5):
                _assign(self.durable, changes)
        self.pending.clear()
        self.entries = dict(self.durable)
        for name in sorted(self.entries):
            node = self.entries[name]
            if isinstance(node, _Directory):
                node.crash(keep, rng)
            else:
                node.settle(keep, rng)
                node.data = bytearray(node.durable)


class SimulatedDisk:
    """The metal.

    Args:
        rng: decides what survives a crash, and how much of a failing write was written.
        capacity: bytes of all files together; a write beyond it is cut short and fails with ENOSPC. Can be changed at any time.
        write_seconds: time that a write takes.
        sync_seconds: time that a sync takes.
        lying: syncs return without effect, as on a drive that ignores them. To break a test on purpose.
        dead_calls: what a dead process sees of its disk: it blocks until cancelled, or gets EIO.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        capacity: int | None = None,
        write_seconds: float = 0.0,
        sync_seconds: float = 0.0,
        lying: bool = False,
        dead_calls: Literal["block", "raise"] = "block",
    ) -> None:
        self.rng = rng
        self.capacity = capacity
        self.write_seconds, self.sync_seconds = write_seconds, sync_seconds
        self.lying = lying
        self.dead_calls = dead_calls
        self.hook: Hook | None = None
        self.failing_syncs = 0
        """This many of the next syncs fail with EIO; the data of each may be lost, and a later sync does not bring it back."""
        self.calls: Counter[str] = Counter()
        """Steps so far, by verb."""
        self._number = 0
        self._root = _Directory()
        self._mounts: list[SimulatedMount] = []

    def mount(self) -> SimulatedMount:
        """A process's view of the disk."""
        mount = SimulatedMount(self)
        self._mounts.append(mount)
        return mount

    def crash(self, keep: Keep = "random") -> None:
        """Cut the power: all mounts are dead, and what was not synced is there or not."""
        self.kill()
        self._root.crash(keep, self.rng)

    def kill(self) -> None:
        """End the process only: all mounts are dead and locks are free, and the kernel still has everything that was written."""
        for mount in self._mounts:
            mount.dead = True
        self._mounts.clear()

    def fork(self, rng: random.Random) -> SimulatedDisk:
        """A second disk in the same state, unsynced changes included, without mounts, faults or delays."""
        twin = SimulatedDisk(rng)
        twin._root = copy.deepcopy(self._root)
        return twin

    def contents(self, path: str) -> bytes:
        """What a file reads as now."""
        return bytes(self._file(path).data)

    def overwrite(self, path: str, data: bytes) -> None:
        """Replace a file on the metal behind everybody's back: rot, or an operator's hand."""
        directory, name = self._parent(path)
        file = _File(bytearray(data), bytearray(data))
        directory.entries[name] = directory.durable[name] = file

    def delete(self, path: str) -> None:
        """Remove a file on the metal."""
        directory, name = self._parent(path)
        directory.entries.pop(name, None)
        directory.durable.pop(name, None)

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted."""
        return sorted(self._directory(path).entries)

    # -- for mounts ---------------------------------------------------------------------------------------------------------------

    async def _step(self, verb: str, path: str) -> None:
        self._number += 1
        self.calls[verb] += 1
        if self.hook is not None:
            await self.hook(DiskCall(self._number, verb, path))
        await trio.lowlevel.checkpoint()

    def _used(self, directory: _Directory | None = None) -> int:
        nodes = (directory or self._root).entries.values()
        return sum(self._used(node) if isinstance(node, _Directory) else len(node.data) for node in nodes)

    def _directory(self, path: str) -> _Directory:
        node: _File | _Directory = self._root
        for part in [part for part in posixpath.normpath(path).split("/") if part not in ("", ".")]:
            if not isinstance(node, _Directory):
                raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
            if part not in node.entries:
                raise FileNotFoundError(errno.ENOENT, "no such directory", path)
            node = node.entries[part]
        if not isinstance(node, _Directory):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
        return node

    def _parent(self, path: str) -> tuple[_Directory, str]:
        parent, name = posixpath.split(posixpath.normpath(path))
        return self._directory(parent), name

    def _file(self, path: str) -> _File:
        directory, name = self._parent(path)
        node = directory.entries.get(name)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        if isinstance(node, _Directory):
            raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        return node


class SimulatedMount:
    """One process's view of a `SimulatedDisk`: a `Disk`."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk
        self.dead = False
        self._locks: set[str] = set()

    def abandoning(self) -> SimulatedMount:
        return self

    async def make_directory(self, path: str) -> None:
        await self._step("mkdir", path)
        directory = self._disk._root
        for part in [part for part in posixpath.normpath(path).split("/") if part not in ("", ".")]:
            child = directory.entries.get(part)
            if isinstance(child, _File):
                raise FileExistsError(errno.EEXIST, "a file is in the way", path)
            if child is None:
                directory.change({part: (child := _Directory())})
            directory.sync()
            directory = child

    async def list_directory(self, path: str) -> list[str]:
        await self._step("list", path)
        return sorted(self._disk._directory(path).entries)

    async def read_file(self, path: str, *, settle: bool = False) -> bytes:
        await self._step("read", path)
        file = self._disk._file(path)
        if settle:
            await self._sync(path, file)
            file.data = bytearray(file.durable)
        return bytes(file.data)

    async def open(self, path: str, *, create: bool = False) -> DiskFile:
        await self._step("create" if create else "open", path)
        if not create:
            return DiskFile(path, self._disk._file(path))
        directory, name = self._disk._parent(path)
        file = _File()
        directory.change({name: file})
        return DiskFile(path, file)

    async def size(self, file: DiskFile) -> int:
        await self._step("size", file.path)
        return len(file.handle.data)

    async def read(self, file: DiskFile, offset: int, size: int) -> bytes:
        await self._step("read", file.path)
        return bytes(file.handle.data[offset : offset + size])

    async def append(self, file: DiskFile, offset: int, data: bytes | bytearray, *, sync: bool) -> None:
        await self._write(file, offset, bytes(data))
        if sync:
            await self._sync(file.path, file.handle)

    async def sync(self, file: DiskFile) -> None:
        await self._sync(file.path, file.handle)

    async def truncate(self, file: DiskFile, size: int) -> None:
        await self._step("truncate", file.path)
        file.handle.cut(size)
        await self._sync(file.path, file.handle)

    async def rename(self, source: str, target: str) -> None:
        await self._step("rename", target)
        file = self._disk._file(source)
        (directory, old), (other, new) = self._disk._parent(source), self._disk._parent(target)
        if directory is not other:
            raise OSError(errno.EXDEV, "rename across directories is not simulated", target)
        directory.change({old: None, new: file})

    async def remove(self, path: str) -> None:
        await self._step("remove", path)
        directory, name = self._disk._parent(path)
        if name in directory.entries:
            directory.change({name: None})

    async def remove_directory(self, path: str) -> None:
        await self._step("rmdir", path)
        try:
            parent, name = self._disk._parent(path)
        except FileNotFoundError:
            return
        found = parent.entries.get(name)
        if found is None:
            return
        if not isinstance(found, _Directory):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
        if found.entries:
            raise OSError(errno.ENOTEMPTY, "the directory is not empty", path)
        parent.change({name: None})

    async def sync_directory(self, path: str) -> None:
        await self._step("sync_directory", path)
        if not self._disk.lying:
            self._disk._directory(path).sync()

    async def lock(self, path: str) -> DiskFile:
        await self._step("lock", path)
        if any(path in mount._locks for mount in self._disk._mounts):
            raise BlockingIOError(errno.EWOULDBLOCK, "held by another process")
        self._locks.add(path)
        return DiskFile(path, None)

    def close(self, file: DiskFile) -> None:
        self._locks.discard(file.path)

    # -- the steps ----------------------------------------------------------------------------------------------------------------

    async def _step(self, verb: str, path: str, *, seconds: float = 0.0) -> None:
        await self._check_alive()
        try:
            await self._disk._step(verb, path)
            if seconds:
                await trio.sleep(seconds)
        except OSError as error:
            await self._check_alive()
            if error.errno in NO_SPACE and verb in ("create", "rename", "mkdir", "write"):
                raise NoSpaceError(error.errno, error.strerror) from None
            raise
        await self._check_alive()

    async def _write(self, file: DiskFile, offset: int, data: bytes) -> None:
        node: _File = file.handle
        try:
            await self._step("write", file.path)
        except NoSpaceError:
            node.write(offset, data[: self._disk.rng.randrange(len(data) + 1)])
            raise
        if self._disk.capacity is not None:
            growth = max(0, offset + len(data) - len(node.data))
            room = max(0, self._disk.capacity - self._disk._used())
            if growth > room:
                node.write(offset, data[: len(data) - growth + room])
                raise NoSpaceError(errno.ENOSPC, "no space left on the simulated disk")
        # Before the time passes: a crash in the middle of a write finds any part of it.
        node.write(offset, data)
        if self._disk.write_seconds:
            await trio.sleep(self._disk.write_seconds)
            await self._check_alive()

    async def _sync(self, path: str, file: _File) -> None:
        try:
            await self._step("sync", path, seconds=self._disk.sync_seconds)
            if self._disk.failing_syncs:
                self._disk.failing_syncs -= 1
                raise OSError(errno.EIO, "simulated sync failure")
        except OSError:
            # As Linux does it: the pages are marked clean whether they were written or not, so no later sync writes them.
            if not self.dead:
                file.settle("random", self._disk.rng)
            raise
        if not self._disk.lying:
            file.sync()

    async def _check_alive(self) -> None:
        if self.dead:
            await self._be_dead()

    async def _be_dead(self) -> NoReturn:
        if self._disk.dead_calls == "raise":
            await trio.lowlevel.checkpoint()
            raise OSError(errno.EIO, "this process is dead")
        await trio.sleep_forever()


def _assign(entries: dict[str, _File | _Directory], changes: dict[str, _File | _Directory | None]) -> None:
    for name, node in changes.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _cut(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(max(0, size - len(content))))


def _sectors(offset: int, data: bytes) -> list[tuple[int, bytes]]:
    """Split a write at the sector boundaries of its file."""
    pieces, start = [], 0
    while start < len(data):
        end = min(len(data), start + SECTOR - (offset + start) % SECTOR)
        pieces.append((offset + start, data[start:end]))
        start = end
    return pieces
