"""What a majority and a joint quorum have committed."""

from __future__ import annotations

from tests.conformance.tables import Case, numbered, table
from trioraft._types import NEVER
from trioraft.core import Configuration
from trioraft.core._quorum import joint_index, majority_index


@table("quorum_commit", "majority")
def test_majority(case: Case) -> None:
    voters, acked = frozenset(case["voters"]), numbered(case["acked"])
    committed = NEVER if case["committed"] is None else case["committed"]
    assert majority_index(voters, acked) == committed
    assert joint_index(Configuration(voters), acked) == committed
    assert joint_index(Configuration(voters, outgoing=voters), acked) == committed


@table("quorum_commit", "joint")
def test_joint(case: Case) -> None:
    acked = numbered(case["acked"])
    assert joint_index(Configuration(case["voters"], outgoing=case["outgoing"]), acked) == case["committed"]
    # An empty half bounds nothing, on either side; a configuration's incoming half is never empty, so that is asked of the halves.
    halves = case["outgoing"], case["voters"]
    assert min(majority_index(half, acked) for half in halves) == case["committed"]
    if case["outgoing"]:
        assert joint_index(Configuration(case["outgoing"], outgoing=case["voters"]), acked) == case["committed"]
