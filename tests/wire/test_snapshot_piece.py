"""Pieces of a snapshot between two nodes: what goes in comes out, and everything else is refused."""

from __future__ import annotations

from typing import Any

import attrs
import cbor2
import pytest
from hypothesis import given, strategies as st

from tests.wire.samples import HASH, PIECE, SOURCE, TARGET, pieces
from trioraft._errors import WireError
from trioraft._types import EntryId, GroupKey, Member
from trioraft.wire import BodyKind, SnapshotPiece, body_kind, decode_piece, encode_piece

#                group  term at    sha256 size offset  replicas
FIELDS: list[Any] = [7, 1, 3, 3, 9, HASH, 4099, 4096, 0, 0, 2, 40]


def body_of(fields: Any, data: bytes = b"end") -> bytes:
    header = fields if isinstance(fields, bytes) else cbor2.dumps(fields)
    return bytes((5, len(header))) + header + data


@given(pieces)
def test_round_trip(piece: SnapshotPiece) -> None:
    received = decode_piece(encode_piece(piece), SOURCE, TARGET)
    assert received == piece
    assert type(received.group) is GroupKey
    assert type(received.at) is type(received.target.replica) is EntryId
    assert type(received.source) is Member
    assert type(received.data) is bytes


def test_golden_bytes() -> None:
    body = encode_piece(PIECE)
    assert body.hex(" ") == f"05 33 8c 07 01 03 03 09 58 20 {HASH.hex(' ')} 19 10 03 19 10 00 00 00 02 18 28 65 6e 64"
    assert body == body_of(FIELDS)
    assert body_kind(body) is BodyKind.PIECE


def test_no_field_of_a_piece_is_forgotten() -> None:
    received = decode_piece(encode_piece(PIECE), SOURCE, TARGET)
    for field in attrs.fields(SnapshotPiece):
        assert getattr(received, field.name) == getattr(PIECE, field.name)


def test_who_sent_a_piece_is_known_from_the_connection() -> None:
    piece = decode_piece(encode_piece(PIECE), 8, 9)
    assert (piece.source, piece.target) == (Member(8), Member(9, PIECE.target.replica))


def test_a_piece_takes_up_little_beside_its_data() -> None:
    far = EntryId(2**63 - 1, 2**63 - 1)
    largest = SnapshotPiece(
        group=GroupKey(2**63 - 1, 2**32 - 1),
        source=Member(SOURCE, far),
        target=Member(TARGET, far),
        term=far.term,
        at=far,
        sha256=HASH,
        size=2**63 - 1,
        offset=2**63 - 1,
        data=b"",
    )
    assert decode_piece(encode_piece(largest), SOURCE, TARGET) == largest
    assert len(encode_piece(largest)) <= 136


def changed(position: int, value: Any) -> list[Any]:
    return [*FIELDS[:position], value, *FIELDS[position + 1 :]]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x05",
        b"\x01" + body_of(FIELDS)[1:],
        body_of(b""),
        body_of(FIELDS)[:20],
        b"\x05\xff" + cbor2.dumps(FIELDS),
        body_of(cbor2.dumps(FIELDS) + b"\x00"),
        body_of(b"\x9f\xff"),
        body_of(7),
        body_of(None),
        body_of({}),
        body_of(FIELDS[:-1]),
        body_of([*FIELDS, 0]),
        body_of(changed(0, "7")),
        body_of(changed(0, 2**63)),
        body_of(changed(1, 2**32)),
        body_of(changed(2, True)),
        body_of(changed(3, -1)),
        body_of(changed(4, 9.0)),
        body_of(changed(5, HASH[1:])),
        body_of(changed(5, HASH + b"?")),
        body_of(changed(5, HASH.hex()[:32])),
        body_of(changed(5, 7)),
        body_of(changed(6, None)),
        body_of(changed(6, 4098)),
        body_of(changed(7, 4097)),
        body_of(changed(7, 2**63 - 1)),
        body_of(changed(11, [])),
        body_of(FIELDS, b"end?"),
    ],
    ids=[
        "empty",
        "kind alone",
        "another kind",
        "no header",
        "cut inside the header",
        "header longer than the body",
        "bytes behind the header's array",
        "indefinite length",
        "a number",
        "null",
        "a map",
        "too short",
        "too long",
        "group id is text",
        "group id too large",
        "incarnation too large",
        "term is a boolean",
        "term of the snapshot is negative",
        "index of the snapshot is a float",
        "sha256 too short",
        "sha256 too long",
        "sha256 is text",
        "sha256 is a number",
        "size is null",
        "size is less than the end",
        "offset too large",
        "offset far too large",
        "a replica is an array",
        "data beyond the end",
    ],
)
def test_what_is_no_piece_is_refused(body: bytes) -> None:
    with pytest.raises(WireError):
        decode_piece(body, SOURCE, TARGET)


@given(st.binary(max_size=80))
def test_random_bytes_are_no_piece(noise: bytes) -> None:
    with pytest.raises(WireError):
        decode_piece(b"\x05" + noise, SOURCE, TARGET)


@given(pieces, st.data())
def test_damaged_pieces_give_a_piece_or_a_wire_error(piece: SnapshotPiece, data: st.DataObject) -> None:
    """What gets past the checksum of the frame, because whoever sent it computed it over nonsense."""
    body = bytearray(encode_piece(piece))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_piece(bytes(body), SOURCE, TARGET)
    except WireError:
        return
    assert decoded.offset + len(decoded.data) <= decoded.size
