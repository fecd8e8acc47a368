"""Each checker, fed a violation made by hand, fails; and stays silent about what is right."""

from __future__ import annotations

import pickle
from collections.abc import Iterable

import pytest

from trioraft._types import EntryId, Member
from trioraft.core import AppendEntries, AppendEntriesReply, Configuration, Entry, EntryKind, HardState, RequestVote, RequestVoteReply
from trioraft.testing._checker import Checker, Who, World
from trioraft.testing._checkers import (
    AcknowledgedIsDurable,
    ApplyOnce,
    Checkers,
    CommitAgreement,
    CommitOwnTerm,
    DurableBeforeTold,
    ElectionSafety,
    LeaderAppendOnly,
    LeaderCompleteness,
    LogMatching,
    StateMachineSafety,
    VotesOnce,
)
from trioraft.testing._disk import GroupDisk
from trioraft.testing._violation import PropertyViolation

N1, N2, N3 = Who(1, 1, 1), Who(2, 1, 1), Who(3, 1, 1)
MEMBERS = {node: Member(node) for node in (1, 2, 3)}


def entry(index: int, term: int, payload: bytes = b"x") -> Entry:
    return Entry(index, term, EntryKind.COMMAND, payload)


def log(*terms: int) -> list[Entry]:
    return [entry(index, term) for index, term in enumerate(terms, 1)]


def disk(terms: Iterable[int] = (), term: int = 0, vote: int | None = None) -> GroupDisk:
    return GroupDisk(HardState(term, vote), log(*terms))


def world(*logs: tuple[int, ...]) -> World:
    disks = {(1, node): disk(terms, 1) for node, terms in enumerate(logs, 1)}
    return World({1: Configuration.bootstrap(range(1, len(logs) + 1))}, disks)


def test_election_safety_fails_for_two_leaders_of_a_term() -> None:
    checker = ElectionSafety()
    checker.elected(N1, 3)
    checker.elected(N1, 3)
    checker.elected(Who(1, 1, 2), 3)  # a later life of the same voter: it voted for itself
    checker.elected(N2, 4)
    checker.elected(Who(2, 2, 1), 3)  # another group
    with pytest.raises(PropertyViolation, match="both lead in term 3"):
        checker.elected(N2, 3)


def test_leader_append_only_fails_for_a_leader_that_replaces_or_cuts() -> None:
    checker = LeaderAppendOnly()
    checker.writes(N1, None, log(1, 1, 2)[2:], log(1, 1), 2)
    checker.writes(N1, None, [entry(2, 2)], log(1, 1), None)  # a follower may
    with pytest.raises(PropertyViolation, match="replaces 2@1 by 2@2"):
        checker.writes(N1, None, [entry(2, 2)], log(1, 1), 2)
    with pytest.raises(PropertyViolation, match="cuts its log"):
        checker.writes(N1, None, [entry(2, 1)], log(1, 1, 1), 2)


def test_log_matching_fails_for_equal_positions_with_unequal_content() -> None:
    checker = LogMatching()
    checker.writes(N1, None, log(1, 2), [], None)
    checker.writes(N2, None, log(1, 2)[1:], log(1), None)
    with pytest.raises(PropertyViolation, match="log-matching"):
        checker.writes(N3, None, [entry(2, 2, b"other")], log(1), None)


def test_log_matching_fails_for_equal_positions_behind_unequal_ones() -> None:
    checker = LogMatching()
    checker.writes(N1, None, log(1, 3), [], None)
    with pytest.raises(PropertyViolation, match="log-matching"):
        checker.writes(N2, None, [entry(2, 3)], log(2), None)


@pytest.mark.parametrize("entries", [[entry(3, 1)], [entry(1, 2), entry(2, 1)], [entry(1, 1), entry(3, 1)]], ids=["hole", "falling", "gap"])
def test_log_matching_fails_for_a_log_that_is_none(entries: list[Entry]) -> None:
    with pytest.raises(PropertyViolation, match="log-matching"):
        LogMatching().writes(N1, None, entries, [], None)


def test_commit_agreement_fails_for_two_entries_committed_at_an_index() -> None:
    checker = CommitAgreement(world((1, 1), (1, 1), (1,)))
    checker.commits(N1, 2, log(1, 1), 1, False)
    checker.commits(N3, 1, log(1), 1, False)
    with pytest.raises(PropertyViolation, match="commits 2@2 where 2@1"):
        checker.commits(N3, 2, log(1, 2), 2, False)


def test_commit_agreement_fails_when_a_minority_holds_the_entry() -> None:
    checker = CommitAgreement(world((1, 1), (1,), (1,)))
    checker.commits(N1, 1, log(1, 1), 1, False)
    with pytest.raises(PropertyViolation, match="not on the disks of a majority"):
        checker.commits(N1, 2, log(1, 1), 1, False)


