"""What a leader knows of a follower, and the window of what is on its way there."""

from __future__ import annotations

import pytest

from tests.conformance.replica import Replica
from tests.conformance.tables import Case, table
from trioraft._errors import InvariantError
from trioraft._types import EntryId
from trioraft.core import AppendEntries, AppendEntriesReply, GroupConfig
from trioraft.core._progress import Progress, ProgressState
from trioraft.core._roles import Leader
from trioraft.core._window import Window


def progress(state: str = "probe", *, match: int = 0, next_index: int = 1, pending_snapshot: int = 0) -> Progress:
    """Bring a follower's progress into a state in the middle of its life."""
    made = Progress(next=next_index, window_messages=256, window_bytes=0)
    made.state, made.match, made.pending_snapshot = ProgressState(state), match, pending_snapshot
    return made


@table("progress_inflight", "is_paused")
def test_is_paused(case: Case) -> None:
    made = progress(case["state"])
    made.waiting = case["flow_paused"]
    assert made.is_paused == case["paused"]


@table("progress_inflight", "state_change_next")
def test_state_change_next(case: Case) -> None:
    made = progress(case["from"], match=case["match"], next_index=case["next"], pending_snapshot=case["pending_snapshot"])
    if case["to"] == "probe":
        made.become_probe()
    else:
        made.become_snapshot(10)
        assert made.pending_snapshot == case["pending_after"]
    assert made.next == case["next_after"]


@table("progress_inflight", "ack")
def test_acknowledge(case: Case) -> None:
    made = progress(match=case["match"], next_index=case["next"])
    assert made.acknowledge(case["ack"]) == case["fresh"]
    assert (made.match, made.next) == (case["match_after"], case["next_after"])


@table("progress_inflight", "ack_and_waiting")
def test_acknowledge_and_waiting(case: Case) -> None:
    made = progress(match=case["match"], next_index=case["next"])
    made.waiting = case["was_waiting"]
    assert made.acknowledge(case["ack"]) == case["fresh"]
    assert (made.match, made.next, made.waiting) == (case["match_after"], case["next_after"], case["waiting_after"])


def test_a_fresh_acknowledgement_ends_the_waiting_and_a_stale_one_does_not() -> None:
    """What the group's text says beyond its rows."""
    made = progress(match=10, next_index=20)
    made.sent(19, 100)
    assert made.waiting
    assert not made.acknowledge(10)
    assert made.waiting
    assert made.acknowledge(11)
    assert not made.waiting


@table("progress_inflight", "reject")
def test_reject(case: Case) -> None:
    made = progress(case["state"], match=case["match"], next_index=case["next"])
    assert made.reject(case["rejected"], case["hint"]) == case["genuine"]
    assert (made.match, made.next) == (case["match"], case["next_after"])


@table("progress_inflight", "reject_more")
def test_reject_more(case: Case) -> None:
    made = progress(case["state"], match=case["match"], next_index=case["next"])
    assert made.reject(case["rejected"], case["hint"]) == case["genuine"]
    assert (made.match, made.next) == (case["match"], case["next_after"])


@table("progress_inflight", "ack_moves_state")
def test_acknowledgement_moves_state(case: Case) -> None:
    """Which move follows is the leader's to decide; this is where each of them ends."""
    made = progress(case["state"], match=case["match"], next_index=case["next"], pending_snapshot=case["pending_snapshot"])
    {"replicate": made.become_replicate, "probe": made.become_probe}[case["state_after"]]()
    assert (made.state, made.next) == (ProgressState(case["state_after"]), case["next_after"])


@table("progress_inflight", "snapshot_progress")
def test_snapshot_progress(case: Case) -> None:
    before, after = case["before"], case["after"]
    if after.get("message") == "snapshot":
        leader = Replica([], start=EntryId(11, 11), voters=[1, 2], config=GroupConfig(keep_entries=0))
        leader.become_leader()
        leader.hear(AppendEntriesReply, match=0, rejected=11, hint=EntryId(0, 0))
        assert [send.at.index for send in leader.streams] == [after["pending"]]
        assert isinstance(leader.raft.state, Leader)
        assert leader.raft.state.members[2].progress.pending_snapshot == after["pending"]
        return
    made = progress("snapshot", next_index=before.get("next", 1), pending_snapshot=before["pending"])
    if case["event"] == "reported failed":
        made.snapshot_failed()
    else:
        # Also from a snapshot that came by another way, below the one on its way: an answer that proves agreement is enough.
        assert made.acknowledge(11)
        made.become_replicate()
        made.sent(before["leader_last"], 1)
    seen = {
        "state": made.state.value,
        "pending": made.pending_snapshot,
        "match": made.match,
        "next": made.next,
        "inflight": made.window.count,
        "flow_paused": made.is_paused,
    }
    assert {name: seen[name] for name in after} == after


@table("progress_inflight", "leader_on_reply")
def test_leader_on_reply(case: Case) -> None:
    """Of the table's messages, the one to the other follower only tells the commit index; ours follows within a heartbeat interval."""
    leader = Replica()
    leader.become_leader()
    while leader.raft.log.last_index < case["leader_noop_index"]:
        leader.propose()
    state = leader.raft.state
    assert isinstance(state, Leader)
    probed = state.members[2].progress
    probed.next = 3
    leader.sent.clear()

    if case["reject"]:
        leader.hear(AppendEntriesReply, match=0, rejected=case["reply_index"], hint=EntryId(1, 2))
    else:
        leader.hear_ack(2, case["reply_index"])

    assert (probed.match, probed.next) == (case["match_after"], case["next_after"])
    appends = [(append.target.node_id, append.previous.index, append.commit) for append in leader.take(AppendEntries)]
    assert appends == ([(2, case["their_prev"], case["their_commit"])] if case["messages_sent"] else [])
    assert leader.raft.commit_index == (case["their_commit"] or 0)


@table("progress_inflight", "inflight_ops")
def test_window_script(case: Case) -> None:
    window = Window(case["max_count"], case["max_bytes"])
    for operation in case["ops"]:
        match operation:
            case ["add", index, size]:
                window.add(index, size)
            case ["free_le", index]:
                window.free_to(index)
            case ["check", content]:
                assert ([index for index, _ in window._sent], window.bytes) == (content["indexes"], content["bytes"])


@table("progress_inflight", "inflight_full")
def test_window_full(case: Case) -> None:
    window = Window(case["max_count"], case["max_bytes"])

    def fill(number: int, until: int) -> None:
        for index in range(number, until):
            assert not window.is_full
            window.add(index, 100 + index)
        assert window.is_full
        with pytest.raises(InvariantError):
            window.add(until, 100 + until)

    fill(0, case["full_after_adding"])
    window.free_to(case["then_free_le"])
    fill(case["full_after_adding"], case["full_again_when_i_reaches"])


@table("progress_inflight", "inflight_reset")
def test_window_reset(case: Case) -> None:
    window = Window(case["max_count"], case["max_bytes"])
    last = 0
    for _ in range(case["repeat"]):
        window.reset()
        for _ in range(5):
            last += 1
            window.add(last, 16)
            assert not window.is_full
        window.free_to(last - 2)
        assert window.count == 2
    window.free_to(last)
    assert (window.count, window.bytes) == (0, 0)
