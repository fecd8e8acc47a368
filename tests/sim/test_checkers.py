"""Each checker, fed a violation made by hand, fails; and stays silent about what is right."""

from __future__ import annotations

import pickle
from collections.abc import Iterable

import pytest

from trioraft._types import NOTHING, EntryId, Member
from trioraft.core import (
    AppendEntries,
    AppendEntriesReply,
    Compaction,
    Configuration,
    Entry,
    EntryKind,
    GroupConfig,
    HardState,
    InstallSnapshot,
    LoadEntries,
    RequestVote,
    RequestVoteReply,
    encode_configuration,
)
from trioraft.testing._all_checkers import Checkers
from trioraft.testing._checker import Checker, Who, World
from trioraft.testing._checkers import (
    AcknowledgedIsDurable,
    ApplyOnce,
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
from trioraft.testing._log_window import LogWindow
from trioraft.testing._machine import Snapshot
from trioraft.testing._snapshot_checkers import InstallsForward, LogIsBounded, ReadsWhatItHas, SnapshotSafety
from trioraft.testing._violation import PropertyViolation

N1, N2, N3 = Who(1, 1, 1), Who(2, 1, 1), Who(3, 1, 1)
VOTERS = Configuration.bootstrap({1, 2, 3})
LEARNING = Configuration({1, 2, 3}, learners={4})
MEMBERS = {node: Member(node) for node in (1, 2, 3)}


def entry(index: int, term: int, payload: bytes = b"x") -> Entry:
    return Entry(index, term, EntryKind.COMMAND, payload)


def entries_of(*terms: int, behind: int = 0) -> list[Entry]:
    return [entry(index, term) for index, term in enumerate(terms, behind + 1)]


def log(*terms: int, start: EntryId = NOTHING) -> LogWindow:
    return LogWindow(start, entries_of(*terms, behind=start.index), [(start.index, VOTERS)])


def disk(terms: Iterable[int] = (), term: int = 0, vote: int | None = None, *, node: int = 0, start: EntryId = NOTHING) -> GroupDisk:
    return GroupDisk(HardState(term, vote), log(*terms, start=start), me=Member(node))


def durable_before_told() -> DurableBeforeTold:
    return DurableBeforeTold(CommitAgreement(world((), (), ())))


def world(*logs: tuple[int, ...]) -> World:
    disks = {(1, node): disk(terms, 1, node=node) for node, terms in enumerate(logs, 1)}
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
    checker.writes(N1, None, log(1, 1, 2).entries[2:], log(1, 1), 2)
    checker.writes(N1, None, [entry(2, 2)], log(1, 1), None)  # a follower may
    with pytest.raises(PropertyViolation, match="replaces 2@1 by 2@2"):
        checker.writes(N1, None, [entry(2, 2)], log(1, 1), 2)
    with pytest.raises(PropertyViolation, match="cuts its log"):
        checker.writes(N1, None, [entry(2, 1)], log(1, 1, 1), 2)


def test_log_matching_fails_for_equal_positions_with_unequal_content() -> None:
    checker = LogMatching()
    checker.writes(N1, None, entries_of(1, 2), log(), None)
    checker.writes(N2, None, entries_of(1, 2)[1:], log(1), None)
    with pytest.raises(PropertyViolation, match="log-matching"):
        checker.writes(N3, None, [entry(2, 2, b"other")], log(1), None)


def test_log_matching_fails_for_equal_positions_behind_unequal_ones() -> None:
    checker = LogMatching()
    checker.writes(N1, None, entries_of(1, 3), log(), None)
    with pytest.raises(PropertyViolation, match="log-matching"):
        checker.writes(N2, None, [entry(2, 3)], log(2), None)


@pytest.mark.parametrize("entries", [[entry(3, 1)], [entry(1, 2), entry(2, 1)], [entry(1, 1), entry(3, 1)]], ids=["hole", "falling", "gap"])
def test_log_matching_fails_for_a_log_that_is_none(entries: list[Entry]) -> None:
    with pytest.raises(PropertyViolation, match="log-matching"):
        LogMatching().writes(N1, None, entries, log(), None)


def test_log_matching_fails_for_a_log_that_goes_on_behind_a_snapshot_of_another_history() -> None:
    checker = LogMatching()
    checker.writes(N1, None, entries_of(1, 1, 3), log(), None)
    checker.synced(N1, disk((3,), start=EntryId(1, 2)))
    with pytest.raises(PropertyViolation, match="begins behind 2@2 with 3@3, which follows term 1"):
        checker.synced(N2, disk((3,), start=EntryId(2, 2)))


def test_commit_agreement_fails_for_two_entries_committed_at_an_index() -> None:
    checker = CommitAgreement(world((1, 1), (1, 1), (1,)))
    checker.commits(N1, 2, log(1, 1), 1, False, [VOTERS])
    checker.commits(N3, 1, log(1), 1, False, [VOTERS])
    with pytest.raises(PropertyViolation, match="commits 2@2 where 2@1"):
        checker.commits(N3, 2, log(1, 2), 2, False, [VOTERS])


def test_commit_agreement_fails_when_a_minority_holds_the_entry() -> None:
    checker = CommitAgreement(world((1, 1), (1,), (1,)))
    checker.commits(N1, 1, log(1, 1), 1, False, [VOTERS])
    with pytest.raises(PropertyViolation, match="not on the disks of a majority"):
        checker.commits(N1, 2, log(1, 1), 1, False, [VOTERS])


def test_commit_agreement_counts_no_learner() -> None:
    disks = {(1, node): disk((1,) if node != 2 else (), 1, node=node) for node in range(1, 5)}
    configuration = Configuration(voters=frozenset({1, 2}), learners=frozenset({3, 4}))
    with pytest.raises(PropertyViolation, match="not on the disks of a majority"):
        CommitAgreement(World({1: configuration}, disks)).commits(N1, 1, log(1), 1, False, [configuration])


def test_commit_agreement_wants_both_halves_of_a_joint_configuration() -> None:
    disks = {(1, node): disk((1,) if node <= 3 else (), 1, node=node) for node in range(1, 6)}
    configuration = Configuration(voters=frozenset({3, 4, 5}), outgoing=frozenset({1, 2, 3}))
    with pytest.raises(PropertyViolation, match="not on the disks of a majority"):
        CommitAgreement(World({1: configuration}, disks)).commits(N1, 1, log(1), 1, False, [configuration])


def test_commit_agreement_fails_when_a_commit_index_goes_back_within_a_life() -> None:
    checker = CommitAgreement(world((1, 1), (1, 1), (1,)))
    checker.commits(N1, 2, log(1, 1), 1, False, [VOTERS])
    checker.commits(Who(1, 1, 2), 1, log(1, 1), 1, False, [VOTERS])  # a new life begins anew
    with pytest.raises(PropertyViolation, match="went back from 2 to 1"):
        checker.commits(N1, 1, log(1, 1), 1, False, [VOTERS])


def test_commit_agreement_fails_for_a_commit_beyond_the_log() -> None:
    with pytest.raises(PropertyViolation, match="its log ends at 1"):
        CommitAgreement(world((1,), (1,), (1,))).commits(N1, 2, log(1), 1, False, [VOTERS])


def test_commit_own_term_fails_for_a_leader_that_counts_an_older_entry() -> None:
    checker = CommitOwnTerm()
    checker.commits(N1, 2, log(1, 2), 2, True, [VOTERS])
    checker.commits(N2, 1, log(1), 2, False, [VOTERS])  # a follower is told
    with pytest.raises(PropertyViolation, match="leads in term 2 and commits up to 1@1"):
        checker.commits(N1, 1, log(1), 2, True, [VOTERS])


def test_leader_completeness_fails_for_a_leader_that_lacks_a_committed_entry() -> None:
    agreement = CommitAgreement(world((1, 1), (1, 1), (1,)))
    agreement.commits(N1, 2, log(1, 1), 1, False, [VOTERS])
    checker = LeaderCompleteness(agreement)
    checker.leads(N2, 2, log(1, 1, 2))
    with pytest.raises(PropertyViolation, match="without 2@1"):
        checker.leads(N3, 3, log(1, 3))


def test_leader_completeness_lets_a_late_leader_of_an_older_term_be() -> None:
    agreement = CommitAgreement(world((1, 1), (1, 1), (1,)))
    agreement.commits(N1, 2, log(1, 1), 5, False, [VOTERS])
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
    checker = durable_before_told()
    checker.leads(N1, 2, log(1, 2, 2))
    reply = AppendEntriesReply(MEMBERS[2], MEMBERS[1], 2, 3)
    checker.sends(N2, reply, disk((1, 2, 2), 2))
    checker.sends(N2, reply, disk((1, 3), 3))  # void: a newer term is durable
    for held in (disk((1, 2), 2), disk((1, 1, 1), 2), disk((1, 2, 2), 1)):
        with pytest.raises(PropertyViolation, match="durable-before-told"):
            checker.sends(N2, reply, held)


def test_durable_before_told_fails_for_an_acknowledgement_of_what_the_leader_does_not_have() -> None:
    checker = durable_before_told()
    checker.leads(N1, 2, log(1, 2))
    with pytest.raises(PropertyViolation, match="whose leader has only 2"):
        checker.sends(N2, AppendEntriesReply(MEMBERS[2], MEMBERS[1], 2, 3), disk((1, 2, 2), 2))


def test_durable_before_told_lets_a_rejection_pass() -> None:
    durable_before_told().sends(N2, AppendEntriesReply(MEMBERS[2], MEMBERS[1], 2, 0, rejected=7), disk((), 0))


@pytest.mark.parametrize("held", [disk((), 1, 1), disk((), 2, None), disk((), 2, 3)], ids=["term", "no-vote", "other-vote"])
def test_durable_before_told_fails_for_a_vote_that_the_disk_does_not_hold(held: GroupDisk) -> None:
    granted = RequestVoteReply(MEMBERS[2], MEMBERS[1], 2, True)
    durable_before_told().sends(N2, granted, disk((), 2, 1))
    with pytest.raises(PropertyViolation, match="grants n1 its vote"):
        durable_before_told().sends(N2, granted, held)


def test_durable_before_told_fails_for_a_candidate_whose_own_vote_is_not_durable() -> None:
    asked = RequestVote(MEMBERS[1], MEMBERS[2], 2, EntryId(1, 1))
    durable_before_told().sends(N1, asked, disk((), 2, 1))
    with pytest.raises(PropertyViolation, match="asks for votes"):
        durable_before_told().sends(N1, asked, disk((), 2, None))


def test_durable_before_told_fails_for_a_leader_whose_term_is_not_durable() -> None:
    append = AppendEntries(MEMBERS[1], MEMBERS[2], 2, EntryId(0, 0), 0)
    with pytest.raises(PropertyViolation, match="leads in term 2"):
        durable_before_told().sends(N1, append, disk((), 1, 1))


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
    checker.started(N1, disk((), 3, 1), ())
    checker.writes(N1, HardState(3, 1), (), log(), None)
    with pytest.raises(PropertyViolation, match="votes-once"):
        checker.writes(N1, new, (), log(), None)
    checker.synced(N1, disk((), 3, 1))
    with pytest.raises(PropertyViolation, match="votes-once"):
        checker.synced(N1, GroupDisk(new))


def test_votes_once_fails_for_entries_of_a_term_above_the_own() -> None:
    checker = VotesOnce()
    checker.started(N1, disk((), 1), ())
    with pytest.raises(PropertyViolation, match="a higher term than its own"):
        checker.writes(N1, None, [entry(1, 2)], log(), None)


def test_acknowledged_is_durable_fails_for_what_is_not_committed_or_not_on_a_majority() -> None:
    view = world((1, 1), (1, 1), (1,))
    agreement = CommitAgreement(view)
    agreement.commits(N1, 1, log(1, 1), 1, False, [VOTERS])
    checker = AcknowledgedIsDurable(view, agreement)
    checker.acknowledges(N1, entry(1, 1))
    with pytest.raises(PropertyViolation, match="not committed"):
        checker.acknowledges(N1, entry(2, 1))
    agreement.commits(N1, 2, log(1, 1), 1, False, [VOTERS])
    view.disks[1, 2].log.entries.pop()
    with pytest.raises(PropertyViolation, match="not on the disks of a majority"):
        checker.acknowledges(N1, entry(2, 1))


def snapshot(history: LogWindow, configuration: Configuration = VOTERS) -> Snapshot:
    return Snapshot(history.last, configuration, tuple(history.entries))


def agreed(*terms: int) -> CommitAgreement:
    """Everything of these terms is committed; the second entry makes n4 a learner."""
    agreement, held = CommitAgreement(world(terms, terms, ())), log(*terms)
    if len(terms) > 1:
        held.write([Entry(2, terms[1], EntryKind.CONFIGURATION, encode_configuration(LEARNING)), *held.entries[2:]])
    agreement.commits(N1, len(terms), held, terms[-1], False, [VOTERS])
    return agreement


def committed(agreement: CommitAgreement, count: int) -> LogWindow:
    return LogWindow(entries=agreement.committed[1][:count])


def test_snapshot_safety_fails_for_another_history() -> None:
    agreement = agreed(1, 1, 2)
    checker = SnapshotSafety(agreement)
    checker.saves(N1, snapshot(committed(agreement, 1)), disk())
    with pytest.raises(PropertyViolation, match="something else than what was committed"):
        checker.saves(N1, snapshot(log(1, 1, 2), LEARNING), disk())
    longer = Snapshot(EntryId(1, 1), VOTERS, tuple(agreement.committed[1][:2]))
    with pytest.raises(PropertyViolation, match="holds 2 entries"):
        checker.saves(N1, longer, disk())


@pytest.mark.parametrize(("count", "wrong"), [(1, "LEARNING"), (3, "VOTERS")], ids=["newer", "older"])
def test_snapshot_safety_fails_for_another_configuration_than_the_one_at_its_index(count: int, wrong: str) -> None:
    agreement = agreed(1, 1, 2)
    held = committed(agreement, count)
    SnapshotSafety(agreement).saves(N1, snapshot(held, VOTERS if count == 1 else LEARNING), disk())
    with pytest.raises(PropertyViolation, match="was in force at its index"):
        SnapshotSafety(agreement).saves(N1, snapshot(held, globals()[wrong]), disk())


def test_snapshot_safety_fails_for_a_life_that_begins_with_what_was_never_committed() -> None:
    agreement = agreed(1, 1, 2)
    checker = SnapshotSafety(agreement)
    checker.started(N1, disk(start=EntryId(2, 3)), agreement.committed[1])
    with pytest.raises(PropertyViolation, match="not all of which are committed"):
        checker.started(N1, disk(), [*agreement.committed[1], entry(4, 2)])
    with pytest.raises(PropertyViolation, match="begins behind 3@1"):
        checker.started(N1, disk(start=EntryId(1, 3)), ())


def test_installs_forward_fails_for_an_older_snapshot_and_one_that_is_not_there_or_not_committed_or_says_something_else() -> None:
    agreement = agreed(1, 1, 2)
    checker, held = InstallsForward(agreement), disk((1,))
    file = snapshot(committed(agreement, 3), LEARNING)
    held.files[file.at] = file
    message = InstallSnapshot(MEMBERS[1], MEMBERS[2], 2, file.at, LEARNING)
    checker.installs(N2, message, log(1), 1, held)
    with pytest.raises(PropertyViolation, match="over newer state"):
        checker.installs(N2, message, log(1, 1, 2), 3, held)
    with pytest.raises(PropertyViolation, match="not on its disk"):
        checker.installs(N2, message, log(1), 1, disk())
    with pytest.raises(PropertyViolation, match="instead of"):
        checker.installs(N2, InstallSnapshot(MEMBERS[1], MEMBERS[2], 2, file.at, VOTERS), log(1), 1, held)
    held.files[EntryId(1, 3)] = file._replace(at=EntryId(1, 3))
    with pytest.raises(PropertyViolation, match="not committed"):
        checker.installs(N2, InstallSnapshot(MEMBERS[1], MEMBERS[2], 2, EntryId(1, 3), LEARNING), log(1), 1, held)


def test_installs_forward_fails_for_a_machine_that_is_ahead_of_its_log() -> None:
    agreement = agreed(1, 1, 2)
    file = snapshot(committed(agreement, 3), LEARNING)
    InstallsForward(agreement).restores(N2, file, disk(start=file.at))
    with pytest.raises(PropertyViolation, match="not installed yet"):
        InstallsForward(agreement).restores(N2, file, disk((1,)))


def test_apply_once_counts_a_snapshot_as_everything_up_to_it() -> None:
    checker, held = ApplyOnce(), disk((2,), start=EntryId(2, 3))
    checker.started(N1, held, entries_of(1))
    checker.restores(N1, snapshot(log(1, 1, 2)), held)
    checker.applies(N1, entry(4, 2), held)
    with pytest.raises(PropertyViolation, match="after it has applied 4"):
        checker.restores(N1, snapshot(log(1, 1, 2, 2)), held)


def test_reads_what_it_has_fails_for_an_entry_that_is_nowhere() -> None:
    checker, load = ReadsWhatItHas(), LoadEntries(None, 3, 4, 100)
    checker.reads(N1, load, entries_of(1, behind=2), log(1, 1, 1, 1), disk())
    checker.reads(N1, load, (), log(1, start=EntryId(1, 3)), disk())  # cut since
    checker.reads(N1, load, (), log(1, 1), disk())  # truncated since
    with pytest.raises(PropertyViolation, match="needs entry 3"):
        checker.reads(N1, load, (), log(1, 1, 1, 1), disk((1, 1)))


def test_log_is_bounded_fails_for_a_log_that_is_cut_too_late_or_too_far() -> None:
    checker = LogIsBounded(GroupConfig(keep_entries=2, stream_hold_entries=3))
    held = log(*[1] * 10)
    checker.compacts(N1, Compaction(EntryId(1, 8), EntryId(1, 6), 10), held)
    with pytest.raises(PropertyViolation, match="keeps its log from 5@1 on"):
        checker.compacts(N1, Compaction(EntryId(1, 8), EntryId(1, 5), 10), held)
    with pytest.raises(PropertyViolation, match="behind its snapshot 8@1"):
        checker.compacts(N1, Compaction(EntryId(1, 8), EntryId(1, 9), 10), held)


def test_what_was_cut_off_counts_as_held_because_a_snapshot_holds_it() -> None:
    disks = {(1, 1): disk((1, 1), 1, node=1), (1, 2): disk((), 1, node=2, start=EntryId(1, 2)), (1, 3): disk((), 1, node=3)}
    view = World({1: VOTERS}, disks)
    assert view.is_on_majority(1, entry(1, 1), VOTERS)
    # A member of that node in another life has nothing.
    assert not view.is_on_majority(1, entry(1, 1), Configuration({1, 2, 3}, replicas={2: EntryId(1, 7)}))


def test_durable_before_told_fails_for_an_entry_that_is_not_in_the_leaders_log() -> None:
    checker = durable_before_told()
    checker.leads(N1, 2, log(1, 2))
    checker.sends(N1, AppendEntries(MEMBERS[1], MEMBERS[2], 2, EntryId(1, 1), 0, (entry(2, 2),)), disk((), 2))
    with pytest.raises(PropertyViolation, match="not in the log of the leader"):
        checker.sends(N1, AppendEntries(MEMBERS[1], MEMBERS[2], 2, EntryId(1, 1), 0, (entry(2, 1),)), disk((), 2))


def test_every_checker_has_a_name_and_quotes_its_property_and_hears_of_something() -> None:
    checkers = Checkers(world((), (), ()), GroupConfig(lease_reads=True))
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
