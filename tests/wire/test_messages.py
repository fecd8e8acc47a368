"""Message frames: every class there and back, and one bad message costs only itself."""

from __future__ import annotations

import struct
from itertools import count
from typing import Any, get_args, get_type_hints

import attrs
import cbor2
import pytest
from hypothesis import given, strategies as st

from tests.wire.samples import (
    CONFIGURATION,
    GROUP,
    HASH,
    ME,
    MESSAGES,
    PAYLOAD_MAX,
    SOURCE,
    TARGET,
    YOU,
    append,
    command,
    envelopes,
    noop,
    record,
)
from trioraft._errors import InvariantError, WireError
from trioraft._types import EntryId, GroupKey, Member
from trioraft.core import (
    AppendEntries,
    AppendEntriesReply,
    Configuration,
    Entry,
    EntryKind,
    Heartbeat,
    InstallSnapshot,
    Message,
    encode_configuration,
)
from trioraft.wire import (
    ADDRESS_BYTES_MAX,
    BODY_OVERHEAD_MAX,
    HEADER_BYTES_MAX,
    NO_GROUP,
    DecodedFrame,
    Envelope,
    Forward,
    ForwardOutcome,
    ForwardReply,
    NodeAddress,
    RequestKind,
    SnapshotAnswer,
    SnapshotReply,
    decode_messages,
    encode_messages,
    message_size,
    seal,
)
from trioraft.wire._message import _KINDS, SNAPSHOT_TEXT_BYTES_MAX

NOT_OF_THE_CORE = {Forward, ForwardReply, SnapshotReply, NodeAddress}
NEVER_MESSAGES = {InstallSnapshot}
"""They travel in other ways, or not at all."""

HEARTBEAT = [7, 7, 1, 3, 6, 11, 0]
REPLY = [18, 7, 1, 3, 9, 0, 4096, HASH, "", 0]
ADDRESS = [19, 3, 2, "n3:1"]


def body_of(items: Any, tail: bytes = b"") -> bytes:
    header = items if isinstance(items, bytes) else cbor2.dumps(items)
    return struct.pack("<BI", 1, len(header)) + header + tail


def decode(body: bytes, payload_bytes_max: int = PAYLOAD_MAX) -> DecodedFrame:
    return decode_messages(body, SOURCE, TARGET, payload_bytes_max=payload_bytes_max)


@given(st.lists(envelopes, max_size=5))
def test_round_trip(sent: list[Envelope]) -> None:
    body = encode_messages(sent, SOURCE, TARGET)
    assert len(body) <= BODY_OVERHEAD_MAX + sum(message_size(envelope) for envelope in sent)
    received = decode(body)
    assert received == (sent, 0)
    for envelope in received.envelopes:
        assert type(envelope.group) is GroupKey
        message = envelope.message
        if isinstance(message, ForwardReply):
            assert type(message.outcome) is ForwardOutcome
        elif isinstance(message, SnapshotReply):
            assert type(message.answer) is SnapshotAnswer
            assert type(message.at) is EntryId
        elif isinstance(message, Forward):
            assert type(message.kind) is RequestKind
        elif not isinstance(message, NodeAddress):
            assert type(message.source) is Member
            assert type(message.target.replica) is EntryId
    # A frame has one form: what was decoded encodes to the same bytes, without sealing anything anew.
    assert encode_messages(received.envelopes, SOURCE, TARGET) == body


def value_of(field: attrs.Attribute[Any], kind: Any, numbers: count[int]) -> Any:
    """A value for a field of a message: not its default, and not that of another field of the same type."""
    if field.name in ("source", "target"):
        return Member(SOURCE if field.name == "source" else TARGET, EntryId(next(numbers), next(numbers)))
    if kind is int:
        return next(numbers)
    if kind is bool:
        return field.default is not True
    if kind is EntryId:
        return EntryId(next(numbers), next(numbers))
    if kind is bytes:
        return next(numbers).to_bytes(32, "little")
    if kind is str:
        return str(next(numbers))
    if kind in (ForwardOutcome, SnapshotAnswer):
        return kind.BUSY
    if kind is RequestKind:
        return kind.TRANSFER
    assert kind == tuple[Entry, ...], f"say here what a field of type {kind} may be"
    return (noop(next(numbers)), command(next(numbers)))


