"""Tells the node's observers when its disk fills up, and when there is space again. The groups hear it from the log itself."""

from __future__ import annotations

from ..observe import Announcer, DiskSpaceChanged
from ..storage import MultiRaftStorage


class DiskWatch:
    """Looked at once an interval."""

    def __init__(self, storage: MultiRaftStorage, announcer: Announcer) -> None:
        self._storage, self._announcer = storage, announcer
        self._was_full = False

    def look(self) -> None:
        is_full = self._storage.is_full
        if is_full != self._was_full:
            self._was_full = is_full
            self._announcer.announce(DiskSpaceChanged(not is_full))
