"""What lies in a group's own directory, and how it goes when the group does.

    group-{id}/
      logs/{first_index}.log          entries at rest
      snapshots/{index}-{term}.snap   snapshots

The directory is made with the first file in it, and a start opens none. When a group has been removed, and its tombstone is durable, its
directory is *left over*: emptied in the background, or before a new incarnation of the group is made, whichever comes first. A crash on
the way leaves less of it, and the next start finds the rest by its name. Removed is only what is named like a file of ours; a directory
that holds anything else stays, and is told.

NB: a directory of a group that the log knows nothing of is not left over. No crash makes one, since a group is durable before its
directory; so a part of the log is lost that nobody missed, and the directory may be the last of that group. It stays until somebody makes
a group of that id.
"""

from __future__ import annotations

import errno
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping

import attrs
import trio

from .._types import GroupId, GroupKey
from ._at_rest import LOGS_DIRECTORY, AtRestFiles, at_rest_first
from ._disk import Disk
from ._folder import Folder, translated
from ._snapshot_files import SNAPSHOT_DIRECTORY, SnapshotFiles, snapshot_id
from ._whole_file import TEMPORARY_SUFFIX

_DIRECTORY_NAME = re.compile(r"group-(0|[1-9][0-9]{0,19})\Z")

# What of each directory of a group is ours, by its name.
_OURS: dict[str, Callable[[str], bool]] = {
    LOGS_DIRECTORY: lambda name: at_rest_first(name) is not None or name.endswith(TEMPORARY_SUFFIX),
    SNAPSHOT_DIRECTORY: lambda name: snapshot_id(name) is not None or name.endswith(TEMPORARY_SUFFIX),
}

# What a directory says that is not empty, or is none.
_FOREIGN = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})


def group_directory_name(group_id: GroupId) -> str:
    return f"group-{group_id}"


def group_of_directory(name: str) -> GroupId | None:
    """The group in the name of a directory; None for any other name."""
    match = _DIRECTORY_NAME.match(name)
    return int(match[1]) if match is not None else None


@attrs.define(eq=False)
class GroupDirectory:
    """One replica's own files."""

    key: GroupKey
    snapshots: SnapshotFiles
    at_rest: AtRestFiles

    async def aclose(self) -> None:
        """Refuse whatever is asked for from now on; on return, nothing is under way. What is open for reading stays readable."""
        await self.snapshots.folder.aclose()
        await self.at_rest.folder.aclose()


class GroupDirectories:
    """The directories of all groups of a node, as far as somebody has used them."""

    def __init__(self, disk: Disk, base_dir: str, store_id: bytes) -> None:
        self._disk, self._base_dir, self._store_id = disk, base_dir, store_id
        self._used: dict[GroupId, GroupDirectory] = {}
        # Of removed groups, oldest first; with what their tasks may still hold.
        self._leftovers: dict[GroupId, list[GroupDirectory]] = {}
        self._unknown: set[GroupId] = set()
        self._emptying = trio.Lock()
        self.on_left: Callable[[], None] | None = None
        """Called when a directory is left over: it need not be removed at once, but some time."""
        self.foreign: dict[str, None] = {}
        """Directories of removed groups that hold what is not ours: they stay."""

    @property
    def leftovers(self) -> list[GroupId]:
        """Removed groups whose directories may still be there."""
        return list(self._leftovers)

    def find_leftovers(self, names: Iterable[str], groups: Mapping[GroupId, bool]) -> None:
        """Note, at a start, what an earlier process left.

        Args:
            names: all names in the node's directory.
            groups: all groups that the log knows, and whether each was removed.
        """
        for name in names:
            group_id = group_of_directory(name)
            if group_id is None:
                continue
            if group_id not in groups:
                self._unknown.add(group_id)
            elif groups[group_id]:
                self._leftovers[group_id] = []

    def of(self, key: GroupKey) -> GroupDirectory:
        """The directory of a living replica; the same object each time."""
        found = self._used.get(key.group_id)
        if found is None or found.key != key:
            path = self.path(key.group_id)
            logs = Folder(self._disk, posixpath.join(path, LOGS_DIRECTORY))
            snapshots = Folder(self._disk, posixpath.join(path, SNAPSHOT_DIRECTORY))
            found = GroupDirectory(key, SnapshotFiles(snapshots), AtRestFiles(logs, self._store_id, key))
            self._used[key.group_id] = found
        return found

    def path(self, group_id: GroupId) -> str:
        return posixpath.join(self._base_dir, group_directory_name(group_id))

    def leave(self, group_id: GroupId) -> None:
        """The group was removed, durably: its directory is to go."""
        waiting = self._leftovers.setdefault(group_id, [])
        used = self._used.pop(group_id, None)
        if used is not None:
            waiting.append(used)
        if self.on_left is not None:
            self.on_left()

    async def remove(self, group_id: GroupId) -> None:
        """Remove what is left of a group that is not there (any more), if anything; on return that is durable.

        Raises:
            StorageError: ``io``: some of it may be there still, and stays left over.
        """
        async with self._emptying:
            if group_id not in self._leftovers and group_id not in self._unknown:
                return
            # NB: whoever still writes for the old replica is refused from here on, so that nothing comes back.
            for directory in self._leftovers.get(group_id, ()):
                await directory.aclose()
            with translated(self.path(group_id)):
                await self._empty(self.path(group_id))
            self._leftovers.pop(group_id, None)
            self._unknown.discard(group_id)

    async def _empty(self, path: str) -> None:
        try:
            names = await self._disk.list_directory(path)
        except FileNotFoundError:
            # It may have gone in an earlier try, and not durably yet.
            await self._disk.sync_directory(self._base_dir)
            return
        except NotADirectoryError:
            self.foreign[path] = None
            return
        for name in names:
            if name in _OURS:
                await self._empty_part(posixpath.join(path, name), _OURS[name])
        if await self._remove_directory(path):
            await self._disk.sync_directory(self._base_dir)
        else:
            await self._disk.sync_directory(path)
            self.foreign[path] = None

    async def _empty_part(self, path: str, is_ours: Callable[[str], bool]) -> None:
        try:
            names = await self._disk.list_directory(path)
        except NotADirectoryError:
            return
        for name in names:
            if is_ours(name):
                await self._disk.remove(posixpath.join(path, name))
        if not await self._remove_directory(path):
            await self._disk.sync_directory(path)

    async def _remove_directory(self, path: str) -> bool:
        """Returns whether it is gone; a directory that is not empty stays."""
        try:
            await self._disk.remove_directory(path)
        except OSError as error:
            if error.errno not in _FOREIGN:
                raise
            return False
        return True
