"""AppendEntries: matching, conflicts, hints, figure 7, and what is no message at all."""

from __future__ import annotations

import pytest

from tests.conformance.logs import cut, entries, merge, terms
from tests.conformance.network import Network
from tests.conformance.replica import Replica
from tests.conformance.tables import Case, table
from trioraft._errors import InvariantError
from trioraft._types import NOTHING, EntryId
from trioraft.core import AppendEntries, AppendEntriesReply, Entry, EntryKind, RequestVote, RequestVoteReply
from trioraft.core._entries import is_well_formed
from trioraft.core._log import Log


@table("log_append", "find_conflict")
def test_find_conflict(case: Case) -> None:
    assert Log(entries(1, case["log_terms"])).find_conflict(entries(case["first_index"], case["terms"])) == case["conflict_or_first_new"]


@table("log_append", "back_off_by_term")
def test_back_off_by_term(case: Case) -> None:
    log = cut(case["compacted_at"], case["terms_after"])
    assert log.find_term(case["index"], case["term"]) == case["answer"]


@table("log_append", "append_to_log")
def test_append_to_log(case: Case) -> None:
    log = Log(entries(1, case["durable_terms"]))
    merge(log, entries(case["first_index"] or 0, case["terms"]))
    assert (log.last_index, terms(log)) == (case["last_index"], case["log_terms"])
    to_write = [entry.index for entry in log.take_unwritten(1)]
    assert to_write == list(range(case["first_index_to_write"], case["last_index"] + 1))


@table("log_append", "append_message_validity")
def test_append_message_validity(case: Case) -> None:
    index, term = case["prev"]
    new = [Entry(index, term, EntryKind.COMMAND, b"") for index, term in case["entries"]]
    assert is_well_formed(EntryId(term, index), new, case["message_term"]) == case["valid"]
    if case["valid"]:
        assert ([new[-1].index, new[-1].term] if new else case["prev"]) == case["last"]


@table("log_append", "commit_to")
def test_commit_to(case: Case) -> None:
    log = Log(entries(1, case["log_terms"]))
    log.commit_to(case["committed"])
    if isinstance(case["result"], int):
        log.commit_to(case["set_commit"])
        assert log.commit_index == case["result"]
    else:
        with pytest.raises(InvariantError):
            log.commit_to(case["set_commit"])
    after = log.commit_index
    log.commit_to(1)
    assert log.commit_index == after


def test_nothing_is_older_than_the_first_entry() -> None:
    assert Log().last == NOTHING
    assert Log().holds(NOTHING)


def follower_with(log_terms: list[int], committed: int, *, term: int) -> Replica:
    """Make a follower of node 2 that knows the beginning of its log to be committed."""
    follower = Replica(log_terms, term=term)
    follower.hear_append(EntryId(follower.raft.log.term_at(committed), committed), commit=committed)
    assert follower.raft.commit_index == committed
    follower.sent.clear()
    follower.writes.clear()
    return follower


@table("log_append", "maybe_append")
def test_maybe_append(case: Case) -> None:
    expect = case["expect"]
    follower = follower_with(case["log_terms"], case["committed"], term=4)
    follower.hear_append(EntryId(case["prev_term"], case["prev_index"]), case["entry_terms"], commit=case["leader_commit"])
    reply = follower.take_one(AppendEntriesReply)
    assert (reply.rejected == 0) == expect["accepted"]
    assert follower.raft.commit_index == expect["committed"]
    if expect["accepted"]:
        assert reply.match == expect["last_new_index"]
    else:
        assert (reply.match, follower.terms) == (0, case["log_terms"])


@table("log_append", "handle_append")
def test_handle_append(case: Case) -> None:
    """The first row has an entry of a term above the message's; such a message is refused unseen, so it is of that term here."""
    expect = case["expect"]
    follower = Replica(case["log_terms"], term=case["term"])
    previous = EntryId(case["prev_term"], case["prev_index"])
    term = max(case["message_term"], case["prev_term"])
    follower.hear_append(previous, case["entry_terms"], commit=case["leader_commit"], term=term)
    assert bool(follower.take_one(AppendEntriesReply).rejected) == expect["rejected"]
    assert (follower.raft.log.last_index, follower.raft.commit_index) == (expect["last_index"], expect["committed"])


@table("log_append", "reply_and_hint")
def test_reply_and_hint(case: Case) -> None:
    """The commit index, which the table's reply carries where it is the higher one, has a field of its own here."""
    follower = follower_with(case["log_terms"], case["committed"], term=3)
    follower.hear_append(EntryId(case["prev_term"], case["prev_index"]))
    reply = follower.take_one(AppendEntriesReply)
    if case["rejected"]:
        assert (reply.rejected, reply.match) == (case["reply_index"], 0)
        assert reply.hint == EntryId(case["hint_term"], case["hint_index"])
    else:
        assert (reply.rejected, max(reply.match, reply.commit)) == (0, case["reply_index"])


