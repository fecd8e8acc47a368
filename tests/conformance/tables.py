"""The conformance tables: cases as data, and which test runs which of them.

A test takes its cases with `@table(file, group)`; the case arrives as the argument `case`. A case that does not apply is named there by
its number, with the reason in one sentence; a group that no test takes is listed in `test_registry`. So that nothing is left out in
silence, `test_registry` compares both with what is in the files.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest

DATA = Path(__file__).parent / "data"

Case = dict[str, Any]
Test = TypeVar("Test", bound=Callable[..., object])

TAKEN: dict[tuple[str, str], dict[int, str]] = {}
"""(file, group) taken by a test -> the cases left out, by number, and why."""


@attrs.frozen
class Group:
    """A group of cases that are read in one way."""

    file: str
    name: str
    how_to_read: str
    cases: tuple[Case, ...]


@functools.cache
def load(file: str) -> dict[str, Group]:
    """Read the groups of ``data/{file}.json``."""
    content = json.loads((DATA / f"{file}.json").read_text())
    return {group["name"]: Group(file, group["name"], group["how_to_read"], tuple(group["cases"])) for group in content["groups"]}


def files() -> list[str]:
    return sorted(path.stem for path in DATA.glob("*.json"))


def table(file: str, group: str, *, leaves_out: Mapping[int, str] | None = None) -> Callable[[Test], Test]:
    """Run a test once for each case of a group, but for those left out with a reason."""
    left_out = dict(leaves_out or {})
    TAKEN[file, group] = left_out
    numbered = [(number, case) for number, case in enumerate(load(file)[group].cases) if number not in left_out]
    return pytest.mark.parametrize("case", [pytest.param(case, id=_identifier(number, case)) for number, case in numbered])


def _identifier(number: int, case: Case) -> str:
    """Make a name that finds the row in the file: its number, and its name or the beginning of its content."""
    if "name" in case:
        return f"{number} {case['name']}"
    text = " ".join(f"{key}={json.dumps(value)}" for key, value in case.items() if key not in {"steps", "expect"})
    for noise in '"[]{}':
        text = text.replace(noise, "")
    return f"{number} {text[:70]}".strip()


def numbered(values: Mapping[str, Any]) -> dict[int, Any]:
    """Turn the keys of a JSON object back into node ids."""
    return {int(key): value for key, value in values.items()}
