"""The benchmarks: their machines, their arithmetic, and a tiny run of each scenario."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import bench
import bench_groups
import bench_years
import pytest
from bench_child import Child
from bench_load import SteadyLoad
from bench_machines import RECORD_BYTES, CountingMachine, GeneratedMachine, RingMachine
from bench_probe import Gap
from log_limits import LogLimits

from trioraft import ApplyContext, BusyError, StateMachine
from trioraft._types import GroupKey
from trioraft.core import Entry, EntryKind
from trioraft.wire import decode_value, encode_value, seal

BENCH = str(Path(bench.__file__).resolve())


def apply(machine: StateMachine, index: int, command: bytes) -> Any:
    return machine.apply(command, ApplyContext(group_id=1, index=index, term=1, node_id=1))


def through_bytes(records: Iterable[Any]) -> Iterator[Any]:
    """What the records are when they come back from a file."""
    return (decode_value(encode_value(record)) for record in records)


# --- machines -------------------------------------------------------------------------------------------------------------------------


def test_a_restored_counting_machine_goes_on_counting() -> None:
    machine, restored = CountingMachine(), CountingMachine()
    apply(machine, 1, b"x")
    apply(machine, 2, b"x")
    restored.restore(through_bytes(machine.snapshot()))
    assert apply(restored, 3, b"x") == 3


@pytest.mark.parametrize("commands", [0, 3, 1000, 2500])
def test_a_restored_ring_is_the_same_and_frozen(commands: int) -> None:
    machine, restored = RingMachine(1200), RingMachine(1)
    for index in range(commands):
        apply(machine, index, b"%d" % index)
    records = machine.snapshot()
    before = (machine.ring.slots.copy(), machine.ring.applied, machine.ring.checksum)
    apply(machine, commands, b"later")
    restored.restore(through_bytes(records))
    assert (restored.ring.slots, restored.ring.applied, restored.ring.checksum) == before
    apply(restored, commands, b"later")
    assert restored.ring == machine.ring


def test_a_ring_does_not_grow() -> None:
    machine = RingMachine(4)
    for index in range(10):
        apply(machine, index, b"%d" % index)
    assert sorted(machine.ring.slots) == [b"6", b"7", b"8", b"9"]


def test_a_generated_state_is_as_large_as_it_says_and_checked_when_it_comes_back() -> None:
    machine, restored = GeneratedMachine(40), GeneratedMachine(0)
    apply(machine, 1, b"x")
    records = list(through_bytes(machine.snapshot()))
    assert sum(map(len, records[1:])) == 40 * RECORD_BYTES
    assert len(set(records[1:])) == 40
    restored.restore(iter(records))
    assert (restored.records, restored.applied) == (40, 1)
    swapped = [records[0], records[2], records[1], *records[3:]]
    for damaged in (swapped, records[:-1], [*records[:-1], bytes(RECORD_BYTES)]):
        with pytest.raises(ValueError, match="came back"):
            GeneratedMachine(0).restore(iter(damaged))


# --- arithmetic -----------------------------------------------------------------------------------------------------------------------


def test_millions_of_proposals_run_with_the_settings_of_the_library_and_fewer_with_smaller_ones() -> None:
    assert bench_years.limits_for(5_000_000) == LogLimits()
    small = bench_years.limits_for(200_000)
    assert (small.snapshot_entries, small.log_file_size) == (20_000, 3_520_000)


def test_a_proposal_of_the_years_takes_no_more_than_the_bound_says() -> None:
    payload = encode_value(bytes(bench_years.COMMAND_BYTES))
    assert len(seal(GroupKey(1), Entry(1 << 40, 1 << 20, EntryKind.COMMAND, payload))) <= bench_years.ENTRY_BYTES_MAX
    assert len(payload) <= bench_years.SLOT_BYTES_MAX


def test_what_happens_near_a_roll_over_is_told_apart() -> None:
    noticed = [(9.0, 0.1), (9.9, 0.2), (10.5, 0.3), (11.4, 0.5), (11.6, 0.4), (20.0, 12.0)]
    assert bench_groups._split(noticed, [10.0]) == ([0.2, 0.3, 0.5, 12.0], [0.1, 0.4])
    assert bench_groups._split(noticed, []) == ([], [0.1, 0.2, 0.3, 0.5, 0.4, 12.0])


def test_a_gap_is_the_longest_time_without_a_count_also_while_it_lasts() -> None:
    counts = [0]
    gap = Gap(lambda: counts[-1])
    start = gap._since
    for moment, count in ((1.0, 1), (1.5, 2), (4.0, 2), (4.5, 3)):
        counts.append(count)
        gap.look(start + moment)
    assert gap.take() == pytest.approx(3.0)
    assert gap.take() == 0.0


class Group:
    """Refuses every other proposal."""

    def __init__(self) -> None:
        self.asked = 0

    async def propose(self, command: bytes) -> None:
        self.asked += 1
        if self.asked % 2:
            raise BusyError("full")


class Manager:
    def __init__(self) -> None:
        self.group = Group()

    def get_group(self, group_id: int) -> Group:
        return self.group


async def test_a_steady_load_counts_what_was_acknowledged_and_repeats_what_was_refused(autojump_clock: Any) -> None:
    manager: Any = Manager()
    load = SteadyLoad(manager, {"groups": [1], "clients": 3, "bytes": 8, "count": 10, "pause": 0})
    await load.run()
    progress = load.progress()
    assert (progress["acknowledged"], progress["is_over"]) == (10, True)
    assert manager.group.asked == 10 + progress["errors"]


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--scenario", "decades"], "invalid choice"),
        (["--proposals", "1"], "--proposals must be from"),
        (["--groups", "1"], "--groups must be from"),
        (["--bytes", "1"], "--bytes must be from"),
        (["--seconds", "0"], "--seconds must be from"),
    ],
)
def test_the_benchmark_refuses_what_cannot_be(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        bench.parse_arguments(arguments)
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


# --- tiny runs ------------------------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, BENCH, *arguments, "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


@pytest.mark.processes
def test_a_process_tells_what_it_has_in_memory() -> None:
    with Child("bench_floor.py", "--file", "/dev/null") as child:
        child.answer()
        child.forget_peak()
        memory = child.memory()
        assert 1_000_000 < memory.now <= memory.peak
        child.process.kill()


@pytest.mark.processes
@pytest.mark.slow
def test_a_tiny_run_of_years(tmp_path: Path) -> None:
    result = run("--scenario", "years", "--proposals", "6000", "--data-dir", str(tmp_path))
    assert result["load"]["errors"] == 0
    assert result["catch_up"]["snapshots_received"] >= 1
    assert result["catch_up"]["states_equal"]
    assert result["restart"]["states_equal"]
    assert min(memory["peak"] for memory in result["memory_mb"].values()) > 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.processes
@pytest.mark.slow
def test_a_tiny_run_of_groups(tmp_path: Path) -> None:
    result = run("--scenario", "groups", "--groups", "50", "--data-dir", str(tmp_path))
    assert (result["roll_overs"] >= bench_groups.ROLL_OVERS, result["errors"]) == (True, 0)
    assert result["longest_proposal_ms"]["at_roll_overs"] > 0
    assert result["log_files"] < bench_groups.ROLL_OVERS
    assert result["restart"]["first_proposal_seconds"] > result["restart"]["serving_seconds"] > 0


@pytest.mark.processes
@pytest.mark.slow
def test_a_tiny_run_of_snapshot(tmp_path: Path) -> None:
    result = run("--scenario", "snapshot", "--bytes", str(4 << 20), "--data-dir", str(tmp_path))
    assert result["records"] == 64
    for phase in (result["taken"], result["streamed"], result["restored"]):
        assert phase["seconds"] > 0
        assert phase["mb_per_second"] > 0
    assert set(result["targets"].values()) <= {True, False}
