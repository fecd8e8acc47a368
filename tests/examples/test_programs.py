"""The programs as a stranger runs them: their command lines, and real processes that are killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import cluster
import pytest
import raft_multi_node
from ports import free_ports, is_free

EXAMPLES = Path(raft_multi_node.__file__).resolve().parent
NODE = str(EXAMPLES / "raft_multi_node.py")
CLUSTER = str(EXAMPLES / "cluster.py")

processes = pytest.mark.processes


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=50, check=False, **options)


# --- command lines --------------------------------------------------------------------------------------------------------------------


def test_the_command_of_the_documentation() -> None:
    options = raft_multi_node.parse_options(
        ["--node-id", "2", "--port", "5002", "--peer", "127.0.0.1:5001", "--peer", "127.0.0.1:5003", "--http", "8002"]
    )
    assert {node_id: str(address) for node_id, address in options.nodes.items()} == {
        1: "127.0.0.1:5001",
        2: "127.0.0.1:5002",
        3: "127.0.0.1:5003",
    }
    assert options.data_dir == Path("raft-data/node-2")
    assert str(options.http) == "127.0.0.1:8002"


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--node-id", "2", "--port", "5001", "--peer", "127.0.0.1:5002"], "contradicts the order"),
        (["--node-id", "1", "--port", "5001", "--peer", "1=127.0.0.1:5002"], "given twice"),
        (["--node-id", "1", "--port", "5001", "--peer", "nonsense"], "HOST:PORT"),
        (["--node-id", "1", "--port", "0"], "--port must be from 1"),
        (["--node-id", "1", "--port", "5001", "--http", "70000"], "--http must be from 1"),
        (["--node-id", "1", "--port", "5001", "--groups", "0"], "--groups must be from 1"),
        (["--node-id", "1", "--port", "5001", "--replicas", "2"], "--replicas must be from 1 to 1"),
        (["--node-id", "1", "--port", "5001", "--host", "0.0.0.0"], "no address of a node"),
        (["--port", "5001"], "--node-id"),
    ],
)
def test_a_contradiction_is_an_error_on_stderr_with_status_2(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        raft_multi_node.parse_options(arguments)
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--nodes", "0"], "--nodes must be from 1"),
        (["--clients", "0"], "--clients must be from 1"),
        (["--groups", "-1"], "--groups must be from 1"),
        (["--seconds", "nan"], "no number of seconds"),
        (["--seconds", "-1"], "no number of seconds"),
        (["--kill-every", "0"], "above 0"),
        (["--nodes", "2", "--kill-every", "5"], "at least 3 nodes"),
        (["--nodes", "1", "--stop-every", "5"], "at least 3 nodes"),
        (["--lag", "3999", "--snapshot-entries", "2000"], "at least twice --snapshot-entries"),
        (["--nodes", "1", "--lag", "4000", "--snapshot-entries", "2000"], "at least 3 nodes"),
        (["--churn", "--nodes", "4"], "at least 5 nodes"),
        (["--churn", "--lag", "4000", "--snapshot-entries", "2000"], "exclude each other"),
        (["--log-file-size", "1"], "max_log_file_size"),
        (["--snapshot-entries", "0"], "snapshot_entries"),
    ],
)
def test_the_launcher_refuses_what_cannot_be(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cluster.parse_arguments(arguments)
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


def test_groups_begin_on_some_of_the_nodes_in_turn() -> None:
    peers = [word for number in (2, 3, 4, 5) for word in ("--peer", f"{number}=127.0.0.1:{number}")]
    options = raft_multi_node.parse_options(["--node-id", "1", "--port", "1", *peers, "--replicas", "3"])
    begun = [options.first_members(group_id) for group_id in range(1, 6)]
    assert begun[0] == [2, 3, 4]
    assert sorted(node_id for members in begun for node_id in members) == sorted(3 * [1, 2, 3, 4, 5])
    everywhere = raft_multi_node.parse_options(["--node-id", "1", "--port", "1", *peers])
    assert sorted(everywhere.first_members(4)) == [1, 2, 3, 4, 5]


def test_with_churn_there_are_five_nodes_and_three_replicas() -> None:
    options, *_ = cluster.parse_arguments(["--churn"])
    assert (options.nodes, options.replicas) == (5, 3)
    options, *_ = cluster.parse_arguments([])
    assert (options.nodes, options.replicas) == (3, 3)


def test_free_ports_are_distinct_and_out_of_the_way_of_outgoing_connections() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(is_free(port) for port in ports)
    assert max(ports) < 32768
    with socket.create_server(("127.0.0.1", ports[0])):
        assert not is_free(ports[0])


# --- one node -------------------------------------------------------------------------------------------------------------------------


@processes
def test_an_address_in_use_is_a_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", free_ports(1)[0])) as other:
        port = other.getsockname()[1]
        ended = run(NODE, "--node-id", "1", "--port", str(port), "--data-dir", str(tmp_path / "n"))
    assert ended.returncode == raft_multi_node.EXIT_ADDRESS_IN_USE
    assert "error:" in ended.stderr
    assert "Traceback" not in ended.stderr


@processes
def test_a_foreign_directory_is_a_clear_error(tmp_path: Path) -> None:
    with node(tmp_path, 1) as first:
        first.wait_line("serves")
        second = run(NODE, "--node-id", "1", "--port", str(free_ports(1)[0]), "--data-dir", str(tmp_path / "node"))
        assert second.returncode == raft_multi_node.EXIT_FAILED
        assert "error:" in second.stderr
        assert "Traceback" not in second.stderr
    other_id = run(NODE, "--node-id", "2", "--port", str(free_ports(1)[0]), "--data-dir", str(tmp_path / "node"))
    assert other_id.returncode == raft_multi_node.EXIT_FAILED
    assert "error:" in other_id.stderr


class Running:
    """A program that runs, its stderr, and its end."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def wait_line(self, text: str) -> str:
        assert self.process.stderr is not None
        seen = []
        for line in self.process.stderr:
            seen.append(line)
            if text in line:
                return line
        raise AssertionError(f"it ended without saying {text!r}: {''.join(seen)}")