def test_commit_agreement_counts_no_learner() -> None:
    disks = {(1, 1): disk((1,), 1), (1, 2): disk((), 1), (1, 3): disk((1,), 1), (1, 4): disk((1,), 1)}
    configuration = Configuration(voters=frozenset({1, 2}), learners=frozenset({3, 4}))
    with pytest.raises(PropertyViolation, match="not on the disks of a majority"):
        CommitAgreement(World({1: configuration}, disks)).commits(N1, 1, log(1), 1, False)


def test_commit_agreement_wants_both_halves_of_a_joint_configuration() -> None:
    disks = {(1, node): disk((1,) if node <= 3 else (), 1) for node in range(1, 6)}
    configuration = Configuration(voters=frozenset({3, 4, 5}), outgoing=frozenset({1, 2, 3}))
    with pytest.raises(PropertyViolation, match="not on the disks of a majority"):
        CommitAgreement(World({1: configuration}, disks)).commits(N1, 1, log(1), 1, False)


def test_commit_agreement_fails_when_a_commit_index_goes_back_within_a_life() -> None:
    checker = CommitAgreement(world((1, 1), (1, 1), (1,)))
    checker.commits(N1, 2, log(1, 1), 1, False)
    checker.commits(Who(1, 1, 2), 1, log(1, 1), 1, False)  # a new life begins anew
    with pytest.raises(PropertyViolation, match="went back from 2 to 1"):
        checker.commits(N1, 1, log(1, 1), 1, False)


def test_commit_agreement_fails_for_a_commit_beyond_the_log() -> None:
    with pytest.raises(PropertyViolation, match="its log ends at 1"):
        CommitAgreement(world((1,), (1,), (1,))).commits(N1, 2, log(1), 1, False)


def test_commit_own_term_fails_for_a_leader_that_counts_an_older_entry() -> None:
    checker = CommitOwnTerm()
    checker.commits(N1, 2, log(1, 2), 2, True)
    checker.commits(N2, 1, log(1), 2, False)  # a follower is told
    with pytest.raises(PropertyViolation, match="leads in term 2 and commits up to 1@1"):
        checker.commits(N1, 1, log(1), 2, True)


def test_leader_completeness_fails_for_a_leader_that_lacks_a_committed_entry() -> None:
    agreement = CommitAgreement(world((1, 1), (1, 1), (1,)))
    agreement.commits(N1, 2, log(1, 1), 1, False)
    checker = LeaderCompleteness(agreement)
    checker.leads(N2, 2, log(1, 1, 2))
    with pytest.raises(PropertyViolation, match="without 2@1"):
        checker.leads(N3, 3, log(1, 3))


def test_leader_completeness_lets_a_late_leader_of_an_older_term_be() -> None:
    agreement = CommitAgreement(world((1, 1), (1, 1), (1,)))
    agreement.commits(N1, 2, log(1, 1), 5, False)
    LeaderCompleteness(agreement).leads(N3, 4, log(1, 4))


def test_state_machine_safety_fails_for_unequal_commands_at_an_index() -> None:
    checker = StateMachineSafety()
    checker.applies(N1, entry(1, 1, b"a"), disk())
    checker.applies(Who(1, 1, 2), entry(1, 1, b"a"), disk())
    with pytest.raises(PropertyViolation, match="state-machine-safety"):
        checker.applies(N2, entry(1, 2, b"b"), disk())


def test_apply_once_fails_for_a_repetition_a_hole_and_an_entry_that_is_not_durable() -> None:
    checker, held = ApplyOnce(), disk((1, 1, 1))
    checker.applies(N1, entry(1, 1), held)
    checker.applies(Who(1, 1, 2), entry(1, 1), held)
    for wrong in (entry(1, 1), entry(3, 1)):
        with pytest.raises(PropertyViolation, match="after 1"):
            checker.applies(N1, wrong, held)
    with pytest.raises(PropertyViolation, match="not on its disk"):
        checker.applies(N1, entry(2, 1), disk((1,)))


def test_durable_before_told_fails_for_an_acknowledgement_that_the_disk_does_not_hold() -> None:
    checker = DurableBeforeTold()
    checker.leads(N1, 2, log(1, 2, 2))
    reply = AppendEntriesReply(MEMBERS[2], MEMBERS[1], 2, 3)
    checker.sends(N2, reply, disk((1, 2, 2), 2))
    checker.sends(N2, reply, disk((1, 3), 3))  # void: a newer term is durable
    for held in (disk((1, 2), 2), disk((1, 1, 1), 2), disk((1, 2, 2), 1)):
        with pytest.raises(PropertyViolation, match="durable-before-told"):
            checker.sends(N2, reply, held)


def test_durable_before_told_fails_for_an_acknowledgement_of_what_the_leader_does_not_have() -> None:
    checker = DurableBeforeTold()
    checker.leads(N1, 2, log(1, 2))
    with pytest.raises(PropertyViolation, match="whose leader has only 2"):
        checker.sends(N2, AppendEntriesReply(MEMBERS[2], MEMBERS[1], 2, 3), disk((1, 2, 2), 2))


def test_durable_before_told_lets_a_rejection_pass() -> None:
    DurableBeforeTold().sends(N2, AppendEntriesReply(MEMBERS[2], MEMBERS[1], 2, 0, rejected=7), disk((), 0))


