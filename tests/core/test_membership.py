"""Configurations in the log: in force when appended, rolled back when truncated, one step at a time."""

from __future__ import annotations

import random

import pytest

from tests.core.harness import E, Network, Turns, entries_of, make_leader, make_raft, voters_of
from tests.core.schedule import Schedule
from trioraft._errors import ConfigError, InvariantError, NotLeaderError
from trioraft._types import NEVER, EntryId, Member
from trioraft.core import (
    AppendEntries,
    AppendEntriesReply,
    Attach,
    ChangeMembers,
    Configuration,
    Detach,
    Durable,
    Entry,
    EntryKind,
    GroupConfig,
    HardState,
    Persisted,
    Raft,
    Role,
    Target,
    TimePassed,
    Timing,
    decode_configuration,
    encode_configuration,
)

N1, N2, N3 = Member(1), Member(2), Member(3)
LIVE = {2: NEVER, 3: NEVER, 4: NEVER, 5: NEVER}


def change(raft: Raft, *voters: int, learners: tuple[int, ...] = (), token: object = "change", now: int = 0) -> None:
    raft.step(ChangeMembers(token, Target(frozenset(voters), frozenset(learners))), now)


def accept(raft: Raft, node_id: int, match: int, now: int = 0) -> None:
    raft.step(AppendEntriesReply(raft.configuration.member(node_id), raft.me, raft.term, match), now)


def configuration_entry(index: int, term: int, configuration: Configuration) -> Entry:
    return Entry(index, term, EntryKind.CONFIGURATION, encode_configuration(configuration))


def refusals(turns: Turns) -> list[str]:
    return [getattr(error, "kind", type(error).__name__) for _, error in turns.take().refused]


# The leader


def test_one_step_is_in_force_as_soon_as_it_is_appended() -> None:
    leader, turns = make_leader(liveness=LIVE)
    change(leader, 1, 2, 3, 4)
    assert leader.configuration.voters == {1, 2, 3, 4}
    assert leader.configuration.member(4) == Member(4, EntryId(1, 2))
    ready = turns.take()
    assert ready.accepted == (("change", EntryId(1, 2)),)
    assert [entry.kind for entry in ready.entries] == [EntryKind.CONFIGURATION]
    assert decode_configuration(ready.entries[0].payload) == leader.configuration
    assert Attach(N1, Member(4, EntryId(1, 2)), 1) in ready.messages
    # The new one is probed from the end; the others go on as before.
    appends = {m.target.node_id: m for m in ready.messages if isinstance(m, AppendEntries)}
    assert {node_id: len(m.entries) for node_id, m in appends.items()} == {2: 1, 3: 1, 4: 0}
    assert appends[4].previous == EntryId(1, 2)
    leader.step(Persisted(ready.sequence), 0)
    accept(leader, 2, 2)
    # Two of four are no majority.
    assert leader.commit_index == 1
    accept(leader, 4, 2)
    assert leader.commit_index == 2
    ready = turns.take()
    # It is told like any entry; whoever applies skips it.
    assert [entry.kind for entry in ready.committed] == [EntryKind.CONFIGURATION]
    assert leader.watched() == {1, 2, 3, 4}


def test_what_is_known_of_the_others_stays() -> None:
    leader, turns = make_leader(liveness=LIVE)
    view = leader.state.members[2]  # type: ignore[union-attr]
    change(leader, 1, 2, 4)
    assert leader.configuration.is_joint
    state = leader.state
    assert state.members[2] is view  # type: ignore[union-attr]
    assert list(state.members) == [2, 3, 4]  # type: ignore[union-attr]
    assert leader.status().match == {1: 1, 2: 1, 3: 1, 4: 0}


def test_a_joint_configuration_is_left_once_it_is_committed() -> None:
    """MB-2: it takes both majorities."""
    leader, turns = make_leader(liveness=LIVE)
    change(leader, 1, 4, 5)
    assert str(leader.configuration) == "(1 4 5)&(1 2 3)"
    leader.step(Persisted(turns.take().sequence), 0)
    accept(leader, 4, 2)
    accept(leader, 5, 2)
    assert leader.commit_index == 1
    accept(leader, 2, 2)
    assert leader.commit_index == 2
    assert str(leader.configuration) == "(1 4 5)"
    ready = turns.take()
    assert [str(entry) for entry in ready.entries] == ["3@1"]
    assert {m.target for m in ready.messages if isinstance(m, Detach)} == {N2, N3}
    assert list(leader.state.members) == [4, 5]  # type: ignore[union-attr]
    assert set(leader.status().match) == {1, 4, 5}
    # Those who were removed are strangers now.
    leader.step(AppendEntriesReply(N2, N1, 1, 3), 0)
    assert leader.dropped == {"stranger": 1}
    leader.step(Persisted(ready.sequence), 0)
    accept(leader, 4, 3)
    assert leader.commit_index == 3
    assert not leader.configuration.is_joint


