"""`FileStorage` beyond the contract: its layout, and what it refuses."""

from __future__ import annotations

import math
import os
import random
import shutil
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from trioraft._errors import ConfigError, CorruptLogError, GroupExistsError, InvariantError, StorageError
from trioraft._types import EntryId, GroupKey
from trioraft.core import Compaction, HardState, LoadEntries
from trioraft.storage import DiskCall, FileStorage, MultiRaftStorage, SimulatedDisk, StorageConfig, WalStorage
from trioraft.storage._batch import SECTOR
from trioraft.testing._storage_disk_tests import files_of
from trioraft.testing._storage_parts import (
    CLUSTER_ID,
    NODE_ID,
    ONE,
    THREE,
    TWO,
    Found,
    entries,
    entry,
    find,
    hold,
    installing,
    record,
    serving,
    start_group,
)

LOGS = "data/group-1/logs"
VOTE = f"{LOGS}/vote.dat"
FIRST, SECOND, THIRD = (f"{LOGS}/entries-{number:08}.log" for number in (1, 2, 3))


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk(random.Random(1), dead_calls="raise")


def on(disk: SimulatedDisk, **options: object) -> FileStorage:
    config = StorageConfig(base_dir="data", **options)  # type: ignore[arg-type]  # of any type
    return FileStorage(config, disk.mount(), random_bytes=random.Random(0).randbytes)


async def failure_of(disk: SimulatedDisk) -> CorruptLogError | None:
    """Why group 1 refuses to start; the others must not."""
    storage = on(disk)
    await storage.open(NODE_ID, CLUSTER_ID)
    try:
        failures = {group_id: found.failure for group_id, found in storage.recovered.items()}
        failure = failures.pop(1)
        assert set(failures.values()) <= {None}
        if failure is not None:
            with pytest.raises(CorruptLogError):
                storage.get_log_storage(1)
            assert isinstance(failure, CorruptLogError)
        return failure
    finally:
        await storage.aclose()


async def three_writes(disk: SimulatedDisk) -> bytes:
    """A log of group 1 whose last batch spans several sectors, and group 2 beside it. Returns the log's file."""
    async with serving(storage := on(disk)):
        one, two = await start_group(storage, ONE), await start_group(storage, TWO)
        await two.write_and_wait(*entries(TWO, 1, 3))
        await one.write_and_wait(*entries(ONE, 1, 4), state=HardState(1, 1))
        await one.write_and_wait(*entries(ONE, 4, 6), state=HardState(2, 3))
        await one.write_and_wait(*entries(ONE, 6, 9, term=2, payload=b"payload " * 80))
    return disk.contents(FIRST)


# -- the directory ---------------------------------------------------------------------------------------------------------------


async def test_everything_of_a_group_is_in_its_own_directory(disk: SimulatedDisk) -> None:
    async with serving(storage := on(disk)):
        for key in (ONE, GroupKey(7)):
            group = await start_group(storage, key)
            await group.write_and_wait(*entries(key, 1, 4))
            await group.save_snapshot(EntryId(1, 3))
    names = ["logs/entries-00000001.log", "logs/vote.dat", "snapshots/3-1.snap"]
    assert files_of(disk, "data") == [
        *(f"data/group-{number}/{name}" for number in (1, 7) for name in names),
        "data/node.toml",
    ]


async def test_full_files_are_followed_and_go_when_nothing_in_them_is_needed(disk: SimulatedDisk) -> None:
    async with serving(storage := on(disk, max_log_file_size=4096)):
        group = await start_group(storage, ONE)
        for index in range(1, 21):
            await group.write_and_wait(entry(ONE, index, payload=b"x" * 700))
        files = [name for name in disk.names(LOGS) if name.startswith("entries")]
        assert len(files) > 4
        await group.save_snapshot(EntryId(1, 18))
        group.log.compact(Compaction(EntryId(1, 18), EntryId(1, 18), 18))
        await group.write_and_wait(entry(ONE, 21))
        while len(disk.names(LOGS)) > 3:
            await trio.lowlevel.checkpoint()
        assert not set(disk.names(LOGS)) & set(files[:-1]), "only what has entries behind 18, or is written to"
        disk.crash("none")
    async with serving(storage := on(disk)):
        assert (await find(storage, ONE)).ids == ["19@1", "20@1", "21@1"]


