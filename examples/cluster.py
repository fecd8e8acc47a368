"""A Multi-Raft cluster in one command: real processes, real sockets, real disks, and faults on demand.

    python examples/cluster.py --seconds 60 --kill-every 8

starts the nodes (see raft_multi_node.py) with their own directories and free ports, keeps a steady load of writes on all groups, shows a
live table, and at the end reads everything back from every replica. The exit status is 0 only if no acknowledged write is lost, none was
applied twice, no replicas differ, every group has a leader, and no directory grew beyond its bound. With ``--churn`` members, leaders and
whole groups come and go all the while.

Ctrl-C ends the load early and still reads back; a second one, or SIGTERM, ends everything. No process is left behind either way.
"""

from __future__ import annotations

import argparse
import math
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
from cluster_nodes import ClusterNodes, StartError
from cluster_run import ClusterOptions, ClusterRun
from log_limits import add_limits, read_limits
from report import Reporter, open_reporter, print_result

EXIT_FAILED, EXIT_USAGE = 1, 2
CHURN_NODES = 5


def parse_arguments(arguments: Sequence[str] | None = None) -> tuple[ClusterOptions, Path | None, bool]:
    """Read the command line: what to run, where, and whether to answer in JSON."""
    defaults = ClusterOptions()
    parser = argparse.ArgumentParser(
        description="Run a Multi-Raft cluster under load, with faults, and check that nothing is lost.",
        epilog="A directory must stay under: 4 log files, each a quarter larger than --log-file-size; for each group 2.5 times "
        "--snapshot-entries entries, and 2 log files more, for entries at rest; and 3 snapshots of each group. The run prints the sum, and "
        "fails if one of the three parts is larger.",
    )
    parser.add_argument("--nodes", type=int, help=f"processes (default {defaults.nodes}; {CHURN_NODES} with --churn)")
    parser.add_argument("--groups", type=int, default=defaults.groups, help="Raft groups in each of them (default %(default)s)")
    parser.add_argument(
        "--seconds", type=_seconds, default=defaults.seconds, help="length of the load; 0: until Ctrl-C (default %(default)g)"
    )
    parser.add_argument("--clients", type=int, default=defaults.clients, help="clients, one write at a time each (default %(default)s)")
    parser.add_argument("--kill-every", type=_seconds, metavar="SECONDS", help="kill -9 a random node so often; it is back 2 s later")
    parser.add_argument("--stop-every", type=_seconds, metavar="SECONDS", help="SIGSTOP a random node so often; SIGCONT 3 s later")
    parser.add_argument("--kill-all-at", type=_seconds, metavar="SECONDS", help="kill -9 all nodes at once, at this time of the run")
    parser.add_argument(
        "--lag", type=int, metavar="ENTRIES", help="kill -9 a random node; it is back when every group has gone on by so many entries"
    )
    parser.add_argument(
        "--churn",
        action="store_true",
        help="groups begin on 3 of the nodes; then members are added, removed and replaced, leaders moved, snapshots forced, groups begun "
        "and removed, without end",
    )
    add_limits(parser)
    parser.add_argument("--seed", type=int, help="of the faults and of the clients' choices (default: random, and reported)")
    parser.add_argument("--data-dir", type=Path, help="kept afterwards, and continued next time (default: temporary)")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object, the last line of stdout")
    given = parser.parse_args(arguments)
    if given.nodes is None:
        given.nodes = CHURN_NODES if given.churn else defaults.nodes
    for name, low, high in (("nodes", 1, 15), ("groups", 1, 10_000), ("clients", 1, 1000)):
        if not low <= getattr(given, name) <= high:
            parser.error(f"--{name} must be from {low} to {high}, not {getattr(given, name)}")
    for name in ("kill_every", "stop_every"):
        interval = getattr(given, name)
        if interval is not None and interval <= 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0")
        if interval is not None and given.nodes < 3:
            parser.error(f"--{name.replace('_', '-')} needs at least 3 nodes: a majority has to stay")
    limits = read_limits(parser, given)
    if given.lag is not None and given.lag < 2 * limits.snapshot_entries:
        parser.error(
            f"--lag must be at least twice --snapshot-entries ({limits.snapshot_entries}), or the log may still have what is missing"
        )
    if given.lag is not None and given.nodes < 3:
        parser.error("--lag needs at least 3 nodes: a majority has to stay")
    if given.churn and given.nodes < CHURN_NODES:
        parser.error(f"--churn needs at least {CHURN_NODES} nodes: a group is on 3 of them, and others must be there to come in")
    if given.churn and given.lag is not None:
        parser.error("--lag and --churn exclude each other: a node that is away for long would hold up all changes")
    options = ClusterOptions(
        nodes=given.nodes,
        groups=given.groups,
        seconds=given.seconds,
        clients=given.clients,
        kill_every=given.kill_every,
        stop_every=given.stop_every,
        kill_all_at=given.kill_all_at,
        lag=given.lag,
        churn=given.churn,
        limits=limits,
        seed=secrets.randbelow(1 << 31) if given.seed is None else given.seed,
    )
    return options, given.data_dir, given.json


