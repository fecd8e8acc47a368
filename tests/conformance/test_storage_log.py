"""The log in memory: reads, what is pending on its way to the disk, what is handed out to be applied, and limits."""

from __future__ import annotations

import pytest

from tests.conformance.logs import UNBOUNDED, cut, entries, merge, terms
from tests.conformance.replica import Replica
from tests.conformance.tables import Case, table
from trioraft._errors import BusyError, InvariantError
from trioraft._types import EntryId
from trioraft.core import GroupConfig, InstallSnapshot, SnapshotTaken
from trioraft.core._applying import Applying
from trioraft.core._log import Log


@table("storage_log", "term_lookup")
def test_term_lookup(case: Case) -> None:
    if "received_snapshot_not_yet_durable_at" in case:
        log = cut([case["durable_snapshot_at"], 1], [])
        log.install(EntryId(1, case["received_snapshot_not_yet_durable_at"]), log.configurations.newest)
    else:
        after = case["terms_after"] if isinstance(case["terms_after"], list) else range(1, 100)
        log = cut(case["compacted_at"], list(after))
    assert log.term_at(case["index"]) == (case["answer"] if isinstance(case["answer"], int) else 0)


@table(
    "storage_log",
    "range_read",
    leaves_out={1: "Does not apply: nobody reads up to an index; a read goes from an index on and is bounded in bytes."},
)
def test_range_read(case: Case) -> None:
    size = 10
    log = cut(case["compacted_at"], case["terms_after"], size)
    if case["answer_terms"] == "compacted":
        with pytest.raises(InvariantError):
            log.slice(case["from"], UNBOUNDED)
        return
    limits = {None: UNBOUNDED, "size(4)+size(5)": 2 * size, "size(4)+size(5)+size(6)-1": 3 * size - 1}
    read, total = log.slice(case["from"], limits[case["byte_limit"]])
    assert [entry.term for entry in read] == case["answer_terms"]
    assert total == size * len(read)
    assert len(log.slice(case["from"], 0)[0]) == 1


@table("storage_log", "compact")
def test_compact(case: Case) -> None:
    """Compacting twice changes nothing here."""
    log = cut(case["compacted_at"], case["terms_after"])
    log.compact(case["compact_to"])
    index, term = case["compacted_at_after"]
    assert log.start == EntryId(term, index)
    assert log.last_index - log.start.index == case["entries_left"]


@table("storage_log", "compaction_counts")
def test_compaction_counts(case: Case) -> None:
    log = Log(entries(1, [1] * case["last"]))
    for index, left in zip(case["compact"], case["left"], strict=True):
        before = log.last_index - log.start.index
        if left == "refused: beyond last":
            with pytest.raises(InvariantError):
                log.compact(index)
        else:
            log.compact(index)
            assert log.last_index - log.start.index == (before if left == "refused: already compacted" else left)


@table("storage_log", "purge_point", leaves_out={0: "Does not apply: without a snapshot nothing asks for a cut."})
def test_purge_point(case: Case) -> None:
    """The table's log begins with an entry 0; ours behind it. To cut up to there, or up to where it was cut, is to cut nothing."""
    log_terms = [int(pair.split(":")[1]) for pair in case["log"].split()[2:]]
    first = case["last_purged"] or [0, 0]
    replica = Replica(log_terms[first[1] :], start=EntryId(*first), term=5, voters=[1], config=GroupConfig(keep_entries=case["keep"]))
    replica.become_leader()
    replica.step(SnapshotTaken(EntryId(*case["snapshot_last"])))
    assert replica.raft.status().start == EntryId(*(case["purge_upto"] or first))


@table("storage_log", "apply_snapshot")
def test_apply_snapshot(case: Case) -> None:
    """A snapshot at 0 is none: a group's first configuration is part of its birth certificate here."""
    replica = Replica([], term=4)
    for term, index in case["apply"]:
        replica.hear(InstallSnapshot, term=4, at=EntryId(term, index), configuration=replica.raft.configuration)
    assert replica.raft.log.start == EntryId(*case["apply"][-1])
    assert replica.raft.dropped == ({} if replica.raft.log.last_index else {"malformed": 1})


