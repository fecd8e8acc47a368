from __future__ import annotations

import pytest
from latency import Histogram, RollingHistogram


def test_quantiles_are_right_to_within_five_percent() -> None:
    histogram = Histogram()
    for millisecond in range(1, 1001):
        histogram.record(millisecond / 1000)
    assert histogram.count == 1000
    for share in (0.01, 0.5, 0.99, 1.0):
        quantile = histogram.quantile(share)
        assert quantile is not None
        assert share <= quantile <= share * 1.051


def test_nothing_has_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None


def test_zero_and_merge() -> None:
    one, two = Histogram(), Histogram()
    one.record(0.0)
    two.record(1.0)
    one.merge(two)
    assert one.quantile(0.5) == pytest.approx(1e-5)
    assert one.quantile(1.0) == pytest.approx(1.0, rel=0.06)


def test_old_seconds_are_forgotten() -> None:
    rolling = RollingHistogram(seconds=5)
    rolling.record(100.0, 0.001)
    rolling.record(104.9, 0.002)
    assert rolling.merged(104.9).count == 2
    assert rolling.merged(107.0).count == 1
    assert rolling.merged(200.0).count == 0
