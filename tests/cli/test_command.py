"""The command itself: arguments, what it prints, exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.cli.kit import G1, G2, G3, G4, Storage, begin, live, made_of, make_node, make_rich_directory, run, state_of
from tests.storage.kit import entries, hold
from trioraft._types import EntryId
from trioraft.core import Configuration, Entry, EntryKind, encode_configuration
from trioraft.storage import EVERY_NUMBER, FileStorage, MultiRaftStorage, StorageConfig, WalStorage
from trioraft.testing._storage_parts import called, joining
from trioraft.wire import seal


def test_inspect_shows_a_directory(tmp_path: Path) -> None:
    rich = make_rich_directory(tmp_path / "node")
    before = state_of(rich)
    ran = run("inspect", rich)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"{rich}: node 1 of cluster 'demo', shared log\n")
    lines = ran.out.splitlines()
    group = next(line.split() for line in lines if line.startswith("  g1 "))
    assert group[1:8] == ["n1", "7", "-", "20@2", "41@7", "30", "20@2"]
    assert lines[-3].strip() == "tombstones"
    assert lines[-1].split(maxsplit=1) == ["g4", "up to 9@2"]
    assert state_of(rich) == before


@pytest.mark.parametrize("kind", [WalStorage, FileStorage])
def test_inspect_shows_who_joined_and_who_may_come_back(tmp_path: Path, kind: Storage) -> None:
    path = tmp_path / "node"
    present = Configuration({1, 2, 3}, replicas={1: EntryId(2, 9)}, index=4)

    async def life(storage: MultiRaftStorage) -> None:
        group = await begin(storage, 1, G1)
        await group.write_and_wait(me=called(2, 7))
        await storage.remove_group(G1)
        await storage.create_group(joining(G1, EntryId(2, 7)))
        await begin(storage, 1, G2)
        await storage.remove_group(G2)
        await storage.remove_group(G3, EVERY_NUMBER)
        await storage.create_group(joining(G4))
        change = Entry(2, 2, EntryKind.CONFIGURATION, encode_configuration(present))
        seal(G4, change)
        await hold(storage, G4).write_and_wait(*entries(G4, 1, 2, 2), change, me=called(2, 9))

    live(kind(StorageConfig(base_dir=str(path))), 1, life)
    shown = run("inspect", path).out
    assert "n1/7@2 awaits a number" in shown
    assert "n1/9@2  " in shown
    assert [line.split(maxsplit=1)[1] for line in shown.splitlines()[-2:]] == ["that of a bootstrap member", "all"]
    documents = {each["group"]: each for each in run("inspect", path, "--json").document["groups"]}
    assert [documents[number]["barred"] for number in (1, 2, 3)] == [None, {"index": 0, "term": 0}, "all"]
    assert [documents[number]["joined"] for number in (1, 2, 4)] == [True, None, True]
    assert [documents[number]["awaits_number"] for number in (1, 2, 4)] == [True, None, False]
    assert [(each["index"], each["configuration_index"]) for each in documents[4]["configurations"]] == [(0, 0), (2, 4)]
    assert "to join the group" in (one := run("inspect", path, "--group", "4").out)
    assert [line.split()[:3] for line in one.splitlines() if "(1 2 3)" in line] == [["2", "4", "(1"]]
    assert "never come again: all" in run("inspect", path, "--group", "3").out
    assert run("fsck", path).code == 0


def test_inspect_shows_one_group(tmp_path: Path) -> None:
    rich = make_rich_directory(tmp_path / "node")
    ran = run("inspect", rich, "--group", "1")
    assert ran.code == 0
    assert "log begins behind  20@2" in ran.out
    assert "g2" not in ran.out
    ran = run("inspect", rich, "--group", "9")
    assert (ran.code, ran.out) == (2, "")
    assert "there is no group 9" in ran.err


@pytest.mark.parametrize("kind", [WalStorage, FileStorage])
def test_inspect_as_json(tmp_path: Path, kind: Storage) -> None:
    directory = make_node(
        tmp_path / "node", 2, made_of((1, 3), (4, 2)), vote=2, commit=4, snapshot=EntryId(1, 2), start=EntryId(1, 2), kind=kind
    )
    document = run("inspect", directory, "--json").document
    assert document["version"] == 1
    assert document["storage"] == ("wal" if kind is WalStorage else "files")
    assert document["node"]["node_id"] == 2
    assert document["in_use_by"] is None
    assert all(each["bytes"] == Path(each["path"]).stat().st_size for each in document["log_files"])
    assert len(document["log_files"]) == 1
    (group,) = document["groups"]
    snapshot = directory / "group-1/snapshots/2-1.snap"
    three = {str(node_id): {"index": 0, "term": 0} for node_id in (1, 2, 3)}
    members = {"configuration_index": 0, "voters": [1, 2, 3], "outgoing": [], "learners": [], "learners_next": [], "replicas": three}
    assert group == {
        "group": 1,
        "incarnation": 1,
        "state": "living",
        "failure": None,
        "member": {"node_id": 2, "replica": {"index": 0, "term": 0}},
        "joined": False,
        "awaits_number": False,
        "barred": None,
        "term": 4,
        "vote": 2,
        "start": {"index": 2, "term": 1},
        "last": {"index": 5, "term": 4},
        "terms": [{"first": 3, "term": 1}, {"first": 4, "term": 4}],
        "commit": 4,
        "configurations": [{"index": 0, **members}],
        "snapshot": {"index": 2, "term": 1},
        "snapshots": [{"index": 2, "term": 1, "path": str(snapshot), "bytes": snapshot.stat().st_size}],
        "at_rest": [],
        "log_bytes": group["log_bytes"],
    }
    assert (document["findings"], document["notes"]) == ([], [])


def test_a_damaged_group_is_shown_as_refused(tmp_path: Path) -> None:
    directory = make_node(tmp_path / "node", 1, made_of((1, 3)))
    log = directory / "wal/00000001.wal"
    data = bytearray(log.read_bytes())
    data[1100] ^= 1
    log.write_bytes(data)
    ran = run("inspect", directory)
    assert ran.code == 1
    assert re.search(r"^  g1 +REFUSED", ran.out, re.MULTILINE)
    document = run("inspect", directory, "--json").document
    assert document["groups"][0]["state"] == "damaged"
    assert document["groups"][0]["failure"].startswith(f"{log}: damaged at offset 1024: ")
    assert [(each["path"], each["offset"]) for each in document["findings"]] == [(str(log), 1024)]


@pytest.mark.parametrize("command", ["inspect", "fsck"])
def test_what_is_no_directory_of_a_node_is_refused_in_one_sentence(tmp_path: Path, command: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    for name, text in (("empty", "not a node's directory"), ("file", "not a directory"), ("nowhere", "there is no such directory")):
        ran = run(command, tmp_path / name)
        assert ran.code == 2
        assert ran.err.startswith(f"trioraft: {tmp_path / name}: {text}")
        assert ran.err.count("\n") == 1
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("kind", [WalStorage, FileStorage])
def test_a_format_of_the_future_is_refused_with_both_numbers(tmp_path: Path, kind: Storage) -> None:
    directory = make_node(tmp_path / "node", 1, made_of((1, 3)), kind=kind)
    path = directory / "node.toml"
    path.write_text(path.read_text().replace("format = 1", "format = 7"))
    before = state_of(directory)
    for command in ("inspect", "fsck"):
        ran = run(command, directory)
        assert ran.code == 2
        assert "format 7, this one knows 1" in ran.err
        assert str(path) in ran.err
    assert state_of(directory) == before


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    directory = make_node(tmp_path / "node", 1, made_of((1, 3)))
    log = directory / "wal/00000001.wal"
    log.unlink()
    log.mkdir()
    ran = run("fsck", directory)
    assert ran.code == 2
    assert ran.err == f"trioraft: {log}: cannot be read: Is a directory\n"


def test_wrong_usage() -> None:
    assert run().code == 2
    assert run("fsck").code == 2
    assert run("inspect", "a", "b").code == 2
    assert run("--help").code == 0


def test_fsck_as_json(tmp_path: Path) -> None:
    directory = make_node(tmp_path / "node", 1, made_of((1, 3)))
    document = run("fsck", directory, "--json").document
    assert document["ok"] is True
    assert document["unreadable"] == []
    assert "cluster" not in document
    (found,) = document["directories"]
    assert (found["node_id"], found["groups"], found["entries"], found["findings"]) == (1, 1, 3, [])
    # With one that cannot be read beside it, the other is checked all the same.
    ran = run("fsck", directory, tmp_path / "nowhere", "--json")
    assert ran.code == 2
    assert ran.document["ok"] is False
    assert len(ran.document["directories"]) == len(ran.document["unreadable"]) == 1


async def test_a_directory_in_use_is_said_so(tmp_path: Path) -> None:
    storage = WalStorage(StorageConfig(base_dir=str(tmp_path / "node")))
    await storage.open(1, "demo")
    for command in ("inspect", "fsck"):
        # In a thread, because the command has a loop of its own.
        ran = await trio.to_thread.run_sync(run, command, tmp_path / "node")
        assert ran.code == 0
        assert f"IN USE by process {os.getpid()}" in ran.out
    await storage.aclose()
    assert "IN USE" not in (await trio.to_thread.run_sync(run, "fsck", tmp_path / "node")).out


@pytest.mark.processes
def test_it_runs_as_a_module_and_its_output_may_be_cut_off(tmp_path: Path) -> None:
    directory = make_node(tmp_path / "node", 1, made_of((1, 3)))
    command = [sys.executable, "-m", "trioraft", "fsck", str(directory), "--json"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout)["ok"] is True
    assert done.stderr == b""
    reader, writer = os.pipe()
    os.close(reader)
    cut_off = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(writer)
    assert (cut_off.returncode, cut_off.stderr) == (141, b"")


def test_the_documentation_names_every_field(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent.parent / "docs/tools.md").read_text()
    rich = make_rich_directory(tmp_path / "node")
    other = make_node(tmp_path / "other", 2, made_of((1, 3)))
    documents = [run("inspect", rich, "--json").document, run("fsck", rich, other, "--json").document]

    def names(value: object) -> set[str]:
        if isinstance(value, dict):
            return {*(name for name in value if not name.isdigit()), *(each for inner in value.values() for each in names(inner))}
        return {each for inner in value for each in names(inner)} if isinstance(value, list) else set()

    missing = sorted(name for name in set.union(*map(names, documents)) if f"`{name}`" not in text)
    assert missing == []
