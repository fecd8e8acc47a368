"""The log files: which there are, who has entries in which, and with which a restart can begin."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from .._types import GroupId
from ._log_name import log_name
from ._row import Row


class LogFiles:
    """What the table knows of the files that it was read from.

    Args:
        directory: theirs, for messages.
        rows: of all groups; not changed here.
    """

    def __init__(self, directory: str, rows: Mapping[GroupId, Row]) -> None:
        self.numbers: list[int] = []
        """Of the files, oldest first; the last one is written to."""
        self._directory, self._rows = directory, rows
        self._complete: set[int] = set()
        self._groups_in: dict[int, set[GroupId]] = {}

    def path_of(self, number: int) -> str:
        return posixpath.join(self._directory, log_name(number))

    def add(self, number: int) -> None:
        self.numbers.append(number)

    def remove(self, number: int) -> None:
        """A file is gone from the disk."""
        self.numbers.remove(number)
        self._complete.discard(number)
        self._groups_in.pop(number, None)

    def groups_put_in(self, number: int) -> set[GroupId]:
        """The groups that had entries in a file once, for whoever puts some there to add to."""
        return self._groups_in.setdefault(number, set())

    def groups_in(self, number: int) -> list[GroupId]:
        """The groups that still have entries in a file, rising."""
        known = self._groups_in.get(number)
        if known is None:
            return []
        found = [group_id for group_id in known if (row := self._rows.get(group_id)) is not None and row.is_in(number)]
        known.intersection_update(found)
        return sorted(found)

    def is_complete(self, number: int) -> bool:
        """Whether the file begins with a checkpoint of all groups, on stable storage: so that a restart can begin with this file."""
        return number in self._complete

    def set_complete(self, number: int) -> None:
        self._complete.add(number)

    def unneeded(self) -> list[int]:
        """The oldest files, as many as nobody has entries in, and as a restart can do without."""
        count = 0
        for place, number in enumerate(self.numbers[:-1], 1):
            if self.groups_in(number):
                break
            if self.is_complete(self.numbers[place]):
                count = place
        return self.numbers[:count]
