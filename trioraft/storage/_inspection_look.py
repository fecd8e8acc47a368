"""What all parts of an inspection share: the disk, the report, and how something is said in it."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence

import attrs

from .._errors import StorageError
from .._types import GroupId
from ._inspection_report import DirectoryReport, Finding
from ._read_only_disk import ReadOnlyDisk
from ._row import Row
from ._whole_file import TEMPORARY_SUFFIX


@attrs.define(eq=False)
class Look:
    """One look into a directory."""

    report: DirectoryReport
    disk: ReadOnlyDisk
    deep: bool
    on_progress: Callable[[str, int], None]
    rows: dict[GroupId, Row] = attrs.Factory(dict)
    sizes: dict[str, int] = attrs.Factory(dict)
    """Of log files, when they were read."""

    def progress(self, path: str) -> None:
        self.on_progress(path, self.disk.bytes_read)

    def find(self, path: str, offset: int | None, text: str, group_id: GroupId | None = None) -> None:
        self.report.findings.append(Finding(path, offset, text, group_id))

    def add(self, error: StorageError, group_id: GroupId | None = None) -> None:
        path, offset = place_of(error)
        prefix = f"{path}: " if offset is None else f"{path}: damaged at offset {offset}: "
        self.find(path, offset, str(error).removeprefix(prefix), group_id)

    def miss(self, path: str, text: str, group_id: GroupId) -> None:
        """A file is not there; beside a running node that may be the way of things."""
        if self.report.user is not None:
            self.note(path, text, None, group_id)
            return
        self.report.groups[group_id].is_damaged = True
        self.find(path, None, text, group_id)

    def note(self, path: str, text: str, offset: int | None = None, group_id: GroupId | None = None) -> None:
        self.report.notes.append(Finding(path, offset, text, group_id))

    def note_leftovers(self, directory: str, names: Sequence[str]) -> None:
        for name in names:
            if name.endswith(TEMPORARY_SUFFIX):
                self.note(posixpath.join(directory, name), "left of what was interrupted: it does not count, and goes at a start")

    async def note_changes(self) -> None:
        for path, size in self.sizes.items():
            if await self.size(path) != size:
                self.note(path, "the file has changed since it was read: a node is running here, and this is how it was before")

    async def names(self, directory: str) -> list[str]:
        try:
            return await self.disk.list_directory(directory)
        except (FileNotFoundError, NotADirectoryError):
            return []

    async def size(self, path: str) -> int | None:
        """None: it has vanished."""
        try:
            file = await self.disk.open(path)
        except FileNotFoundError:
            return None
        try:
            return await self.disk.size(file)
        finally:
            self.disk.close(file)


def place_of(error: StorageError) -> tuple[str, int | None]:
    return error.path, getattr(error, "offset", None)
