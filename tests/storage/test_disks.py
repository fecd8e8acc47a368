"""The two disks: the real one does what the file system does, the simulated one misbehaves as announced."""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from trioraft.storage import DiskCall, NoSpaceError, RealDisk, SimulatedDisk
from trioraft.storage._disk import Disk


async def make(disk: Disk, path: str, data: bytes, *, sync: bool = True) -> None:
    file = await disk.open(path, create=True)
    await disk.append(file, 0, data, sync=sync)
    disk.close(file)


@pytest.fixture(params=["real", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Disk, str]:
    return (RealDisk(), f"{tmp_path}/a/b") if request.param == "real" else (SimulatedDisk(random.Random(0)).mount(), "a/b")


async def test_both_do_the_same(place: tuple[Disk, str]) -> None:
    disk, base = place
    with pytest.raises(FileNotFoundError):
        await disk.list_directory(base)
    await disk.make_directory(base)
    await disk.make_directory(base)
    assert await disk.list_directory(base) == []
    with pytest.raises(FileNotFoundError):
        await disk.open(f"{base}/x")
    with pytest.raises(FileNotFoundError):
        await disk.read_file(f"{base}/x")
    await make(disk, f"{base}/x", b"0123456789")
    file = await disk.open(f"{base}/x")
    await disk.append(file, 5, bytearray(b"abcdefgh"), sync=True)
    await disk.append(file, 20, b"z", sync=False)
    await disk.sync(file)
    assert await disk.read_file(f"{base}/x") == b"01234abcdefgh" + bytes(7) + b"z"
    await disk.truncate(file, 7)
    disk.close(file)
    disk.close(file)
    assert await disk.read_file(f"{base}/x", settle=True) == b"01234ab"
    await make(disk, f"{base}/y", b"new")
    await disk.rename(f"{base}/y", f"{base}/x")
    await disk.sync_directory(base)
    assert await disk.list_directory(base) == ["x"]
    assert await disk.read_file(f"{base}/x") == b"new"
    await make(disk, f"{base}/x", b"")
    assert await disk.read_file(f"{base}/x") == b""
    file = await disk.open(f"{base}/x", create=True)
    await disk.append(file, 0, b"0123456789", sync=True)
    assert await disk.size(file) == 10
    assert [await disk.read(file, offset, size) for offset, size in ((0, 4), (4, 6), (8, 9), (10, 1), (3, 0))] == [
        b"0123",
        b"456789",
        b"89",
        b"",
        b"",
    ]
    await disk.remove(f"{base}/x")
    await disk.remove(f"{base}/x")
    assert await disk.read(file, 2, 3) == b"234", "what is open stays readable"
    disk.close(file)
    assert await disk.list_directory(base) == []
    await disk.make_directory(f"{base}/c/d")
    with pytest.raises(OSError, match="not empty"):
        await disk.remove_directory(f"{base}/c")
    for path in (f"{base}/c/d", f"{base}/c/d", f"{base}/c", f"{base}/c/d"):
        await disk.remove_directory(path)
    await make(disk, f"{base}/x", b"")
    with pytest.raises(NotADirectoryError):
        await disk.remove_directory(f"{base}/x")
    await disk.remove(f"{base}/x")
    assert await disk.list_directory(base) == []
    lock = await disk.lock(f"{base}/lock")
    with pytest.raises(BlockingIOError):
        await disk.lock(f"{base}/lock")
    disk.close(lock)
    disk.close(await disk.lock(f"{base}/lock"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, None])
async def test_a_real_write_without_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None) -> None:
    """An errno, or a write that takes no byte: both are a full disk. A sync that says so is not."""
    disk = RealDisk()
    file = await disk.open(str(tmp_path / "x"), create=True)
    real, left = os.pwrite, [4]

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        if not left:
            if number is None:
                return 0
            raise OSError(number, "simulated")
        return real(descriptor, data[: left.pop()], offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(NoSpaceError):
            await disk.append(file, 0, b"0123456789", sync=True)
        assert (tmp_path / "x").read_bytes() == b"0123"
        left.extend([6, 4])
        await disk.append(file, 0, b"0123456789", sync=True)
        assert (tmp_path / "x").read_bytes() == b"0123456789", "a short write goes on where it stopped"

    def no_sync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "simulated")

    monkeypatch.setattr(os, "fdatasync", no_sync)
    with pytest.raises(OSError, match="simulated") as caught:
        await disk.append(file, 0, b"x", sync=True)
    assert not isinstance(caught.value, NoSpaceError)
    disk.close(file)


@pytest.mark.parametrize("verb", ["open", "rename", "mkdir"])
async def test_a_real_directory_without_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "simulated")

    disk = RealDisk()
    monkeypatch.setattr(os, "replace" if verb == "rename" else verb, fail)
    path = str(tmp_path / "x")
    calls = {
        "open": lambda: disk.open(path, create=True),
        "rename": lambda: disk.rename(path, path),
        "mkdir": lambda: disk.make_directory(path),
    }
    with pytest.raises(NoSpaceError):
        await calls[verb]()


async def test_a_crash_keeps_what_was_synced_and_some_of_the_rest() -> None:
    outcomes = set()
    for seed in range(200):
        disk = SimulatedDisk(random.Random(seed))
        mount = disk.mount()
        await mount.make_directory("d")
        await make(mount, "d/x", b"s" * 700)
        await mount.sync_directory("d")
        file = await mount.open("d/x")
        await mount.append(file, 700, b"u" * 2000, sync=False)
        disk.crash()
        data = disk.contents("d/x")
        assert data.startswith(b"s" * 700)
        assert set(data[700:]) <= set(b"u\0")
        outcomes.add((len(data), data.count(b"u")))
    sizes = {size for size, _ in outcomes}
    assert min(sizes) == 700
    assert max(sizes) == 2700
    assert any(size % 512 for size in sizes - {700, 2700}), "cut at any byte"
    assert any(size == 2700 and 0 < kept < 2000 for size, kept in outcomes), "holes of zeros"