async def test_a_directory_stays_bounded(disk: SimulatedDisk) -> None:
    """Compactions and installs, over many files."""
    async with serving(storage := on(disk, max_log_file_size=4096)):
        group = await start_group(storage, ONE)
        for index in range(1, 400):
            await group.write_and_wait(entry(ONE, index, payload=b"x" * 300))
            if index % 10 == 0:
                await group.save_snapshot(EntryId(1, index))
                group.log.compact(Compaction(EntryId(1, index), EntryId(1, index - 4), index))
        await group.save_snapshot(EntryId(5, 1000))
        await group.write_and_wait(install=installing(EntryId(5, 1000), record(ONE).configuration))
        await group.write_and_wait(entry(ONE, 1001, 5))
        assert sum(len(disk.contents(path)) for path in files_of(disk, LOGS)) < 20_000
        assert len(disk.names("data/group-1/snapshots")) <= 2


async def test_a_removed_group_leaves_its_tombstone_only(disk: SimulatedDisk) -> None:
    async with serving(storage := on(disk)):
        group = await start_group(storage, ONE)
        await group.write_and_wait(*entries(ONE, 1, 4))
        await group.save_snapshot(EntryId(1, 3))
        late = await group.log.snapshots.create(EntryId(1, 4))
        await storage.remove_group(ONE)
        assert files_of(disk, "data/group-1") == [VOTE]
        with pytest.raises(StorageError):
            await late.append(b"late")
        await late.discard()
        with pytest.raises(StorageError):
            await group.log.read(LoadEntries(None, 1, 3, 1000))
        with pytest.raises(InvariantError):
            group.write(*entries(ONE, 4, 5))
    assert files_of(disk, "data/group-1") == [VOTE]


async def test_what_a_crash_left_of_a_removed_group_goes_at_the_next_start(disk: SimulatedDisk) -> None:
    async with serving(storage := on(disk)):
        group = await start_group(storage, ONE)
        await group.write_and_wait(*entries(ONE, 1, 4))
        await group.save_snapshot(EntryId(1, 3))

        async def crash_once_it_is_gone(call: DiskCall) -> None:
            if call.verb == "remove" and "entries" in call.path:
                disk.crash("none")

        disk.hook = crash_once_it_is_gone
        await storage.remove_group(ONE)
    disk.hook = None
    assert len(files_of(disk, "data/group-1")) == 3
    async with serving(storage := on(disk)):
        assert await find(storage, ONE) == Found(None, ONE)
    assert files_of(disk, "data/group-1") == [VOTE]


async def test_a_group_that_was_not_finished_is_none(disk: SimulatedDisk) -> None:
    async with serving(storage := on(disk)):

        async def crash_before_the_vote_file(call: DiskCall) -> None:
            if call.verb == "rename" and call.path == VOTE:
                disk.crash("all")

        disk.hook = crash_before_the_vote_file
        with pytest.raises(StorageError):
            await storage.create_group(record(ONE))
    disk.hook = None
    assert FIRST in files_of(disk)
    async with serving(storage := on(disk)):
        assert dict(storage.recovered) == {}
        await (await start_group(storage, ONE)).write_and_wait(*entries(ONE, 1, 3))
    assert await failure_of(disk) is None


async def test_only_its_own_directory_is_opened(tmp_path: Path) -> None:
    files, wal = (StorageConfig(base_dir=tmp_path / name) for name in ("files", "wal"))
    async with serving(WalStorage(wal)):
        pass
    stranger = FileStorage(wal)
    with pytest.raises(StorageError, match="WalStorage") as caught:
        await stranger.open(NODE_ID, CLUSTER_ID)
    assert caught.value.kind == "foreign"
    await stranger.aclose()
    async with serving(storage := FileStorage(files)):
        await storage.create_group(record(ONE))
    (tmp_path / "files" / "node.toml").unlink()
    stranger = FileStorage(files)
    with pytest.raises(StorageError, match="node.toml") as caught:
        await stranger.open(NODE_ID, CLUSTER_ID)
    assert caught.value.kind == "foreign"
    await stranger.aclose()


async def test_it_is_opened_once(disk: SimulatedDisk) -> None:
    async with serving(storage := on(disk)):
        with pytest.raises(InvariantError):
            await storage.open(NODE_ID, CLUSTER_ID)
        await storage.create_group(record(ONE))
    other = on(disk)
    with pytest.raises(ConfigError):
        await other.open(NODE_ID, "not\nprintable")
    with pytest.raises(InvariantError):
        await other.create_group(record(ONE))


