"""Reads, beside writes of the same clients: the second half of the scenario "throughput".

Clients run in the process of the leader, one read or write per client task at a time. `linearizable` reads wait for a round trip that they
share; `lease` reads wait for nobody while the last round is recent; a `stale` read is what asking the machine costs. `ratio` says how
many times the writes of as many clients it is. The last row has writers and readers side by side: what a write then costs,
beside what it costs alone.

Each figure is the median of some rounds; reads and writes take turns.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, TypeAlias

from rich.table import Table

ROUNDS = 3
CLIENTS = (64, 500)
LEVELS = ("linearizable", "lease", "stale")
READS_PER_WRITE = 3.0
"""At least so many linearizable reads for each write."""

Measure: TypeAlias = Callable[..., dict[str, float]]
"""Runs clients beside the leader for a time: ``clients``, and ``level`` of reads or None for writes, or ``readers`` beside the writers.
Answers with ``per_second``, ``p50_ms``, ``p99_ms`` and ``errors``; of the writes, if there are both."""


def run_reads(measure: Measure) -> list[dict[str, Any]]:
    """Measure all rows."""
    return [*(row for clients in CLIENTS for row in _alone(measure, clients)), _side_by_side(measure, CLIENTS[0])]


def _alone(measure: Measure, clients: int) -> list[dict[str, Any]]:
    writes, reads = list[dict[str, float]](), {level: list[dict[str, float]]() for level in LEVELS}
    for _ in range(ROUNDS):
        writes.append(measure(clients=clients))
        for level, rounds in reads.items():
            rounds.append(measure(clients=clients, level=level))
    write = _median(writes)
    return [_row(f"{clients} {level}", _median(rounds), write) for level, rounds in reads.items()]


def _side_by_side(measure: Measure, clients: int) -> dict[str, Any]:
    alone, beside = list[dict[str, float]](), list[dict[str, float]]()
    for _ in range(ROUNDS):
        alone.append(measure(clients=clients))
        beside.append(measure(clients=clients, readers=clients))
    return _row(f"{clients} writes, {clients} reading", _median(beside), _median(alone))


def _row(name: str, figures: dict[str, float], write: dict[str, float]) -> dict[str, Any]:
    return {
        "scenario": name,
        **{key: round(value, 3) for key, value in figures.items()},
        "writes_per_second": round(write["per_second"], 1),
        "writes_p50_ms": round(write["p50_ms"], 3),
        "ratio": round(figures["per_second"] / max(write["per_second"], 1e-9), 2),
    }


def _median(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def targets(rows: list[dict[str, Any]]) -> dict[str, bool]:
    """What is aimed at, and whether it is reached."""
    by_name = {row["scenario"]: row for row in rows}
    return {
        f"{clients} linearizable reads in flight: {READS_PER_WRITE:g} times the writes": (
            by_name[f"{clients} linearizable"]["ratio"] >= READS_PER_WRITE
        )
        for clients in CLIENTS
    }


def draw(rows: list[dict[str, Any]]) -> Table:
    """A row per load."""
    table = Table(title="reads beside the leader; the writes of as many clients for comparison")
    table.add_column("clients")
    for name in ("per s", "writes/s", "p50 ms", "writes", "p99 ms", "ratio", "errors"):
        table.add_column(name, justify="right", style="dim" if name.startswith("writes") else None)
    for row in rows:
        table.add_row(
            row["scenario"],
            f"{row['per_second']:,.0f}",
            f"{row['writes_per_second']:,.0f}",
            f"{row['p50_ms']:.2f}",
            f"{row['writes_p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['ratio']:.1f}",
            f"{row['errors']:g}",
        )
    return table
