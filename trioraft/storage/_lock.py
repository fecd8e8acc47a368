"""One process per directory."""

from __future__ import annotations

import posixpath

from .._errors import StorageError
from ._disk import Disk, DiskFile, NoSpaceError

LOCK_NAME = "lock"


async def lock_directory(disk: Disk, base_dir: str) -> DiskFile:
    """Make the directory if it is missing, and take it.

    Raises:
        StorageError: ``locked``, or ``unwritable``.
    """
    path = posixpath.join(base_dir, LOCK_NAME)
    try:
        await disk.make_directory(base_dir)
        return await disk.lock(path)
    except BlockingIOError as error:
        text = f"another node uses this directory ({error.strerror}); give each node a directory of its own, or stop the other one"
        raise StorageError("locked", path, text) from None
    except OSError as error:
        raise unusable(base_dir, error) from error


def unusable(path: str, error: OSError) -> StorageError:
    """What to raise for a directory or file that cannot be read or written at start."""
    if isinstance(error, NoSpaceError):
        return StorageError("full", path, f"no space to start: {error.strerror}")
    return StorageError("unwritable", path, f"cannot be used: {error.strerror or error}")
