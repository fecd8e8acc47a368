"""One directory: everything that is not as it was written is found, and nothing is touched."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.cli.kit import G1, THREE, Storage, begin, files_of, live, made_of, make_node, make_rich_directory, run, state_of, take_snapshot
from tests.storage.kit import entries
from trioraft._errors import StorageError
from trioraft._types import NOTHING, EntryId
from trioraft.core import Compaction, Configuration, HardState
from trioraft.storage import DirectoryReport, FileStorage, MultiRaftStorage, StorageConfig, WalStorage, inspect_directory

KINDS = [WalStorage, FileStorage]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def rich(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_rich_directory(tmp_path / "node", request.param)


def check(directory: Path) -> DirectoryReport:
    async def inspect() -> DirectoryReport:
        return await inspect_directory(str(directory), deep=True)

    return trio.run(inspect)


def found_in(directory: Path) -> list[str]:
    """The findings, with paths as seen from the directory."""
    return [str(each).removeprefix(f"{directory}/") for each in check(directory).findings]


def damage(path: Path, offset: int, change: int = 0xFF) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= change
    path.write_bytes(data)


# --- a directory that is well ----------------------------------------------------------------------------------------------------------


def test_a_directory_that_is_well(rich: Path) -> None:
    before = state_of(rich)
    ran = run("fsck", rich)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith("no findings\n")
    assert state_of(rich) == before


def test_all_that_a_storage_leaves_is_gone_through(tmp_path: Path) -> None:
    rich = make_rich_directory(tmp_path / "node")
    names = {path.suffix for path in files_of(rich)}
    assert names == {".toml", ".wal", ".log", ".snap"}, "the directory of these tests lacks something"
    report = check(rich)
    size = sum(path.stat().st_size for path in files_of(rich))
    assert report.bytes_read >= size
    assert sum(len(group.digests) for group in report.groups.values()) == 41 - 20 + 2 * 39 + (39 - 39)
    assert all(0 not in group.digests for group in report.groups.values())


def test_a_read_only_directory_is_checked(rich: Path) -> None:
    paths = [rich, *rich.rglob("*")]
    for path in paths:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        assert run("fsck", rich).code == 0
        assert run("inspect", rich).code == 0
    finally:
        for path in paths:
            path.chmod(0o700)


def test_no_file_is_opened_for_writing(rich: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[tuple[str, int]] = []
    real_open = os.open

    def open_noting(path: Any, flags: int, *others: Any, **options: Any) -> int:
        modes.append((str(path), flags))
        return real_open(path, flags, *others, **options)

    monkeypatch.setattr(os, "open", open_noting)
    # NB: `builtins.open` does not come through there: a file that it opened for writing would be seen by its time.
    assert run("fsck", rich).code == 0
    assert [path for path, _ in modes if path.startswith(str(rich))]
    assert [path for path, flags in modes if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)] == []


# --- flipped bytes ---------------------------------------------------------------------------------------------------------------------


def flips(directory: Path, stride: int) -> Iterator[tuple[Path, int]]:
    rng = random.Random(stride)
    for path in files_of(directory):
        size = path.stat().st_size
        yield from ((path, offset) for offset in sorted({0, size - 1, *range(rng.randrange(stride), size, stride)}))


def places_found(directory: Path) -> list[tuple[str, int | None]]:
    try:
        return [(each.path, each.offset) for each in check(directory).findings]
    except StorageError as error:
        # The digit of a format in node.toml. Then the path is all that can be said.
        return [(error.path, 0)] if error.kind == "format" else []


def check_flip(path: Path, offset: int, directory: Path) -> None:
    data = path.read_bytes()
    damage(path, offset, random.Random(offset).randrange(1, 256))
    named = [place for name, place in places_found(directory) if name == str(path)]
    assert named, f"a flip at offset {offset} of {path} was not found"
    assert None not in named
    path.write_bytes(data)


def test_flipped_bytes_are_found(rich: Path) -> None:
    for path, offset in flips(rich, 401):
        check_flip(path, offset, rich)
    assert found_in(rich) == []


EVERY = 8
"""One byte of so many is flipped in a run, with the seed others in each: all of them take minutes."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_any_flipped_byte_is_found(tmp_path: Path, kind: Storage, seed: int) -> None:
    small = make_node(tmp_path / "node", 1, made_of((1, 3), (2, 4)), snapshot=EntryId(2, 5), start=EntryId(1, 2), commit=6, kind=kind)
    for path in files_of(small):
        for offset in range(seed % EVERY, path.stat().st_size, EVERY):
            check_flip(path, offset, small)


