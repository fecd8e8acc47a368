"""Snapshots of a group as files: whole or not there, whatever happens when."""

from __future__ import annotations

import errno
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from trioraft._errors import StorageError
from trioraft._types import EntryId
from trioraft.storage import DiskCall, RealDisk, SimulatedDisk
from trioraft.storage._disk import Disk, DiskFile, NoSpaceError
from trioraft.storage._folder import Folder
from trioraft.storage._simulated_disk import Keep
from trioraft.storage._snapshot_files import SnapshotFiles, snapshot_id, snapshot_name

KEEPS: tuple[Keep, ...] = ("none", "all", "random")
DIRECTORY = "data/group-7/snapshots"

AT_5, AT_9, AT_12 = EntryId(1, 5), EntryId(2, 9), EntryId(2, 12)


@pytest.fixture
def metal() -> SimulatedDisk:
    return SimulatedDisk(random.Random(1), dead_calls="raise")


def snapshots_on(disk: Disk, directory: str = DIRECTORY) -> SnapshotFiles:
    return SnapshotFiles(Folder(disk, directory))


async def write(snapshots: SnapshotFiles, at: EntryId, *pieces: bytes) -> str:
    writer = await snapshots.create(at)
    for piece in pieces:
        await writer.append(piece)
    return await writer.commit()


async def contents(snapshots: SnapshotFiles, at: EntryId) -> bytes:
    reader = await snapshots.open(at)
    try:
        return await reader.read(0, reader.size)
    finally:
        reader.close()


def names(metal: SimulatedDisk) -> list[str]:
    try:
        return metal.names(DIRECTORY)
    except FileNotFoundError:
        return []


class Descriptors:
    """Counts what is open on a disk."""

    def __init__(self, disk: Disk) -> None:
        self.open: list[DiskFile] = []
        self._open, self._close = disk.open, disk.close
        disk.open, disk.close = self._opened, self._closed  # type: ignore[method-assign]  # replaced on purpose

    async def _opened(self, path: str, *, create: bool = False) -> DiskFile:
        file = await self._open(path, create=create)
        self.open.append(file)
        return file

    def _closed(self, file: DiskFile) -> None:
        if file in self.open:
            self.open.remove(file)
        self._close(file)


def at_step(metal: SimulatedDisk, number: int, action: Callable[[], None]) -> None:
    """Do something at the n-th disk step from now on."""
    first = sum(metal.calls.values())

    async def hook(call: DiskCall) -> None:
        if call.number == first + number:
            action()

    metal.hook = hook


# -- what it is for -------------------------------------------------------------------------------------------------------------


async def test_what_is_committed_is_read_back(metal: SimulatedDisk) -> None:
    snapshots = snapshots_on(metal.mount())
    path = await write(snapshots, AT_9, b"header", b"block " * 1000, b"trailer")
    assert path == f"{DIRECTORY}/9-2.snap"
    reader = await snapshots.open(AT_9)
    assert reader.path == path
    assert reader.size == 6013
    assert await reader.read(0, 6) == b"header"
    assert await reader.read(6006, 100) == b"trailer", "fewer only at the end"
    reader.close()
    reader.close()


async def test_an_empty_one_is_one(metal: SimulatedDisk) -> None:
    snapshots = snapshots_on(metal.mount())
    await write(snapshots, AT_5)
    assert await contents(snapshots, AT_5) == b""


async def test_no_directory_before_the_first_snapshot(metal: SimulatedDisk) -> None:
    snapshots = snapshots_on(metal.mount())
    with pytest.raises(StorageError, match=f"{DIRECTORY}/5-1.snap") as caught:
        await snapshots.open(AT_5)
    assert caught.value.kind == "missing"
    await snapshots.remove(AT_5)
    await snapshots.prune(AT_9)
    assert metal.names("/") == []


async def test_several_writers_and_the_last_commit_wins(metal: SimulatedDisk) -> None:
    snapshots = snapshots_on(metal.mount())
    one, two, three = await snapshots.create(AT_5), await snapshots.create(AT_5), await snapshots.create(AT_9)
    for writer, data in ((one, b"one"), (two, b"two"), (three, b"three")):
        await writer.append(data)
    await one.commit()
    before = await snapshots.open(AT_5)
    await two.commit()
    await three.discard()
    await two.discard()
    assert await contents(snapshots, AT_5) == b"two", "discarding what was committed does nothing"
    assert await before.read(0, 10) == b"one", "a reader keeps what it opened"
    before.close()
    assert names(metal) == ["5-1.snap"]


