"""How groups begin and end in the shared log: one mark each, which somebody waits for, and which is finished when he leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs
import trio

from .._types import GroupId
from ._committer import Committer, Mark
from ._contract import GroupRecord
from ._row import Tombstone

Subject: TypeAlias = GroupRecord | Tombstone
"""What a mark says: that a group is there, or that it was removed."""


@attrs.define(eq=False)
class GroupMarks:
    """The marks that are on their way to the log, at most one of a group.

    Args:
        on_removed: called once a tombstone is durable.
    """

    _on_removed: Callable[[GroupId], None]
    _under_way: dict[GroupId, tuple[Subject, Mark]] = attrs.Factory(dict)

    def removal(self, group_id: GroupId) -> Tombstone | None:
        """The tombstone that is on its way. For everybody the group is gone already: what came behind it would be lost."""
        subject, _ = self._under_way.get(group_id, (None, None))
        return subject if isinstance(subject, Tombstone) else None

    async def wait_for_others(self, group_id: GroupId, subject: Subject | None = None) -> None:
        """What was begun for a caller that left is finished first: a replica is never made between a removal and its tombstone.

        Args:
            subject: is not waited for.
        """
        await trio.lowlevel.checkpoint()
        while (under_way := self._under_way.get(group_id)) is not None and under_way[0] != subject:
            await under_way[1].wait()

    async def write(self, committer: Committer, subject: Subject, data: bytes) -> None:
        """Write a mark and wait for it; one that is on its way already, for a caller that left, is waited for."""
        group_id = subject.key.group_id
        under_way = self._under_way.get(group_id)
        if under_way is not None and under_way[0] == subject:
            mark = under_way[1]
        else:
            mark = Mark(lambda: self._settle(group_id, subject, mark))
            self._under_way[group_id] = (subject, mark)
            committer.submit(group_id, data, mark=mark)
        await mark.wait()

    def _settle(self, group_id: GroupId, subject: Subject, mark: Mark) -> None:
        if isinstance(subject, Tombstone):
            self._on_removed(group_id)
        if self._under_way.get(group_id, (None, None))[1] is mark:
            del self._under_way[group_id]
