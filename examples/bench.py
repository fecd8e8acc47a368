"""Measures the library on this machine: real processes, real sockets, real disks, the sync on.

    python examples/bench.py --seconds 5 --json
    python examples/bench.py --scenario years --proposals 5000000

``throughput``
    proposals a second and their latency, beside what the machine allows (bench_throughput.py), then reads (bench_reads.py)
``years``
    a node that has taken millions of proposals: its directory, its restart, a fresh node that catches up (bench_years.py)
``groups``
    thousands of groups when the log begins a new file, and at a restart (bench_groups.py)
``snapshot``
    a large state on its way to a fresh node: speed, memory, and what the others notice (bench_snapshot.py)

The defaults take about a minute each.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bench_reads
import bench_throughput
from bench_groups import run_groups
from bench_snapshot import run_snapshot
from bench_throughput import run_throughput
from bench_years import run_years
from rich.console import Console
from rich.table import Table

SCENARIOS = ("throughput", "years", "groups", "snapshot")
LIMITS = {
    "seconds": (1, 600),
    "proposals": (1_000, 1_000_000_000),
    "groups": (10, 100_000),
    "bytes": (1 << 20, 1 << 40),
}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure a cluster on this machine.")
    parser.add_argument("--scenario", choices=SCENARIOS, default=SCENARIOS[0], help="what to measure (default %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="throughput: for each load, beside warm-up and floor (default %(default)g)"
    )
    parser.add_argument("--proposals", type=int, default=200_000, help="years: how many (default %(default)s)")
    parser.add_argument("--groups", type=int, default=10_000, help="groups: how many (default %(default)s)")
    parser.add_argument("--bytes", type=int, default=1 << 30, help="snapshot: size of the state (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object, the last line of stdout")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a target is missed")
    parser.add_argument("--data-dir", type=Path, help="where the disk under test is (default: temporary)")
    given = parser.parse_args(arguments)
    for name, (low, high) in LIMITS.items():
        if not low <= getattr(given, name) <= high:
            parser.error(f"--{name} must be from {low} to {high}")
    return given


def run(given: argparse.Namespace, data_dir: Path) -> dict[str, Any]:
    """Run one scenario; returns its figures, ``targets`` among them."""
    match given.scenario:
        case "years":
            return run_years(given.proposals, data_dir)
        case "groups":
            return run_groups(given.groups, data_dir)
        case "snapshot":
            return run_snapshot(given.bytes, data_dir)
    return run_throughput(given.seconds, data_dir)


def draw(result: dict[str, Any]) -> Table:
    """A row per figure."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in _figures("", result):
        table.add_row(name, value)
    return table


def _figures(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name not in ("targets", "timeline"):
                yield from _figures(f"{prefix} {name.replace('_', ' ')}".strip(), inner)
    else:
        yield prefix, f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    given = parse_arguments(arguments)
    with tempfile.TemporaryDirectory(prefix="trioraft-bench-", dir=given.data_dir) as path:
        result = run(given, Path(path))
    reached = result["targets"]
    if given.json:
        print(json.dumps(result))
    else:
        console = Console(highlight=False)
        if given.scenario == "throughput":
            console.print(bench_throughput.draw(result["scenarios"]), bench_reads.draw(result["reads"]))
        else:
            console.print(draw(result))
        for text, is_reached in reached.items():
            console.print(f"{'[green]reached[/green]' if is_reached else '[red]missed[/red]'}: {text}")
    return 1 if given.check and not all(reached.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
