"""Nothing of the tables is left out in silence: each group is taken by a test, or listed here with the reason why not (yet)."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.conformance import tables

_NO_MEMBERSHIP = "Not built yet: membership changes of a running group. Their algebra is under test in test_confchange_*."
_NO_ADDRESSES = "Not built yet: membership changes; and addresses belong to nodes, not to members of a group."
_NO_READS = "Not built yet: linearizable reads."
_NO_SESSIONS = "Not built yet: client sessions."
_NO_LEAVE_MESSAGE = (
    "Does not apply: a change is logged as the configuration that it leads to, so no empty change needs to be told from a leave."
)

NOT_TAKEN: dict[tuple[str, str], str] = {
    ("quorum_sets", "end_to_end_change"): _NO_MEMBERSHIP,
    ("confchange_raft_level", "flows"): _NO_MEMBERSHIP,
    ("confchange_raft_level", "is_this_a_leave_joint"): _NO_LEAVE_MESSAGE,
    ("membership_admin", "next_config"): _NO_ADDRESSES,
    ("membership_admin", "config_validity"): _NO_ADDRESSES,
    ("membership_admin", "optimistic_concurrency"): _NO_MEMBERSHIP,
    ("membership_admin", "existing_member"): _NO_ADDRESSES,
    ("membership_admin", "voter_added_as_learner"): _NO_MEMBERSHIP,
    ("membership_admin", "ordered_change_ids"): _NO_MEMBERSHIP,
    ("membership_admin", "promotion"): _NO_ADDRESSES,
    ("membership_admin", "removed_ids"): _NO_MEMBERSHIP,
    ("read_index", "answers"): _NO_READS,
    ("read_index", "request_queue"): _NO_READS,
    ("client_sessions", "cached_answer"): _NO_SESSIONS,
    ("client_sessions", "forget_answers"): _NO_SESSIONS,
    ("client_sessions", "has_responded"): _NO_SESSIONS,
}


def taken() -> dict[tuple[str, str], dict[int, str]]:
    for path in Path(__file__).parent.glob("test_*.py"):
        importlib.import_module(f"tests.conformance.{path.stem}")
    importlib.import_module("tests.storage.test_conformance_wal")
    return tables.TAKEN


def test_every_group_is_taken_or_listed() -> None:
    groups = {(file, name) for file in tables.files() for name in tables.load(file)}
    assert taken().keys() | NOT_TAKEN.keys() == groups
    assert not taken().keys() & NOT_TAKEN.keys()


def test_what_is_left_out_exists_and_has_a_reason() -> None:
    for (file, name), left_out in taken().items():
        assert left_out.keys() < set(range(len(tables.load(file)[name].cases))), f"{file}/{name}: nothing is left, or no such case"
        assert all(reason.endswith(".") for reason in left_out.values())
    assert all(reason.endswith(".") for reason in NOT_TAKEN.values())


def test_the_copy_is_whole() -> None:
    """A stranger's clone has the copy only: its own text says how many cases there are."""
    count = sum(len(group.cases) for file in tables.files() for group in tables.load(file).values())
    assert f"\n{count} cases as data" in (tables.DATA / "README.md").read_text()
    assert len(tables.files()) == 16