@pytest.mark.slow
def test_any_flipped_byte_of_entries_at_rest_is_found(tmp_path: Path, seed: int) -> None:
    rich = make_rich_directory(tmp_path / "node")
    path = next(path for path in files_of(rich) if path.suffix == ".log")
    for offset in range(seed % EVERY, path.stat().st_size, EVERY):
        check_flip(path, offset, rich)


def test_a_flip_makes_the_command_fail_and_is_named(tmp_path: Path) -> None:
    directory = make_node(tmp_path / "node", 1, made_of((1, 5)))
    log = directory / "wal/00000001.wal"
    damage(log, 1100)
    ran = run("fsck", directory)
    assert ran.code == 1
    assert f"{log}: at offset 1024: batch 2 does not match its checksum; it held records of group 1" in ran.out
    assert "Traceback" not in ran.out + ran.err


def test_damage_behind_damage_is_found_too(tmp_path: Path) -> None:
    async def life(storage: MultiRaftStorage) -> None:
        group = await begin(storage, 1, G1)
        for index in range(1, 6):
            await group.write_and_wait(*entries(G1, index, index + 1))

    directory = tmp_path / "node"
    live(WalStorage(StorageConfig(base_dir=str(directory))), 1, life)
    log = directory / "wal/00000001.wal"
    damage(log, 1024 + 80)
    damage(log, 2048 + 10)  # a header
    damage(log, 2560 + 500)  # padding
    assert [(each.offset, each.path) for each in check(directory).findings] == [(1024, str(log)), (2048, str(log)), (3060, str(log))]


# --- what is missing, left over or of somebody else ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_each_missing_file_is_missed(tmp_path: Path, kind: Storage) -> None:
    rich = make_rich_directory(tmp_path / "node", kind)
    for path in files_of(rich):
        if kind is FileStorage and path.parent.parent.name == "group-4":
            continue  # the tombstone: without it, there never was such a group
        data = path.read_bytes()
        path.unlink()
        assert found_in(rich) != [], f"{path} is gone, and nobody missed it"
        path.write_bytes(data)
    assert found_in(rich) == []


def test_a_cut_file_is_found(rich: Path) -> None:
    for path in files_of(rich):
        data = path.read_bytes()
        path.write_bytes(data[:-1])
        report = check(rich)
        newest = {each.group_id: each.path for each in report.log_files}
        if str(path) not in newest.values():
            assert [each for each in report.findings if each.path == str(path)], path
        else:  # an interrupted write, of which all that matters was written
            assert report.findings == []
        path.write_bytes(data[:-511])  # in the midst of the last batch
        report = check(rich)
        torn = [each.path for each in report.log_files if each.torn_from is not None]
        assert torn == [str(path)] or report.findings, path
        path.write_bytes(data)


def test_a_torn_end_is_a_note(tmp_path: Path) -> None:
    directory = make_node(tmp_path / "node", 1, made_of((1, 5)))
    log = directory / "wal/00000001.wal"
    size = log.stat().st_size
    with log.open("ab") as file:
        file.write(bytes(700))
    report = check(directory)
    assert report.findings == []
    assert [(note.path, note.offset) for note in report.notes] == [(str(log), size)]
    assert report.log_files[0].torn_from == size
    assert "are torn" in run("fsck", directory).out


def test_leftovers_are_notes(tmp_path: Path) -> None:
    rich = make_rich_directory(tmp_path / "node")
    leftovers = [
        "node.toml.tmp",
        "wal/00000099.wal.tmp",
        "group-1/snapshots/30-3.snap.1.tmp",
        "group-2/logs/7.log.2.tmp",
        "group-4/logs/1.log",
    ]
    for name in leftovers:
        (rich / name).parent.mkdir(parents=True, exist_ok=True)
        (rich / name).write_bytes(b"anything")
    report = check(rich)
    assert report.findings == []
    noted = {note.path.removeprefix(f"{rich}/") for note in report.notes}
    assert noted == {*leftovers[:-1], "group-4"}
    assert run("fsck", rich).code == 0


def test_the_directory_of_a_group_that_the_log_does_not_know_is_found(tmp_path: Path) -> None:
    rich = make_rich_directory(tmp_path / "node")
    (rich / "group-77").mkdir()
    assert found_in(rich) == [
        "group-77: the directory of a group that the log knows nothing of: no crash leaves one, so a part of the log may be lost"
    ]


