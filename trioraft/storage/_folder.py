"""One directory of a group's own files, and the files that are made in it.

A file gets its name when it is whole and synced; until then it has a temporary one, of its own for each try. So whatever has a name can
be relied upon, and what a crash left under a temporary name is removed when the directory is first used in a process.

A folder is *closed* when its group is removed: what is asked for afterwards is refused, and `aclose` waits for what is under way. So
nobody makes a file in a directory that is being emptied, however late a task hears that its group is gone.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio

from .._errors import StorageError
from ._disk import Disk, DiskFile, NoSpaceError
from ._whole_file import TEMPORARY_SUFFIX, remove_leftovers

# How long a cancelled task waits for the disk to remove what is of no use any more.
CLEAN_UP_SECONDS = 5.0


@attrs.define(eq=False)
class Folder:
    """A directory that is made when the first file is."""

    disk: Disk
    path: str
    _closed: bool = False
    _made: bool = False
    _clean: bool = False
    _preparing: trio.Lock = attrs.Factory(trio.Lock)
    _under_way: int = 0
    _idle: trio.Event | None = None
    _tries: int = 0

    def path_of(self, name: str) -> str:
        return posixpath.join(self.path, name)

    async def create(self, name: str) -> NewFile:
        """Begin a file.

        Raises:
            StorageError: ``full``, ``io``; ``removed``: the group is gone.
        """
        with self._using(self.path):
            await self._prepare()
            self._tries += 1
            temporary = self.path_of(f"{name}.{self._tries}{TEMPORARY_SUFFIX}")
            return NewFile(self, name, await self.disk.open(temporary, create=True))

    async def open(self, name: str) -> DiskFile:
        """Open a whole file. Whoever gets it closes it.

        Raises:
            StorageError: ``missing``, ``io``, ``removed``.
        """
        path = self.path_of(name)
        with self._using(path):
            try:
                await self._remove_leftovers()
            except OSError:
                pass  # they are in nobody's way, and the next use tries again
            try:
                return await self.disk.open(path)
            except FileNotFoundError:
                raise StorageError("missing", path, "there is no such file") from None

    async def read(self, file: DiskFile, offset: int, size: int) -> bytes:
        """Read up to `size` bytes, fewer only at the end. The group may be gone: what is open stays readable.

        Raises:
            StorageError: ``io``.
        """
        with translated(file.path):
            return await self.disk.read(file, offset, size)

    async def names(self) -> list[str]:
        """What is there under a name; nothing, if the directory was never made.

        Raises:
            StorageError: ``io``, ``removed``.
        """
        with self._using(self.path):
            await self._remove_leftovers()
            try:
                found = await self.disk.list_directory(self.path)
            except FileNotFoundError:
                return []
        return [name for name in found if not name.endswith(TEMPORARY_SUFFIX)]

    async def remove(self, name: str) -> None:
        """Remove a file; one that is not there is fine. A crash may bring it back.

        Raises:
            StorageError: ``io``, ``removed``.
        """
        path = self.path_of(name)
        with self._using(path):
            try:
                await self.disk.remove(path)
            except (FileNotFoundError, NotADirectoryError):
                pass  # the directory was never made

    async def aclose(self) -> None:
        """Refuse whatever is asked for from now on; on return, nothing is under way. Idempotent."""
        self._closed = True
        while self._under_way:
            self._idle = self._idle or trio.Event()
            await self._idle.wait()
        await trio.lowlevel.checkpoint()

    async def _prepare(self) -> None:
        async with self._preparing:
            if not self._made:
                await self.disk.make_directory(self.path)
                self._made = True
        await self._remove_leftovers()

    async def _remove_leftovers(self) -> None:
        async with self._preparing:
            if not self._clean:
                try:
                    await remove_leftovers(self.disk, self.path)
                except FileNotFoundError:
                    pass  # never made
                self._clean = True

    @contextmanager
    def _using(self, path: str) -> Iterator[None]:
        if self._closed:
            raise StorageError("removed", path, "the group was removed")
        self._under_way += 1
        try:
            with translated(path):
                yield
        finally:
            self._under_way -= 1
            if not self._under_way and self._idle is not None:
                self._idle.set()
                self._idle = None


@attrs.define(eq=False)
class NewFile:
    """A file that is not there until it is whole. One call at a time.

    After an error or a cancellation it is of no use any more, and nothing is open; `discard` removes what was written of it, or else the
    next process does.
    """

    _folder: Folder
    _name: str
    _file: DiskFile
    _is_open: bool = True
    _is_committed: bool = False
    size: int = 0
    """Where the next piece goes."""

    async def append(self, data: bytes) -> None:
        """Write on.

        Raises:
            StorageError: ``full``, ``io``, ``removed``.
        """
        await self.write_at(self.size, data)

    async def write_at(self, offset: int, data: bytes) -> None:
        """Write somewhere else; `size` grows if need be."""
        with self._using():
            await self._folder.disk.append(self._file, offset, data, sync=False)
        self.size = max(self.size, offset + len(data))

    async def commit(self) -> str:
        """Make it durable under its name, replacing what had it; return its path.

        Raises:
            StorageError: ``full``, ``io``, ``removed``: it does not count. It may have its name, but whoever relies on that may lose it.
        *Cancellation:* it has its name or not, durably or not.
        """
        path = self._folder.path_of(self._name)
        disk = self._folder.disk
        with self._using():
            await disk.sync(self._file)
            await disk.rename(self._file.path, path)
            await disk.sync_directory(self._folder.path)
        self._is_committed = True
        self._close()
        return path

    async def discard(self) -> None:
        """Remove what was written. Does nothing after `commit`; also does it when cancelled."""
        self._close()
        if not self._is_committed:
            with trio.move_on_after(CLEAN_UP_SECONDS, shield=True):
                try:
                    await self._folder.remove(posixpath.basename(self._file.path))
                except StorageError:
                    pass  # whoever empties the directory, or uses it next, removes it
        await trio.lowlevel.checkpoint()

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._folder.disk.close(self._file)

    @contextmanager
    def _using(self) -> Iterator[None]:
        if not self._is_open:
            raise StorageError("io", self._file.path, "the file was given up")
        try:
            with self._folder._using(self._file.path):
                yield
        except BaseException:
            self._close()
            raise


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Say `StorageError` where the disk says `OSError`."""
    try:
        yield
    except NoSpaceError as error:
        raise StorageError("full", path, f"no space: {error.strerror or error}") from error
    except OSError as error:
        raise StorageError("io", path, f"{error.strerror or error}") from error
