"""The ids that every floor shares.

Index 0 and term 0 mean *none*: the first entry of a log is 1@1. Ranges of indexes are half-open, `[low, high)`.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

NodeId: TypeAlias = int
"""Chosen by the operator, 1 to 2**32 - 1."""

GroupId: TypeAlias = int
"""Chosen by the application, 0 to 2**63 - 1."""

Term: TypeAlias = int
Index: TypeAlias = int

Millis: TypeAlias = int
"""A point in time or a duration, in whole milliseconds of the node's own clock. Never compared between nodes."""

NEVER: Millis = 1 << 62
"""A point in time that does not come."""


class EntryId(NamedTuple):
    """The position of a log entry, shown as ``7@2`` (index@term).

    The tuple order, term first, is Raft's "at least as up-to-date" (paper 5.4.1).
    """

    term: Term
    index: Index  # type: ignore[assignment]  # hides tuple.index, which nobody needs here

    def __str__(self) -> str:
        return f"{self.index}@{self.term}"


NOTHING = EntryId(0, 0)
"""The position before the first entry; also the replica number of the members that bootstrapped a group."""


class Member(NamedTuple):
    """One life of a node in a group: the node and the number of its replica.

    The replica number is the position of the entry that added the member, `NOTHING` at bootstrap, and is never used twice: so
    nothing that a node said in a former life can count in its present one.
    """

    node_id: NodeId
    replica: EntryId = NOTHING

    def __str__(self) -> str:
        return f"n{self.node_id}" if self.replica == NOTHING else f"n{self.node_id}/{self.replica}"


class GroupKey(NamedTuple):
    """The identity of a group: two groups with one id and different incarnations have nothing in common."""

    group_id: GroupId
    incarnation: int = 1

    def __str__(self) -> str:
        return f"g{self.group_id}" if self.incarnation == 1 else f"g{self.group_id}.{self.incarnation}"
