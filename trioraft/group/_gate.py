"""Messages that promise durability, held until it is true."""

from __future__ import annotations

from collections import deque

from ..core import Message


class WriteGate:
    """Holds `Ready.after_write` until every write handed over before it is on the disk."""

    def __init__(self) -> None:
        self._handed = 0
        self._durable = 0
        self._held: deque[tuple[int, tuple[Message, ...]]] = deque()

    def wrote(self, sequence: int) -> None:
        """A write was handed to the log."""
        self._handed = sequence

    def hold(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """Keep `messages` back; return them when no write is outstanding."""
        if self._handed <= self._durable:
            return messages
        self._held.append((self._handed, messages))
        return ()

    def durable(self, sequence: int) -> list[Message]:
        """All writes up to `sequence` are durable: return what may leave now."""
        self._durable = max(self._durable, sequence)
        released: list[Message] = []
        while self._held and self._held[0][0] <= self._durable:
            released += self._held.popleft()[1]
        return released
