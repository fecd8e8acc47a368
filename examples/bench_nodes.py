"""The nodes of one benchmark: started, killed and started again; whoever opens them ends them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from bench_child import Child, NodeDirectory

LEADER_SECONDS = 30.0
_LOOK_SECONDS = 0.05


class BenchNodes:
    """The processes by number."""

    def __init__(self, directories: Sequence[NodeDirectory]) -> None:
        self.directories = {directory.number: directory for directory in directories}
        self.running: dict[int, Child] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for number in tuple(self.running):
            self.running.pop(number).__exit__(kind, error, traceback)

    def start(self, number: int) -> Child:
        """Start a node; its first answer comes once it serves."""
        child = self.running[number] = self.directories[number].start()
        return child

    def kill(self, number: int) -> None:
        """kill -9."""
        child = self.running.pop(number)
        child.process.kill()
        child.__exit__()

    def leader(self, group: int = 1) -> int:
        """The node that leads; waits for one."""
        end = time.monotonic() + LEADER_SECONDS
        while time.monotonic() < end:
            for number, child in self.running.items():
                if child.call("leads", groups=[group]):
                    return number
            time.sleep(_LOOK_SECONDS)
        raise SystemExit(f"error: group {group} has no leader after {LEADER_SECONDS:g} s")

    def statuses(self, group: int = 1) -> dict[int, dict[str, Any]]:
        """What each node says of its replica. A replica that failed ends the program."""
        found = {number: child.call("status", group=group) for number, child in self.running.items()}
        for number, status in found.items():
            if status["failure"] is not None:
                raise SystemExit(f"error: group {group} failed on node {number}: {status['failure']}")
        return found

    def memory(self) -> dict[str, dict[str, float]]:
        """MB that each process has resident, now and at its peak."""
        memories = {number: child.memory() for number, child in self.running.items()}
        return {str(number): {"now": megabytes(memory.now), "peak": megabytes(memory.peak)} for number, memory in memories.items()}


def megabytes(size: float) -> float:
    """Bytes as MB, for a report."""
    return round(size / 1e6, 1)
