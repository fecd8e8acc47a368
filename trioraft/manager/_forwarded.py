"""Requests that came from another node: taken once, answered always."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ..wire import Forward, ForwardReply
from ._outcome import reply_with_error, reply_with_result

WINDOW: Final = 4096
"""Requests of one peer that are remembered behind the newest one; an older one counts as seen."""


class SeenRequests:
    """Which request numbers of one process have come in: the newest, and a bit for each of the `WINDOW` before it."""

    def __init__(self, incarnation: int) -> None:
        self.incarnation: Final = incarnation
        self._newest = 0
        self._bits = 0

    def is_news(self, number: int) -> bool:
        """True the first time a number comes, False every time after, and for numbers too old to tell."""
        if number > self._newest:
            self._bits = ((self._bits << (number - self._newest)) | 1) & ((1 << WINDOW) - 1) if number - self._newest < WINDOW else 1
            self._newest = number
            return True
        age = self._newest - number
        if age >= WINDOW or self._bits >> age & 1:
            return False
        self._bits |= 1 << age
        return True


class RemoteToken:
    """Whoever waits for an answer on another node."""

    __slots__ = ("_declared", "_request", "_send")

    def __init__(self, request: Forward, send: Callable[[ForwardReply], None], declared: tuple[type[Exception], ...]) -> None:
        """
        Args:
            declared: the errors of the group's machine that are answers.
        """
        self._request, self._send, self._declared = request, send, declared

    def succeed(self, result: Any) -> None:
        self._send(reply_with_result(self._request, result))

    def fail(self, error: Exception) -> None:
        self._send(reply_with_error(self._request, error, self._declared))
