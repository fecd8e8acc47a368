"""One task, one sync for all; and what it says when the disk fails, fills or hangs."""

from __future__ import annotations

import errno
import math
import random
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.storage.kit import (
    FIRST,
    G1,
    G2,
    LOG,
    SECOND,
    Listener,
    batches,
    entries,
    found_on,
    log_of,
    read,
    record,
    serving,
    start_group,
    wal,
)
from trioraft._errors import GroupNotFoundError, InvariantError, StorageError
from trioraft._types import GroupKey
from trioraft.core import Entry, EntryKind, HardState
from trioraft.storage import DiskCall, SimulatedDisk, StorageConfig, WalStorage
from trioraft.storage._batch import decode_batch_header
from trioraft.storage._committer import Mark
from trioraft.storage._disk_thread import DiskThread


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk(random.Random(1))


class Gate:
    """Holds the disk at one verb until it is opened."""

    def __init__(self, disk: SimulatedDisk, verb: str) -> None:
        self.verb, self.reached, self.may_pass = verb, trio.Event(), trio.Event()
        disk.hook = self

    async def __call__(self, call: DiskCall) -> None:
        if call.verb == self.verb and not self.may_pass.is_set():
            self.reached.set()
            await self.may_pass.wait()


# -- batches ---------------------------------------------------------------------------------------------------------------------