def node(tmp_path: Path, node_id: int, *more: str) -> Running:
    return Running(NODE, "--node-id", str(node_id), "--port", str(free_ports(1)[0]), "--data-dir", str(tmp_path / "node"), *more)


@processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_node_in_order(tmp_path: Path, number: signal.Signals) -> None:
    with node(tmp_path, 1) as running:
        running.wait_line("serves")
        running.process.send_signal(number)
        assert running.process.wait(20) == 0


@processes
def test_the_end_of_a_watched_stdin_ends_a_node(tmp_path: Path) -> None:
    with node(tmp_path, 1, "--watch-stdin") as running:
        running.wait_line("serves")
        assert running.process.stdin is not None
        running.process.stdin.close()
        running.process.stdin = None
        assert running.process.wait(20) == 0


# --- the cluster ----------------------------------------------------------------------------------------------------------------------


def nodes_of(data_dir: Path) -> list[int]:
    """The processes that were started on a directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(str(data_dir).encode()) for word in words) and NODE.encode() in words:
            found.append(int(entry.name))
    return found


@pytest.fixture
def no_nodes_left(tmp_path: Path) -> Iterator[None]:
    yield
    deadline = time.monotonic() + 10
    while (left := nodes_of(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)  # they are nobody's children any more: nothing tells of their end
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, f"nodes left behind: {left}"


@processes
@pytest.mark.usefixtures("no_nodes_left")
def test_a_cluster_survives_kill_9_and_a_stopped_node(tmp_path: Path) -> None:
    ended = run(
        CLUSTER,
        "--seconds",
        "6",
        "--kill-every",
        "2.5",
        "--stop-every",
        "4",
        "--groups",
        "4",
        "--clients",
        "8",
        "--data-dir",
        str(tmp_path),
        "--json",
    )
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    wanted = {"acknowledged", "per_second", "lost", "duplicated", "unknown", "elections", "leaderless_groups", "longest_gap_seconds"}
    assert wanted | {"digests_equal", "syncs_per_node", "seconds"} <= set(result)
    assert result["ok"]
    assert result["digests_equal"]
    assert (result["lost"], result["duplicated"], result["leaderless_groups"]) == (0, 0, 0)
    assert result["acknowledged"] > 50
    assert result["kills"] >= 1
    assert result["elections"] >= 4
    assert sorted(result["syncs_per_node"]) == ["1", "2", "3"]
    assert min(result["syncs_per_node"].values()) > 0
    assert "killed (kill -9)" in ended.stderr
    assert "is back" in ended.stderr


@processes
@pytest.mark.usefixtures("no_nodes_left")
def test_a_cluster_survives_members_and_leaders_and_groups_that_come_and_go(tmp_path: Path) -> None:
    ended = run(
        *(CLUSTER, "--churn", "--seconds", "12", "--kill-every", "4", "--groups", "3", "--clients", "8"),
        *("--data-dir", str(tmp_path), "--json"),
    )
    result = json.loads(ended.stdout.splitlines()[-1])
    # So short a run need not come to every kind of act, on a slow machine.
    problems = [problem for problem in result["problems"] if not problem.startswith("these acts of churn never succeeded")]
    assert problems == [], ended.stderr
    assert result["digests_equal"]
    assert (result["lost"], result["duplicated"], result["phantom"], result["leaderless_groups"]) == (0, 0, 0, 0)
    assert result["acknowledged"] > 50
    assert sum(result["churn"]["done"].values()) > 5
    assert sorted(result["directories"]) == ["1", "2", "3", "4", "5"]


@processes
@pytest.mark.usefixtures("no_nodes_left")
def test_a_cluster_survives_a_power_cut_of_all_nodes_and_continues_on_its_directory(tmp_path: Path) -> None:
    common = ["--groups", "4", "--clients", "8", "--data-dir", str(tmp_path), "--json"]
    first = run(CLUSTER, "--seconds", "4", "--kill-all-at", "1.5", *common)
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    assert (result["ok"], result["kills"]) == (True, 3)
    again = run(CLUSTER, "--seconds", "1", *common)
    assert again.returncode == 0, again.stderr


@processes
@pytest.mark.usefixtures("no_nodes_left")
def test_SN_15_a_node_that_was_away_for_long_comes_back_by_snapshot_and_is_equal(tmp_path: Path) -> None:
    small = ["--log-file-size", "65536", "--snapshot-entries", "40", "--lag", "80"]
    ended = run(CLUSTER, "--seconds", "8", "--groups", "3", "--clients", "8", *small, "--data-dir", str(tmp_path), "--json")
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert (result["ok"], result["digests_equal"], result["lost"]) == (True, True, 0)
    directories, lagged = result["directories"], str(result["lagged_node"])
    assert directories[lagged]["snapshots_received"] >= 1
    for directory in directories.values():
        assert directory["snapshots_taken"] > 3
        assert directory["largest_bytes"] < result["directory_bound"]["total"]
    assert "away for 80 entries" in ended.stderr


@processes
@pytest.mark.usefixtures("no_nodes_left")
def test_ctrl_c_ends_the_load_early_and_still_reads_back(tmp_path: Path) -> None:
    with Running(CLUSTER, "--seconds", "0", "--groups", "2", "--clients", "4", "--data-dir", str(tmp_path), "--json") as running:
        running.wait_line("acknowledged")
        running.process.send_signal(signal.SIGINT)
        output, errors = running.process.communicate(timeout=40)
        assert running.process.returncode == 0, errors
        result = json.loads(output)
        assert result["ok"]
        assert result["acknowledged"] > 0


@processes
@pytest.mark.usefixtures("no_nodes_left")
def test_sigterm_ends_everything_at_once(tmp_path: Path) -> None:
    with Running(CLUSTER, "--seconds", "0", "--data-dir", str(tmp_path), "--json") as running:
        running.wait_line("elected")
        running.process.send_signal(signal.SIGTERM)
        running.process.communicate(timeout=30)
        assert running.process.returncode == 128 + signal.SIGTERM


@processes
@pytest.mark.usefixtures("no_nodes_left")
@pytest.mark.skipif(sys.platform != "linux", reason="a stopped process can end with its parent only on Linux")
def test_a_killed_launcher_leaves_no_orphans_not_even_a_stopped_one(tmp_path: Path) -> None:
    with Running(CLUSTER, "--seconds", "0", "--stop-every", "0.5", "--data-dir", str(tmp_path), "--json") as running:
        running.wait_line("stopped (SIGSTOP)")
        assert len(nodes_of(tmp_path)) == 3
        running.process.kill()
        running.process.wait(10)


@processes
def test_a_directory_of_another_cluster_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text(json.dumps({"replicas": 2, "ports": [1, 2, 3, 4]}))
    ended = run(CLUSTER, "--seconds", "1", "--data-dir", str(tmp_path), "--json")
    assert ended.returncode == 1
    assert "holds a cluster of 2 nodes" in ended.stderr
    assert "Traceback" not in ended.stderr
