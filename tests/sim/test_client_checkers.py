"""The checkers of what clients and operators rely on, each fed a violation made by hand; and silent about what is right."""

from __future__ import annotations

import pytest

from trioraft._types import EntryId, Member
from trioraft.core import (
    AppendEntries,
    Configuration,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatReply,
    RequestVote,
    RequestVoteReply,
    encode_configuration,
)
from trioraft.testing import PropertyViolation
from trioraft.testing._checker import Who, World
from trioraft.testing._checkers import CommitAgreement, ElectionSafety
from trioraft.testing._client_checkers import ExactlyOnce, LeaseIsBacked, PromisesAreKept, ReadsAreConfirmed
from trioraft.testing._disk import GroupDisk
from trioraft.testing._log_window import LogWindow
from trioraft.testing._machine import Command, SimulatedMachine
from trioraft.testing._membership_checkers import ConfigurationsFollow, GoesByItsLog, MembersCount, OneChangeAtATime

N1, N2, N3 = Who(1, 1, 1), Who(2, 1, 1), Who(3, 1, 1)
M1, M2, M3, NEW = Member(1), Member(2), Member(3), Member(4, EntryId(1, 2))
VOTERS = Configuration({1, 2, 3})
DISK = GroupDisk()


class Clock:
    def __init__(self) -> None:
        self.now = 0
        self.world = World({1: VOTERS}, {}, lambda: self.now)


def changed(configuration: Configuration, index: int) -> Entry:
    return Entry(index, 1, EntryKind.CONFIGURATION, encode_configuration(configuration))


def grown(index: int, *nodes: int, number: EntryId | None = None) -> Configuration:
    """These voters, the last of which is new."""
    return Configuration(nodes, replicas={nodes[-1]: number or EntryId(1, index)}, index=index)


def log_of(*entries: Entry) -> LogWindow:
    log = LogWindow(configurations=[(0, VOTERS)])
    log.write([Entry(1, 1, EntryKind.NOOP, b""), *entries])
    return log


def agreement_on(*entries: Entry) -> CommitAgreement:
    """All of these are on all disks, and committed."""
    log = log_of(*entries)
    numbers = {1: EntryId(0, 0), 2: EntryId(0, 0), 3: EntryId(0, 0), **log.configurations[-1][1].replicas}
    disks = {(1, node): GroupDisk(log=log, me=Member(node, number)) for node, number in numbers.items()}
    agreement = CommitAgreement(World({1: VOTERS}, disks))
    agreement.commits(N1, log.last_index, log, 1, True, [configuration for _, configuration in log.configurations])
    return agreement


def test_exactly_once_fails_for_a_command_that_takes_effect_twice() -> None:
    checker, machine = ExactlyOnce(), SimulatedMachine()
    for index, number in enumerate((7, 8), 1):
        entry = Entry(index, 1, EntryKind.COMMAND, Command(number, 0).encode(8))
        machine.apply(entry)
        checker.takes_effect(N1, entry, machine)
    again = Entry(3, 1, EntryKind.COMMAND, Command(7, 0).encode(8))
    machine.apply(again)
    with pytest.raises(PropertyViolation, match="has taken effect before"):
        checker.takes_effect(N1, again, machine)


def test_reads_are_confirmed_fails_for_an_index_below_what_was_acknowledged() -> None:
    checker = ReadsAreConfirmed()
    checker.asks(N1, "early")
    checker.acknowledges(N1, Entry(5, 1, EntryKind.COMMAND, b""))
    checker.asks(N1, "late")
    checker.sends(N2, HeartbeatReply(M2, M1, 1, 4, 1), DISK)
    checker.tells(N1, "early", 4, 1, [VOTERS])
    with pytest.raises(PropertyViolation, match="reads at 4, but 5 was acknowledged"):
        checker.tells(N1, "late", 4, 1, [VOTERS])


@pytest.mark.parametrize(
    ("who", "reply"),
    [
        (N2, HeartbeatReply(M2, M1, 1, 4)),
        (N2, HeartbeatReply(M2, M1, 2, 4, 1)),
        (N2, HeartbeatReply(M2, M3, 1, 4, 1)),
        (Who(4, 1, 1), HeartbeatReply(NEW, M1, 1, 4, 1)),
        (N2, HeartbeatReply(Member(2, EntryId(1, 9)), M1, 1, 4, 1)),
    ],
    ids=["no-round", "other-term", "other-leader", "stranger", "other-life"],
)
def test_reads_are_confirmed_fails_for_a_read_without_a_quorum(who: Who, reply: HeartbeatReply) -> None:
    checker = ReadsAreConfirmed()
    checker.sends(N3, HeartbeatReply(M3, M1, 1, 4, 1), DISK)  # before the read came
    checker.asks(N1, "read")
    checker.sends(who, reply, DISK)
    with pytest.raises(PropertyViolation, match="have said a word"):
        checker.tells(N1, "read", 4, 1, [VOTERS])


def test_reads_of_a_sole_voter_need_nobody() -> None:
    checker = ReadsAreConfirmed()
    checker.asks(N1, "read")
    checker.tells(N1, "read", 4, 1, [Configuration({1})])


