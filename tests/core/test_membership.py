"""Configurations in the log: in force when appended, rolled back when truncated, one step at a time."""

from __future__ import annotations

import random

import attrs
import pytest

from tests.core.harness import E, Network, Turns, entries_of, make_leader, make_raft, voters_of
from tests.core.schedule import Schedule
from trioraft._errors import ConfigError, InvariantError, NotLeaderError, OutcomeUnknownError
from trioraft._types import NEVER, EntryId, Member
from trioraft.core import (
    AppendEntries,
    AppendEntriesReply,
    Attach,
    Campaign,
    ChangeMembers,
    Configuration,
    Detach,
    Durable,
    Entry,
    EntryKind,
    GroupConfig,
    HardState,
    Heartbeat,
    HeartbeatReply,
    PeerUp,
    Persisted,
    PreVoteReply,
    Propose,
    Raft,
    Removed,
    RequestVoteReply,
    Role,
    SnapshotTaken,
    Target,
    TimeoutNow,
    TimePassed,
    Timing,
    TransferLeadership,
    decode_configuration,
    encode_configuration,
)
from trioraft.core._membership import step_aside
from trioraft.core._role_changes import become_candidate, become_leader
from trioraft.core._roles import Leader

N1, N2, N3, N4 = Member(1), Member(2), Member(3), Member(4, EntryId(1, 2))
LIVE = {2: NEVER, 3: NEVER, 4: NEVER, 5: NEVER}


def change(raft: Raft, *voters: int, learners: tuple[int, ...] = (), token: object = "change", now: int = 0) -> None:
    raft.step(ChangeMembers(token, Target(frozenset(voters), frozenset(learners))), now)


def accept(raft: Raft, node_id: int, match: int, now: int = 0) -> None:
    raft.step(AppendEntriesReply(raft.configuration.member(node_id), raft.me, raft.term, match), now)


def configuration_entry(index: int, term: int, configuration: Configuration) -> Entry:
    return Entry(index, term, EntryKind.CONFIGURATION, encode_configuration(attrs.evolve(configuration, index=index)))


def commit(leader: Raft, turns: Turns, *nodes: int, now: int = 0) -> None:
    """Everything is on the leader's disk, and on these nodes'; again and again, while the leader goes on."""
    last = 0
    while leader.role is Role.LEADER and last != leader.log.last_index:
        last = leader.log.last_index
        turns.settle(now)
        for node_id in nodes:
            if node_id in leader.configuration.members():
                accept(leader, node_id, last, now)


def refusals(turns: Turns) -> list[str]:
    return [getattr(error, "kind", type(error).__name__) for _, error in turns.take().refused]


# The leader


def test_CM_8_a_node_that_shall_vote_learns_first() -> None:
    """Thesis 4.2.1: it votes once it has caught up; and each step is in force as soon as it is appended."""
    leader, turns = make_leader(liveness=LIVE)
    change(leader, 1, 2, 3, 4)
    assert str(leader.configuration) == "(1 2 3) learners (4)"
    assert (leader.configuration.member(4), leader.configuration.index) == (N4, 2)
    ready = turns.take()
    assert (ready.accepted, ready.refused) == ((), ())
    assert [entry.kind for entry in ready.entries] == [EntryKind.CONFIGURATION]
    decoded = decode_configuration(ready.entries[0].payload)
    assert (decoded, decoded.index) == (leader.configuration, 2)
    assert Attach(N1, N4, 1) in ready.messages
    # The new one is probed from the end; the others go on as before.
    appends = {m.target.node_id: m for m in ready.messages if isinstance(m, AppendEntries)}
    assert {node_id: len(m.entries) for node_id, m in appends.items()} == {2: 1, 3: 1, 4: 0}
    assert appends[4].previous == EntryId(1, 2)
    leader.step(Persisted(ready.sequence), 0)
    accept(leader, 4, 2)
    assert leader.commit_index == 1, "a learner does not count"
    accept(leader, 2, 2)
    assert leader.commit_index == 2
    # All is ready: the target, and from here on a majority is three of four.
    assert leader.configuration.voters == {1, 2, 3, 4}
    assert leader.configuration.member(4) == N4
    ready = turns.take()
    assert ready.accepted == (("change", EntryId(1, 3)),)
    # It is told like any entry; whoever applies skips it.
    assert [entry.kind for entry in ready.committed] == [EntryKind.CONFIGURATION]
    leader.step(Persisted(ready.sequence), 0)
    accept(leader, 2, 3)
    assert leader.commit_index == 2
    accept(leader, 4, 3)
    assert leader.commit_index == 3
    assert leader.watched() == {1, 2, 3, 4}


