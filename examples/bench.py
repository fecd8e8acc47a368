"""Measures three nodes on loopback, with the sync on, and beside each figure what the machine allows.

    python examples/bench.py --seconds 5 --json

Four scenarios of 128-byte commands, one `propose` per client task, the clients in the process of the leader: one client that writes in
sequence; 64 and 500 clients on one group; 500 clients on 500 groups (where the leaders are spread over the nodes, each client runs beside
its group's leader). The floor (bench_floor.py) is measured in the same rounds, on the same disk: a batch of as many commands as there are
clients. `ratio` says how many times the floor's time a command takes: p50 for the client in sequence, time per command for the others.

Each figure is the median of some rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import attrs
from ports import free_ports
from rich.console import Console
from rich.table import Table

COMMAND_BYTES = 128
MANY_GROUPS = 500
ROUNDS = 3
WARM_UP_SECONDS = 0.5
ELECTION_SECONDS = 30.0
_BESIDE = Path(__file__).resolve().parent
_SLACK_SECONDS = 120.0


@attrs.frozen
class Scenario:
    """Some clients on some groups."""

    name: str
    clients: int
    groups: tuple[int, ...]


SCENARIOS = (
    Scenario("1 in sequence", 1, (1,)),
    Scenario("64 in flight", 64, (1,)),
    Scenario("500 in flight", 500, (1,)),
    Scenario("500 on 500 groups", 500, tuple(range(1, MANY_GROUPS + 1))),
)


@attrs.frozen
class Round:
    """One measurement."""

    p50_us: float
    p99_us: float
    per_second: float


class Child:
    """A process that answers a line of JSON to each line of JSON."""

    def __init__(self, program: str, *arguments: str) -> None:
        command = [sys.executable, str(_BESIDE / program), *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Closing its stdin ends it; if not, it is killed."""
        with self.process:
            if self.process.stdin is not None:
                self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def ask(self, request: dict[str, Any]) -> None:
        """Send a request; `answer` gets what it says to it."""
        if self.process.stdin is None:
            raise SystemExit("the process has no stdin")
        print(json.dumps(request), file=self.process.stdin, flush=True)

    def answer(self) -> Any:
        """Read one answer. A process that ends instead ends the program."""
        line = self.process.stdout.readline() if self.process.stdout is not None else ""
        if not line:
            raise SystemExit(f"error: {self.process.args!r} ended with status {self.process.wait()}")
        return json.loads(line)


class Bench:
    """All six processes: three nodes, and the three of the floor."""

    def __init__(self, nodes: Sequence[Child], floor: Child, seconds: float) -> None:
        self._nodes, self._floor, self._seconds = nodes, floor, seconds

    def wait_leaders(self) -> None:
        """Wait until every group has a leader."""
        groups = max((scenario.groups for scenario in SCENARIOS), key=len)
        end = time.monotonic() + ELECTION_SECONDS
        while (missing := set(groups).difference(*self._leads(groups))) and time.monotonic() < end:
            time.sleep(0.2)
        if missing:
            raise SystemExit(f"error: {len(missing)} groups without a leader after {ELECTION_SECONDS:g} s")

    def measure(self, scenario: Scenario) -> dict[str, Any]:
        """Some rounds of the floor and of the nodes, in turn; the medians."""
        floors, rafts, errors = [], [], 0
        for _ in range(ROUNDS):
            floors.append(self._measure_floor(scenario))
            raft, failed = self._measure_nodes(scenario)
            rafts.append(raft)
            errors += failed
        floor, raft = _median(floors), _median(rafts)
        ratio = raft.p50_us / floor.p50_us if scenario.clients == 1 else floor.per_second / max(raft.per_second, 1e-9)
        return {
            "scenario": scenario.name,
            "per_second": round(raft.per_second, 1),
            "p50_ms": round(raft.p50_us / 1000, 3),
            "p99_ms": round(raft.p99_us / 1000, 3),
            "floor_per_second": round(floor.per_second, 1),
            "floor_p50_ms": round(floor.p50_us / 1000, 3),
            "floor_p99_ms": round(floor.p99_us / 1000, 3),
            "ratio": round(ratio, 2),
            "leaders_on_nodes": sum(1 for led in self._leads(scenario.groups) if led),
            "errors": errors,
        }

    def _measure_floor(self, scenario: Scenario) -> Round:
        seconds = self._seconds / ROUNDS / 3
        self._floor.ask({"bytes": COMMAND_BYTES * scenario.clients, "seconds": seconds})
        took = self._floor.answer()
        return _summarise(took, len(took) * scenario.clients, sum(took) / 1e6)

    def _measure_nodes(self, scenario: Scenario) -> tuple[Round, int]:
        """Run the clients, each beside its group's leader."""
        seconds = self._seconds / ROUNDS
        busy = []
        for node, led in zip(self._nodes, self._leads(scenario.groups), strict=True):
            if not led:
                continue
            clients = round(scenario.clients * len(led) / len(scenario.groups))
            node.ask({"groups": led, "clients": clients, "seconds": seconds, "warm_up": WARM_UP_SECONDS, "bytes": COMMAND_BYTES})
            busy.append(node)
        answers = [node.answer() for node in busy]
        latencies = [latency for answer in answers for latency in answer["latencies"]]
        if not latencies:
            raise SystemExit(f"error: no write was acknowledged in {seconds:g} s of {scenario.name!r}: try more --seconds")
        return _summarise(latencies, len(latencies), seconds), sum(answer["errors"] for answer in answers)

    def _leads(self, groups: Sequence[int]) -> list[list[int]]:
        for node in self._nodes:
            node.ask({"leads": list(groups)})
        return [node.answer() for node in self._nodes]


