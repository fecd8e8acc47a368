"""One Raft group as a task tree: the only place where core, disk and net meet."""

from ._applier import ApplyThreads as ApplyThreads
from ._changes import LeaderChange as LeaderChange
from ._declared import describe_error as describe_error, rebuild_error as rebuild_error
from ._group import RaftGroup as RaftGroup
from ._host import Host as Host, SnapshotTraffic as SnapshotTraffic
from ._reading import ReadLevel as ReadLevel, StaleRead as StaleRead
from ._replicated import Replicated as Replicated, check_replicated as check_replicated, join_group as join_group
from ._replicated_methods import command as command, query as query
from ._session import Session as Session
from ._status import GroupStatus as GroupStatus
from ._tail import AppliedEntry as AppliedEntry, Reset as Reset
from ._waiter import Token as Token, Waiter as Waiter
