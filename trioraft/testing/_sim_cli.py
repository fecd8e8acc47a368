"""The program around the simulator: many seeds on all cores, or one seed with its whole trace."""

from __future__ import annotations

import argparse
import contextlib
import gc
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import attrs

from ._planted import PLANTS, planted
from ._schedule import Schedule
from ._simulator import Simulator
from ._statistics import Statistics, describe
from ._trace import Trace
from ._violation import PropertyViolation

PROGRAM = "python -m trioraft.testing.sim"
_CHUNK = 20
"""Seeds that one worker takes at a time."""


class Job(NamedTuple):
    """What one worker does at a time."""

    seeds: range
    plant: str | None
    operations: int
    faults: int
    duration: int
    keep_going: bool


@attrs.frozen
class Outcome:
    """One seed's end."""

    statistics: Statistics | None
    violation: PropertyViolation | None
    wall: float


def run_seed(seed: int, *, operations: int = 210, faults: int = 10, duration: int = 20_000, trace: Trace | None = None) -> Statistics:
    """Run one seed.

    Raises:
        PropertyViolation: a property does not hold; the exception carries the seed and the last events.
    """
    return Simulator(Schedule.draw(seed, operations=operations, faults=faults, duration=duration), trace=trace).run()


def _run_chunk(job: Job) -> list[Outcome]:
    """Run some seeds, up to and including the first that fails unless told to keep going."""
    seeds, plant, operations, faults, duration, keep_going = job
    outcomes: list[Outcome] = []
    # A run leaves one big knot of cycles behind: untie it once a chunk instead of searching for it all the time.
    gc.disable()
    try:
        with planted(plant) if plant else contextlib.nullcontext():
            for seed in seeds:
                begin = time.perf_counter()
                try:
                    done, violation = run_seed(seed, operations=operations, faults=faults, duration=duration), None
                except PropertyViolation as error:
                    done, violation = None, error
                outcomes.append(Outcome(done, violation, time.perf_counter() - begin))
                if violation is not None and not keep_going:
                    break
    finally:
        gc.enable()
        gc.collect()
    return outcomes


def _run_jobs(jobs: Sequence[Job], workers: int) -> Iterator[list[Outcome]]:
    if workers == 1:
        yield from map(_run_chunk, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_run_chunk, jobs)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Simulate clusters of the Raft core and check every property.")
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds to run (default: 200)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--seed", type=int, help="run this one seed only")
    parser.add_argument("--trace", action="store_true", help="with --seed: print every event")
    parser.add_argument("--digest", action="store_true", help="with --seed: print a fingerprint of the whole trace")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="break the core on purpose, to see it found")
    parser.add_argument("--operations", type=int, default=210, help="least client operations of a seed (default: 210)")
    parser.add_argument("--faults", type=int, default=10, help="least faults of a seed (default: 10)")
    parser.add_argument("--duration", type=int, default=20_000, help="simulated milliseconds of faults and load (default: 20000)")
    parser.add_argument("--keep-going", action="store_true", help="run all seeds and list those that fail")
    parser.add_argument("--jobs", type=int, default=0, help="worker processes (default: one per core)")
    return parser.parse_args(arguments)


def replay_command(options: argparse.Namespace, seed: int) -> str:
    """Write the command that shows a seed's failure again."""
    command = f"{PROGRAM} --seed {seed} --trace"
    for name, default in (("operations", 210), ("faults", 10), ("duration", 20_000), ("plant", None)):
        value = getattr(options, name)
        if value != default:
            command += f" --{name} {value}"
    return command


def _report_violation(options: argparse.Namespace, violation: PropertyViolation, *, with_trace: bool) -> None:
    if with_trace:
        print("\n".join(violation.trace))
    print(f"\nVIOLATED {violation.name}: {violation.detail}")
    print(f"seed {violation.seed}; replay with:\n  {replay_command(options, violation.seed or 0)}")


def _run_one(options: argparse.Namespace) -> int:
    trace = Trace(keep=None)
    with planted(options.plant) if options.plant else contextlib.nullcontext():
        try:
            done = run_seed(options.seed, operations=options.operations, faults=options.faults, duration=options.duration, trace=trace)
        except PropertyViolation as violation:
            if options.digest:
                print(f"digest {trace.digest()}")
            _report_violation(options, violation, with_trace=options.trace)
            return 1
    if options.trace:
        print("\n".join(trace))
    if options.digest:
        print(f"digest {trace.digest()}")
    print(describe([done]))
    return 0


def _run_many(options: argparse.Namespace) -> int:
    begin = time.perf_counter()
    workers = options.jobs or os.cpu_count() or 1
    seeds = range(options.first, options.first + options.seeds)
    chunks = [seeds[at : at + _CHUNK] for at in range(0, len(seeds), _CHUNK)]
    jobs = [Job(chunk, options.plant, options.operations, options.faults, options.duration, options.keep_going) for chunk in chunks]
    runs: list[Statistics] = []
    walls: list[float] = []
    failed: list[PropertyViolation] = []
    for outcomes in _run_jobs(jobs, min(workers, len(jobs)) or 1):
        for outcome in outcomes:
            walls.append(outcome.wall)
            if outcome.violation is not None:
                failed.append(outcome.violation)
                print(file=sys.stderr)
                _report_violation(options, outcome.violation, with_trace=not options.keep_going)
                if not options.keep_going:
                    return 1
            if outcome.statistics is not None:
                runs.append(outcome.statistics)
        print(f"\r{len(runs)}/{len(seeds)} seeds", end="", file=sys.stderr, flush=True)
    if failed:
        print(f"{len(failed)} of {len(seeds)} seeds violate a property: {sorted(violation.seed or 0 for violation in failed)}")
        return 1
    spent = time.perf_counter() - begin
    print(file=sys.stderr)
    print(describe(runs))
    wall = statistics.median(walls) * 1000
    print(f"{len(runs)} seeds without a violation in {spent:.1f} s ({len(runs) / spent:.1f} a second, median {wall:.0f} ms each)")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status: 1 when a property is violated."""
    options = _parse(arguments)
    if options.seed is not None:
        return _run_one(options)
    if options.seeds < 1:
        raise SystemExit("--seeds must be at least 1")
    return _run_many(options)
