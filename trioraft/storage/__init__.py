"""Durable state: the contract, the shared log, and an in-memory sibling."""

from ._config import StorageConfig as StorageConfig
from ._contract import (
    GroupRecord as GroupRecord,
    LogStorage as LogStorage,
    MultiRaftStorage as MultiRaftStorage,
    NodeRecord as NodeRecord,
    PeerRecord as PeerRecord,
    RecoveredGroup as RecoveredGroup,
    WriteListener as WriteListener,
)
from ._disk import Disk as Disk, DiskFile as DiskFile, NoSpaceError as NoSpaceError, RealDisk as RealDisk
from ._memory import MemoryStorage as MemoryStorage
from ._simulated_disk import DiskCall as DiskCall, SimulatedDisk as SimulatedDisk, SimulatedMount as SimulatedMount
from ._wal import WalStorage as WalStorage
