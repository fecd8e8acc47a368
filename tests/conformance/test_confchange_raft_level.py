"""Membership changes at the level of a running group, as far as they are pure: which configuration follows."""

from __future__ import annotations

from typing import Any

import attrs

from tests.conformance.tables import Case, table
from tests.conformance.test_confchange_sequences import SETS, target_after
from trioraft._types import EntryId
from trioraft.core import Configuration
from trioraft.core._confchange import enter_joint, leave_joint, next_configuration

ADDED_BY = EntryId(1, 2)


def configuration(sets: dict[str, Any]) -> Configuration:
    return Configuration(**{name: sets[name] for name in SETS})


@table("confchange_raft_level", "change_to_config")
def test_change_to_config(case: Case) -> None:
    """The table's transitions: ``auto`` is what `next_configuration` picks, the two joint ones are its second kind of step.

    Joint is always left by the leader, so ``joint_explicit`` differs from ``joint_implicit`` in nothing; `auto_leave` is not kept.
    """
    before = Configuration.bootstrap([1])
    target = target_after(before, case["changes"])
    if case["transition"] == "auto":
        after = next_configuration(before, target.voters, target.learners, ADDED_BY)
    else:
        after = enter_joint(before, target, ADDED_BY)
    # Compared by their sets: what is added has a replica number, of which the table knows nothing.
    assert attrs.evolve(after, replicas={}) == configuration(case["expect_after_apply"])
    assert after.is_joint == (case["left"] is not None)
    if case["left"] is not None:
        left = leave_joint(after)
        assert attrs.evolve(left, replicas={}) == configuration(case["left"])
        assert next_configuration(after, target.voters, target.learners, EntryId(1, 3)) == left


@table("confchange_raft_level", "restore_round_trip")
def test_restore_round_trip(case: Case) -> None:
    made = configuration(case["config"])
    read_back = {name: sorted(getattr(made, name)) for name in SETS}
    assert read_back == {name: case["config"][name] for name in SETS}
    assert configuration(read_back) == made


@table(
    "confchange_raft_level",
    "config_equality",
    leaves_out={2: "Differs in `auto_leave` only, which we do not have: a joint configuration is always left by the leader."},
)
def test_config_equality(case: Case) -> None:
    # A learner-to-be votes in the outgoing half; in the table it is in no half at all, which we do not let pass.
    one, other = (configuration(sets | {"outgoing": sets["outgoing"] + sets["learners_next"]}) for sets in (case["a"], case["b"]))
    assert (one == other) == case["same"]
    if case["same"]:
        assert hash(one) == hash(other)
