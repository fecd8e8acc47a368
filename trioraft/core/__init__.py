"""One Raft group as a pure state machine: no trio, no clock, no file, no socket, no global random."""

from ._confchange import Target as Target
from ._config import GroupConfig as GroupConfig, Timing as Timing
from ._configuration import Configuration as Configuration
from ._configuration_bytes import (
    BadConfigurationError as BadConfigurationError,
    decode_configuration as decode_configuration,
    encode_configuration as encode_configuration,
)
from ._durable import Durable as Durable
from ._entry import Entry as Entry, EntryKind as EntryKind
from ._events import (
    Applied as Applied,
    Campaign as Campaign,
    ChangeMembers as ChangeMembers,
    DiskSpace as DiskSpace,
    EntriesLoaded as EntriesLoaded,
    Event as Event,
    PeerDown as PeerDown,
    PeerUp as PeerUp,
    Persisted as Persisted,
    Propose as Propose,
    Read as Read,
    Request as Request,
    SnapshotSent as SnapshotSent,
    SnapshotTaken as SnapshotTaken,
    TimePassed as TimePassed,
    TransferLeadership as TransferLeadership,
    TrimMemory as TrimMemory,
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
    InstallSnapshot as InstallSnapshot,
    Message as Message,
    PreVote as PreVote,
    PreVoteReply as PreVoteReply,
    Removed as Removed,
    RequestVote as RequestVote,
    RequestVoteReply as RequestVoteReply,
    TimeoutNow as TimeoutNow,
)
from ._raft import Raft as Raft
from ._ready import (
    Compaction as Compaction,
    CoreStatus as CoreStatus,
    HardState as HardState,
    LoadEntries as LoadEntries,
    Ready as Ready,
    Role as Role,
    RoleChange as RoleChange,
    SendSnapshot as SendSnapshot,
)
from ._terms import Terms as Terms
