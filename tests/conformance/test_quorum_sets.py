"""Quorums as sets: who is one, and which configurations may follow each other."""

from __future__ import annotations

from itertools import combinations

from tests.conformance.tables import Case, table
from trioraft._types import EntryId
from trioraft.core import Configuration
from trioraft.core._confchange import next_configuration
from trioraft.core._quorum import VoteResult, vote_result


def configuration(halves: list[list[int]]) -> Configuration:
    """Read a list of majorities, the newest last."""
    return Configuration(halves[-1], outgoing=halves[0] if len(halves) == 2 else ())


def is_quorum(config: Configuration, nodes: frozenset[int]) -> bool:
    return vote_result(config, dict.fromkeys(nodes, True)) is VoteResult.WON


@table("quorum_sets", "is_quorum")
def test_is_quorum(case: Case) -> None:
    config = configuration(case["config"])
    assert is_quorum(config, frozenset(case["granted_by"])) == case["is_quorum"]


def quorums(config: Configuration) -> list[frozenset[int]]:
    members = config.members()
    subsets = [frozenset(some) for size in range(len(members) + 1) for some in combinations(members, size)]
    return [some for some in subsets if is_quorum(config, some)]


@table("quorum_sets", "direct_step_is_safe")
def test_direct_step_is_safe(case: Case) -> None:
    """What the table calls safe is what the rule is for: any two quorums, one of each configuration, have a node in common."""
    before, after = configuration(case["from"]), configuration(case["to"])
    overlap = all(one & other for one in quorums(before) for other in quorums(after))
    assert overlap == case["safe_direct_step"]


@table(
    "quorum_sets",
    "next_step_to_target",
    leaves_out={
        1: "A change under way is finished, not turned round: the target of a joint configuration is its incoming half.",
        2: "One change at a time: another target is refused with `joint_in_progress` until the joint configuration is left.",
    },
)
def test_next_step_to_target(case: Case) -> None:
    after = next_configuration(configuration(case["current"]), case["target"], (), EntryId(1, 1))
    assert after == configuration(case["next"])
