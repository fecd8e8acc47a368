"""Who leads, as one replica knows it: for those who wait for a leader, and for those who follow the changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple
from weakref import WeakSet

from .._errors import GroupStoppedError
from .._types import NodeId
from ..core import RoleChange
from ..observe import Observable
from ._changes import Changes, LeaderChange


class _Known(NamedTuple):
    leader: NodeId | None
    has_stopped: bool = False


class Leadership:
    """What is known of it, until the replica stops."""

    def __init__(self, present: RoleChange, stopped_error: Callable[[], GroupStoppedError]) -> None:
        self._known = Observable(_Known(None))
        # Again, without the way through the observable: every request looks here.
        self.leader: NodeId | None = None
        self._present = LeaderChange(0, present.role, present.term, present.leader)
        self._readers: WeakSet[Changes] = WeakSet()
        self.stopped_error: Final = stopped_error
        """What to tell whoever asks once it has stopped."""

    @property
    def has_stopped(self) -> bool:
        return self._known.value.has_stopped

    async def wait(self, *, other_than: NodeId | None = None) -> NodeId:
        """Wait until a node, but not that one, is known to lead.

        Raises:
            GroupStoppedError: the replica has stopped.
        """
        known = await self._known.wait_value(lambda known: known.has_stopped or known.leader not in (None, other_than))
        if known.leader is None:
            raise self.stopped_error()
        return known.leader

    def changes(self) -> Changes:
        """A reader of its own, who gets every change. One that nobody holds any more is forgotten."""
        changes = Changes(self._present, has_stopped=self.has_stopped)
        self._readers.add(changes)
        return changes

    def changed(self, change: RoleChange) -> None:
        self.leader = change.leader
        self._known.value = _Known(change.leader)
        self._present = LeaderChange(self._present.number + 1, change.role, change.term, change.leader)
        for reader in self._readers:
            reader.put(self._present)

    def stop(self) -> None:
        self.leader = None
        self._known.value = _Known(None, has_stopped=True)
        for reader in self._readers:
            reader.stop()
