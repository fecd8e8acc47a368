"""The node: owns listener, senders, log, clock, liveness, and the nursery of groups."""

from ._config import MultiRaftConfig as MultiRaftConfig
from ._hosting import MachineFactory as MachineFactory
from ._manager import MultiRaftManager as MultiRaftManager
from ._open import open_manager as open_manager, serve_manager as serve_manager
from ._peers import PeerStatus as PeerStatus
from ._status import NodeStatus as NodeStatus
