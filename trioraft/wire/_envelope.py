"""What travels between two nodes on behalf of a group: messages of the core, and requests passed on to its leader."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

import attrs

from .._types import EntryId, GroupKey, Member, NodeId
from ..core import Message


class RequestKind(IntEnum):
    """What a group's leader is asked for. The numbers are part of the wire format. The payload is CBOR but where it says otherwise."""

    COMMAND = 0
    """Replicate a command: the payload, as the machine's codec made it. The answer is the machine's."""
    SESSION = 1
    """Replicate an entry of a client's session: the payload, as the group's floor made it. The answer is the machine's."""
    QUERY = 2
    """Answer a query from the leader's machine, linearizably; the payload is the query."""
    READ_INDEX = 3
    """Tell from which index on a state shows everything acknowledged by now; no payload. The answer is the index."""
    CHANGE_MEMBERS = 4
    """``[voters, learners, expected index or null]``, node ids ascending. The answer is the index of the new configuration."""
    TRANSFER = 5
    """Hand leadership over to a node, or to any (null). The answer is null."""


class ForwardOutcome(IntEnum):
    """What became of a forwarded request. The numbers are part of the wire format.

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
    CHANGE_REFUSED = 9
    """The membership was not changed; the body is ``[kind, text]``."""
    TRANSFER_REFUSED = 10
    """Leadership stays; the body is ``[kind, text]``."""
    SESSION_EXPIRED = 11
    """The log has forgotten the session, or one answer of it; the body is ``[session id, sequence or null]``."""
    REFUSED = 12
    """In no log, and it would be refused again: what was asked for is wrong."""


@attrs.define
class Forward:
    """A request passed on to the leader's node; never sent again by the library.

    Answered by a `ForwardReply` with the same incarnation and number.
    """

    incarnation: int
    """The process incarnation of the asking node."""
    number: int
    """Unique within that incarnation."""
    payload: bytes
    kind: RequestKind = RequestKind.COMMAND


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


@attrs.define
class NodeAddress:
    """Where a node is to be reached: the highest version wins. Of the node's address book, not of any group; it may be lost."""

    node_id: NodeId
    version: int
    """From 1; of two addresses with one version, the larger text wins everywhere."""
    address: str
    """Printable, up to `ADDRESS_BYTES_MAX` bytes in UTF-8."""


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


GroupMessage: TypeAlias = Message | Forward | ForwardReply | SnapshotReply | NodeAddress


NO_GROUP: Final = GroupKey(0)
"""What a `NodeAddress` goes under; it means nothing there, and does not travel."""


class Envelope(NamedTuple):
    """One message of one group on its way."""

    group: GroupKey
    message: GroupMessage
