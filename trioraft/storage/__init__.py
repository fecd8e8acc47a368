"""Durable state: the contract, the shared log, and its siblings: a directory for each group, and memory."""

from .._types import GroupKey as GroupKey, Member as Member
from ._config import StorageConfig as StorageConfig
from ._contract import (
    EVERY_NUMBER as EVERY_NUMBER,
    GroupRecord as GroupRecord,
    LogStorage as LogStorage,
    MultiRaftStorage as MultiRaftStorage,
    NodeRecord as NodeRecord,
    PeerRecord as PeerRecord,
    RecoveredGroup as RecoveredGroup,
    SnapshotReader as SnapshotReader,
    SnapshotStorage as SnapshotStorage,
    SnapshotWriter as SnapshotWriter,
    WriteListener as WriteListener,
)
from ._disk import Disk as Disk, DiskFile as DiskFile, NoSpaceError as NoSpaceError, RealDisk as RealDisk
from ._file_storage import FileStorage as FileStorage
from ._inspection import inspect_directory as inspect_directory
from ._inspection_report import (
    AtRestReport as AtRestReport,
    DirectoryReport as DirectoryReport,
    Finding as Finding,
    GroupReport as GroupReport,
    LogFileReport as LogFileReport,
    SnapshotReport as SnapshotReport,
)
from ._memory import MemoryStorage as MemoryStorage
from ._simulated_disk import DiskCall as DiskCall, SimulatedDisk as SimulatedDisk, SimulatedMount as SimulatedMount
from ._wal import WalStorage as WalStorage
