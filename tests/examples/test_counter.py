from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import counter
import pytest
import trio
import trio.testing

from tests.examples.three_nodes import three_nodes, until_done

PROGRAM = Path(counter.__file__)


@pytest.mark.processes
def test_it_counts_on_when_it_is_run_again(tmp_path: Path) -> None:
    for said in ("5\n", "10\n"):
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", str(PROGRAM)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=45,
            check=False,
        )
        assert (done.stdout, done.stderr, done.returncode) == (said, "", 0)


def test_it_is_fifteen_lines() -> None:
    """What a reader has to take in: the class and `main`."""
    text = PROGRAM.read_text()
    parts = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef | ast.AsyncFunctionDef)]
    lines = [line for part in parts for line in (ast.get_source_segment(text, part) or "").splitlines() if line.strip()]
    assert len(lines) <= 17


async def test_three_nodes_count_together(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as managers:
        counters = [counter.Counter() for _ in managers]
        for manager, each in zip(managers, counters, strict=True):
            await manager.add_group(1, each, members={1, 2, 3})
        for count, each in enumerate(counters, 1):
            assert await until_done(lambda each=each: each.add(1)) == count
        assert [await until_done(each.get) for each in counters] == [3, 3, 3]