def test_a_joint_configuration_is_not_left_for_what_came_before_it() -> None:
    leader, turns = make_leader(configuration=voters_of(1, 2, 3, 4), liveness=LIVE)
    leader.step(Propose(None, b""), 0)
    change(leader, 1, 2)
    turns.settle(0)
    for node_id in (2, 3):
        accept(leader, node_id, 2)
    assert (leader.commit_index, leader.configuration.is_joint) == (2, True)


def test_what_is_known_of_the_others_stays() -> None:
    leader, turns = make_leader(liveness=LIVE)
    view = leader.state.members[2]  # type: ignore[union-attr]  # it leads
    change(leader, 1, 2, learners=(4, 3))
    state = leader.state
    assert state.members[2] is view  # type: ignore[union-attr]  # it leads
    assert list(state.members) == [2, 3, 4]  # type: ignore[union-attr]  # it leads
    assert leader.status().match == {1: 1, 2: 1, 3: 1, 4: 0}


def test_MB_2_a_joint_configuration_takes_both_majorities_and_is_left_once_it_is_committed() -> None:
    leader, turns = make_leader(liveness=LIVE)
    change(leader, 1, 4, 5)
    turns.settle(0)
    for node_id in (4, 5, 2):
        accept(leader, node_id, 2)
    assert str(leader.configuration) == "(1 4 5)&(1 2 3)"
    change(leader, 1, 2, token="another")
    ready = turns.take()
    assert [(token, getattr(error, "kind", "")) for token, error in ready.refused] == [("another", "change_pending")]
    leader.step(Persisted(ready.sequence), 0)
    accept(leader, 4, 3)
    accept(leader, 5, 3)
    assert leader.commit_index == 2
    accept(leader, 2, 3)
    assert leader.commit_index == 3
    assert (str(leader.configuration), leader.configuration.index) == ("(1 4 5)", 4)
    ready = turns.take()
    assert ready.accepted == (("change", EntryId(1, 4)),)
    assert [str(entry) for entry in ready.entries] == ["4@1"]
    assert {m.target for m in ready.messages if isinstance(m, Detach)} == {N2, N3}
    assert list(leader.state.members) == [4, 5]  # type: ignore[union-attr]  # it leads
    assert set(leader.status().match) == {1, 4, 5}
    # Those who were removed are strangers now.
    leader.step(AppendEntriesReply(N2, N1, 1, 4), 0)
    assert leader.dropped == {"stranger": 1}
    leader.step(Persisted(ready.sequence), 0)
    accept(leader, 4, 4)
    assert leader.commit_index == 4
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
    assert raft.configuration.index == 2
    become_candidate(raft, 0)
    turns.settle(0)
    become_leader(raft, {2, 3, 4}, 0)
    turns.settle(0)
    change(raft, 1, 2, 3)
    assert refusals(turns) == ["term_not_begun"]
    accept(raft, 2, 3)
    assert raft.commit_index == 0, "four vote"
    accept(raft, 3, 3)
    assert raft.commit_index == 3
    change(raft, 1, 2, 3)
    assert refusals(turns) == []


def test_MB_12_what_makes_no_sense_is_refused_before_the_log() -> None:
    leader, turns = make_leader(liveness=LIVE)
    change(leader)
    change(leader, learners=(1,))
    change(leader, learners=(4,))
    assert refusals(turns) == ["removes_all_voters"] * 3
    change(leader, 0, 1, 2, 3)
    (refused,) = turns.take().refused
    assert refused[0] == "change"
    assert isinstance(refused[1], ConfigError)
    assert leader.log.last_index == 1


