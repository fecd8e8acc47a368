"""Which node's replica of a group would lose least if it alone survived.

The most up-to-date log (last term, then last index; paper 5.4.1) among replicas that are whole. If those are enough voters to elect a
leader, it could be elected by them: so it has everything that was ever committed, as every leader has.
"""

from __future__ import annotations

import attrs

from .._types import EntryId, GroupKey, NodeId
from ._compare import Replicas, commit_of, has_quorum, present_members


@attrs.frozen
class Survivor:
    """The safest survivor of one group."""

    key: GroupKey
    node_id: NodeId | None
    """None: no replica is whole."""
    last: EntryId | None
    equals: tuple[NodeId, ...]
    """All nodes whose log ends with the same entry, itself included."""
    has_everything: bool
    """It lacks nothing that was ever committed."""
    text: str
    """What would be lost."""


def find_survivor(key: GroupKey, replicas: Replicas, node_count: int) -> Survivor:
    """Name the safest survivor.

    Args:
        replicas: all that can be read, damaged ones included.
        node_count: the directories that were given.
    """
    whole = {node_id: group for node_id, group in replicas.items() if not group.is_damaged}
    if not whole:
        return Survivor(key, None, None, (), False, "no replica of it here is whole")

    def rank(node_id: NodeId) -> tuple[EntryId, bool, int]:
        group = whole[node_id]
        return group.found.durable.terms.last, group.configurations[-1][1].is_voter(node_id), -node_id

    best = max(whole, key=rank)
    last = whole[best].found.durable.terms.last
    equals = tuple(sorted(node_id for node_id, group in whole.items() if group.found.durable.terms.last == last))
    configuration = whole[best].configurations[-1][1]
    present = present_members(configuration, whole) & {*configuration.voter_ids()}
    voters = f"{len(present)} of {len(configuration.voter_ids())} voters are here and whole"
    if has_quorum(configuration, present):
        return Survivor(
            key, best, last, equals, True, f"nothing that was committed would be lost: {voters}, and no log of theirs goes further"
        )
    knowing = max(sorted(replicas), key=lambda node_id: commit_of(replicas[node_id]))
    if (committed := commit_of(replicas[knowing])) > last.index:
        lost = f"entries {last.index + 1} to {committed} would be lost, which are committed, as node {knowing} knows, and perhaps more"
    else:
        lost = f"what the others have committed behind {last} would be lost, if anything"
    return Survivor(key, best, last, equals, False, f"{lost}: only {voters}")
