"""What was written is read back: from any file, within limits, while the log goes on; and what is not there as it was is refused."""

from __future__ import annotations

import random

import attrs
import pytest
import trio
import trio.testing

from tests.storage.kit import FIRST, G1, G2, LOG, SECOND, Group, batches, entries, hold, installing, patched, serving, start_group, wal
from trioraft._errors import CorruptLogError, StorageError
from trioraft._types import EntryId
from trioraft.core import Entry, LoadEntries
from trioraft.storage import DiskCall, SimulatedDisk, _log_reader as log_reader_module
from trioraft.storage._committer import Mark
from trioraft.storage._segment import encode_carried
from trioraft.testing._storage_parts import entry

EVERYTHING = 1 << 40


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk(random.Random(1))


async def load(group: Group, first: int, last: int, bytes_max: int = EVERYTHING) -> list[str]:
    return [str(found) for found in await group.log.read(LoadEntries(None, first, last, bytes_max))]


def ids(low: int, high: int, term: int = 1) -> list[str]:
    return [f"{index}@{term}" for index in range(low, high)]


async def test_everything_that_was_written_is_read_from_anywhere(disk: SimulatedDisk) -> None:
    rng = random.Random(5)
    written: dict[int, list[Entry]] = {1: [], 2: []}
    storage = wal(disk.mount(), max_log_file_size=8192)
    async with serving(storage):
        groups = {1: await start_group(storage, G1), 2: await start_group(storage, G2)}
        for _ in range(60):
            number = rng.choice((1, 2))
            first = len(written[number]) + 1
            new = entries(groups[number].key, first, first + rng.randint(1, 4), payload=rng.randbytes(rng.choice((0, 40, 900))))
            await groups[number].write_and_wait(*new)
            written[number] += new
        assert len(disk.names(LOG)) > 4
        for life in range(2):
            for _ in range(200):
                number = rng.choice((1, 2))
                log = written[number]
                first = rng.randint(1, len(log))
                last, bytes_max = rng.randint(first, len(log)), rng.choice((0, 1, 50, 1000, 5000, EVERYTHING))
                found = await groups[number].log.read(LoadEntries(None, first, last, bytes_max))
                expected, size = log[first - 1 : last], 0
                assert list(found) == expected[: len(found)]
                assert [each.record for each in found] == [each.record for each in expected[: len(found)]]
                assert found
                size = sum(len(each.payload) for each in found)
                assert len(found) == 1 or size <= bytes_max
                assert len(found) == len(expected) or size + len(expected[len(found)].payload) > bytes_max, "as many as fit"
            if life == 0:
                await storage.aclose()
                disk.kill()
                storage = wal(disk.mount(), seed=2, max_log_file_size=8192)
                await storage.open(1, "demo")
                groups = {number: hold(storage, group.key) for number, group in groups.items()}
    await storage.aclose()


