"""What is under way in memory from one node to another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio

from .._types import NodeId
from ..wire import Pulse
from ._contract import Receiver
from ._statistics import LaneCounters

if TYPE_CHECKING:
    from ._memory import MemoryTransport

Deliver: TypeAlias = Callable[[Receiver], None]
"""Hands something that has arrived to its receiver."""


@attrs.define(eq=False)
class Parcel:
    """What one call of a verb has put under way."""

    link: Link
    lane: Lane
    size: int
    messages: int
    deliver: Deliver | None
    """None: lost on the way."""


@attrs.define(eq=False)
class Lane:
    """What is under way on one lane of a link, oldest first."""

    under_way: deque[Parcel] = attrs.Factory(deque)
    queued_bytes: int = 0
    queued_messages: int = 0

    def put(self, parcel: Parcel) -> None:
        self.under_way.append(parcel)
        self.queued_bytes += parcel.size
        self.queued_messages += parcel.messages

    def take_oldest(self) -> Parcel:
        # NB: also the one that is delivered next, since nothing overtakes anything on a link.
        parcel = self.under_way.popleft()
        self.queued_bytes -= parcel.size
        self.queued_messages -= parcel.messages
        return parcel

    def lose_oldest(self) -> int:
        """Returns how many messages that were."""
        parcel = self.take_oldest()
        parcel.deliver = None
        return parcel.messages


@attrs.define(eq=False)
class Link:
    """One direction, as its sender sees it."""

    source: MemoryTransport
    target: NodeId
    end: MemoryTransport | None = None
    """Who it leads to while it is open."""
    is_wanted: bool = True
    """To be dialled at the next turn."""
    next_dial: float = 0.0
    last_due: float = 0.0
    control: Lane = attrs.Factory(Lane)
    append: Lane = attrs.Factory(Lane)
    pulse: Pulse | None = None
    """The newest one that has not left."""
    replaced_pulses: int = 0
    dropped: int = 0
    in_incident: bool = False
    counters: LaneCounters = attrs.Factory(LaneCounters)
    pieces: trio.MemorySendChannel[bytes] | None = None

    def lose(self, messages: int) -> None:
        self.dropped += messages
        if not self.in_incident:
            self.in_incident = True
            self.source.incidents.note(self.target)
            self.source.wake()

    def end_incident(self, queue_bytes_max: int) -> None:
        """If the link is open and has drained to its half."""
        if self.end is not None and max(self.control.queued_bytes, self.append.queued_bytes) * 2 <= queue_bytes_max:
            self.in_incident = False

    def shut(self) -> None:
        """Break: what is under way on it will not be delivered."""
        if self.end is None:
            return
        if self.end.inbound.get(self.source.node_id) is self:
            del self.end.inbound[self.source.node_id]
        self.end = None
        self.close_pieces()
        self.in_incident = False
        for lane in (self.control, self.append):
            while lane.under_way:
                lane.lose_oldest()
        self.lose(0)

    def close_pieces(self) -> None:
        """End the stream of a snapshot; the next piece begins another."""
        if self.pieces is not None:
            self.pieces.close()
            self.pieces = None
