"""Pieces of a snapshot on their way to another node: what `send_install_snapshot` carries, the body of one frame each.

    1 byte   body kind, 5
    1 byte   length of the header
    n bytes  the header: one CBOR array, flat
    n bytes  the data, raw, up to the end of the body

Node ids are not in there: both ends know them from the handshake.
"""

from __future__ import annotations

from typing import Final

import attrs
import cbor2

from .._errors import WireError
from .._types import EntryId, GroupKey, Member, Term
from ._body import BodyKind
from ._message import SHA256_BYTES
from ._strict import INCARNATION_MAX, checked_number, decode_strict

_FIELDS: Final = 12
_PREFIX_SIZE: Final = 2


@attrs.frozen(kw_only=True)
class SnapshotPiece:
    """Some bytes of a snapshot's file; none at all: an offer, answered by where to go on."""

    group: GroupKey
    source: Member
    target: Member
    term: Term
    """The sender's, who leads in it."""
    at: EntryId
    """The snapshot."""
    sha256: bytes
    """Its manifest's: two snapshots at one entry may differ in their bytes, and their pieces must not be mixed."""
    size: int
    """Of the whole file."""
    offset: int
    """Of `data` in the file."""
    data: bytes


def encode_piece(piece: SnapshotPiece) -> bytes:
    """Encode a piece as the body of one frame, from `piece.source.node_id` to `piece.target.node_id`."""
    replicas = (*piece.source.replica, *piece.target.replica)
    header = cbor2.dumps([*piece.group, piece.term, *piece.at, piece.sha256, piece.size, piece.offset, *replicas])
    return b"".join((bytes((BodyKind.PIECE, len(header))), header, piece.data))


def decode_piece(body: bytes, source: int, target: int) -> SnapshotPiece:
    """Decode a piece that node `source` sent to node `target`.

    Raises:
        WireError: it is none.
    """
    if len(body) < _PREFIX_SIZE or body[0] != BodyKind.PIECE:
        raise WireError("not a piece of a snapshot")
    start = _PREFIX_SIZE + body[1]
    if start > len(body):
        raise WireError("a piece of a snapshot that ends inside its header")
    fields = decode_strict(body[_PREFIX_SIZE:start], depth_max=1)
    if type(fields) is not list or len(fields) != _FIELDS:
        raise WireError(f"the header of a piece must be an array of {_FIELDS} elements")
    sha256 = fields.pop(5)
    if type(sha256) is not bytes or len(sha256) != SHA256_BYTES:
        raise WireError(f"the sha256 of a piece must be {SHA256_BYTES} bytes")
    for number in fields:
        checked_number(number, "a number of a piece")
    group_id, incarnation, term, at_term, at_index, size, offset, *replicas = fields
    data = body[start:]
    checked_number(incarnation, "the incarnation of a group", 0, INCARNATION_MAX)
    checked_number(offset + len(data), "the end of a piece", 0, size)
    return SnapshotPiece(
        group=GroupKey(group_id, incarnation),
        source=Member(source, EntryId(*replicas[:2])),
        target=Member(target, EntryId(*replicas[2:])),
        term=term,
        at=EntryId(at_term, at_index),
        sha256=sha256,
        size=size,
        offset=offset,
        data=data,
    )
