"""Measures the directory of a node, from outside and while the node writes to it."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
from log_limits import DirectorySize


@attrs.frozen
class DirectoryUse:
    """What lies in a directory at one moment."""

    size: DirectorySize = attrs.Factory(DirectorySize)
    log_files: int = 0

    @property
    def total(self) -> int:
        """Bytes of all files, as ``du --apparent-size`` counts them; `node.toml` and the lock are small and left out."""
        return self.size.total


def measure_directory(path: Path) -> DirectoryUse:
    """Add up what is there. Files come and go meanwhile: one that is gone when it is looked at counts for nothing."""
    sizes = {"wal": 0, "logs": 0, "snapshots": 0}
    log_files = 0
    for folder, _, names in os.walk(path):
        kind = Path(folder).name
        if kind not in sizes:
            continue
        for name in names:
            try:
                sizes[kind] += (Path(folder) / name).stat().st_size
            except FileNotFoundError:
                continue
            log_files += kind == "wal"
    return DirectoryUse(DirectorySize(sizes["wal"], sizes["logs"], sizes["snapshots"]), log_files)
