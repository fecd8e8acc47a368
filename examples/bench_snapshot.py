"""Scenario "snapshot": a large state goes from one node to another.

Two nodes of a group of three hold a state that takes no memory: it is generated, record by record, and checked when it arrives. So what
the processes grow by is what the library needs. The leader takes a snapshot; a third node with an empty directory gets it. Meanwhile the
group takes small proposals, and each process notes how late its event loop and its pulses come.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import attrs
from bench_child import Child, NodeDirectory, killed_after
from bench_machines import RECORD_BYTES
from bench_nodes import BenchNodes, megabytes
from log_limits import LogLimits
from ports import free_ports
from report import PlainReporter

LIMITS = LogLimits(snapshot_entries=20_000)
ENTRIES = 4_000
"""More than the log keeps, so that the third node finds nothing of it; and less than makes the group take a snapshot by itself."""
_AT_ONCE = 500
LOOP_DELAY_MS_MAX = 100.0
PULSE_GAP_MS_MAX = 500.0
"""Half of an election timeout: a pulse that comes as late as that has nearly lost a leader."""
RISE_MB_MAX = 64.0
_LOOK_SECONDS = 0.02
_TELL_SECONDS = 5.0
_SLACK_SECONDS = 300.0
_SLOWEST_PER_SECOND = 2e6


class SnapshotRun:
    """One run."""

    def __init__(self, size: int, data_dir: Path, reporter: PlainReporter) -> None:
        self._tell = reporter.event
        self._records = max(1, size // RECORD_BYTES)
        node = NodeDirectory(1, free_ports(3), data_dir, machine="generated", machine_size=self._records, limits=LIMITS)
        empty = attrs.evolve(node, number=3, machine_size=0)
        self._nodes = BenchNodes([node, attrs.evolve(node, number=2), empty])
        self._seconds_max = _SLACK_SECONDS + 3 * size / _SLOWEST_PER_SECOND

    def run(self) -> dict[str, Any]:
        """Take it, move it; returns the figures."""
        with self._nodes as nodes, killed_after(self._seconds_max, nodes.running.values()):
            nodes.start(1)
            nodes.start(2)
            leader = nodes.leader()
            for _ in range(ENTRIES // _AT_ONCE):
                nodes.running[leader].call("propose", group=1, count=_AT_ONCE)
            for number, child in nodes.running.items():
                child.call("watch", group=1 if number == leader else None)
            taken = self._take(leader)
            moved = self._move(leader)
            return {"records": self._records, "state_mb": megabytes(self._records * RECORD_BYTES), "taken": taken, **moved}

    def _take(self, leader: int) -> dict[str, Any]:
        child = self._nodes.running[leader]
        phase = Phase(child)
        seconds = child.call("snapshot", group=1)["seconds"]
        size = self._nodes.directories[leader].measure().size.snapshots
        self._tell(f"taken: {megabytes(size)} MB in {seconds:.1f} s")
        return {"seconds": round(seconds, 2), "mb_per_second": _rate(size, seconds), **phase.end()}

    def _move(self, leader: int) -> dict[str, Any]:
        """The third node comes, gets the snapshot, and restores it."""
        nodes = self._nodes
        sending = Phase(nodes.running[leader])
        fresh = nodes.start(3)
        fresh.call("watch", group=None)
        receiving = Phase(fresh)
        began: float | None = None
        last_told = time.monotonic()
        while (status := fresh.call("status", group=1))["applied"] < ENTRIES:
            now = time.monotonic()
            if began is None and status["snapshot_bytes_in"]:
                began = now
            if now - last_told > _TELL_SECONDS:
                last_told = now
                self._tell(f"{megabytes(status['snapshot_bytes_in'])} MB received")
            failures = [event["failed"] for event in status["events"] if "failed" in event]
            if failures or status["failure"] is not None:
                raise SystemExit(f"error: {failures or status['failure']}")
            time.sleep(_LOOK_SECONDS)
        restored = time.monotonic()
        (event,) = (event for event in status["events"] if event.get("received"))
        streamed = event["at"] - (event["at"] if began is None else began)
        self._tell(f"streamed in {streamed:.1f} s, restored in {restored - event['at']:.1f} s")
        return {
            "streamed": {
                "seconds": round(streamed, 2),
                "mb_per_second": _rate(event["size"], streamed),
                "sender": sending.end(),
                "receiver": receiving.end(),
            },
            "restored": {"seconds": round(restored - event["at"], 2), "mb_per_second": _rate(event["size"], restored - event["at"])},
        }


class Phase:
    """What a process needs more, and what it notices, from one moment to another."""

    def __init__(self, child: Child) -> None:
        self._child = child
        child.call("watched")
        child.forget_peak()
        self._before = child.memory().now

    def end(self) -> dict[str, float | None]:
        """The figures of the phase."""
        noticed = self._child.call("watched")
        rise = self._child.memory().peak - self._before
        return {
            "memory_rise_mb": megabytes(max(0, rise)),
            "longest_loop_delay_ms": _longest(noticed["ticks"]),
            "longest_pulse_gap_ms": round(noticed["pulse_out_gap"] * 1000, 1),
            "longest_proposal_ms": _longest(noticed["proposals"]),
        }


def _longest(noticed: list[tuple[float, float]]) -> float | None:
    return round(max(took for _, took in noticed) * 1000, 1) if noticed else None


def _rate(size: float, seconds: float) -> float:
    return round(size / 1e6 / max(seconds, 1e-3), 1)


def run_snapshot(size: int, data_dir: Path) -> dict[str, Any]:
    """Run the scenario; returns the figures and what they are aimed at."""
    result = SnapshotRun(size, data_dir, PlainReporter()).run()
    return {**result, "targets": targets(result)}


def targets(result: dict[str, Any]) -> dict[str, bool]:
    """What is aimed at, and whether it is reached."""
    phases = [result["taken"], result["streamed"]["sender"], result["streamed"]["receiver"]]
    return {
        "no process grows by more than 64 MB": all(phase["memory_rise_mb"] <= RISE_MB_MAX for phase in phases),
        "the event loop is never 100 ms late": all((phase["longest_loop_delay_ms"] or 0) <= LOOP_DELAY_MS_MAX for phase in phases),
        "no pulse is half an election timeout late": all(phase["longest_pulse_gap_ms"] <= PULSE_GAP_MS_MAX for phase in phases),
    }