@table("storage_log", "pending_part_queries")
def test_pending_part_queries(case: Case) -> None:
    """The table's "ask the durable store" stands for what the terms of the whole log know without asking; so only its answers count."""
    log = cut([case["offset"] - 1, 1], [])
    if case["pending_snapshot"] is not None:
        log = Log()
        log.install(EntryId(1, case["pending_snapshot"]), log.configurations.newest)
    merge(log, entries(case["offset"], case["pending"]["terms"]))
    match case["ask"].split():
        case ["first", _]:
            answer = log.start.index + 1
        case ["last", _]:
            answer = log.last_index
        case [_, _, index]:
            answer = log.term_at(int(index))
    expected = {"first index": case["offset"], "term of 4": 1, "term of 6": 0, "term of 3": 0}.get(case["ask"])
    assert answer == (expected if case["answer"] is None else case["answer"])


@table("storage_log", "append_overlap")
def test_append_overlap(case: Case) -> None:
    log = cut(case["compacted_at"], case["terms_after"])
    merge(log, entries(case["append_from"], case["terms"]))
    assert terms(log, case["compacted_at"][0] + 1) == case["terms_after_append"]


@table("storage_log", "durable_ack")
def test_durable_ack(case: Case) -> None:
    """The table's completions name an entry; ours name a write. So: the write that carried that entry completes.

    A received snapshot that is on its way to the disk is a write like others.
    """
    offset, pending = case["offset"], case["pending"]["terms"]
    index, term = case["durable_ack"]
    log = Log(entries(1, [1] * (offset - 1)))
    if case["pending_snapshot"] is not None:
        at, of = case["pending_snapshot"]
        log = Log()
        log.install(EntryId(of, at), log.configurations.newest)
        # It went to the disk before.
        log.take_unwritten(0)
        log.persisted(0)
    if index >= offset > 0 and pending[index - offset] != term:
        merge(log, entries(offset, [term]))
    log.take_unwritten(1)
    in_progress = case["in_progress_to"] - offset
    merge(log, entries(offset, pending[:in_progress]))
    log.take_unwritten(1 if pending and [index, term] == [offset, pending[0]] else 2)
    merge(log, entries(offset, pending))

    log.persisted(1)

    assert log.persisted_index == max(case["offset_after"] - 1, 0)
    assert log.last_index - log.persisted_index == case["left"]
    to_write = log.take_unwritten(3)
    assert [entry.index for entry in to_write] == list(range(case["in_progress_after"], log.last_index + 1))[: len(pending)]


def test_position_and_term_return_and_the_first_write_does_not_vouch_for_the_third() -> None:
    """What no completion by index and term can tell: 2@1 is written, replaced by 2@2, and written again by a re-elected leader."""
    log = Log(entries(1, [1]))
    for sequence, term in enumerate([1, 2, 1], 1):
        log.merge(EntryId(1, 1), entries(2, [term]))
        assert [entry.term for entry in log.take_unwritten(sequence)] == [term]
    log.persisted(1)
    assert log.persisted_index == 1
    log.persisted(2)
    assert log.persisted_index == 1
    log.persisted(3)
    assert log.persisted_index == 2


@table("storage_log", "replace_pending")
def test_replace_pending(case: Case) -> None:
    offset, pending, appended = case["offset"], case["pending"]["terms"], case["append"]
    log = Log(entries(1, [1] * (offset - 1)))
    in_progress = case["in_progress_to"] - offset
    merge(log, entries(offset, pending[:in_progress]))
    log.take_unwritten(1)
    merge(log, entries(offset, pending))

    merge(log, entries(appended["from"], appended["terms"]))

    assert log.persisted_index + 1 == case["offset_after"]
    assert terms(log, case["pending_after"]["from"]) == case["pending_after"]["terms"]
    to_write = [entry.index for entry in log.take_unwritten(2)]
    assert to_write == list(range(case["in_progress_after"], log.last_index + 1))


