"""Scenario "groups": what thousands of quiet groups notice when the log goes on in a new file.

One node, so that each group is its own majority and all of the time is the node's own. Some groups take a load of large commands, at a
steady pace, and fill one log file after the other; each file begins with a row for each group. Meanwhile a quiet group proposes one small
command after the other, and a task of the event loop notes how late it is woken. At the end the node is killed with -9 and started again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from bench_child import NodeDirectory, killed_after
from bench_nodes import BenchNodes, megabytes
from log_limits import LogLimits
from ports import free_ports
from report import PlainReporter

BUSY_GROUPS = 8
CLIENTS = 16
COMMAND_BYTES = 16 * 1024
FILE_SECONDS = 1.5
"""The pace of the load: a log file is full after about so long."""
ROLL_OVERS = 5
AROUND_SECONDS = (0.2, 1.0)
"""Before and after a new log file is seen: what happens then counts as the roll-over's."""
PAUSE_SECONDS_MAX = 0.1
RESTART_SECONDS_MAX = 5.0
_ROW_SHARE_BYTES = 800
"""Of a log file, for each group: several times what a row takes, so that the rows are a small part of it."""
_LOG_FILE_SIZE_MIN = 256 * 1024
_LOOK_SECONDS = 0.01
_TELL_SECONDS = 5.0
_LOAD_SECONDS_MAX = 120.0
_SLACK_SECONDS = 400.0


class Groups:
    """One run."""

    def __init__(self, groups: int, data_dir: Path, reporter: PlainReporter) -> None:
        self._groups, self._tell = groups, reporter.event
        limits = LogLimits(log_file_size=max(_LOG_FILE_SIZE_MIN, groups * _ROW_SHARE_BYTES))
        self._directory = NodeDirectory(1, free_ports(1), data_dir, groups=groups, limits=limits)
        self._nodes = BenchNodes([self._directory])

    def run(self) -> dict[str, Any]:
        """Make the groups, load some, restart; returns the figures."""
        with self._nodes as nodes, killed_after(_SLACK_SECONDS, nodes.running.values()):
            made = self._make()
            memory = nodes.memory()["1"]
            pauses = self._roll_over()
            size = self._directory.measure()
            restart = self._restart()
            return {
                "groups": self._groups,
                "log_file_size": self._directory.limits.log_file_size,
                "made_seconds": made,
                "memory_mb": memory,
                **pauses,
                "directory_mb": megabytes(size.total),
                "log_files": size.log_files,
                "restart": restart,
            }

    def _make(self) -> float:
        begun = time.monotonic()
        self._nodes.start(1).call("wait_leaders", groups=list(range(1, self._groups + 1)))
        seconds = time.monotonic() - begun
        self._tell(f"{self._groups:,} groups made and led after {seconds:.1f} s")
        return round(seconds, 2)

    def _roll_over(self) -> dict[str, Any]:
        """Fill some log files, and tell what the others noticed, near to a new file and far from any."""
        child = self._nodes.running[1]
        busy = list(range(2, min(self._groups, BUSY_GROUPS + 1) + 1))
        child.call("watch", group=1)
        pause = CLIENTS * COMMAND_BYTES * FILE_SECONDS / self._directory.limits.log_file_size
        child.call("start_load", groups=busy, clients=CLIENTS, bytes=COMMAND_BYTES, count=None, pause=pause)
        moments = self._wait_files()
        progress = child.call("load", stop=True)
        noticed = child.call("watched")
        near_ticks, far_ticks = _split(noticed["ticks"], moments)
        near, far = _split(noticed["proposals"], moments)
        return {
            "roll_overs": len(moments),
            "longest_proposal_ms": {"at_roll_overs": _longest(near), "otherwise": _longest(far)},
            "longest_loop_delay_ms": {"at_roll_overs": _longest(near_ticks), "otherwise": _longest(far_ticks)},
            "median_proposal_ms": _median(noticed["proposals"]),
            "busy_groups": {"acknowledged": progress["acknowledged"], "p99_ms": round(progress["p99_ms"], 1)},
            "errors": progress["errors"] + noticed["errors"],
        }

    def _wait_files(self) -> list[float]:
        """Wait for some new log files; returns when each was seen."""
        folder = self._directory.path / "wal"
        known = {path.name for path in folder.iterdir()}
        moments: list[float] = []
        begun = last_told = time.monotonic()
        while len(moments) < ROLL_OVERS:
            now = time.monotonic()
            if now - begun > _LOAD_SECONDS_MAX:
                raise SystemExit(f"error: only {len(moments)} roll-overs in {_LOAD_SECONDS_MAX:g} s")
            for name in {path.name for path in folder.iterdir()} - known:
                known.add(name)
                moments.append(now)
            if now - last_told > _TELL_SECONDS:
                last_told = now
                self._tell(f"{len(moments)} of {ROLL_OVERS} roll-overs")
            time.sleep(_LOOK_SECONDS)
        time.sleep(AROUND_SECONDS[1])
        return moments

    def _restart(self) -> dict[str, Any]:
        nodes = self._nodes
        nodes.kill(1)
        begun = time.monotonic()
        child = nodes.start(1)
        child.call("leads", groups=[])
        serving = time.monotonic() - begun
        child.call("propose", group=1)
        proposed = time.monotonic() - begun
        self._tell(f"restarted: serves after {serving:.2f} s, first proposal acknowledged after {proposed:.2f} s")
        return {"serving_seconds": round(serving, 2), "first_proposal_seconds": round(proposed, 2), "memory_mb": nodes.memory()["1"]}


def _split(noticed: list[tuple[float, float]], moments: list[float]) -> tuple[list[float], list[float]]:
    """The seconds that something took, apart by whether a new file was seen near to it."""
    before, after = AROUND_SECONDS
    near, far = [], []
    for at, took in noticed:
        is_near = any(at - took <= moment + after and at >= moment - before for moment in moments)
        (near if is_near else far).append(took)
    return near, far


def _longest(seconds: list[float]) -> float:
    return round(max(seconds, default=0.0) * 1000, 1)


def _median(noticed: list[tuple[float, float]]) -> float:
    ordered = sorted(took for _, took in noticed)
    return round(ordered[len(ordered) // 2] * 1000, 1) if ordered else 0.0


def run_groups(groups: int, data_dir: Path) -> dict[str, Any]:
    """Run the scenario; returns the figures and what they are aimed at."""
    result = Groups(groups, data_dir, PlainReporter()).run()
    return {**result, "targets": targets(result)}


def targets(result: dict[str, Any]) -> dict[str, bool]:
    """What is aimed at, and whether it is reached."""
    limit = PAUSE_SECONDS_MAX * 1000
    return {
        "no proposal of the others waits 100 ms at a roll-over": result["longest_proposal_ms"]["at_roll_overs"] <= limit,
        "the event loop is never 100 ms late at a roll-over": result["longest_loop_delay_ms"]["at_roll_overs"] <= limit,
        "serves again in under 5 s": result["restart"]["serving_seconds"] < RESTART_SECONDS_MAX,
    }
