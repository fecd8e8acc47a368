"""The node's memory for entries of all groups: bounded, and whoever has been quiet longest gives first.

A group tells its size when it changes. Beyond the limit, the groups that have not changed for the longest time are asked to let go of
what they can read back from the disk. Nothing here looks at all groups.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from .._types import GroupId


class LogMemory:
    """Sizes by group, the one that changed last at the end."""

    def __init__(self, bytes_max: int, trim: Callable[[GroupId], None]) -> None:
        """
        Args:
            trim: asks a group to let go; it tells its new size later.
        """
        self._bytes_max, self._trim = bytes_max, trim
        self._sizes: OrderedDict[GroupId, int] = OrderedDict()
        self._asked: dict[GroupId, int] = {}
        self.total = 0
        """Bytes in memory, of all groups."""
        self._owed = 0  # of these, what groups have been asked for and still have

    def set(self, group_id: GroupId, size: int) -> None:
        """A group has so many bytes in memory now; 0: it needs no place here."""
        self._forget(group_id)
        if size:
            self._sizes[group_id] = size
            self.total += size
        while self.total - self._owed > self._bytes_max and self._sizes:
            asked, its_size = self._sizes.popitem(last=False)
            # NB: not asked again before it has answered: what is not durable yet stays, whoever asks.
            self._asked[asked] = its_size
            self._owed += its_size
            self._trim(asked)

    def _forget(self, group_id: GroupId) -> None:
        size = self._sizes.pop(group_id, None)
        if size is None:
            size = self._asked.pop(group_id, 0)
            self._owed -= size
        self.total -= size