# -- torn and damaged --------------------------------------------------------------------------------------------------------------


async def test_ST_1_a_torn_tail_is_dropped(disk: SimulatedDisk) -> None:
    """Cut at every byte of the last batch; and its sectors lost, each of them."""
    data = await three_writes(disk)
    start = batches(data)[-1]
    whole = disk.fork(random.Random(0))
    torn = [data[:size] for size in range(start, len(data.rstrip(b"\0")), 37)]
    torn += [data[:place] + bytes(SECTOR) + data[place + SECTOR :] for place in range(start, len(data), SECTOR)]
    for each in torn:
        twin = whole.fork(random.Random(0))
        twin.overwrite(FIRST, each)
        async with serving(storage := on(twin)):
            found = await find(storage, ONE)
            assert (found.ids[-1], found.hard_state) == ("5@1", HardState(2, 3))
            assert len(twin.contents(FIRST)) == start
            await hold(storage, ONE).write_and_wait(entry(ONE, 6, 2))
        async with serving(storage := on(twin)):
            assert (await find(storage, ONE)).ids[-2:] == ["5@1", "6@2"]


async def test_the_same_in_an_older_batch_is_damage(disk: SimulatedDisk) -> None:
    data = await three_writes(disk)
    first, second, _ = batches(data)
    for damaged, offset in (
        (data[:first] + bytes(SECTOR) + data[first + SECTOR :], first),
        (data[:second] + bytes(SECTOR) + data[second + SECTOR :], second),
        (data[: second + 100] + b"?" + data[second + 101 :], second),
        (data[:first] + data[second:], first),
        (data + b"?", len(data)),
        (data + bytes(SECTOR - 1) + b"?", len(data)),
    ):
        twin = disk.fork(random.Random(0))
        twin.overwrite(FIRST, damaged)
        if offset == len(data) and len(damaged) < len(data) + SECTOR:
            assert await failure_of(twin) is None, "the file ends inside a batch"
            continue
        failure = await failure_of(twin)
        assert failure is not None
        assert (failure.path, failure.offset) == (FIRST, offset)
        assert twin.contents(FIRST) == damaged, "nothing was cut"


