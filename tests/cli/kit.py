"""What the tests of the command share: directories as real storages leave them, and the command run on them."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import trio
import trio.testing

from tests.storage.kit import Group, entries, hold
from trioraft._types import NOTHING, EntryId, GroupKey, Member
from trioraft.cli import main
from trioraft.core import Compaction, Configuration, Entry, HardState
from trioraft.storage import FileStorage, GroupRecord, MultiRaftStorage, StorageConfig, WalStorage
from trioraft.testing._storage_parts import called
from trioraft.wire import SnapshotEncoder

G1, G2, G3, G4 = GroupKey(1), GroupKey(2), GroupKey(3), GroupKey(4)
THREE = Configuration.bootstrap((1, 2, 3))

Storage = type[WalStorage] | type[FileStorage]


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


def run(*arguments: str | Path) -> Ran:
    """Run the command; return what it prints."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(each) for each in arguments])
        except SystemExit as error:
            code = int(error.code or 0)
    return Ran(code, out.getvalue(), err.getvalue())


async def begin(storage: MultiRaftStorage, node_id: int, key: GroupKey, configuration: Configuration = THREE) -> Group:
    await storage.create_group(GroupRecord(key, Member(node_id), configuration))
    return hold(storage, key)


async def take_snapshot(
    group: Group, at: EntryId, *, configuration: Configuration = THREE, records: Sequence[object] = ("state",) * 20
) -> None:
    """Write a snapshot's file."""
    encoder = SnapshotEncoder(group.key, at, configuration, compression="zlib")
    for each in records:
        encoder.add(each)
    writer = await group.log.snapshots.create(at)
    await writer.append(encoder.finish())
    await writer.commit()


def live(storage: MultiRaftStorage, node_id: int, life: Callable[[MultiRaftStorage], Any], *, cluster_id: str = "demo") -> None:
    """Let a storage live through something, from its opening to its orderly end."""

    async def whole_life() -> None:
        with trio.fail_after(30):
            await storage.open(node_id, cluster_id)
            try:
                async with trio.open_nursery() as nursery:
                    await nursery.start(storage.serve)
                    await life(storage)
                    nursery.cancel_scope.cancel()
            finally:
                await storage.aclose()

    trio.run(whole_life)


def make_rich_directory(path: Path, kind: Storage = WalStorage) -> Path:
    """A directory with everything in it: several log files, entries at rest, snapshots, a tombstone."""

    async def life(storage: MultiRaftStorage) -> None:
        for key in (G1, G2, G3):
            group = await begin(storage, 1, key)
            for low in range(1, 40, 3):
                await group.write_and_wait(*entries(key, low, low + 3, 1 + low // 15))
        group = hold(storage, G1)
        await take_snapshot(group, EntryId(2, 20))
        group.log.compact(Compaction(EntryId(2, 20), EntryId(2, 20), 30))
        gone = await begin(storage, 1, G4)
        await gone.write_and_wait(*entries(G4, 1, 3), me=called(2, 9))
        await storage.remove_group(G4)
        if isinstance(storage, WalStorage):
            await until_cleaned(storage)
        # What was not carried on is in log files only.
        await group.write_and_wait(*entries(G1, 40, 42, 7))

    config = StorageConfig(base_dir=str(path), max_log_file_size=4096)
    live(kind(config), 1, life)
    # One more start, at which a node writes down how far its log goes.
    live(kind(config), 1, no_life)
    return path


async def no_life(storage: MultiRaftStorage) -> None:
    await trio.lowlevel.checkpoint()


async def until_cleaned(storage: WalStorage) -> None:
    while len(storage._table.files.numbers) > 2:
        await trio.lowlevel.checkpoint()


def make_node(
    path: Path,
    node_id: int,
    log: Sequence[Entry],
    *,
    term: int = 0,
    vote: int | None = None,
    commit: int = 0,
    snapshot: EntryId = NOTHING,
    start: EntryId = NOTHING,
    configuration: Configuration = THREE,
    cluster_id: str = "demo",
    kind: Storage = WalStorage,
    records: Sequence[object] = ("state",) * 20,
) -> Path:
    """The directory of a node with one group: its log, its term and vote, how far it knows it to be committed."""

    async def life(storage: MultiRaftStorage) -> None:
        group = await begin(storage, node_id, G1)
        if log:
            await group.write_and_wait(*log, state=HardState(max(term, log[-1].term), vote))
        else:
            await group.write_and_wait(state=HardState(term, vote))
        if snapshot != NOTHING:
            await take_snapshot(group, snapshot, configuration=configuration, records=records)
        if commit or snapshot != NOTHING:
            group.log.compact(Compaction(snapshot, start, commit))
            await group.write_and_wait(state=HardState(max(term, log[-1].term if log else 0), vote))

    live(kind(StorageConfig(base_dir=str(path))), node_id, life, cluster_id=cluster_id)
    return path


def made_of(*runs: tuple[int, int], payload: bytes | None = None) -> tuple[Entry, ...]:
    """A log: so many entries of each term."""
    made: list[Entry] = []
    for term, count in runs:
        first = len(made) + 1
        made += entries(G1, first, first + count, term, payload)
    return tuple(made)


class State(NamedTuple):
    """Everything that must stay as it is."""

    content: bytes | None
    mtime: int
    mode: int


def state_of(directory: Path) -> dict[str, State]:
    found = {}
    for path in sorted([directory, *directory.rglob("*")]):
        status = path.stat()
        found[str(path)] = State(path.read_bytes() if path.is_file() else None, status.st_mtime_ns, status.st_mode)
    return found


def files_of(directory: Path) -> list[Path]:
    """All files that were synced: the lock is none of them."""
    return [path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != "lock"]
