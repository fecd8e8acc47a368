"""Limits are checked when they are stated, by name."""

from __future__ import annotations

import attrs
import pytest

from trioraft._errors import ConfigError
from trioraft.core import GroupConfig


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(GroupConfig)])
@pytest.mark.parametrize("value", [-1, 1 << 60, 1.5, True, "1", None])
def test_a_limit_out_of_range_is_named(name: str, value: object) -> None:
    if name == "lease_reads" and value is True:
        return
    with pytest.raises(ConfigError, match=name):
        GroupConfig(**{name: value})  # type: ignore[arg-type]  # bad input, on purpose


MAY_BE_NOTHING = {"keep_entries", "keep_bytes", "stream_hold_entries", "stream_hold_bytes", "promotion_lag_max"}


@pytest.mark.parametrize("name", sorted({field.name for field in attrs.fields(GroupConfig)} - MAY_BE_NOTHING))
def test_a_limit_of_nothing_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        GroupConfig(**{name: 0})


def test_nothing_need_be_kept() -> None:
    assert GroupConfig(**dict.fromkeys(MAY_BE_NOTHING, 0)).keep_entries == 0


def test_the_defaults_are_in_range() -> None:
    assert GroupConfig() == GroupConfig()
