"""A new log file begins with a checkpoint, and whatever happens to it, nothing is lost and nothing comes back."""

from __future__ import annotations

import errno
import random
from collections import Counter

import pytest
import trio
import trio.testing

from tests.storage.kit import (
    FIRST,
    G1,
    G2,
    LOG,
    SECOND,
    THIRD,
    Group,
    batches,
    entries,
    found_on,
    hold,
    log_of,
    patched,
    read,
    record,
    serving,
    start_group,
    state_of,
    wal,
)
from trioraft._errors import StorageError
from trioraft._types import GroupKey
from trioraft.core import HardState
from trioraft.storage import DiskCall, SimulatedDisk, WalStorage, _committer as committer_module
from trioraft.storage._batch import decode_batch_header, decode_group_ids
from trioraft.storage._committer import Mark
from trioraft.storage._row import Row
from trioraft.storage._segment import encode_carried
from trioraft.storage._simulated_disk import Keep

KEEPS: tuple[Keep, ...] = ("none", "all", "random")
GROUPS = [GroupKey(number) for number in range(1, 9)]


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk(random.Random(1))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of a few groups takes several batches."""
    monkeypatch.setattr(committer_module, "CHECKPOINT_BATCH_BYTES", 500)


async def fill(storage: WalStorage) -> dict[int, Group]:
    """Several groups and a tombstone in the first file, which is full then."""
    groups = {key.group_id: await start_group(storage, key) for key in GROUPS}
    for key, group in (await_order := list(zip(GROUPS, groups.values(), strict=True))):
        group.write(*entries(key, 1, 4), state=HardState(key.group_id, key.group_id))
    await await_order[-1][1].write_and_wait(*entries(GROUPS[-1], 4, 6, term=8))
    await storage.remove_group(GROUPS[2])
    await groups[1].write_and_wait(*entries(G1, 4, 5, payload=b"p" * 6000))
    return groups


async def test_a_new_file_begins_with_all_rows(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount(), max_log_file_size=12_000)
    async with serving(storage):
        groups = await fill(storage)
        assert disk.names(LOG) == ["00000001.wal"]
        await groups[2].write_and_wait(*entries(G2, 4, 6, term=2))
        assert disk.names(LOG) == ["00000001.wal", "00000002.wal"]
        assert storage._table.files.is_complete(2)
    assert len(batches(disk.contents(SECOND))) == 4, "several for the checkpoint, one for the write"
    expected = await found_on(disk)
    assert expected[3].tombstone == GROUPS[2]
    assert len(expected[2].entries) == 5
    recovery = (await read(disk)).recovery
    assert recovery.table.files.is_complete(2)
    assert recovery.end.checkpoint_size == batches(disk.contents(SECOND))[-1]


async def test_a_start_may_begin_with_any_file_that_has_a_checkpoint(disk: SimulatedDisk) -> None:
    """Votes, tombstones, configurations and everything else are in it; only entries that nobody moved are missed, and named."""
    storage = wal(disk.mount(), max_log_file_size=12_000)
    async with serving(storage):
        groups = await fill(storage)
        await groups[2].write_and_wait(*entries(G2, 4, 6, term=2))
        for key in (G1, G2):
            mark, moved = Mark(), (await state_of(storage))[key.group_id].entries
            assert storage._committer is not None
            storage._committer.submit(key.group_id, encode_carried(key, moved), mark=mark)
            await mark.wait()
    before = await found_on(disk)
    disk.delete(FIRST)
    after = await found_on(disk)
    assert {number for number in before if before[number] == after[number]} == {1, 2, 3}
    for number in (4, 5, 6, 7):
        assert after[number].failure == f"{SECOND}: damaged at offset 0: entries 1 to 3 of group {number} are in no file"
    storage = wal(disk.mount())
    async with serving(storage):
        one = hold(storage, G1)
        await one.write_and_wait(*entries(G1, 5, 7))
        await start_group(storage, GroupKey(3, 2))
    assert log_of(await read(disk), 1) == ["1@1", "2@1", "3@1", "4@1", "5@1", "6@1"]


async def test_a_log_that_begins_with_no_checkpoint_refuses_everything(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount(), max_log_file_size=12_000)
    async with serving(storage):
        groups = await fill(storage)
        await groups[2].write_and_wait(*entries(G2, 4, 6, term=2))
    disk.delete(FIRST)
    data = disk.contents(SECOND)
    disk.overwrite(SECOND, patched(data, batches(data)[-2] + 100, b"?"))
    log = await read(disk)
    assert log.damage is not None
    assert (log.damage.path, "checkpoint" in str(log.damage)) == (SECOND, True)
    assert log.groups.keys() == {key.group_id for key in GROUPS}
    assert all(group.failure is not None for group in log.groups.values())


async def test_a_row_that_contradicts_what_was_read_is_damage(disk: SimulatedDisk) -> None:
    """As if the first file had been put back from a copy, in a way that no sequence shows."""
    storage = wal(disk.mount(), max_log_file_size=12_000)
    async with serving(storage):
        groups = await fill(storage)
        storage._table.rows[1].hard_state = HardState(9, 9)
        storage._table.rows[20] = Row.living(record(GroupKey(20)))
        storage._table.encoded_rows.forget({1})
        await groups[2].write_and_wait(*entries(G2, 4, 6, term=2))
    log = await read(disk)
    failed = {number: str(group.failure) for number, group in log.groups.items() if group.failure is not None}
    assert set(failed) == {1, 20}
    assert "says otherwise" in failed[1]
    assert "never made" in failed[20]
    assert SECOND in failed[1]
    assert SECOND in failed[20]


# -- crashes ---------------------------------------------------------------------------------------------------------------------------


async def test_a_crash_at_every_operation_of_a_roll_over(disk: SimulatedDisk, capsys: pytest.CaptureFixture[str]) -> None:
    moments: list[tuple[SimulatedDisk, str]] = []
    storage = wal(disk.mount(), max_log_file_size=12_000)
    async with serving(storage):
        groups = await fill(storage)
        before = await state_of(storage)

        async def note(call: DiskCall) -> None:
            moments.append((disk.fork(random.Random(call.number)), f"{call.verb} {call.path}"))

        disk.hook = note
        await groups[2].write_and_wait(*entries(G2, 4, 6, term=2))
        disk.hook = None
        moments.append((disk.fork(random.Random(0)), "the end"))
        after = await state_of(storage)
    counts: Counter[str] = Counter()
    for seed in range(6):
        for moment, step in moments:
            for keep in KEEPS if seed == 0 else KEEPS[2:]:
                twin = moment.fork(random.Random(f"{seed} {step} {keep}"))
                twin.crash(keep)
                counts[keep] += 1
                found = await found_on(twin)
                assert found in (before, after), f"{step}, keeping {keep}"
                assert step != "the end" or found == after
                await _goes_on(twin, found)
    with capsys.disabled():
        print(f" {len(moments)} operations, crashes: {dict(counts)}", end="")


async def _goes_on(disk: SimulatedDisk, found: dict[int, object]) -> None:
    """The log takes more; a file whose checkpoint was not finished has one then."""
    storage = wal(disk.mount(), max_log_file_size=12_000)
    async with serving(storage):
        await start_group(storage, GroupKey(30))
        newest = storage._table.files.numbers[-1]
        assert newest == 1 or storage._table.files.is_complete(newest)
    disk.crash("none")
    after: dict[int, object] = dict(await found_on(disk))
    assert after.pop(30)
    assert after == found


# -- no space ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 300, 511, 512, 600, 1024, 1500, 2000, 2700, 3400, 4000, 4600])
async def test_no_space_within_a_checkpoint(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock, room: int) -> None:
    storage = wal(disk.mount(), max_log_file_size=12_000, space_poll_interval=2.0)
    async with serving(storage):
        groups = await fill(storage)
        before = await state_of(storage)
        disk.capacity = disk._used() + room
        last = groups[2].write(*entries(G2, 4, 6, term=2, payload=b"q" * 700))
        await trio.sleep(30)
        assert groups[2].listener.confirmed < last
        assert groups[1].listener.heard[-1] is False
        assert len(disk.names(LOG)) <= 3, "a full disk is not littered with unfinished files"
        for keep in KEEPS:
            twin = disk.fork(random.Random(room))
            twin.crash(keep)
            assert await found_on(twin) == before
        disk.capacity = None
        await trio.sleep(3)
        assert groups[2].listener.confirmed == last
        assert groups[1].listener.heard[-1] is True
        assert storage._table.files.is_complete(storage._table.files.numbers[-1])
        after = await state_of(storage)
        assert [name for name in disk.names(LOG) if name.endswith(".wal")] == ["00000001.wal", "00000002.wal"] or room >= 4000
    disk.crash("none")
    assert await found_on(disk) == after
    assert len(after[2].entries) == 5


async def test_an_error_within_a_checkpoint_poisons_the_log(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount(), max_log_file_size=12_000)
    async with serving(storage):
        groups = await fill(storage)
        before = await state_of(storage)

        async def fail(call: DiskCall) -> None:
            if call.verb == "sync" and call.path == SECOND:
                raise OSError(errno.EIO, "simulated")

        disk.hook = fail
        groups[2].write(*entries(G2, 4, 6, term=2))
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(groups[1].listener.heard[-1], StorageError)
        disk.hook = None
    disk.crash("random")
    assert await found_on(disk) == before


# -- rot ---------------------------------------------------------------------------------------------------------------------------------


async def test_every_byte_of_a_checkpoint_flipped(disk: SimulatedDisk) -> None:
    """All the data, or a refusal that names file and offset; where older files are there, and where they are not."""
    storage = wal(disk.mount(), max_log_file_size=12_000)
    async with serving(storage):
        for key in (G1, G2):
            group = await start_group(storage, key)
            await group.write_and_wait(*entries(key, 1, 3))
        await group.write_and_wait(*entries(G2, 3, 4, payload=b"p" * 11_000))
        await group.write_and_wait(*entries(G2, 4, 5))
        for key in (G1, G2):
            mark = Mark()
            assert storage._committer is not None
            moved = (await state_of(storage))[key.group_id].entries[:1000]
            storage._committer.submit(key.group_id, encode_carried(key, moved), mark=mark)
            await mark.wait()
    data = disk.contents(SECOND)
    alone = disk.fork(random.Random(2))
    alone.delete(FIRST)
    store_id = data[64:80]
    for twin in (disk, alone):
        whole = await read(twin, store_id)
        assert all(group.failure is None for group in whole.groups.values())
        for place in [*range(80), *range(512, batches(data)[2])]:
            twin.overwrite(SECOND, patched(data, place, bytes([data[place] ^ (0x01, 0xFF)[place % 2]])))
            log = await read(twin, store_id)
            assert log.cut is None, place
            failures = [group.failure for group in log.groups.values() if group.failure is not None]
            if log.damage is not None:
                failures.append(log.damage)
            for failure in failures:
                assert isinstance(failure, StorageError)
                assert failure.path == SECOND, place
                assert "offset" in str(failure)
            for number, group in whole.groups.items():
                if number not in log.groups:
                    assert log.damage is not None, place
                elif log.groups[number].failure is None:
                    assert log.groups[number] == group, place
                    assert log.entries[number] == whole.entries[number]


async def test_damage_in_an_old_file_keeps_all_files(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock) -> None:
    """And no checkpoint says anything of the damaged group; the others go on for many files, with the cleaner at work."""
    storage = wal(disk.mount(), max_log_file_size=12_000)
    async with serving(storage):
        await fill(storage)
    data = disk.contents(FIRST)
    disk.overwrite(FIRST, damaged := patched(data, batches(data)[-1] + 3000, b"?"))
    storage = wal(disk.mount(), max_log_file_size=4096, cleaning=True)
    async with serving(storage):
        assert storage.recovered[1].failure is not None
        two = hold(storage, G2)
        for index in range(4, 12):
            await two.write_and_wait(*entries(G2, index, index + 1, term=2, payload=b"p" * 3000))
            two.compact(index)
        await trio.sleep(100)
        assert storage._table.removable() == []
        count = len(disk.names(LOG))
        assert count > 4
    assert disk.contents(FIRST) == damaged
    storage = wal(disk.mount(), max_log_file_size=4096, cleaning=True)
    async with serving(storage):
        assert storage.recovered[1].failure is not None
        await storage.remove_group(G1)
        two = hold(storage, G2)
        for index in range(12, 18):
            await two.write_and_wait(*entries(G2, index, index + 1, term=2, payload=b"p" * 3000))
            two.compact(index)
        await trio.sleep(100)
        assert FIRST.rsplit("/", 1)[1] not in disk.names(LOG), "healed: nothing is kept for its sake any more"
        assert len(disk.names(LOG)) < count


# -- what checkpoints and the cleaner are for ----------------------------------------------------------------------------------------------


async def test_ST_14_an_idle_group_outlives_fifty_files(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock) -> None:
    """Its vote, its members and its entries are there, all of them, and the old files are not."""
    storage = wal(disk.mount(), max_log_file_size=4096, cleaning=True)
    async with serving(storage):
        idle, two, three = [await start_group(storage, GroupKey(number)) for number in (1, 2, 3)]
        await idle.write_and_wait(*entries(G1, 1, 6), state=HardState(4, 2))
        before = (await state_of(storage))[1]
        index = 0
        while storage._table.files.numbers[-1] <= 50:
            index += 1
            for group in (two, three):
                await group.write_and_wait(*entries(group.key, index, index + 1, payload=b"p" * 1500))
                if index % 7 == 0:
                    group.compact(index - 3)
        await trio.sleep(100)
        assert storage._table.files.numbers[0] > 45
        assert (await state_of(storage))[1] == before
    for _ in range(2):
        disk.crash("none")
        assert (await found_on(disk))[1] == before
    whole, store_id = await read(disk), disk.contents(f"{LOG}/{disk.names(LOG)[0]}")[64:80]
    for name in disk.names(LOG):
        twin = disk.fork(random.Random(3))
        twin.delete(f"{LOG}/{name}")
        assert (await read(twin, store_id)).groups != whole.groups, "each file that is left is needed"


async def test_files_are_full_of_what_is_new(disk: SimulatedDisk) -> None:
    """However small files are, and however large the checkpoint: at least half of each is something else."""
    storage = wal(disk.mount(), max_log_file_size=4096)
    async with serving(storage):
        for number in range(100):
            await storage.create_group(record(GroupKey(number)))
        group = hold(storage, GroupKey(5))
        for index in range(1, 100):
            await group.write_and_wait(*entries(group.key, index, index + 1, payload=b"p" * 1000))
        end = storage._log_file().end
        assert end.checkpoint_size > 20_000
        assert end.number < 14
    assert THIRD.rsplit("/", 1)[1] in disk.names(LOG)


# -- rot in the only checkpoint ----------------------------------------------------------------------------------------------------------


async def only_checkpoint(disk: SimulatedDisk) -> str:
    """Three groups in a log whose oldest file is not the first. Returns that file."""
    async with serving(storage := wal(disk.mount(), max_log_file_size=4096, cleaning=True)):
        groups = [await start_group(storage, GroupKey(number)) for number in (1, 2, 3)]
        for index in range(1, 12):
            for group in groups:
                await group.write_and_wait(*entries(group.key, index, index + 1, payload=b"p" * 700))
                group.compact(index)
        await trio.sleep(100)
        file = storage._table.files.numbers[0]
        assert file > 1
    return f"{LOG}/{file:08}.wal"


async def test_rot_in_one_batch_of_the_only_checkpoint_takes_only_those_whom_it_names(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(committer_module, "CHECKPOINT_BATCH_BYTES", 1)
    path = await only_checkpoint(disk)
    whole, data = await found_on(disk), disk.contents(path)
    assert [set(decode_group_ids(data, offset, decode_batch_header(data, offset, data[32:48]))) for offset in batches(data)[:4]] == [
        {1},
        {2},
        {3},
        set(),
    ]
    for number in (1, 2, 3):
        twin = disk.fork(random.Random(number))
        twin.overwrite(path, patched(data, batches(data)[number - 1] + 100, b"?"))
        found = await found_on(twin)
        assert found.keys() == {1, 2, 3}
        assert "does not match its checksum" in str(found.pop(number).failure)
        assert found == {other: whole[other] for other in found}
        log = await read(twin)
        assert not log.recovery.table.files.is_complete(log.recovery.table.files.numbers[0])
        assert log.recovery.table.removable() == []


async def test_where_it_is_not_known_what_a_checkpoint_lacks_all_are_refused_by_name(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(committer_module, "CHECKPOINT_BATCH_BYTES", 1)
    path = await only_checkpoint(disk)
    data = disk.contents(path)
    for place, number in ((0, 1), (1, 2), (2, 3), (3, None)):  # the header of a row's batch, and of the end's
        twin = disk.fork(random.Random(place))
        twin.overwrite(path, patched(data, batches(data)[place] + 1, b"?"))
        found = await found_on(twin)
        assert {1, 2, 3} - {number} <= found.keys()
        assert all(group.failure is not None for group in found.values())