@pytest.mark.parametrize("message_class", [*_KINDS, *sorted(NOT_OF_THE_CORE, key=str)], ids=lambda kind: kind.__name__)
def test_no_field_of_a_message_is_forgotten(message_class: type[Any]) -> None:
    """The round trip above draws only what its strategies name: a field with a default could be missing in both."""
    hints, fields, numbers = get_type_hints(message_class), attrs.fields(message_class), count(11)
    sent = message_class(**{field.name: value_of(field, hints[field.name], numbers) for field in fields})
    received = decode(encode_messages([Envelope(GROUP, sent)], SOURCE, TARGET)).envelopes[0].message
    for name, default in [(field.name, field.default) for field in fields]:
        value = getattr(sent, name)
        assert value != default
        assert getattr(received, name) == value, f"{name} does not cross the wire"


def test_followers_keep_the_slices_that_they_received() -> None:
    sent = append(noop(), command())
    body = encode_messages([Envelope(GROUP, sent)], SOURCE, TARGET)
    received = decode(body).envelopes[0].message
    assert isinstance(received, AppendEntries)
    assert [entry.record for entry in received.entries] == [entry.record for entry in sent.entries]
    assert body.endswith(b"".join(entry.record for entry in received.entries))


# Per message: the header's array, and the tail.
GOLDEN = {
    "PreVote": ("82 00 88 01 07 01 04 03 09 17 00", ""),
    "PreVoteReply": ("82 00 86 02 07 01 04 f5 00", ""),
    "RequestVote": ("82 00 89 03 07 01 04 03 09 1a ff ff ff ff f5 00", ""),
    "RequestVoteReply": ("82 00 86 04 07 01 04 f4 00", ""),
    "AppendEntries": (
        "82 18 4c 88 05 07 01 03 02 04 04 00",
        (
            "e7 60 e3 da 00 00 00 00 07 00 00 00 00 00 00 00 01 00 00 00 05 00 00 00 00 00 00 00 03 00 00 00 00 00 00 00 00 "
            "c8 aa b5 d9 02 00 00 00 07 00 00 00 00 00 00 00 01 00 00 00 06 00 00 00 00 00 00 00 03 00 00 00 00 00 00 00 01 61 78"
        ),
    ),
    "AppendEntries, a probe": ("82 00 88 05 07 01 03 02 04 04 00", ""),
    "AppendEntriesReply": ("82 00 8a 06 07 01 03 06 00 00 00 05 00", ""),
    "AppendEntriesReply, refused": ("82 00 8a 06 07 01 03 00 09 02 04 03 00", ""),
    "Heartbeat": ("82 00 87 07 07 01 03 06 0b 00", ""),
    "HeartbeatReply": ("82 00 87 08 07 01 03 06 0b 00", ""),
    "Attach": ("82 00 85 09 07 01 03 00", ""),
    "Detach, to a replaced replica": ("82 00 85 0a 07 01 03 84 00 00 02 18 28", ""),
    "AttachRefused": ("82 00 85 0b 07 01 05 00", ""),
    "TimeoutNow": ("82 00 85 0c 07 01 03 00", ""),
    "Removed, to a replaced replica": ("82 00 86 0d 07 01 03 18 32 84 00 00 02 18 28", ""),
    "Forward": ("82 02 86 10 07 01 02 18 4d 00", "61 78"),
    "Forward of a query": ("82 01 86 10 07 01 02 18 4e 02", "f6"),
    "ForwardReply": ("82 01 86 11 07 01 02 18 4d 00", "01"),
    "SnapshotReply": (f"82 00 8a 12 07 01 03 09 00 19 10 00 58 20 {HASH.hex(' ')} 60 00", ""),
    "SnapshotReply, to a replaced replica": (
        f"82 00 8a 12 07 01 03 09 03 00 58 20 {HASH.hex(' ')} 66 72 6f 74 74 65 6e 84 00 00 02 18 28",
        "",
    ),
    "NodeAddress": ("82 00 84 13 03 02 64 6e 33 3a 31", ""),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_golden_bytes(name: str) -> None:
    body = encode_messages([Envelope(GROUP, MESSAGES[name])], SOURCE, TARGET)
    length = int.from_bytes(body[1:5], "little")
    assert body[0] == 1
    assert body[5 : 5 + length].hex(" ") == GOLDEN[name][0]
    assert body[5 + length :].hex(" ") == GOLDEN[name][1]


def test_every_message_class_has_a_number_of_its_own_and_a_sample() -> None:
    assert len({kind.number for kind in _KINDS.values()}) == len(_KINDS)
    assert set(_KINDS) == set(get_args(Message)) - NEVER_MESSAGES
    assert {type(message) for message in MESSAGES.values()} == {*_KINDS, *NOT_OF_THE_CORE}


def test_an_install_snapshot_is_not_sent() -> None:
    message = InstallSnapshot(ME, YOU, 3, EntryId(3, 9), Configuration.bootstrap((1, 2)))
    with pytest.raises(InvariantError, match="InstallSnapshot never travels"):
        encode_messages([Envelope(GROUP, message)], SOURCE, TARGET)


def test_a_message_of_another_node_is_not_sent() -> None:
    for source, target in ((Member(3), YOU), (ME, Member(3))):
        for message in (Heartbeat(source, target, 1, 0), SnapshotReply(source, target, EntryId(3, 9), HASH, SnapshotAnswer.BUSY)):
            with pytest.raises(InvariantError, match="n3"):
                encode_messages([Envelope(GROUP, message)], SOURCE, TARGET)


def test_who_sent_a_message_is_known_from_the_connection() -> None:
    body = encode_messages([Envelope(GROUP, Heartbeat(ME, YOU, 1, 0))], SOURCE, TARGET)
    message = decode_messages(body, 8, 9, payload_bytes_max=PAYLOAD_MAX).envelopes[0].message
    assert message == Heartbeat(Member(8), Member(9), 1, 0)


def test_too_many_messages_for_one_frame_are_refused_by_the_sender() -> None:
    many = [Envelope(GROUP, Heartbeat(ME, YOU, 2**62, 2**62, 2**62))] * (HEADER_BYTES_MAX // 30)
    with pytest.raises(InvariantError, match="too many"):
        encode_messages(many, SOURCE, TARGET)


BAD_MESSAGES = {
    "not an array": 7,
    "null": None,
    "empty": [],
    "kind is a boolean": [True, 7, 1, 3, 0],
    "kind is an array": [[7], 7, 1, 3, 0],
    "kind is null": [None],
    "kind is negative": [-1, 7, 1, 3, 0],
    "too short": [7, 7, 1],
    "one field missing": HEARTBEAT[:-1],
    "one field too many": [*HEARTBEAT, 0],
    "group id is text": [7, "7", 1, 3, 6, 11, 0],
    "group id is negative": [7, -1, 1, 3, 6, 11, 0],
    "group id too large": [7, 2**63, 1, 3, 6, 11, 0],
    "incarnation too large": [7, 7, 2**32, 3, 6, 11, 0],
    "term is a float": [7, 7, 1, 3.0, 6, 11, 0],
    "term is a boolean": [7, 7, 1, True, 6, 11, 0],
    "commit is null": [7, 7, 1, 3, None, 11, 0],
    "round is an array": [7, 7, 1, 3, 6, [], 0],
    "round is negative": [7, 7, 1, 3, 6, -1, 0],
    "replicas are false": [7, 7, 1, 3, 6, 11, False],
    "replicas are 1": [7, 7, 1, 3, 6, 11, 1],
    "replicas are 0.0": [7, 7, 1, 3, 6, 11, 0.0],
    "replicas are three": [7, 7, 1, 3, 6, 11, [0, 0, 1]],
    "replicas are text": [7, 7, 1, 3, 6, 11, "0000"],
    "a replica is a boolean": [7, 7, 1, 3, 6, 11, [0, 0, True, 1]],
    "a replica is negative": [7, 7, 1, 3, 6, 11, [0, 0, -1, 1]],
    "flag is a number": [2, 7, 1, 3, 1, 0],
    "a vote without a genesis": [1, 7, 1, 4, 3, 9, 0],
    "a genesis is a boolean": [3, 7, 1, 4, 3, 9, True, False, 0],
    "transfer is a number": [3, 7, 1, 4, 3, 9, 0, 0, 0],
    "a removal without an index": [13, 7, 1, 3, 0],
    "a removal at a negative index": [13, 7, 1, 3, -1, 0],
    "timeout now too long": [12, 7, 1, 3, 0, 0],
    "forward too short": [16, 7, 1, 3, 4],
    "forward number is text": [16, 7, 1, 3, "x", 0],
    "forward of an unknown kind": [16, 7, 1, 3, 4, 6],
    "forward of a boolean kind": [16, 7, 1, 3, 4, True],
    "forward reply too long": [17, 7, 1, 3, 4, 0, 0],
    "forward outcome is unknown": [17, 7, 1, 3, 4, 99],
    "forward outcome is a boolean": [17, 7, 1, 3, 4, True],
    "forward incarnation of the group too large": [16, 7, 2**32, 3, 4, 0],
    "snapshot reply too short": REPLY[:-1],
    "snapshot reply too long": [*REPLY, 0],
    "snapshot reply, group id is text": [18, "7", *REPLY[2:]],
    "snapshot reply, offset is negative": [*REPLY[:6], -1, *REPLY[7:]],
    "snapshot reply, answer is unknown": [*REPLY[:5], 4, *REPLY[6:]],
    "snapshot reply, answer is a boolean": [*REPLY[:5], True, *REPLY[6:]],
    "snapshot reply, sha256 too short": [*REPLY[:7], HASH[1:], "", 0],
    "snapshot reply, sha256 too long": [*REPLY[:7], HASH + b"?", "", 0],
    "snapshot reply, sha256 is text": [*REPLY[:7], HASH.hex()[:32], "", 0],
    "snapshot reply, text is bytes": [*REPLY[:8], b"", 0],
    "snapshot reply, text too long": [*REPLY[:8], "x" * (SNAPSHOT_TEXT_BYTES_MAX + 1), 0],
    "snapshot reply, text too long as UTF-8": [*REPLY[:8], "ü" * (SNAPSHOT_TEXT_BYTES_MAX // 2) + "x", 0],
    "snapshot reply, replicas are text": [*REPLY[:9], "0"],
    "snapshot reply, replicas are false": [*REPLY[:9], False],
    "address too short": ADDRESS[:-1],
    "address too long": [*ADDRESS, 0],
    "address of node 0": [19, 0, 2, "n3:1"],
    "address of a node out of range": [19, 2**32, 2, "n3:1"],
    "address of a node that is a boolean": [19, True, 2, "n3:1"],
    "address of version 0": [19, 3, 0, "n3:1"],
    "address of a version out of range": [19, 3, 2**63, "n3:1"],
    "address of a version that is null": [19, 3, None, "n3:1"],
    "address is bytes": [19, 3, 2, b"n3:1"],
    "address is empty": [19, 3, 2, ""],
    "address is not printable": [19, 3, 2, "n3\n:1"],
    "address has too many bytes": [19, 3, 2, "x" * (ADDRESS_BYTES_MAX + 1)],
    "address has too many bytes as UTF-8": [19, 3, 2, "ü" * (ADDRESS_BYTES_MAX // 2) + "x"],
}


def test_the_good_message_of_these_tests_is_good() -> None:
    assert decode(body_of([0, HEARTBEAT])) == ([Envelope(GROUP, MESSAGES["Heartbeat"])], 0)
    assert decode(body_of([0, REPLY])) == ([Envelope(GROUP, MESSAGES["SnapshotReply"])], 0)
    assert decode(body_of([0, ADDRESS])) == ([Envelope(NO_GROUP, MESSAGES["NodeAddress"])], 0)


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_one_bad_message_is_skipped_and_counted(name: str) -> None:
    frame = decode(body_of([0, HEARTBEAT, 0, BAD_MESSAGES[name], 0, HEARTBEAT]))
    assert frame == ([Envelope(GROUP, MESSAGES["Heartbeat"])] * 2, 1)


@pytest.mark.parametrize("kind", [0, 14, 15, 20, 2**64 - 1], ids=str)
def test_TP_15_a_message_of_an_unknown_kind_is_skipped_with_its_tail(kind: int) -> None:
    probe = [5, 7, 1, 3, 2, 4, 4, 0]
    good = record()
    frame = decode(body_of([len(good), probe, 7, [kind, {"later": [1]}], len(good), probe], good + b"unknown" + good))
    assert frame == ([Envelope(GROUP, append(command()))] * 2, 1)


def test_a_bad_record_costs_only_its_own_message() -> None:
    probe = [5, 7, 1, 3, 2, 4, 4, 0]
    good = record()
    damaged = good[:-1] + b"?"
    foreign = record(group=GroupKey(8))
    cut = good[:-1]
    bad = [good + damaged, foreign, cut, good + b"\x00", bytes(len(good)), record(payload=bytes(9))]
    items = [len(good), probe]
    for tail in bad:
        items += [len(tail), probe, len(good), probe]
    frame = decode(body_of(items, good + b"".join(tail + good for tail in bad)), payload_bytes_max=8)
    assert frame == ([Envelope(GROUP, append(command()))] * (1 + len(bad)), len(bad))


def test_a_message_that_has_no_tail_is_skipped_if_it_brings_one() -> None:
    assert decode(body_of([3, HEARTBEAT, 0, HEARTBEAT], b"abc")) == ([Envelope(GROUP, MESSAGES["Heartbeat"])], 1)
    assert decode(body_of([3, ADDRESS, 0, ADDRESS], b"abc")) == ([Envelope(NO_GROUP, MESSAGES["NodeAddress"])], 1)
    assert decode(body_of([3, REPLY, 0, REPLY], b"abc")) == ([Envelope(GROUP, MESSAGES["SnapshotReply"])], 1)


@pytest.mark.parametrize(
    "text, cut",
    [
        ("x" * (SNAPSHOT_TEXT_BYTES_MAX + 1), "x" * SNAPSHOT_TEXT_BYTES_MAX),
        ("x" + "ü" * SNAPSHOT_TEXT_BYTES_MAX, "x" + "ü" * (SNAPSHOT_TEXT_BYTES_MAX // 2 - 1)),
        ("a lone \ud800", "a lone ?"),
    ],
    ids=["too long", "cut inside a character", "not encodable"],
)
def test_the_text_of_a_snapshot_reply_is_cut_to_what_is_accepted(text: str, cut: str) -> None:
    sent = SnapshotReply(ME, YOU, EntryId(3, 9), HASH, SnapshotAnswer.REFUSED, text=text)
    received = decode(encode_messages([Envelope(GROUP, sent)], SOURCE, TARGET)).envelopes[0].message
    assert isinstance(received, SnapshotReply)
    assert received.text == cut


def test_an_entry_with_a_configuration_that_is_none_costs_only_its_own_message() -> None:
    probe = [5, 7, 1, 3, 2, 4, 4, 0]
    good, bad = (Entry(5, 3, EntryKind.CONFIGURATION, payload) for payload in (encode_configuration(CONFIGURATION), b"voters: 1, 2"))
    tails = seal(GROUP, good), seal(GROUP, bad)
    frame = decode(body_of([len(tails[1]), probe, len(tails[0]), probe], tails[1] + tails[0]))
    assert frame == ([Envelope(GROUP, append(good))], 1)


def test_a_forward_is_bounded_like_a_command() -> None:
    items = [8, [16, 7, 1, 3, 4, 0], 9, [16, 7, 1, 3, 5, 0]]
    assert decode(body_of(items, bytes(17)), payload_bytes_max=8) == ([Envelope(GROUP, Forward(3, 4, bytes(8)))], 1)


def test_replica_numbers_may_be_written_out_though_both_are_zero() -> None:
    assert decode(body_of([0, [*HEARTBEAT[:-1], [0, 0, 0, 0]]])) == decode(body_of([0, HEARTBEAT]))


TAG_INSIDE = b"\x82\x00" + b"\x81\xc2\x41\x07"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x01",
        b"\x01\x00\x00\x00",
        b"\x02" + body_of([])[1:],
        struct.pack("<BI", 1, 100) + b"\x80",
        struct.pack("<BI", 1, HEADER_BYTES_MAX + 1) + bytes(HEADER_BYTES_MAX + 1),
        body_of(b""),
        body_of(7),
        body_of(None),
        body_of({}),
        body_of([0]),
        body_of([0, HEARTBEAT, 0]),
        body_of([-1, HEARTBEAT]),
        body_of([None, HEARTBEAT]),
        body_of([False, HEARTBEAT]),
        body_of([2**64 - 1, HEARTBEAT]),
        body_of([1, HEARTBEAT]),
        body_of([0, HEARTBEAT], b"?"),
        body_of(cbor2.dumps([0, HEARTBEAT]) + b"\x00"),
        body_of(b"\x9f\xff"),
        body_of(TAG_INSIDE),
        body_of(b"\x82\x00" + b"\x81" * 8 + b"\x00"),
    ],
    ids=[
        "empty",
        "kind alone",
        "cut prefix",
        "another kind",
        "header longer than the body",
        "header too large",
        "no header",
        "a number",
        "null",
        "a map",
        "a size alone",
        "a size too many",
        "negative size",
        "null size",
        "boolean size",
        "huge size",
        "tail missing",
        "tail too long",
        "bytes behind the header's array",
        "indefinite length",
        "a tag",
        "nested too deep",
    ],
)
def test_a_body_whose_messages_cannot_be_told_apart_is_refused_whole(body: bytes) -> None:
    with pytest.raises(WireError):
        decode(body)


@given(envelopes)
def test_message_size_is_an_upper_bound_also_before_sealing(envelope: Envelope) -> None:
    estimate = message_size(envelope)
    empty = len(encode_messages([], SOURCE, TARGET))
    assert len(encode_messages([envelope], SOURCE, TARGET)) - empty <= estimate


def test_message_size_bounds_the_largest_message() -> None:
    far = EntryId(2**63 - 1, 2**63 - 1)
    largest = AppendEntriesReply(Member(SOURCE, far), Member(TARGET, far), far.term, far.index, far.index, far, far.index)
    envelope = Envelope(GroupKey(2**63 - 1, 2**32 - 1), largest)
    assert decode(encode_messages([envelope], SOURCE, TARGET)) == ([envelope], 0)
    assert len(encode_messages([envelope], SOURCE, TARGET)) <= message_size(envelope) + BODY_OVERHEAD_MAX


def test_message_size_bounds_the_largest_answer_to_a_snapshot() -> None:
    far = EntryId(2**63 - 1, 2**63 - 1)
    answer = SnapshotAnswer.REFUSED
    largest = SnapshotReply(Member(SOURCE, far), Member(TARGET, far), far, HASH, answer, 2**63 - 1, "x" * SNAPSHOT_TEXT_BYTES_MAX)
    envelope = Envelope(GroupKey(2**63 - 1, 2**32 - 1), largest)
    assert decode(encode_messages([envelope], SOURCE, TARGET)) == ([envelope], 0)
    assert len(encode_messages([envelope], SOURCE, TARGET)) <= message_size(envelope) + BODY_OVERHEAD_MAX


def test_message_size_bounds_the_longest_address() -> None:
    for address in ("x" * ADDRESS_BYTES_MAX, "ü" * (ADDRESS_BYTES_MAX // 2)):
        envelope = Envelope(NO_GROUP, NodeAddress(2**32 - 1, 2**63 - 1, address))
        assert decode(encode_messages([envelope], SOURCE, TARGET)) == ([envelope], 0)
        assert len(encode_messages([envelope], SOURCE, TARGET)) <= message_size(envelope) + BODY_OVERHEAD_MAX


@given(st.binary(max_size=80))
def test_random_headers_give_messages_or_a_wire_error(header: bytes) -> None:
    try:
        decode(body_of(header))
    except WireError:
        pass


def junk() -> st.SearchStrategy[Any]:
    scalars = st.none() | st.booleans() | st.integers(-3, 20) | st.integers(-(2**64), 2**64 - 1) | st.floats() | st.text(max_size=3)
    return st.recursive(scalars, lambda inner: st.lists(inner, max_size=8), max_leaves=10)


@given(st.lists(st.tuples(st.integers(0, 60), junk() | st.lists(junk(), min_size=5, max_size=8)), max_size=4), st.binary(max_size=60))
def test_random_fields_fail_their_own_message_only(parts: list[tuple[int, Any]], noise: bytes) -> None:
    items: list[Any] = [0, HEARTBEAT]
    tail = b""
    for size, fields in parts:
        piece = (noise * 60)[:size] if noise else bytes(size)
        items += [size, fields]
        tail += piece
    try:
        frame = decode(body_of([*items, 0, HEARTBEAT], tail))
    except WireError:  # nested deeper than any message
        return
    assert len(frame.envelopes) + frame.bad == len(parts) + 2
    assert frame.envelopes[0] == frame.envelopes[-1] == Envelope(GROUP, MESSAGES["Heartbeat"])


@given(st.lists(envelopes, min_size=1, max_size=3), st.data())
def test_damaged_bodies_give_messages_or_a_wire_error(sent: list[Envelope], data: st.DataObject) -> None:
    """What gets past the checksum of the frame, because whoever sent it computed it over nonsense."""
    body = bytearray(encode_messages(sent, SOURCE, TARGET))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    del body[data.draw(st.integers(0, len(body))) :]
    try:
        frame = decode(bytes(body))
    except WireError:
        return
    for envelope in frame.envelopes:
        if isinstance(envelope.message, AppendEntries):
            assert all(entry.record for entry in envelope.message.entries)
