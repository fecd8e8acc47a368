"""Quorums: what a majority holds, compared with counting by hand."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import pytest
from hypothesis import given, strategies as st

from trioraft._types import NEVER, NodeId
from trioraft.core import Configuration
from trioraft.core._quorum import VoteResult, joint_index, majority_index, vote_result

NODE_IDS = st.integers(1, 12)
VOTERS = st.frozensets(NODE_IDS, max_size=7)
SOME_VOTERS = st.frozensets(NODE_IDS, min_size=1, max_size=7)
VALUES = st.dictionaries(NODE_IDS, st.integers(0, 20))
VOTES = st.dictionaries(NODE_IDS, st.booleans())
CONFIGURATIONS = st.builds(Configuration, SOME_VOTERS, outgoing=VOTERS)

THREE_AND_THREE = Configuration({3, 4, 5}, outgoing={1, 2, 3})
EVERYBODY = dict.fromkeys(range(1, 6), True)


def is_quorum(configuration: Configuration, nodes: Iterable[NodeId]) -> bool:
    """The definition: more voters inside than outside, in each half that has any."""
    there = frozenset(nodes)
    return all(len(half & there) > len(half - there) for half in (configuration.voters, configuration.outgoing) if half)


def majority_by_hand(voters: frozenset[NodeId], values: dict[NodeId, int]) -> int:
    """The definition: some majority, all of which hold at least the value; the best of them."""
    majorities = [some for size in range(1, len(voters) + 1) for some in combinations(voters, size) if 2 * size > len(voters)]
    return max((min(values.get(node, 0) for node in some) for some in majorities), default=NEVER)


@pytest.mark.parametrize("nodes", [{3, 4, 5}, {1, 2, 3}, {1, 2, 4, 5} - {2}, set()])
def test_mb_2_one_half_is_no_joint_quorum(nodes: set[NodeId]) -> None:
    """MB-2: (3 4 5)&(1 2 3) with 3,4,5 or 1,2,3: no. For commits and for votes."""
    assert not is_quorum(THREE_AND_THREE, nodes)
    assert joint_index(THREE_AND_THREE, dict.fromkeys(nodes, 7)) == 0
    assert vote_result(THREE_AND_THREE, dict.fromkeys(nodes, True)) is VoteResult.PENDING
    assert vote_result(THREE_AND_THREE, EVERYBODY | dict.fromkeys(EVERYBODY.keys() - nodes, False)) is VoteResult.LOST


@pytest.mark.parametrize("nodes", [{2, 3, 4}, {1, 2, 4, 5}, {1, 3, 5}, {1, 2, 3, 4, 5}])
def test_mb_2_a_majority_of_both_halves_is_a_joint_quorum(nodes: set[NodeId]) -> None:
    """MB-2: (3 4 5)&(1 2 3) with 2,3,4: yes. The node in both halves counts in both."""
    assert is_quorum(THREE_AND_THREE, nodes)
    assert joint_index(THREE_AND_THREE, dict.fromkeys(nodes, 7)) == 7
    assert vote_result(THREE_AND_THREE, dict.fromkeys(nodes, True)) is VoteResult.WON
    assert vote_result(THREE_AND_THREE, EVERYBODY | dict.fromkeys(EVERYBODY.keys() - nodes, False)) is VoteResult.WON


@given(VOTERS, VALUES)
def test_a_majority_holds_what_counting_by_hand_says(voters: frozenset[NodeId], values: dict[NodeId, int]) -> None:
    assert majority_index(voters, values) == majority_by_hand(voters, values)
    assert majority_index(sorted(voters, reverse=True), values) == majority_by_hand(voters, values)


@pytest.mark.parametrize("voters", [1, 3, 5])
@given(data=st.data())
def test_the_common_sizes_agree_with_sorting(voters: int, data: st.DataObject) -> None:
    held = data.draw(st.lists(st.integers(0, 4), min_size=voters, max_size=voters))
    assert majority_index(range(voters), dict(enumerate(held))) == sorted(held)[voters // 2]


@given(CONFIGURATIONS, VALUES)
def test_the_halves_of_a_joint_quorum_are_equals(configuration: Configuration, values: dict[NodeId, int]) -> None:
    if not configuration.is_joint:
        return
    swapped = Configuration(configuration.outgoing, outgoing=configuration.voters)
    votes = {node: value > 10 for node, value in values.items()}
    assert joint_index(swapped, values) == joint_index(configuration, values)
    assert vote_result(swapped, votes) is vote_result(configuration, votes)


@given(CONFIGURATIONS, VALUES, NODE_IDS, st.integers(1, 20))
def test_an_acknowledgement_never_takes_a_commit_back(
    configuration: Configuration, values: dict[NodeId, int], node_id: NodeId, more: int
) -> None:
    before = joint_index(configuration, values)
    assert joint_index(configuration, values | {node_id: values.get(node_id, 0) + more}) >= before


@given(CONFIGURATIONS, VALUES)
def test_a_joint_index_is_held_by_a_quorum_and_no_higher_one_is(configuration: Configuration, values: dict[NodeId, int]) -> None:
    index = joint_index(configuration, values)
    held = {node: values.get(node, 0) for node in configuration.voter_ids()}
    assert is_quorum(configuration, {node for node, value in held.items() if value >= index})
    assert not is_quorum(configuration, {node for node, value in held.items() if value > index})


@given(CONFIGURATIONS, VOTES)
def test_a_vote_is_won_by_a_quorum_and_lost_when_none_can_come(configuration: Configuration, votes: dict[NodeId, bool]) -> None:
    granted = {node for node, vote in votes.items() if vote}
    not_refused = set(configuration.voter_ids()) - {node for node, vote in votes.items() if not vote}
    result = vote_result(configuration, votes)
    assert (result is VoteResult.WON) == is_quorum(configuration, granted)
    assert (result is VoteResult.LOST) == (not is_quorum(configuration, not_refused))


@given(CONFIGURATIONS, VOTES, NODE_IDS, st.booleans())
def test_a_decided_vote_stays_decided(configuration: Configuration, votes: dict[NodeId, bool], node_id: NodeId, vote: bool) -> None:
    before = vote_result(configuration, votes)
    after = vote_result(configuration, {node_id: vote} | votes)
    assert before is VoteResult.PENDING or after is before


@given(CONFIGURATIONS)
def test_two_quorums_always_overlap(configuration: Configuration) -> None:
    voters = configuration.voter_ids()
    minimal = [
        frozenset(some) for size in range(len(voters) // 2 + 2) for some in combinations(voters, size) if is_quorum(configuration, some)
    ]
    assert all(one & other for one in minimal for other in minimal)


@given(SOME_VOTERS, VOTES)
def test_strangers_and_learners_have_no_say(voters: frozenset[NodeId], votes: dict[NodeId, bool]) -> None:
    """CM-8, EL-9: an answer of a learner or of a node that is no member changes nothing."""
    outside = {node + 100: True for node in range(9)}
    configuration = Configuration(voters, learners={100, 101, 102})
    assert vote_result(configuration, votes | outside) is vote_result(configuration, votes)
    assert joint_index(configuration, dict.fromkeys(outside, 50)) == 0


def test_an_empty_half_bounds_nothing_and_loses_nothing() -> None:
    nobody = Configuration(())
    assert joint_index(nobody, {1: 5}) == NEVER
    assert vote_result(nobody, {1: False}) is VoteResult.WON
    assert vote_result(nobody, {}) is VoteResult.WON
