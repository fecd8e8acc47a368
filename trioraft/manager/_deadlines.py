"""The one queue of deadlines of all groups of a node. A late timer fires once, whatever was missed."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from .._types import NEVER, GroupId, Millis


class DeadlineQueue:
    """Deadlines by group. Moving one later costs a dict store; the heap is touched only when one moves earlier or comes."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._wanted: dict[GroupId, Millis] = {}
        self._queued: dict[GroupId, Millis] = {}  # the earliest heap entry of each group
        self._heap: list[tuple[Millis, GroupId]] = []

    def set(self, group_id: GroupId, deadline: Millis) -> None:
        """Wake the group at `deadline`, instead of any earlier wish; NEVER: not at all."""
        if deadline >= NEVER:
            self._wanted.pop(group_id, None)
            return
        self._wanted[group_id] = deadline
        if deadline < self._queued.get(group_id, NEVER):
            self._queued[group_id] = deadline
            heapq.heappush(self._heap, (deadline, group_id))
            if self._heap[0][1] == group_id:
                self._changed()

    def forget(self, group_id: GroupId) -> None:
        """The group is gone."""
        self._wanted.pop(group_id, None)

    def due(self, now: Millis) -> list[GroupId]:
        """Take the groups whose deadline has come."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            moment, group_id = heapq.heappop(self._heap)
            if self._queued.get(group_id) != moment:
                continue  # a leftover: the group has an earlier entry, which came before this one
            del self._queued[group_id]
            wanted = self._wanted.get(group_id, NEVER)
            if wanted <= now:
                del self._wanted[group_id]
                due.append(group_id)
            else:
                self.set(group_id, wanted)
        return due

    @property
    def next(self) -> Millis:
        """No group wants to be woken before this."""
        return self._heap[0][0] if self._heap else NEVER
