"""One suite, and each storage that there is."""

from __future__ import annotations

import random
from itertools import count
from pathlib import Path

import pytest

from trioraft.storage import Disk, FileStorage, MemoryStorage, MultiRaftStorage, SimulatedDisk, StorageConfig, WalStorage
from trioraft.testing import StorageSuite


class TestMemory(StorageSuite):
    async def make_storage(self) -> MultiRaftStorage:
        return MemoryStorage()

    async def cut_power(self, storage: MultiRaftStorage) -> MultiRaftStorage:
        assert isinstance(storage, MemoryStorage)
        return storage.restart()


def wal_on(disk: Disk) -> WalStorage:
    return WalStorage(StorageConfig(base_dir="data", max_log_file_size=4096), disk, random_bytes=random.Random(0).randbytes)


class TestWalOnASimulatedDisk(StorageSuite):
    """Each restart is a power cut that keeps nothing but what was synced."""

    def storage_on(self, disk: Disk) -> MultiRaftStorage:
        return wal_on(disk)

    async def make_storage(self) -> MultiRaftStorage:
        self._disk = SimulatedDisk(random.Random(0), dead_calls="raise")
        return wal_on(self._disk.mount())

    async def cut_power(self, storage: MultiRaftStorage) -> MultiRaftStorage:
        self._disk.crash("none")
        return wal_on(self._disk.mount())

    async def open_second(self, storage: MultiRaftStorage) -> MultiRaftStorage:
        return wal_on(self._disk.mount())


class TestWalOnRealFiles(StorageSuite):
    """Each restart is an orderly one."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self._places = (tmp_path / str(number) / "raft" / "node-1" for number in count())

    async def make_storage(self) -> MultiRaftStorage:
        self._config = StorageConfig(base_dir=next(self._places), max_log_file_size=4096)
        return WalStorage(self._config)

    async def cut_power(self, storage: MultiRaftStorage) -> MultiRaftStorage:
        return WalStorage(self._config)

    async def open_second(self, storage: MultiRaftStorage) -> MultiRaftStorage:
        return WalStorage(self._config)


def files_on(disk: Disk) -> FileStorage:
    return FileStorage(StorageConfig(base_dir="data", max_log_file_size=4096), disk, random_bytes=random.Random(0).randbytes)


class TestFilesOnASimulatedDisk(StorageSuite):
    """Each restart is a power cut that keeps nothing but what was synced."""

    def storage_on(self, disk: Disk) -> MultiRaftStorage:
        return files_on(disk)

    async def make_storage(self) -> MultiRaftStorage:
        self._disk = SimulatedDisk(random.Random(0), dead_calls="raise")
        return files_on(self._disk.mount())

    async def cut_power(self, storage: MultiRaftStorage) -> MultiRaftStorage:
        self._disk.crash("none")
        return files_on(self._disk.mount())

    async def open_second(self, storage: MultiRaftStorage) -> MultiRaftStorage:
        return files_on(self._disk.mount())


class TestFilesOnRealFiles(StorageSuite):
    """Each restart is an orderly one."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self._places = (tmp_path / str(number) / "raft" / "node-1" for number in count())

    async def make_storage(self) -> MultiRaftStorage:
        self._config = StorageConfig(base_dir=next(self._places), max_log_file_size=4096)
        return FileStorage(self._config)

    async def cut_power(self, storage: MultiRaftStorage) -> MultiRaftStorage:
        return FileStorage(self._config)

    async def open_second(self, storage: MultiRaftStorage) -> MultiRaftStorage:
        return FileStorage(self._config)
