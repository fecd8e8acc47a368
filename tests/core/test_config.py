"""Limits are checked when they are stated, by name."""

from __future__ import annotations

import attrs
import pytest

from trioraft._errors import ConfigError
from trioraft.core import GroupConfig


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(GroupConfig)])
@pytest.mark.parametrize("value", [0, -1, 1 << 40, 1.5, True, "1", None])
def test_a_limit_out_of_range_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        GroupConfig(**{name: value})  # type: ignore[arg-type]


def test_the_defaults_are_in_range() -> None:
    assert GroupConfig() == GroupConfig()
