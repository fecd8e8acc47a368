"""Who leads, as one replica knows it: for those who wait for a leader, and for those who follow the changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from .._errors import GroupStoppedError
from .._types import NodeId
from ..core import RoleChange
from ..observe import Observable
from ._changes import ChangeFeed, Changes, LeaderChange


class _Known(NamedTuple):
    leader: NodeId | None
    has_stopped: bool = False


class Leadership:
    """What is known of it, until the replica stops."""

    def __init__(self, present: RoleChange, stopped_error: Callable[[], GroupStoppedError]) -> None:
        self._known = Observable(_Known(None))
        # Again, without the way through the observable: every request looks here.
        self.leader: NodeId | None = None
        self._feed: Final = ChangeFeed(LeaderChange(0, present.role, present.term, present.leader))
        self._stopped_error = stopped_error

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
            raise self._stopped_error()
        return known.leader

    def changes(self) -> Changes:
        return self._feed.subscribe()

    def changed(self, change: RoleChange) -> None:
        self.leader = change.leader
        self._known.value = _Known(change.leader)
        self._feed.tell(change)

    def stop(self) -> None:
        self.leader = None
        self._known.value = _Known(None, has_stopped=True)
        self._feed.stop()
