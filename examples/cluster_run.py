"""One run of the launched cluster, from the first election to the verdict."""

from __future__ import annotations

import secrets
from collections import deque
from typing import Any

import attrs
import trio
from audit import Findings, audit
from churn import Churn
from churn_acts import VOTERS_MIN
from cluster_nodes import ClusterNodes
from directory_watch import DirectoryWatch
from faults import Faults
from ledger import Ledger
from load import Load
from log_limits import LogLimits
from observer import Observer
from readback import read_all
from report import Reporter, Snapshot
from scratch_groups import SCRATCH_GROUPS

LEADER_SECONDS = 20.0
"""How long the first elections may take: ten election timeouts at their longest."""
SETTLE_SECONDS = 45.0
"""How long it may take, once all nodes run again, until every group has a leader and all replicas have applied the same."""
_SHOW_SECONDS = 0.4
_RATE_LOOKS = 6
_LOOK_SECONDS = 0.05
_PROBLEMS_SHOWN = 50


@attrs.frozen(kw_only=True)
class ClusterOptions:
    """What is wanted. Times in seconds."""

    nodes: int = 3
    groups: int = 8
    seconds: float = 30.0
    """How long the load lasts; 0: until somebody ends it."""
    clients: int = 32
    kill_every: float | None = None
    stop_every: float | None = None
    kill_all_at: float | None = None
    lag: int | None = None
    """Entries that every group goes on by while one node is down."""
    churn: bool = False
    """Change members and leaders, force snapshots, begin and remove groups, all the while."""
    limits: LogLimits = attrs.Factory(LogLimits)
    seed: int = 0

    @property
    def replicas(self) -> int:
        """Nodes that each group begins on."""
        return VOTERS_MIN if self.churn else self.nodes


