"""What travels between two nodes on behalf of a group: messages of the core, and forwarded proposals."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, TypeAlias

import attrs

from .._types import EntryId, GroupKey, Member
from ..core import Message


class ForwardOutcome(IntEnum):
    """What became of a forwarded proposal. The numbers are part of the wire format.

    Where nothing else is said, the body is a text: why, for whoever reads the error of the asking node.
    """

    RESULT = 0
    """Applied; the body is the result, as CBOR."""
    DECLARED_ERROR = 1
    """Applied, with an error that the machine declares as a result; the body is ``[number of its class, arguments...]``."""
    NOT_LEADER = 2
    """In no log; the body is the node id of the leader, or null where that is not known."""
    DROPPED = 3
    """In no log, and never will be."""
    BUSY = 4
    """In no log: no room."""
    UNKNOWN = 5
    """May be applied or not; the body is ``[index, term]``, each of them null where it is not known."""
    STOPPED = 6
    """The replica asked runs no more."""
    NOT_FOUND = 7
    """The node asked does not host the group."""
    TOO_LARGE = 8
    """In no log: larger than `entry_bytes_max` there."""


@attrs.define
class Forward:
    """A proposal passed on to the leader's node; never sent again by the library.

    Answered by a `ForwardReply` with the same incarnation and number.
    """

    incarnation: int
    """The process incarnation of the asking node."""
    number: int
    """Unique within that incarnation."""
    payload: bytes
    """The command."""


@attrs.define
class ForwardReply:
    """The answer to a `Forward`, to whoever asked."""

    incarnation: int
    number: int
    outcome: ForwardOutcome
    body: bytes = b""
    """What the outcome says: exactly one CBOR item, as `encode_value` makes it, for every outcome.

    The wire itself does not look inside; whoever asked takes what cannot be read as `UNKNOWN`.
    At most what a frame may hold: its sender sees to that.
    """


class SnapshotAnswer(IntEnum):
    """What the receiver of a snapshot's pieces says. The numbers are part of the wire format."""

    CONTINUE = 0
    """Everything before `offset` is here: go on there."""
    BUSY = 1
    """Too many snapshots are on their way to this node: offer it again later."""
    ARRIVED = 2
    """The whole file is here, checked and durable, or of no use (any more): the group's replica answers the rest itself."""
    REFUSED = 3
    """These bytes are no such snapshot, or this node cannot take it: its text says why. Do not go on with this one."""


@attrs.define
class SnapshotReply:
    """The answer to an offer of a snapshot and to its last piece; others are answered only if they do not follow what is here."""

    source: Member
    target: Member
    at: EntryId
    """The snapshot."""
    sha256: bytes
    answer: SnapshotAnswer
    offset: int = 0
    text: str = ""


GroupMessage: TypeAlias = Message | Forward | ForwardReply | SnapshotReply


class Envelope(NamedTuple):
    """One message of one group on its way."""

    group: GroupKey
    message: GroupMessage
