"""Nothing of the tables is left out in silence: each group is taken by a test, or listed here with the reason why not (yet)."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.conformance import tables

_NO_ADDRESSES = "Does not apply: a change says who shall be a member, not where; addresses belong to nodes."
_DEMOTION = "Does not apply: a voter may be made a learner, as in etcd; only the last one may not, and that is under test as MB-12."
_EXPECT = "Does not apply: a change may name the configuration it goes by, as in optimistic_concurrency; here none is ever refused."
_NO_LEAVE_MESSAGE = (
    "Does not apply: a change is logged as the configuration that it leads to, so no empty change needs to be told from a leave."
)

NOT_TAKEN: dict[tuple[str, str], str] = {
    ("confchange_raft_level", "is_this_a_leave_joint"): _NO_LEAVE_MESSAGE,
    ("membership_admin", "existing_member"): _NO_ADDRESSES,
    ("membership_admin", "voter_added_as_learner"): _DEMOTION,
    ("membership_admin", "ordered_change_ids"): _EXPECT,
    ("membership_admin", "promotion"): _NO_ADDRESSES,
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
