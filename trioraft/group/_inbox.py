"""What waits for one group's driver: events in order, completions in slots, one wake-up.

Rules:

- Completions never drop and never block. Writes done, deadline passed, peers up and down: one slot per kind, newest wins. Answers to
  what the core asked for (entries, snapshots): one each, and the core asks for few at a time.
- Messages and requests have a bound. A message that finds no room is lost, as messages may be; a request is refused at once.
- Whoever puts something in wakes the driver; the driver takes everything at once.
"""

from __future__ import annotations

from typing import Final

import trio

from .._errors import StorageError
from .._types import NodeId
from ..core import (
    DiskSpace,
    EntriesLoaded,
    Event,
    InstallSnapshot,
    Message,
    PeerDown,
    PeerUp,
    Persisted,
    Propose,
    Read,
    Request,
    SnapshotSent,
    SnapshotTaken,
    TimePassed,
    TrimMemory,
    Unreachable,
)
from ._waiter import Token


class Inbox:
    """The queue of one group. Also its `WriteListener`: a finished write is a completion like any other."""

    def __init__(self, events_max: int, bytes_max: int) -> None:
        self._events_max: Final = events_max
        self._bytes_max: Final = bytes_max
        self._events: list[Event] = []
        self._readers: list[Token] = []
        self._bytes = 0  # of the proposals; what a leader sends is bounded by its window
        self._completions: list[Event] = []
        self._peers: dict[NodeId, list[Event]] = {}
        self._restarted: set[NodeId] = set()
        self._persisted = 0
        self._space: bool | None = None
        self._time_passed = False
        self._storage_error: StorageError | None = None
        self._parked: trio.lowlevel.Task | None = None
        self._filled = False

    # --- in: all synchronous, callable from any task of the node ----------------------------------------------------------------------

    def put_message(self, message: Message) -> bool:
        """Queue a message; False: no room, it is lost."""
        if self._is_full:
            return False
        self._events.append(message)
        self._wake()
        return True

    def put_line(self, line: Message) -> None:
        """Queue a line of the pulse: reliable there, so it must not be lost here. There are few of them, one per peer and change."""
        self._events.append(line)
        self._wake()

    def put_completion(self, completion: EntriesLoaded | SnapshotTaken | SnapshotSent | InstallSnapshot | TrimMemory) -> None:
        """Queue the answer to something that was asked for, or what the node asks for: it must not be lost."""
        self._completions.append(completion)
        self._wake()

    def put_request(self, request: Request) -> bool:
        """Queue a request; False: no room, refuse it. A single proposal always fits, whatever its size."""
        bytes_then = self._bytes + (len(request.payload) if type(request) is Propose else 0)
        if self._is_full or (self._bytes and bytes_then > self._bytes_max):
            return False
        self._bytes = bytes_then
        self._events.append(request)
        self._wake()
        return True

    def put_read(self, token: Token) -> bool:
        """Queue somebody who wants to know the index of a read; False: no room. All who come in time make one event."""
        if self._is_full:
            return False
        self._readers.append(token)
        self._wake()
        return True

    @property
    def _is_full(self) -> bool:
        return len(self._events) + len(self._readers) >= self._events_max

    def put_peer(self, event: PeerUp | PeerDown | Unreachable) -> None:
        """Say what became of a peer. An up or down replaces an earlier one; a loss is remembered beside it."""
        kept = self._peers.setdefault(event.node_id, [])
        if isinstance(event, Unreachable):
            if event not in kept:
                kept.append(event)
        else:
            if isinstance(event, PeerUp):
                # NB: a restart must not be lost with the event that told of it: the new process has forgotten what the old one knew.
                if event.restarted:
                    self._restarted.add(event.node_id)
                event = PeerUp(event.node_id, restarted=event.node_id in self._restarted)
            kept[:] = [e for e in kept if isinstance(e, Unreachable)] + [event]
        self._wake()

    def deadline_passed(self) -> None:
        self._time_passed = True
        self._wake()

    def run_again(self) -> None:
        """The driver has work left that no event will announce."""
        self._wake()

    # WriteListener

    def persisted(self, sequence: int) -> None:
        self._persisted = sequence
        self._wake()

    def space_changed(self, available: bool) -> None:
        self._space = available
        self._wake()

    def storage_failed(self, error: StorageError) -> None:
        """The log takes or gives nothing any more: the driver stops."""
        self._storage_error = error
        self._wake()

    # --- out: the driver only -----------------------------------------------------------------------------------------------------------

    async def wait(self) -> None:
        """Park until something is there. A checkpoint."""
        if self._filled:
            await trio.lowlevel.checkpoint()
            return
        self._parked = trio.lowlevel.current_task()

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def take(self) -> list[Event]:
        """Everything that is there, completions first: what they release lets the rest go further.

        Raises:
            StorageError: the node's log is poisoned, or cannot be read.
        """
        if self._storage_error is not None:
            raise self._storage_error
        self._filled = False
        events: list[Event] = []
        if self._space is not None:
            events.append(DiskSpace(self._space))
            self._space = None
        if self._persisted:
            events.append(Persisted(self._persisted))
            self._persisted = 0
        if self._completions:
            events += self._completions
            self._completions = []
        if self._peers:
            for kept in self._peers.values():
                events += kept
            self._peers = {}
            self._restarted.clear()
        if self._time_passed:
            events.append(TimePassed())
            self._time_passed = False
        events += self._events
        self._events, self._bytes = [], 0
        if self._readers:
            events.append(Read(self._readers))
            self._readers = []
        return events

    def refuse_rest(self, error: Exception) -> None:
        """The driver is gone: whoever asked and was not heard learns it. In no log."""
        events, self._events = self._events, []
        readers, self._readers = self._readers, []
        for token in [*(event.token for event in events if isinstance(event, Request)), *readers]:
            token.fail(error)

    def _wake(self) -> None:
        self._filled = True
        if self._parked is not None:
            trio.lowlevel.reschedule(self._parked)
            self._parked = None