@table(
    "storage_log",
    "hand_to_apply",
    leaves_out={
        0: "Does not apply: only what is durable here is applied, always.",
        6: "Does not apply: nothing pauses the applying but bytes on their way, and here are none.",
    },
)
def test_hand_to_apply(case: Case) -> None:
    """Where the table has more on its way than is durable (it may apply before its disk), we take that to be durable."""
    log = Log(entries(1, [1] * case["snapshot_at"]))
    durable_to = max(case["durable_to"], case["being_applied_to"])
    merge(log, entries(case["snapshot_at"] + 1, [1] * (durable_to - case["snapshot_at"])))
    log.take_unwritten(1)
    log.persisted(1)
    merge(log, entries(durable_to + 1, [1] * (case["last"] - durable_to)))
    log.take_unwritten(2)
    applying = Applying(log, 0)
    log.commit_to(case["being_applied_to"])
    applying.take(UNBOUNDED)
    applying.applied(case["applied"])
    log.commit_to(case["committed"])
    assert [entry.index for entry in applying.take(UNBOUNDED)] == case["hand_to_apply"]


@table(
    "storage_log",
    "apply_pause",
    leaves_out={0: "Does not apply: below the limit one more entry goes, even one that overshoots; only bytes on their way pause."},
)
def test_apply_pause(case: Case) -> None:
    """The table's pause stands for: nothing is handed out although more is there."""
    log = Log([*entries(1, [1], case["accepted_bytes"] - case["accepted_to"] + 1), *entries(2, [1] * (case["accepted_to"] + 1))])
    log.commit_to(log.last_index)
    applying = Applying(log, 0)
    assert applying.take(case["accepted_bytes"])[-1].index == case["accepted_to"]
    assert applying.has_next(case["limit"]) != case["paused"]
    assert bool(applying.take(case["limit"])) != case["paused"]


@table("storage_log", "apply_resume")
def test_apply_resume(case: Case) -> None:
    first, total = case["bytes_done"], case["outstanding_before"]
    last = case["applied_to"]
    log = Log(
        [*entries(1, [1] * (last - 1), 0), *entries(last, [1], first), *entries(last + 1, [1], total - first), *entries(last + 2, [1])]
    )
    applying = Applying(log, 0)
    for index in (last, last + 1, last + 2):
        log.commit_to(index)
        if index < last + 2:
            assert applying.take(UNBOUNDED)[-1].index == index
    assert not applying.has_next(case["limit"])
    applying.applied(last)
    assert applying.has_next(case["limit"]) != case["paused"]
    assert applying.has_next(case["outstanding_after"] + 1)
    assert not applying.has_next(case["outstanding_after"])


@table("storage_log", "uncommitted_limit")
def test_uncommitted_limit(case: Case) -> None:
    """The table's proposal of 2048 entries is one large command here."""
    limit, size = case["max_uncommitted_bytes"], case["entry_bytes"]
    leader = Replica(config=GroupConfig(uncommitted_bytes_max=limit))
    leader.become_leader()

    def commit_all() -> None:
        leader.hear_ack(2, leader.raft.log.last_index)
        assert leader.raft.log.uncommitted_bytes == 0

    def is_refused(proposal: bytes) -> bool:
        before = leader.raft.log.last_index
        leader.refused.clear()
        leader.propose(proposal)
        assert leader.raft.log.last_index == before + (not leader.refused)
        assert all(isinstance(error, BusyError) for error in leader.refused)
        return bool(leader.refused)

    assert not any(is_refused(bytes(size)) for _ in range(limit // size))
    assert is_refused(bytes(size))
    commit_all()
    assert not is_refused(bytes(2048 * size))
    assert is_refused(bytes(size))
    commit_all()
    assert not is_refused(bytes(size))

    # The empty entry that the table always accepts is the leader's own.
    heir = Replica([1] * (limit + 1), config=GroupConfig(uncommitted_bytes_max=limit))
    heir.become_leader()
    assert heir.terms[-1] == 2
    heir.propose()
    assert [type(error) for error in heir.refused] == [BusyError]


@table("storage_log", "apply_paging")
def test_apply_paging(case: Case) -> None:
    """The commit index is not on disk here: a sole voter learns it anew from its own no-op, which follows the table's entries."""
    count, persisted = case["entries"], case["persisted"]
    size_of_ten = persisted["commit"]
    replica = Replica(
        [1] * count, term=persisted["term"], vote=persisted["vote"], voters=[1], config=GroupConfig(apply_bytes_max=size_of_ten - 1)
    )
    replica.become_leader()
    assert replica.applied == list(range(1, count + 2))
    assert max(replica.pages) == size_of_ten - 1