def test_MB_1_no_change_before_an_entry_of_the_own_term_is_committed() -> None:
    leader, turns = make_leader(log=[1, 1], is_settled=False, liveness=LIVE)
    leader.step(Persisted(turns.take().sequence), 0)
    change(leader, 1, 2, 3, 4)
    assert refusals(turns) == ["term_not_begun"]
    assert leader.configuration == voters_of(1, 2, 3)
    accept(leader, 2, 3)
    change(leader, 1, 2, 3, 4)
    assert refusals(turns) == []


def test_MB_3_one_change_at_a_time() -> None:
    leader, turns = make_leader(liveness=LIVE)
    change(leader, 1, 2, 3, 4)
    pending = leader.configuration
    turns.take()
    change(leader, 1, 2, 3, 5)
    change(leader, 1, 2, 3, 4)
    assert refusals(turns) == ["change_pending", "change_pending"]
    assert leader.configuration is pending


def test_MB_3_a_new_leader_counts_its_uncommitted_tail_as_pending() -> None:
    after = voters_of(1, 2, 3, 4)
    entries = [*entries_of([1]), configuration_entry(2, 1, after)]
    raft = Raft(
        N1,
        voters_of(1, 2, 3),
        Durable(hard_state=HardState(1), entries=entries),
        config=GroupConfig(),
        timing=Timing(),
        random=random.Random(0),
        liveness=LIVE,
        now=0,
    )
    turns = Turns(raft)
    assert raft.configuration == after
    raft.become_candidate(0)
    turns.settle(0)
    raft.become_leader({2, 3, 4}, 0)
    turns.settle(0)
    change(raft, 1, 2, 3)
    assert refusals(turns) == ["term_not_begun"]
    accept(raft, 2, 3)
    assert raft.commit_index == 0, "four vote"
    accept(raft, 3, 3)
    assert raft.commit_index == 3
    change(raft, 1, 2, 3)
    assert refusals(turns) == []


def test_what_makes_no_sense_is_refused() -> None:
    leader, turns = make_leader(liveness=LIVE)
    change(leader)
    change(leader, learners=(1,))
    assert refusals(turns) == ["removes_all_voters", "removes_all_voters"]
    change(leader, 0, 1, 2, 3)
    (refused,) = turns.take().refused
    assert refused[0] == "change"
    assert isinstance(refused[1], ConfigError)
    assert leader.log.last_index == 1


def test_asking_for_what_is_there_already_is_accepted() -> None:
    leader, turns = make_leader(liveness=LIVE)
    change(leader, 1, 2, 3)
    assert turns.take().accepted == (("change", EntryId(1, 2)),)
    assert leader.configuration == voters_of(1, 2, 3)


def test_only_leaders_change_members() -> None:
    raft = make_raft()
    change(raft, 1, 2, 3, 4)
    assert refusals(Turns(raft)) == [NotLeaderError.__name__]


def test_a_learner_gets_the_log_and_has_no_say() -> None:
    leader, turns = make_leader(liveness=LIVE)
    change(leader, 1, 2, 3, learners=(4,))
    leader.step(Persisted(turns.take().sequence), 0)
    accept(leader, 4, 2)
    assert leader.commit_index == 1
    accept(leader, 3, 2)
    assert leader.commit_index == 2


def test_new_voters_have_a_timeout_to_be_heard() -> None:
    """Else a leader whose new half has never spoken would step down at once."""
    leader, turns = make_leader(liveness={2: NEVER, 3: NEVER})
    change(leader, 1, 4, 5, now=10 * E)
    leader.step(TimePassed(), 11 * E - 1)
    assert leader.role is Role.LEADER
    leader.step(TimePassed(), 11 * E)
    assert leader.role is Role.FOLLOWER


def test_MB_4_a_leader_that_is_removed_leads_until_that_is_committed() -> None:
    leader, turns = make_leader(liveness=LIVE)
    change(leader, 2, 3)
    leader.step(Persisted(turns.take().sequence), 0)
    accept(leader, 2, 2)
    assert (leader.role, leader.commit_index) == (Role.LEADER, 1), "its own acknowledgement counts no more"
    accept(leader, 3, 2)
    assert leader.commit_index == 2
    assert leader.role is Role.FOLLOWER
    assert {m.target for m in turns.take().messages if isinstance(m, Detach)} == {N2, N3}
    assert leader.deadline == NEVER, "it never campaigns again"


