"""Whether a process uses a directory, found out without taking its lock: a node that starts at that moment must not be refused."""

from __future__ import annotations

import os
from pathlib import Path

from ._lock import LOCK_NAME

_SYSTEM_LOCKS = Path("/proc/locks")


def find_user(base_dir: str) -> str | None:
    """The process that uses a directory, as text; None, as far as one can see.

    A lock file stays when its process ends, so its content is believed only where the system does not say who holds what.
    """
    path = Path(base_dir) / LOCK_NAME
    try:
        holder, status = path.read_text("ascii", "replace")[:20].strip(), path.stat()
    except OSError:
        return None
    name = f"process {holder}" if holder.isdigit() else "a process"
    try:
        listed = _SYSTEM_LOCKS.read_text("ascii", "replace")
    except OSError:
        return name if holder.isdigit() and _is_alive(int(holder)) else None
    return name if _is_listed(listed, status, holder) else None


def _is_listed(listed: str, status: os.stat_result, holder: str) -> bool:
    # Each line: number, FLOCK, ADVISORY, WRITE, process, major:minor:inode, ... Some file systems give the device another number there.
    device = (os.major(status.st_dev), os.minor(status.st_dev))
    for fields in map(str.split, listed.splitlines()):
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].count(":") == 2:
            major, minor, inode = fields[5].split(":")
            if int(inode) == status.st_ino and ((int(major, 16), int(minor, 16)) == device or fields[4] == holder):
                return True
    return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
