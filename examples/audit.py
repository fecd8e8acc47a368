"""Compares what the clients were told with what the replicas hold.

The verdict rests on every replica's own copy, read when all have applied the same index:

- *lost*: acknowledged, and missing on a replica, or there with another value or at another place in the log;
- *duplicated*: one request, and so one `propose` call, was applied more than once: the key was put once and has a version above 1;
- *phantom*: there, though the client was told that nothing was done, or though nobody ever sent it;
- *differing*: replicas of a group that have another digest at the same index, or are not at the same index at all.

A write of unknown outcome may be there or not; but on all replicas alike, which the digests tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import attrs
from ledger import Ledger, Outcome, Write


class Held(NamedTuple):
    """What a replica holds under a key."""

    version: int
    log_index: int
    value: str | None


@attrs.frozen
class ReplicaCopy:
    """Everything that one replica of one group holds, at one moment."""

    node_id: int
    group_id: int
    index: int
    """The last log index that its machine applied."""
    digest: str
    rows: dict[str, Held]


@attrs.frozen
class Findings:
    """What is wrong, by kind: a sentence for each."""

    lost: dict[str, str]
    duplicated: dict[str, str]
    phantom: dict[str, str]
    differing: tuple[str, ...]
    unknown_applied: int
    """Of the writes with unknown outcome: how many are there."""

    @property
    def digests_equal(self) -> bool:
        """No two replicas differ."""
        return not self.differing

    def problems(self) -> list[str]:
        """All of it, for people."""
        return [*self.lost.values(), *self.duplicated.values(), *self.phantom.values(), *self.differing]


def audit(ledger: Ledger, copies: Sequence[ReplicaCopy]) -> Findings:
    """Compare every write with every copy of its group."""
    by_group: dict[int, list[ReplicaCopy]] = {}
    for copy in copies:
        by_group.setdefault(copy.group_id, []).append(copy)
    lost: dict[str, str] = {}
    for write in ledger:
        if write.outcome is Outcome.ACKNOWLEDGED and (reason := _why_lost(write, by_group.get(write.group_id, []))):
            lost[write.key] = f"lost: {write.key} of group {write.group_id} was acknowledged at index {write.index}, but {reason}"
    duplicated, phantom = _strange_rows(ledger, copies)
    return Findings(
        lost=lost,
        duplicated=duplicated,
        phantom=phantom,
        differing=tuple(text for group_id in sorted(by_group) for text in _differences(by_group[group_id])),
        unknown_applied=sum(
            1 for write in ledger if write.outcome is Outcome.UNKNOWN and _is_held(write, by_group.get(write.group_id, []))
        ),
    )


def _why_lost(write: Write, copies: Sequence[ReplicaCopy]) -> str | None:
    if not copies:
        return "no replica of the group could be read"
    for copy in copies:
        held = copy.rows.get(write.key)
        if held is None:
            return f"node {copy.node_id} does not have it"
        if held.value != write.value:
            return f"node {copy.node_id} has another value: {held.value!r}"
        if held.log_index != write.index:
            return f"node {copy.node_id} has it at index {held.log_index}"
    return None


def _is_held(write: Write, copies: Iterable[ReplicaCopy]) -> bool:
    return any(write.key in copy.rows for copy in copies)


def _strange_rows(ledger: Ledger, copies: Sequence[ReplicaCopy]) -> tuple[dict[str, str], dict[str, str]]:
    duplicated: dict[str, str] = {}
    phantom: dict[str, str] = {}
    for copy in copies:
        for key, held in copy.rows.items():
            if not ledger.is_ours(key):
                continue
            where = f"{key} on node {copy.node_id}, group {copy.group_id}, index {held.log_index}"
            if held.version > 1:
                duplicated[key] = f"duplicated: {where}: sent once, applied {held.version} times"
            write = ledger.get(key)
            if write is None or write.group_id != copy.group_id:
                phantom[key] = f"phantom: {where}: nobody sent it there"
            elif write.outcome is Outcome.REFUSED:
                phantom[key] = f"phantom: {where}: its client was told that nothing was done"
    return duplicated, phantom


def _differences(copies: Sequence[ReplicaCopy]) -> list[str]:
    """How replicas of one group differ from the first of them."""
    first = copies[0]
    texts = []
    for other in copies[1:]:
        pair = f"differing: group {first.group_id} on nodes {first.node_id} and {other.node_id}"
        if other.index != first.index:
            texts.append(f"{pair}: applied up to {first.index} and {other.index}")
        elif other.digest != first.digest:
            texts.append(f"{pair}: digests {first.digest} and {other.digest} at index {first.index}")
    return texts
