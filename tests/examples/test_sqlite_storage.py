"""The example of a storage of one's own passes the suite that everybody can run."""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path

import pytest
import sqlite_storage
import trio
from sqlite_storage import SqliteStorage

from trioraft import CorruptLogError, MemoryNetwork, MemoryTransport, MultiRaftConfig, StateMachine, StorageError, open_manager
from trioraft.core import HardState, LoadEntries
from trioraft.storage import MultiRaftStorage
from trioraft.testing import StorageSuite
from trioraft.testing._storage_parts import ONE, TWO, entries, entry, serving, start_group


class TestSqlite(StorageSuite):
    """The power goes between two transactions: what the next process finds is a copy of the files as they are then."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self._paths = (tmp_path / str(number) / "raft.db" for number in count())

    async def make_storage(self) -> MultiRaftStorage:
        return SqliteStorage(next(self._paths))

    async def cut_power(self, storage: MultiRaftStorage) -> MultiRaftStorage:
        assert isinstance(storage, SqliteStorage)
        path = next(self._paths)
        path.parent.mkdir()
        async with storage.turn:
            for suffix in ("", "-wal"):
                if Path(storage.path + suffix).exists():
                    shutil.copy(storage.path + suffix, f"{path}{suffix}")
        return SqliteStorage(path)

    async def open_second(self, storage: MultiRaftStorage) -> MultiRaftStorage:
        assert isinstance(storage, SqliteStorage)
        return SqliteStorage(storage.path)


async def test_groups_share_a_transaction(tmp_path: Path) -> None:
    """What gathers while one is on its way is the next one, whoever wrote it."""
    async with serving(storage := SqliteStorage(tmp_path / "raft.db")):
        groups = [await start_group(storage, key) for key in (ONE, TWO)]
        before = storage.sync_count
        for index in range(1, 101):
            for group in groups:
                last = group.write(entry(group.key, index))
        await groups[-1].listener.wait_confirmed(last)
        assert storage.sync_count - before <= 2


async def test_a_full_database_waits_for_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_storage, "SPACE_POLL_SECONDS", 0.001)
    async with serving(storage := SqliteStorage(tmp_path / "raft.db")):
        group = await start_group(storage, ONE)
        await group.write_and_wait(entry(ONE, 1))
        await storage.transact(lambda db: db.execute("PRAGMA max_page_count = 1").fetchall())
        last = group.write(*entries(ONE, 2, 5, payload=b"x" * 50_000), state=HardState(2, 1))
        await group.listener.wait_heard(2)
        assert (group.listener.space, group.listener.confirmed, storage.has_room, storage.is_full) == ([False], 1, False, True)
        await storage.transact(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchall())
        await group.listener.wait_confirmed(last)
        assert group.listener.space == [False, True]
        assert storage.has_room


async def test_a_transaction_that_fails_is_the_end(tmp_path: Path) -> None:
    async with serving(storage := SqliteStorage(tmp_path / "raft.db")):
        one, two = await start_group(storage, ONE), await start_group(storage, TWO)
        await storage.transact(lambda db: db.execute("DROP TABLE entries"))
        one.write(entry(ONE, 1))
        with trio.fail_after(5):
            await two.listener.wait_heard(1)
        assert [error.kind for error in two.listener.failures] == ["io"]
        assert not storage.has_room
        with pytest.raises(StorageError):
            await storage.remove_group(TWO)


async def test_rot_in_a_record_is_not_served(tmp_path: Path) -> None:
    async with serving(storage := SqliteStorage(tmp_path / "raft.db")):
        group = await start_group(storage, ONE)
        await group.write_and_wait(*entries(ONE, 1, 4, payload=b"payload"))
        rotten = entry(ONE, 2, payload=b"payload").record.replace(b"pay", b"paY")
        await storage.transact(lambda db: db.execute("UPDATE entries SET record = ? WHERE idx = 2", (rotten,)))
        assert len(await group.log.read(LoadEntries(None, 1, 1, 1000))) == 1
        with pytest.raises(CorruptLogError, match="entry 2"):
            await group.log.read(LoadEntries(None, 1, 3, 1000))


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "raft.db"
    path.write_bytes(b"something else " * 100)
    storage = SqliteStorage(path)
    with pytest.raises(CorruptLogError):
        await storage.open(1, "demo")
    await storage.aclose()
    assert path.read_bytes() == b"something else " * 100


class Sum(StateMachine):
    total = 0

    def apply(self, command: int, context: object) -> int:
        self.total += command
        return self.total


async def test_a_node_runs_on_it(tmp_path: Path) -> None:
    """A group of one node, over two processes."""
    for expected in (5, 10):
        with trio.fail_after(20):
            async with open_manager(
                node_id=1,
                cluster_id="demo",
                storage=SqliteStorage(tmp_path / "raft.db"),
                transport=MemoryTransport(MemoryNetwork()),
                config=MultiRaftConfig(heartbeat_interval=0.01),
            ) as manager:
                group = await manager.add_group(7, Sum(), members={1})
                await group.wait_leader()
                assert await group.propose(5) == expected
