"""`MemoryStorage` beyond the contract: what tests do to it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trioraft._errors import StorageError
from trioraft._types import EntryId
from trioraft.core import Compaction
from trioraft.storage import MemoryStorage
from trioraft.testing._storage_parts import ONE, TWO, entries, find, record, serving, start_group


async def test_a_restart_loses_what_is_not_confirmed() -> None:
    storage = MemoryStorage()
    async with serving(storage):
        group = await start_group(storage, ONE)
        await group.write_and_wait(*entries(ONE, 1, 3))
        await group.save_snapshot(EntryId(1, 2))
        unfinished = await group.log.snapshots.create(EntryId(1, 1))
        storage.pause()
        group.write(*entries(ONE, 3, 5))
        group.log.compact(Compaction(EntryId(1, 2), EntryId(1, 2), 2))
        await trio.testing.wait_all_tasks_blocked()
        following = storage.restart()
        storage.resume()
        await trio.testing.wait_all_tasks_blocked()
        assert group.listener.heard == [1], "the dead hear nothing"
        with pytest.raises(StorageError):
            await unfinished.commit()
    async with serving(following):
        assert (await find(following, ONE)).ids == ["1@1", "2@1"]
        log = following.get_log_storage(1)
        (await log.snapshots.open(EntryId(1, 2))).close()
        with pytest.raises(StorageError):
            await log.snapshots.open(EntryId(1, 1))


async def test_pause_and_resume() -> None:
    storage = MemoryStorage(queue_bytes_max=100)
    async with serving(storage):
        group = await start_group(storage, ONE)
        storage.pause()
        last = group.write(*entries(ONE, 1, 9))
        await trio.testing.wait_all_tasks_blocked()
        assert not storage.has_room
        storage.resume()
        await group.listener.wait_confirmed(last)
        assert storage.has_room


async def test_space_and_failure() -> None:
    storage = MemoryStorage()
    async with serving(storage):
        group = await start_group(storage, ONE)
        storage.set_space(False)
        last = group.write(*entries(ONE, 1, 2))
        await trio.testing.wait_all_tasks_blocked()
        assert not storage.has_room
        with pytest.raises(StorageError) as caught:
            await group.log.snapshots.create(EntryId(1, 1))
        assert caught.value.kind == "full"
        storage.set_space(True)
        await group.listener.wait_confirmed(last)
        error = StorageError("io", "x", "failed")
        storage.fail(error)
        group.write(*entries(ONE, 2, 3))
        await trio.testing.wait_all_tasks_blocked()
        assert group.listener.heard == [False, True, 1, error]
        with pytest.raises(StorageError):
            await storage.create_group(record(TWO))


async def test_a_write_takes_time(autojump_clock: trio.testing.MockClock) -> None:
    storage = MemoryStorage(write_seconds=2.0)
    async with serving(storage):
        group = await start_group(storage, ONE)
        group.write(*entries(ONE, 1, 2))
        await trio.sleep(1.0)
        assert storage.sync_age() == pytest.approx(1.0)
        assert group.listener.heard == []
        await trio.sleep(1.5)
        assert group.listener.heard == [1]


async def test_a_removed_group_has_no_snapshots_and_no_log() -> None:
    storage = MemoryStorage()
    async with serving(storage):
        group = await start_group(storage, ONE)
        writer = await group.log.snapshots.create(EntryId(1, 2))
        await storage.remove_group(ONE)
        with pytest.raises(StorageError):
            await writer.append(b"late")
        with pytest.raises(StorageError):
            await writer.commit()
        await writer.discard()
