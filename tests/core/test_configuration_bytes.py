"""A configuration as bytes: one encoding of each, and nothing else is accepted."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trioraft._types import EntryId
from trioraft.core import BadConfigurationError, Configuration, decode_configuration, encode_configuration

JOINT = Configuration(
    frozenset({1, 2, 9}),
    frozenset({1, 3, 4}),
    learners=frozenset({7}),
    learners_next=frozenset({4}),
    replicas={9: EntryId(2, 30), 7: EntryId(1, 1 << 40)},
    index=1 << 41,
)

nodes = st.sets(st.integers(1, (1 << 32) - 1), max_size=6)


@given(nodes, nodes, nodes, st.data())
def test_what_is_encoded_is_decoded(voters: set[int], outgoing: set[int], learners: set[int], data: st.DataObject) -> None:
    next_learners = data.draw(st.sets(st.sampled_from(sorted(outgoing - voters)))) if outgoing - voters else set[int]()
    learners -= voters | outgoing
    members = voters | outgoing | learners
    replicas = {node: EntryId(*data.draw(st.tuples(st.integers(0, 99), st.integers(0, 1 << 60)))) for node in members}
    index = data.draw(st.integers(0, (1 << 64) - 1))
    configuration = Configuration(voters, outgoing, learners, next_learners, replicas, index)
    decoded = decode_configuration(encode_configuration(configuration))
    assert (decoded, decoded.index) == (configuration, index)


def test_every_cut_and_every_addition_is_refused() -> None:
    data = encode_configuration(JOINT)
    assert decode_configuration(data) == JOINT
    for size in range(len(data)):
        with pytest.raises(BadConfigurationError):
            decode_configuration(data[:size])
    with pytest.raises(BadConfigurationError):
        decode_configuration(data + b"\0")


def test_every_flipped_bit_is_refused_or_gives_another_configuration() -> None:
    data = encode_configuration(JOINT)
    for position in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        try:
            found = decode_configuration(bytes(flipped))
        except BadConfigurationError:
            continue
        assert (found, found.index) != (JOINT, JOINT.index)


@pytest.mark.parametrize(
    "configuration, other",
    [
        # Members out of order, a voter who learns too, node 0, a learner to be that does not vote.
        (Configuration(frozenset({1, 2})), b"\x02\0\2\0\0\0\1\0\0\0" + bytes(6) + b"\1\0\0\0" + bytes(16) + b"\2\0\0\0" + bytes(16)),
        (Configuration(frozenset({1})), b"\1\0\1\0\0\0\0\0\1\0\1\0\0\0\0\0\1\0\0\0" + bytes(16)),
        (Configuration(frozenset({1})), b"\1\0" + bytes(10) + b"\0\0\0\0" + bytes(16)),
        (Configuration(frozenset({1})), b"\1\0\1\0\0\0\0\0\0\0\1\0\1\0\0\0\1\0\0\0" + bytes(16)),
    ],
)
def test_other_ways_to_say_it_are_refused(configuration: Configuration, other: bytes) -> None:
    assert encode_configuration(configuration) != bytes(8) + other
    with pytest.raises(BadConfigurationError):
        decode_configuration(bytes(8) + other)
