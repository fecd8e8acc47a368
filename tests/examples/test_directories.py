"""A directory is measured while files come and go, and one that grows beyond its bound fails the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster_nodes import ClusterNodes
from directory import measure_directory
from directory_watch import DirectoryWatch
from kv import KeyValueMachine
from ledger import ENTRY_BYTES_MAX, ROW_BYTES_MAX, Ledger
from log_limits import DirectorySize, LogLimits
from node_process import NodeProcess
from observer import Observer

from trioraft import ApplyContext
from trioraft._types import GroupKey
from trioraft.core import Entry, EntryKind
from trioraft.wire import encode_value, seal

LIMITS = LogLimits(log_file_size=1 << 20, snapshot_entries=2000)


def write(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))


def test_each_kind_of_file_is_counted_where_it_belongs(tmp_path: Path) -> None:
    write(tmp_path / "node.toml", 100)
    write(tmp_path / "wal" / "00000001.wal", 1)
    write(tmp_path / "wal" / "00000002.wal", 2)
    write(tmp_path / "group-1" / "logs" / "5.log", 4)
    write(tmp_path / "group-2" / "snapshots" / "7-1.snap", 8)
    (tmp_path / "group-2" / "snapshots" / "gone").symlink_to(tmp_path / "nowhere")
    use = measure_directory(tmp_path)
    assert (use.size, use.log_files, use.total) == (DirectorySize(log=3, at_rest=4, snapshots=8), 2, 15)


def test_a_directory_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert measure_directory(tmp_path / "node-1").total == 0


def test_small_settings_make_a_small_bound() -> None:
    bound = LIMITS.bound(groups=8, entry_bytes=ENTRY_BYTES_MAX, state_bytes=0)
    assert bound.log == 5 << 20
    assert bound.at_rest < 8 << 20
    assert bound.snapshots < 1 << 20
    assert LIMITS.group_config().keep_entries == 200
    assert LIMITS.storage_config(Path("x")).max_log_file_size == 1 << 20


def test_a_write_of_the_load_takes_no_more_than_the_bound_says() -> None:
    write = Ledger("0123abcd").open(group_id=9999, client=999)
    write.key = "0123abcd-c999-10000000"
    payload = encode_value(["put", write.key, write.value.encode()])
    assert len(seal(GroupKey(9999), Entry(1 << 40, 1 << 20, EntryKind.COMMAND, payload))) <= ENTRY_BYTES_MAX
    empty, machine = KeyValueMachine(), KeyValueMachine()
    machine.apply(["put", write.key, write.value.encode()], ApplyContext(9999, 1 << 40, 1 << 20, 1))
    sizes = [sum(len(encode_value(record)) for record in each.snapshot()) for each in (empty, machine)]
    assert sizes[1] - sizes[0] <= ROW_BYTES_MAX


@pytest.fixture
def nodes(tmp_path: Path) -> ClusterNodes:
    nodes = ClusterNodes(1, 1, tmp_path, LIMITS, lambda _: None)
    nodes.nodes[1] = NodeProcess(1, 1, 1, tmp_path, ())
    return nodes


async def test_a_directory_beyond_its_bound_is_a_problem_told_once(nodes: ClusterNodes) -> None:
    told: list[str] = []
    watch = DirectoryWatch(nodes, Observer(nodes, told.append), LIMITS, 1, told.append)
    wal = nodes.nodes[1].directory / "wal"
    for number in range(5):
        write(wal / f"{number}.wal", 1 << 20)
    await watch.look()
    assert (watch.problems, watch.directories[1].log_files_most) == ([], 5)
    write(wal / "5.wal", 1)
    for _ in range(2):
        await watch.look()
    assert len(watch.problems) == 1
    assert "node 1" in watch.problems[0]
    assert "shared log: 5242881 bytes" in watch.problems[0]
    (wal / "4.wal").unlink()
    await watch.look()
    assert (watch.directories[1].largest, watch.directories[1].now.total) == (5242881, 4194305)
    assert watch.problems == told


async def test_the_bound_of_the_snapshots_follows_the_state(nodes: ClusterNodes) -> None:
    observer = Observer(nodes, lambda _: None)
    watch = DirectoryWatch(nodes, observer, LIMITS, 1, lambda _: None)
    before = watch.bound
    observer.views[1].groups = {1: {"keys": 1000}}
    assert watch.bound.snapshots - before.snapshots == 3 * 1000 * ROW_BYTES_MAX
    assert (watch.bound.log, watch.bound.at_rest) == (before.log, before.at_rest)