def test_files_of_another_store_are_found(tmp_path: Path) -> None:
    one, two = make_rich_directory(tmp_path / "one"), make_rich_directory(tmp_path / "two")
    for path in files_of(one):
        if path.suffix == ".snap":
            continue  # it comes from elsewhere often enough
        other = two / path.relative_to(one)
        if not other.exists():
            continue
        data = path.read_bytes()
        shutil.copy(other, path)
        assert found_in(one) != [], path
        path.write_bytes(data)


def test_a_log_without_its_node_file_is_checked_all_the_same(rich: Path) -> None:
    (rich / "node.toml").unlink()
    assert [text.split(":")[0] for text in found_in(rich)] == ["node.toml"]
    assert run("inspect", rich).code == 1


# --- snapshots -------------------------------------------------------------------------------------------------------------------------


def test_a_snapshot_with_the_newest_configuration_is_found(tmp_path: Path) -> None:
    at = EntryId(1, 4)
    directory = make_node(tmp_path / "node", 1, made_of((1, 6)), snapshot=at, commit=4, configuration=Configuration.bootstrap((1, 2)))
    assert found_in(directory) == ["group-1/snapshots/4-1.snap: at offset 0: its configuration is not the one that the log has at index 4"]


def test_a_snapshot_of_another_group_or_position_is_found(tmp_path: Path) -> None:
    directory = make_node(tmp_path / "node", 1, made_of((1, 6)), snapshot=EntryId(1, 4), commit=4)
    path = directory / "group-1/snapshots/4-1.snap"
    shutil.copy(path, path.with_name("5-1.snap"))
    assert found_in(directory) == ["group-1/snapshots/5-1.snap: at offset 0: the snapshot reaches up to 4@1, its name says 5@1"]


def test_a_snapshot_that_the_log_counts_on_is_missed(tmp_path: Path) -> None:
    directory = make_node(tmp_path / "node", 1, made_of((1, 6)), snapshot=EntryId(1, 4), start=EntryId(1, 4), commit=4)
    path = directory / "group-1/snapshots/4-1.snap"
    path.unlink()
    assert found_in(directory) == ["group-1/snapshots/4-1.snap: the file is missing; the log begins behind this snapshot"]


def test_older_and_newer_snapshots_are_notes(tmp_path: Path) -> None:
    async def life(storage: MultiRaftStorage) -> None:
        group = await begin(storage, 1, G1)
        await group.write_and_wait(*entries(G1, 1, 9))
        await take_snapshot(group, EntryId(1, 4))
        group.log.compact(Compaction(EntryId(1, 4), NOTHING, 4))
        await group.write_and_wait(state=HardState(2))
        await take_snapshot(group, EntryId(1, 7), configuration=THREE)
        await take_snapshot(group, EntryId(1, 2), configuration=THREE)

    directory = tmp_path / "node"
    live(WalStorage(StorageConfig(base_dir=str(directory))), 1, life)
    report = check(directory)
    assert report.findings == []
    assert [Path(note.path).name for note in report.notes] == ["2-1.snap", "7-1.snap"]


# --- beside a running node -------------------------------------------------------------------------------------------------------------


async def test_a_running_node_is_not_disturbed(tmp_path: Path) -> None:
    directory = tmp_path / "node"
    storage = WalStorage(StorageConfig(base_dir=str(directory), max_log_file_size=4096))
    await storage.open(1, "demo")
    async with trio.open_nursery() as nursery:
        await nursery.start(storage.serve)
        group = await begin(storage, 1, G1)
        for low in range(1, 90, 3):
            group.write(*entries(G1, low, low + 3))
            if low % 9 == 1:
                # The cleaner moves and removes files meanwhile.
                report = await inspect_directory(str(directory), deep=True)
                assert report.findings == []
                assert report.user == f"process {os.getpid()}"
        await group.listener.wait_confirmed(30)
        nursery.cancel_scope.cancel()
    await storage.aclose()
    report = await inspect_directory(str(directory), deep=True)
    assert (report.findings, report.user) == ([], None)


async def test_a_node_can_start_while_somebody_looks(tmp_path: Path) -> None:
    """The lock is not even tried: who looks could take it at the very moment at which a node wants it."""
    storage = WalStorage(StorageConfig(base_dir=str(tmp_path / "node")))
    await storage.open(1, "demo")
    await storage.aclose()
    tries = []

    def take_lock(path: str, size: int) -> None:
        with (tmp_path / "node/lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        tries.append(path)

    await inspect_directory(str(tmp_path / "node"), deep=True, progress=take_lock)
    assert tries
