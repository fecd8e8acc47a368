"""A value that tasks can wait on, for state that changes rarely (leader, role): trio-util's AsyncValue, typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, cast

from trio_util import AsyncValue

T = TypeVar("T")


class Observable(Generic[T]):
    """Holds one value; `wait_value` returns once the value passes a test."""

    def __init__(self, value: T) -> None:
        self._inner = AsyncValue(value)

    @property
    def value(self) -> T:
        return cast(T, self._inner.value)

    @value.setter
    def value(self, value: T) -> None:
        self._inner.value = value

    async def wait_value(self, test: Callable[[T], bool]) -> T:
        """Wait until the value passes `test`; return the value that did. A checkpoint."""
        return cast(T, await self._inner.wait_value(test))
