"""The rules that whoever administers a group meets. Addresses are no part of ours: they belong to nodes."""

from __future__ import annotations

import random

import pytest

from tests.conformance.replica import Replica
from tests.conformance.tables import Case, table
from trioraft._errors import ChangeRefusedError, ConfigError
from trioraft._types import EntryId, Member
from trioraft.core import ChangeMembers, Configuration, Durable, GroupConfig, Heartbeat, Raft, Target, Timing
from trioraft.core._confchange import next_configuration


def roles(members: list[list[str]]) -> tuple[set[int], set[int]]:
    """Who votes and who learns; a node that is staged to be a voter learns."""
    by_id = {int(name.removeprefix("id")): role for name, role, _ in members}
    voters = {node_id for node_id, role in by_id.items() if role == "voter"}
    return voters, by_id.keys() - voters


def target_of(voters: set[int], learners: set[int], command: str, node_id: int) -> Target:
    """Translate a command: here a node is told what to be, in one step."""
    voters, learners = set(voters), set(learners)
    is_there = node_id in voters | learners
    if command in ("demote", "promote_staged") and not is_there:
        return Target(frozenset(voters), frozenset(learners))
    voters.discard(node_id)
    learners.discard(node_id)
    if command in ("add_staging", "add_voter", "promote_staged"):
        voters.add(node_id)
    elif command in ("add_nonvoter", "demote"):
        learners.add(node_id)
    return Target(frozenset(voters), frozenset(learners))


@table("membership_admin", "next_config")
def test_next_config(case: Case) -> None:
    voters, learners = roles(case["current"])
    target = target_of(voters, learners, case["command"], case["node"])
    after = next_configuration(Configuration(voters, learners=learners), target, EntryId(1, 1))
    assert (set(after.voters), set(after.learners)) == roles(case["next"])


@table(
    "membership_admin",
    "config_validity",
    leaves_out={2: "Addresses belong to nodes: which node is where is looked at where they are set."},
)
def test_config_validity(case: Case) -> None:
    if case["valid"]:
        target = Target(frozenset({1}), frozenset({2}))
        assert next_configuration(Configuration.bootstrap([1]), target, EntryId(1, 1)).members() == (1, 2)
        return
    with pytest.raises(ConfigError):
        Configuration.bootstrap(())
    with pytest.raises(ChangeRefusedError):
        next_configuration(Configuration.bootstrap([1]), Target(frozenset()), EntryId(1, 1))


@table("membership_admin", "optimistic_concurrency")
def test_optimistic_concurrency(case: Case) -> None:
    """What the table calls 0, no expectation, is None here: 0 is the index of a group's first configuration."""
    replica = Replica()
    replica.become_leader()
    replica.hear_ack(2, 1)
    replica.step(ChangeMembers("before", Target(frozenset({1, 2}))))
    replica.hear_ack(2, 2)
    assert replica.raft.configuration.index == case["current_config_index"]
    replica.step(ChangeMembers("change", Target(frozenset({1})), case["request_expects_index"] or None))
    refused = [getattr(error, "kind", "") for error in replica.refused]
    assert refused == ([] if case["result"].startswith("ok") else ["stale_expect"])
    assert replica.raft.configuration.index == (3 if case["result"].startswith("ok") else 2)


@table("membership_admin", "removed_ids")
def test_removed_ids(case: Case) -> None:
    """The table's ids are our replica numbers: a node may come back, a number never does."""
    (removed,) = case["removed"]
    me, called = Member(7, EntryId(1, removed)), Member(7, EntryId(1, case["node"]))
    raft = Raft(
        me,
        Configuration(()),
        Durable(),
        config=GroupConfig(),
        timing=Timing(),
        random=random.Random(0),
        liveness={},
        now=0,
        awaits_number=True,
    )
    raft.step(Heartbeat(Member(1), called, 1, 0), 0)
    assert (raft.me == called and not raft.awaits_number) != case["refuse"]