@pytest.mark.parametrize("path", [VOTE, FIRST])
async def test_every_byte_flipped(disk: SimulatedDisk, path: str) -> None:
    """All of the data, or a refusal that names path and offset."""
    await three_writes(disk)
    async with serving(storage := on(disk)):
        whole = await find(storage, ONE)
    data = disk.contents(path)
    refused = 0
    for place in range(0, len(data), 1 if path == VOTE else 7):
        disk.overwrite(path, data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        storage = on(disk)
        await storage.open(NODE_ID, CLUSTER_ID)
        failure = storage.recovered[1].failure
        if failure is None:
            assert await find(storage, ONE) == whole
        else:
            assert isinstance(failure, CorruptLogError)
            assert failure.path == path
            refused += 1
        await storage.aclose()
    # What may be flipped unnoticed is padding.
    assert refused > 0.5 * len(range(0, len(data), 1 if path == VOTE else 7))


@pytest.mark.parametrize(
    "harm, path, text",
    [
        pytest.param(lambda disk: disk.delete(VOTE), VOTE, "must not vote", id="no vote file"),
        pytest.param(lambda disk: disk.delete(FIRST), FIRST, "missing", id="the oldest file"),
        pytest.param(lambda disk: disk.delete(SECOND), SECOND, "missing", id="a file in the middle"),
        pytest.param(lambda disk: disk.delete(newest(disk)), None, "missing", id="the newest file"),
        pytest.param(lambda disk: disk.overwrite(SECOND, disk.contents(THIRD)), SECOND, "made as number 3", id="another file's bytes"),
        pytest.param(lambda disk: disk.overwrite(FIRST, b""), FIRST, "shorter than its header", id="an empty file"),
        pytest.param(lambda disk: disk.overwrite(VOTE, b""), VOTE, "not a vote file", id="an empty vote file"),
        pytest.param(
            lambda disk: disk.overwrite(VOTE, disk.contents("data/group-2/logs/vote.dat")), VOTE, "of group 2", id="another group's vote"
        ),
        pytest.param(
            lambda disk: disk.overwrite(FIRST, disk.contents("data/group-2/logs/entries-00000001.log")),
            FIRST,
            "batch",
            id="another group's log",
        ),
    ],
)
async def test_what_is_missing_or_foreign_is_refused(
    disk: SimulatedDisk, harm: Callable[[SimulatedDisk], None], path: str | None, text: str
) -> None:
    async with serving(storage := on(disk, max_log_file_size=4096)):
        one, two = await start_group(storage, ONE), await start_group(storage, TWO)
        await two.write_and_wait(*entries(TWO, 1, 3))
        for index in range(1, 21):
            await one.write_and_wait(entry(ONE, index, payload=b"x" * 700))
    path = path or newest(disk)
    harm(disk)
    before = {name: disk.contents(name) for name in files_of(disk, LOGS)}
    failure = await failure_of(disk)
    assert failure is not None
    assert (failure.path == path and text in str(failure)) or (failure.path.startswith(LOGS) and "are in no file" in str(failure))
    assert {name: disk.contents(name) for name in files_of(disk, LOGS)} == before, "nothing was touched"


async def test_its_directory_is_not_taken_for_an_empty_shared_log(disk: SimulatedDisk) -> None:
    await three_writes(disk)
    storage = on(disk)
    wal = WalStorage(storage.config, disk=disk.mount())
    with pytest.raises(StorageError, match="open it with FileStorage") as caught:
        await wal.open(1, "suite")
    assert caught.value.kind == "foreign"
    await wal.aclose()
    assert "wal" not in disk.names(storage.config.base_dir)


async def test_a_damaged_group_is_healed_by_its_removal(disk: SimulatedDisk) -> None:
    await three_writes(disk)
    disk.delete(VOTE)
    async with serving(storage := on(disk)):
        with pytest.raises(CorruptLogError):
            await storage.create_group(record(ONE))
        await storage.remove_group(ONE)
        group = await start_group(storage, GroupKey(1, 2))
        await group.write_and_wait(*entries(group.key, 1, 3))
    async with serving(storage := on(disk)):
        assert (await find(storage, GroupKey(1, 2))).ids == ["1@1", "2@1"]


async def test_entries_that_rot_later_are_not_served(disk: SimulatedDisk) -> None:
    async with serving(storage := on(disk)):
        group = await start_group(storage, ONE)
        await group.write_and_wait(*entries(ONE, 1, 4, payload=b"payload"))
        data = disk.contents(FIRST)
        file = disk._file(FIRST)
        file.data = bytearray(data.replace(b"payload", b"paYload"))
        with pytest.raises(CorruptLogError) as caught:
            await group.log.read(LoadEntries(None, 1, 3, 1000))
        assert caught.value.path == FIRST
        file.data = bytearray(data[:SECTOR])
        with pytest.raises(CorruptLogError):
            await group.log.read(LoadEntries(None, 1, 3, 1000))
        disk.delete(FIRST)
        with pytest.raises(CorruptLogError, match="missing"):
            await group.log.read(LoadEntries(None, 1, 3, 1000))


async def test_a_file_from_the_future_is_left_alone(disk: SimulatedDisk) -> None:
    await three_writes(disk)
    for path in (VOTE, FIRST):
        twin = disk.fork(random.Random(0))
        data = bytearray(twin.contents(path))
        data[12:16] = struct.pack("<I", 9)
        end = len(data) if path == VOTE else 80
        data[8:12] = struct.pack("<I", zlib.crc32(data[12:end]))
        twin.overwrite(path, bytes(data))
        storage = on(twin)
        with pytest.raises(StorageError, match="later version") as caught:
            await storage.open(NODE_ID, CLUSTER_ID)
        assert caught.value.kind == "format"
        await storage.aclose()


# -- writing -----------------------------------------------------------------------------------------------------------------------


async def test_one_sync_for_each_write_and_each_group(disk: SimulatedDisk) -> None:
    async with serving(storage := on(disk)):
        groups = [await start_group(storage, key) for key in (ONE, TWO, THREE)]
        before, count = disk.calls["sync"], storage.sync_count
        for group in groups:
            await group.write_and_wait(*entries(group.key, 1, 4), state=HardState(1, 1))
        assert (disk.calls["sync"] - before, storage.sync_count - count) == (3, 3)
        # What gathers while one is on its way is one more.
        for index in range(4, 24):
            groups[0].write(entry(ONE, index))
        await groups[0].listener.wait_confirmed(23)
        assert disk.calls["sync"] - before <= 5


async def test_groups_do_not_wait_for_each_other() -> None:
    """One group's file hangs; the others go on."""
    disk = SimulatedDisk(random.Random(1), dead_calls="raise")
    stuck = trio.Event()

    async def hang(call: DiskCall) -> None:
        if call.verb == "write" and call.path == FIRST:
            await stuck.wait()

    async with serving(storage := on(disk)):
        one, two = await start_group(storage, ONE), await start_group(storage, TWO)
        disk.hook = hang
        last = one.write(entry(ONE, 1))
        await two.write_and_wait(entry(TWO, 1))
        assert one.listener.confirmed == 0
        assert storage.sync_age() >= 0.0
        stuck.set()
        await one.listener.wait_confirmed(last)


async def test_a_failed_sync_ends_all_groups(disk: SimulatedDisk) -> None:
    async with serving(storage := on(disk)):
        one, two = await start_group(storage, ONE), await start_group(storage, TWO)
        disk.failing_syncs = 1
        one.write(entry(ONE, 1))
        await two.listener.wait_heard(1)
        assert [len(group.listener.failures) for group in (one, two)] == [1, 1]
        assert storage.sync_age() == math.inf
        with pytest.raises(StorageError):
            await storage.remove_group(TWO)


async def test_a_write_that_cannot_be_ends_its_group_only(disk: SimulatedDisk) -> None:
    async with serving(storage := on(disk)):
        one, two = await start_group(storage, ONE), await start_group(storage, TWO)
        await one.write_and_wait(state=HardState(5, 2))
        one.write(state=HardState(5, 3))
        await one.listener.wait_heard(2)
        assert "second vote" in str(one.listener.failures[0])
        await two.write_and_wait(entry(TWO, 1))
        one.write(entry(ONE, 1, 5))
        await trio.testing.wait_all_tasks_blocked()
        assert one.listener.confirmed == 1
        with pytest.raises(CorruptLogError):
            await one.log.read(LoadEntries(None, 1, 1, 1))


async def test_without_syncs_an_orderly_end_is_durable(disk: SimulatedDisk) -> None:
    async with serving(storage := on(disk, sync_on_write=False)):
        group = await start_group(storage, ONE)
        before = disk.calls["sync"]
        for index in range(1, 5):
            await group.write_and_wait(entry(ONE, index))
        assert disk.calls["sync"] == before
    disk.crash("none")
    async with serving(storage := on(disk)):
        assert len((await find(storage, ONE)).log) == 4


async def test_a_full_disk_at_every_step(disk: SimulatedDisk) -> None:
    """Each of the steps of a roll-over finds no space once; it goes on where it was."""
    for step in range(40):
        twin = disk.fork(random.Random(step))
        twin.dead_calls = "raise"
        async with serving(storage := on(twin, max_log_file_size=4096, space_poll_interval=0.001)):
            group = await start_group(storage, ONE)
            for index in range(1, 6):
                await group.write_and_wait(entry(ONE, index, payload=b"x" * 700))
            count = 0

            async def fill_once(call: DiskCall, step: int = step) -> None:
                nonlocal count
                if call.verb in ("create", "write", "rename"):
                    count += 1
                    if count == step:
                        raise OSError(28, "no space")

            twin.hook = fill_once
            for index in range(6, 12):
                await group.write_and_wait(entry(ONE, index, payload=b"x" * 700))
            twin.hook = None
            twin.crash("none")
        async with serving(storage := on(twin)):
            assert len((await find(storage, ONE)).log) == 11


async def test_a_write_that_hangs_is_given_up_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock stays, because the thread may still write."""
    from trioraft.storage import _disk

    released, hanging = threading.Event(), threading.Event()
    append = _disk._append

    def append_later(descriptor: int, *rest: object) -> None:
        if hanging.is_set():
            released.wait(20)
        append(descriptor, *rest)  # type: ignore[arg-type]  # of any type

    config = StorageConfig(base_dir=tmp_path / "data", shutdown_write_timeout=0.05)
    storage = FileStorage(config)
    monkeypatch.setattr(_disk, "_append", append_later)
    try:
        with trio.fail_after(10):
            async with serving(storage):
                group = await start_group(storage, ONE)
                hanging.set()
                group.write(entry(ONE, 1))
                await trio.testing.wait_all_tasks_blocked()
            assert [error.kind for error in group.listener.failures] == ["hung"]
            other = FileStorage(config)
            with pytest.raises(StorageError) as caught:
                await other.open(NODE_ID, CLUSTER_ID)
            assert caught.value.kind == "locked"
    finally:
        released.set()


async def test_real_files_of_a_killed_process(tmp_path: Path) -> None:
    """A copy of the directory, taken at any moment, is what a killed process leaves."""
    storage: MultiRaftStorage = FileStorage(StorageConfig(base_dir=tmp_path / "0", max_log_file_size=4096))
    confirmed = 0
    for number in range(1, 6):
        async with serving(storage):
            group = await start_group(storage, ONE)
            found = await find(storage, ONE)
            assert len(found.log) >= confirmed
            for index in range(len(found.log) + 1, len(found.log) + 15):
                group.write(entry(ONE, index, payload=os.urandom(200)))
                await trio.lowlevel.checkpoint()
            await group.listener.wait_confirmed(7)
            confirmed = len(found.log) + 7
            shutil.copytree(tmp_path / str(number - 1), tmp_path / str(number))
        storage = FileStorage(StorageConfig(base_dir=tmp_path / str(number), max_log_file_size=4096))


def newest(disk: SimulatedDisk) -> str:
    return f"{LOGS}/{[name for name in disk.names(LOGS) if name.startswith('entries')][-1]}"


def batches(data: bytes) -> list[int]:
    return [offset for offset in range(SECTOR, len(data), SECTOR) if data.startswith(b"TRIORBAT", offset)]


# -- removals ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [ONE, GroupKey(1, 7)], ids=str)
async def test_who_lost_its_vote_does_not_come_again_whoever_it_was(disk: SimulatedDisk, asked: GroupKey) -> None:
    """``vote.dat`` is unreadable; its log says which incarnation it was."""
    key = GroupKey(1, 5)
    async with serving(storage := on(disk)):
        group = await start_group(storage, key)
        await group.write_and_wait(*entries(key, 1, 4), state=HardState(9, 2))
    disk.overwrite(VOTE, disk.contents(VOTE)[:50] + b"?" + disk.contents(VOTE)[51:])
    async with serving(storage := on(disk)):
        assert storage.recovered[1].record is None
        await storage.remove_group(asked)
        assert storage.recovered[1].tombstone == max(asked, key)
        with pytest.raises(GroupExistsError):
            await storage.create_group(record(key))


@pytest.mark.parametrize("seed", range(8))
async def test_a_power_cut_in_the_start_after_a_kill_in_a_removal(seed: int) -> None:
    """The tombstone has its name, but for the disk; what it supersedes does not go first."""
    disk = SimulatedDisk(random.Random(seed), dead_calls="raise")
    async with serving(storage := on(disk)):
        group = await start_group(storage, ONE)
        await group.write_and_wait(*entries(ONE, 1, 5), state=HardState(3, 2))

        async def kill(call: DiskCall) -> None:
            if call.verb == "sync_directory" and call.path == LOGS:
                disk.hook = None
                disk.kill()

        disk.hook = kill
        with pytest.raises(StorageError):
            await storage.remove_group(ONE)

    async def cut(call: DiskCall) -> None:
        if call.verb == "sync_directory" and call.path == LOGS:
            disk.hook = None
            disk.crash("random")

    disk.hook = cut
    storage = on(disk)
    with pytest.raises(StorageError):
        await storage.open(NODE_ID, CLUSTER_ID)
    await storage.aclose()
    assert await failure_of(disk) is None


async def test_groups_of_twenty_digits_are_found_again(disk: SimulatedDisk) -> None:
    key = GroupKey((1 << 64) - 1)
    async with serving(storage := on(disk)):
        await start_group(storage, key)
    async with serving(storage := on(disk)):
        assert storage.recovered[key.group_id].record == record(key)


async def test_what_is_truncated_while_it_is_read_is_not_handed_on(disk: SimulatedDisk) -> None:
    """Also where nothing has taken its place."""
    async with serving(storage := on(disk, max_log_file_size=4096)):
        group = await start_group(storage, ONE)
        for index in range(1, 9):
            await group.write_and_wait(entry(ONE, index, payload=b"x" * 900))
        reads = 0

        async def truncate(call: DiskCall) -> None:
            nonlocal reads
            reads += call.verb == "read"
            if reads == 2:
                disk.hook = None
                await group.write_and_wait(entry(ONE, 2, 2))

        disk.hook = truncate
        found = await group.log.read(LoadEntries(None, 1, 8, 1 << 20))
        assert reads == 2
        assert [str(each.id) for each in found] in (["1@1"], ["1@1", "2@2"])
