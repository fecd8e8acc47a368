"""The names of log files."""

from __future__ import annotations

import re

LOG_DIRECTORY = "wal"

_LOG_NAME = re.compile(r"([0-9]{8,})\.wal\Z")


def log_name(number: int) -> str:
    return f"{number:08}.wal"


def log_number(name: str) -> int | None:
    """The number in the name of a log file; None for any other name."""
    match = _LOG_NAME.match(name)
    return int(match[1]) if match is not None and name == log_name(int(match[1])) else None