def test_asking_for_what_is_there_already_is_answered_with_its_index() -> None:
    leader, turns = make_leader(liveness=LIVE)
    change(leader, 1, 2, 3)
    assert turns.take().answered == (("change", 0),)
    change(leader, 1, 2)
    commit(leader, turns, 2)
    change(leader, 1, 2)
    assert turns.take().answered == (("change", 2),)
    assert leader.log.last_index == 2


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


def test_MB_4_a_leader_that_is_removed_leads_until_that_is_committed() -> None:
    leader, turns = make_leader(liveness=LIVE)
    change(leader, 2, 3)
    leader.step(Persisted(turns.take().sequence), 0)
    accept(leader, 2, 2)
    assert (leader.role, leader.commit_index) == (Role.LEADER, 1), "its own acknowledgement counts no more"
    accept(leader, 3, 2)
    assert leader.commit_index == 2
    assert leader.role is Role.FOLLOWER
    messages = [m for m in turns.take().messages if isinstance(m, Detach | TimeoutNow)]
    # The voter that has most takes over at once, and hears of that before it forgets its leader.
    assert messages == [TimeoutNow(N1, N2, 1), Detach(N1, N2, 1), Detach(N1, N3, 1)]
    assert leader.deadline == NEVER, "it never campaigns again"
    assert leader.status().is_removed
    leader.step(Campaign(), 9 * E)
    assert leader.role is Role.FOLLOWER


def test_a_member_in_a_new_life_is_another() -> None:
    leader, turns = make_leader(liveness=LIVE)
    change(leader, 1, 2)
    commit(leader, turns, 2)
    change(leader, 1, 2, learners=(3,))
    commit(leader, turns, 2)
    again = Member(3, EntryId(1, 3))
    assert leader.configuration.member(3) == again
    assert leader.status().match[3] == 0
    leader.step(AppendEntriesReply(N3, N1, 1, 3), 0)
    assert leader.dropped == {"removed source": 1}
    assert turns.settle(0) == [Removed(N1, N3, 1, 3)]
    assert leader.status().match[3] == 0


# A change that takes its time


def learner(*, liveness: dict[int, int] | None = None, config: GroupConfig | None = None) -> tuple[Raft, Turns]:
    """A leader of (1 2 3) with learner 4, of which nothing has been heard; the step is committed."""
    leader, turns = make_leader(liveness=LIVE if liveness is None else liveness, config=config)
    change(leader, 1, 2, 3, learners=(4,))
    commit(leader, turns, 2)
    assert leader.commit_index == 2
    return leader, turns


def kinds(turns: Turns) -> list[str]:
    """What has become of changes since the last Ready, in short."""
    ready = turns.take()
    done = [str(at) for _, at in ready.accepted]
    return done + [getattr(error, "kind", type(error).__name__) for _, error in ready.refused]


def test_MB_11_a_dead_node_never_gets_a_vote() -> None:
    """Thesis 4.2.1: it stays a learner, so that another node that dies does not stop the group."""
    network = Network((1, 2, 3))
    network.elect(1)
    network.change(1, 1, 2, 3, 4)
    network.wait(9 * E)
    assert network.refused == []
    network.wait(E)
    ((_, error),) = network.refused
    assert (getattr(error, "kind", ""), "node 4" in str(error)) == ("learner_silent", True)
    configuration = network.nodes[1].configuration
    assert str(configuration) == "(1 2 3) learners (4)"
    network.crash(3)
    network.propose(1, b"x")
    network.wait(E)
    assert network.applied[2][-1].payload == b"x"
    # The promotion of one that is silent is refused at once, and nothing is in the log.
    last = network.nodes[1].log.last_index
    network.change(1, 1, 2, 3, 4)
    network.wait(0)
    assert [getattr(error, "kind", "") for _, error in network.refused] == ["learner_silent"] * 2
    assert network.nodes[1].log.last_index == last
    assert network.nodes[1].deadline == NEVER


