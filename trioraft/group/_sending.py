"""Sends snapshots to members that need more than the log still has: one stream per target, each a task of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from .._errors import StorageError, TransportError
from .._types import EntryId, GroupKey, Member
from ..core import Raft, SendSnapshot, SnapshotSent
from ..observe import SnapshotFailed
from ..storage import SnapshotStorage
from ..wire import SnapshotReply
from ._host import Host
from ._inbox import Inbox
from ._outbound_stream import REFUSED, SILENT, OutboundStream, StreamUselessError

_DOUBLINGS_MAX: Final = 6


class SnapshotSender:
    """One group's sending end."""

    def __init__(
        self, key: GroupKey, snapshots: SnapshotStorage, core: Raft, host: Host, inbox: Inbox, on_unreadable: Callable[[EntryId], None]
    ) -> None:
        """
        Args:
            on_unreadable: told of a snapshot of this replica's own that is missing or damaged.
        """
        self._key, self._snapshots, self._core, self._host, self._inbox = key, snapshots, core, host, inbox
        self._streams: dict[Member, OutboundStream] = {}
        self._failures: dict[Member, int] = {}
        """Streams in a row that failed, in a way that will not pass by itself."""
        self._on_unreadable = on_unreadable

    def send(self, nursery: trio.Nursery, request: SendSnapshot) -> None:
        """Stream the newest snapshot to a member. Exactly one `SnapshotSent` follows, whatever happens.

        The core asks for one at a time per node.
        """
        stream = self._streams[request.target] = OutboundStream(self._key, self._snapshots, self._core, self._host, request)
        nursery.start_soon(self._run, stream)

    def replied(self, reply: SnapshotReply) -> None:
        """A member answers. Answers to what is under way no more are dropped."""
        stream = self._streams.get(reply.source)
        if stream is not None and reply.target == self._core.me:
            stream.hear(reply)

    async def _run(self, stream: OutboundStream) -> None:
        arrived = False
        try:
            arrived = await self._try(stream)
        finally:
            self._streams.pop(stream.target, None)
            self._inbox.put_completion(SnapshotSent(stream.target, stream.at, arrived))

    async def _try(self, stream: OutboundStream) -> bool:
        """Whether it arrived. What went wrong is announced."""
        target = stream.target
        try:
            await stream.run()
        except StreamUselessError as end:
            if end.reason is not None:
                self._announce(target, end.reason)
            return False
        except Exception as error:  # noqa: BLE001  # whatever it is, it concerns this stream only
            self._announce(target, error)
            if isinstance(error, StorageError):
                self._on_unreadable(stream.at)
            if not isinstance(error, TransportError) or error.kind in (REFUSED, SILENT):
                await self._pause(stream)
            return False
        self._failures.pop(target, None)
        return True

    async def _pause(self, stream: OutboundStream) -> None:
        """Do not tell the core at once of a failure that would come again at once: it would ask for another stream."""
        failures = self._failures.get(stream.target, 0)
        self._failures[stream.target] = failures + 1
        until = trio.current_time() + self._host.snapshot_retry_interval * (1 << min(failures, _DOUBLINGS_MAX))
        while stream.is_wanted and trio.current_time() < until:  # noqa: ASYNC110  # nobody tells when it stops being wanted
            await trio.sleep_until(min(until, trio.current_time() + self._host.snapshot_traffic.reply_timeout))

    def _announce(self, target: Member, error: Exception) -> None:
        self._host.announcer.announce(SnapshotFailed(self._key.group_id, f"sending to node {target.node_id}", error))
