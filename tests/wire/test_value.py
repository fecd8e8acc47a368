"""Users' values: what goes in comes out, and nothing else gets through."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import math
import re
from typing import Any

import cbor2
import pytest
from hypothesis import given, strategies as st

from tests.wire.samples import values
from trioraft._errors import WireError
from trioraft.wire import VALUE_DEPTH_MAX, decode_value, encode_value


@given(values)
def test_round_trip(value: Any) -> None:
    assert decode_value(encode_value(value)) == value


@pytest.mark.parametrize(
    "value, encoded",
    [
        (None, "f6"),
        (True, "f5"),
        (0, "00"),
        (-(2**64), "3bffffffffffffffff"),
        (2**64 - 1, "1bffffffffffffffff"),
        (1.5, "fb3ff8000000000000"),
        ("x", "6178"),
        (b"x", "4178"),
        ([1, [2]], "82018102"),
        ({"a": 1, 2: b""}, "a26161010240"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_golden_bytes(value: Any, encoded: str) -> None:
    assert encode_value(value).hex() == encoded
    assert decode_value(memoryview(bytes.fromhex(encoded))) == value


def test_tuples_come_back_as_lists_and_nan_as_nan() -> None:
    assert decode_value(encode_value((1, (2,)))) == [1, [2]]
    assert math.isnan(decode_value(encode_value(math.nan)))


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    "value, name",
    [
        (2**64, "int of more than 64 bits"),
        (-(2**64) - 1, "int of more than 64 bits"),
        ({1, 2}, "set"),
        (dt.date(2020, 1, 1), "datetime.date"),
        (decimal.Decimal(1), "decimal.Decimal"),
        (1j, "complex"),
        (object(), "object"),
        (bytearray(b"x"), "bytearray"),
        (Colour.RED, "Colour"),
        (re.compile("x"), "re.Pattern"),
        (cbor2.undefined, "undefined"),
        ("\ud800", "str"),
        (range(3), "range"),
        ({(1, 2): 3}, "key"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_value_is_refused_by_name_also_deep_inside(value: Any, name: str) -> None:
    for wrapped in (value, [0, value], {"a": {"b": value}}):
        with pytest.raises(WireError, match=re.escape(name) if name != "undefined" else "(?i)undefined"):
            encode_value(wrapped)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_the_deepest_value_that_can_be_encoded_can_be_decoded() -> None:
    assert decode_value(encode_value(nested(VALUE_DEPTH_MAX))) == nested(VALUE_DEPTH_MAX)


@pytest.mark.parametrize("depth", [VALUE_DEPTH_MAX + 1, 200_000])
def test_deeper_values_are_refused_before_they_overflow_a_stack(depth: int) -> None:
    with pytest.raises(WireError, match="deep"):
        encode_value(nested(depth))
    with pytest.raises(WireError, match=r"deep|depth"):
        decode_value(b"\x81" * (depth - 1) + b"\x80")


def test_a_cycle_is_refused() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(WireError):
        encode_value(cycle)


@pytest.mark.parametrize(
    "encoded, why",
    [
        ("", "nothing"),
        ("0100", "trailing byte"),
        ("f6f6", "trailing item"),
        ("9f01ff", "indefinite array"),
        ("5f4101ff", "indefinite bytes"),
        ("bf0102ff", "indefinite map"),
        ("a201000100", "a key twice"),
        ("a20100f500", "1 and true are one key"),
        ("c1187b", "tag 1: time"),
        ("c24101", "tag 2: big number"),
        ("c34101", "tag 3: big negative number"),
        ("c482000a", "tag 4: decimal"),
        ("d81c80", "tag 28: shared"),
        ("d81d00", "tag 29: reference"),
        ("d82361ff", "tag 35 over broken text"),
        ("d823622861", "tag 35: regular expression"),
        ("d9010280", "tag 258: set"),
        ("d9d9f701", "tag 55799: self-described"),
        ("d903e801", "an unknown tag"),
        ("8201c24101", "a tag inside"),
        ("f7", "undefined"),
        ("e0", "simple value 0"),
        ("f8ff", "simple value 255"),
        ("81f7", "undefined inside"),
        ("a18000", "a list as a key"),
        ("a1a000", "a map as a key"),
        ("61ff", "broken UTF-8"),
        ("1c", "reserved length"),
        ("ff", "break alone"),
        ("82", "ends inside"),
        ("5bffffffffffffffff00", "2**64 bytes declared"),
        ("5b0000010000000000", "2**40 bytes declared"),
        ("7b0000010000000000", "2**40 bytes of text declared"),
        ("9b0000000100000000", "2**32 elements declared"),
        ("bb0000000100000000", "2**32 pairs declared"),
    ],
    ids=lambda text: text if " " in text or text in ("nothing", "undefined") else None,
)
def test_what_is_not_strictly_one_value_is_refused(encoded: str, why: str) -> None:
    with pytest.raises(WireError):
        decode_value(bytes.fromhex(encoded))


def test_errors_do_not_show_what_was_in_the_value() -> None:
    with pytest.raises(WireError) as caught:
        decode_value(b"\xa2\x66secret\x00\x66secret\x00")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@given(st.binary(max_size=64))
def test_random_bytes_give_a_value_or_a_wire_error(data: bytes) -> None:
    try:
        value = decode_value(data)
    except WireError:
        return
    encode_value(value)
