"""The oldest file of the log, and who still needs it."""

from __future__ import annotations

from .._types import GroupId
from ._table import Table


class OldestFile:
    """Remembers who had entries in it when last looked at."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._file = 0
        self._needed_by: set[GroupId] = set()

    def is_emptied(self) -> bool:
        """Whether nobody needs it. Cheap, because it is asked whenever a group has compacted its log."""
        oldest, *newer = self._table.files.numbers
        if oldest != self._file:
            self._file, self._needed_by = oldest, set()
        while self._needed_by:
            row = self._table.rows.get(group_id := self._needed_by.pop())
            if row is not None and row.is_in(oldest):
                self._needed_by.add(group_id)
                return False
        # Others may have come while it was the newest file.
        self._needed_by = set(self._table.files.groups_in(oldest)) if newer else set()
        return bool(newer) and not self._needed_by
