"""Rows as bytes, so that a checkpoint finds most of them ready.

A checkpoint holds up all writes, and with thousands of groups most of that time would go into encoding. Therefore

* what a checkpoint wrote of a group is kept: it holds for the next one, unless a batch has named the group since;
* the rows that are missing are encoded before the file is full, in step with the rest of it as it fills up: one pass over them for
  each file. What changes behind the pass is left to the checkpoint, so a table that always changes costs one more encoding of each row.

The table forgets what is kept of a group whenever it carries out a batch that names it. So what is kept is what would be encoded now.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from .._types import GroupId
from ._row import Row
from ._row_bytes import EncodedConfigurations, encode_row_content
from ._segment import encode_row

PREPARE_FROM = 0.5
"""How full a file is when the pass begins. If later, fewer rows would change behind it; but a few large batches could fill the rest."""


class EncodedRows:
    """The segments that say of each group what its row says."""

    def __init__(self, rows: Mapping[GroupId, Row]) -> None:
        self._rows = rows
        self._kept: dict[GroupId, bytes] = {}
        self._configurations: EncodedConfigurations = {}
        # The groups that the pass has before it; None: it has not begun. How many there were then, and how full the file was.
        self._ahead: list[GroupId] | None = None
        self._count, self._begun = 0, 0.0

    def forget(self, group_ids: Collection[GroupId]) -> None:
        """Something happens to these groups."""
        kept = self._kept
        for group_id in group_ids if kept else ():
            kept.pop(group_id, None)

    def prepare(self, fullness: float, count: int) -> bool:
        """Go on with the pass, by at most `count` groups. Returns whether more are due.

        Args:
            fullness: of the file; the pass is through when it reaches 1.0.
        """
        if self._ahead is None:
            if PREPARE_FROM <= fullness < 1.0:
                self._ahead = list(self._rows.keys() - self._kept.keys())
                self._count, self._begun = len(self._ahead), fullness
            return False
        share = min((fullness - self._begun) / (1.0 - self._begun), 1.0)
        due = len(self._ahead) - self._count + int(self._count * share)
        for _ in range(min(due, count)):
            self._find(self._ahead.pop())
        return due > count

    def take_all(self) -> Iterator[tuple[GroupId, bytes]]:
        """The segment of each group that can be relied upon: a checkpoint, and the end of the pass. The table must not change meanwhile."""
        self._ahead = None
        for group_id in self._rows:
            segment = self._find(group_id)
            if segment is not None:
                yield group_id, segment
        self._configurations.clear()

    def _find(self, group_id: GroupId) -> bytes | None:
        """None: nothing is to be said of that group."""
        row = self._rows[group_id]
        if row.failure is not None or row.key is None:
            return None
        segment = self._kept.get(group_id)
        if segment is None:
            segment = self._kept[group_id] = encode_row(row.key, encode_row_content(row, self._configurations))
        return segment
