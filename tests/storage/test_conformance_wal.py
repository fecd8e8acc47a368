"""The tables about damaged files and about log stores, against the log on a simulated disk.

The rule of this log on torn and damaged batches (see `docs/disk.md`) is stricter than some rows: where they differ, the rule wins, and
the row is marked.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Awaitable, Callable

import pytest

from tests.conformance.tables import Case, table
from tests.storage.kit import (
    FIRST,
    G1,
    LOG,
    SECOND,
    Group,
    batches,
    body_end,
    entries,
    found_on,
    hold,
    installing,
    patched,
    read,
    serving,
    start_group,
    state_of,
    wal,
)
from trioraft._errors import CorruptLogError, InvariantError, StorageError
from trioraft._types import EntryId
from trioraft.core import Configuration, Entry, EntryKind, HardState, LoadEntries, encode_configuration
from trioraft.storage import SimulatedDisk
from trioraft.wire import seal

ABOVE = "Does not apply: what is applied, and what is in a snapshot, is the group's concern; a storage knows only bytes."


async def one_batch_each(count: int, *, payload: bytes = b"payload", **options: int) -> tuple[SimulatedDisk, list[int]]:
    """A log of so many entries, a batch each. Returns where their batches start."""
    disk = SimulatedDisk(random.Random(1))
    storage = wal(disk.mount(), **options)
    async with serving(storage):
        group = await start_group(storage, G1)
        for index in range(1, count + 1):
            await group.write_and_wait(*entries(G1, index, index + 1, payload=payload))
    return disk, batches(disk.contents(FIRST))[1:]


async def kept(disk: SimulatedDisk) -> int:
    """Entries found, after a start that repairs what it may."""
    found = (await found_on(disk))[1]
    assert found.failure is None, found.failure
    return len(found.entries)


async def append(disk: SimulatedDisk, low: int, high: int) -> None:
    storage = wal(disk.mount(), seed=5)
    async with serving(storage):
        group = await start_group(storage, G1)
        await group.write_and_wait(*entries(G1, low, high))


@table("wal_recovery", "damage_table")
async def test_damage(case: Case) -> None:
    match case["name"]:
        case "cut 4 bytes off the last of 10 records":
            disk, starts = await one_batch_each(case["records"])
            data = disk.contents(FIRST)
            # The table's records are packed; here the last bytes of the file are padding, so the cut goes into the record.
            disk.overwrite(FIRST, data[: body_end(data, starts[-1]) - 4])
            assert await kept(disk) == case["kept"]
            await append(disk, 10, 20)
            assert await kept(disk) == 19
        case "512 zero bytes in the middle of record 2 of 5 (4096-byte payloads)":
            disk, starts = await one_batch_each(case["records"], payload=b"p" * 4096)
            disk.overwrite(FIRST, damaged := patched(disk.contents(FIRST), starts[1] + 2048, bytes(512)))
            failure = (await read(disk)).groups[1].failure
            assert isinstance(failure, CorruptLogError)
            assert (failure.path, failure.offset) == (FIRST, starts[1])
            await found_on(disk)
            assert disk.contents(FIRST) == damaged
        case "length field beyond file end":
            # NB: a length that rots does not match the header's checksum. That is damage: the batch may have been confirmed. Nothing
            # is allocated, and nothing shorter is served; that records 1 and 2 could be read is no reason to go on without 3.
            disk, starts = await one_batch_each(case["records"])
            disk.overwrite(FIRST, patched(disk.contents(FIRST), starts[2] + 40, struct.pack("<Q", 1000)))
            failure = (await read(disk)).groups[1].failure
            assert isinstance(failure, CorruptLogError)
            assert failure.offset == starts[case["kept"]]
        case "14 of 22 bytes of a record present":
            disk, starts = await one_batch_each(case["records"])
            disk.overwrite(FIRST, disk.contents(FIRST)[: starts[0] + 14])
            assert (await read(disk)).cut == starts[0]
            assert await kept(disk) == 0
        case "disk full on segment creation":
            disk = SimulatedDisk(random.Random(1), capacity=400)
            storage = wal(disk.mount())
            with pytest.raises(StorageError) as caught:
                await storage.open(1, "demo")
            assert caught.value.kind == "full"
            assert not any(name.endswith(".wal") for name in disk.names(LOG))
            disk.capacity = None
            assert await found_on(disk) == {}
            assert disk.names(LOG) == ["00000001.wal"]
        case "directory already has a WAL":
            # There is no creating as such. What is there is opened, if it is this node's, and refused otherwise.
            disk, _ = await one_batch_each(case["records"])
            with pytest.raises(StorageError) as caught:
                await wal(disk.mount()).open(2, "demo")
            assert caught.value.kind == "foreign"
            disk.delete("data/node.toml")
            with pytest.raises(StorageError) as caught:
                await wal(disk.mount()).open(1, "demo")
            assert caught.value.kind == "foreign"
        case "read before open":
            disk, _ = await one_batch_each(case["records"])
            storage = wal(disk.mount())
            assert dict(storage.recovered) == {}
            with pytest.raises(InvariantError):
                await storage.serve()
        case name:
            pytest.fail(f"no test for {name!r}")


@table("wal_recovery", "recovery_rules")
async def test_recovery_rules(case: Case) -> None:
    match case["name"]:
        case "tail ends without commit mark":
            disk, starts = await one_batch_each(3, payload=b"p" * 2000)
            disk.overwrite(FIRST, disk.contents(FIRST)[: starts[-1] + 1024])
            assert await kept(disk) == 2
        case "tail ends with a bad checksum at the last commit mark":
            # Stricter: only if it looks like an interrupted write. A bad checksum over whole sectors was written and synced.
            disk, starts = await one_batch_each(3, payload=b"p" * 2000)
            data = disk.contents(FIRST)
            disk.overwrite(FIRST, patched(data, starts[-1] + 1024, bytes(512)))
            assert await kept(disk) == 2
            disk.overwrite(FIRST, patched(data, starts[-1] + 1024, b"?"))
            assert (await read(disk)).groups[1].failure is not None
        case "bad checksum before the last commit mark":
            disk, starts = await one_batch_each(3)
            disk.overwrite(FIRST, patched(disk.contents(FIRST), starts[1] + 100, b"?"))
            assert (await read(disk)).groups[1].failure is not None
        case "non-tail segment short or damaged":
            disk, starts = await one_batch_each(12, payload=b"p" * 1000, max_log_file_size=4096)
            data = disk.contents(FIRST)
            for damaged in (data[:-512], data[: starts[-1]], patched(data, starts[-1] + 200, bytes(512))):
                disk.overwrite(FIRST, damaged)
                assert (await read(disk)).groups[1].failure is not None
        case "tail segment file missing though listed":
            disk, _ = await one_batch_each(12, payload=b"p" * 1000, max_log_file_size=4096)
            await found_on(disk)  # lists the newest file
            disk.delete(f"{LOG}/{disk.names(LOG)[-1]}")
            assert "missing" in str((await found_on(disk))[1].failure)
        case "segment on disk but not listed":
            # A file in the making has a temporary name, and is removed. One that has its name was made durable: it is not ours to lose.
            disk, _ = await one_batch_each(3)
            disk.overwrite(f"{SECOND}.tmp", disk.contents(FIRST))
            assert await kept(disk) == 3
            assert disk.names(LOG) == ["00000001.wal"]
            disk.overwrite(SECOND, disk.contents(FIRST))
            assert (await read(disk)).groups[1].failure is not None
        case "index/seal frame written, listing not updated":
            # There is no seal and no list: a file is finished when the next one is there.
            disk, _ = await one_batch_each(12, payload=b"p" * 1000, max_log_file_size=4096)
            twin = disk.fork(random.Random(1))
            for name in twin.names(LOG)[1:]:
                twin.delete(f"{LOG}/{name}")
            await append(twin, (count := await kept(twin)) + 1, count + 2)
            assert await kept(twin) == count + 1
        case "header does not match file name":
            disk, _ = await one_batch_each(3)
            disk.overwrite(SECOND, disk.contents(FIRST))
            recovery = await read(disk)
            assert recovery.damage is not None
            assert recovery.damage.path == SECOND
        case name:
            pytest.fail(f"no test for {name!r}")


@table("storage_log", "log_store_contract", leaves_out={11: ABOVE, 14: ABOVE, 15: ABOVE})
async def test_log_store_contract(case: Case) -> None:
    """The rows in a sentence each, before and after a restart; the suite of all storages has them in full."""
    disk = SimulatedDisk(random.Random(1))
    storage = wal(disk.mount())
    async with serving(storage):
        group = await start_group(storage, G1)
        check = await prepare(case["name"], group)
        await group.write_and_wait()
        await check(group)
    disk.crash("none")
    storage = wal(disk.mount(), seed=2)
    async with serving(storage):
        await check(hold(storage, G1))


Check = Callable[[Group], Awaitable[None]]


def holds(expected: list[str], *, start: str = "0@0", state: HardState | None = None) -> Check:
    """A check that the log is just that."""

    async def check(group: Group) -> None:
        found = (await state_of(group.storage))[group.key.group_id]
        assert [str(entry) for entry in found.entries] == expected
        assert str(found.start) == start
        assert state is None or found.hard_state == state

    return check


async def prepare(name: str, group: Group) -> Check:
    """Do what a row says; return what must hold then."""
    if name not in ("initial state", "vote round trip"):
        await group.write_and_wait(*entries(G1, 1, 11, term=4))
    ten = [f"{index}@4" for index in range(1, 11)]
    match name:
        case "append is readable":
            return holds(ten)
        case "range read":
            return lambda group: reads(group, 3, 7, 1 << 20, ten[2:7])
        case "limited read":
            return lambda group: reads(group, 3, 7, 1, ten[2:3])
        case "single read outside":
            return lambda group: reads(group, 20, 20, 1, [])
        case "initial state":
            return holds([], state=HardState())
        case "log state after purge to k":
            group.compact(10)
            return holds([], start="10@4")
        case "purge to 0 / 5 / 20 of 0..10":
            group.compact(5)
            await group.write_and_wait()
            await holds(ten[5:], start="5@4")(group)
            # There is no cutting beyond the end, but by installing a snapshot.
            await group.write_and_wait(install=installing(EntryId(4, 20)))
            return holds([], start="20@4")
        case "delete from 11 of 0..10":
            return holds(ten)
        case "delete from 0":
            await group.write_and_wait(*entries(G1, 1, 2, term=5))
            return holds(["1@5"])
        case "vote round trip":
            await group.write_and_wait(state=HardState(9, 3))
            return holds([], state=HardState(9, 3))
        case "members from log vs state machine":
            await write_configurations(group, 11, {4}, {5}, {6})
            group.compact(12)
            return lambda group: has_configurations(group, (12, {5}), (13, {6}))
        case "re-apply committed":
            group.compact(3, commit=7)
            return has_commit
        case "snapshot meta":
            await group.write_and_wait(install=installing(EntryId(4, 20), 7, 8))
            return lambda group: has_configurations(group, (20, {7, 8}))
    pytest.fail(f"no test for {name!r}")


async def reads(group: Group, first: int, last: int, bytes_max: int, expected: list[str]) -> None:
    assert [str(entry) for entry in await group.log.read(LoadEntries(None, first, last, bytes_max))] == expected


async def write_configurations(group: Group, first: int, *voters: set[int]) -> None:
    for index, ids in enumerate(voters, first):
        entry = Entry(index, 4, EntryKind.CONFIGURATION, encode_configuration(Configuration.bootstrap(ids)))
        seal(group.key, entry)
        await group.write_and_wait(entry)


async def has_configurations(group: Group, *expected: tuple[int, set[int]]) -> None:
    found = (await state_of(group.storage))[1].configurations
    assert found == tuple((index, Configuration.bootstrap(ids)) for index, ids in expected)


async def has_commit(group: Group) -> None:
    assert (await state_of(group.storage))[1].commit == 7
