"""A storage of one's own: all groups of a node in one SQLite database.

The worked example of "A storage of your own" in the documentation, which goes through it from top to bottom. It passes the conformance
suite that the library exports (`trioraft.testing.StorageSuite`): see ``tests/examples/test_sqlite_storage.py``.

SQLite brings what is hardest: a transaction is there as a whole after a power cut, or not at all. With ``journal_mode=WAL`` and
``synchronous=FULL``, ``COMMIT`` returns once it is on stable storage. What is left to do:

* one transaction for whatever all groups have queued meanwhile, in one thread hop: so a hundred groups share one sync;
* never to confirm a write before its transaction has returned, and never to try one again that failed in any other way than for want
  of space: what it left on the disk is not known.
"""

from __future__ import annotations

import math
import secrets
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import attrs
import trio
from sqlite_log import NUMBER, Log, recovered_group
from sqlite_snapshots import delete_snapshot

from trioraft import CorruptLogError, EntryId, GroupNotFoundError, InvariantError, RaftError, StorageError
from trioraft.core import encode_configuration
from trioraft.storage import GroupKey, GroupRecord, LogStorage, MultiRaftStorage, NodeRecord, PeerRecord, RecoveredGroup, WriteListener

T = TypeVar("T")

QUEUE_BYTES_MAX = 64 << 20
BATCH_BYTES_MAX = 4 << 20
SPACE_POLL_SECONDS = 1.0

SCHEMA = """
CREATE TABLE IF NOT EXISTS node (node_id INTEGER, cluster_id TEXT, store_id TEXT, incarnation INTEGER);
CREATE TABLE IF NOT EXISTS peers (node_id INTEGER PRIMARY KEY, store_id TEXT, address TEXT, address_version INTEGER);
CREATE TABLE IF NOT EXISTS groups (
    group_id INTEGER PRIMARY KEY, incarnation INTEGER, removed INTEGER DEFAULT 0,
    me_node INTEGER, me_number BLOB,          -- of a removed one: the highest number that is barred
    awaits_number INTEGER DEFAULT 0, configuration BLOB,
    term INTEGER DEFAULT 0, vote INTEGER, commit_index INTEGER DEFAULT 0,
    start_term INTEGER DEFAULT 0, start_index INTEGER DEFAULT 0,
    snapshot_term INTEGER DEFAULT 0, snapshot_index INTEGER DEFAULT 0,
    start_configuration BLOB                  -- in force at the start; NULL: `configuration`
);
CREATE TABLE IF NOT EXISTS entries (
    group_id INTEGER, idx INTEGER, term INTEGER, kind INTEGER, size INTEGER, record BLOB, PRIMARY KEY (group_id, idx)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outline ON entries (group_id, term, idx, size);
CREATE TABLE IF NOT EXISTS snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT, group_id INTEGER, term INTEGER, idx INTEGER,
    named INTEGER DEFAULT 0                   -- 0: not finished yet; or replaced, and there only for those who still read it
);
CREATE TABLE IF NOT EXISTS chunks (id INTEGER, start INTEGER, data BLOB, PRIMARY KEY (id, start));
"""

Database = sqlite3.Connection


@attrs.define(eq=False)
class Write:
    """Something for the next transaction, which has it as a whole."""

    change: Callable[[Database], None]
    """Runs in a thread, and once more if there was no space."""
    group_id: int = 0
    sequence: int = 0
    """0: the listener does not hear of it."""
    size: int = 0
    after: Callable[[], None] = lambda: None
    """Called on the loop once it is durable."""


def carry_out(batch: list[Write], db: Database) -> None:
    for write in batch:
        write.change(db)


