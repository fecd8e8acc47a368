"""Say a thing once: what repeats itself in a reconnect loop is a warning the first time and a debug line from then on."""

from __future__ import annotations

import logging
from collections.abc import Hashable

logger = logging.getLogger("trioraft.transport")

_TEXT_MAX = 300


def printable(text: str) -> str:
    """A text from a stranger, fit for a log line: bounded, and without line breaks or control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_TEXT_MAX])


class Remarks:
    """Which warnings have been given. Bounded, for the keys may be a stranger's choice."""

    def __init__(self, keys_max: int = 256) -> None:
        self._given: dict[Hashable, None] = {}
        self._keys_max = keys_max

    def warn(self, key: Hashable, text: str, *arguments: object) -> None:
        level = logging.DEBUG if key in self._given else logging.WARNING
        self._given.pop(key, None)
        self._given[key] = None
        if len(self._given) > self._keys_max:
            del self._given[next(iter(self._given))]
        logger.log(level, text, *arguments)
