"""When entries commit."""

from __future__ import annotations

from tests.conformance.replica import Replica
from tests.conformance.tables import Case, table
from trioraft._types import NOTHING, EntryId
from trioraft.core import AppendEntriesReply, Heartbeat, PreVote


def leader_of(term: int, log_terms: list[int], *, group_size: int = 3) -> Replica:
    """Make a leader whose log is as given: what has its term or a higher one is its own, beginning with its no-op."""
    older = [each for each in log_terms if each < term]
    leader = Replica(older, term=term - 1, voters=range(1, group_size + 1))
    leader.become_leader()
    while leader.raft.log.last_index < len(log_terms):
        leader.propose()
    return leader


@table("commit_rules", "own_term_only")
def test_own_term_only(case: Case) -> None:
    """In the rows where the table's leader has an entry above its own term, that entry is of its own term here."""
    leader = leader_of(case["leader_term"], case["log_terms"], group_size=len(case["match_indexes"]))
    for node_id, match in enumerate(case["match_indexes"][1:], 2):
        leader.hear_ack(node_id, match)
    assert leader.raft.status().match == dict(enumerate(case["match_indexes"], 1))
    assert leader.raft.commit_index == case["committed"]


@table("commit_rules", "leader_commits_own_term")
def test_leader_commits_own_term(case: Case) -> None:
    leader = leader_of(case["leader_term"], [*case["log_terms"], 3, 3], group_size=2)
    leader.hear_ack(2, case["ack_from_2_at"])
    assert leader.raft.commit_index == case["committed"]


@table("commit_rules", "majority_ack")
def test_majority_ack(case: Case) -> None:
    leader = leader_of(1, [1], group_size=case["group_size"])
    for other in leader.others:
        leader.hear_ack(other, 1)
    assert leader.raft.commit_index == 1
    leader.propose()
    for other in case["acks_from"]:
        leader.hear_ack(other, 2)
    assert (leader.raft.commit_index == 2) == case["committed"]


def test_the_own_disk_counts_like_any_other() -> None:
    """Dissertation 10.2.1: a majority may have an entry before its leader has it, and the leader alone is no majority."""
    leader = leader_of(1, [1])
    leader.hear_ack(2, 1)
    leader.holds_writes = True
    leader.propose()
    leader.hear_ack(2, 2)
    assert leader.raft.commit_index == 1
    leader.hear_ack(3, 2)
    assert leader.raft.commit_index == 2
    assert leader.applied == [1]
    leader.sync()
    assert leader.applied == [1, 2]


@table("commit_rules", "preceding_entries_commit_too")
def test_preceding_entries_commit_too(case: Case) -> None:
    leader = leader_of(case["leader_term"], [*case["old_log_terms"], case["leader_term"], case["leader_term"]])
    leader.hear_ack(2, leader.raft.log.last_index)
    assert leader.terms == case["committed_terms"]
    assert leader.applied == list(range(1, len(case["committed_terms"]) + 1))


@table("commit_rules", "follower_applies_prefix")
def test_follower_applies_prefix(case: Case) -> None:
    follower = Replica(term=1)
    follower.hear_append(NOTHING, [1] * case["entries"], commit=case["leader_commit"])
    assert follower.applied == case["applied"]


@table("commit_rules", "heartbeat_commit")
def test_heartbeat_commit(case: Case) -> None:
    follower = Replica(case["log_terms"])
    follower.hear(Heartbeat, commit=case["committed"])
    assert follower.raft.commit_index == case["committed"]
    follower.hear(Heartbeat, commit=case["heartbeat_commit"])
    assert follower.raft.commit_index == case["after"]
    follower.hear(Heartbeat, commit=case["committed"] - 1)
    assert follower.raft.commit_index == case["after"]


@table("commit_rules", "heartbeat_commit_is_clipped")
def test_heartbeat_commit_is_clipped(case: Case) -> None:
    """A heartbeat goes on demand only: here to a member that does not seem to know that there is a leader."""
    leader = leader_of(2, [1] * (case["leader_committed"] - 1) + [2])
    leader.hear_ack(3, case["leader_committed"])
    leader.hear_ack(2, case["match"])
    assert leader.raft.commit_index == case["leader_committed"]
    leader.sent.clear()
    leader.hear(PreVote, source=2, term=3, last=EntryId(1, case["match"]))
    assert leader.take_one(Heartbeat).commit == case["heartbeat_commit"]


@table("commit_rules", "match_tracker_scripts", leaves_out={0: "Not built yet: membership changes of a running group."})
def test_match_tracker_script(case: Case) -> None:
    """The first voter is the leader, whose own match is what its disk has: never less than what the script says."""
    highest = max(index for op, *_, index in case["ops"] if op == "match")
    leader = leader_of(2, [1] * (case["start_index"] - 1) + [2], group_size=len(case["voters"]))
    for op, *arguments in case["ops"]:
        match op, arguments:
            case "match", [name, index]:
                while leader.raft.log.last_index < (highest if len(case["voters"]) > 1 else index):
                    leader.propose()
                if name != case["voters"][0]:
                    leader.hear(AppendEntriesReply, source=int(name[1:]), match=index)
            case "commit", [index]:
                assert leader.raft.commit_index == index
            case "config", [voters]:
                assert voters == case["voters"]