def test_a_learner_that_has_said_nothing_is_behind_then_silent() -> None:
    """Whatever its node's pulse says: the group may not be there."""
    leader, turns = learner()
    change(leader, 1, 2, 3, 4, now=E - 1)
    assert kinds(turns) == ["learner_behind"]
    change(leader, 1, 2, 3, 4, now=E)
    assert kinds(turns) == ["learner_silent"]
    assert leader.log.last_index == 2


def test_a_learner_may_lag_so_much_and_no_more() -> None:
    leader, turns = learner(config=GroupConfig(promotion_lag_max=3))
    for _ in range(4):
        leader.step(Propose(None, b""), 0)
    turns.settle(0)
    accept(leader, 4, 2)
    change(leader, 1, 2, 3, 4)
    assert kinds(turns) == ["learner_behind"]
    accept(leader, 4, 3)
    change(leader, 1, 2, 3, 4)
    assert kinds(turns) == ["7@1"]


def test_a_live_node_speaks_for_a_learner_that_has_answered_and_has_not_detached() -> None:
    leader, turns = learner(liveness={2: NEVER, 3: NEVER, 4: 50 * E})
    accept(leader, 4, 2)
    for now, event, kind in [
        (40 * E, Detach(N4, N1, 1), None),
        (41 * E, None, "learner_silent"),
        (42 * E, HeartbeatReply(N4, N1, 1, 2), None),
        (50 * E, None, "learner_silent"),
    ]:
        if event is not None:
            leader.step(event, now)
        else:
            change(leader, 1, 2, 3, 4, now=now)
            assert kinds(turns) == [kind]
        turns.settle(now)
    leader.step(HeartbeatReply(N4, N1, 1, 2), 50 * E)
    turns.settle(50 * E)
    change(leader, 1, 2, 3, 4, now=51 * E - 1)
    assert kinds(turns) == ["3@1"]


def test_one_that_is_heard_may_take_as_long_as_it_takes() -> None:
    leader, turns = make_leader(liveness=LIVE, config=GroupConfig(promotion_lag_max=0))
    change(leader, 1, 2, 4)
    commit(leader, turns, 2)
    for now in range(E, 40 * E, 9 * E):
        leader.step(Propose(None, b""), now)
        turns.settle(now)
        accept(leader, 4, leader.log.last_index - 1, now)
        assert kinds(turns) == []
    # It falls silent, and says so in 10 E; nothing else wakes the leader for it.
    leader._liveness[4] = 0  # type: ignore[index]  # a dict, here
    leader.step(TimePassed(), now + 10 * E - 1)
    assert kinds(turns) == []
    assert leader.deadline <= now + 10 * E
    leader.step(TimePassed(), now + 10 * E)
    assert kinds(turns) == ["learner_silent"]
    assert str(leader.configuration) == "(1 2 3) learners (4)"
    change(leader, 1, 2, 3, now=now + 10 * E)
    assert kinds(turns) == ["8@1"], "the next change is free to begin"


def test_a_snapshot_on_its_way_speaks_for_a_node_too() -> None:
    network = Network((1, 2), config=GroupConfig(keep_entries=0, promotion_lag_max=1))
    network.elect(1)
    network.propose(1, *[b"x"] * 9)
    network.wait(E)
    network.snapshot(1)
    network.add_node(3)
    network.holds_streams = True
    network.change(1, 1, 2, 3)
    network.wait(50 * E)
    assert (network.refused, str(network.nodes[1].configuration)) == ([], "(1 2) learners (3)")
    network.holds_streams = False
    network.wait(E)
    assert str(network.nodes[1].configuration) == "(1 2 3)"


def test_a_node_that_is_back_is_looked_at_at_once() -> None:
    """It had everything before it was gone, so it owes the leader no answer."""
    liveness = dict(LIVE)
    leader, turns = make_leader(liveness=liveness)
    change(leader, 1, 2, 3, 4)
    turns.settle(0)
    accept(leader, 4, 2)
    liveness[4] = 0
    accept(leader, 2, 2, 5 * E)
    turns.settle(5 * E)
    leader.step(HeartbeatReply(N4, N1, 1, 1), 5 * E - 1)
    assert str(leader.configuration) == "(1 2 3 4)", "heard"
    leader, turns = make_leader(liveness=liveness)
    change(leader, 1, 2, 3, 4)
    turns.settle(0)
    accept(leader, 4, 2)
    accept(leader, 2, 2, 5 * E)
    assert str(leader.configuration) == "(1 2 3) learners (4)"
    liveness[4] = NEVER
    leader.step(PeerUp(4, restarted=False), 6 * E)
    assert str(leader.configuration) == "(1 2 3 4)"


