"""docs/wire.md against the code: the examples are made anew and must stand there, the tables must name what there is."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

import pytest

from tests.wire.samples import GROUP, HELLO, ME, PIECE, SOURCE, TARGET, YOU, command, noop
from trioraft._types import EntryId
from trioraft.core import DELIVERY, AppendEntries, Configuration
from trioraft.wire import (
    PING,
    BodyKind,
    Envelope,
    Forward,
    ForwardOutcome,
    ForwardReply,
    NodeAddress,
    PulseKind,
    RequestKind,
    SnapshotAnswer,
    SnapshotEncoder,
    SnapshotReply,
    encode_frame,
    encode_hello,
    encode_messages,
    encode_piece,
    encode_value,
)
from trioraft.wire._message import _KINDS, FORWARD, FORWARD_REPLY, NODE_ADDRESS, SNAPSHOT_REPLY

DOC = Path(__file__).parents[2] / "docs" / "wire.md"


def annotated(data: bytes, parts: list[tuple[int, str]]) -> str:
    """A listing of `data`, cut into parts of so many bytes with a comment each."""
    listing, offset = [], 0
    for size, comment in parts:
        for start in range(offset, offset + size, 16):
            piece = data[start : min(start + 16, offset + size)].hex(" ")
            listing.append(f"{piece:<47}  {comment if start == offset else ''}".rstrip())
        offset += size
    assert offset == len(data), f"{len(data) - offset} bytes are not explained"
    return "\n".join(listing)


def hello_listing() -> str:
    return annotated(
        encode_frame([encode_hello(HELLO)]),
        [
            (4, "length of the body: 60"),
            (4, "CRC-32 of the body"),
            (8, '"trioraft"'),
            (1, "protocol version 1"),
            (1, "1: hello"),
            (1, "array of 6"),
            (5, 'cluster id "demo"'),
            (1, "sender: node 1"),
            (1, "receiver: node 2"),
            (34, "store id of the sender, a text of 32"),
            (1, "process incarnation 3"),
            (7, 'lane "append"'),
        ],
    )


def append_entries_listing() -> str:
    message = AppendEntries(ME, YOU, 3, EntryId(2, 4), 4, (noop(5, 3), command(6, 3, encode_value({"x": 1}))))
    return annotated(
        encode_frame([encode_messages([Envelope(GROUP, message)], SOURCE, TARGET)]),
        [
            (4, "length of the body: 95"),
            (4, "CRC-32 of the body"),
            (1, "body kind 1: messages"),
            (4, "length of the header: 12"),
            (1, "array of 2: one size, one message"),
            (2, "size of the tail: 78"),
            (1, "array of 8"),
            (1, "kind 5: AppendEntries"),
            (2, "group 7, incarnation 1"),
            (1, "term 3"),
            (2, "previous entry 4@2: term 2, index 4"),
            (1, "commit index 4"),
            (1, "both replica numbers are 0@0"),
            (4, "first record: CRC-32 of the 33 bytes behind"),
            (4, "no payload"),
            (8, "group 7"),
            (4, "incarnation 1"),
            (8, "index 5"),
            (8, "term 3"),
            (1, "kind 0: NOOP"),
            (4, "second record: CRC-32 of the 37 bytes behind"),
            (4, "payload of 4 bytes"),
            (8, "group 7"),
            (4, "incarnation 1"),
            (8, "index 6"),
            (8, "term 3"),
            (1, "kind 1: COMMAND"),
            (4, 'the payload: {"x": 1} as CBOR'),
        ],
    )


def ping_listing() -> str:
    return annotated(PING, [(4, "length of the body: 1"), (4, "CRC-32 of the body"), (1, "body kind 3: ping")])


def piece_listing() -> str:
    return annotated(
        encode_frame([encode_piece(PIECE)]),
        [
            (4, "length of the body: 56"),
            (4, "CRC-32 of the body"),
            (1, "body kind 5: piece"),
            (1, "length of the header: 51"),
            (1, "array of 12"),
            (2, "group 7, incarnation 1"),
            (1, "term 3"),
            (2, "snapshot up to 9@3: term 3, index 9"),
            (34, "sha256 of the snapshot, 32 bytes"),
            (3, "size of the file: 4099"),
            (3, "offset 4096"),
            (2, "source: replica 0@0"),
            (3, "target: replica 40@2, term 2, index 40"),
            (3, 'the data: "end"'),
        ],
    )


def file_listing() -> str:
    encoder = SnapshotEncoder(GROUP, EntryId(3, 9), Configuration.bootstrap([1]), compression="none")
    for record in ({"x": 1}, None):
        encoder.add(record)
    return annotated(
        encoder.finish(),
        [
            (8, '"TRIORSNP"'),
            (4, "format version 1"),
            (4, "CRC-32 of these 12 bytes"),
            (8, "group 7"),
            (4, "incarnation 1"),
            (8, "up to 9@3: term 3"),
            (8, "index 9"),
            (1, "no compression"),
            (4, "CRC-32 of these 29 bytes"),
            (4, "a block, stored in 5 bytes"),
            (4, "of 5 bytes, so stored as it is"),
            (4, "CRC-32 of the two sizes and of the block"),
            (4, '{"x": 1}'),
            (1, "null"),
            (4, "a section of 100 bytes"),
            (4, "that is no block: the manifest"),
            (4, "CRC-32 of the two sizes and of the manifest"),
            (1, "array of 11"),
            (4, "group 7, incarnation 1, term 3, index 9"),
            (2, "configuration, 40 bytes"),
            (8, "not put in force by an entry"),
            (6, "one voter: node 1"),
            (6, "no outgoing half, no learners, nobody becomes one"),
            (20, "node 1 has the replica number 0@0"),
            (5, '"cbor"'),
            (5, '"none"'),
            (1, "2 records"),
            (1, "of 5 bytes"),
            (2, "the manifest begins at offset 66"),
            (34, "SHA-256 of the first 66 bytes"),
            (8, "the manifest begins at offset 66"),
            (4, "format version 1"),
            (4, "CRC-32 of these 12 bytes"),
            (8, '"TRIORSNE"'),
        ],
    )


LISTINGS = {
    "hello": hello_listing,
    "append entries": append_entries_listing,
    "ping": ping_listing,
    "piece": piece_listing,
    "snapshot file": file_listing,
}


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS)
def test_the_examples_of_the_document_are_what_the_code_sends(listing: Callable[[], str]) -> None:
    expected = f"```text\n{listing()}\n```"
    assert expected in DOC.read_text("utf-8"), f"docs/wire.md should contain:\n{expected}"


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading of the document, without its head."""
    section = re.split(r"^#+ ", DOC.read_text("utf-8").split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table[2:]]