@pytest.mark.parametrize("real", [False, True])
async def test_a_reader_keeps_what_was_replaced_or_removed(metal: SimulatedDisk, tmp_path: Path, real: bool) -> None:
    snapshots = snapshots_on(RealDisk(), str(tmp_path / "group-7" / "snapshots")) if real else snapshots_on(metal.mount())
    await write(snapshots, AT_5, b"old" * 100_000)
    replaced = await snapshots.open(AT_5)
    await write(snapshots, AT_5, b"new")
    removed = await snapshots.open(AT_5)
    await write(snapshots, AT_9, b"newer")
    await snapshots.prune(AT_9)
    with pytest.raises(StorageError, match="no such file"):
        await snapshots.open(AT_5)
    assert await replaced.read(299_997, 9) == b"old"
    assert await removed.read(0, 9) == b"new"
    replaced.close()
    removed.close()
    assert await contents(snapshots, AT_9) == b"newer"


async def test_prune_removes_only_older_ones(metal: SimulatedDisk) -> None:
    snapshots = snapshots_on(metal.mount())
    for at in (AT_5, AT_9, AT_12):
        await write(snapshots, at, b"x")
    metal.overwrite(f"{DIRECTORY}/notes.txt", b"an operator's")
    metal.overwrite(f"{DIRECTORY}/05-1.snap", b"not how it is written")
    writer = await snapshots.create(EntryId(1, 6))
    await snapshots.prune(AT_9)
    assert names(metal) == ["05-1.snap", "12-2.snap", "6-1.snap.4.tmp", "9-2.snap", "notes.txt"]
    await writer.commit()
    await snapshots.remove(AT_12)
    assert names(metal) == ["05-1.snap", "6-1.snap", "9-2.snap", "notes.txt"]


def test_names() -> None:
    assert snapshot_name(AT_12) == "12-2.snap"
    assert snapshot_id("12-2.snap") == AT_12
    for name in ("012-2.snap", "12-2.snap.tmp", "12-2.snap\n", "-2.snap", "0-0.snap", "12.snap", "١٢-2.snap", "12-2.SNAP"):
        assert snapshot_id(name) is None, name


async def test_SN_10_leftovers_are_removed_at_the_first_use(metal: SimulatedDisk) -> None:
    await write(snapshots_on(metal.mount()), AT_9, b"whole")
    uses: list[Callable[[SnapshotFiles], Awaitable[object]]] = [
        lambda snapshots: snapshots.open(AT_9),
        lambda snapshots: snapshots.create(AT_12),
        lambda snapshots: snapshots.prune(AT_5),
    ]
    for use in uses:
        twin = metal.fork(random.Random(1))
        for name in ("12-2.snap.1.tmp", "9-2.snap.3.tmp", "x.tmp"):
            twin.overwrite(f"{DIRECTORY}/{name}", b"half")
        snapshots = snapshots_on(twin.mount())
        await use(snapshots)
        assert [name for name in names(twin) if name != "12-2.snap.1.tmp"] == ["9-2.snap"]
        assert await contents(snapshots, AT_9) == b"whole"
        for name in ("12-2.snap.1.tmp",) if "12-2.snap.1.tmp" in names(twin) else ():
            assert twin.contents(f"{DIRECTORY}/{name}") == b"", "the new writer's own, not what was left"


async def test_leftovers_that_cannot_be_removed_are_in_nobodys_way(metal: SimulatedDisk) -> None:
    await write(snapshots_on(metal.mount()), AT_9, b"whole")
    metal.overwrite(f"{DIRECTORY}/x.tmp", b"half")

    async def refuse(call: DiskCall) -> None:
        if call.verb == "remove":
            raise PermissionError(errno.EACCES, "not allowed")

    metal.hook = refuse
    snapshots = snapshots_on(metal.mount())
    assert await contents(snapshots, AT_9) == b"whole"
    metal.hook = None
    assert await contents(snapshots, AT_9) == b"whole"
    assert names(metal) == ["9-2.snap"]


# -- errors ---------------------------------------------------------------------------------------------------------------------


