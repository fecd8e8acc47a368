"""Frames: cut out of any stream of bytes, or refused."""

from __future__ import annotations

import itertools
import struct
import tracemalloc

import pytest
from hypothesis import given, strategies as st

from tests.wire.samples import GROUP, HELLO, MESSAGES, PAYLOAD_MAX, PULSE, SOURCE, TARGET
from trioraft._errors import WireError
from trioraft.wire import (
    FRAME_HEADER_SIZE,
    PING,
    PONG,
    BodyKind,
    Envelope,
    FrameReader,
    body_kind,
    decode_messages,
    encode_frame,
    encode_hello,
    encode_messages,
    encode_pulse,
)

LIMIT = 1 << 16


def read_all(data: bytes, limit: int = LIMIT) -> list[bytes]:
    """All bodies, until the data ends or an error."""
    reader = FrameReader(limit)
    reader.feed(data)
    bodies = []
    try:
        while (body := reader.next_frame()) is not None:
            bodies.append(body)
    except WireError:
        pass
    return bodies


def test_golden_bytes() -> None:
    assert encode_frame([b"ab", b"c"]).hex(" ") == "03 00 00 00 c2 41 24 35 61 62 63"
    assert encode_frame([b"abc"]) == encode_frame([b"ab", b"c"])
    assert PING.hex(" ") == "01 00 00 00 37 be 0b 4b 03"
    assert PONG.hex(" ") == "01 00 00 00 94 2b 6f d5 04"
    assert FRAME_HEADER_SIZE == 8


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.lists(st.integers(0, 300), max_size=12))
def test_any_cuts_of_the_stream_give_the_same_bodies(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(encode_frame([body]) for body in bodies)
    reader = FrameReader(LIMIT)
    found = []
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        reader.feed(memoryview(stream)[start:end])
        while (body := reader.next_frame()) is not None:
            assert type(body) is bytes
            found.append(body)
    assert found == bodies
    assert reader.buffered == 0


def test_a_cut_frame_is_never_delivered_and_shows_as_buffered() -> None:
    frame = encode_frame([b"body"])
    for size in range(1, len(frame)):
        reader = FrameReader(LIMIT)
        reader.feed(frame[:size])
        assert reader.next_frame() is None
        assert reader.buffered == size


@pytest.mark.parametrize("length", [0, 101, 2**31, 2**32 - 1], ids=str)
def test_a_length_out_of_range_is_refused_with_the_header_before_the_body_comes(length: int) -> None:
    reader = FrameReader(100)
    reader.feed(struct.pack("<II", length, 0))
    tracemalloc.start()
    with pytest.raises(WireError, match=f"frame of {length} bytes"):
        reader.next_frame()
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_eight_zeros_are_no_frame() -> None:
    assert read_all(bytes(64)) == []


def test_a_body_at_the_limit_is_accepted_and_the_limit_can_be_raised_between_frames() -> None:
    reader = FrameReader(4)
    reader.feed(encode_frame([b"1234"]) + encode_frame([b"12345"]))
    assert reader.next_frame() == b"1234"
    reader.frame_bytes_max = 5
    assert reader.next_frame() == b"12345"


def test_after_an_error_the_reader_stays_broken_and_keeps_nothing() -> None:
    damaged = bytearray(encode_frame([b"body"]))
    damaged[-1] ^= 1
    reader = FrameReader(LIMIT)
    reader.feed(damaged + encode_frame([b"good"]))
    for _ in range(2):
        with pytest.raises(WireError, match="checksum"):
            reader.next_frame()
        reader.feed(encode_frame([b"good"]))
        assert reader.buffered == 0


SAMPLES = {
    "messages": encode_frame([encode_messages([Envelope(GROUP, message) for message in MESSAGES.values()], SOURCE, TARGET)]),
    "pulse": encode_frame([encode_pulse(PULSE)]),
    "hello": encode_frame([encode_hello(HELLO)]),
    "ping": PING,
}


@pytest.mark.parametrize("name", SAMPLES)
def test_TP_6_with_any_bit_flipped_nothing_of_the_frame_is_delivered(name: str) -> None:
    frame = SAMPLES[name]
    assert len(read_all(frame)) == 1
    for bit in range(len(frame) * 8):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        assert read_all(bytes(damaged) + encode_frame([b"what follows"])) == []


@given(st.sampled_from(sorted(SAMPLES)), st.integers(0, 2**16), st.binary(min_size=1, max_size=8))
def test_TP_6_with_any_burst_of_damage_nothing_but_whole_frames_is_delivered(name: str, where: int, damage: bytes) -> None:
    frame = SAMPLES[name]
    at = where % len(frame)
    damaged = frame[:at] + damage + frame[at + len(damage) :]
    assert read_all(damaged) == ([frame[FRAME_HEADER_SIZE:]] if damaged.startswith(frame) else [])


@given(st.binary(max_size=100))
def test_random_bytes_deliver_nothing_that_was_not_framed(data: bytes) -> None:
    assert b"".join(encode_frame([body]) for body in read_all(data)) == data[: sum(8 + len(body) for body in read_all(data))]


def test_body_kinds() -> None:
    assert body_kind(PING[FRAME_HEADER_SIZE:]) is BodyKind.PING
    assert body_kind(PONG[FRAME_HEADER_SIZE:]) is BodyKind.PONG
    assert body_kind(encode_pulse(PULSE)) is BodyKind.PULSE
    assert body_kind(encode_messages([], SOURCE, TARGET)) is BodyKind.MESSAGES
    assert decode_messages(encode_messages([], SOURCE, TARGET), SOURCE, TARGET, payload_bytes_max=PAYLOAD_MAX) == ([], 0)


@pytest.mark.parametrize("body", [b"", b"\x00", b"\x06", b"trioraft", b"\x03\x00", b"\x04\x04"], ids=repr)
def test_TP_15_a_body_of_an_unknown_kind_is_refused(body: bytes) -> None:
    with pytest.raises(WireError):
        body_kind(body)