def test_a_member_in_a_new_life_is_another() -> None:
    leader, turns = make_leader(liveness=LIVE)
    for voters in ((1, 2), (1, 2, 3)):
        change(leader, *voters)
        leader.step(Persisted(turns.take().sequence), 0)
        accept(leader, 2, leader.log.last_index)
        turns.settle(0)
    again = Member(3, EntryId(1, 3))
    assert leader.configuration.member(3) == again
    assert leader.status().match[3] == 0
    leader.step(AppendEntriesReply(N3, N1, 1, 3), 0)
    assert leader.dropped == {"former replica": 1}


# Followers


def test_a_follower_goes_by_what_is_in_its_log_and_back_again() -> None:
    """In force when appended, committed or not (dissertation 4.1); gone with its entry."""
    raft = make_raft(log=[1], term=1)
    four, five = voters_of(1, 2, 3, 4), voters_of(1, 2, 3, 4, 5)
    raft.step(AppendEntries(N2, N1, 1, EntryId(1, 1), 1, (configuration_entry(2, 1, four), configuration_entry(3, 1, five))), 0)
    assert (raft.configuration, raft.commit_index) == (five, 1)
    assert raft.is_counted(Member(5))
    raft.step(AppendEntries(N3, N1, 2, EntryId(1, 2), 1, entries_of([2], first=3)), 0)
    assert raft.configuration == four
    raft.step(AppendEntries(N2, N1, 3, EntryId(1, 1), 1, entries_of([3], first=2)), 0)
    assert raft.configuration == voters_of(1, 2, 3)
    assert not raft.is_counted(Member(4))
    assert [raft.configuration_at(index) for index in (0, 1, 2)] == [voters_of(1, 2, 3)] * 3


def test_a_configuration_that_cannot_be_read_stops_the_group() -> None:
    raft = make_raft(log=[1], term=1)
    with pytest.raises(InvariantError, match="entry 2@1: not a configuration"):
        raft.step(AppendEntries(N2, N1, 1, EntryId(1, 1), 1, (Entry(2, 1, EntryKind.CONFIGURATION, b""),)), 0)


def test_one_that_is_not_a_voter_any_more_does_not_campaign() -> None:
    raft = make_raft(log=[1], term=1)
    raft.step(AppendEntries(N2, N1, 1, EntryId(1, 1), 1, (configuration_entry(2, 1, voters_of(2, 3)),)), 0)
    assert raft.deadline == NEVER


# Everybody


def test_a_new_member_catches_up_by_snapshot_and_counts() -> None:
    network = Network((1, 2), configuration=None, config=GroupConfig(keep_entries=0))
    network.elect(1)
    network.propose(1, *[b"x"] * 8)
    network.wait(E)
    network.snapshot(1)
    network.add_node(3)
    network.change(1, 1, 2, 3)
    network.wait(E)
    assert network.restored[3].index == 9
    assert network.nodes[3].configuration == network.nodes[1].configuration
    network.crash(2)
    network.propose(1, b"end")
    network.wait(E)
    assert network.applied[3][-1].payload == b"end"


def test_a_restarted_node_knows_the_configuration_at_each_index() -> None:
    network = Network((1, 2, 3), config=GroupConfig(keep_entries=2))
    network.elect(1)
    network.change(1, 1, 2)
    network.wait(E)
    network.propose(1, *[b"x"] * 8)
    network.wait(E)
    network.change(1, 1, 2, 3)
    network.wait(E)
    before = {index: network.nodes[1].configuration_at(index) for index in range(12)}
    assert [len(before[index].voters) for index in (1, 2, 10, 11)] == [3, 2, 2, 3]
    network.snapshot(1)
    network.wait(0)
    network.restart(1)
    raft = network.nodes[1]
    assert raft.status().start.index == 9
    assert [raft.configuration_at(index) for index in (9, 10, 11)] == [before[index] for index in (9, 10, 11)]


@pytest.mark.parametrize("seed", range(20))
def test_random_changes_never_make_two_leaders(seed: int) -> None:
    """Changes, cuts, crashes and snapshots at random: one leader a term, one entry an index, and in the end all members are equal."""
    generator = random.Random(seed)
    config = GroupConfig(keep_entries=generator.choice([0, 5]), log_memory_bytes_max=generator.choice([1, 1 << 20]))
    network = Network((1, 2, 3), seed=seed, config=config)
    network.add_node(4)
    network.add_node(5)
    schedule = Schedule(network, generator)
    schedule.run(200, "cut heal crash restart wait snapshot change change propose propose propose", deliveries_max=3)
    leader = schedule.settle()
    configuration = network.nodes[leader].configuration
    assert not configuration.is_joint
    for node_id in configuration.members():
        raft = network.nodes[node_id]
        if raft.me == configuration.member(node_id):
            assert (raft.configuration, network.applied[node_id][-1].payload) == (configuration, b"end")