def test_a_change_waits_for_all_that_shall_vote() -> None:
    leader, turns = make_leader(liveness=LIVE)
    change(leader, 1, 4, 5)
    commit(leader, turns, 2, 4)
    assert str(leader.configuration) == "(1 2 3) learners (4 5)"
    commit(leader, turns, 2, 4, 5)
    assert str(leader.configuration) == "(1 4 5)"


def test_the_configuration_that_a_change_goes_by() -> None:
    leader, turns = make_leader(liveness=LIVE)
    leader.step(ChangeMembers("change", Target(frozenset({1, 2})), expect=1), 0)
    assert kinds(turns) == ["stale_expect"]
    leader.step(ChangeMembers("change", Target(frozenset({1, 2})), expect=0), 0)
    commit(leader, turns, 2)
    assert (leader.configuration.index, leader.log.last_index) == (2, 2)
    # Where the log begins makes no difference.
    turns.settle(0)
    leader.step(SnapshotTaken(EntryId(1, 2)), 0)
    leader.step(ChangeMembers("change", Target(frozenset({1, 2, 3})), expect=0), 0)
    assert kinds(turns) == ["stale_expect"]
    leader.step(ChangeMembers("change", Target(frozenset({1, 2, 3})), expect=2), 0)
    assert kinds(turns) == []
    assert leader.log.last_index == 3


def test_MB_3_while_members_change_step_by_step_nothing_else_begins() -> None:
    leader, turns = learner()
    change(leader, 1, 2, 5, learners=(4,), token="first")
    commit(leader, turns, 2)
    change(leader, 1, 2, token="second")
    assert kinds(turns) == ["change_pending"]
    leader.step(AppendEntriesReply(leader.configuration.member(5), N1, 1, 3), 0)
    assert leader.configuration.is_joint
    commit(leader, turns, 2, 5)
    assert str(leader.configuration) == "(1 2 5) learners (4)"


def test_leadership_that_is_being_handed_over_changes_no_members() -> None:
    leader, turns = make_leader(liveness=LIVE)
    leader.step(TransferLeadership("transfer", 2), 0)
    change(leader, 1, 2)
    assert kinds(turns) == ["change_pending"]


def test_a_leader_that_is_lost_half_way_leaves_the_outcome_open() -> None:
    leader, turns = make_leader(liveness=LIVE)
    change(leader, 1, 2, 3, 4)
    turns.settle(0)
    leader.step(Heartbeat(N2, N1, 2, 0), 0)
    (refused,) = turns.take().refused
    assert (refused[0], type(refused[1])) == ("change", OutcomeUnknownError)
    # One whose last step is in the log was answered already.
    leader, turns = make_leader(liveness=LIVE)
    change(leader, 1, 2)
    assert kinds(turns) == ["2@1"]
    leader.step(Heartbeat(N2, N1, 2, 0), 0)
    assert kinds(turns) == []


@pytest.mark.parametrize("has_joint", [False, True])
def test_a_leader_that_dies_half_way_leaves_what_is_in_the_log_to_the_next(has_joint: bool) -> None:
    """A learner stays one; a joint configuration is left."""
    network = Network((1, 2, 3))
    network.add_node(4)
    network.elect(1)
    network.change(1, 2, 3, 4)
    state = network.nodes[1].state
    while not network.nodes[1].configuration.is_joint or not has_joint:
        network.deliver_one()
        if not has_joint and network.nodes[2].configuration.learners:
            break
    if has_joint:
        while not network.nodes[2].configuration.is_joint:
            network.deliver_one()
    assert state.change is not None  # type: ignore[union-attr]  # it leads
    network.crash(1)
    network.wait(9 * E)
    leader = network.leader
    assert leader in (2, 3)
    assert str(network.nodes[leader].configuration) == ("(2 3 4)" if has_joint else "(1 2 3) learners (4)")
    network.restart(1)
    network.wait(9 * E)
    assert network.nodes[1].is_removed == has_joint
    assert {str(network.nodes[node_id].configuration) for node_id in (2, 3, 4)} == {str(network.nodes[leader].configuration)}


