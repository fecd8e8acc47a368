"""Virtual time that waits for worker threads."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing


@pytest.fixture
def thread_clock(monkeypatch: pytest.MonkeyPatch) -> trio.testing.MockClock:
    """A clock that jumps when all tasks wait, but not while one of them waits for a thread that works."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    to_thread, from_thread = trio.to_thread.run_sync, trio.from_thread.run
    working = 0

    def change(by: int) -> None:
        nonlocal working
        working += by
        clock.autojump_threshold = math.inf if working else 0

    async def run_sync(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        change(1)
        try:
            return await to_thread(function, *arguments, **options)
        finally:
            change(-1)

    def run(function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        async def call() -> Any:
            # The thread waits for tasks now, which may wait for time.
            change(-1)
            try:
                return await function(*arguments)
            finally:
                change(1)

        return from_thread(call)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    monkeypatch.setattr(trio.from_thread, "run", run)
    return clock
