"""What the tests of the storage share: what those of any storage are made of, and a node's storage on a simulated disk."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import attrs
import trio

from trioraft._errors import StorageError
from trioraft._types import EntryId, GroupKey, Member
from trioraft.core import Compaction, Configuration, Entry, HardState, InstallSnapshot, LoadEntries
from trioraft.storage import GroupRecord, MultiRaftStorage, SimulatedDisk, StorageConfig, WalStorage
from trioraft.storage._batch import decode_batch_header
from trioraft.storage._committer import Committer
from trioraft.storage._contract import LogStorage, RecoveredGroup
from trioraft.storage._disk import Disk
from trioraft.storage._group_directory import GroupDirectories
from trioraft.storage._group_log import GroupLog
from trioraft.storage._log_file import LogEnd
from trioraft.storage._log_reader import LogReader
from trioraft.storage._node_file import NodeFile
from trioraft.storage._recovery import Recovery, recover
from trioraft.storage._row import Row
from trioraft.storage._table import Table
from trioraft.testing._storage_parts import HeldGroup, Listener, entries, record

BASE = "data"
LOG = "data/wal"
FIRST = "data/wal/00000001.wal"
SECOND = "data/wal/00000002.wal"
THIRD = "data/wal/00000003.wal"

G1, G2, G3 = GroupKey(1), GroupKey(2), GroupKey(3)


class Group(HeldGroup):
    """A group as its driver would hold it."""

    def compact(self, start: int, *, commit: int = 0) -> None:
        """Cut the log, behind a snapshot that reaches up to there."""
        terms = self.storage.recovered[self.key.group_id].durable.terms
        at = EntryId(terms.at(start), start)
        self.log.compact(Compaction(at, at, max(start, commit)))


def hold(storage: MultiRaftStorage, key: GroupKey) -> Group:
    """A group that exists."""
    log, listener = storage.get_log_storage(key.group_id), Listener()
    log.attach(listener)
    return Group(storage, key, log, listener, storage.recovered[key.group_id].durable.hard_state.term)


async def start_group(storage: MultiRaftStorage, key: GroupKey, made: GroupRecord | None = None) -> Group:
    await storage.create_group(made or record(key))
    return hold(storage, key)


def installing(at: EntryId, *voters: int) -> InstallSnapshot:
    return InstallSnapshot(Member(2), Member(1), at.term, at, Configuration.bootstrap(voters or (1, 2, 3)))


class UncleanedStorage(WalStorage):
    """Its files stay as they were written, for tests that look into them."""

    async def _prepare_cleaner(self, node_file: NodeFile) -> None:
        await super()._prepare_cleaner(node_file)
        self._cleaner = None


def wal(disk: Disk, seed: int = 0, *, cleaning: bool = False, **options: Any) -> WalStorage:
    config = StorageConfig(base_dir=BASE, **options)
    return (WalStorage if cleaning else UncleanedStorage)(config, disk, random_bytes=random.Random(seed).randbytes)


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
    start: EntryId
    snapshot: EntryId
    commit: int
    configurations: tuple[tuple[int, Configuration], ...]
    entries: tuple[Entry, ...]


async def read_all(log: LogStorage, found: RecoveredGroup) -> tuple[Entry, ...]:
    """All entries of a group that is there."""
    terms = found.durable.terms
    if terms.last_index == terms.start.index:
        return ()
    read = await log.read(LoadEntries(None, terms.start.index + 1, terms.last_index, 1 << 40))
    assert [entry.id for entry in read] == [EntryId(terms.at(entry.index), entry.index) for entry in read]
    assert read[-1].id == terms.last
    return read


def _found(found: RecoveredGroup, entries: tuple[Entry, ...]) -> Found:
    durable = found.durable
    return Found(
        found.record,
        found.tombstone,
        None if found.failure is None else str(found.failure),
        durable.hard_state,
        durable.terms.start,
        durable.snapshot,
        durable.commit,
        tuple(durable.configurations),
        entries,
    )


async def state_of(storage: MultiRaftStorage) -> dict[int, Found]:
    """All that a storage found."""
    state = {}
    for group_id, found in storage.recovered.items():
        is_living = found.record is not None and found.failure is None
        state[group_id] = _found(found, await read_all(storage.get_log_storage(group_id), found) if is_living else ())
    return state


async def found_on(disk: SimulatedDisk) -> dict[int, Found]:
    """What the next process finds."""
    storage = wal(disk.mount(), seed=99)
    await storage.open(1, "demo")
    try:
        return await state_of(storage)
    finally:
        await storage.aclose()


@attrs.frozen
class Log:
    """What a look at the log shows, with all entries."""

    recovery: Recovery
    entries: dict[int, tuple[Entry, ...]]

    @property
    def groups(self) -> dict[int, RecoveredGroup]:
        return {group_id: row.recovered() for group_id, row in sorted(self.recovery.table.rows.items())}

    @property
    def damage(self) -> StorageError | None:
        return self.recovery.table.damage

    @property
    def cut(self) -> int | None:
        return self.recovery.cut

    @property
    def end(self) -> LogEnd:
        return self.recovery.end


async def read(disk: SimulatedDisk, store_id: bytes | None = None) -> Log:
    """Read the log only, which changes nothing."""
    if store_id is None:
        store_id = disk.contents(f"{LOG}/{disk.names(LOG)[0]}")[64:80]
    mount = disk.mount()
    recovery = await recover(mount, LOG, store_id, least=LogEnd())
    table = recovery.table
    reader, directories = LogReader(mount, table), GroupDirectories(mount, BASE, store_id)
    log = Log(recovery, {group_id: await _read_row(row, table, reader, directories) for group_id, row in table.rows.items()})
    reader.close()
    return log


async def _read_row(row: Row, table: Table, reader: LogReader, directories: GroupDirectories) -> tuple[Entry, ...]:
    if row.record is None or not row.is_living:
        return ()
    committer: Any = Committer
    log = GroupLog(row.record.key, row.record.me, row, committer, table, reader, directories.of(row.record.key), lambda: None)
    return await read_all(log, row.recovered())


def log_of(log: Log, group_id: int) -> list[str]:
    return [str(found) for found in log.entries[group_id]]


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