def test_the_table_of_messages_is_complete() -> None:
    lanes = {"send_vote": "control", "send_append_entries": "append", "send_heartbeat_batch": "control"}
    expected = {
        (str(kind.number), message.__name__, DELIVERY[message].value, lanes[DELIVERY[message].value]) for message, kind in _KINDS.items()
    }
    expected |= {
        (str(number), message.__name__, "send_append_entries", "append")
        for number, message in ((FORWARD, Forward), (FORWARD_REPLY, ForwardReply))
    }
    expected |= {
        (str(number), message.__name__, "send_vote", "control")
        for number, message in ((SNAPSHOT_REPLY, SnapshotReply), (NODE_ADDRESS, NodeAddress))
    }
    assert {(row[0], row[1], row[4], row[5]) for row in rows("Messages")} == expected


@pytest.mark.parametrize(
    "heading, kinds",
    [
        ("Bodies", BodyKind),
        ("Forwarded requests", RequestKind),
        ("What became of a request", ForwardOutcome),
        ("The pulse", PulseKind),
        ("Snapshots on the move", SnapshotAnswer),
    ],
    ids=str,
)
def test_the_tables_of_numbers_are_complete(heading: str, kinds: type[IntEnum]) -> None:
    assert {(row[0], row[1]) for row in rows(heading) if row[1].isupper()} == {(str(int(kind)), kind.name) for kind in kinds}