async def test_a_full_disk(metal: SimulatedDisk) -> None:
    disk = metal.mount()
    descriptors = Descriptors(disk)
    snapshots = snapshots_on(disk)
    await write(snapshots, AT_5, b"old")
    metal.capacity = 1000
    writer = await snapshots.create(AT_9)
    with pytest.raises(StorageError, match=f"{DIRECTORY}/9-2.snap") as caught:
        await writer.append(bytes(2000))
    assert caught.value.kind == "full"
    assert isinstance(caught.value.__cause__, NoSpaceError)
    assert descriptors.open == []
    with pytest.raises(StorageError, match="given up"):
        await writer.append(b"more")
    with pytest.raises(StorageError, match="given up"):
        await writer.commit()
    await writer.discard()
    assert names(metal) == ["5-1.snap"]
    assert await contents(snapshots, AT_5) == b"old"


@pytest.mark.parametrize("code, kind", [(errno.ENOSPC, "full"), (errno.EIO, "io")])
@pytest.mark.parametrize("verb", ["mkdir", "create", "write", "sync", "rename", "sync_directory"])
async def test_every_operation_can_fail(metal: SimulatedDisk, verb: str, code: int, kind: str) -> None:
    disk = metal.mount()
    descriptors = Descriptors(disk)
    snapshots = snapshots_on(disk)
    failed = False

    async def fail(call: DiskCall) -> None:
        nonlocal failed
        if call.verb == verb and not failed:
            failed = True
            raise OSError(code, "on purpose")

    metal.hook = fail
    writer = None
    with pytest.raises(StorageError) as caught:
        writer = await snapshots.create(AT_9)
        await writer.append(b"data")
        await writer.commit()
    # A sync that finds no space is no lack of space: nobody knows what is on the disk.
    assert caught.value.kind == ("io" if "sync" in verb else kind)
    assert caught.value.path.startswith(DIRECTORY)
    if writer is not None:
        await writer.discard()
    assert descriptors.open == []
    assert not [name for name in names(metal) if name.endswith(".tmp")]
    assert await write(snapshots, AT_9, b"again") == f"{DIRECTORY}/9-2.snap"
    assert await contents(snapshots, AT_9) == b"again"


async def test_reading_can_fail(metal: SimulatedDisk) -> None:
    disk = metal.mount()
    descriptors = Descriptors(disk)
    snapshots = snapshots_on(disk)
    await write(snapshots, AT_9, b"data")
    for verb in ("open", "size", "read"):

        async def fail(call: DiskCall, verb: str = verb) -> None:
            if call.verb == verb:
                raise OSError(errno.EIO, "on purpose")

        metal.hook = fail
        with pytest.raises(StorageError, match="on purpose") as caught:
            await contents(snapshots, AT_9)
        assert caught.value.kind == "io"
        assert descriptors.open == []


# -- cancellation ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("committed_before", [False, True])
async def test_cancelled_at_every_step(committed_before: bool) -> None:
    """No descriptor stays open, and a name means a whole file."""
    for step in range(1, 60):
        metal = SimulatedDisk(random.Random(step))
        if committed_before:
            await write(snapshots_on(metal.mount()), AT_9, b"old")
        disk = metal.mount()
        descriptors = Descriptors(disk)
        snapshots = snapshots_on(disk)
        with trio.CancelScope() as scope:
            at_step(metal, step, scope.cancel)
            writer = await snapshots.create(AT_9)
            try:
                await writer.append(b"new " * 500)
                await writer.append(b"end")
                await writer.commit()
            finally:
                await writer.discard()
            reader = await snapshots.open(AT_9)
            try:
                await reader.read(0, 10)
            finally:
                reader.close()
            await snapshots.prune(AT_12)
        metal.hook = None
        assert descriptors.open == [], step
        whole = [b"new " * 500 + b"end"] + [b"old"] * committed_before
        assert all(name == "9-2.snap" and metal.contents(f"{DIRECTORY}/{name}") in whole for name in names(metal)), step
        if not scope.cancelled_caught:
            assert step > 10
            return
    pytest.fail("the story has no end")


async def test_no_descriptor_is_lost_on_a_real_disk(tmp_path: Path) -> None:
    def opened() -> int:
        return sum(str(tmp_path) in _target(descriptor) for descriptor in descriptors.iterdir())

    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("no /proc here")
    snapshots = snapshots_on(RealDisk(), str(tmp_path / "snapshots"))
    for after in range(8):
        with trio.CancelScope() as scope:
            writer = await snapshots.create(AT_9)
            try:
                for number in range(4):
                    if number == after:
                        scope.cancel()
                    await writer.append(b"data")
                if after == 4:
                    scope.cancel()
                await writer.commit()
            finally:
                await writer.discard()
        assert opened() == 0
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == ["9-2.snap"]


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:
        return ""


