"""What a bug on purpose is: something of the library, and what takes its place for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from .._types import Millis
from ..core import Event, Raft, Ready


@attrs.frozen
class Plant:
    """A bug that can be planted."""

    why: str
    """The schedule that it lets through."""
    within: int
    """Seeds from 0 on within which the simulator finds it; 0: it takes a story that hardly any seed tells, so one is told on purpose."""
    owner: Any
    """The class or module that is changed."""
    attribute: str
    wrap: Callable[[Any], Any]
    """Called with the original; returns what replaces it."""
    operations: int = 20
    """Client operations of such a seed."""


def on_step(change: Callable[[Raft, Any], Event | None]) -> tuple[Any, str, Callable[[Any], Any]]:
    """Replace each event by another, or by none, before it is stepped."""

    def wrap(original: Callable[[Raft, Event, Millis], None]) -> Callable[[Raft, Event, Millis], None]:
        def step(self: Raft, event: Event, now: Millis) -> None:
            changed = change(self, event)
            if changed is not None:
                original(self, changed, now)

        return step

    return Raft, "step", wrap


def on_ready(change: Callable[[Raft, Ready], None]) -> tuple[Any, str, Callable[[Any], Any]]:
    """Change each Ready after it was taken."""

    def wrap(original: Callable[[Raft, int], Ready]) -> Callable[[Raft, int], Ready]:
        def take_ready(self: Raft, sequence: int) -> Ready:
            ready = original(self, sequence)
            change(self, ready)
            return ready

        return take_ready

    return Raft, "take_ready", wrap
