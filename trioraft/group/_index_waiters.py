"""Those who wait until everything up to an index is applied."""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_left
from operator import itemgetter

from .._types import Index
from ._waiter import Token


class IndexWaiters:
    """Told in the order of their indexes, and of their coming. Nobody comes twice."""

    def __init__(self) -> None:
        self._heap: list[tuple[Index, int, Token]] = []  # those who left are in it for a while
        self._tickets = itertools.count()
        self._present: set[Token] = set()

    def __len__(self) -> int:
        return len(self._present)

    def add(self, index: Index, token: Token) -> None:
        self._present.add(token)
        heapq.heappush(self._heap, (index, next(self._tickets), token))

    def forget(self, token: Token) -> None:
        """One has left, who may have been told already."""
        self._present.discard(token)
        if len(self._heap) > 2 * len(self._present):
            self._heap = [waiting for waiting in self._heap if waiting[2] in self._present]
            heapq.heapify(self._heap)

    def reach(self, index: Index) -> None:
        """Everything up to `index` is applied: tell those who waited for that."""
        while self._heap and self._heap[0][0] <= index:
            token = heapq.heappop(self._heap)[2]
            if token in self._present:
                self._present.remove(token)
                token.succeed(index)

    def abandon_from(self, index: Index, error: Exception) -> None:
        """Nothing from `index` on will be applied here."""
        self._heap.sort()  # which is a heap, too
        first = bisect_left(self._heap, index, key=itemgetter(0))
        abandoned = self._heap[first:]
        del self._heap[first:]
        for _, _, token in abandoned:
            if token in self._present:
                self._present.remove(token)
                token.fail(error)
