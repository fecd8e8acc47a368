"""What the tests of the storage share: entries, a listener that remembers, and a node's storage on a simulated disk."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import attrs
import trio

from trioraft._errors import StorageError
from trioraft._types import GroupKey, Member
from trioraft.core import Configuration, Entry, EntryKind, HardState
from trioraft.storage import GroupRecord, MultiRaftStorage, SimulatedDisk, StorageConfig, WalStorage, WriteListener
from trioraft.storage._batch import decode_batch_header
from trioraft.storage._contract import LogStorage
from trioraft.storage._disk import Disk
from trioraft.storage._log_file import LogEnd
from trioraft.storage._recovery import Recovery, recover
from trioraft.wire import seal

BASE = "data"
LOG = "data/wal"
FIRST = "data/wal/00000001.wal"
SECOND = "data/wal/00000002.wal"
THIRD = "data/wal/00000003.wal"

G1, G2, G3 = GroupKey(1), GroupKey(2), GroupKey(3)


def entry(key: GroupKey, index: int, term: int = 1, payload: bytes | None = None) -> Entry:
    made = Entry(index, term, EntryKind.COMMAND, payload if payload is not None else f"{key} {index}@{term}".encode())
    seal(key, made)
    return made


def entries(key: GroupKey, low: int, high: int, term: int = 1, payload: bytes | None = None) -> tuple[Entry, ...]:
    return tuple(entry(key, index, term, payload) for index in range(low, high))


def record(key: GroupKey, *voters: int) -> GroupRecord:
    return GroupRecord(key, Member(1), Configuration.bootstrap(voters or (1, 2, 3)))


@attrs.define(eq=False)
class Listener:
    """A group's ear."""

    heard: list[object] = attrs.Factory(list)
    """Numbers as they are confirmed, errors, and True or False for space."""

    def persisted(self, sequence: int) -> None:
        self.heard.append(sequence)

    def storage_failed(self, error: StorageError) -> None:
        self.heard.append(error)

    def space_changed(self, available: bool) -> None:
        self.heard.append(available)

    @property
    def confirmed(self) -> int:
        return max((number for number in self.heard if type(number) is int), default=0)

    async def wait_until(self, sequence: int) -> None:
        while self.confirmed < sequence:
            await trio.lowlevel.checkpoint()


_: type[WriteListener] = Listener


@attrs.define(eq=False)
class Group:
    """A group as its driver would hold it."""

    storage: MultiRaftStorage
    key: GroupKey
    log: LogStorage
    listener: Listener

    def write(self, *new: Entry, state: HardState | None = None) -> int:
        sequence = self.storage.next_sequence()
        self.log.write(sequence, state, new)
        return sequence

    async def write_and_wait(self, *new: Entry, state: HardState | None = None) -> None:
        await self.listener.wait_until(self.write(*new, state=state))


async def start_group(storage: MultiRaftStorage, key: GroupKey) -> Group:
    await storage.create_group(record(key))
    log, listener = storage.get_log_storage(key.group_id), Listener()
    log.attach(listener)
    return Group(storage, key, log, listener)


def wal(disk: Disk, seed: int = 0, **options: Any) -> WalStorage:
    config = StorageConfig(base_dir=BASE, **options)
    return WalStorage(config, disk, random_bytes=random.Random(seed).randbytes)


@asynccontextmanager
async def serving(storage: MultiRaftStorage) -> AsyncIterator[trio.Nursery]:
    """Open a storage and let it work for a while."""
    await storage.open(1, "demo")
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(storage.serve)
            yield nursery
            nursery.cancel_scope.cancel()
    finally:
        await storage.aclose()


class Found(NamedTuple):
    """A group as found at a start, in a form that can be compared."""

    record: GroupRecord | None
    tombstone: GroupKey | None
    failure: str | None
    hard_state: HardState
    entries: tuple[Entry, ...]


def state_of(storage: MultiRaftStorage) -> dict[int, Found]:
    """All that a storage found."""
    return {
        group_id: Found(
            found.record,
            found.tombstone,
            None if found.failure is None else str(found.failure),
            found.durable.hard_state,
            tuple(found.durable.entries),
        )
        for group_id, found in storage.recovered.items()
    }


async def found_on(disk: SimulatedDisk) -> dict[int, Found]:
    """What the next process finds."""
    storage = wal(disk.mount(), seed=99)
    await storage.open(1, "demo")
    try:
        return state_of(storage)
    finally:
        await storage.aclose()


async def read(disk: SimulatedDisk) -> Recovery:
    """Read the log only, which changes nothing."""
    header = disk.contents(FIRST)
    return await recover(disk.mount(), LOG, header[64:80], least=LogEnd())


def log_of(recovery: Recovery, group_id: int) -> list[str]:
    return [str(found) for found in recovery.groups[group_id].durable.entries]


def batches(data: bytes) -> list[int]:
    """Where the batches of a log file start."""
    return [offset for offset in range(512, len(data), 512) if data.startswith(b"TRIORBAT", offset)]


def body_end(data: bytes, start: int) -> int:
    """Where the body of the batch at `start` ends, and its padding begins."""
    header = decode_batch_header(data, start, data[32:48])
    assert header is not None
    return start + header.body_offset + header.body_bytes


def patched(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


async def three_batches(disk: SimulatedDisk, *, last: Sequence[Entry] | None = None, **options: Any) -> bytes:
    """A log of groups 1 and 2 whose last batch (of group 1) spans several sectors. Returns its one file."""
    storage = wal(disk.mount(), **options)
    async with serving(storage):
        one, two = await start_group(storage, G1), await start_group(storage, G2)
        await one.write_and_wait(*entries(G1, 1, 4), state=HardState(1, 1))
        await two.write_and_wait(*entries(G2, 1, 3), state=HardState(1, 2))
        await one.write_and_wait(*(last or entries(G1, 4, 9, payload=b"payload " * 40)), state=HardState(2, 3))
    return disk.contents(FIRST)
