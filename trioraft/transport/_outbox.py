"""What waits for one lane of one peer: bounded in bytes and in messages, one wake-up for the one task that empties it.

While the lane is shut nothing is kept but the newest pulse: by the time it opens, a vote is of an older term, and the core probes
instead of continuing where it was. On overflow the control lane gives up its oldest message (the newer vote supersedes it), the
append lane the newest (what went before is still a prefix that the follower can use).

What fits into one frame goes in the order in which it came. When more waits on the append lane, the groups take turns, message by
message, so that a group with megabytes on their way delays another by one of its messages and not by all of them. Messages of one
group never overtake each other.

An *incident* is a loss that somebody has to be told of, once: it begins with the first message lost and ends when the lane is
opened, or when an open lane's queue has drained to half its limits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum

from .._types import GroupKey
from ..wire import Envelope, Pulse, message_size
from ._wakeup import Wakeup


class Overflow(Enum):
    """Which message goes when there is no room."""

    DROP_OLDEST = "oldest"
    DROP_NEWEST = "newest"


class Outbox:
    def __init__(
        self, overflow: Overflow, *, bytes_max: int, messages_max: int, message_bytes_max: int, on_incident: Callable[[], None]
    ) -> None:
        """
        Args:
            message_bytes_max: a message above this can never be sent and is dropped, whatever room there is.
            on_incident: called synchronously, also from inside `put`.
        """
        self._overflow = overflow
        self._bytes_max, self._messages_max, self._message_bytes_max = bytes_max, messages_max, message_bytes_max
        self._on_incident = on_incident
        # In the order of arrival. On the append lane only what came since the last frame that could not take everything.
        self._queue: deque[tuple[Envelope, int]] = deque()
        # Of each group that has something left over: its messages, oldest first. Only these groups have a place in `_turns`, one each.
        self._backlog: dict[GroupKey, deque[tuple[Envelope, int]]] = {}
        self._turns: deque[GroupKey] = deque()
        self._backlog_messages = 0
        self._pulse: Pulse | None = None
        self._wakeup = Wakeup()
        self._in_incident = False
        self.is_open = False
        self.queued_bytes = 0
        self.dropped = 0
        self.replaced_pulses = 0

    @property
    def queued_messages(self) -> int:
        return len(self._queue) + self._backlog_messages

    @property
    def has_room(self) -> bool:
        """True if the next message will most likely be kept. After an overflow not before the incident is over."""
        is_full = self.queued_bytes >= self._bytes_max or self.queued_messages >= self._messages_max
        return self.is_open and not self._in_incident and not is_full

    # What the verbs call.

    def put(self, envelopes: Sequence[Envelope]) -> None:
        """Queue messages in this order, as far as there is room."""
        if not self.is_open:
            self.lose(len(envelopes))
            return
        for envelope in envelopes:
            self._put_one(envelope, message_size(envelope))
        self._wakeup.set()

    def put_pulse(self, pulse: Pulse) -> None:
        """Keep the newest pulse only: its lines are changes against an acknowledged one, so none is lost with the one it replaces."""
        if self._pulse is not None:
            self.replaced_pulses += 1
        self._pulse = pulse
        self._wakeup.set()

    # What the lane's writer calls.

    def open(self) -> None:
        self.is_open = True
        self._in_incident = False

    def shut(self) -> None:
        """The connection is gone: forget what cannot be sent any more. An open lane that shuts is an incident, whatever was queued."""
        was_open, self.is_open = self.is_open, False
        lost = self.queued_messages
        for emptied in (self._queue, self._backlog, self._turns):
            emptied.clear()
        self.queued_bytes = self._backlog_messages = 0
        if was_open:
            # NB: what the connection had taken may be lost too, so an empty queue is no comfort.
            self._in_incident = False
            self.lose(lost)

    def lose(self, count: int) -> None:
        """Count lost messages, and tell once per incident."""
        self.dropped += count
        if not self._in_incident:
            self._in_incident = True
            self._on_incident()

    def take_pulse(self) -> Pulse | None:
        pulse, self._pulse = self._pulse, None
        return pulse

    def take(self, bytes_max: int) -> list[Envelope]:
        """Remove what makes up one frame: all that is there, up to `bytes_max`, and at least one message if there is any."""
        fits = self.queued_bytes <= bytes_max and not self._turns
        taken = self._take_in_order(bytes_max) if fits or self._overflow is Overflow.DROP_OLDEST else self._take_turns(bytes_max)
        if self._in_incident and self.queued_bytes * 2 <= self._bytes_max and self.queued_messages * 2 <= self._messages_max:
            self._in_incident = False
        return taken

    def wake(self) -> None:
        """Wake the writer for another reason than a message."""
        self._wakeup.set()

    async def wait(self) -> None:
        """Wait until something was put since the last wait."""
        await self._wakeup.wait()

    def _take_in_order(self, bytes_max: int) -> list[Envelope]:
        taken: list[Envelope] = []
        queue, total = self._queue, 0
        while queue:
            envelope, size = queue[0]
            if total + size > bytes_max and taken:
                break
            queue.popleft()
            taken.append(envelope)
            total += size
        self.queued_bytes -= total
        return taken

    def _take_turns(self, bytes_max: int) -> list[Envelope]:
        self._sort_queue()
        taken: list[Envelope] = []
        turns, total = self._turns, 0
        while turns:
            waiting = self._backlog[turns[0]]
            envelope, size = waiting[0]
            if total + size > bytes_max and taken:
                break
            waiting.popleft()
            taken.append(envelope)
            total += size
            group = turns.popleft()
            if waiting:
                turns.append(group)
            else:
                del self._backlog[group]
        self._backlog_messages -= len(taken)
        self.queued_bytes -= total
        return taken

    def _sort_queue(self) -> None:
        for item in self._queue:
            group = item[0].group
            waiting = self._backlog.get(group)
            if waiting is None:
                waiting = self._backlog[group] = deque()
                self._turns.append(group)
            waiting.append(item)
        self._backlog_messages += len(self._queue)
        self._queue.clear()

    def _put_one(self, envelope: Envelope, size: int) -> None:
        if size > self._message_bytes_max:
            self.lose(1)
            return
        if self._overflow is Overflow.DROP_NEWEST:
            if not self._fits(size):
                self.lose(1)
                return
        else:
            while not self._fits(size):
                self.queued_bytes -= self._queue.popleft()[1]
                self.lose(1)
        self._queue.append((envelope, size))
        self.queued_bytes += size

    def _fits(self, size: int) -> bool:
        """An empty queue takes anything: otherwise a message above the limit would never go."""
        queued = self.queued_messages
        return not queued or (self.queued_bytes + size <= self._bytes_max and queued < self._messages_max)