def test_a_joint_configuration_that_was_found_is_left_before_anything_else() -> None:
    joint = attrs.evolve(Configuration({1, 4}, outgoing={1, 2, 3}), index=1)
    raft, turns = make_leader(configuration=joint, liveness=LIVE, is_settled=False)
    turns.settle(0)
    change(raft, 1, 4)
    assert kinds(turns) == ["joint_in_progress"]
    for node_id in (2, 4):
        accept(raft, node_id, 1)
    assert str(raft.configuration) == "(1 4)"
    change(raft, 1)
    assert kinds(turns) == ["change_pending"]


def test_MB_1_the_bug_of_2015_cannot_be_told() -> None:
    """S1 adds 5 in term 1; S2 removes 1 in term 2; S1 in term 3 must not win with 4 and 5 (raft-dev, July 2015)."""
    network = Network((1, 2, 3, 4))
    network.add_node(5)
    network.elect(1)
    network.wait(E)
    # S1's step gets to S5 only.
    for other in (2, 3, 4):
        network.cut(1, other)
    network.change(1, 1, 2, 3, 4, 5)
    network.deliver()
    assert network.nodes[5].configuration.learners == {5}
    network.cut(1, 5)
    network.wait(3 * E)
    leader = network.leader
    assert leader in (2, 3, 4)
    second = network.nodes[leader]
    assert second.term > 1
    # It has committed an entry of its own term on a majority of (1 2 3 4): so S1, who lacks it, is elected by nobody there.
    network.change(leader, 2, 3, 4)
    network.wait(E)
    assert second.configuration == voters_of(2, 3, 4)
    network.heal()
    for other in (2, 3):
        network.cut(1, other)
    for _ in range(20):
        network.campaign(1)
        network.wait(E)
    assert network.leaders == [leader]
    assert network.nodes[1].is_removed


@pytest.mark.parametrize("begins", [False, True])
def test_MB_1_two_leaders_that_change_one_configuration(begins: bool) -> None:
    """Two adds and two removes: the second leader has to commit something first, and that tells who is who."""
    network = Network((1, 2, 3, 4))
    network.elect(1)
    network.wait(E)
    for other in (2, 3, 4):
        network.cut(1, other)
    network.change(1, 1, 2, 3)
    network.deliver()
    assert network.nodes[1].configuration.voters == {1, 2, 3}
    assert network.nodes[1].commit_index == 1
    network.wait(3 * E)
    leader = network.leader
    assert leader in (2, 3, 4)
    if begins:
        network.change(leader, leader, 1, 4 if leader != 4 else 3)
        network.wait(E)
    network.heal()
    network.wait(5 * E)
    assert len(network.leaders) == 1
    assert network.nodes[1].configuration == network.nodes[leader].configuration
    assert len(network.nodes[leader].configuration.voters) == (3 if begins else 4)


def test_a_group_of_one_grows_and_shrinks() -> None:
    network = Network((1,))
    network.wait(0)
    for node_id in (2, 3):
        network.add_node(node_id)
    network.change(1, 1, 2, 3)
    network.wait(E)
    assert network.nodes[3].configuration.voters == {1, 2, 3}
    network.change(1, 3)
    network.wait(E)
    # The one that is left leads: at once, because it was told to.
    assert network.leaders == [3]
    assert (str(network.nodes[3].configuration), network.nodes[1].is_removed) == ("(3)", True)
    network.change(3, learners=(3,))
    network.change(3)
    network.wait(0)
    assert [getattr(error, "kind", "") for _, error in network.refused] == ["removes_all_voters"] * 2


