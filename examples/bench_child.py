"""The processes of a benchmark: each answers a line of JSON to each line of JSON, and ends when its stdin does."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import attrs
from directory import DirectoryUse, measure_directory
from log_limits import LogLimits

_BESIDE = Path(__file__).resolve().parent
_END_SECONDS = 10


class Child:
    """One process."""

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
                self.process.wait(_END_SECONDS)
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

    def call(self, name: str, **arguments: Any) -> Any:
        """Send a request to a node and wait for what it says."""
        self.ask({"do": name, **arguments})
        return self.answer()

    def memory(self) -> Memory:
        """What the process has in memory."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        kilobytes = {
            name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if name in ("VmRSS", "VmHWM")
        }
        return Memory(kilobytes["VmRSS"] * 1024, kilobytes["VmHWM"] * 1024)

    def forget_peak(self) -> None:
        """Count the peak of its memory from now on."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


@attrs.frozen
class Memory:
    """Bytes that a process has resident."""

    now: int
    peak: int


@attrs.frozen
class NodeDirectory:
    """A node of a benchmark while it does not run: its number, its place, its settings."""

    number: int
    ports: Sequence[int]
    """Of all nodes, in the order of their numbers."""
    data_dir: Path
    groups: int = 1
    machine: str = "counting"
    machine_size: int = 1
    limits: LogLimits = attrs.Factory(LogLimits)

    @property
    def path(self) -> Path:
        return self.data_dir / f"node-{self.number}"

    def start(self) -> Child:
        """Start the node."""
        where = [word for port in self.ports for word in ("--port", str(port))]
        node = ["--node-id", str(self.number), "--data-dir", str(self.path), "--groups", str(self.groups)]
        machine = ["--machine", self.machine, "--machine-size", str(self.machine_size)]
        return Child("bench_node.py", *where, *node, *machine, *self.limits.arguments())

    def measure(self) -> DirectoryUse:
        """How large its directory is."""
        return measure_directory(self.path)


@contextmanager
def killed_after(seconds: float, children: Collection[Child]) -> Iterator[None]:
    """Processes that hang end the program instead of keeping it."""

    def kill() -> None:
        for child in tuple(children):
            child.process.kill()

    watchdog = threading.Timer(seconds, kill)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()
