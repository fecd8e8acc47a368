"""The conformance suite of the storage contract, for any storage.

Subclass `StorageSuite`, say how a storage is made and what a power cut leaves of it, and let pytest with pytest-trio collect the class::

    class TestMine(StorageSuite):
        async def make_storage(self):
            return MineStorage()

        async def cut_power(self, storage):
            return storage.what_is_left()

With ``trio_mode = true`` in the configuration of pytest, or ``pytestmark = pytest.mark.trio`` in the class. The tests take nothing but
their instance, so anything else can run them too: `StorageSuite.names`.
"""

from __future__ import annotations

from ._storage_disk_tests import DiskTests
from ._storage_group_tests import GroupTests
from ._storage_history_tests import HistoryTests
from ._storage_join_tests import JoinTests
from ._storage_log_tests import LogTests
from ._storage_snapshot_tests import SnapshotTests


class StorageSuite(LogTests, GroupTests, JoinTests, SnapshotTests, HistoryTests, DiskTests):
    """Everything that the contract of `MultiRaftStorage` promises, as tests.

    `make_storage` and `cut_power` must be given; `open_second`, `storage_on` and `is_spare` where the storage has such a thing.
    """