@table("log_append", "follower_log_after")
def test_follower_log_after(case: Case) -> None:
    follower = follower_with(case["log_terms"], 0, term=3)
    follower.hear_append(EntryId(case["prev_term"], case["prev_index"]), case["entry_terms"])
    assert follower.terms == case["log_after"]
    assert follower.written == case["newly_written_terms"]


@table("log_append", "figure_7")
def test_figure_7(case: Case) -> None:
    """LR-1: node 1 leads, node 2 has the follower's log, and node 3, with an empty one, votes for anybody."""
    leader_terms = case["leader_terms"]
    network = Network(logs={1: leader_terms, 2: case["follower_terms"]}, term=case["leader_new_term"] - 1)
    network.campaign(1)
    network.propose(1)
    assert network.leaders == [1]
    assert network[1].raft.term == case["leader_new_term"]
    new_terms = [case["leader_new_term"]] * 2
    assert network[1].terms == network[2].terms == [*leader_terms, *new_terms]
    votes = [reply for reply in network.delivered if type(reply) is RequestVoteReply and reply.source.node_id == 2]
    assert [reply.granted for reply in votes] == [case["would_grant_vote_to_leader"]]
    replies = [reply for reply in network.delivered if type(reply) is AppendEntriesReply and reply.source.node_id == 2]
    assert sum(reply.rejected > 0 for reply in replies) <= 1
    # Each rejection leads further down, so the lowest place that was tried is the one that matched.
    tried = [append.previous.index for append in network.delivered if type(append) is AppendEntries and append.target.node_id == 2]
    assert min(tried) == case["last_matching_index"]


def exchange(leader: Replica, follower: Replica) -> tuple[AppendEntries, AppendEntriesReply]:
    """Carry the leader's next append to the follower, and the answer back."""
    append = next(message for message in leader.take(AppendEntries) if message.target.node_id == follower.me)
    follower.sent.clear()
    follower.step(append)
    reply = follower.take_one(AppendEntriesReply)
    leader.step(reply)
    return append, reply


@table("log_append", "figure_7_probing")
def test_figure_7_probing(case: Case) -> None:
    leader_terms, me = case["leader_terms"], case["node"]
    follower = Replica(case["terms"], me=me, term=7, voters=range(1, 8))
    follower.hear(RequestVote, source=1, term=8, last=EntryId(leader_terms[-1], len(leader_terms)))
    assert follower.take_one(RequestVoteReply).granted == case["vote_granted"]
    leader = Replica(leader_terms, term=7, voters=range(1, 8))
    leader.become_leader()

    append, reply = exchange(leader, follower)

    assert (append.term, append.previous, [str(entry) for entry in append.entries]) == (8, EntryId(6, 10), ["11@8"])
    if case["first_reject"] is None:
        assert reply.rejected == 0
    else:
        assert reply.rejected == 10
        assert reply.hint == EntryId(case["first_reject"]["hint_term"], case["first_reject"]["hint_index"])
        append, reply = exchange(leader, follower)
        assert (append.previous.index, reply.rejected) == (case["second_append_prev"], 0)
    assert follower.terms == leader.terms


@table(
    "log_append",
    "fast_rejection",
    leaves_out={4: "Does not apply: what a follower has cut off is committed, so a leader whose log ends before that is none."},
)
def test_fast_rejection(case: Case) -> None:
    term = max(case["leader_terms"] + case["follower_terms"])
    follower = Replica(case["follower_terms"], me=2, term=term)
    leader = Replica(case["leader_terms"], term=term)
    leader.become_leader()
    append, reply = exchange(leader, follower)
    assert append.previous == EntryId(case["leader_terms"][-1], len(case["leader_terms"]))
    assert reply.hint == EntryId(case["reply_hint"]["term"], case["reply_hint"]["index"])
    append, reply = exchange(leader, follower)
    assert append.previous == EntryId(case["leader_next_probe"]["prev_term"], case["leader_next_probe"]["prev_index"])
    while reply.rejected:
        append, reply = exchange(leader, follower)
    assert follower.terms == leader.terms


@table("log_append", "append_message_validity")
def test_lr_12_an_invalid_append_is_dropped_unseen(case: Case) -> None:
    """LR-12: not answered either: nobody who keeps the rules has sent it."""
    if case["message_term"] == 0:
        return
    index, term = case["prev"]
    follower = Replica([1, 1], term=case["message_term"])
    new = tuple(Entry(index, term, EntryKind.COMMAND, b"") for index, term in case["entries"])
    follower.hear(AppendEntries, previous=EntryId(term, index), commit=0, entries=new)
    assert bool(follower.take(AppendEntriesReply)) == case["valid"]
    if not case["valid"]:
        assert (follower.terms, follower.raft.leader, follower.raft.dropped) == ([1, 1], None, {"malformed": 1})


def test_lr_3_a_conflict_below_the_commit_index_is_fatal() -> None:
    """LR-3, and the text of `find_conflict`: the error names both entries, and nothing has been cut."""
    follower = follower_with([1, 1, 1, 1, 1], 4, term=2)
    with pytest.raises(InvariantError, match=r"3@1.*3@2"):
        follower.hear_append(EntryId(1, 2), [2], commit=0)
    assert follower.terms == [1, 1, 1, 1, 1]
