"""One Raft group as a pure state machine: no trio, no clock, no file, no socket, no global random."""

from ._config import GroupConfig as GroupConfig, Timing as Timing
from ._configuration import Configuration as Configuration
from ._entry import Entry as Entry, EntryKind as EntryKind
from ._events import (
    Applied as Applied,
    Campaign as Campaign,
    DiskSpace as DiskSpace,
    Event as Event,
    PeerDown as PeerDown,
    PeerUp as PeerUp,
    Persisted as Persisted,
    Propose as Propose,
    TimePassed as TimePassed,
    Unreachable as Unreachable,
)
from ._messages import (
    DELIVERY as DELIVERY,
    AppendEntries as AppendEntries,
    AppendEntriesReply as AppendEntriesReply,
    Attach as Attach,
    AttachRefused as AttachRefused,
    Delivery as Delivery,
    Detach as Detach,
    Heartbeat as Heartbeat,
    HeartbeatReply as HeartbeatReply,
    Message as Message,
    PreVote as PreVote,
    PreVoteReply as PreVoteReply,
    RequestVote as RequestVote,
    RequestVoteReply as RequestVoteReply,
)
from ._raft import Raft as Raft
from ._ready import CoreStatus as CoreStatus, HardState as HardState, Ready as Ready, Role as Role, RoleChange as RoleChange
from ._replica import Durable as Durable
