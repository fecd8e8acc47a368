"""How the launcher shows what is going on: a live table for people, plain lines otherwise, and one JSON object at the end."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Protocol

import attrs
from cluster_nodes import ClusterNodes
from directory_watch import DirectoryWatch
from latency import Histogram
from load import Load
from observer import NodeView, Observer
from rich.console import Console
from rich.live import Live
from rich.table import Table

_PLAIN_SUMMARY_SECONDS = 5.0


@attrs.frozen(kw_only=True)
class Snapshot:
    """What the table is drawn from."""

    now: float
    elapsed: float
    acknowledged: int
    rate: float
    """Acknowledged per second, lately."""
    nodes: ClusterNodes
    observer: Observer
    load: Load
    watch: DirectoryWatch


class Reporter(Protocol):
    """Where events and pictures go."""

    def event(self, text: str) -> None: ...

    def show(self, snapshot: Snapshot) -> None: ...

    def close(self) -> None: ...


def open_reporter(*, plain: bool) -> Reporter:
    """A live table if somebody is looking at a terminal, else plain lines on stderr."""
    return PlainReporter() if plain or not sys.stdout.isatty() else LiveReporter()


class PlainReporter:
    """A line per event and one every few seconds, on stderr."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._next_summary = _PLAIN_SUMMARY_SECONDS

    def event(self, text: str) -> None:
        """Write a line."""
        print(f"{time.monotonic() - self._start:7.2f}s  {text}", file=sys.stderr, flush=True)

    def show(self, snapshot: Snapshot) -> None:
        """Write a line, now and then."""
        if snapshot.elapsed < self._next_summary:
            return
        self._next_summary = snapshot.elapsed + _PLAIN_SUMMARY_SECONDS
        led = ", ".join(
            f"node {view.node_id} {_state(snapshot, view.node_id)} leads {view.led}" for view in snapshot.observer.views.values()
        )
        self.event(f"{snapshot.acknowledged} acknowledged, {snapshot.rate:.0f}/s; {led}")

    def close(self) -> None:
        """Nothing is held."""


class LiveReporter:
    """A table that is redrawn in place, with the events scrolling by above it."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._console = Console(highlight=False)
        # NB: drawn by whoever calls `show`; Live would otherwise start a thread of its own.
        self._live = Live(console=self._console, auto_refresh=False)
        self._live.start()

    def event(self, text: str) -> None:
        """Write a line above the table."""
        self._console.print(f"[dim]{time.monotonic() - self._start:7.2f}s[/dim]  {_escape(text)}")

    def show(self, snapshot: Snapshot) -> None:
        """Redraw the table."""
        self._live.update(draw(snapshot), refresh=True)

    def close(self) -> None:
        """Leave the last table on the screen."""
        self._live.stop()


def draw(snapshot: Snapshot) -> Table:
    """The table: a row per node, and one for all."""
    table = Table(title=f"{snapshot.elapsed:.0f} s, {snapshot.acknowledged} writes acknowledged, {snapshot.observer.elections} elections")
    for name in ("node", "state", "life"):
        table.add_column(name)
    for name in ("groups led", "committed/s", "p50 ms", "p99 ms", "syncs", "disk MB", "log files", "snapshots"):
        table.add_column(name, justify="right")
    total = Histogram()
    for node_id, view in snapshot.observer.views.items():
        recent = snapshot.load.recent[node_id].merged(snapshot.now)
        total.merge(recent)
        state = _state(snapshot, node_id)
        colour = {"up": "green", "stopped": "yellow"}.get(state, "red")
        life = str(snapshot.nodes.nodes[node_id].lives)
        rate = f"{view.commit_rate:.0f}"
        directory = snapshot.watch.directories[node_id].now
        table.add_row(
            *(str(node_id), f"[{colour}]{state}[/{colour}]", life, str(view.led), rate, *_latency(recent), str(view.syncs)),
            *(megabytes(directory.total), str(directory.log_files), _snapshots(view)),
        )
    led = sum(view.led for view in snapshot.observer.views.values())
    table.add_section()
    table.add_row("all", "", "", str(led), f"{snapshot.rate:.0f} ack'd", *_latency(total))
    return table


def _state(snapshot: Snapshot, node_id: int) -> str:
    return snapshot.nodes.nodes[node_id].state.value


def _snapshots(view: NodeView) -> str:
    return f"{view.counted('snapshots_taken')}+{view.counted('snapshots_received')}"


def _latency(histogram: Histogram) -> tuple[str, str]:
    return milliseconds(histogram.quantile(0.5)), milliseconds(histogram.quantile(0.99))


def milliseconds(seconds: float | None) -> str:
    """A latency for people."""
    return "-" if seconds is None else f"{seconds * 1000:.1f}"


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:.1f}"


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def print_result(result: dict[str, Any], *, as_json: bool) -> None:
    """The end of the run: for people, or one object as the last line of stdout."""
    if as_json:
        print(json.dumps(result), flush=True)
        return
    table = Table(title="result", show_header=False)
    for name, value in result.items():
        if name not in ("problems", "ok", "directories", "directory_bound"):
            table.add_row(name.replace("_", " "), f"{value:.3f}" if isinstance(value, float) else _escape(str(value)))
    console = Console(highlight=False)
    console.print(table)
    console.print(draw_directories(result["directories"], result["directory_bound"]["total"]))
    for problem in result["problems"]:
        console.print(f"[red]{_escape(problem)}[/red]")
    console.print("[green]OK: nothing lost, nothing duplicated, all replicas equal[/green]" if result["ok"] else "[red]FAILED[/red]")


def draw_directories(directories: dict[str, dict[str, int]], bound: int) -> Table:
    """A row per node, and the bound that all must stay under."""
    table = Table(title=f"directories, MB; bound {megabytes(bound)}")
    for name in ("node", "now", "most", "log", "rest", "snaps", "files", "taken", "got", "used"):
        table.add_column(name, justify="right")
    for node_id, found in directories.items():
        sizes = (found[name] for name in ("bytes", "largest_bytes", "log", "at_rest", "snapshots"))
        counts = (found[name] for name in ("log_files", "snapshots_taken", "snapshots_received", "restored_at_starts"))
        table.add_row(node_id, *map(megabytes, sizes), *map(str, counts))
    return table
