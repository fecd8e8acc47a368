"""What a user can set about the disk."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import attrs

from .._errors import ConfigError

MIB = 1 << 20


def _path(value: str | os.PathLike[str]) -> str:
    path: Any = value if not isinstance(value, os.PathLike) else os.fspath(value)
    if not isinstance(path, str):
        raise ConfigError(f"base_dir must be the path of a directory, not {value!r}")
    return path


def _is_path(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not value or "\0" in value:
        raise ConfigError(f"{attribute.name} must be the path of a directory, not {value!r}")


def _is_flag(instance: object, attribute: attrs.Attribute[bool], value: bool) -> None:
    if type(value) is not bool:
        raise ConfigError(f"{attribute.name} must be True or False, not {value!r}")


def _bytes_between(low: int, high: int) -> Callable[[Any, attrs.Attribute[int], int], None]:
    def check(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
        if type(value) is not int or not low <= value <= high:
            raise ConfigError(f"{attribute.name} must be a whole number of bytes from {low} to {high}, not {value!r}")

    return check


def _seconds_between(low: float, high: float) -> Callable[[Any, attrs.Attribute[float], float], None]:
    def check(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
        if type(value) not in (int, float) or math.isnan(value) or not low <= value <= high:
            raise ConfigError(f"{attribute.name} must be a number of seconds from {low} to {high}, not {value!r}")

    return check


@attrs.frozen(kw_only=True)
class StorageConfig:
    """Where a node keeps its data, and within which limits."""

    base_dir: str = attrs.field(default="raft-data", converter=_path, validator=_is_path)
    """The node's directory; made if missing. One node each."""

    sync_on_write: bool = attrs.field(default=True, validator=_is_flag)
    """Sync before a write counts. False: a power cut may lose what was acknowledged, and a vote may be given twice. Raft is not
    safe then; it remains so against a killed process."""

    max_log_file_size: int = attrs.field(default=64 * MIB, validator=_bytes_between(4096, 1 << 30))
    """A log file of at least this size is followed by a new one. The last batch may overshoot."""

    queue_bytes_max: int = attrs.field(default=64 * MIB, validator=_bytes_between(4096, 1 << 34))
    """`has_room` is False while more than this waits for the disk."""

    batch_bytes_max: int = attrs.field(default=4 * MIB, validator=_bytes_between(4096, 1 << 30))
    """What one sync covers at most; one larger write may go beyond it. While more than this waits, the groups take turns."""

    shutdown_write_timeout: float = attrs.field(default=5.0, validator=_seconds_between(0.0, 3600.0))
    """Seconds that a shutdown waits for the write in flight. After that the disk counts as hung: outcome unknown."""

    space_poll_interval: float = attrs.field(default=1.0, validator=_seconds_between(0.001, 3600.0))
    """Seconds between two tries while the disk is full."""