def _seconds(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


@attrs.define
class Interrupts:
    """What signals have asked for."""

    early_end: trio.Event = attrs.Factory(trio.Event)
    """Set by the first Ctrl-C once the cluster runs: enough load, read back now."""
    is_running: bool = False
    signal_number: int | None = None
    """The signal that ended everything."""

    async def watch(self, everything: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGINT and self.is_running and not self.early_end.is_set():
                    self.early_end.set()
                    continue
                self.signal_number = number
                everything.cancel()


async def run(options: ClusterOptions, data_dir: Path, reporter: Reporter) -> dict[str, Any] | int:
    """Run the whole thing; returns the result, or the number of the signal that ended it."""
    interrupts = Interrupts()
    result: dict[str, Any] = {}
    nodes = ClusterNodes(options.nodes, options.groups, data_dir, options.limits, reporter.event, replicas=options.replicas)
    async with trio.open_nursery() as nursery:
        await nursery.start(interrupts.watch, nursery.cancel_scope)
        try:
            await nodes.start()
            interrupts.is_running = True
            result = await ClusterRun(options, nodes, reporter, interrupts.early_end).run()
        finally:
            with trio.CancelScope(shield=True):  # Bounded: each process gets some seconds, then SIGKILL.
                await nodes.end()
        nursery.cancel_scope.cancel()
    return result if interrupts.signal_number is None else interrupts.signal_number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a cluster; returns the exit status."""
    options, kept_dir, as_json = parse_arguments(arguments)
    outcome: dict[str, Any] | int = EXIT_FAILED
    failures: list[str] = []
    with _open_data_dir(kept_dir) as data_dir:
        reporter = open_reporter(plain=as_json)
        try:
            reporter.event(f"{options.nodes} nodes, {options.groups} groups, {options.clients} clients; seed {options.seed}; {data_dir}")
            outcome = trio.run(run, options, data_dir, reporter)
        except* (StartError, OSError) as errors:
            failures = [str(error) for error in _leaves(errors)]
        finally:
            reporter.close()
    if failures:
        print("error:", *failures, sep="\n", file=sys.stderr)
        return EXIT_FAILED
    if isinstance(outcome, int):
        return 128 + outcome
    print_result(outcome, as_json=as_json)
    for problem in outcome["problems"] if as_json else ():
        print(problem, file=sys.stderr)
    return 0 if outcome["ok"] else EXIT_FAILED


@contextmanager
def _open_data_dir(kept: Path | None) -> Iterator[Path]:
    """A directory that is kept if it was named, and removed if not."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="trioraft-") as path:
        yield Path(path)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


if __name__ == "__main__":
    sys.exit(main())
