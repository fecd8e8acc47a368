"""Latencies in little memory: histograms with buckets of 5 %, over all time or over the last seconds."""

from __future__ import annotations

import math
from collections import Counter, deque

_GROWTH = 1.05
_SMALLEST = 1e-5
"""Seconds; whatever is quicker counts as this."""


class Histogram:
    """How often which latency was seen, to within 5 %."""

    def __init__(self) -> None:
        self.count = 0
        self._buckets: Counter[int] = Counter()

    def record(self, seconds: float) -> None:
        """Count one latency."""
        self.count += 1
        self._buckets[max(0, math.ceil(math.log(max(seconds, _SMALLEST) / _SMALLEST, _GROWTH)))] += 1

    def merge(self, other: Histogram) -> None:
        """Count everything that another one has counted."""
        self.count += other.count
        self._buckets.update(other._buckets)

    def quantile(self, share: float) -> float | None:
        """The latency, in seconds, that `share` of all stay within; None when nothing was counted."""
        left = share * self.count
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 1e-9:
                return _SMALLEST * _GROWTH**bucket
        return None


class RollingHistogram:
    """The same for the last few seconds."""

    def __init__(self, seconds: int = 5) -> None:
        self._seconds = seconds
        self._slices: deque[tuple[int, Histogram]] = deque()

    def record(self, now: float, seconds: float) -> None:
        """Count one latency."""
        second = math.floor(now)
        if not self._slices or self._slices[-1][0] != second:
            self._slices.append((second, Histogram()))
            self._drop_old(now)
        self._slices[-1][1].record(seconds)

    def merged(self, now: float) -> Histogram:
        """Everything that was counted in the last seconds."""
        self._drop_old(now)
        total = Histogram()
        for _, histogram in self._slices:
            total.merge(histogram)
        return total

    def _drop_old(self, now: float) -> None:
        while self._slices and self._slices[0][0] <= now - self._seconds - 1:
            self._slices.popleft()
