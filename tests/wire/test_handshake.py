"""Hello and welcome: the only bytes that a stranger is heard with."""

from __future__ import annotations

import re
from typing import Any

import attrs
import cbor2
import pytest
from hypothesis import given, strategies as st

from tests.wire.samples import HELLO, REFUSAL, STORE, WELCOME, hellos, welcomes
from trioraft._errors import WireError
from trioraft.wire import (
    CLUSTER_ID_BYTES_MAX,
    HELLO_BYTES_MAX,
    PROTOCOL_VERSION,
    Hello,
    ProtocolVersionError,
    Welcome,
    decode_hello,
    decode_welcome,
    encode_hello,
    encode_welcome,
)

HELLO_FIELDS = ["demo", 1, 2, STORE, 3, "append"]
WELCOME_FIELDS = [2, STORE, 2, None, ""]


def hello_of(fields: Any) -> bytes:
    return b"trioraft\x01\x01" + cbor2.dumps(fields)


def welcome_of(fields: Any) -> bytes:
    return b"trioraft\x01\x02" + cbor2.dumps(fields)


@given(hellos)
def test_hello_round_trip(hello: Hello) -> None:
    assert decode_hello(encode_hello(hello)) == hello
    assert len(encode_hello(hello)) <= HELLO_BYTES_MAX


@given(welcomes)
def test_welcome_round_trip(welcome: Welcome) -> None:
    assert decode_welcome(encode_welcome(welcome)) == welcome
    assert len(encode_welcome(welcome)) <= HELLO_BYTES_MAX


def test_golden_bytes() -> None:
    store = STORE.encode().hex(" ")
    assert encode_hello(HELLO).hex(" ") == (f"74 72 69 6f 72 61 66 74 01 01 86 64 64 65 6d 6f 01 02 78 20 {store} 03 66 61 70 70 65 6e 64")
    erots = STORE[::-1].encode().hex(" ")
    assert encode_welcome(WELCOME).hex(" ") == f"74 72 69 6f 72 61 66 74 01 02 85 02 78 20 {erots} 02 f6 60"
    assert encode_welcome(REFUSAL).hex(" ") == (
        f"74 72 69 6f 72 61 66 74 01 02 85 02 78 20 {erots} 02 6d 77 72 6f 6e 67 2d 63 6c 75 73 74 65 72 "
        "76 74 68 69 73 20 69 73 20 63 6c 75 73 74 65 72 20 27 64 65 6d 6f 27"
    )


def test_the_largest_of_both_fit_the_limit() -> None:
    largest = Hello("c" * CLUSTER_ID_BYTES_MAX, 2**32 - 1, 2**32 - 1, STORE, 2**63 - 1, "snapshot")
    assert len(encode_hello(largest)) <= HELLO_BYTES_MAX
    answer = Welcome(2**32 - 1, STORE, 2**63 - 1, "a" * 32, "é" * 2000)
    assert len(encode_welcome(answer)) <= HELLO_BYTES_MAX
    assert decode_welcome(encode_welcome(answer)).detail == "é" * 256


def test_the_detail_of_a_refusal_is_made_presentable() -> None:
    told = decode_welcome(encode_welcome(attrs.evolve(REFUSAL, detail="a\nb\x1b[31m\ud800é" + "x" * 600))).detail
    assert told.startswith("a?b?[31m?é")
    assert told.isprintable()
    assert len(told.encode()) <= 512


@pytest.mark.parametrize("version", [0, 2, 255], ids=str)
def test_TP_15_another_version_is_refused_by_name_before_any_CBOR(version: int) -> None:
    later = b"trioraft" + bytes([version]) + b"\xff whatever a later version may say"
    for decode in (decode_hello, decode_welcome):
        with pytest.raises(ProtocolVersionError, match=f"version {version}, this node speaks {PROTOCOL_VERSION}") as caught:
            decode(later)
        assert caught.value.version == version