def test_a_leader_that_is_removed_tells_one_that_is_there() -> None:
    liveness = {2: 0, 3: NEVER, 4: NEVER}
    leader, turns = make_leader(configuration=voters_of(1, 2, 3, 4), liveness=liveness)
    change(leader, 2, 3, 4)
    turns.settle(0)
    accept(leader, 2, 2)
    accept(leader, 4, 2, 2 * E)
    assert TimeoutNow(N1, Member(4), 1) in turns.take().messages
    # Nobody: then it just goes.
    leader, turns = make_leader(liveness={})
    assert isinstance(leader.state, Leader)
    step_aside(leader, leader.state, 9 * E)
    assert {type(m) for m in turns.take().messages} == {Detach}


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
    raft.step(AppendEntries(N2, N1, 1, EntryId(1, 1), 2, (configuration_entry(2, 1, voters_of(2, 3)),)), 0)
    assert raft.deadline == NEVER


def test_one_that_is_not_a_voter_any_more_is_needed_until_that_is_committed() -> None:
    """Dissertation 4.2.2: it may be the only one with that entry, so nobody else could be elected. Its own vote does not count."""
    raft = make_raft(1, voters_of(1, 2), log=[1], term=1)
    turns = Turns(raft)
    raft.step(AppendEntries(N2, N1, 1, EntryId(1, 1), 1, (configuration_entry(2, 1, voters_of(2)),)), 0)
    turns.settle(0)
    raft.step(TimePassed(), raft.deadline)
    turns.settle(3 * E)
    roles = [raft.role]
    for reply in (PreVoteReply(N2, N1, 2, granted=True), RequestVoteReply(N2, N1, 2, granted=True)):
        raft.step(reply, 3 * E)
        turns.settle(3 * E)
        roles.append(raft.role)
    assert roles == [Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER]


def test_one_that_has_joined_and_removed_itself_is_needed_too_after_a_restart() -> None:
    """It knows of no entry then that it is committed, least of all of the one that made it a voter."""
    network = Network((2,))
    network.elect(2)
    network.add_node(1)
    network.change(2, 1, 2)
    network.wait(3 * E)
    network.transfer(2, 1)
    network.wait(E)
    assert network.leaders == [1]
    network.cut(1, 2)
    network.change(1, 2)
    network.deliver()
    network.crash(1)
    network.heal()
    network.restart(1)
    assert (network.nodes[1].commit_index, network.nodes[1].configuration) == (0, voters_of(2))
    network.wait(20 * E)
    assert network.leaders == [2]
    assert network.nodes[2].configuration == voters_of(2)
    assert network.nodes[1].is_removed


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
    before = {index: network.nodes[1].configuration_at(index) for index in range(13)}
    assert [str(before[index]) for index in (1, 2, 10, 11, 12)] == ["(1 2 3)", "(1 2)", "(1 2)", "(1 2) learners (3)", "(1 2 3)"]
    network.snapshot(1)
    network.wait(0)
    network.restart(1)
    raft = network.nodes[1]
    assert raft.status().start.index == 10
    assert [raft.configuration_at(index) for index in (10, 11, 12)] == [before[index] for index in (10, 11, 12)]


@pytest.mark.parametrize("seed", range(20))
def test_random_changes_never_make_two_leaders(seed: int) -> None:
    """Changes, cuts, crashes and snapshots at random: one leader a term, one entry an index, and in the end all members are equal."""
    generator = random.Random(seed)
    config = GroupConfig(keep_entries=generator.choice([0, 5]), log_memory_bytes_max=generator.choice([1, 1 << 20]))
    network = Network((1, 2, 3), seed=seed, config=config)
    network.add_node(4)
    network.add_node(5)
    schedule = Schedule(network, generator)
    schedule.run(200, "cut heal crash restart wait snapshot replace change change propose propose propose", deliveries_max=3)
    leader = schedule.settle()
    configuration = network.nodes[leader].configuration
    assert not configuration.is_joint
    for node_id in configuration.members():
        raft = network.nodes[node_id]
        assert raft.me == network.disks[node_id].me == configuration.member(node_id)
        assert (raft.configuration, network.applied[node_id][-1].payload) == (configuration, b"end")
