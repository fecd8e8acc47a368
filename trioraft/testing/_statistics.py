"""What simulations have done: one record each, and a line about many."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

import attrs

from .._types import Millis


@attrs.define
class Statistics:
    """What one run did."""

    seed: int
    faults: int = 0
    operations: int = 0
    acknowledged: int = 0
    elections: int = 0
    simulated_ms: Millis = 0
    messages: int = 0
    lives: int = 0
    changes: int = 0
    """Changes of membership that a leader has taken."""
    transfers: int = 0
    """Leaders that have handed over."""
    reads: int = 0
    """Reads answered."""
    leases: int = 0
    """Of these, by a lease."""
    loads: int = 0
    """Times that entries were read back from a disk."""
    snapshots: int = 0
    """Snapshots taken."""
    streams: int = 0
    """Snapshots sent, or at least begun to be."""
    installs: int = 0
    """Snapshots that took the place of a log."""
    restarts: int = 0
    """Starts of a replica that began with a snapshot."""


def describe(runs: Sequence[Statistics]) -> str:
    """Write down the medians of many runs, or the means of what not all of them have, and the least that one has done."""

    def median(values: Iterable[float]) -> float:
        return statistics.median(values)

    mean = statistics.fmean
    return (
        f"medians: faults {median(r.faults for r in runs):g}, client operations {median(r.operations for r in runs):g} "
        f"(acknowledged {median(r.acknowledged for r in runs):g}), elections {median(r.elections for r in runs):g}, "
        f"snapshots {median(r.snapshots for r in runs):g} (sent {median(r.streams for r in runs):g}, "
        f"installed {median(r.installs for r in runs):g}, restarts from one {median(r.restarts for r in runs):g}), "
        f"loads {median(r.loads for r in runs):g}, members changed {mean(r.changes for r in runs):.1f}, "
        f"leaders handed over {mean(r.transfers for r in runs):.1f}, reads {median(r.reads for r in runs):g} "
        f"(by a lease {mean(r.leases for r in runs):.1f}), "
        f"simulated seconds {median(r.simulated_ms for r in runs) / 1000:.1f}, messages {median(r.messages for r in runs):g}; "
        f"least: faults {min(r.faults for r in runs)}, operations {min(r.operations for r in runs)}, "
        f"seconds {min(r.simulated_ms for r in runs) / 1000:.1f}"
    )
