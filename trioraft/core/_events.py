"""What goes into a core: everything that can happen to a replica, as one class each.

Messages (`_messages`) are events too. Each event is stepped with `now`; nothing else moves a core.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs

from .._types import EntryId, Index, Member, NodeId
from ._confchange import Target
from ._entry import Entry, EntryKind
from ._messages import Message
from ._ready import LoadEntries


@attrs.define
class TimePassed:
    """`now` reached the core's `deadline`, or may have. Harmless when early."""


@attrs.define
class Propose:
    """Append a command. Answered in `Ready.accepted` or `Ready.refused` of the next Ready, by `token`."""

    token: Any
    """Whatever the caller wants to recognise the answer by; the core never looks into it."""
    payload: bytes
    kind: EntryKind = EntryKind.COMMAND


@attrs.define
class ChangeMembers:
    """Change who is in the group, by one step or by several, of which the leader takes each when the one before is committed.

    Answered once: by `Ready.accepted` with the last entry, that which reaches the target, when it is in the log; or by `Ready.refused`.
    Nodes that shall vote and are no members yet become learners first, and vote when they have caught up.
    """

    token: Any
    target: Target
    expect: Index | None = None
    """The `Configuration.index` that the caller goes by; another one refuses the change. None: whatever is in force."""


@attrs.define
class TransferLeadership:
    """Hand leadership over. Answered once: by `Ready.answered` (None) when this replica leads no longer, or by `Ready.refused`."""

    token: Any
    target: NodeId | None = None
    """None: to the voter that is live and has most of the log."""


@attrs.define
class Read:
    """Ask from which index on a state shows everything that was acknowledged before now (dissertation 6.4), for all who want to know.

    Each is answered once: by `Ready.answered` (the index), after a quorum has confirmed that this replica leads; or by `Ready.refused`.
    """

    tokens: list[Any]


@attrs.define
class Persisted:
    """All writes of this group numbered up to `sequence` are durable."""

    sequence: int


@attrs.define
class Applied:
    """The state machine has applied everything up to `index`."""

    index: Index


@attrs.define
class EntriesLoaded:
    """The answer to a `LoadEntries`, exactly one to each; late, maybe."""

    load: LoadEntries
    entries: tuple[Entry, ...]
    """From `load.first` on, without a hole, as many as fit its limits and at least one. None: the log does not have them any more."""


@attrs.define
class SnapshotTaken:
    """A snapshot is on this replica's disk, whole and durable: the log may be cut behind it."""

    at: EntryId
    """The last entry whose effect is in it."""


@attrs.define
class SnapshotSent:
    """The answer to a `SendSnapshot`, exactly one to each."""

    target: Member
    at: EntryId
    """The snapshot that was sent."""
    arrived: bool
    """The target has all of it, and answers by itself. False: the stream ended before, for whatever reason."""


@attrs.define
class TrimMemory:
    """The node's memory for logs is full: keep at most so many bytes of entries that can be read back."""

    bytes_max: int


@attrs.define
class PeerDown:
    """The node is live no more: ``liveness[node_id] <= now``."""

    node_id: NodeId


@attrs.define
class PeerUp:
    """The node is live again, or has restarted without ever having been missed. Whoever owes it something sends it."""

    node_id: NodeId
    restarted: bool = True
    """The node may be another process than before, and has then forgotten every commit index. False only if known to be the same."""


@attrs.define
class Unreachable:
    """Messages to the node may have been lost (queue overflow, connection broken): go back to probing it."""

    node_id: NodeId


@attrs.define
class DiskSpace:
    """The node's log is full, or has space again. While full: no append, no vote, no campaign; a leader steps down."""

    available: bool


@attrs.define
class Campaign:
    """Start a pre-vote round now, whatever the clock says; refused as usual by peers that hear a leader. For tests and tools."""


Request: TypeAlias = Propose | ChangeMembers | TransferLeadership
"""What somebody waits for an answer to, by `token`: answered exactly once, unless the replica stops."""

Event: TypeAlias = (
    Message
    | TimePassed
    | Propose
    | ChangeMembers
    | TransferLeadership
    | Read
    | Persisted
    | Applied
    | EntriesLoaded
    | SnapshotTaken
    | SnapshotSent
    | TrimMemory
    | PeerDown
    | PeerUp
    | Unreachable
    | DiskSpace
    | Campaign
)