@pytest.mark.parametrize("held", [disk((), 1, 1), disk((), 2, None), disk((), 2, 3)], ids=["term", "no-vote", "other-vote"])
def test_durable_before_told_fails_for_a_vote_that_the_disk_does_not_hold(held: GroupDisk) -> None:
    granted = RequestVoteReply(MEMBERS[2], MEMBERS[1], 2, True)
    DurableBeforeTold().sends(N2, granted, disk((), 2, 1))
    with pytest.raises(PropertyViolation, match="grants n1 its vote"):
        DurableBeforeTold().sends(N2, granted, held)


def test_durable_before_told_fails_for_a_candidate_whose_own_vote_is_not_durable() -> None:
    asked = RequestVote(MEMBERS[1], MEMBERS[2], 2, EntryId(1, 1))
    DurableBeforeTold().sends(N1, asked, disk((), 2, 1))
    with pytest.raises(PropertyViolation, match="asks for votes"):
        DurableBeforeTold().sends(N1, asked, disk((), 2, None))


def test_durable_before_told_fails_for_a_leader_whose_term_is_not_durable() -> None:
    append = AppendEntries(MEMBERS[1], MEMBERS[2], 2, EntryId(0, 0), 0)
    with pytest.raises(PropertyViolation, match="leads in term 2"):
        DurableBeforeTold().sends(N1, append, disk((), 1, 1))


def test_votes_once_fails_for_a_second_vote_in_any_life() -> None:
    checker = VotesOnce()
    checker.sends(N1, RequestVoteReply(MEMBERS[1], MEMBERS[2], 2, True), disk())
    checker.sends(Who(1, 1, 2), RequestVoteReply(MEMBERS[1], MEMBERS[2], 2, True), disk())
    checker.sends(Who(1, 1, 2), RequestVoteReply(MEMBERS[1], MEMBERS[3], 2, False), disk())
    with pytest.raises(PropertyViolation, match="in which it voted for n2"):
        checker.sends(Who(1, 1, 2), RequestVoteReply(MEMBERS[1], MEMBERS[3], 2, True), disk())
    with pytest.raises(PropertyViolation, match="in which it voted for n2"):
        checker.sends(Who(1, 1, 2), RequestVote(MEMBERS[1], MEMBERS[3], 2, EntryId(1, 1)), disk())


@pytest.mark.parametrize("new", [HardState(2, 1), HardState(3, 2), HardState(3, None)], ids=["term-back", "other-vote", "vote-lost"])
def test_votes_once_fails_for_a_hard_state_that_goes_back(new: HardState) -> None:
    checker = VotesOnce()
    checker.started(N1, disk((), 3, 1))
    checker.writes(N1, HardState(3, 1), (), (), None)
    with pytest.raises(PropertyViolation, match="votes-once"):
        checker.writes(N1, new, (), (), None)
    checker.synced(N1, disk((), 3, 1))
    with pytest.raises(PropertyViolation, match="votes-once"):
        checker.synced(N1, GroupDisk(new, []))


def test_votes_once_fails_for_entries_of_a_term_above_the_own() -> None:
    checker = VotesOnce()
    checker.started(N1, disk((), 1))
    with pytest.raises(PropertyViolation, match="a higher term than its own"):
        checker.writes(N1, None, [entry(1, 2)], (), None)


def test_acknowledged_is_durable_fails_for_what_is_not_committed_or_not_on_a_majority() -> None:
    view = world((1, 1), (1, 1), (1,))
    agreement = CommitAgreement(view)
    agreement.commits(N1, 1, log(1, 1), 1, False)
    checker = AcknowledgedIsDurable(view, agreement)
    checker.acknowledges(N1, entry(1, 1))
    with pytest.raises(PropertyViolation, match="not committed"):
        checker.acknowledges(N1, entry(2, 1))
    agreement.commits(N1, 2, log(1, 1), 1, False)
    view.disks[1, 2].entries.pop()
    with pytest.raises(PropertyViolation, match="not on the disks of a majority"):
        checker.acknowledges(N1, entry(2, 1))


def test_every_checker_has_a_name_and_quotes_its_property_and_hears_of_something() -> None:
    checkers = Checkers(world((), (), ()))
    hooks = {name for name in vars(Checker) if not name.startswith("_") and name not in ("name", "fail")}
    assert len({checker.name for checker in checkers.all}) == len(checkers.all)
    for checker in checkers.all:
        assert type(checker).__doc__
        assert any(name in vars(type(checker)) for name in hooks)
    assert all(getattr(checkers, hook) for hook in hooks), "a hook that no checker wants"


def test_a_violation_survives_the_way_between_processes() -> None:
    violation = PropertyViolation("votes-once", "n1 votes twice", 7, ("a line",))
    copy = pickle.loads(pickle.dumps(violation))
    assert (copy.name, copy.detail, copy.seed, copy.trace) == ("votes-once", "n1 votes twice", 7, ("a line",))
    assert "seed 7" in str(copy)
