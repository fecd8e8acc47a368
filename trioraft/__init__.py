"""Multi-Raft for Python, built on Trio.

One process hosts any number of independent Raft groups, which share one listener, one sender per peer, one write-ahead log and one clock.
Start with `open_manager`.
"""

from ._errors import (
    BusyError as BusyError,
    ChangeRefusedError as ChangeRefusedError,
    ConfigError as ConfigError,
    CorruptLogError as CorruptLogError,
    CorruptSnapshotError as CorruptSnapshotError,
    EntryTooLargeError as EntryTooLargeError,
    GroupExistsError as GroupExistsError,
    GroupNotFoundError as GroupNotFoundError,
    GroupStoppedError as GroupStoppedError,
    InvariantError as InvariantError,
    NotLeaderError as NotLeaderError,
    OutcomeUnknownError as OutcomeUnknownError,
    ProposalDroppedError as ProposalDroppedError,
    RaftError as RaftError,
    ResultError as ResultError,
    SessionExpiredError as SessionExpiredError,
    SnapshotError as SnapshotError,
    StateMachineError as StateMachineError,
    StorageError as StorageError,
    TransferRefusedError as TransferRefusedError,
    TransportError as TransportError,
    VersionError as VersionError,
    WireError as WireError,
)
from ._machine import ApplyContext as ApplyContext, Codec as Codec, StateMachine as StateMachine
from ._types import EntryId as EntryId
from .core import GroupConfig as GroupConfig, Role as Role
from .group import (
    AppliedEntry as AppliedEntry,
    GroupStatus as GroupStatus,
    LeaderChange as LeaderChange,
    RaftGroup as RaftGroup,
    ReadLevel as ReadLevel,
    Replicated as Replicated,
    Reset as Reset,
    Session as Session,
    StaleRead as StaleRead,
    command as command,
    query as query,
)
from .manager import (
    MachineFactory as MachineFactory,
    MultiRaftConfig as MultiRaftConfig,
    MultiRaftManager as MultiRaftManager,
    NodeStatus as NodeStatus,
    PeerStatus as PeerStatus,
    open_manager as open_manager,
    serve_manager as serve_manager,
)
from .observe import (
    Counters as Counters,
    DiskSpaceChanged as DiskSpaceChanged,
    Event as Event,
    GroupFailed as GroupFailed,
    Instrument as Instrument,
    PeerLiveness as PeerLiveness,
    PeerRefused as PeerRefused,
    RoleChanged as RoleChanged,
    SlowRoundTrip as SlowRoundTrip,
    SnapshotFailed as SnapshotFailed,
    SnapshotSaved as SnapshotSaved,
)
from .storage import (
    FileStorage as FileStorage,
    MemoryStorage as MemoryStorage,
    MultiRaftStorage as MultiRaftStorage,
    StorageConfig as StorageConfig,
    WalStorage as WalStorage,
)
from .transport import (
    MemoryNetwork as MemoryNetwork,
    MemoryTransport as MemoryTransport,
    MultiplexedTransport as MultiplexedTransport,
    RpcServer as RpcServer,
    RpcServerConfig as RpcServerConfig,
    TcpTransport as TcpTransport,
    TcpTransportConfig as TcpTransportConfig,
)
