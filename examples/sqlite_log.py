"""One group's log in SQLite, as a part of `sqlite_storage`."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import attrs
from sqlite_snapshots import Snapshots

from trioraft import CorruptLogError, EntryId, InvariantError, StorageError, WireError
from trioraft.core import (
    Compaction,
    Durable,
    Entry,
    EntryKind,
    HardState,
    InstallSnapshot,
    LoadEntries,
    Terms,
    decode_configuration,
    encode_configuration,
)
from trioraft.storage import GroupKey, GroupRecord, LogStorage, Member, RecoveredGroup, SnapshotStorage, WriteListener
from trioraft.wire import open_record

if TYPE_CHECKING:
    from sqlite_storage import SqliteStorage

Database = sqlite3.Connection

# A replica number as a blob: integers in SQLite end where its sign begins.
NUMBER = struct.Struct(">QQ")


def one(db: Database, columns: str, key: GroupKey) -> tuple | None:
    """Columns of a group that is there with this very incarnation."""
    return db.execute(f"SELECT {columns} FROM groups WHERE group_id = ? AND incarnation = ? AND NOT removed", key).fetchone()


def recovered_group(db: Database, key: GroupKey) -> RecoveredGroup:
    """What there is of a group id, whatever its incarnation. Of the entries, only their terms and the configurations are read."""
    row = db.execute(
        "SELECT incarnation, removed, me_node, me_number, awaits_number, configuration, term, vote, commit_index,"
        " start_term, start_index, snapshot_term, snapshot_index, start_configuration FROM groups WHERE group_id = ?",
        key[:1],
    ).fetchone()
    if row is None:
        return RecoveredGroup(key.group_id)
    incarnation, removed, me_node, me_number, awaits_number, configuration, term, vote, commit, *ids, start_configuration = row
    key, me = GroupKey(key.group_id, incarnation), Member(me_node, EntryId(*NUMBER.unpack(me_number)))
    if removed:
        return RecoveredGroup(key.group_id, tombstone=key, barred=me.replica)
    record = GroupRecord(key, me, decode_configuration(configuration), bool(awaits_number))
    start, snapshot = EntryId(*ids[:2]), EntryId(*ids[2:])
    # By the index, without touching a record: terms never fall, so there is one run of each.
    columns = "min(idx), term, max(idx), sum(size)"
    runs = db.execute(f"SELECT {columns} FROM entries WHERE group_id = ? GROUP BY term ORDER BY term", key[:1]).fetchall()
    terms = Terms(start, [(first, run_term) for first, run_term, *_ in runs if run_term != start.term], runs[-1][2] if runs else None)
    configurations = [(start.index, decode_configuration(start_configuration or configuration))]
    for index, data in configuration_records(db, key):
        configurations.append((index, decode_configuration(open_record(data, 0, payload_bytes_max=len(data))[1].payload)))
    durable = Durable(
        hard_state=HardState(term, vote),
        terms=terms,
        log_bytes=sum(size for *_, size in runs),
        snapshot=snapshot,
        commit=commit,
        configurations=tuple(configurations),
    )
    return RecoveredGroup(key.group_id, record, durable)


def configuration_records(db: Database, key: GroupKey) -> Iterator[tuple[int, bytes]]:
    return db.execute(
        "SELECT idx, record FROM entries WHERE group_id = ? AND kind = ? ORDER BY idx", (key.group_id, int(EntryKind.CONFIGURATION))
    )


@attrs.define(eq=False)
class Log(LogStorage):
    storage: SqliteStorage
    key: GroupKey
    me: Member
    """With the newest number that was handed over."""
    is_closed: bool = False
    """The group is being removed. Another life of it may come, with the same key, and has a log of its own."""
    snapshots: SnapshotStorage = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.snapshots = Snapshots(self.storage, self.key, self.is_there)

    def is_there(self, db: Database) -> bool:
        """Whether the group has not been removed since."""
        return not self.is_closed and one(db, "1", self.key) is not None

    def attach(self, listener: WriteListener) -> None:
        self._check_open()
        self.storage.attach(self.key.group_id, listener)

    def write(
        self,
        sequence: int,
        hard_state: HardState | None,
        entries: Sequence[Entry],
        install: InstallSnapshot | None = None,
        me: Member | None = None,
    ) -> None:
        if me is not None and (me.node_id != self.me.node_id or me.replica <= self.me.replica):
            raise InvariantError(f"{self.me} is to be called {me}: a replica's number only rises")
        rows = [(self.key.group_id, entry.index, entry.term, int(entry.kind), len(entry.record), entry.record) for entry in entries]
        if not all(row[-1] for row in rows):
            raise InvariantError(f"an entry of {self.key} was handed to the log unsealed")

        def change(db: Database) -> None:
            # Nothing comes behind a removal: so what was handed over before it finds the group as it was.
            if me is not None:
                self._set(db, "me_number = ?, awaits_number = 0", NUMBER.pack(*me.replica))
            if hard_state is not None:
                self._set(db, "term = ?, vote = ?", hard_state.term, hard_state.vote)
            if install is not None:
                self._install(db, install)
            if rows:
                db.execute("DELETE FROM entries WHERE group_id = ? AND idx >= ?", (self.key.group_id, rows[0][1]))
                db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", rows)

        self._submit(change, sequence, sum(len(row[-1]) for row in rows))
        self.me = me or self.me

    def compact(self, compaction: Compaction) -> None:
        def change(db: Database) -> None:
            found = one(db, "start_index, snapshot_index", self.key)
            if found is None:
                return
            if compaction.start.index > found[0]:
                self._cut(db, compaction.start)
            if compaction.snapshot.index > found[1]:
                self._set(db, "snapshot_term = ?, snapshot_index = ?", *compaction.snapshot)
                self.storage.unname(db, "named AND group_id = ? AND idx < ?", self.key.group_id, compaction.snapshot.index)
            self._set(db, "commit_index = max(commit_index, ?)", compaction.commit)

        self._submit(change)

    def _submit(self, change: Callable[[Database], None], sequence: int = 0, size: int = 0) -> None:
        self._check_open()
        self.storage.write(change, self.key.group_id, sequence, size)

    def _check_open(self) -> None:
        if self.is_closed:
            raise InvariantError(f"a write of {self.key}, which was removed")

    def _set(self, db: Database, assignments: str, *values: object) -> None:
        db.execute(f"UPDATE groups SET {assignments} WHERE group_id = ?", (*values, self.key.group_id))

    def _cut(self, db: Database, start: EntryId) -> None:
        """The log begins behind `start`. The configuration that is in force there stays known."""
        for index, data in configuration_records(db, self.key):
            if index <= start.index:
                self._set(db, "start_configuration = ?", open_record(data, 0, payload_bytes_max=len(data))[1].payload)
        db.execute("DELETE FROM entries WHERE group_id = ? AND idx <= ?", (self.key.group_id, start.index))
        self._set(db, "start_term = ?, start_index = ?", *start)

    def _install(self, db: Database, install: InstallSnapshot) -> None:
        """What follows the snapshot stays if the log holds the snapshot's own last entry; otherwise nothing does."""
        at = install.at
        held = db.execute("SELECT 1 FROM entries WHERE group_id = ? AND idx = ? AND term = ?", (self.key.group_id, at.index, at.term))
        if held.fetchone() is None and one(db, "start_term, start_index", self.key) != at:
            db.execute("DELETE FROM entries WHERE group_id = ?", (self.key.group_id,))
        self._cut(db, at)
        self._set(db, "start_configuration = ?", encode_configuration(install.configuration))
        self._set(db, "snapshot_term = ?, snapshot_index = ?, commit_index = max(commit_index, ?)", *at, at.index)

    async def read(self, load: LoadEntries) -> tuple[Entry, ...]:
        return await self.storage.transact(lambda db: self._read(db, load))

    def _read(self, db: Database, load: LoadEntries) -> tuple[Entry, ...]:
        found: list[Entry] = []
        size = 0
        if not self.is_there(db):
            raise StorageError("removed", self.storage.path, f"group {self.key} was removed")
        query = "SELECT idx, term, record FROM entries WHERE group_id = ? AND idx BETWEEN ? AND ? ORDER BY idx"
        for index, term, data in db.execute(query, (self.key.group_id, load.first, load.last)):
            try:
                key, entry, _ = open_record(data, 0, payload_bytes_max=len(data))
            except WireError as error:
                raise CorruptLogError(self.storage.path, 0, f"entry {index} of {self.key}: {error}") from None
            if (key, entry.index, entry.term) != (self.key, index, term):
                raise CorruptLogError(self.storage.path, 0, f"entry {entry} of {key} stands where {index}@{term} of {self.key} belongs")
            size += len(entry.payload)
            if index != load.first + len(found) or (found and size > load.bytes_max):
                break  # the first one is not there any more; or it is enough
            found.append(entry)
        return tuple(found)