@pytest.mark.parametrize(
    "body", [b"", b"triorafT\x01\x01\x80", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", bytes(64)], ids=repr
)
def test_TP_15_a_stranger_is_recognised_by_the_magic(body: bytes) -> None:
    for decode in (decode_hello, decode_welcome):
        with pytest.raises(WireError, match="not a trioraft node"):
            decode(body)


def test_TP_15_further_fields_are_ignored_as_room_for_later_versions() -> None:
    assert decode_hello(hello_of([*HELLO_FIELDS, ["zstd"], {"later": 1}])) == HELLO
    assert decode_welcome(welcome_of([*WELCOME_FIELDS, 7])) == Welcome(2, STORE, 2)


def test_an_echo_is_no_answer() -> None:
    with pytest.raises(WireError, match="welcome was expected"):
        decode_welcome(encode_hello(HELLO))
    with pytest.raises(WireError, match="hello was expected"):
        decode_hello(encode_welcome(WELCOME))


def test_a_body_over_the_limit_is_refused() -> None:
    padding = "x" * HELLO_BYTES_MAX
    with pytest.raises(WireError, match="handshake of"):
        decode_hello(hello_of([*HELLO_FIELDS, padding]))
    with pytest.raises(WireError, match="handshake of"):
        decode_hello(b"trioraft")


HELLO_FAULTS = [
    ("cluster_id", "", "cluster_id"),
    ("cluster_id", "x" * 129, "cluster_id"),
    ("cluster_id", "é" * 65, "cluster_id"),
    ("cluster_id", "a\nb", "cluster_id"),
    ("cluster_id", b"demo", "cluster_id"),
    ("sender", 0, "sender"),
    ("sender", 2**32, "sender"),
    ("sender", True, "sender"),
    ("sender", "1", "sender"),
    ("receiver", 0, "receiver"),
    ("receiver", -1, "receiver"),
    ("store_id", STORE[1:], "store_id"),
    ("store_id", STORE.upper(), "store_id"),
    ("store_id", STORE + "\n", "store_id"),
    ("store_id", STORE.encode(), "store_id"),
    ("incarnation", -1, "incarnation"),
    ("incarnation", 2**63, "incarnation"),
    ("incarnation", None, "incarnation"),
    ("lane", "express", "lane"),
    ("lane", 1, "lane"),
    ("lane", None, "lane"),
]


@pytest.mark.parametrize("field, value, named", HELLO_FAULTS, ids=repr)
def test_a_bad_field_of_a_hello_is_named_on_both_sides(field: str, value: Any, named: str) -> None:
    bad = attrs.evolve(HELLO, **{field: value})
    with pytest.raises(WireError, match=named):
        encode_hello(bad)
    with pytest.raises(WireError, match=named):
        decode_hello(hello_of(list(attrs.astuple(bad))))


@pytest.mark.parametrize(
    "field, value, named",
    [
        ("sender", 0, "sender"),
        ("store_id", "x" * 32, "store_id"),
        ("incarnation", "1", "incarnation"),
        ("refusal", "", "refusal"),
        ("refusal", "Busy!", "refusal"),
        ("refusal", "x" * 33, "refusal"),
        ("refusal", 7, "refusal"),
    ],
    ids=repr,
)
def test_a_bad_field_of_a_welcome_is_named_on_both_sides(field: str, value: Any, named: str) -> None:
    bad = attrs.evolve(WELCOME, **{field: value})
    with pytest.raises(WireError, match=named):
        encode_welcome(bad)
    with pytest.raises(WireError, match=named):
        decode_welcome(welcome_of(list(attrs.astuple(bad))))


@pytest.mark.parametrize("detail", ["a\nb", "x" * 513, None, b"x"], ids=repr)
def test_a_detail_that_would_spoil_a_log_is_refused(detail: Any) -> None:
    with pytest.raises(WireError, match="detail"):
        decode_welcome(welcome_of([2, STORE, 2, "busy", detail]))


@pytest.mark.parametrize("fields", [HELLO_FIELDS[:-1], [], {}, None, "text", [*HELLO_FIELDS, [[[[[]]]]]]], ids=repr)
def test_another_shape_is_refused(fields: Any) -> None:
    with pytest.raises(WireError):
        decode_hello(hello_of(fields))
    with pytest.raises(WireError):
        decode_welcome(welcome_of(fields[:4] if isinstance(fields, list) and len(fields) < 7 else fields))


def test_bytes_behind_the_array_are_refused() -> None:
    with pytest.raises(WireError, match=re.escape("1 bytes behind")):
        decode_hello(hello_of(HELLO_FIELDS) + b"\x00")


@given(st.binary(max_size=80))
def test_random_bytes_give_a_wire_error_at_most(data: bytes) -> None:
    for body in (data, b"trioraft" + data, b"trioraft\x01\x01" + data, b"trioraft\x01\x02" + data):
        for decode in (decode_hello, decode_welcome):
            try:
                decode(body)
            except WireError:
                pass


@given(hellos, st.data())
def test_damaged_hellos_give_a_wire_error_at_most(hello: Hello, data: st.DataObject) -> None:
    body = bytearray(encode_hello(hello))
    body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    del body[data.draw(st.integers(0, len(body))) :]
    try:
        decode_hello(bytes(body))
    except WireError:
        pass