async def test_names_need_a_sync_of_their_own() -> None:
    kept = set()
    for seed in range(40):
        disk = SimulatedDisk(random.Random(seed))
        mount = disk.mount()
        await mount.make_directory("d")
        await make(mount, "d/x", b"old")
        await mount.sync_directory("d")
        await make(mount, "d/x.tmp", b"new")
        await mount.rename("d/x.tmp", "d/x")
        await make(mount, "d/y", b"")
        disk.crash()
        kept.add((disk.contents("d/x"), *disk.names("d")))
    assert kept >= {(b"old", "x"), (b"new", "x"), (b"old", "x", "x.tmp"), (b"new", "x", "y")}


async def test_a_dead_process_has_no_effect() -> None:
    disk = SimulatedDisk(random.Random(0))
    mount = disk.mount()
    await mount.make_directory("d")
    file = await mount.open("d/x", create=True)
    await mount.append(file, 0, b"1", sync=True)
    await mount.sync_directory("d")
    lock = await mount.lock("d/lock")
    disk.crash()
    calls = (
        lambda: mount.append(file, 0, b"2", sync=True),
        lambda: mount.truncate(file, 0),
        lambda: mount.rename("d/x", "d/y"),
        lambda: mount.remove("d/x"),
        lambda: mount.open("d/x", create=True),
        lambda: mount.sync_directory("d"),
        lambda: mount.read_file("d/x"),
    )
    for dead_calls in ("block", "raise"):
        disk.dead_calls = dead_calls
        for call in calls:
            with trio.move_on_after(0.001 if dead_calls == "block" else 60) as scope:
                with pytest.raises(OSError, match="dead") if dead_calls == "raise" else trio.CancelScope():
                    await call()
            assert scope.cancelled_caught == (dead_calls == "block")
    mount.close(lock)
    assert disk.names("d") == ["x"]
    assert disk.contents("d/x") == b"1"
    await disk.mount().lock("d/lock")


async def test_a_call_that_was_under_way_when_the_power_went_has_no_further_effect(autojump_clock: trio.testing.MockClock) -> None:
    disk = SimulatedDisk(random.Random(0), write_seconds=5.0, sync_seconds=5.0)
    mount = disk.mount()
    await mount.make_directory("d")
    file = await mount.open("d/x", create=True)
    await mount.sync_directory("d")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: mount.append(file, 0, b"1", sync=True))
        await trio.sleep(7)
        disk.crash("none")
        assert disk.contents("d/x") == b""
        await trio.sleep(20)
        assert disk.contents("d/x") == b""
        nursery.cancel_scope.cancel()


async def test_the_same_seed_crashes_in_the_same_way() -> None:
    async def outcome() -> bytes:
        disk = SimulatedDisk(random.Random(11))
        mount = disk.mount()
        await make(mount, "x", b"u" * 5000, sync=False)
        await mount.sync_directory("/")
        disk.crash()
        return disk.contents("x")

    assert await outcome() == await outcome()


async def test_a_failed_sync_is_not_made_good_by_the_next_one() -> None:
    lost = 0
    for seed in range(20):
        disk = SimulatedDisk(random.Random(seed))
        mount = disk.mount()
        file = await mount.open("x", create=True)
        await mount.sync_directory("/")
        await mount.append(file, 0, b"u" * 3000, sync=False)
        disk.failing_syncs = 1
        with pytest.raises(OSError, match="sync failure"):
            await mount.sync(file)
        await mount.sync(file)
        assert await mount.read_file("x") == b"u" * 3000, "the cache still shows it"
        disk.crash("all")
        lost += disk.contents("x") != b"u" * 3000
    assert lost > 10


async def test_capacity_and_hooks() -> None:
    disk = SimulatedDisk(random.Random(0), capacity=100)
    mount = disk.mount()
    seen: list[DiskCall] = []

    async def note(call: DiskCall) -> None:
        seen.append(call)

    disk.hook = note
    file = await mount.open("x", create=True)
    with pytest.raises(NoSpaceError):
        await mount.append(file, 0, b"u" * 150, sync=True)
    assert len(disk.contents("x")) == 100
    await mount.append(file, 0, b"v" * 100, sync=True)
    assert [(call.verb, call.path) for call in seen] == [("create", "x"), ("write", "x"), ("write", "x"), ("sync", "x")]
    assert [call.number for call in seen] == [1, 2, 3, 4]


async def test_reads_neither_wait_for_writes_nor_hold_them_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of the threads for writing may be stuck in a sync, and the log's writer has one of its own."""
    disk = RealDisk()
    log = disk.abandoning()
    await make(disk, str(tmp_path / "x"), b"0123456789")
    files = [await disk.open(str(tmp_path / "x")) for _ in range(4)]
    may_pass, sync = threading.Event(), os.fdatasync

    def slow_sync(descriptor: int) -> None:
        may_pass.wait(15)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow_sync)
    try:
        async with trio.open_nursery() as nursery:
            for file in files[:3]:
                nursery.start_soon(disk.sync, file)
            with trio.fail_after(10):
                assert await disk.read(files[3], 3, 3) == b"345"
                found = await disk.open(str(tmp_path / "x"))
                assert await disk.size(found) == 10
            disk.close(found)
            await log.append(files[3], 0, b"ab", sync=False)
            assert await disk.read(files[3], 0, 3) == b"ab2"
            may_pass.set()
    finally:
        may_pass.set()
    for file in files:
        disk.close(file)
