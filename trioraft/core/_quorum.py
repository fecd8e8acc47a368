"""What a majority holds, and what it has decided.

A joint configuration needs both of its halves, each by its own majority (paper 6): so every question is asked of each half, and
the weaker answer counts. An empty half asks for nothing: it bounds no index and loses no vote.

Only ids in the configuration are ever looked up. An answer from a stranger, or from a learner, is in the mapping for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum

from .._types import NEVER, Index, NodeId
from ._configuration import Configuration


class VoteResult(Enum):
    """How a vote stands."""

    WON = "won"
    LOST = "lost"
    """No answer that is still missing can win it."""
    PENDING = "pending"


# NB: called for every acknowledgement. One to three voters are written out: a third of the time of the general case.
def majority_index(voters: Collection[NodeId], values: Mapping[NodeId, int]) -> int:
    """Return the largest value that a majority of `voters` holds at least.

    A voter missing in `values` holds 0. No voters, no bound: `NEVER`.
    """
    get = values.get
    count = len(voters)
    if count == 3:
        one, two, three = voters
        low, high = get(one, 0), get(two, 0)
        if low > high:
            low, high = high, low
        last = get(three, 0)
        return low if last <= low else last if last < high else high  # noqa: FURB136 - a call costs as much as all the rest
    if count == 1:
        (one,) = voters
        return get(one, 0)
    if not count:
        return NEVER
    # The value at this place from below has (count // 2 + 1) values at or above it, itself included.
    return sorted([get(voter, 0) for voter in voters])[(count - 1) // 2]


def joint_index(configuration: Configuration, values: Mapping[NodeId, Index]) -> Index:
    """Return the largest index that a quorum of `configuration` holds at least; `NEVER` without any voter."""
    if not configuration.outgoing:
        return majority_index(configuration.voters, values)
    return min(majority_index(configuration.voters, values), majority_index(configuration.outgoing, values))


def vote_result(configuration: Configuration, votes: Mapping[NodeId, bool]) -> VoteResult:
    """Return how a vote stands: `votes` maps who has answered to whether they granted it.

    Joint: won when both halves have won, lost as soon as one has lost.
    """
    result = _half_result(configuration.voters, votes)
    if not configuration.outgoing:
        return result
    other = _half_result(configuration.outgoing, votes)
    if result is other:
        return result
    if VoteResult.LOST in (result, other):
        return VoteResult.LOST
    return VoteResult.PENDING


def _half_result(voters: Collection[NodeId], votes: Mapping[NodeId, bool]) -> VoteResult:
    granted = refused = 0
    for voter in voters:
        vote = votes.get(voter)
        if vote is None:
            continue
        if vote:
            granted += 1
        else:
            refused += 1
    if not voters or 2 * granted > len(voters):
        return VoteResult.WON
    # An even half is lost at one half of refusals already: what is left is no majority.
    return VoteResult.LOST if 2 * refused >= len(voters) else VoteResult.PENDING
