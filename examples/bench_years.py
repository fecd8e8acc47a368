"""Scenario "years": what a node is like that has taken millions of proposals.

Two nodes of a group of three take small proposals, many in flight, with the sync on. The group's state is a ring of the last commands,
which soon stops growing, as the directory should. Then, while writes go on, the third node comes with an empty directory and catches up
by snapshot; and when they have stopped, a follower with all that behind it is killed with -9 and started again.

With few proposals the settings are small too, so that as many snapshots and log files come by.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import attrs
from bench_child import NodeDirectory, killed_after
from bench_nodes import BenchNodes, megabytes
from log_limits import DirectorySize, LogLimits
from ports import free_ports
from report import PlainReporter

COMMAND_BYTES = 128
CLIENTS = 1000
ENTRY_BYTES_MAX = 176
"""A command in the log."""
SLOT_BYTES_MAX = 136
"""A command in a snapshot."""
RESTART_SECONDS_MAX = 5.0
CATCH_UP_SECONDS_MAX = 120.0
LEEWAY_SECONDS = 0.5
"""A node that is no further behind than what is proposed in this time has caught up."""
_LOOK_SECONDS = 0.1
_TELL_SECONDS = 5.0
_TIMELINE_POINTS = 40
_SLACK_SECONDS = 400.0
_SLOWEST_PER_SECOND = 500
_KIB = 1 << 10


def limits_for(proposals: int) -> LogLimits:
    """The library's own settings for millions; for fewer, as much smaller as there are fewer."""
    full = LogLimits()
    return LogLimits(
        log_file_size=max(64 * _KIB, min(full.log_file_size, proposals * ENTRY_BYTES_MAX // 10)),
        snapshot_entries=max(1000, min(full.snapshot_entries, proposals // 10)),
    )


class Years:
    """One run."""

    def __init__(self, proposals: int, data_dir: Path, reporter: PlainReporter) -> None:
        self._proposals, self._tell = proposals, reporter.event
        self._limits = limits_for(proposals)
        self._slots = max(100, min(100_000, proposals // 10))
        ports = free_ports(3)
        node = NodeDirectory(1, ports, data_dir, machine="ring", machine_size=self._slots, limits=self._limits)
        self._nodes = BenchNodes([attrs.evolve(node, number=number) for number in (1, 2, 3)])
        self._bound = self._limits.bound(groups=1, entry_bytes=ENTRY_BYTES_MAX, state_bytes=self._slots * SLOT_BYTES_MAX)
        self._largest = DirectorySize()
        self._largest_total = 0
        self._rate = 0.0

    def run(self) -> dict[str, Any]:
        """Load, let the third one in, restart one; returns the figures."""
        with self._nodes as nodes, killed_after(_SLACK_SECONDS + self._proposals / _SLOWEST_PER_SECOND, nodes.running.values()):
            nodes.start(1)
            nodes.start(2)
            load = self._load()
            catch_up = self._catch_up()
            memory = nodes.memory()
            restart = self._restart()
            return {
                "proposals": self._proposals,
                "settings": {**attrs.asdict(self._limits), "slots": self._slots, "clients": CLIENTS, "command_bytes": COMMAND_BYTES},
                "load": load,
                "catch_up": catch_up,
                "restart": restart,
                "memory_mb": memory,
                "directory_mb": {"largest": megabytes(self._largest_total), "bound": megabytes(self._bound.total)},
                "beyond_bound": self._largest.beyond(self._bound),
            }

    def _load(self) -> dict[str, Any]:
        """All proposals, with two nodes up."""
        leader = self._nodes.leader()
        child = self._nodes.running[leader]
        started = last_told = time.monotonic()
        timeline: list[dict[str, float]] = []
        child.call("start_load", groups=[1], clients=CLIENTS, bytes=COMMAND_BYTES, count=self._proposals, pause=0)
        while not (progress := child.call("load"))["is_over"]:
            now, done = time.monotonic(), progress["acknowledged"]
            size = self._measure(leader)
            if done >= len(timeline) * self._proposals / _TIMELINE_POINTS:
                timeline.append({"proposals": done, "directory_mb": megabytes(size)})
            if now - last_told > _TELL_SECONDS:
                last_told = now
                rate, at = done / (now - started), f"{done:,} of {self._proposals:,} proposals"
                self._tell(f"{at}, {rate:,.0f}/s, directory {megabytes(size)} MB, {self._left(done, rate)}")
            time.sleep(_LOOK_SECONDS)
        seconds = time.monotonic() - started
        self._rate = self._proposals / seconds
        self._tell(f"{self._proposals:,} proposals in {seconds:.1f} s")
        return {
            "seconds": round(seconds, 1),
            "per_second": round(self._rate),
            "p50_ms": round(progress["p50_ms"], 1),
            "p99_ms": round(progress["p99_ms"], 1),
            "errors": progress["errors"],
            "snapshots_taken": {str(number): status["snapshots_taken"] for number, status in self._nodes.statuses().items()},
            "timeline": timeline,
        }

    def _left(self, done: int, rate: float) -> str:
        return f"{(self._proposals - done) / max(rate, 1):.0f} s to go"

    def _measure(self, number: int) -> int:
        use = self._nodes.directories[number].measure()
        self._largest = self._largest.largest(use.size)
        self._largest_total = max(self._largest_total, use.total)
        return use.total

    def _catch_up(self) -> dict[str, Any]:
        """The third node comes, while writes go on."""
        nodes, leader = self._nodes, self._nodes.leader()
        nodes.running[leader].call("start_load", groups=[1], clients=CLIENTS, bytes=COMMAND_BYTES, count=None, pause=0)
        begun = time.monotonic()
        fresh = nodes.start(3)
        status = fresh.call("status", group=1)
        serving = time.monotonic() - begun
        while status["snapshots_received"] == 0 or self._lag(leader, status) > self._rate * LEEWAY_SECONDS:
            if time.monotonic() - begun > CATCH_UP_SECONDS_MAX:
                raise SystemExit(f"error: the third node has not caught up after {CATCH_UP_SECONDS_MAX:g} s: {status}")
            time.sleep(_LOOK_SECONDS)
            self._measure(leader)
            self._measure(3)
            status = fresh.call("status", group=1)
        caught_up = time.monotonic() - begun
        progress = nodes.running[leader].call("load", stop=True)
        seconds = time.monotonic() - begun
        received = [event for event in status["events"] if event.get("received")]
        arrived = received[0]["at"] - begun
        self._tell(f"the third node caught up in {caught_up:.1f} s, {len(received)} snapshots received")
        return {
            "serving_seconds": round(serving, 2),
            "snapshot_seconds": round(arrived, 2),
            "caught_up_seconds": round(caught_up, 2),
            "snapshots_received": status["snapshots_received"],
            "snapshot_mb": megabytes(received[0]["size"]),
            "mb_per_second": round(received[0]["size"] / 1e6 / max(arrived - serving, 1e-3), 1),
            "writes_per_second_meanwhile": round(progress["acknowledged"] / seconds),
            "states_equal": self._is_equal(),
        }

    def _lag(self, leader: int, status: dict[str, Any]) -> int:
        commit: int = self._nodes.running[leader].call("status", group=1)["commit"]
        return commit - int(status["applied"])

    def _is_equal(self) -> bool:
        """Writes have stopped: whether all three have the same state once they have applied the same."""
        last = max(status["commit"] for status in self._nodes.statuses().values())
        for child in self._nodes.running.values():
            child.call("wait_caught_up", group=1, index=last)
        return len({(status["applied"], status["checksum"]) for status in self._nodes.statuses().values()}) == 1

    def _restart(self) -> dict[str, Any]:
        """A follower that has taken all of the load, killed and started again."""
        nodes, leader = self._nodes, self._nodes.leader()
        number = 1 if leader != 1 else 2
        last = nodes.running[leader].call("status", group=1)["commit"]
        nodes.kill(number)
        size = self._measure(number)
        begun = time.monotonic()
        child = nodes.start(number)
        child.call("leads", groups=[])
        serving = time.monotonic() - begun
        child.call("wait_caught_up", group=1, index=last)
        applied = time.monotonic() - begun
        self._tell(f"node {number} restarted: serves after {serving:.2f} s, has applied everything after {applied:.2f} s")
        return {
            "node": number,
            "serving_seconds": round(serving, 2),
            "applied_seconds": round(applied, 2),
            "directory_mb": megabytes(size),
            "states_equal": self._is_equal(),
        }


def run_years(proposals: int, data_dir: Path) -> dict[str, Any]:
    """Run the scenario; returns the figures and what they are aimed at."""
    result = Years(proposals, data_dir, PlainReporter()).run()
    return {**result, "targets": targets(result)}


def targets(result: dict[str, Any]) -> dict[str, bool]:
    """What is aimed at, and whether it is reached."""
    return {
        "the directory stays under its bound": not result["beyond_bound"],
        "restarts in under 5 s": result["restart"]["applied_seconds"] < RESTART_SECONDS_MAX,
        "a fresh node catches up by snapshot while writes go on": result["catch_up"]["snapshots_received"] > 0,
        "all three states are equal": result["catch_up"]["states_equal"] and result["restart"]["states_equal"],
    }
