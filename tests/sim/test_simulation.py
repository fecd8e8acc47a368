"""Seeds run clean, do enough, and replay exactly."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

import pytest

from trioraft.testing import FAULT_WEIGHTS, Schedule, Simulator, Trace, run_seed
from trioraft.testing._faults import FAULTS
from trioraft.testing._sim_cli import main


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_seeds_hold_every_property_and_do_enough(first: int) -> None:
    for seed in range(first, first + 10):
        done = run_seed(seed)
        assert done.faults >= 10
        assert done.operations >= 200
        assert done.simulated_ms >= 20_000
        assert done.elections >= 1
        assert done.acknowledged > 0


def test_most_seeds_have_logs_that_are_cut_followers_that_lag_and_clients_that_read() -> None:
    runs = [run_seed(seed) for seed in range(30)]
    assert statistics.median(run.snapshots for run in runs) >= 10
    for what in ("streams", "installs", "restarts", "loads"):
        assert sum(getattr(run, what) >= 2 for run in runs) > len(runs) // 2, what
    assert sum(run.changes >= 2 for run in runs) >= len(runs) // 10
    assert statistics.median(run.reads for run in runs) >= 20
    for what in ("transfers", "leases"):
        assert sum(getattr(run, what) >= 1 for run in runs) >= len(runs) // 10, what


def _digest(hash_seed: str, seed: int) -> str:
    command = [sys.executable, "-m", "trioraft.testing.sim", "--seed", str(seed), "--digest"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=True)
    return next(line for line in done.stdout.splitlines() if line.startswith("digest "))


@pytest.mark.processes
@pytest.mark.parametrize("seed", [2, 11])
def test_a_seed_gives_the_same_trace_whatever_the_hash_seed_is(seed: int) -> None:
    assert _digest("1", seed) == _digest("4711", seed)


def test_equal_seeds_give_equal_traces_and_others_other_ones() -> None:
    def digest(seed: int) -> str:
        trace = Trace(keep=None)
        run_seed(seed, operations=20, trace=trace)
        return trace.digest()

    assert digest(3) == digest(3)
    assert digest(3) != digest(4)


def test_every_fault_has_a_weight_and_a_function_and_is_drawn() -> None:
    assert FAULT_WEIGHTS.keys() == FAULTS.keys()
    drawn = {fault.kind for seed in range(60) for fault in Schedule.draw(seed).faults}
    assert drawn == FAULTS.keys()


@pytest.mark.parametrize("kind", sorted(FAULTS))
def test_each_fault_by_itself_is_survived(kind: str) -> None:
    """With nothing else going on, and each more than once."""
    schedule = Schedule.draw(7, operations=40, faults=8, duration=12_000)
    faults = tuple(fault._replace(kind=kind) for fault in schedule.faults)
    Simulator(Schedule.calm(7, duration=12_000, faults=faults, loads=schedule.loads, has_former_lives=True)).run()


def test_the_command_runs_many_seeds_and_prints_medians(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "3", "--jobs", "1", "--operations", "20"]) == 0
    printed = capsys.readouterr().out
    assert "medians: faults" in printed
    assert "installed" in printed
    assert "3 seeds without a violation" in printed


def test_the_command_prints_the_trace_of_a_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "1", "--trace", "--operations", "20"]) == 0
    printed = capsys.readouterr().out
    assert " AppendEntries " in printed
    assert " FAULT " in printed


def test_the_command_fails_with_a_seed_that_replays(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--operations", "20", "--faults", "25", "--plant", "entry-forgotten-at-restart"]
    assert main(["--seeds", "20", "--jobs", "1", *arguments]) == 1
    printed = capsys.readouterr().out
    command = printed.splitlines()[-1].split()
    assert command[:3] == ["python", "-m", "trioraft.testing.sim"]
    seed = command[command.index("--seed") + 1]
    assert main(command[3:]) == 1
    again = capsys.readouterr().out
    violated = [line for line in printed.splitlines() if line.startswith("VIOLATED")]
    assert violated == [line for line in again.splitlines() if line.startswith("VIOLATED")]
    assert f"--seed {seed} " in again


def test_the_command_lists_all_failing_seeds_when_told_to_keep_going(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--seeds", "3", "--jobs", "1", "--plant", "ack-before-sync", "--keep-going"]
    assert main(arguments) == 1
    assert "3 of 3 seeds violate a property: [0, 1, 2]" in capsys.readouterr().out


def test_the_command_refuses_to_run_nothing() -> None:
    with pytest.raises(SystemExit, match="--seeds"):
        main(["--seeds", "0"])