class SqliteStorage(MultiRaftStorage):
    """A node's durable state in one database file."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        # One thread at a time has the connection, for one transaction.
        self.turn = trio.CapacityLimiter(1)
        self.readers: Counter[int] = Counter()
        """How many read a snapshot, by its id."""
        self._database: Database | None = None
        self._recovered: dict[int, RecoveredGroup] = {}
        self._peers: dict[int, PeerRecord] = {}
        self._logs: dict[int, Log] = {}
        self._listeners: dict[int, WriteListener] = {}
        self._queue: list[Write] = []
        self._queued_bytes = self._sequence = self._transactions = self._node_id = 0
        self._wake = trio.Event()
        self._failure: StorageError | None = None
        self._failed = trio.Event()
        self._full = False
        self._busy_since: float | None = None

    # --- one hop, one transaction ------------------------------------------------------------------------------------------------

    async def transact(self, work: Callable[[Database], T]) -> T:
        """Do `work` in a thread, as one transaction. Once that has begun, a cancellation waits for its end."""
        return await trio.to_thread.run_sync(self._transact, work, limiter=self.turn)

    def _transact(self, work: Callable[[Database], T]) -> T:
        database = self._database
        if database is None:
            raise StorageError("closed", self.path, "the storage is closed")
        try:
            database.execute("BEGIN IMMEDIATE")
            try:
                result = work(database)
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._translated(error) from error
        return result

    # --- open and close ----------------------------------------------------------------------------------------------------------

    async def open(self, node_id: int, cluster_id: str) -> NodeRecord:
        if self._database is not None or self._failure is not None:
            raise InvariantError("a storage is opened once")
        try:
            await trio.to_thread.run_sync(self._connect, limiter=self.turn)
            return await self.transact(lambda db: self._load(db, node_id, cluster_id))
        except BaseException:
            await self._disconnect()
            raise

    def _connect(self) -> None:
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = database = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
            # Whoever is first keeps the file until the end: a second process is refused.
            for statement in ("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"):
                database.execute(statement)
            database.executescript(f"BEGIN EXCLUSIVE; {SCHEMA} COMMIT;")
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _translated(self, error: sqlite3.Error) -> StorageError:
        # The low byte is the kind of error, the rest says more. Errors of the Python module itself have none.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return CorruptLogError(self.path, 0, f"not the database that it was: {error}")
        kinds = {sqlite3.SQLITE_FULL: "full", sqlite3.SQLITE_BUSY: "locked", sqlite3.SQLITE_CANTOPEN: "unwritable"}
        return StorageError(kinds.get(code, "io"), self.path, f"a transaction failed: {error}")

    def _load(self, db: Database, node_id: int, cluster_id: str) -> NodeRecord:
        found = db.execute("SELECT node_id, cluster_id, store_id, incarnation FROM node").fetchone()
        node = NodeRecord(*(found or (node_id, cluster_id, secrets.token_bytes(16).hex(), 0)))
        if (node.node_id, node.cluster_id) != (node_id, cluster_id):
            raise StorageError("foreign", self.path, f"belongs to node {node.node_id} of cluster {node.cluster_id!r}")
        node = attrs.evolve(node, incarnation=node.incarnation + 1)
        self._node_id = node_id
        db.execute("DELETE FROM node")
        db.execute("INSERT INTO node VALUES (?, ?, ?, ?)", attrs.astuple(node))
        self._peers = {peer[0]: PeerRecord(*peer) for peer in db.execute("SELECT * FROM peers")}
        # What a crash left: snapshots that were never finished, and old ones that somebody was reading.
        db.execute("DELETE FROM chunks WHERE id NOT IN (SELECT id FROM snapshots WHERE named)")
        db.execute("DELETE FROM snapshots WHERE NOT named")
        for group_id, incarnation in db.execute("SELECT group_id, incarnation FROM groups").fetchall():
            self._recovered[group_id] = recovered_group(db, GroupKey(group_id, incarnation))
        return node

    async def aclose(self) -> None:
        self._fail(StorageError("closed", self.path, "the storage is closed"))
        await self._disconnect()
        await trio.lowlevel.checkpoint()

    async def _disconnect(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(database.close, limiter=self.turn)

    # --- writing: what gathers while one transaction is on its way is the next one -----------------------------------------------

    def submit(self, write: Write) -> None:
        """Queue something; after a failure there is nothing to queue for."""
        if self._failure is None:
            self._queue.append(write)
            self._queued_bytes += write.size
            self._wake.set()

    def write(self, change: Callable[[Database], None], group_id: int, sequence: int, size: int) -> None:
        """Queue what a group writes."""
        self.submit(Write(change, group_id, sequence, size))

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._queue:
                    await self._commit()
        finally:
            # Stopped, but not told to listeners: their groups stop with the node.
            self._drop(StorageError("closed", self.path, "closed before this was written; it may come back"))

    async def _commit(self) -> None:
        size = count = 0
        while count < len(self._queue) and (not count or size + self._queue[count].size <= BATCH_BYTES_MAX):
            size, count = size + self._queue[count].size, count + 1
        batch = self._queue[:count]
        self._busy_since = trio.current_time()
        try:
            await self.transact(lambda db: carry_out(batch, db))
            self._confirm(batch, size)
        except StorageError as error:
            if error.kind != "full":
                # What is on the disk is not known, and a second try could succeed and prove nothing.
                self._fail(error)
                return
            self._set_full(True)
        finally:
            self._busy_since = None
        if self._full:
            await trio.sleep(SPACE_POLL_SECONDS)

    def _confirm(self, batch: list[Write], size: int) -> None:
        self._set_full(False)
        self._transactions += 1
        if self._failure is not None:
            return  # closed meanwhile, and everybody was told so
        del self._queue[: len(batch)]
        self._queued_bytes -= size
        for write in batch:
            write.after()
        # The last number of each group is all that its listener needs.
        for group_id, sequence in {write.group_id: write.sequence for write in batch if write.sequence}.items():
            if group_id in self._listeners:
                self._listeners[group_id].persisted(sequence)

    def _set_full(self, full: bool) -> None:
        if full != self._full and self._failure is None:
            self._full = full
            for listener in list(self._listeners.values()):
                listener.space_changed(not full)

    def _fail(self, error: StorageError) -> None:
        if self._failure is None:
            self._drop(error)
            for listener in list(self._listeners.values()):
                listener.storage_failed(error)

    def _drop(self, error: StorageError) -> None:
        if self._failure is None:
            self._failure = error
            self._failed.set()
        self._queue.clear()
        self._queued_bytes = 0

    def attach(self, group_id: int, listener: WriteListener) -> None:
        self._listeners[group_id] = listener
        if self._failure is not None:
            listener.storage_failed(self._failure)
        elif self._full:
            listener.space_changed(False)

    # --- groups and peers --------------------------------------------------------------------------------------------------------

    @property
    def recovered(self) -> Mapping[int, RecoveredGroup]:
        return MappingProxyType(self._recovered)

    async def create_group(self, record: GroupRecord) -> None:
        def change(db: Database) -> None:
            if not recovered_group(db, record.key).is_made(record):
                me = (record.me.node_id, NUMBER.pack(*record.me.replica), record.awaits_number)
                columns = "group_id, incarnation, me_node, me_number, awaits_number, configuration"
                values = (*record.key, *me, encode_configuration(record.configuration))
                db.execute(f"REPLACE INTO groups ({columns}) VALUES (?, ?, ?, ?, ?, ?)", values)

        await self._settle(record.key, change)

    async def remove_group(self, key: GroupKey, barred: EntryId | None = None) -> None:
        def change(db: Database) -> None:
            found, number = recovered_group(db, key), barred or EntryId(0, 0)
            if found.record is not None and found.record.key != key:
                raise GroupNotFoundError(f"group {key} is not here; {found.record.key} is")
            if found.record is not None:
                number = max(number, found.record.me.replica)
            if found.tombstone is None or (found.tombstone, found.barred) < (key, number):
                db.execute("DELETE FROM entries WHERE group_id = ?", key[:1])
                values = (*key, self._node_id, NUMBER.pack(*number))
                db.execute("REPLACE INTO groups (group_id, incarnation, removed, me_node, me_number) VALUES (?, ?, 1, ?, ?)", values)
                self.unname(db, "group_id = ?", key.group_id)

        log = self._logs.get(key.group_id)
        if log is not None and log.key == key:
            log.is_closed = True
            self._listeners.pop(key.group_id, None)
        await self._settle(key, change)

    async def _settle(self, key: GroupKey, change: Callable[[Database], None]) -> None:
        """Decide in the transaction, where everything that was asked for before has happened."""
        done = trio.Event()
        outcome: list[RecoveredGroup | RaftError] = []

        def decide(db: Database) -> None:
            try:
                change(db)
                outcome[:] = [recovered_group(db, key)]
            except RaftError as error:
                outcome[:] = [error]  # nothing was changed; the others of this transaction go on

        def after() -> None:
            if isinstance(outcome[0], RecoveredGroup):
                self._recovered[key.group_id] = outcome[0]
                if (log := self._logs.get(key.group_id)) is not None and log.is_closed:
                    del self._logs[key.group_id]
            done.set()

        self.submit(Write(decide, key.group_id, after=after))
        async with trio.open_nursery() as nursery:
            # Whichever comes first.
            nursery.start_soon(self._cancel_when_failed, nursery.cancel_scope)
            await done.wait()
            nursery.cancel_scope.cancel()
        if self._failure is not None and not done.is_set():
            raise self._failure
        if isinstance(outcome[0], RaftError):
            raise outcome[0]

    async def _cancel_when_failed(self, scope: trio.CancelScope) -> None:
        await self._failed.wait()
        scope.cancel()

    def get_log_storage(self, group_id: int) -> LogStorage:
        found = self._recovered.get(group_id)
        if found is not None and found.failure is not None:
            raise found.failure
        if found is None or found.record is None:
            raise GroupNotFoundError(f"group {group_id} is not in this storage")
        log = self._logs.get(group_id)
        if log is None:
            log = self._logs[group_id] = Log(self, found.record.key, found.record.me)
        return log

    @property
    def peers(self) -> Mapping[int, PeerRecord]:
        return MappingProxyType(self._peers)

    async def remember_peer(self, record: PeerRecord) -> None:
        await self.transact(lambda db: db.execute("REPLACE INTO peers VALUES (?, ?, ?, ?)", attrs.astuple(record)))
        self._peers[record.node_id] = record

    # --- how it is doing ---------------------------------------------------------------------------------------------------------

    def next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    @property
    def has_room(self) -> bool:
        return self._failure is None and not self._full and self._queued_bytes <= QUEUE_BYTES_MAX

    @property
    def is_full(self) -> bool:
        return self._full

    def sync_age(self) -> float:
        if self._failure is not None:
            return math.inf
        return 0.0 if self._busy_since is None else trio.current_time() - self._busy_since

    @property
    def sync_count(self) -> int:
        return self._transactions

    # --- snapshots that have lost their name -------------------------------------------------------------------------------------

    def unname(self, db: Database, condition: str, *values: int) -> None:
        """Take the names from some snapshots. They are deleted unless somebody reads them; who is last deletes them then."""
        for (snapshot,) in db.execute(f"SELECT id FROM snapshots WHERE {condition}", values).fetchall():
            db.execute("UPDATE snapshots SET named = 0 WHERE id = ?", (snapshot,))
            if not self.readers[snapshot]:
                delete_snapshot(db, snapshot)

    def close_reader(self, snapshot: int) -> None:
        self.readers[snapshot] -= 1
        if not self.readers[snapshot]:
            del self.readers[snapshot]
            self.submit(Write(lambda db: self.unname(db, "id = ? AND NOT named", snapshot)))
