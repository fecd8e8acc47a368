"""Quorums as sets: who is one, and which configurations may follow each other."""

from __future__ import annotations

from itertools import combinations

from tests.conformance.tables import Case, table
from tests.core.harness import E, Network
from trioraft._types import EntryId
from trioraft.core import Configuration, Target
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
    after = next_configuration(configuration(case["current"]), Target(frozenset(case["target"])), EntryId(1, 1))
    assert after == configuration(case["next"])


@table("quorum_sets", "end_to_end_change")
def test_end_to_end_change(case: Case) -> None:
    """The table's nodes count from 0, ours from 1. Whoever is to be added waits to join."""
    before, named, after = ({node_id + 1 for node_id in case[key]} for key in ("voters", "arg", "final_voters"))
    network = Network(before)
    for node_id in sorted(named - before):
        network.add_node(node_id)
    network.elect(1)
    network.propose(1, *[b"x"] * 10)
    target = {"replace": named, "add": before | named, "remove": before - named}[case["op"]]
    network.change(1, *target)
    network.wait(9 * E)
    leader = network.leader
    assert leader in after
    network.propose(leader, *[b"y"] * 10)
    network.wait(E)
    for node_id in after:
        assert network.nodes[node_id].configuration.voters == after
        assert [entry.payload for entry in network.applied[node_id][-10:]] == [b"y"] * 10
    for node_id in before - after:
        assert not network.nodes[node_id].can_campaign or network.nodes[node_id].leader is None
        assert all(entry.payload != b"y" for entry in network.applied[node_id])
    assert network.refused == []
