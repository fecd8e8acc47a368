"""docs/wire.md against the code: the examples are made anew and must stand there, the tables must name what there is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.wire.samples import GROUP, HELLO, ME, SOURCE, TARGET, YOU, command, noop
from trioraft._types import EntryId
from trioraft.core import DELIVERY, AppendEntries
from trioraft.wire import (
    PING,
    BodyKind,
    Envelope,
    Forward,
    ForwardOutcome,
    ForwardReply,
    PulseKind,
    encode_frame,
    encode_hello,
    encode_messages,
    encode_value,
)
from trioraft.wire._message import _KINDS, FORWARD, FORWARD_REPLY

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


@pytest.mark.parametrize("listing", [hello_listing, append_entries_listing, ping_listing], ids=["hello", "append entries", "ping"])
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
    assert {(row[0], row[1], row[4], row[5]) for row in rows("Messages")} == expected


@pytest.mark.parametrize(
    "heading, kinds", [("Bodies", BodyKind), ("Forwarded proposals", ForwardOutcome), ("The pulse", PulseKind)], ids=str
)
def test_the_tables_of_numbers_are_complete(heading: str, kinds: type[BodyKind | ForwardOutcome | PulseKind]) -> None:
    assert {(row[0], row[1]) for row in rows(heading) if row[1].isupper()} == {(str(int(kind)), kind.name) for kind in kinds}
