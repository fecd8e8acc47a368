"""How a vote stands, of a majority and of a joint quorum."""

from __future__ import annotations

from tests.conformance.tables import Case, numbered, table
from trioraft.core import Configuration
from trioraft.core._quorum import VoteResult, vote_result


@table("quorum_vote", "majority")
def test_majority(case: Case) -> None:
    voters, votes, result = case["voters"], numbered(case["votes"]), VoteResult(case["result"])
    assert vote_result(Configuration(voters), votes) is result
    assert vote_result(Configuration(voters, outgoing=voters), votes) is result


@table("quorum_vote", "joint")
def test_joint(case: Case) -> None:
    voters, outgoing, votes, result = case["voters"], case["outgoing"], numbered(case["votes"]), VoteResult(case["result"])
    assert vote_result(Configuration(voters, outgoing=outgoing), votes) is result
    assert vote_result(Configuration(outgoing, outgoing=voters), votes) is result
