"""Scenario "throughput": clients that propose as quickly as they can, and beside each figure what the machine allows.

Four loads of 128-byte commands, one `propose` per client task, the clients in the process of the leader: one client that writes in
sequence; 64 and 500 clients on one group; 500 clients on 500 groups (where the leaders are spread over the nodes, each client runs beside
its group's leader). The floor (bench_floor.py) is measured in the same rounds, on the same disk: a batch of as many commands as there are
clients. `ratio` says how many times the floor's time a command takes: p50 for the client in sequence, time per command for the others.

Then come reads (bench_reads.py). Each figure is the median of some rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import bench_reads
from bench_child import Child, NodeDirectory, killed_after
from ports import free_ports
from rich.table import Table

COMMAND_BYTES = 128
MANY_GROUPS = 500
ROUNDS = 3
WARM_UP_SECONDS = 0.5
ELECTION_SECONDS = 30.0
READS = 10
"""Loads that `bench_reads` measures."""
_SLACK_SECONDS = 120.0


@attrs.frozen
class Clients:
    """Some clients on some groups."""

    name: str
    clients: int
    groups: tuple[int, ...]


LOADS = (
    Clients("1 in sequence", 1, (1,)),
    Clients("64 in flight", 64, (1,)),
    Clients("500 in flight", 500, (1,)),
    Clients("500 on 500 groups", 500, tuple(range(1, MANY_GROUPS + 1))),
)


@attrs.frozen
class Round:
    """One measurement."""

    p50_us: float
    p99_us: float
    per_second: float


class Throughput:
    """All six processes: three nodes, and the three of the floor."""

    def __init__(self, nodes: Sequence[Child], floor: Child, seconds: float) -> None:
        self._nodes, self._floor, self._seconds = nodes, floor, seconds

    def wait_leaders(self) -> None:
        """Wait until every group has a leader."""
        groups = max((load.groups for load in LOADS), key=len)
        end = time.monotonic() + ELECTION_SECONDS
        while (missing := set(groups).difference(*self._leads(groups))) and time.monotonic() < end:
            time.sleep(0.2)
        if missing:
            raise SystemExit(f"error: {len(missing)} groups without a leader after {ELECTION_SECONDS:g} s")

    def measure(self, load: Clients) -> dict[str, Any]:
        """Some rounds of the floor and of the nodes, in turn; the medians."""
        floors, rafts, errors = [], [], 0
        for _ in range(ROUNDS):
            floors.append(self._measure_floor(load))
            raft, failed = self._measure_nodes(load)
            rafts.append(raft)
            errors += failed
        floor, raft = _median(floors), _median(rafts)
        ratio = raft.p50_us / floor.p50_us if load.clients == 1 else floor.per_second / max(raft.per_second, 1e-9)
        return {
            "scenario": load.name,
            "per_second": round(raft.per_second, 1),
            "p50_ms": round(raft.p50_us / 1000, 3),
            "p99_ms": round(raft.p99_us / 1000, 3),
            "floor_per_second": round(floor.per_second, 1),
            "floor_p50_ms": round(floor.p50_us / 1000, 3),
            "floor_p99_ms": round(floor.p99_us / 1000, 3),
            "ratio": round(ratio, 2),
            "leaders_on_nodes": sum(1 for led in self._leads(load.groups) if led),
            "errors": errors,
        }

    def _measure_floor(self, load: Clients) -> Round:
        seconds = self._seconds / ROUNDS / 3
        self._floor.ask({"bytes": COMMAND_BYTES * load.clients, "seconds": seconds})
        took = self._floor.answer()
        return _summarise(took, len(took) * load.clients, sum(took) / 1e6)

    def measure_beside_leader(self, **request: Any) -> dict[str, float]:
        """One round of clients on group 1; for `bench_reads`."""
        seconds = self._seconds / ROUNDS
        node = next(node for node, led in zip(self._nodes, self._leads((1,)), strict=True) if led)
        node.ask({"do": "measure", "groups": [1], "seconds": seconds, "warm_up": WARM_UP_SECONDS, "bytes": COMMAND_BYTES, **request})
        answer = node.answer()
        if not answer["latencies"]:
            raise SystemExit(f"error: nothing was answered in {seconds:g} s of {request}: try more --seconds")
        took = _summarise(answer["latencies"], len(answer["latencies"]), seconds)
        return {
            "per_second": took.per_second,
            "p50_ms": took.p50_us / 1000,
            "p99_ms": took.p99_us / 1000,
            "errors": answer["errors"],
        }

    def _measure_nodes(self, load: Clients) -> tuple[Round, int]:
        """Run the clients, each beside its group's leader."""
        seconds = self._seconds / ROUNDS
        busy = []
        for node, led in zip(self._nodes, self._leads(load.groups), strict=True):
            if not led:
                continue
            clients = round(load.clients * len(led) / len(load.groups))
            request = {"groups": led, "clients": clients, "seconds": seconds, "warm_up": WARM_UP_SECONDS, "bytes": COMMAND_BYTES}
            node.ask({"do": "measure", **request})
            busy.append(node)
        answers = [node.answer() for node in busy]
        latencies = [latency for answer in answers for latency in answer["latencies"]]
        if not latencies:
            raise SystemExit(f"error: no write was acknowledged in {seconds:g} s of {load.name!r}: try more --seconds")
        return _summarise(latencies, len(latencies), seconds), sum(answer["errors"] for answer in answers)

    def _leads(self, groups: Sequence[int]) -> list[list[int]]:
        for node in self._nodes:
            node.ask({"do": "leads", "groups": list(groups)})
        return [node.answer() for node in self._nodes]


def _summarise(latencies: list[int], count: int, seconds: float) -> Round:
    ordered = sorted(latencies)
    return Round(ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], count / seconds)


def _median(rounds: Sequence[Round]) -> Round:
    return Round(*(statistics.median(values) for values in zip(*(attrs.astuple(one) for one in rounds), strict=True)))


def run_throughput(seconds: float, data_dir: Path) -> dict[str, Any]:
    """Start everything, measure, end everything."""
    ports = free_ports(3)
    with ExitStack() as children:
        followers = [children.enter_context(Child("bench_floor.py", "--file", str(data_dir / f"floor-{number}"))) for number in (2, 3)]
        answering = [word for follower in followers for word in ("--follower", str(follower.answer()))]
        floor = children.enter_context(Child("bench_floor.py", "--file", str(data_dir / "floor-1"), *answering))
        directories = [NodeDirectory(number, ports, data_dir, groups=MANY_GROUPS) for number in (1, 2, 3)]
        nodes = [children.enter_context(directory.start()) for directory in directories]
        children.enter_context(killed_after(_SLACK_SECONDS + (len(LOADS) + READS) * 3 * seconds, nodes))
        throughput = Throughput(nodes, floor, seconds)
        throughput.wait_leaders()
        results = [throughput.measure(load) for load in LOADS]
        reads = bench_reads.run_reads(throughput.measure_beside_leader)
    return {"scenarios": results, "reads": reads, "targets": targets(results) | bench_reads.targets(reads), "seconds": seconds}


def targets(results: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """What is aimed at, and whether it is reached."""
    by_name = {result["scenario"]: result for result in results}
    return {
        "p50 in sequence within 5x of the floor": by_name["1 in sequence"]["ratio"] <= 5,
        "10,000 acknowledged a second with 500 in flight": by_name["500 in flight"]["per_second"] >= 10_000,
    }


def draw(results: Sequence[dict[str, Any]]) -> Table:
    """A row per load."""
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
