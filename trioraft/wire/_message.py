"""One message <-> its flat array of fields, and its tail.

    core     ``[kind, group id, group incarnation, term, numbers..., flag?, replicas]``
    forward  ``[kind, group id, group incarnation, process incarnation, number, kind of request or outcome]``
    snapshot ``[kind, group id, group incarnation, term, index, answer, offset, sha256, text, replicas]``
    address  ``[kind, node id, version, address]``

Every kind of the core is one row of a table: its number on the wire, how many numbers and whether a boolean it has of its own, and how
to take these out of a message and put them back. Kind numbers are part of the wire format and never reused.
An entry id is two numbers: term, index. `replicas` is 0 if both replica numbers are 0@0, which is nearly always, else
``[source term, source index, target term, target index]``.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final, TypeAlias

import attrs

from .._errors import InvariantError, WireError
from .._types import NOTHING, EntryId, GroupKey, Member, Term
from ..core import (
    AppendEntries,
    AppendEntriesReply,
    Attach,
    AttachRefused,
    Detach,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    Removed,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from ._envelope import NO_GROUP, Envelope, Forward, ForwardOutcome, ForwardReply, NodeAddress, RequestKind, SnapshotAnswer, SnapshotReply
from ._record import open_records, seal
from ._strict import INCARNATION_MAX, NUMBER_MAX, checked_number

Fields: TypeAlias = list[Any]

_SHARED: Final = 5  # kind, group id, group incarnation, term, replicas

APPEND_ENTRIES: Final = 5
FORWARD: Final = 16
FORWARD_REPLY: Final = 17
SNAPSHOT_REPLY: Final = 18
NODE_ADDRESS: Final = 19

SHA256_BYTES: Final = 32
SNAPSHOT_TEXT_BYTES_MAX: Final = 512
"""The longest text of a `SnapshotReply`, in UTF-8: the sender cuts it off there."""

ADDRESS_BYTES_MAX: Final = 512
"""The longest address of a node, in UTF-8."""

_NODE_ID_MAX: Final = 2**32 - 1
_REQUESTS: Final = {int(kind): kind for kind in RequestKind}
_OUTCOMES: Final = {int(outcome): outcome for outcome in ForwardOutcome}
_ANSWERS: Final = {int(answer): answer for answer in SnapshotAnswer}


@attrs.frozen
class _Kind:
    """How one message class of the core looks on the wire."""

    number: int
    numbers: int
    """How many numbers the message has behind its term."""
    has_flag: bool
    """Whether a boolean follows these."""
    take: Callable[[Any], tuple[Any, ...]]
    """The fields of a message behind its term."""
    put: Callable[..., Message]
    """The message, from source, target, term and these fields."""


def _take_nothing(message: Any) -> tuple[Any, ...]:
    return ()


def _take_granted(message: PreVoteReply | RequestVoteReply) -> tuple[Any, ...]:
    return (message.granted,)


_take_round: Final = attrgetter("commit", "round")


def _put_pre_vote(source: Member, target: Member, term: Term, last_term: int, last_index: int, genesis: int) -> Message:
    return PreVote(source, target, term, EntryId(last_term, last_index), genesis)


def _put_request_vote(source: Member, target: Member, term: Term, last_term: int, last_index: int, genesis: int, transfer: bool) -> Message:
    return RequestVote(source, target, term, EntryId(last_term, last_index), transfer, genesis)


def _put_append_entries(source: Member, target: Member, term: Term, previous_term: int, previous_index: int, commit: int) -> Message:
    return AppendEntries(source, target, term, EntryId(previous_term, previous_index), commit)


def _put_append_entries_reply(
    source: Member, target: Member, term: Term, match: int, rejected: int, hint_term: int, hint_index: int, commit: int
) -> Message:
    return AppendEntriesReply(source, target, term, match, rejected, EntryId(hint_term, hint_index), commit)


_KINDS: Final[dict[type[Message], _Kind]] = {
    PreVote: _Kind(1, 3, False, lambda m: (*m.last, m.genesis), _put_pre_vote),
    PreVoteReply: _Kind(2, 0, True, _take_granted, PreVoteReply),
    RequestVote: _Kind(3, 3, True, lambda m: (*m.last, m.genesis, m.transfer), _put_request_vote),
    RequestVoteReply: _Kind(4, 0, True, _take_granted, RequestVoteReply),
    AppendEntries: _Kind(APPEND_ENTRIES, 3, False, lambda m: (*m.previous, m.commit), _put_append_entries),
    AppendEntriesReply: _Kind(6, 5, False, lambda m: (m.match, m.rejected, *m.hint, m.commit), _put_append_entries_reply),
    Heartbeat: _Kind(7, 2, False, _take_round, Heartbeat),
    HeartbeatReply: _Kind(8, 2, False, _take_round, HeartbeatReply),
    Attach: _Kind(9, 0, False, _take_nothing, Attach),
    Detach: _Kind(10, 0, False, _take_nothing, Detach),
    AttachRefused: _Kind(11, 0, False, _take_nothing, AttachRefused),
    TimeoutNow: _Kind(12, 0, False, _take_nothing, TimeoutNow),
    Removed: _Kind(13, 1, False, lambda m: (m.index,), Removed),
}
_BY_NUMBER: Final = {kind.number: kind for kind in _KINDS.values()}


def encode_message(envelope: Envelope, source: Member, target: Member, tails: list[bytes]) -> tuple[Fields, int]:
    """Return a message's fields and the size of its tail, whose parts are appended to `tails`.

    Raises:
        InvariantError: the message is from or to another node than this connection's, so that the receiver would take it for this one's;
            or it is an `InstallSnapshot`, which never travels as a message.
    """
    group, message = envelope
    if isinstance(message, Forward):
        tails.append(message.payload)
        # NB: adding 0 makes a plain int of an enum, in a third of the time that `int` takes.
        return [FORWARD, *group, message.incarnation, message.number, message.kind + 0], len(message.payload)
    if isinstance(message, ForwardReply):
        tails.append(message.body)
        return [FORWARD_REPLY, *group, message.incarnation, message.number, int(message.outcome)], len(message.body)
    if isinstance(message, NodeAddress):
        return [NODE_ADDRESS, message.node_id, message.version, message.address], 0
    if message.source.node_id != source.node_id or message.target.node_id != target.node_id:
        raise InvariantError(f"message {message.source} -> {message.target} on a connection {source} -> {target}")
    if isinstance(message, SnapshotReply):
        return _encode_snapshot_reply(group, message), 0
    kind = _KINDS.get(type(message))
    if kind is None:
        raise InvariantError(f"{type(message).__name__} never travels as a message")
    fields = [kind.number, *group, message.term, *kind.take(message), _encode_replicas(message.source.replica, message.target.replica)]
    size = 0
    if isinstance(message, AppendEntries):
        for entry in message.entries:
            # NB: `seal` would return a record that is there, too; but the call alone makes a message of 64 entries half as slow again.
            record = entry.record or seal(group, entry)
            tails.append(record)
            size += len(record)
    return fields, size


def decode_message(fields: Any, tail: bytes, source: Member, target: Member, *, payload_bytes_max: int) -> Envelope:
    """Build a message from its fields and its tail; `source` and `target` are the ends of the connection, with replica 0@0.

    Raises:
        WireError: an unknown kind, or a field, a record or the number of fields is not as it must be.
    """
    if type(fields) is not list or not fields or type(fields[0]) is not int:
        raise WireError("a message must be an array that begins with its kind")
    number = fields[0]
    kind = _BY_NUMBER.get(number)
    if kind is not None:
        return _decode_core_message(kind, fields, tail, source, target, payload_bytes_max)
    if number == FORWARD:
        return _decode_forward(fields, tail, payload_bytes_max)
    if number == FORWARD_REPLY:
        return _decode_forward_reply(fields, tail)
    if number == SNAPSHOT_REPLY:
        return _decode_snapshot_reply(fields, tail, source, target)
    if number == NODE_ADDRESS:
        return _decode_node_address(fields, tail)
    raise WireError(f"message of an unknown kind {number}")


def _decode_core_message(kind: _Kind, fields: Fields, tail: bytes, source: Member, target: Member, payload_bytes_max: int) -> Envelope:
    if len(fields) != _SHARED + kind.numbers + kind.has_flag:
        raise WireError(f"message of kind {kind.number} with {len(fields)} fields")
    if kind.has_flag and type(fields[-2]) is not bool:
        raise WireError("a flag of a message is no boolean")
    group = _check_numbers(fields, _SHARED - 1 + kind.numbers)
    replicas = fields[-1]
    if replicas != 0 or type(replicas) is not int:
        source, target = _decode_replicas(replicas, source, target)
    message = kind.put(source, target, *fields[3:-1])
    if isinstance(message, AppendEntries):
        message.entries = open_records(tail, 0, len(tail), group=group, payload_bytes_max=payload_bytes_max)
    elif tail:
        raise WireError(f"message of kind {kind.number} with a tail")
    return Envelope(group, message)


def _decode_forward(fields: Fields, tail: bytes, payload_bytes_max: int) -> Envelope:
    if len(fields) != 6:
        raise WireError(f"forward with {len(fields)} fields")
    if len(tail) > payload_bytes_max:
        raise WireError(f"forward of {len(tail)} bytes; up to {payload_bytes_max} are accepted")
    group = _check_numbers(fields, 6)
    kind = _REQUESTS.get(fields[5])
    if kind is None:
        raise WireError(f"unknown request {fields[5]}")
    return Envelope(group, Forward(fields[3], fields[4], tail, kind))


def _decode_forward_reply(fields: Fields, tail: bytes) -> Envelope:
    if len(fields) != 6:
        raise WireError(f"forward reply with {len(fields)} fields")
    group = _check_numbers(fields, 6)
    outcome = _OUTCOMES.get(fields[5])
    if outcome is None:
        raise WireError(f"unknown outcome {fields[5]}")
    return Envelope(group, ForwardReply(fields[3], fields[4], outcome, tail))


def _encode_snapshot_reply(group: GroupKey, reply: SnapshotReply) -> Fields:
    # NB: a text may come from an exception, with whatever in it; what cannot be encoded must not cost the answer.
    text = reply.text.encode(errors="replace")[:SNAPSHOT_TEXT_BYTES_MAX].decode(errors="ignore")
    replicas = _encode_replicas(reply.source.replica, reply.target.replica)
    return [SNAPSHOT_REPLY, *group, *reply.at, int(reply.answer), reply.offset, reply.sha256, text, replicas]


def _decode_snapshot_reply(fields: Fields, tail: bytes, source: Member, target: Member) -> Envelope:
    if len(fields) != 10 or tail:
        raise WireError(f"snapshot reply with {len(fields)} fields and a tail of {len(tail)} bytes")
    group = _check_numbers(fields, 7)
    answer = _ANSWERS.get(fields[5])
    if answer is None:
        raise WireError(f"unknown answer {fields[5]} to a piece of a snapshot")
    sha256, text, replicas = fields[7:]
    if type(sha256) is not bytes or len(sha256) != SHA256_BYTES:
        raise WireError(f"the sha256 of a snapshot must be {SHA256_BYTES} bytes")
    if type(text) is not str or len(text.encode()) > SNAPSHOT_TEXT_BYTES_MAX:
        raise WireError(f"the text of a snapshot reply must be up to {SNAPSHOT_TEXT_BYTES_MAX} bytes")
    if replicas != 0 or type(replicas) is not int:
        source, target = _decode_replicas(replicas, source, target)
    return Envelope(group, SnapshotReply(source, target, EntryId(*fields[3:5]), sha256, answer, fields[6], text))


def _decode_node_address(fields: Fields, tail: bytes) -> Envelope:
    if len(fields) != 4 or tail:
        raise WireError(f"address with {len(fields)} fields and a tail of {len(tail)} bytes")
    node_id, version, address = fields[1:]
    checked_number(node_id, "the node of an address", 1, _NODE_ID_MAX)
    checked_number(version, "the version of an address", 1)
    if type(address) is not str or not address.isprintable() or not 1 <= len(address.encode()) <= ADDRESS_BYTES_MAX:
        raise WireError(f"an address must be printable text of 1 to {ADDRESS_BYTES_MAX} bytes")
    return Envelope(NO_GROUP, NodeAddress(node_id, version, address))


def _check_numbers(fields: Fields, end: int) -> GroupKey:
    """Check the fields from the group id up to `end`, and return the group."""
    for value in fields[1:end]:
        # NB: the checks of `checked_number`, inline: they run for every number of every message.
        if type(value) is not int or not 0 <= value <= NUMBER_MAX:
            raise WireError("a number of a message is none, or out of range")
    if fields[2] > INCARNATION_MAX:
        raise WireError("the incarnation of a group is out of range")
    return GroupKey(fields[1], fields[2])


def _encode_replicas(source: EntryId, target: EntryId) -> int | Fields:
    return 0 if source == NOTHING and target == NOTHING else [*source, *target]


def _decode_replicas(value: Any, source: Member, target: Member) -> tuple[Member, Member]:
    if type(value) is not list or len(value) != 4:
        raise WireError("replicas must be 0 or four numbers")
    numbers = [checked_number(number, "replica") for number in value]
    return Member(source.node_id, EntryId(*numbers[:2])), Member(target.node_id, EntryId(*numbers[2:]))