class ClusterRun:
    """The parts of a run and what connects them."""

    def __init__(self, options: ClusterOptions, nodes: ClusterNodes, reporter: Reporter, early_end: trio.Event) -> None:
        self._options, self._nodes, self._reporter, self._early_end = options, nodes, reporter, early_end
        self._ledger = Ledger(secrets.token_hex(4))
        self._load = Load(self._ledger, nodes.addresses, options.groups, options.seed)
        self._observer = Observer(nodes, reporter.event)
        self._churn = Churn(nodes, options.groups, options.seed, reporter.event) if options.churn else None
        groups = options.groups + (SCRATCH_GROUPS if options.churn else 0)
        self._watch = DirectoryWatch(nodes, self._observer, options.limits, groups, reporter.event)
        self._faults = Faults(nodes, self._observer, options.seed, reporter.event)
        self._problems: list[str] = []
        self._start = trio.current_time()

    async def run(self) -> dict[str, Any]:
        """Elect, load, heal, settle, read back.

        Raises:
            StartError: a node that was killed did not come back.
        """
        async with trio.open_nursery() as watchers:
            watchers.start_soon(self._observer.run)
            watchers.start_soon(self._watch.run)
            watchers.start_soon(self._show)
            await self._wait_leaders()
            seconds = await self._run_load()
            self._reporter.event("the load has ended; waiting until all replicas have applied the same")
            leaderless = await self._settle()
            self._reporter.event("reading everything back from every replica")
            await self._watch.look()
            members = {group_id: self._observer.members(group_id) for group_id in range(1, self._options.groups + 1)}
            copies, unreadable = await read_all(self._nodes.addresses, members)
            watchers.cancel_scope.cancel()
        self._problems += unreadable
        return self._result(audit(self._ledger, copies), seconds, leaderless)

    async def _wait_leaders(self) -> None:
        with trio.move_on_after(LEADER_SECONDS) as waiting:
            while self._observer.leaderless(self._options.groups):
                await trio.sleep(_LOOK_SECONDS)
        if waiting.cancelled_caught:
            self._reporter.event(f"groups without a leader after {LEADER_SECONDS:g} s: {self._observer.leaderless(self._options.groups)}")

    async def _run_load(self) -> float:
        """Load and faults for as long as wanted; returns how long the load lasted, in seconds."""
        options, start = self._options, trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_faults)
            nursery.start_soon(self._load.run, options.clients)
            if self._churn is not None:
                nursery.start_soon(self._churn.run)
            with trio.move_on_after(options.seconds or float("inf")):
                await self._early_end.wait()
            self._load.stop()
            if self._churn is not None:
                self._churn.stop()
            seconds = trio.current_time() - start
            self._faults.heal()
        return seconds

    async def _run_faults(self) -> None:
        options = self._options
        await self._faults.run(
            kill_every=options.kill_every, stop_every=options.stop_every, kill_all_at=options.kill_all_at, lag=options.lag
        )

    async def _settle(self) -> list[int]:
        """Wait until nothing moves any more; returns the groups that have no leader then."""
        groups = self._options.groups
        with trio.move_on_after(SETTLE_SECONDS) as waiting:
            while not self._observer.is_settled(groups):
                await trio.sleep(_LOOK_SECONDS)
        if waiting.cancelled_caught:
            self._problems.append(f"the replicas had not applied the same after {SETTLE_SECONDS:g} s: {self._observer.unsettled(groups)}")
        return self._observer.leaderless(groups)

    async def _show(self) -> None:
        """Redraw, some times a second."""
        looks: deque[tuple[float, int]] = deque(maxlen=_RATE_LOOKS)
        while True:
            now = trio.current_time()
            looks.append((now, self._ledger.acknowledged))
            span = now - looks[0][0]
            self._reporter.show(
                Snapshot(
                    now=now,
                    elapsed=now - self._start,
                    acknowledged=self._ledger.acknowledged,
                    rate=(looks[-1][1] - looks[0][1]) / span if span else 0.0,
                    nodes=self._nodes,
                    observer=self._observer,
                    load=self._load,
                    watch=self._watch,
                )
            )
            await trio.sleep(_SHOW_SECONDS)

    def _result(self, findings: Findings, seconds: float, leaderless: list[int]) -> dict[str, Any]:
        """The verdict, and the figures that it rests on."""
        observer, ledger, load = self._observer, self._ledger, self._load
        problems = [*findings.problems(), *self._problems, *observer.violations, *load.unexpected, *self._nodes.crashes]
        problems += [*self._watch.problems, *self._lag_problems(), *self._member_problems()]
        if self._churn is not None:
            problems += self._churn.problems()
        if leaderless:
            problems.append(f"groups without a leader at the end: {leaderless}")
        if not ledger.acknowledged:
            problems.append("not one write was acknowledged")
        return {
            "ok": not problems,
            "acknowledged": ledger.acknowledged,
            "per_second": round(ledger.acknowledged / max(seconds, 1e-3), 1),
            "lost": len(findings.lost),
            "duplicated": len(findings.duplicated),
            "phantom": len(findings.phantom),
            "unknown": ledger.unknown,
            "unknown_applied": findings.unknown_applied,
            "refused": ledger.refused,
            "elections": observer.elections,
            "leaderless_groups": len(leaderless),
            "longest_gap_seconds": round(load.longest_gap, 3),
            "slowest_request": attrs.asdict(load.slowest),
            "digests_equal": findings.digests_equal and not observer.differing,
            "directories": {str(node_id): self._directory(node_id) for node_id in observer.views},
            "directory_bound": {**attrs.asdict(self._watch.bound), "total": self._watch.bound.total},
            "syncs_per_node": {str(node_id): view.syncs for node_id, view in observer.views.items()},
            "seconds": round(seconds, 3),
            "p50_ms": _milliseconds(load.latencies.quantile(0.5)),
            "p99_ms": _milliseconds(load.latencies.quantile(0.99)),
            "kills": self._faults.kills,
            "stops": self._faults.stops,
            "lagged_node": self._faults.lagged,
            **({} if self._churn is None else {"churn": self._churn.result()}),
            "seed": self._options.seed,
            "problems": problems[:_PROBLEMS_SHOWN],
        }

    def _directory(self, node_id: int) -> dict[str, int]:
        """A node's directory and what made it small, over all its lives."""
        directory, view = self._watch.directories[node_id], self._observer.views[node_id]
        return {
            "bytes": directory.now.total,
            "largest_bytes": directory.largest,
            **attrs.asdict(directory.now.size),
            "log_files": directory.now.log_files,
            "snapshots_taken": view.counted("snapshots_taken"),
            "snapshots_received": view.counted("snapshots_received"),
            "restored_at_starts": view.restored,
        }

    def _member_problems(self) -> list[str]:
        """Whether every group has as many voters as it must, and no change half-way."""
        problems = []
        for group_id in range(1, self._options.groups + 1):
            row = self._observer.leader_row(group_id)
            if row is not None and (row["outgoing"] or len(row["voters"]) < self._options.replicas):
                problems.append(f"group {group_id} ended with voters {row['voters']}, and {row['outgoing']} of a change half-way")
        return problems

    def _lag_problems(self) -> list[str]:
        """A node was to lag so far that it needs snapshots: did it?"""
        options, node_id = self._options, self._faults.lagged
        if options.lag is None:
            return []
        if node_id is None:
            return [f"no node lagged by {options.lag} entries in every group: give the run more --seconds"]
        if not self._observer.views[node_id].counted("snapshots_received"):
            return [f"node {node_id} lagged by {options.lag} entries and received no snapshot"]
        return []


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)