async def test_what_comes_during_a_sync_is_the_next_batch(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    async with serving(storage):
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        before = storage.sync_count
        gate = Gate(disk, "sync")
        first = one.write(*entries(G1, 1, 3))
        await gate.reached.wait()
        later = [one.write(*entries(G1, 3, 4)), two.write(*entries(G2, 1, 2)), one.write(*entries(G1, 4, 5))]
        await trio.testing.wait_all_tasks_blocked()
        assert one.listener.heard == two.listener.heard == [], "nothing is confirmed before its sync"
        gate.may_pass.set()
        await one.listener.wait_confirmed(later[2])
        assert one.listener.heard == [first, later[2]], "each group is told once for each batch"
        assert two.listener.heard == [later[1]]
        assert storage.sync_count - before == 2


async def test_a_batch_is_one_write_and_one_sync(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    async with serving(storage):
        groups = [await start_group(storage, GroupKey(number)) for number in range(1, 21)]
        disk.calls.clear()
        for group in groups:
            group.write(*entries(group.key, 1, 5))
        await groups[-1].listener.wait_confirmed(20)
        assert disk.calls == {"write": 1, "sync": 1}
    recovery = await read(disk)
    assert all(len(log_of(recovery, number)) == 4 for number in range(1, 21))


async def test_a_real_batch_is_one_thread_hop(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    hops = 0

    def count(run: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def counted(*arguments: object, **options: object) -> object:
            nonlocal hops
            hops += 1
            return await run(*arguments, **options)

        return counted

    storage = WalStorage(StorageConfig(base_dir=f"{tmp_path}/node"))
    async with serving(storage):
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        monkeypatch.setattr(trio.to_thread, "run_sync", count(trio.to_thread.run_sync))
        monkeypatch.setattr(DiskThread, "run", count(DiskThread.run))
        for index in range(1, 4):
            two.write(*entries(G2, index, index + 1))
            await one.write_and_wait(*entries(G1, index, index + 1))
            assert hops == index


async def test_batch_bytes_max_bounds_a_batch_but_never_splits_a_write(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount(), batch_bytes_max=8192)
    async with serving(storage):
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        for index in range(1, 9):
            one.write(*entries(G1, index, index + 1, payload=bytes(3000)))
        two.write(*entries(G2, 1, 5, payload=bytes(5000)), state=HardState(1, 1))
        await one.listener.wait_confirmed(8)
        assert len(one.listener.heard) == 4
        assert two.listener.heard == [9]
    data = disk.contents(FIRST)
    sizes = [decode_batch_header(data, start, data[32:48]).body_bytes for start in batches(data)]  # type: ignore[union-attr]  # of that kind
    *others, largest = sorted(sizes)
    assert others[-1] <= 8192
    assert largest > 20_000


async def test_has_room_until_queue_bytes_max_waits(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount(), queue_bytes_max=10_000)
    async with serving(storage):
        group = await start_group(storage, G1)
        gate = Gate(disk, "sync")
        group.write(*entries(G1, 1, 2, payload=bytes(9000)))
        assert storage.has_room
        await gate.reached.wait()
        last = group.write(*entries(G1, 2, 3, payload=bytes(2000)))
        assert not storage.has_room, "what is on its way to the disk counts too"
        gate.may_pass.set()
        await group.listener.wait_confirmed(last)
        assert storage.has_room


async def test_sync_age_is_the_time_in_the_hands_of_the_disk(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock) -> None:
    storage = wal(disk.mount())
    async with serving(storage):
        group = await start_group(storage, G1)
        assert storage.sync_age() == 0.0
        disk.sync_seconds = 3.0
        group.write(*entries(G1, 1, 2))
        await trio.sleep(2.0)
        assert storage.sync_age() == pytest.approx(2.0)
        await trio.sleep(1.5)
        assert group.listener.confirmed == 1
        assert storage.sync_age() == 0.0


async def test_writes_must_be_sealed_and_of_a_group_that_is_there(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    async with serving(storage):
        group = await start_group(storage, G1)
        with pytest.raises(InvariantError, match="unsealed"):
            group.write(Entry(1, 1, EntryKind.COMMAND, b""))
        await storage.remove_group(G1)
        with pytest.raises(InvariantError, match="removed"):
            group.write(*entries(G1, 1, 2))
        with pytest.raises(GroupNotFoundError):
            storage.get_log_storage(1)


# -- without sync_on_write -------------------------------------------------------------------------------------------------------


async def test_without_sync_on_write_only_marks_files_and_the_end_are_synced(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount(), sync_on_write=False, max_log_file_size=4096)
    async with serving(storage):
        group = await start_group(storage, G1)
        await group.write_and_wait(*entries(G1, 1, 2))
        twin = disk.fork(random.Random(2))
        twin.crash("none")
        assert log_of(await read(twin), 1) == [], "the group is a mark"
        disk.calls.clear()
        await group.write_and_wait(*entries(G1, 2, 6, payload=b"p" * 1000))
        assert disk.calls == {"write": 1}
        # The file is full: all of it is synced before there is another one.
        await group.write_and_wait(*entries(G1, 6, 7))
        twin = disk.fork(random.Random(2))
        twin.crash("none")
        assert len(log_of(await read(twin), 1)) == 5
    disk.crash("none")
    assert len(log_of(await read(disk), 1)) == 6


# -- ST-5: a sync fails ----------------------------------------------------------------------------------------------------------


async def test_ST_5_a_failed_sync_poisons_the_log(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    async with serving(storage):
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        await one.write_and_wait(*entries(G1, 1, 3))
        synced = disk.contents(FIRST)
        disk.failing_syncs = 1
        disk.calls.clear()
        one.write(*entries(G1, 3, 4))
        await trio.testing.wait_all_tasks_blocked()
        one.write(*entries(G1, 4, 5))
        two.write(*entries(G2, 1, 2))
        for listener, expected in ((one.listener, [1]), (two.listener, [])):
            *confirmed, error = listener.heard
            assert confirmed == expected, "nothing of the batch is acknowledged"
            assert isinstance(error, StorageError)
            assert error.kind == "io"
            assert error.path == LOG
        assert storage.sync_age() == math.inf
        assert not storage.has_room
        with pytest.raises(StorageError):
            await storage.create_group(record(GroupKey(3)))
        late = Listener()
        storage.get_log_storage(1).attach(late)
        assert len(late.heard) == 1, "who comes late is told as well"
        await trio.testing.wait_all_tasks_blocked()
        assert disk.calls == {"write": 1, "sync": 1}, "the same data is not synced again, and nothing is written any more"
    assert disk.calls == {"write": 1, "sync": 1}, "not even at the end"
    assert disk.contents(FIRST).startswith(synced)
    for keep in ("none", "all", "random"):
        twin = disk.fork(random.Random(3))
        twin.crash(keep)
        assert log_of(await read(twin), 1)[:2] == ["1@1", "2@1"]


async def test_ST_5_what_only_the_cache_has_is_not_recovered_as_if_it_were_on_the_disk(disk: SimulatedDisk) -> None:
    """After a failed sync the cache shows data that the disk does not have, and the next sync succeeds."""
    storage = wal(disk.mount())
    async with serving(storage):
        group = await start_group(storage, G1)
        disk.failing_syncs = 1
        group.write(*entries(G1, 1, 20, payload=b"p" * 500))
        await trio.testing.wait_all_tasks_blocked()
        assert storage.sync_age() == math.inf
    disk.kill()
    found = await found_on(disk)
    disk.crash("none")
    assert await found_on(disk) == found


@pytest.mark.parametrize("verb", ["sync_directory", "rename", "create", "sync"])
async def test_an_error_while_a_new_file_is_made_poisons_the_log_too(disk: SimulatedDisk, verb: str) -> None:
    storage = wal(disk.mount(), max_log_file_size=4096)
    async with serving(storage):
        group = await start_group(storage, G1)
        await group.write_and_wait(*entries(G1, 1, 5, payload=b"p" * 1000))

        async def fail(call: DiskCall) -> None:
            if call.verb == verb:
                raise OSError(errno.EIO, "simulated")

        disk.hook = fail
        group.write(*entries(G1, 5, 6))
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(group.listener.heard[-1], StorageError)
        disk.hook = None
    disk.crash("none")
    assert log_of(await read(disk), 1) == ["1@1", "2@1", "3@1", "4@1"]


# -- ST-6: the disk is full ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 1, 63, 64, 500, 512, 513, 1024, 1100, 1535])
async def test_ST_6_a_full_disk_is_a_state(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock, room: int) -> None:
    storage = wal(disk.mount(), space_poll_interval=2.0)
    async with serving(storage):
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        await one.write_and_wait(*entries(G1, 1, 3), state=HardState(1, 1))
        synced = disk.contents(FIRST)
        disk.capacity = disk._used() + room
        first = one.write(*entries(G1, 3, 6, payload=b"p" * 300))
        await trio.sleep(1.0)
        second = two.write(*entries(G2, 1, 2))
        third = one.write(*entries(G1, 6, 7))
        assert one.listener.heard == [1, False], "told once, and nothing of the batch is confirmed"
        assert two.listener.heard == [False]
        assert not storage.has_room
        assert storage.sync_age() == 0.0, "nothing is in the hands of the disk"
        assert disk.contents(FIRST) == synced, "cut to the last synced end"
        await trio.sleep(60.0)
        assert one.listener.heard == [1, False]
        assert disk.names(LOG)[:1] == ["00000001.wal"]
        assert len(disk.names(LOG)) <= 2, "a full disk is not littered with empty files"

        disk.capacity = None
        await trio.sleep(3.0)
        assert one.listener.heard == [1, False, True, first, third]
        assert two.listener.heard == [False, True, second]
        assert storage.has_room
        assert disk.names(LOG) == ["00000001.wal", "00000002.wal"]
    disk.crash("none")
    recovery = await read(disk)
    assert log_of(recovery, 1) == ["1@1", "2@1", "3@1", "4@1", "5@1", "6@1"]
    assert log_of(recovery, 2) == ["1@1"]


@pytest.mark.parametrize("verb", ["write", "create", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_ST_6_no_space_for_a_new_file(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock, verb: str, number: int) -> None:
    storage = wal(disk.mount(), max_log_file_size=4096)
    async with serving(storage):
        group = await start_group(storage, G1)
        await group.write_and_wait(*entries(G1, 1, 5, payload=b"p" * 1000))

        async def fail(call: DiskCall) -> None:
            if call.verb == verb:
                raise OSError(number, "simulated")

        disk.hook = fail
        last = group.write(*entries(G1, 5, 6))
        await trio.sleep(10)
        assert group.listener.heard == [1, False]
        disk.hook = None
        await trio.sleep(2)
        assert group.listener.heard == [1, False, True, last]
    disk.crash("none")
    assert len(log_of(await read(disk), 1)) == 5


async def test_ST_6_a_cut_that_cannot_be_synced_poisons_the_log(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    async with serving(storage):
        group = await start_group(storage, G1)
        disk.capacity = disk._used() + 100
        disk.failing_syncs = 1
        group.write(*entries(G1, 1, 3))
        await trio.testing.wait_all_tasks_blocked()
        assert [type(heard) for heard in group.listener.heard] == [StorageError]
        assert storage.sync_age() == math.inf


async def test_ST_6_a_crash_while_the_disk_is_full_loses_nothing_confirmed(
    disk: SimulatedDisk, autojump_clock: trio.testing.MockClock
) -> None:
    storage = wal(disk.mount())
    async with serving(storage):
        group = await start_group(storage, G1)
        await group.write_and_wait(*entries(G1, 1, 3))
        disk.capacity = disk._used() + 700
        group.write(*entries(G1, 3, 6, payload=b"p" * 300))
        await trio.sleep(5)
        disk.crash("random")
        disk.capacity = None
        assert log_of(await read(disk), 1) == ["1@1", "2@1"]


# -- ST-8: new files -------------------------------------------------------------------------------------------------------------


async def test_ST_8_a_new_file_has_its_name_durably_before_the_first_batch_in_it(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount(), max_log_file_size=4096)
    async with serving(storage):
        group = await start_group(storage, G1)
        await group.write_and_wait(*entries(G1, 1, 5, payload=b"p" * 1000))
        steps: list[tuple[str, str]] = []

        async def note(call: DiskCall) -> None:
            steps.append((call.verb, call.path.removeprefix(f"{LOG}/")))

        disk.hook = note
        await group.write_and_wait(*entries(G1, 5, 6))
        new = "00000002.wal"
        assert steps == [
            ("create", f"{new}.tmp"),
            ("write", f"{new}.tmp"),
            ("sync", f"{new}.tmp"),
            ("rename", new),
            ("sync_directory", LOG),
            ("open", new),
            ("write", new),
            ("sync", new),
            ("write", new),
            ("sync", new),
        ], "its name and its checkpoint are durable before any other batch"
    disk.crash("none")
    assert len(log_of(await read(disk), 1)) == 5
    assert disk.contents(SECOND)


# -- cancellation and the end ----------------------------------------------------------------------------------------------------


async def test_a_cancelled_committer_waits_for_its_write(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock) -> None:
    storage = wal(disk.mount(), shutdown_write_timeout=5.0)
    await storage.open(1, "demo")
    async with trio.open_nursery() as nursery:
        await nursery.start(storage.serve)
        group = await start_group(storage, G1)
        disk.sync_seconds = 3.0
        first = group.write(*entries(G1, 1, 2))
        await trio.sleep(1.0)
        group.write(*entries(G1, 2, 3))
        nursery.cancel_scope.cancel()
    assert group.listener.heard == [first], "the write in flight is confirmed, the queue is dropped"
    await storage.aclose()
    await storage.aclose()
    disk.crash("none")
    assert log_of(await read(disk), 1) == ["1@1"]


async def test_a_committer_under_steady_load_can_be_cancelled(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    await storage.open(1, "demo")
    async with trio.open_nursery() as nursery:
        await nursery.start(storage.serve)
        group = await start_group(storage, G1)
        index = 0

        async def keep_writing(call: DiskCall) -> None:
            nonlocal index
            index += 1
            group.write(*entries(G1, index, index + 1))
            if index == 20:
                nursery.cancel_scope.cancel()

        disk.hook = keep_writing
        group.write()
    disk.hook = None
    await storage.aclose()
    assert index < 25


async def test_a_hung_write_is_given_up_at_shutdown(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock) -> None:
    storage = wal(disk.mount(), shutdown_write_timeout=5.0)
    await storage.open(1, "demo")
    outcome: list[BaseException] = []

    async def create() -> None:
        try:
            await storage.create_group(record(G2))
        except StorageError as error:
            outcome.append(error)

    async with trio.open_nursery() as outer:
        async with trio.open_nursery() as nursery:
            await nursery.start(storage.serve)
            group = await start_group(storage, G1)
            disk.sync_seconds = math.inf
            group.write(*entries(G1, 1, 2))
            outer.start_soon(create)
            await trio.sleep(100)
            start = trio.current_time()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - start == pytest.approx(5.0)
    (error,) = group.listener.heard
    assert isinstance(error, StorageError)
    assert error.kind == "hung"
    assert outcome == [error], "who waits is told that the outcome is unknown"
    assert storage.sync_age() == math.inf
    await storage.aclose()
    disk.sync_seconds = 0.0
    with pytest.raises(StorageError, match="another node") as caught:
        await wal(disk.mount()).open(1, "demo")
    assert caught.value.kind == "locked", "the lock is kept until the process ends"
    disk.kill()
    await wal(disk.mount()).open(1, "demo")


async def test_a_mark_tells_its_end_whatever_became_of_it() -> None:
    told: list[str] = []
    for act in ("durable", "fail"):
        mark = Mark(lambda: told.append("durable"), lambda act=act: told.append(f"end of {act}"))  # type: ignore[misc]  # bound now
        for _ in range(2):
            mark.durable() if act == "durable" else mark.fail(StorageError("closed", "", ""))
    assert told == ["durable", "end of durable", "end of fail"]


async def test_closing_works_while_cancelled(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    await storage.open(1, "demo")
    with trio.CancelScope() as scope:
        scope.cancel()
        await storage.aclose()
    assert scope.cancelled_caught
    await wal(disk.mount()).open(1, "demo")


async def test_a_cancelled_open_releases_the_directory(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock) -> None:
    for verb in ("lock", "mkdir", "list", "create", "write", "sync", "rename", "sync_directory", "read"):
        Gate(disk, verb)
        with trio.move_on_after(1):
            await wal(disk.mount()).open(1, "demo")
        disk.hook = None
        storage = wal(disk.mount())
        await storage.open(1, "demo")
        await storage.aclose()


# -- groups that come and go -----------------------------------------------------------------------------------------------------


async def test_a_cancelled_create_may_have_happened_and_can_be_asked_for_again(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    async with serving(storage):
        gate = Gate(disk, "sync")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(storage.create_group, record(G1))
            await gate.reached.wait()
            nursery.cancel_scope.cancel()
        assert 1 not in storage.recovered
        before = storage.sync_count
        async with trio.open_nursery() as nursery:
            nursery.start_soon(storage.create_group, record(G1))
            await trio.testing.wait_all_tasks_blocked()
            gate.may_pass.set()
        assert storage.recovered[1].record == record(G1)
        await storage.create_group(record(G1))
        assert storage.sync_count == before + 1, "it was written once"
    disk.crash("none")
    assert (await read(disk)).groups[1].record == record(G1)


async def test_a_group_is_not_made_between_a_removal_and_its_tombstone(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    async with serving(storage):
        await storage.create_group(record(G1))
        gate = Gate(disk, "sync")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(storage.remove_group, G1)
            await gate.reached.wait()
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(storage.create_group, record(GroupKey(1, 2)))
            await trio.testing.wait_all_tasks_blocked()
            gate.may_pass.set()
        assert storage.recovered[1].record == record(GroupKey(1, 2))
    disk.crash("none")
    found = (await read(disk)).groups[1]
    assert found.failure is None
    assert found.record == record(GroupKey(1, 2))


async def test_writes_before_a_removal_do_not_come_back(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    async with serving(storage):
        group = await start_group(storage, G1)
        group.write(*entries(G1, 1, 9), state=HardState(3, 1))
        await storage.remove_group(G1)
        anew = await start_group(storage, GroupKey(1, 2))
        await anew.write_and_wait(state=HardState(1, 2))
        assert group.listener.heard == []
    found = (await read(disk)).groups[1]
    assert found.durable.hard_state == HardState(1, 2)
    assert list(found.durable.entries) == []
