"""Run by an interpreter that has nothing but the wheel and what the wheel asked for: is everything in it, and is nothing missing?"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import re
import sys
from pathlib import Path

import trioraft

SOURCES = Path(__file__).resolve().parent.parent
DEPENDENCIES = {"trio", "trio-util", "attrs", "cbor2"}


def check(claim: bool, text: str) -> None:
    if not claim:
        sys.exit(f"the wheel is not right: {text}")


def required() -> set[str]:
    """The names of what the wheel needs without any extra."""
    texts = importlib.metadata.requires("trioraft") or []
    return {re.split(r"[^\w.-]", text)[0].lower().replace("_", "-") for text in texts if "extra ==" not in text}


def main() -> None:
    package = Path(trioraft.__file__).resolve().parent
    check(not package.is_relative_to(SOURCES / "trioraft"), f"{package} is the source tree")
    check((package / "py.typed").is_file(), "py.typed is missing")
    check(required() == DEPENDENCIES, f"it depends on {sorted(required())}")
    for module in pkgutil.walk_packages(trioraft.__path__, "trioraft."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    files = {path.name for path in importlib.metadata.files("trioraft") or ()}
    check({"LICENSE-MIT", "LICENSE-APACHE"} <= files, "a licence text is missing")
    check(importlib.metadata.metadata("trioraft")["License-Expression"] == "MIT OR Apache-2.0", "the licence expression is wrong")
    print(f"trioraft {importlib.metadata.version('trioraft')} works from {package} with {', '.join(sorted(DEPENDENCIES))}")


main()
