"""The files and functions that the documentation names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FLOORS = "|".join(sorted(path.name for path in (ROOT / "trioraft").iterdir() if path.is_dir()))

# `core/_raft.py` `step`: a file, and the functions in it that are meant.
POINTER = re.compile(rf"`((?:{FLOORS})/_\w+\.py)`((?:\s+`[a-z_]+`)*)")


def pointers(page: Path) -> list[tuple[str, list[str]]]:
    return [(file, re.findall(r"\w+", names)) for file, names in POINTER.findall(page.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_places_in_the_code_exist(page: Path) -> None:
    for file, names in pointers(page):
        source = ROOT / "trioraft" / file
        assert source.is_file(), file
        missing = [name for name in names if not re.search(rf"\bdef {name}\b", source.read_text())]
        assert missing == [], file


def test_the_design_says_where() -> None:
    found = dict(pointers(ROOT / "docs" / "design.md"))
    assert len(found) > 30
    assert found["group/_driver.py"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_and_examples_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"(?<![\w/])(?:tests|examples)/[\w/]+(?:\.py|/)", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []
