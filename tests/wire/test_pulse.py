"""Pulses: there and back, all or nothing."""

from __future__ import annotations

from typing import Any

import attrs
import cbor2
import pytest
from hypothesis import given, strategies as st

from tests.wire.samples import GROUP, PULSE, pulses
from trioraft._errors import InvariantError, WireError
from trioraft._types import EntryId, GroupKey
from trioraft.wire import PULSE_LINES_MAX, Pulse, PulseKind, PulseLine, decode_pulse, encode_pulse

HEAD = [3, 1000, 2, 998, 12, 997]


def body_of(fields: Any) -> bytes:
    return b"\x02" + cbor2.dumps(fields)


@given(pulses)
def test_round_trip(pulse: Pulse) -> None:
    found = decode_pulse(encode_pulse(pulse))
    assert found == pulse
    for line in found.lines:
        assert type(line.kind) is PulseKind
        assert type(line.group) is GroupKey
        assert type(line.source_replica) is type(line.target_replica) is EntryId


def test_no_field_of_a_pulse_is_forgotten() -> None:
    line = PulseLine(PulseKind.REFUSED, GroupKey(11, 12), 13, EntryId(14, 15), EntryId(16, 17))
    names = [field.name for field in attrs.fields(Pulse) if field.name != "lines"]
    found = decode_pulse(encode_pulse(Pulse(**{name: number for number, name in enumerate(names, 21)}, lines=(line,))))
    assert [getattr(found, name) for name in names] == list(range(21, 21 + len(names)))
    assert attrs.astuple(found.lines[0], recurse=False) == attrs.astuple(line, recurse=False)


def test_golden_bytes() -> None:
    assert encode_pulse(PULSE).hex(" ") == (
        "02 94 03 19 03 e8 02 19 03 e6 0c 19 03 e5 "
        "01 07 03 "  # attach group 7 in term 3
        "02 08 02 "  # detach group 8 in term 2
        "0b 09 05 02 00 00 02 18 28"  # refused group 9, incarnation 2, in term 5, by 0@0 to replica 40@2
    )
    assert body_of([*HEAD, 1, 7, 3, 2, 8, 2, 11, 9, 5, 2, 0, 0, 2, 40]) == encode_pulse(PULSE)


def test_a_long_line_may_say_what_a_short_one_says() -> None:
    assert decode_pulse(body_of([*HEAD, 9, 7, 3, 1, 0, 0, 0, 0])).lines == (PulseLine(PulseKind.ATTACH, GROUP, 3),)


def test_a_poisoned_disk_is_an_age_of_minus_one() -> None:
    assert decode_pulse(body_of([3, 1, 0, 0, -1, 0])) == Pulse(3, 1, 0, 0, -1, 0)


def test_as_many_lines_as_allowed_and_no_more() -> None:
    line = PulseLine(PulseKind.ATTACH, GroupKey(2**63 - 1, 2**32 - 1), 2**63 - 1, *[EntryId(2**63 - 1, 2**63 - 1)] * 2)
    full = Pulse(3, 1, 0, 0, 0, 0, (line,) * PULSE_LINES_MAX)
    assert decode_pulse(encode_pulse(full)) == full
    with pytest.raises(InvariantError, match="4097 lines"):
        encode_pulse(Pulse(3, 1, 0, 0, 0, 0, (line,) * (PULSE_LINES_MAX + 1)))
    with pytest.raises(WireError, match="more than 4096"):
        decode_pulse(body_of([*HEAD, *[1, 7, 3] * (PULSE_LINES_MAX + 1)]))
    with pytest.raises(WireError, match="bytes"):
        decode_pulse(body_of([*HEAD, *[0] * 400_000]))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x02",
        b"\x01" + cbor2.dumps(HEAD),
        body_of(HEAD) + b"\x00",
        body_of(7),
        body_of(dict.fromkeys(range(6), 0)),
        body_of(HEAD[:-1]),
        body_of([-1, *HEAD[1:]]),
        body_of([2**63, *HEAD[1:]]),
        body_of([True, *HEAD[1:]]),
        body_of([3, 0, *HEAD[2:]]),
        body_of([*HEAD[:4], -2, *HEAD[5:]]),
        body_of([*HEAD[:4], False, *HEAD[5:]]),
        body_of([*HEAD[:5], -1]),
        body_of([*HEAD[:5], None]),
        body_of([*HEAD[:5], 1.0]),
        body_of([*HEAD, 1]),
        body_of([*HEAD, 1, 7]),
        body_of([*HEAD, 9, 7, 3, 1, 0, 0, 0]),
        body_of([*HEAD, 1, 7, 3, 1, 8]),
        body_of([*HEAD, 0, 7, 3]),
        body_of([*HEAD, 4, 7, 3]),
        body_of([*HEAD, 8, 7, 3, 1, 0, 0, 0, 0]),
        body_of([*HEAD, 16, 7, 3, 1, 0, 0, 0, 0]),
        body_of([*HEAD, 1, -7, 3]),
        body_of([*HEAD, 1, 7, True]),
        body_of([*HEAD, 1, 7, 2**63]),
        body_of([*HEAD, 1, 7, "3"]),
        body_of([*HEAD, 1, 7, []]),
        body_of([*HEAD, 9, 7, 3, 2**32, 0, 0, 0, 0]),
        b"\x02\x9f\xff",
        b"\x02\xc2\x41\x01",
    ],
    ids=lambda body: body.hex() if len(body) < 40 else None,
)
def test_whatever_is_wrong_fails_the_pulse(body: bytes) -> None:
    with pytest.raises(WireError):
        decode_pulse(body)


def test_the_good_pulse_of_these_tests_is_good() -> None:
    assert decode_pulse(body_of(HEAD)).sequence == 1000


@given(st.binary(max_size=60))
def test_random_bytes_give_a_pulse_or_a_wire_error(data: bytes) -> None:
    for body in (data, b"\x02" + data, b"\x02\x86\x01\x01\x00\x00\x00\x00" + data):
        try:
            decode_pulse(body)
        except WireError:
            pass


@given(pulses, st.data())
def test_damaged_bodies_give_a_pulse_or_a_wire_error(pulse: Pulse, data: st.DataObject) -> None:
    body = bytearray(encode_pulse(pulse))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    del body[data.draw(st.integers(0, len(body))) :]
    try:
        found = decode_pulse(bytes(body))
    except WireError:
        return
    assert found.sequence >= 1
