"""One suite, three storages."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.storage.contract_suite import Maker, StorageContract
from tests.storage.kit import G1, G2, entries, record, serving, start_group, wal
from trioraft._errors import StorageError
from trioraft.storage import MemoryStorage, MultiRaftStorage, SimulatedDisk, StorageConfig, WalStorage


class RealFiles(Maker):
    def __init__(self, path: Path) -> None:
        self._config = StorageConfig(base_dir=path / "raft" / "node-1")

    def storage(self) -> MultiRaftStorage:
        return WalStorage(self._config)


class SimulatedFiles(Maker):
    """Each restart is a power cut that keeps nothing but what was synced."""

    def __init__(self) -> None:
        self._disk = SimulatedDisk(random.Random(0))

    def storage(self) -> MultiRaftStorage:
        self._disk.crash("none")
        return wal(self._disk.mount(), max_log_file_size=4096)


class Memory(Maker):
    def __init__(self) -> None:
        self._storage: MemoryStorage | None = None

    def storage(self) -> MultiRaftStorage:
        self._storage = MemoryStorage() if self._storage is None else self._storage.restart()
        return self._storage


class TestWalOnRealFiles(StorageContract):
    @pytest.fixture
    def maker(self, tmp_path: Path) -> Maker:
        return RealFiles(tmp_path)


class TestWalOnASimulatedDisk(StorageContract):
    @pytest.fixture
    def maker(self) -> Maker:
        return SimulatedFiles()


class TestMemory(StorageContract):
    @pytest.fixture
    def maker(self) -> Maker:
        return Memory()

    async def test_a_restart_loses_what_is_not_confirmed(self) -> None:
        storage = MemoryStorage()
        async with serving(storage):
            group = await start_group(storage, G1)
            await group.write_and_wait(*entries(G1, 1, 3))
            storage.pause()
            group.write(*entries(G1, 3, 5))
            await trio.testing.wait_all_tasks_blocked()
            following = storage.restart()
            storage.resume()
            await trio.testing.wait_all_tasks_blocked()
            assert group.listener.heard == [1], "the dead hear nothing"
        async with serving(following):
            assert [found.index for found in following.recovered[1].durable.entries] == [1, 2]

    async def test_pause_and_resume(self) -> None:
        storage = MemoryStorage(queue_bytes_max=100)
        async with serving(storage):
            group = await start_group(storage, G1)
            storage.pause()
            group.write(*entries(G1, 1, 9))
            await trio.testing.wait_all_tasks_blocked()
            assert not storage.has_room
            storage.resume()
            await group.listener.wait_until(1)
            assert storage.has_room

    async def test_space_and_failure(self) -> None:
        storage = MemoryStorage()
        async with serving(storage):
            group = await start_group(storage, G1)
            storage.set_space(False)
            group.write(*entries(G1, 1, 2))
            await trio.testing.wait_all_tasks_blocked()
            assert not storage.has_room
            storage.set_space(True)
            await group.listener.wait_until(1)
            error = StorageError("io", "x", "failed")
            storage.fail(error)
            group.write(*entries(G1, 2, 3))
            await trio.testing.wait_all_tasks_blocked()
            assert group.listener.heard == [False, True, 1, error]
            with pytest.raises(StorageError):
                await storage.create_group(record(G2))

    async def test_a_write_takes_time(self, autojump_clock: trio.testing.MockClock) -> None:
        storage = MemoryStorage(write_seconds=2.0)
        async with serving(storage):
            group = await start_group(storage, G1)
            group.write(*entries(G1, 1, 2))
            await trio.sleep(1.0)
            assert storage.sync_age() == pytest.approx(1.0)
            assert group.listener.heard == []
            await trio.sleep(1.5)
            assert group.listener.heard == [1]
