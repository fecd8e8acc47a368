"""Runs the golden scripts: a sentence of intent, commands, and what comes of them.

A line that starts with ``#`` says why, ``>`` is a command, anything else is the outcome of the command above; ``>>`` is a command whose
outcome is of no interest. To write the
outcomes anew after a deliberate change, run ``python tests/core/test_scripts.py`` from the project's folder and read the difference.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.core.harness import Network
from trioraft.core import GroupConfig

FOLDER = Path(__file__).parent / "scripts"
SCRIPTS = sorted(FOLDER.glob("*.txt"))


class Script:
    """One script's network and the meaning of its commands."""

    def __init__(self) -> None:
        self.network = Network()

    def run(self, line: str) -> list[str]:
        name, *words = line.split()
        seen = len(self.network.trace) if name != "nodes" else 0
        shown = getattr(self, f"do_{name}")(*words)
        if shown is not None:
            return list(shown)
        return self.network.trace[seen:]

    def do_nodes(self, *words: str) -> None:
        """``nodes 1 2 3 learners 4 logs 1=1,1,2 2=1 keep 5 leases``: voters, learners, logs by their terms, entries kept before a
        snapshot, lease reads."""
        parts: dict[str, list[str]] = {"voters": [], "learners": [], "logs": [], "keep": [], "leases": []}
        part, is_leased = "voters", "leases" in words
        for word in words:
            if word in parts:
                part = word
            else:
                parts[part].append(word)
        logs = {int(log.split("=")[0]): [int(term) for term in log.split("=")[1].split(",")] for log in parts["logs"]}
        config = GroupConfig(keep_entries=int(parts["keep"][0]) if parts["keep"] else 10_000, lease_reads=is_leased)
        self.network = Network(map(int, parts["voters"]), learners=map(int, parts["learners"]), logs=logs, config=config)

    def do_campaign(self, node: str) -> None:
        self.network.campaign(int(node))
        self.network.deliver()

    def do_propose(self, node: str, *payloads: str) -> None:
        self.network.propose(int(node), *(payload.encode() for payload in payloads))
        self.network.deliver()

    def do_wait(self, milliseconds: str) -> None:
        self.network.wait(int(milliseconds))

    def do_cut(self, one: str, other: str) -> None:
        self.network.cut(int(one), int(other))

    def do_isolate(self, node: str) -> None:
        self.network.isolate(int(node))

    def do_heal(self) -> None:
        self.network.heal()
        self.network.deliver()

    def do_crash(self, node: str) -> None:
        self.network.crash(int(node))
        self.network.deliver()

    def do_restart(self, node: str) -> None:
        self.network.restart(int(node))
        self.network.deliver()

    def do_stall(self, node: str) -> None:
        self.network.stall(int(node))

    def do_sync(self, node: str) -> None:
        self.network.sync(int(node))
        self.network.deliver()

    def do_full(self, node: str) -> None:
        self.network.space(int(node), False)
        self.network.deliver()

    def do_snapshot(self, node: str) -> None:
        self.network.snapshot(int(node))
        self.network.deliver()

    def do_change(self, node: str, *voters: str) -> None:
        self.network.change(int(node), *map(int, voters))
        self.network.deliver()

    def do_read(self, node: str, *tokens: str) -> None:
        self.network.read_index(int(node), *tokens)
        self.network.deliver()

    def do_transfer(self, node: str, *target: str) -> None:
        self.network.transfer(int(node), *map(int, target))
        self.network.deliver()

    def do_lease(self, node: str) -> list[str]:
        until = self.network.nodes[int(node)].lease_until
        return [f"n{node} answers by itself until {until}, it is {self.network.now}" if until > self.network.now else f"n{node} has to ask"]

    def do_status(self) -> list[str]:
        return [self.network.status_line(node_id) for node_id in sorted(self.network.applied)]


def play(text: str) -> str:
    """Run a script and return it with the outcomes as they are."""
    script = Script()
    lines = []
    for line in text.splitlines():
        if line.startswith("#") or not line:
            lines.append(line)
        elif line.startswith(">"):
            lines.append(line)
            outcome = script.run(line.lstrip(">"))
            lines += [] if line.startswith(">>") else outcome
    return "\n".join(lines) + "\n"


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 5


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert play(text) == text


if __name__ == "__main__":
    for script_path in SCRIPTS:
        script_path.write_text(play(script_path.read_text(encoding="utf-8")), encoding="utf-8")
        print("wrote", script_path, file=sys.stderr)
