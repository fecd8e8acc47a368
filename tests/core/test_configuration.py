"""Configurations as values, and the algebra of their changes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from trioraft._errors import ConfigError, RaftError
from trioraft._types import NOTHING, EntryId, Member, NodeId
from trioraft.core import Configuration
from trioraft.core._confchange import ChangeRefusedError, Target, enter_joint, leave_joint, next_configuration, simple
from trioraft.core._quorum import VoteResult, vote_result

ADDED_BY = EntryId(2, 7)
LEFT_BY = EntryId(2, 9)
NODE_IDS = st.integers(1, 7)


@st.composite
def settled(draw: st.DrawFn) -> Configuration:
    """Any configuration that is not joint, with members of several lives."""
    voters = draw(st.frozensets(NODE_IDS, min_size=1, max_size=5))
    learners = draw(st.frozensets(NODE_IDS, max_size=3)) - voters
    replicas = {node: draw(st.sampled_from([NOTHING, EntryId(1, 2), EntryId(1, 5)])) for node in sorted(voters | learners)}
    return Configuration(voters, learners=learners, replicas=replicas)


@st.composite
def targets(draw: st.DrawFn) -> Target:
    voters = draw(st.frozensets(NODE_IDS, min_size=1, max_size=5))
    return Target(voters, draw(st.frozensets(NODE_IDS, max_size=3)) - voters)


def test_equality_is_that_of_sets() -> None:
    assert Configuration([1, 2, 3], learners=[5, 4]) == Configuration([3, 2, 1], learners=[4, 5])
    assert Configuration([1, 2]) != Configuration([1, 2], outgoing=[1, 2])
    assert Configuration.bootstrap([1]) == Configuration([1], replicas={1: NOTHING})
    assert Configuration.bootstrap([1]) != Configuration([1], replicas={1: EntryId(1, 1)})
    assert len({Configuration.bootstrap([1, 2]), Configuration.bootstrap([2, 1])}) == 1


def test_members_and_voters_come_in_id_order() -> None:
    configuration = Configuration({9, 4}, outgoing={1, 9, 33}, learners={2}, learners_next={33})
    assert configuration.members() == (1, 2, 4, 9, 33)
    assert configuration.voter_ids() == (1, 4, 9, 33)
    assert configuration.is_joint
    assert [configuration.is_voter(node) for node in (1, 2, 4, 5, 33)] == [True, False, True, False, True]
    assert str(configuration) == "(4 9)&(1 9 33) learners (2) next (33)"
    assert str(Configuration.bootstrap([2, 1])) == "(1 2)"


def test_a_member_is_a_node_in_its_present_life() -> None:
    configuration = Configuration({1, 2}, replicas={2: ADDED_BY})
    assert configuration.member(1) == Member(1, NOTHING)
    assert configuration.member(2) == Member(2, ADDED_BY)
    with pytest.raises(KeyError):
        configuration.member(3)


def test_the_replicas_given_are_not_shared() -> None:
    replicas = {1: ADDED_BY}
    configuration = Configuration({1}, replicas=replicas)
    replicas[1] = NOTHING
    assert configuration.member(1).replica == ADDED_BY


@pytest.mark.parametrize(
    "sets",
    [
        {"voters": {0}},
        {"voters": {-1}},
        {"voters": {1 << 32}},
        {"voters": {"1"}},
        {"voters": {True}},
        {"voters": {1.0}},
        {"voters": {1}, "learners": {1}},
        {"voters": {1}, "outgoing": {2}, "learners": {2}},
        {"voters": {1}, "learners_next": {2}},
        {"voters": {1}, "outgoing": {1}, "learners_next": {1}},
        {"voters": {1}, "outgoing": {2}, "learners_next": {3}},
        {"voters": {1}, "replicas": {2: ADDED_BY}},
    ],
    ids=str,
)
def test_a_contradiction_is_refused(sets: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Configuration(**sets)


def test_a_group_begins_with_a_voter() -> None:
    with pytest.raises(ConfigError, match="at least one voter"):
        Configuration.bootstrap([])


@given(settled(), targets())
def test_a_configuration_survives_being_taken_apart(configuration: Configuration, target: Target) -> None:
    for each in (configuration, enter_joint(configuration, target, ADDED_BY)):
        fields = [field for field in attrs.fields(Configuration) if field.init]
        assert Configuration(**{field.name: getattr(each, field.name) for field in fields}) == each
        lists = {name: sorted(getattr(each, name)) for name in ("voters", "outgoing", "learners", "learners_next")}
        assert Configuration(**lists, replicas=each.replicas) == each


@given(settled(), targets())
def test_a_target_is_reached_in_at_most_two_steps(configuration: Configuration, target: Target) -> None:
    steps = [configuration]
    while Target.of(steps[-1]) != target or steps[-1].is_joint:
        steps.append(next_configuration(steps[-1], target, ADDED_BY))
    assert len(steps) <= 3
    assert Target.of(steps[-1]) == target
    assert next_configuration(steps[-1], target, ADDED_BY) == steps[-1]


@given(settled(), targets())
def test_quorums_overlap_from_step_to_step(configuration: Configuration, target: Target) -> None:
    """Dissertation 4.1, 4.3: at no moment can two disjoint majorities decide, with the old and the new configuration in force at once."""
    step = configuration
    for _ in range(2):
        before, step = step, next_configuration(step, target, ADDED_BY)
        assert all(one & other for one in quorums(before) for other in quorums(step))


def quorums(configuration: Configuration) -> list[frozenset[NodeId]]:
    voters = configuration.voter_ids()
    subsets = (frozenset(some) for size in range(1, len(voters) + 1) for some in combinations(voters, size))
    return [some for some in subsets if vote_result(configuration, dict.fromkeys(some, True)) is VoteResult.WON]


@given(settled(), targets())
def test_a_life_has_one_replica_number(configuration: Configuration, target: Target) -> None:
    """Who stays keeps its number through promotion and demotion; who is new gets the position of the entry that added it."""
    joint = enter_joint(configuration, target, ADDED_BY)
    left = leave_joint(joint, LEFT_BY)
    for node_id in joint.members():
        assert joint.member(node_id).replica == configuration.replicas.get(node_id, ADDED_BY)
    for node_id in left.members():
        assert left.member(node_id) == joint.member(node_id)
    assert set(left.members()) == target.voters | target.learners


@given(settled(), targets())
def test_a_small_change_ends_where_joint_consensus_would(configuration: Configuration, target: Target) -> None:
    if len(configuration.voters ^ target.voters) > 1:
        with pytest.raises(ChangeRefusedError) as refused:
            simple(configuration, target, ADDED_BY)
        assert refused.value.kind == "needs_joint"
    else:
        assert simple(configuration, target, ADDED_BY) == leave_joint(enter_joint(configuration, target, ADDED_BY), LEFT_BY)


@given(settled(), targets())
def test_a_voter_that_shall_learn_votes_until_the_old_half_is_dropped(configuration: Configuration, target: Target) -> None:
    joint = enter_joint(configuration, target, ADDED_BY)
    assert joint.learners_next == configuration.voters & target.learners
    assert all(joint.is_voter(node_id) for node_id in joint.learners_next)
    assert leave_joint(joint, LEFT_BY).learners == target.learners


def test_a_node_added_again_begins_a_new_life() -> None:
    alone = simple(Configuration.bootstrap([1, 2]), Target(frozenset({1})), EntryId(1, 3))
    again = simple(alone, Target(frozenset({1, 2})), EntryId(1, 4))
    assert again.member(2) == Member(2, EntryId(1, 4))
    assert again.member(1) == Member(1, NOTHING)


JOINT = Configuration({1, 2}, outgoing={1})
ONE, TWO, THREE = Target(frozenset({1})), Target(frozenset({1, 2})), Target(frozenset({1, 2, 3}))
NOBODY = Target(frozenset(), frozenset({1}))


@pytest.mark.parametrize(
    "kind, change",
    [
        ("already_joint", lambda: enter_joint(JOINT, TWO, ADDED_BY)),
        ("joint_in_progress", lambda: simple(JOINT, TWO, ADDED_BY)),
        ("joint_in_progress", lambda: next_configuration(JOINT, THREE, ADDED_BY)),
        ("needs_joint", lambda: simple(Configuration.bootstrap([1]), THREE, ADDED_BY)),
        ("no_voters_to_join_from", lambda: enter_joint(Configuration(()), ONE, ADDED_BY)),
        ("not_joint", lambda: leave_joint(Configuration.bootstrap([1]), LEFT_BY)),
        ("removes_all_voters", lambda: simple(Configuration.bootstrap([1]), NOBODY, ADDED_BY)),
        ("removes_all_voters", lambda: enter_joint(Configuration.bootstrap([1, 2]), NOBODY, ADDED_BY)),
        ("removes_all_voters", lambda: next_configuration(Configuration.bootstrap([1, 2, 3]), NOBODY, ADDED_BY)),
    ],
)
def test_a_refusal_has_a_name(kind: str, change: Callable[[], Configuration]) -> None:
    with pytest.raises(ChangeRefusedError) as refused:
        change()
    assert refused.value.kind == kind
    assert isinstance(refused.value, RaftError)


def test_mb_12_the_last_voter_cannot_be_removed_or_demoted() -> None:
    """MB-12: refused before the log: remove the only voter, demote it, empty target, demote it beside a learner."""
    alone = Configuration.bootstrap([1])
    with_learner = Configuration({1}, learners={2})
    for configuration, learners in [(alone, set()), (alone, {1}), (with_learner, {1, 2}), (with_learner, set())]:
        with pytest.raises(ChangeRefusedError) as refused:
            next_configuration(configuration, Target(frozenset(), frozenset(learners)), ADDED_BY)
        assert refused.value.kind == "removes_all_voters"


def test_mb_3_a_second_change_is_refused_and_the_pending_one_unharmed() -> None:
    """MB-3: the refusal says that a change is under way, and the same target again goes on with it."""
    target, other = (Target(frozenset({3, 4, last}), frozenset({1})) for last in (5, 6))
    joint = next_configuration(Configuration.bootstrap([1, 2, 3]), target, ADDED_BY)
    with pytest.raises(ChangeRefusedError, match="under way"):
        next_configuration(joint, other, EntryId(2, 8))
    assert next_configuration(joint, target, EntryId(2, 8)) == leave_joint(joint, LEFT_BY)


def test_nobody_is_a_voter_and_a_learner_at_once() -> None:
    with pytest.raises(ConfigError):
        Target(frozenset({1, 2}), frozenset({2}))
