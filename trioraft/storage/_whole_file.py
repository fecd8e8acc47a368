"""Files that are written whole: under a temporary name, synced, renamed, directory synced. So a crash leaves the old one or the new one."""

from __future__ import annotations

import posixpath

from ._disk import Disk

TEMPORARY_SUFFIX = ".tmp"


async def replace_file(disk: Disk, directory: str, name: str, data: bytes) -> None:
    """Give a file new contents, all or nothing; durable on return. What is left of a try is overwritten by the next."""
    path = posixpath.join(directory, name)
    file = await disk.open(path + TEMPORARY_SUFFIX, create=True)
    try:
        await disk.append(file, 0, data, sync=True)
    finally:
        disk.close(file)
    await disk.rename(path + TEMPORARY_SUFFIX, path)
    await disk.sync_directory(directory)


async def remove_leftovers(disk: Disk, directory: str) -> None:
    """Remove what a crash left under a temporary name: it never counted."""
    for name in await disk.list_directory(directory):
        if name.endswith(TEMPORARY_SUFFIX):
            await disk.remove(posixpath.join(directory, name))
