"""The body of a message frame: many messages of many groups between one pair of nodes.

    1 byte   body kind, 1
    4 bytes  length of the header, little-endian
    n bytes  the header: one CBOR array ``[size, message, size, message, ...]``
    n bytes  the tails of the messages, one behind the other, `size` bytes each

A *tail* is what would be slow as CBOR: the records of an `AppendEntries`, the payload of a `Forward`. Sizes stand beside the messages,
not inside them, so a reader skips a message and its tail without understanding either: one bad message costs only itself.
Node ids are not in there: both ends know them from the handshake, so no message can claim to be from somebody else.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import cbor2

from .._errors import InvariantError, WireError
from .._types import Member, NodeId
from ..core import AppendEntries
from ._body import BodyKind
from ._envelope import Envelope, Forward, ForwardReply, NodeAddress, SnapshotReply
from ._message import SNAPSHOT_TEXT_BYTES_MAX, decode_message, encode_message
from ._record import RECORD_HEADER_SIZE
from ._strict import decode_strict

HEADER_BYTES_MAX: Final = 1 << 20
"""The largest header of a message frame: bounds what a peer can make the decoder build."""

MESSAGE_OVERHEAD_MAX: Final = 128
"""What a message may take up beside its tail and its text; no message needs quite that much."""

BODY_OVERHEAD_MAX: Final = 16
"""What the body of a message frame may take up beside its messages."""

_HEADER_DEPTH_MAX: Final = 8  # the header, a message, its replicas; the rest is room for later kinds, so that they can be skipped
_PREFIX: Final = struct.Struct("<BI")


class DecodedFrame(NamedTuple):
    """The messages of one frame, in order."""

    envelopes: list[Envelope]
    bad: int
    """Messages skipped: an unknown kind, a bad field, a bad record. To be counted; they failed no other."""


def encode_messages(envelopes: Sequence[Envelope], source: NodeId, target: NodeId) -> bytes:
    """Encode messages from `source` to `target` as the body of one frame. Entries that are not sealed yet are sealed.

    Raises:
        InvariantError: a message is from or to another node or never travels, or there are too many for one frame (split by
            `message_size`).
    """
    here, there = Member(source), Member(target)
    items: list[Any] = []
    tails: list[bytes] = []
    for envelope in envelopes:
        fields, size = encode_message(envelope, here, there, tails)
        items.append(size)
        items.append(fields)
    header = cbor2.dumps(items)
    if len(header) > HEADER_BYTES_MAX:
        raise InvariantError(f"{len(envelopes)} messages are too many for one frame")
    return b"".join((_PREFIX.pack(BodyKind.MESSAGES, len(header)), header, *tails))


def decode_messages(body: bytes, source: NodeId, target: NodeId, *, payload_bytes_max: int) -> DecodedFrame:
    """Decode the body of a message frame that `source` sent to `target`; no command may be larger than `payload_bytes_max`.

    Raises:
        WireError: the body as such is malformed, so that its messages cannot be told apart: nothing of it may be used.
    """
    items, offset = _open_body(body)
    here, there = Member(source), Member(target)
    envelopes: list[Envelope] = []
    bad = 0
    for size, fields in zip(items[::2], items[1::2], strict=True):
        tail = body[offset : offset + size]
        offset += size
        try:
            envelopes.append(decode_message(fields, tail, here, there, payload_bytes_max=payload_bytes_max))
        except WireError:
            bad += 1
    return DecodedFrame(envelopes, bad)


def message_size(envelope: Envelope) -> int:
    """How many bytes of a frame a message takes up at most. Cheap, and never too little: for the limits of queues and frames."""
    message = envelope.message
    if isinstance(message, AppendEntries):
        return MESSAGE_OVERHEAD_MAX + sum([RECORD_HEADER_SIZE + len(entry.payload) for entry in message.entries])
    if isinstance(message, Forward):
        return MESSAGE_OVERHEAD_MAX + len(message.payload)
    if isinstance(message, ForwardReply):
        return MESSAGE_OVERHEAD_MAX + len(message.body)
    if isinstance(message, NodeAddress):
        return MESSAGE_OVERHEAD_MAX + len(message.address.encode())
    if isinstance(message, SnapshotReply):
        return MESSAGE_OVERHEAD_MAX + SNAPSHOT_TEXT_BYTES_MAX
    return MESSAGE_OVERHEAD_MAX


def _open_body(body: bytes) -> tuple[list[Any], int]:
    """Return sizes and messages in turn, and where the first tail begins. The sizes are checked, the messages are not."""
    if len(body) < _PREFIX.size:
        raise WireError("message body without a header")
    kind, length = _PREFIX.unpack_from(body)
    if kind != BodyKind.MESSAGES:
        raise WireError("not a message body")
    start = _PREFIX.size + length
    if length > HEADER_BYTES_MAX or start > len(body):
        raise WireError(f"message body with a header of {length} bytes")
    items = decode_strict(body[_PREFIX.size : start], depth_max=_HEADER_DEPTH_MAX)
    if type(items) is not list or len(items) % 2:
        raise WireError("the header of a message body must be an array of sizes and messages in turn")
    total = 0
    for size in items[::2]:
        if type(size) is not int or size < 0:
            raise WireError("the size of a message is no length")
        total += size
    if total != len(body) - start:
        raise WireError(f"the messages claim {total} bytes behind the header, there are {len(body) - start}")
    return items, start
