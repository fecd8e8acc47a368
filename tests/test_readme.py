"""What the README shows works as printed."""

from __future__ import annotations

import ast
import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def embedding_example() -> str:
    (example,) = (block for block in blocks("python") if "open_manager" in block)
    return example


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def replaced(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=45,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


def test_embedding_example_runs_as_printed_and_keeps_its_log(tmp_path: Path) -> None:
    program = replaced(embedding_example(), '"raft-data"', repr(str(tmp_path / "raft-data")))
    program = replaced(program, "127.0.0.1:5001", f"127.0.0.1:{free_port()}")
    assert run(program) == "5\n"
    assert run(program) == "10\n"
    assert "It prints 5; started again it prints 10" in README.replace("\n", " ")


def test_embedding_example_is_short() -> None:
    lines = [line for line in embedding_example().splitlines() if line.strip()]
    assert len(lines) <= 25


def nox_sessions() -> set[str]:
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any(ast.unparse(line).startswith("nox.session") for line in node.decorator_list)
    }


def test_commands_exist_as_nox_sessions() -> None:
    commands = set(re.findall(r"nox -s (\w+)", README))
    assert {"tests", "cluster"} <= commands
    assert commands <= nox_sessions()


@pytest.mark.parametrize("session", ["tests", "sim", "lint", "typing", "docs", "bench", "cluster", "build"])
def test_workshop_is_complete(session: str) -> None:
    assert session in nox_sessions()


def test_links_lead_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README) if "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / target).is_file()] == []


def test_programs_that_are_named_exist() -> None:
    programs = set(re.findall(r"examples/\w+\.py", README))
    assert programs
    assert [program for program in programs if not (ROOT / program).is_file()] == []


def test_dependencies_are_the_ones_told() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [re.split(r"[><=]", text)[0] for text in project["dependencies"]] == ["trio", "trio-util", "attrs", "cbor2"]
    assert "Needs trio, trio-util, attrs and cbor2, nothing else" in README
