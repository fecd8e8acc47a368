"""One snapshot on its way to this node: from pieces to a file that is checked, durable, and has its name.

Pieces of one stream may come over several connections, so one may overtake another, and after a broken connection some come twice. What
is here is always the beginning of the file, up to `offset`: a piece that begins behind it waits a while for the one before it; what is
here already is left out.

The connections' tasks only hand pieces over, one at a time, to the stream's own task, which writes. So a connection that dies never
leaves half a piece behind, and a slow disk holds up the sender. In memory is one piece, and one more for each connection that waits.

A stream has one of the node's places for snapshots as long as it moves. One that stands still gives its place back, but keeps its
file for a while: its sender may come back and go on where it was.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from typing import Final

import trio

from .._errors import CorruptSnapshotError
from .._types import GroupKey, Member, Term
from ..storage import SnapshotStorage, SnapshotWriter
from ..wire import SnapshotBytesError, SnapshotDecoder, SnapshotManifest, SnapshotPiece

# All in election timeouts.
_HOLD: Final = 0.5
"""How long a piece waits for the one before it, which is under way on another connection or was lost."""
_STALL: Final = 5.0
"""How long a stream that stands still has its place."""
_KEEP: Final = 60.0
"""How long it has its file."""

_WAITING_MAX: Final = 8
"""Pieces that wait for another one, in memory."""


class StreamEndedError(Exception):
    """Nothing came for too long."""


class InboundStream:
    """The file of one snapshot that arrives in pieces."""

    def __init__(self, key: GroupKey, piece: SnapshotPiece, *, election_timeout: float) -> None:
        self._key, self._timeout = key, election_timeout
        self.at: Final = piece.at
        self.sha256: Final = piece.sha256
        self.size: Final = piece.size
        self.source: Member = piece.source
        self.term: Term = piece.term
        self.offset = 0
        """Everything before is here, or in the hands of the disk."""
        self.asked: int | None = None
        """The last offset that the sender was told to go on at, because something was missing."""
        self.may_exist = False
        """The file has its name, or is getting it."""
        self.done: Final = trio.Event()
        """Set by whoever runs it, when nothing of it is left but what has its name."""
        self._scope = trio.CancelScope()
        self._place: ExitStack | None = None
        self._touched = trio.current_time()
        self._waiting = trio.lowlevel.ParkingLot()
        self._incoming, self._outgoing = trio.open_memory_channel[SnapshotPiece](0)
        self._ended = False
        # NB: a limiter of its own: each stream uses one thread at a time, and users' snapshot code that hangs must not hold it up.
        self._thread = trio.CapacityLimiter(1)
        self._decoder = SnapshotDecoder(piece.size)

    # --- for the connections ------------------------------------------------------------------------------------------------------------

    @property
    def is_whole(self) -> bool:
        """Nothing is missing; it is being checked, synced, installed."""
        return self.offset == self.size

    def take_place(self, incoming: AbstractContextManager[bool]) -> bool:
        """Take one of the node's places, unless there is one already; False: there was none."""
        if self._place is None:
            with ExitStack() as stack:
                if not stack.enter_context(incoming):
                    return False
                self._place = stack.pop_all()
            self._touched = trio.current_time()
        return True

    def is_same(self, piece: SnapshotPiece) -> bool:
        """Whether the piece is of these very bytes, wherever it comes from."""
        return (piece.at, piece.sha256, piece.size) == (self.at, self.sha256, self.size)

    def gives_way_to(self, piece: SnapshotPiece) -> bool:
        """Whether another snapshot is better: of a later leader, or newer; or this one stands still."""
        if self.is_whole:
            return False
        return self._place is None or (piece.term, piece.at.index) > (self.term, self.at.index)

    async def take(self, piece: SnapshotPiece) -> bool:
        """Hand a piece over; returns when it is the disk's turn. False: something before it is missing, and it was dropped.

        *Cancellation:* it was handed over as a whole, or not at all.
        """
        if piece.offset > self.offset and not await self._wait_for(piece.offset):
            return False
        if piece.offset + len(piece.data) > self.offset:
            try:
                await self._incoming.send(piece)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the stream has ended; its sender will offer the snapshot again
        return True

    async def _wait_for(self, offset: int) -> bool:
        # NB: once the sender was told what is missing, what is under way behind it is of no use, and must not hold up what is sent again.
        if self.asked == self.offset or len(self._waiting) >= _WAITING_MAX:
            return False
        with trio.move_on_after(_HOLD * self._timeout):
            while self.offset < offset and not self._ended:
                await self._waiting.park()
        return self.offset >= offset

    def abandon(self) -> None:
        """End it; what was written goes."""
        self._scope.cancel()

    # --- its own task -------------------------------------------------------------------------------------------------------------------

    async def run(self, snapshots: SnapshotStorage) -> SnapshotManifest | None:
        """Receive the file, check it, and give it its name; None if it was abandoned.

        Raises:
            CorruptSnapshotError: it is not what was announced, or cannot be read here.
            StorageError: ``full``, ``io``.
            StreamEndedError: nothing came for too long.
        """
        writer: SnapshotWriter | None = None
        with self._scope:
            try:
                while not self.is_whole:
                    data = await self._next()
                    writer = writer or await snapshots.create(self.at)
                    await self._in_thread(data)
                    await writer.append(data)
                    self._touched = trio.current_time()
                manifest = self._checked(await self._in_thread(None))
                self.may_exist = True
                if writer is not None:
                    await writer.commit()
                return manifest
            finally:
                self.close()
                if writer is not None:
                    await writer.discard()  # noqa: ASYNC102  # it does its work when cancelled, too; and nothing to what is committed
        return None

    async def _next(self) -> bytes:
        """What comes next in the file."""
        while True:
            piece = await self._next_piece()
            data = piece.data[self.offset - piece.offset :] if self.offset > piece.offset else piece.data
            if data:
                self.offset += len(data)
                self._waiting.unpark_all()
                return data

    async def _next_piece(self) -> SnapshotPiece:
        while True:
            patience = (_KEEP if self._place is None else _STALL) * self._timeout
            with trio.move_on_at(self._touched + patience):
                return await self._outgoing.receive()
            if trio.current_time() < self._touched + patience:
                continue  # its sender has come back meanwhile
            if self._place is None:
                raise StreamEndedError
            self._leave_place()

    async def _in_thread(self, data: bytes | None) -> SnapshotManifest | None:
        """Have bytes checked as a reader would read them; None: they were the last."""
        try:
            return await trio.to_thread.run_sync(_decode, self._decoder, data, limiter=self._thread)
        except SnapshotBytesError as error:
            raise self._corrupt(error.offset, str(error)) from error

    def _checked(self, manifest: SnapshotManifest | None) -> SnapshotManifest:
        announced = (self._key, self.at, self.sha256)
        if manifest is None or (manifest.group, manifest.at, manifest.sha256) != announced:
            found = "nothing" if manifest is None else f"the snapshot of {manifest.group} at {manifest.at}, sha256 {manifest.sha256.hex()}"
            raise self._corrupt(0, f"announced was that of {self._key} at {self.at}, sha256 {self.sha256.hex()}; what came is {found}")
        return manifest

    def _corrupt(self, offset: int, text: str) -> CorruptSnapshotError:
        return CorruptSnapshotError(f"snapshot {self.at} of {self._key} from node {self.source.node_id}", offset, text)

    def _leave_place(self) -> None:
        if self._place is not None:
            self._place.close()
            self._place = None

    def close(self) -> None:
        """Let go of place and waiting connections. Idempotent."""
        self._ended = True
        self._leave_place()
        self._outgoing.close()
        self._waiting.unpark_all()


def _decode(decoder: SnapshotDecoder, data: bytes | None) -> SnapshotManifest | None:
    if data is None:
        return decoder.finish()
    for _ in decoder.feed(data):
        pass  # reading checks it
    return None
