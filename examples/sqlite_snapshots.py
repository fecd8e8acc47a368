"""A group's snapshots in SQLite, as a part of `sqlite_storage`: chunks in rows.

A snapshot has its *name* once it is committed, and loses it when it is replaced or removed. One without a name is seen by nobody but
those who read it already; the last of them deletes it, or else the next start does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import trio

from trioraft import EntryId, StorageError
from trioraft.storage import GroupKey, SnapshotReader, SnapshotStorage, SnapshotWriter

if TYPE_CHECKING:
    from sqlite_storage import SqliteStorage

Database = sqlite3.Connection


@attrs.frozen(eq=False)
class Snapshots(SnapshotStorage):
    storage: SqliteStorage
    key: GroupKey
    is_there: Callable[[Database], bool]
    """Whether the group has not been removed since."""

    def path(self, at: EntryId) -> str:
        return f"{self.storage.path}: group {self.key}, snapshot {at}"

    async def create(self, at: EntryId) -> SnapshotWriter:
        insert = "INSERT INTO snapshots (group_id, term, idx) VALUES (?, ?, ?)"
        snapshot = await self.storage.transact(lambda db: db.execute(insert, (self.key.group_id, *at)).lastrowid)
        return Writer(self, at, snapshot or 0)

    async def open(self, at: EntryId) -> SnapshotReader:
        def find(db: Database) -> tuple[int, int]:
            query = "SELECT id FROM snapshots WHERE named AND group_id = ? AND term = ? AND idx = ?"
            found = db.execute(query, (self.key.group_id, *at)).fetchone() if self.is_there(db) else None
            if found is None:
                raise StorageError("missing", self.path(at), "there is no such snapshot")
            # In the thread, where the next transaction cannot yet have begun.
            self.storage.readers[found[0]] += 1
            return found[0], db.execute("SELECT ifnull(sum(length(data)), 0) FROM chunks WHERE id = ?", found).fetchone()[0]

        return Reader(self.storage, self.path(at), *await self.storage.transact(find))

    async def remove(self, at: EntryId) -> None:
        def unname(db: Database) -> None:
            if self.is_there(db):
                self.storage.unname(db, "named AND group_id = ? AND term = ? AND idx = ?", self.key.group_id, *at)

        await self.storage.transact(unname)


@attrs.define(eq=False)
class Writer(SnapshotWriter):
    snapshots: Snapshots
    at: EntryId
    snapshot: int
    size: int = 0
    is_committed: bool = False

    async def append(self, data: bytes) -> None:
        row = (self.snapshot, self.size, data)
        await self.snapshots.storage.transact(lambda db: db.execute("INSERT INTO chunks VALUES (?, ?, ?)", row))
        self.size += len(data)

    async def commit(self) -> str:
        def name(db: Database) -> None:
            if not self.snapshots.is_there(db):
                raise StorageError("removed", self.snapshots.path(self.at), "the group was removed")
            values = (self.snapshots.key.group_id, *self.at)
            self.snapshots.storage.unname(db, "named AND group_id = ? AND term = ? AND idx = ?", *values)
            db.execute("UPDATE snapshots SET named = 1 WHERE id = ?", (self.snapshot,))

        await self.snapshots.storage.transact(name)
        self.is_committed = True
        return self.snapshots.path(self.at)

    async def discard(self) -> None:
        if not self.is_committed:
            with trio.CancelScope(shield=True):
                try:
                    await self.snapshots.storage.transact(lambda db: delete_snapshot(db, self.snapshot))
                except StorageError:
                    pass  # it has no name, so the next start deletes it
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class Reader(SnapshotReader):
    storage: SqliteStorage
    path: str
    snapshot: int
    size: int
    is_closed: bool = False

    async def read(self, offset: int, size: int) -> bytes:
        query = "SELECT start, data FROM chunks WHERE id = ? AND start < ? AND start + length(data) > ? ORDER BY start"
        chunks = await self.storage.transact(lambda db: db.execute(query, (self.snapshot, offset + size, offset)).fetchall())
        return b"".join(data[max(0, offset - start) : offset + size - start] for start, data in chunks)

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.storage.close_reader(self.snapshot)


def delete_snapshot(db: Database, snapshot: int) -> None:
    db.execute("DELETE FROM chunks WHERE id = ?", (snapshot,))
    db.execute("DELETE FROM snapshots WHERE id = ?", (snapshot,))
