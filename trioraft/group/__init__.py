"""One Raft group as a task tree: the only place where core, disk and net meet."""

from ._applier import ApplyThreads as ApplyThreads
from ._group import RaftGroup as RaftGroup
from ._host import Host as Host, SnapshotTraffic as SnapshotTraffic
from ._status import GroupStatus as GroupStatus
from ._waiter import Token as Token, Waiter as Waiter