async def test_a_reader_that_is_closed_during_a_read_is_closed_after_it(metal: SimulatedDisk) -> None:
    disk = metal.mount()
    descriptors = Descriptors(disk)
    snapshots = snapshots_on(disk)
    await write(snapshots, AT_9, b"data")
    reader = await snapshots.open(AT_9)
    reached, may_pass = trio.Event(), trio.Event()

    async def hold(call: DiskCall) -> None:
        reached.set()
        await may_pass.wait()

    metal.hook = hold
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.read, 0, 4)
        await reached.wait()
        reader.close()
        assert len(descriptors.open) == 1
        may_pass.set()
    assert descriptors.open == []


# -- the group is removed -------------------------------------------------------------------------------------------------------


async def test_closed_for_good(metal: SimulatedDisk) -> None:
    snapshots = snapshots_on(metal.mount())
    await write(snapshots, AT_5, b"data")
    reader = await snapshots.open(AT_5)
    writer = await snapshots.create(AT_9)
    await snapshots.folder.aclose()
    await snapshots.folder.aclose()
    late: list[Callable[[], Awaitable[object]]] = [
        lambda: writer.append(b"late"),
        writer.commit,
        lambda: snapshots.create(AT_9),
        lambda: snapshots.open(AT_5),
        lambda: snapshots.remove(AT_5),
        lambda: snapshots.prune(AT_9),
    ]
    for call in late:
        with pytest.raises(StorageError) as caught:
            await call()
        assert caught.value.kind in ("removed", "io")
    await writer.discard()
    assert await reader.read(0, 10) == b"data"
    reader.close()
    assert names(metal) == ["5-1.snap", "9-2.snap.2.tmp"], "the tmp is for whoever empties the directory"


async def test_closing_waits_for_what_is_under_way(metal: SimulatedDisk) -> None:
    snapshots = snapshots_on(metal.mount())
    writer = await snapshots.create(AT_9)
    reached, may_pass, done = trio.Event(), trio.Event(), trio.Event()

    async def hold(call: DiskCall) -> None:
        if call.verb == "rename":
            reached.set()
            await may_pass.wait()

    async def close() -> None:
        await snapshots.folder.aclose()
        assert "9-2.snap" in names(metal)
        done.set()

    metal.hook = hold
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.commit)
        await reached.wait()
        nursery.start_soon(close)
        await trio.testing.wait_all_tasks_blocked()
        assert not done.is_set()
        may_pass.set()
    assert done.is_set()


# -- power cuts -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_a_power_cut_at_every_step(seed: int) -> None:
    """What was committed is there, whole, until something newer is; what was not is there whole or not at all."""
    rng = random.Random(seed)
    metal = SimulatedDisk(rng)
    data = {at: rng.randbytes(rng.randint(1, 3000)) for at in (AT_5, AT_9, AT_12)}
    moments: list[tuple[SimulatedDisk, EntryId | None, str]] = []
    newest: EntryId | None = None

    async def note(call: DiskCall) -> None:
        moments.append((metal.fork(random.Random(rng.random())), newest, f"{call.number} {call.verb} {call.path}"))

    metal.hook = note
    snapshots = snapshots_on(metal.mount())
    for at in (AT_5, AT_9, AT_12):
        writer = await snapshots.create(at)
        for start in range(0, len(data[at]), 700):
            await writer.append(data[at][start : start + 700])
        await writer.commit()
        newest = at
        await snapshots.prune(at)
    count = 0
    for disk, must, step in moments:
        for keep in KEEPS:
            count += 1
            twin = disk.fork(random.Random(f"{seed}{step}{keep}"))
            twin.crash(keep)
            after = snapshots_on(twin.mount())
            for at in (AT_5, AT_9, AT_12):
                if snapshot_name(at) in names(twin):
                    assert await contents(after, at) == data[at], f"{at} is not whole after a cut at {step}, keeping {keep}"
                else:
                    assert at != must, f"{at} is lost after a cut at {step}, keeping {keep}"
            await write(after, AT_12, b"and on")
            assert not [name for name in names(twin) if name.endswith(".tmp")]
    print(f"{len(moments)} steps, {count} power cuts")
    assert len(moments) >= 24


async def test_a_missing_sync_would_be_noticed() -> None:
    """Proof that these tests can fail: a drive that lies."""
    metal = SimulatedDisk(random.Random(3))
    metal.lying = True
    await write(snapshots_on(metal.mount()), AT_9, b"data" * 1000)
    metal.crash("none")
    metal.lying = False
    with pytest.raises(StorageError, match="no such file"):
        await snapshots_on(metal.mount()).open(AT_9)