async def test_what_the_log_does_not_have_is_nothing(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    async with serving(storage):
        group = await start_group(storage, G1)
        assert await load(group, 1, 5) == []
        await group.write_and_wait(*entries(G1, 1, 9))
        group.compact(4)
        await group.write_and_wait()
        assert await load(group, 4, 9) == []
        assert await load(group, 9, 12) == []
        assert await load(group, 5, 12) == ids(5, 9)
        await group.write_and_wait(install=installing(EntryId(1, 6)))
        assert await load(group, 6, 8) == []
        assert await load(group, 7, 8) == ids(7, 9)
        await storage.remove_group(G1)
        with pytest.raises(StorageError, match="removed"):
            await load(group, 7, 8)


async def test_what_lies_close_together_is_read_at_once(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    async with serving(storage):
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        for index in range(1, 31):
            await one.write_and_wait(*entries(G1, index, index + 1))
            await two.write_and_wait(*entries(G2, index, index + 1, payload=bytes(40_000 if index == 20 else 10)))
        disk.calls.clear()
        assert await load(one, 1, 19) == ids(1, 20)
        assert disk.calls == {"open": 1, "read": 1}
        assert await load(one, 2, 30) == ids(2, 31)
        assert disk.calls == {"open": 1, "read": 3}, "the file is open; a gap of 40 kB is left out"
        assert await load(one, 5, 30, bytes_max=1) == ids(5, 6)
        assert disk.calls["read"] == 4


async def test_a_small_piece_of_a_large_write_reads_little(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    sizes: list[int] = []
    async with serving(storage):
        group = await start_group(storage, G1)
        await group.write_and_wait(*entries(G1, 1, 101, payload=bytes(20_000)))
        mount = storage._reader._disk
        read = mount.read

        async def measured(file: object, offset: int, size: int) -> bytes:
            sizes.append(size)
            return await read(file, offset, size)  # type: ignore[arg-type]  # of any type

        mount.read = measured  # type: ignore[method-assign]  # replaced on purpose
        for first in (1, 50, 100):
            assert await load(group, first, 100, bytes_max=20_000) == ids(first, first + 1)
    assert len(sizes) == 3
    assert max(sizes) <= 300_000


async def test_few_files_are_kept_open_and_none_that_is_gone(disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader_module, "FILES_OPEN_MAX", 2)
    storage = wal(disk.mount(), max_log_file_size=4096)
    closed: list[str] = []
    async with serving(storage):
        group = await start_group(storage, G1)
        for index in range(1, 7):
            await group.write_and_wait(*entries(G1, index, index + 1, payload=b"p" * 5000))
        mount = storage._reader._disk
        close = mount.close

        def note(file: object) -> None:
            closed.append(file.path)  # type: ignore[attr-defined]  # of the one in use
            close(file)  # type: ignore[arg-type]  # of any type

        mount.close = note  # type: ignore[method-assign]  # replaced on purpose
        disk.calls.clear()
        for index in (1, 2, 3, 2, 1):
            assert await load(group, index, index) == ids(index, index + 1)
        assert disk.calls["open"] == 4
        assert closed == [FIRST, f"{LOG}/00000003.wal"]
        storage._reader.forget(2)
        assert closed[-1] == SECOND
        storage._reader.forget(2)
        storage._reader.close()
        assert sorted(closed[2:]) == [FIRST, SECOND]


async def test_a_file_that_is_removed_while_it_is_read_is_closed_by_its_reader(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount(), max_log_file_size=4096)
    async with serving(storage):
        group = await start_group(storage, G1)
        await group.write_and_wait(*entries(G1, 1, 2, payload=b"p" * 5000))
        await group.write_and_wait(*entries(G1, 2, 3))
        reached, may_pass = trio.Event(), trio.Event()

        async def hold_reads(call: DiskCall) -> None:
            if call.verb == "read":
                reached.set()
                await may_pass.wait()

        closed: list[str] = []
        mount = storage._reader._disk
        close = mount.close
        mount.close = lambda file: (closed.append(file.path), close(file))[1]  # type: ignore[method-assign]  # replaced on purpose
        disk.hook = hold_reads
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load, group, 1, 1)
            await reached.wait()
            storage._reader.forget(1)
            assert closed == [], "a thread is reading it"
            may_pass.set()
        assert closed == [FIRST]
        disk.hook = None


async def test_what_moves_while_it_is_read_is_read_from_its_new_place(disk: SimulatedDisk) -> None:
    """The old file is removed between the plan and the read."""
    storage = wal(disk.mount(), max_log_file_size=4096)
    async with serving(storage):
        group = await start_group(storage, G1)
        await group.write_and_wait(old := entries(G1, 1, 2, payload=b"p" * 5000)[0])
        await group.write_and_wait(*entries(G1, 2, 3))

        async def move(call: DiskCall) -> None:
            if call.verb == "open" and call.path == FIRST:
                disk.hook = None
                mark = Mark()
                assert storage._committer is not None
                storage._committer.submit(1, encode_carried(G1, [old]), mark=mark)
                await mark.wait()
                assert storage._table.removable() == [1]
                storage._table.files.remove(1)
                disk.delete(FIRST)

        disk.hook = move
        assert await load(group, 1, 2) == ids(1, 3)
        assert storage._table.files.numbers == [2]


async def test_what_is_replaced_while_it_is_read_is_not_handed_on(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    async with serving(storage):
        group = await start_group(storage, G1)
        await group.write_and_wait(*entries(G1, 1, 9))

        async def replace(call: DiskCall) -> None:
            if call.verb == "read":
                disk.hook = None
                await group.write_and_wait(*entries(G1, 5, 8, term=2))

        disk.hook = replace
        found = await load(group, 3, 8)
        assert found in (ids(3, 5), ids(3, 5) + ids(5, 8, term=2))
        assert await load(group, 3, 8) == ids(3, 5) + ids(5, 8, term=2)


@pytest.mark.parametrize("kind", ["flip", "cut", "missing", "other"])
async def test_what_rotted_is_refused_with_path_and_offset(disk: SimulatedDisk, kind: str) -> None:
    storage = wal(disk.mount())
    async with serving(storage):
        group, other = await start_group(storage, G1), await start_group(storage, G2)
        await other.write_and_wait(*entries(G2, 1, 4))
        await group.write_and_wait(*entries(G1, 1, 4))
        await group.write_and_wait(*entries(G1, 4, 7))
        (extent,) = [each for each in storage._table.rows[1].extents_in(1) if each.first == 1]
        data = disk.contents(FIRST)
        if kind == "flip":
            disk.overwrite(FIRST, patched(data, extent.offset + 60, b"?"))
        elif kind == "cut":
            disk.overwrite(FIRST, data[: extent.offset + 60])
        elif kind == "missing":
            disk.delete(FIRST)
        else:
            records = b"".join(each.record for each in entries(G2, 1, 4))
            disk.overwrite(FIRST, patched(data, extent.offset, records))
        with pytest.raises(CorruptLogError) as caught:
            await load(group, 1, 3)
        assert (caught.value.path, caught.value.offset) == (FIRST, extent.offset)
        assert FIRST in str(caught.value)


@pytest.mark.parametrize("wrong", [(2, 1, 1), (1, 3, 1), (1, 2, 2)])
async def test_records_of_other_positions_are_refused(disk: SimulatedDisk, wrong: tuple[int, int, int]) -> None:
    """Each with a good checksum: a write that went to the wrong place."""
    storage = wal(disk.mount())
    async with serving(storage):
        group = await start_group(storage, G1)
        await group.write_and_wait(*entries(G1, 1, 3, payload=b"same size"))
        (extent,) = storage._table.rows[1].extents_in(1)
        first, second, term = wrong
        records = entry(G1, first, term, b"same size").record + entry(G1, second, term, b"same size").record
        disk.overwrite(FIRST, patched(disk.contents(FIRST), extent.offset, records))
        with pytest.raises(CorruptLogError) as caught:
            await load(group, 1, 2)
        assert (caught.value.path, caught.value.offset) == (FIRST, extent.offset)


async def test_an_error_of_the_disk_is_told_as_such(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    async with serving(storage):
        group = await start_group(storage, G1)
        await group.write_and_wait(*entries(G1, 1, 4))

        async def fail(call: DiskCall) -> None:
            if call.verb == "read":
                raise OSError(5, "simulated")

        disk.hook = fail
        with pytest.raises(StorageError, match="simulated") as caught:
            await load(group, 1, 3)
        assert (caught.value.kind, caught.value.path) == ("io", FIRST)
        disk.hook = None
        assert await load(group, 1, 3) == ids(1, 4), "and may be tried again"


async def test_every_byte_of_a_write_flipped(disk: SimulatedDisk) -> None:
    """While the node runs, and the batch's own checksum is not looked at: all the data, or a refusal."""
    storage = wal(disk.mount())
    async with serving(storage):
        group = await start_group(storage, G1)
        await group.write_and_wait(*(written := entries(G1, 1, 4)))
        data = disk.contents(FIRST)
        refused = 0
        for place in range(batches(data)[-1], len(data)):
            disk.overwrite(FIRST, patched(data, place, bytes([data[place] ^ 0x10])))
            storage._reader.close()
            try:
                found = await group.log.read(LoadEntries(None, 1, 3, EVERYTHING))
            except CorruptLogError as error:
                refused += error.path == FIRST
            else:
                assert found == written
        assert refused == sum(len(each.record) for each in written)


@attrs.define
class Slow:
    """Holds what is read until it may pass."""

    may_pass: trio.Event = attrs.Factory(trio.Event)

    async def __call__(self, call: DiskCall) -> None:
        if call.verb == "read":
            await self.may_pass.wait()


async def test_a_slow_read_holds_up_nobody_else(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    async with serving(storage):
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        await one.write_and_wait(*entries(G1, 1, 4))
        disk.hook = slow = Slow()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load, one, 1, 3)
            await trio.testing.wait_all_tasks_blocked()
            await two.write_and_wait(*entries(G2, 1, 4))
            await one.write_and_wait(*entries(G1, 4, 5))
            slow.may_pass.set()
        disk.hook = None
