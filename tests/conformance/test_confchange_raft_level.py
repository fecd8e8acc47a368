"""Membership changes at the level of a running group: which configuration follows, and how a leader gets there."""

from __future__ import annotations

from typing import Any

import attrs

from tests.conformance.replica import Replica
from tests.conformance.tables import Case, table
from tests.conformance.test_confchange_sequences import SETS, target_after
from tests.core.harness import E, Network, Turns, make_raft
from trioraft._types import EntryId, Member
from trioraft.core import AppendEntriesReply, Campaign, ChangeMembers, Configuration, EntryKind, Role, TimePassed
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
        after = next_configuration(before, target, ADDED_BY)
    else:
        after = enter_joint(before, target, ADDED_BY)
    # Compared by their sets: what is added has a replica number, of which the table knows nothing.
    assert attrs.evolve(after, replicas={}) == configuration(case["expect_after_apply"])
    assert after.is_joint == (case["left"] is not None)
    if case["left"] is not None:
        left = leave_joint(after, ADDED_BY)
        assert attrs.evolve(left, replicas={}) == configuration(case["left"])
        assert next_configuration(after, target, EntryId(1, 3)) == left


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


def sets_of(made: Configuration) -> dict[str, list[int]]:
    return {name: sorted(getattr(made, name)) for name in SETS}


def told_configurations(case: Case) -> list[dict[str, Any]]:
    """The configurations that a story goes through."""
    return [{name: step[1][name] for name in SETS} for step in case["steps"] if step[0] == "config"]


def proposals(case: Case) -> list[list[str]]:
    return [step[1] for step in case["steps"] if step[0] == "propose"]


def change(replica: Replica, changes: list[str]) -> None:
    replica.step(ChangeMembers("change", target_after(replica.raft.configuration, changes)))


def refusals(replica: Replica) -> list[str]:
    return [getattr(error, "kind", type(error).__name__) for error in replica.refused]


def tell_add(case: Case) -> None:
    """A learner on the way, which the table knows nothing of."""
    replica = Replica(voters=case["voters"])
    replica.become_leader()
    change(replica, *proposals(case))
    new = replica.raft.configuration.member(2)
    assert (sorted(replica.raft.configuration.learners), replica.raft.commit_index) == ([2], 2)
    replica.step(AppendEntriesReply(new, Member(1), 1, 0, rejected=2))
    replica.step(AppendEntriesReply(new, Member(1), 1, 2))
    assert [sets_of(replica.raft.configuration)] == told_configurations(case)
    assert replica.raft.commit_index == 2
    replica.step(AppendEntriesReply(new, Member(1), 1, 3))
    assert replica.raft.commit_index == 3


def tell_remove_two(case: Case) -> None:
    replica = Replica(voters=case["voters"])
    replica.become_leader()
    replica.hear_ack(2, 1)
    change(replica, *proposals(case))
    joint, left = told_configurations(case)
    assert (sets_of(replica.raft.configuration), replica.raft.commit_index) == (joint, 1)
    replica.hear_ack(2, 2)
    replica.propose()
    replica.propose()
    # Nobody is left but the leader itself.
    assert (sets_of(replica.raft.configuration), replica.raft.commit_index) == (left, 5)
    assert len(replica.accepted) == 3
    assert sum(entry.kind is EntryKind.CONFIGURATION for ready in replica.writes for entry in ready.entries) == 2


def tell_replace_leader(case: Case) -> None:
    network = Network(case["voters"])
    network.add_node(4)
    network.elect(case["leader"])
    network.change(1, 2, 3, 4)
    joint, left = told_configurations(case)
    while not network.nodes[1].configuration.is_joint:
        network.deliver_one()
    assert sets_of(network.nodes[1].configuration) == joint
    network.wait(E)
    assert sets_of(network.nodes[2].configuration) == left
    assert (network.nodes[1].role, network.nodes[2].term) == (Role.FOLLOWER, 2)
    network.campaign(1)
    assert (network.nodes[1].role, network.leader in (2, 3)) == (Role.FOLLOWER, True)


def tell_pending(case: Case) -> None:
    replica = Replica(voters=case["voters"])
    replica.become_leader()
    replica.hear_ack(2, 1)
    change(replica, ["v8"])
    pending = replica.raft.configuration
    change(replica, ["v9"])
    assert refusals(replica) == ["change_pending"]
    assert (replica.raft.configuration, replica.raft.log.last_index) == (pending, 2)


def tell_loss(case: Case) -> None:
    joint, left = told_configurations(case)[0], {**told_configurations(case)[0], "outgoing": []}
    raft = make_raft(1, configuration(joint))
    assert raft.log.last_index == 0, "as follower: no leave entry"
    turns = Turns(raft)
    raft.step(TimePassed(), 0)
    turns.settle(0)
    assert raft.role is Role.LEADER
    assert sets_of(raft.configuration) == left


def tell_last(case: Case) -> None:
    for learners in ([], [2]):
        replica = Replica(voters=case["voters"], learners=learners)
        replica.step(Campaign())
        change(replica, *proposals(case))
        assert refusals(replica) == ["removes_all_voters"]
        assert replica.raft.log.last_index == 1


STORIES = {
    "add one voter directly": tell_add,
    "remove two of three, auto joint": tell_remove_two,
    "replace the leader, step down on removal": tell_replace_leader,
    "pending change blocks a second one": tell_pending,
    "auto leave survives loss of leadership": tell_loss,
    "removing the only voter is refused": tell_last,
}


@table(
    "confchange_raft_level",
    "flows",
    leaves_out={
        2: "A joint configuration is always left by the leader, never by hand.",
        5: "A configuration is in force when it is appended: the quorum that shrinks commits the change itself, and what follows it.",
    },
)
def test_flows(case: Case) -> None:
    """The table's stories, but for two differences: each step is in force when appended, and a new voter learns first."""
    STORIES[case["name"]](case)