def test_lease_is_backed_fails_when_no_quorum_is_bound_any_more_or_another_leads() -> None:
    clock = Clock()
    checker = LeaseIsBacked(clock.world, 1000)
    checker.elected(N1, 1)
    checker.sends(N2, HeartbeatReply(M2, M1, 1, 4, 1), DISK)
    clock.now = 999
    checker.leases(N1, 1, VOTERS)
    clock.now = 1000
    with pytest.raises(PropertyViolation, match="are bound to it"):
        checker.leases(N1, 1, VOTERS)
    clock.now = 999
    checker.elected(N3, 2)
    with pytest.raises(PropertyViolation, match="n3 leads in term 2"):
        checker.leases(N1, 1, VOTERS)


def promises() -> tuple[PromisesAreKept, Clock]:
    """At 500 n2 has confirmed n1, which had asked at 400."""
    clock, elections = Clock(), ElectionSafety()
    elections.elected(N1, 1)
    checker = PromisesAreKept(clock.world, elections, 1000)
    clock.now = 400
    checker.sends(N1, Heartbeat(M1, M2, 1, 4, 7), DISK)
    clock.now = 500
    checker.sends(N2, HeartbeatReply(M2, M1, 1, 4, 7), DISK)
    return checker, clock


def test_promises_are_kept_fails_for_a_vote_and_for_a_campaign() -> None:
    checker, clock = promises()
    vote, campaign = RequestVoteReply(M2, M3, 2, True), RequestVote(M2, M3, 2, EntryId(1, 4))
    clock.now = 1399
    with pytest.raises(PropertyViolation, match="n1 has its word"):
        checker.sends(N2, vote, DISK)
    with pytest.raises(PropertyViolation, match="n1 has its word"):
        checker.sends(N2, campaign, DISK)
    clock.now = 1400
    checker.sends(N2, vote, DISK)
    checker.sends(N2, campaign, DISK)


def test_promises_do_not_bind_against_the_leaders_own_wish() -> None:
    checker, clock = promises()
    clock.now = 600
    checker.sends(N2, RequestVoteReply(M2, M1, 2, True), DISK)  # the leader itself
    checker.sends(N3, RequestVote(M3, M2, 3, EntryId(1, 4), transfer=True), DISK)
    checker.sends(N2, RequestVoteReply(M2, M3, 3, True), DISK)  # whom the leader has told to campaign


def test_configurations_follow_fails_for_quorums_that_need_not_meet() -> None:
    checker = ConfigurationsFollow(agreement_on(changed(grown(2, 1, 2, 3, 4), 2)))
    checker.commits(N1, 2, log_of(), 1, True, [])
    apart = Configuration({4, 5, 6}, replicas=dict.fromkeys((4, 5, 6), EntryId(1, 2)), index=2)
    with pytest.raises(PropertyViolation, match="two leaders could be elected"):
        ConfigurationsFollow(agreement_on(changed(apart, 2))).commits(N1, 2, log_of(), 1, True, [])


def test_configurations_follow_lets_joint_steps_pass() -> None:
    joint = Configuration({4, 5, 6}, {1, 2, 3}, replicas=dict.fromkeys((4, 5, 6), EntryId(1, 2)), index=2)
    after = Configuration({4, 5, 6}, replicas=dict.fromkeys((4, 5, 6), EntryId(1, 2)), index=3)
    ConfigurationsFollow(agreement_on(changed(joint, 2), changed(after, 3))).commits(N1, 3, log_of(), 1, True, [])


@pytest.mark.parametrize("number", [EntryId(0, 0), EntryId(1, 1), EntryId(1, 3)])
def test_configurations_follow_fails_for_a_number_that_is_not_that_of_the_entry(number: EntryId) -> None:
    with pytest.raises(PropertyViolation, match="in which n4 has number"):
        ConfigurationsFollow(agreement_on(changed(grown(2, 1, 2, 3, 4, number=number), 2))).commits(N1, 2, log_of(), 1, True, [])


def test_one_change_at_a_time_fails_for_two_that_are_not_committed() -> None:
    first, second = changed(grown(2, 1, 2, 3, 4), 2), changed(grown(3, 1, 2, 3, 5), 3)
    OneChangeAtATime(agreement_on(first)).leads(N1, 1, log_of(first, second))
    OneChangeAtATime(agreement_on()).leads(N1, 2, log_of(first, second))  # which it has found
    with pytest.raises(PropertyViolation, match="two configurations that are not committed"):
        OneChangeAtATime(agreement_on()).leads(N1, 1, log_of(first, second))


@pytest.mark.parametrize("source", [Member(3, EntryId(1, 9)), NEW], ids=["former-life", "stranger"])
def test_members_count_fails_for_a_leader_that_others_than_its_voters_have_elected(source: Member) -> None:
    checker = MembersCount()
    checker.sends(N3, RequestVoteReply(M3, M1, 1, True), DISK)
    checker.leads(N1, 1, log_of())
    checker.sends(N3, RequestVoteReply(source, M1, 2, True), DISK)
    with pytest.raises(PropertyViolation, match="which is no quorum"):
        checker.leads(N1, 2, log_of())


def test_goes_by_its_log_fails_for_entries_to_somebody_whose_configuration_is_gone() -> None:
    checker, append = GoesByItsLog(), AppendEntries(M1, NEW, 1, EntryId(0, 0), 0)
    checker.leads(N1, 1, log_of(changed(grown(2, 1, 2, 3, 4), 2)))
    checker.sends(N1, append, DISK)
    checker.leads(N1, 2, log_of())
    with pytest.raises(PropertyViolation, match="which is not in its log"):
        checker.sends(N1, AppendEntries(M1, NEW, 2, EntryId(0, 0), 0), DISK)
