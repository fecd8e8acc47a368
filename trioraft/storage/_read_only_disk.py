"""A disk for who only looks: it opens nothing for writing, and syncs, makes, renames and removes nothing."""

from __future__ import annotations

import os
from typing import NoReturn

from .._errors import InvariantError
from ._disk import Disk, DiskFile, RealDisk


class ReadOnlyDisk(RealDisk):
    """The file system, read-only.

    A file that grows meanwhile stays as long as it was when it was first read, so whoever reads it twice reads the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes_read = 0
        self._sizes: dict[str, int] = {}

    async def read_file(self, path: str, *, settle: bool = False) -> bytes:
        try:
            data = await super().read_file(path)
        except OSError as error:
            error.filename = path
            raise
        self.bytes_read += len(data)
        return data[: self._sizes.setdefault(path, len(data))]

    async def open(self, path: str, *, create: bool = False) -> DiskFile:
        if create:
            _refuse(f"make {path}")
        return await self._run(_open, path)

    async def read(self, file: DiskFile, offset: int, size: int) -> bytes:
        try:
            data = await super().read(file, offset, size)
        except OSError as error:
            error.filename = file.path
            raise
        self.bytes_read += len(data)
        return data

    def abandoning(self) -> Disk:
        return self

    async def make_directory(self, path: str) -> None:
        _refuse(f"make {path}")

    async def append(self, file: DiskFile, offset: int, data: bytes | bytearray, *, sync: bool) -> None:
        _refuse(f"write to {file.path}")

    async def sync(self, file: DiskFile) -> None:
        _refuse(f"sync {file.path}")

    async def truncate(self, file: DiskFile, size: int) -> None:
        _refuse(f"cut {file.path}")

    async def rename(self, source: str, target: str) -> None:
        _refuse(f"rename {source}")

    async def remove(self, path: str) -> None:
        _refuse(f"remove {path}")

    async def remove_directory(self, path: str) -> None:
        _refuse(f"remove {path}")

    async def sync_directory(self, path: str) -> None:
        _refuse(f"sync {path}")

    async def lock(self, path: str) -> DiskFile:
        _refuse(f"lock {path}")


def _open(path: str) -> DiskFile:
    return DiskFile(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def _refuse(what: str) -> NoReturn:
    raise InvariantError(f"somebody who only looks tried to {what}")
