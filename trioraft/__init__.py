"""Multi-Raft for Python, built on Trio.

One process hosts any number of independent Raft groups, which share one listener, one sender per peer, one write-ahead log and one clock.
Start with `open_manager`.
"""

from ._errors import BusyError as BusyError
from ._errors import ConfigError as ConfigError
from ._errors import CorruptLogError as CorruptLogError
from ._errors import EntryTooLargeError as EntryTooLargeError
from ._errors import GroupExistsError as GroupExistsError
from ._errors import GroupNotFoundError as GroupNotFoundError
from ._errors import GroupStoppedError as GroupStoppedError
from ._errors import InvariantError as InvariantError
from ._errors import NotLeaderError as NotLeaderError
from ._errors import OutcomeUnknownError as OutcomeUnknownError
from ._errors import ProposalDroppedError as ProposalDroppedError
from ._errors import RaftError as RaftError
from ._errors import StateMachineError as StateMachineError
from ._errors import StorageError as StorageError
from ._errors import TransportError as TransportError
from ._errors import WireError as WireError
from ._machine import ApplyContext as ApplyContext
from ._machine import Codec as Codec
from ._machine import StateMachine as StateMachine
from ._types import EntryId as EntryId
from .core import GroupConfig as GroupConfig
from .core import Role as Role
from .group import GroupStatus as GroupStatus
from .group import RaftGroup as RaftGroup
from .manager import MultiRaftConfig as MultiRaftConfig
from .manager import MultiRaftManager as MultiRaftManager
from .manager import NodeStatus as NodeStatus
from .manager import PeerStatus as PeerStatus
from .manager import open_manager as open_manager
from .manager import serve_manager as serve_manager
from .observe import Counters as Counters
from .observe import DiskSpaceChanged as DiskSpaceChanged
from .observe import Event as Event
from .observe import GroupFailed as GroupFailed
from .observe import Instrument as Instrument
from .observe import PeerLiveness as PeerLiveness
from .observe import PeerRefused as PeerRefused
from .observe import RoleChanged as RoleChanged
from .observe import SlowRoundTrip as SlowRoundTrip
from .storage import MemoryStorage as MemoryStorage
from .storage import MultiRaftStorage as MultiRaftStorage
from .storage import StorageConfig as StorageConfig
from .storage import WalStorage as WalStorage
from .transport import MemoryNetwork as MemoryNetwork
from .transport import MemoryTransport as MemoryTransport
from .transport import MultiplexedTransport as MultiplexedTransport
from .transport import RpcServer as RpcServer
from .transport import RpcServerConfig as RpcServerConfig
from .transport import TcpTransport as TcpTransport
from .transport import TcpTransportConfig as TcpTransportConfig