def _summarise(latencies: list[int], count: int, seconds: float) -> Round:
    ordered = sorted(latencies)
    return Round(ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], count / seconds)


def _median(rounds: Sequence[Round]) -> Round:
    return Round(*(statistics.median(values) for values in zip(*(attrs.astuple(one) for one in rounds), strict=True)))


def targets(results: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """What is aimed at, and whether it is reached."""
    by_name = {result["scenario"]: result for result in results}
    return {
        "p50 in sequence within 5x of the floor": by_name["1 in sequence"]["ratio"] <= 5,
        "10,000 acknowledged a second with 500 in flight": by_name["500 in flight"]["per_second"] >= 10_000,
    }


def draw(results: Sequence[dict[str, Any]]) -> Table:
    """A row per scenario."""
    table = Table(title=f"{COMMAND_BYTES}-byte commands, three processes on loopback, sync on")
    table.add_column("scenario")
    for name in ("acked/s", "floor", "p50 ms", "floor", "p99 ms", "floor", "ratio", "errors"):
        table.add_column(name, justify="right", style="dim" if name == "floor" else None)
    for result in results:
        table.add_row(
            result["scenario"],
            *(f"{result[name]:,.0f}" for name in ("per_second", "floor_per_second")),
            *(f"{result[name]:.2f}" for name in ("p50_ms", "floor_p50_ms", "p99_ms", "floor_p99_ms")),
            f"{result['ratio']:.1f}",
            str(result["errors"]),
        )
    return table


def run(seconds: float, data_dir: Path) -> list[dict[str, Any]]:
    """Start everything, measure, end everything."""
    ports = free_ports(3)
    where = [word for port in ports for word in ("--port", str(port))]
    with ExitStack() as children:
        followers = [children.enter_context(Child("bench_floor.py", "--file", str(data_dir / f"floor-{number}"))) for number in (2, 3)]
        answering = [word for follower in followers for word in ("--follower", str(follower.answer()))]
        floor = children.enter_context(Child("bench_floor.py", "--file", str(data_dir / "floor-1"), *answering))
        nodes = [children.enter_context(Child("bench_node.py", *where, *_node_arguments(number, data_dir))) for number in (1, 2, 3)]
        watchdog = threading.Timer(_SLACK_SECONDS + len(SCENARIOS) * 3 * seconds, _kill, [nodes])
        watchdog.daemon = True
        watchdog.start()
        try:
            bench = Bench(nodes, floor, seconds)
            bench.wait_leaders()
            return [bench.measure(scenario) for scenario in SCENARIOS]
        finally:
            watchdog.cancel()


def _node_arguments(number: int, data_dir: Path) -> list[str]:
    return ["--node-id", str(number), "--data-dir", str(data_dir / f"node-{number}"), "--groups", str(MANY_GROUPS)]


def _kill(nodes: Sequence[Child]) -> None:
    """A node that hangs ends the program instead of keeping it."""
    for node in nodes:
        node.process.kill()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description="Measure a cluster on this machine against what the machine allows.")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each scenario, beside warm-up and floor (default %(default)g)")
    parser.add_argument("--json", action="store_true", help="one JSON object, the last line of stdout")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a target is missed")
    parser.add_argument("--data-dir", type=Path, help="where the disk under test is (default: temporary)")
    given = parser.parse_args(arguments)
    if not 1 <= given.seconds <= 600:
        parser.error("--seconds must be from 1 to 600")
    with tempfile.TemporaryDirectory(prefix="trioraft-bench-", dir=given.data_dir) as path:
        results = run(given.seconds, Path(path))
    reached = targets(results)
    if given.json:
        print(json.dumps({"scenarios": results, "targets": reached, "seconds": given.seconds}))
    else:
        console = Console(highlight=False)
        console.print(draw(results))
        for text, is_reached in reached.items():
            console.print(f"{'[green]reached[/green]' if is_reached else '[red]missed[/red]'}: {text}")
    return 1 if given.check and not all(reached.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
