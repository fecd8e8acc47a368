"""What replicas of one group say to each other: one class per message, words of the paper.

Every message has `source`, `target` and `term`. `source` and `target` name *members* (node and replica number); a message whose
target is not the receiving replica, or whose source is an older replica than the one known, is dropped before anything else.
`term` is the sender's term unless the message says otherwise.

Delivery is at most once, in any order, unless a class says more. Which transport verb carries which message: `DELIVERY`.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

import attrs

from .._types import NOTHING, EntryId, Index, Member, Term
from ._configuration import Configuration
from ._entry import Entry


class Delivery(Enum):
    """The four classes of messages, one transport verb each."""

    VOTE = "send_vote"
    APPEND = "send_append_entries"
    PULSE = "send_heartbeat_batch"
    SNAPSHOT = "send_install_snapshot"
    """In pieces that are no messages; see `InstallSnapshot`."""


@attrs.define
class PreVote:
    """Would you vote for me? Sent to all voters before a campaign; changes nothing at the receiver (dissertation 9.6)."""

    source: Member
    target: Member
    term: Term
    """The term the sender would campaign in: its own plus one."""
    last: EntryId
    """The last entry of the sender's log."""
    genesis: int = 0
    """`Replica.genesis` of the sender."""


@attrs.define
class PreVoteReply:
    source: Member
    target: Member
    term: Term
    """Granted: the term that was asked for. Refused: the term of the replying replica, so that a stale asker catches up."""
    granted: bool


@attrs.define
class RequestVote:
    """Vote for me in `term`. Leaves only after the sender's own vote for that term is durable."""

    source: Member
    target: Member
    term: Term
    last: EntryId
    transfer: bool = False
    """The leader asked for this election (leadership transfer): stickiness does not apply (dissertation 3.10, 4.2.3)."""
    genesis: int = 0
    """`Replica.genesis` of the sender."""


@attrs.define
class RequestVoteReply:
    """Leaves only after the vote is durable."""

    source: Member
    target: Member
    term: Term
    granted: bool


@attrs.define
class AppendEntries:
    """Entries that follow `previous`; none: a probe. Indexes are consecutive, terms never fall, none is above `term`."""

    source: Member
    target: Member
    term: Term
    previous: EntryId
    commit: Index
    """The leader's commit index; the receiver commits at most what this message proves to match."""
    entries: tuple[Entry, ...] = ()


@attrs.define
class AppendEntriesReply:
    """Accepted: leaves only after everything up to `match` is durable at the sender."""

    source: Member
    target: Member
    term: Term
    match: Index
    """Accepted: the sender's log equals the leader's up to here. Refused: 0."""
    rejected: Index = 0
    """Refused: the index of the `previous` that did not match. 0: accepted."""
    hint: EntryId = NOTHING
    """Refused: the last entry of the sender that may still match (largest index <= rejected with a term <= that of `previous`)."""
    commit: Index = 0
    """The sender's commit index, so that the leader knows whom it still has to tell. 0 costs a heartbeat, nothing else."""


@attrs.define
class Heartbeat:
    """On demand only: to tell a commit index, to probe. A group has no heartbeat of its own."""

    source: Member
    target: Member
    term: Term
    commit: Index
    """At most what the receiver is known to match."""
    round: int = 0
    """Number of a round that confirms leadership, never used twice in a term; 0: none."""


@attrs.define
class HeartbeatReply:
    source: Member
    target: Member
    term: Term
    commit: Index
    """The sender's commit index."""
    round: int = 0
    """That of the heartbeat which is answered."""


@attrs.define
class TimeoutNow:
    """Campaign now: the leader of `term` hands over to you, and you have all of its log (dissertation 3.10)."""

    source: Member
    target: Member
    term: Term


@attrs.define
class Removed:
    """The target is in the group no more: the configuration at `index`, which is committed, does not have that replica.

    The answer to a message that only a member sends. Whoever gets it goes quiet, and deletes nothing.
    """

    source: Member
    target: Member
    term: Term
    """The sender's; the receiver does not move on to it."""
    index: Index


@attrs.define
class Attach:
    """I lead in `term`: count on my node's pulse instead of heartbeats. Carried, repeated and acknowledged by the pulse."""

    source: Member
    target: Member
    term: Term


@attrs.define
class Detach:
    """Count on my node no more. From a leader: it leads no longer in `term`. From a follower: it stopped, or is busy electing."""

    source: Member
    target: Member
    term: Term


@attrs.define
class AttachRefused:
    """The answer to an `Attach` of an older term: `term` is the higher one."""

    source: Member
    target: Member
    term: Term


@attrs.define
class InstallSnapshot:
    """Take this instead of a log that begins too late for you. Answered by an `AppendEntriesReply`.

    Never travels as one message: a leader's driver streams the snapshot's file, and the receiver's driver makes this of it once the
    whole file is on its disk, checked and synced. Whatever does not become of use is thrown away.
    """

    source: Member
    target: Member
    term: Term
    at: EntryId
    """The last entry whose effect is in the snapshot."""
    configuration: Configuration
    """The one at that entry, which may be older than the newest."""


Message: TypeAlias = (
    PreVote
    | PreVoteReply
    | RequestVote
    | RequestVoteReply
    | AppendEntries
    | AppendEntriesReply
    | Heartbeat
    | HeartbeatReply
    | TimeoutNow
    | Removed
    | Attach
    | Detach
    | AttachRefused
    | InstallSnapshot
)

DELIVERY: dict[type[Message], Delivery] = {
    PreVote: Delivery.VOTE,
    PreVoteReply: Delivery.VOTE,
    RequestVote: Delivery.VOTE,
    RequestVoteReply: Delivery.VOTE,
    AppendEntries: Delivery.APPEND,
    AppendEntriesReply: Delivery.VOTE,
    Heartbeat: Delivery.VOTE,
    HeartbeatReply: Delivery.VOTE,
    TimeoutNow: Delivery.VOTE,
    Removed: Delivery.VOTE,
    Attach: Delivery.PULSE,
    Detach: Delivery.PULSE,
    AttachRefused: Delivery.PULSE,
    InstallSnapshot: Delivery.SNAPSHOT,
}
