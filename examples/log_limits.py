"""How much log a node keeps, and what its directory may therefore take on the disk.

Two settings decide: the size of a log file, and after how many entries a group takes a snapshot. All others follow from them here, so
that small ones make a small directory. The bound has three parts, each checked by itself:

- *shared log*: the newest file, the one that is being emptied, and two more that may fill up meanwhile; each may overshoot by a batch,
  which is a quarter of its size.
- *entries at rest*: of each group what it keeps for followers that are behind, at most half of what it takes a snapshot after; as much
  as that until the next snapshot is due; and no more than that again until it is there. Such a file goes as a whole, when the last of its
  entries is cut: therefore two log files' worth more, if the load is spread over the groups.
- *snapshots*: three of each group: the newest, one that a stream still reads, and one that is being written. This part follows the
  state, and may grow as that does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import attrs

from trioraft import ConfigError, GroupConfig, StorageConfig

_LOG_FILES = 4
_SNAPSHOTS = 3
_SNAPSHOT_OVERHEAD = 4096
"""Of each snapshot: headers, manifest, names of members."""
_KIB, _MIB = 1 << 10, 1 << 20


@attrs.frozen
class DirectorySize:
    """Bytes, by what they are for."""

    log: int = 0
    at_rest: int = 0
    snapshots: int = 0

    @property
    def total(self) -> int:
        return self.log + self.at_rest + self.snapshots

    def largest(self, other: DirectorySize) -> DirectorySize:
        """The larger one of each part."""
        return DirectorySize(max(self.log, other.log), max(self.at_rest, other.at_rest), max(self.snapshots, other.snapshots))

    def beyond(self, bound: DirectorySize) -> list[str]:
        """A sentence for each part that is larger than its bound."""
        parts = zip(("shared log", "entries at rest", "snapshots"), attrs.astuple(self), attrs.astuple(bound), strict=True)
        return [f"{name}: {size} bytes, beyond the bound of {limit}" for name, size, limit in parts if size > limit]


@attrs.frozen
class LogLimits:
    """The two settings, and what follows from them."""

    log_file_size: int = StorageConfig().max_log_file_size
    snapshot_entries: int = GroupConfig().snapshot_entries

    @property
    def kept_entries(self) -> int:
        """What a group keeps for followers at most, while a snapshot is on its way to one."""
        return self.snapshot_entries // 2

    @property
    def batch_bytes(self) -> int:
        """A batch of the log: small files with large batches would be no small files."""
        return max(4 * _KIB, min(4 * _MIB, self.log_file_size // 4))

    def storage_config(self, base_dir: Path) -> StorageConfig:
        return StorageConfig(base_dir=str(base_dir), max_log_file_size=self.log_file_size, batch_bytes_max=self.batch_bytes)

    def group_config(self) -> GroupConfig:
        return GroupConfig(
            snapshot_entries=self.snapshot_entries,
            keep_entries=self.snapshot_entries // 10,
            stream_hold_entries=self.kept_entries,
        )

    def arguments(self) -> tuple[str, ...]:
        """The same on the command line of a node."""
        return ("--log-file-size", str(self.log_file_size), "--snapshot-entries", str(self.snapshot_entries))

    def bound(self, *, groups: int, entry_bytes: int, state_bytes: int) -> DirectorySize:
        """What a node's directory must stay under.

        Args:
            entry_bytes: the largest entry of the load, as it stands in the log.
            state_bytes: of all groups together, as it stands in their snapshots.
        """
        entries = self.kept_entries + 2 * self.snapshot_entries
        return DirectorySize(
            log=_LOG_FILES * (self.log_file_size + self.batch_bytes),
            at_rest=groups * entries * entry_bytes + 2 * self.log_file_size,
            snapshots=_SNAPSHOTS * (state_bytes + groups * _SNAPSHOT_OVERHEAD),
        )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how much log a node keeps."""
    limits = LogLimits()
    parser.add_argument(
        "--log-file-size",
        type=int,
        metavar="BYTES",
        default=limits.log_file_size,
        help="when to begin a new log file (default %(default)s)",
    )
    parser.add_argument(
        "--snapshot-entries",
        type=int,
        metavar="N",
        default=limits.snapshot_entries,
        help="a group takes a snapshot after so many entries, and cuts its log (default %(default)s)",
    )


def read_limits(parser: argparse.ArgumentParser, given: argparse.Namespace) -> LogLimits:
    """Read them; what is out of range ends the program with status 2."""
    limits = LogLimits(given.log_file_size, given.snapshot_entries)
    try:
        limits.storage_config(Path("checked"))
        limits.group_config()
    except ConfigError as error:
        parser.error(str(error))
    return limits
