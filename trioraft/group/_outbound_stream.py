"""One snapshot on its way to a member that has fallen too far behind.

An attempt is an offer (a piece without data), the answer of where to go on, and the pieces from there, one behind the other without
waiting for answers: what holds them up is the connection. The last one is answered when the file is durable there. Whatever goes wrong
in between ends the attempt, and another offer goes out, after a while that grows; what has arrived is not sent again. As long as that
brings the stream forward there may be any number of attempts. A member whose node is not live is given up at the first that fails.

The file stays open for all of them, so the stream can be finished although a newer snapshot has been taken meanwhile. It is of no use any
more when the log has been cut behind it: what would have to follow it is gone.
"""

from __future__ import annotations

from typing import Final

import trio

from .._errors import CorruptSnapshotError, StorageError, TransportError
from .._types import EntryId, GroupKey, Term
from ..core import Raft, Role, SendSnapshot
from ..storage import SnapshotReader, SnapshotStorage
from ..wire import SnapshotAnswer, SnapshotPiece, SnapshotReply
from ._host import Host
from ._manifest import read_manifest_of

# How often an attempt may fail to bring the stream forward: a member that answers, be it only that it is busy, gets more patience
# than one that is silent.
_PATIENCE: Final = 64
_ANSWERED: Final = 1
_SILENCE: Final = 8

# The first wait is this part of the time allowed for a reply, and doubles up to the whole.
_FIRST_WAIT: Final = 1 / 32

REFUSED: Final = "refused"
"""The kind of the error when the target does not take the snapshot."""
SILENT: Final = "silent"
"""The kind of the error when it does not answer."""


class StreamUselessError(Exception):
    """Nobody wants the snapshot any more: this replica does not lead, or the target is no member. Or there is a `reason` to tell."""

    def __init__(self, reason: TransportError | None = None) -> None:
        self.reason = reason


class OutboundStream:
    """Brings the newest snapshot to one member."""

    def __init__(self, key: GroupKey, snapshots: SnapshotStorage, core: Raft, host: Host, request: SendSnapshot) -> None:
        self._key, self._snapshots, self._core, self._host = key, snapshots, core, host
        self._traffic = host.snapshot_traffic
        self.target: Final = request.target
        self.at: EntryId = request.at
        """The snapshot; a newer one than was asked for, maybe."""
        self._term: Term = request.term
        self._reader: SnapshotReader | None = None
        self._sha256 = b""
        self._reply: SnapshotReply | None = None
        self._news = trio.Event()
        self._offset = 0
        self._best = -1
        """The furthest that the target has asked for: how far the stream has come."""
        self._spent = self._waits = 0
        self._heard = False
        """The target has answered something in this attempt."""
        self._trouble: TransportError | None = None

    @property
    def is_wanted(self) -> bool:
        """This replica still leads the term in which the snapshot was asked for, and the target is a member."""
        core = self._core
        return core.role is Role.LEADER and core.term == self._term and core.is_counted(self.target)

    def hear(self, reply: SnapshotReply) -> None:
        """The target says something. Later is better: what it says is where it stands."""
        if (reply.at, reply.sha256) == (self.at, self._sha256) and self._reader is not None and reply.offset <= self._reader.size:
            self._reply, self._heard = reply, True
            self._news.set()

    # --- its task -----------------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Bring the snapshot to the target; returns when it has all of it, or no use for it.

        Raises:
            StreamUselessError: nobody wants that any more, or the log was cut behind the snapshot while it was on its way.
            TransportError: ``refused``; or the last of what has kept it from coming forward.
            StorageError: the snapshot cannot be read here.
        """
        try:
            while not await self._attempt():
                await self._wait()
        finally:
            self._close_reader()

    async def _attempt(self) -> bool:
        """From an offer to whatever ends what follows it. True: there is nothing more to do."""
        node_id = self.target.node_id
        self._heard = False
        async with self._traffic.outgoing(node_id):
            self._check()
            reader = self._reader or await self._open()
            try:
                reply = await self._exchange(reader)
            except TransportError as error:
                reply, self._trouble = None, error
        if reply is not None and reply.answer is SnapshotAnswer.ARRIVED:
            self._host.counters.snapshots_sent += self._offset == reader.size
            return True
        if reply is not None and reply.answer is SnapshotAnswer.REFUSED:
            raise TransportError(REFUSED, node_id, f"node {node_id} does not take the snapshot {self.at} of {self._key}: {reply.text}")
        if reply is not None:
            self._trouble = TransportError("busy", node_id, f"node {node_id} has no room for the snapshot {self.at} of {self._key}")
        if not self._offset:
            self._close_reader()  # a stream that only waits keeps no file open
        if reply is None and not self._is_target_live():
            self._spend(_PATIENCE)  # when it is back, the core asks again; until then nothing should hold the log
        self._spend(_ANSWERED if self._heard else _SILENCE)
        return False

    async def _exchange(self, reader: SnapshotReader) -> SnapshotReply | None:
        """Offer the snapshot and do as the target says, until it says something else than to go on; None: it says nothing."""
        node_id = self.target.node_id
        self._reply = None
        await self._traffic.send(node_id, self._piece(reader, 0, b""))
        reply = await self._wait_reply()
        while reply is not None and reply.answer is SnapshotAnswer.CONTINUE:
            self._count_progress(reply.offset)
            reply = await self._send_from(reader, reply.offset)
        if reply is None:
            text = f"node {node_id} did not answer the snapshot {self.at} of {self._key} for {self._traffic.reply_timeout} s"
            self._trouble = TransportError(SILENT, node_id, text)
        return reply

    async def _send_from(self, reader: SnapshotReader, offset: int) -> SnapshotReply | None:
        """Send the file from there on, until something is said."""
        self._offset = offset
        while self._offset < reader.size:
            self._check()
            data = await reader.read(self._offset, min(self._traffic.piece_bytes, reader.size - self._offset))
            if not data:
                raise CorruptSnapshotError(reader.path, self._offset, "the file ends here, and was longer when it was opened")
            await self._traffic.send(self.target.node_id, self._piece(reader, self._offset, data))
            self._offset += len(data)
            if self._reply is not None:
                break
        return await self._wait_reply()

    def _piece(self, reader: SnapshotReader, offset: int, data: bytes) -> SnapshotPiece:
        return SnapshotPiece(
            group=self._key,
            source=self._core.me,
            target=self.target,
            term=self._term,
            at=self.at,
            sha256=self._sha256,
            size=reader.size,
            offset=offset,
            data=data,
        )

    def _check(self) -> None:
        """Whether to go on at all: looked at before each piece."""
        if not self.is_wanted:
            raise StreamUselessError
        start = self._core.log.start
        if self._reader is not None and start.index > self.at.index:
            node_id = self.target.node_id
            text = f"the snapshot {self.at} was so long on its way to node {node_id} that the log was cut behind it, at {start}"
            raise StreamUselessError(TransportError("overtaken", node_id, f"{text}: a newer one must follow"))

    def _is_target_live(self) -> bool:
        until = self._host.liveness.get(self.target.node_id)
        return until is not None and self._host.now() < until

    # --- answers and patience -----------------------------------------------------------------------------------------------------------

    async def _wait_reply(self) -> SnapshotReply | None:
        with trio.move_on_after(self._traffic.reply_timeout):
            while self._reply is None:
                self._news = trio.Event()
                await self._news.wait()
        reply, self._reply = self._reply, None
        return reply

    def _count_progress(self, offset: int) -> None:
        if offset > self._best:
            self._best, self._spent, self._waits = offset, 0, 0
        else:
            self._spend(_ANSWERED)

    def _spend(self, patience: int) -> None:
        self._spent += patience
        if self._spent >= _PATIENCE:
            text = f"the snapshot {self.at} of {self._key} does not come forward"
            raise self._trouble or TransportError("stuck", self.target.node_id, text)

    async def _wait(self) -> None:
        """Between two attempts: longer each time, and not in step with others."""
        whole = self._traffic.reply_timeout
        delay = min(whole, whole * _FIRST_WAIT * (1 << min(self._waits, 16)))
        self._waits += 1
        await trio.sleep(delay * (0.5 + self._host.random.random() / 2))

    # --- the file -----------------------------------------------------------------------------------------------------------------------

    async def _open(self) -> SnapshotReader:
        """Open the newest snapshot there is."""
        reader = self._reader = await self._find()  # whatever is wrong with it, `run` closes it
        manifest = await read_manifest_of(reader, self._key, self.at)
        self._sha256, self._offset = manifest.sha256, 0
        return reader

    async def _find(self) -> SnapshotReader:
        while True:  # noqa: ASYNC913  # opening is one
            newest = self._core.snapshot
            self.at = max(newest, self.at, key=lambda at: at.index)
            try:
                return await self._snapshots.open(self.at)
            except StorageError as error:
                if error.kind != "missing" or self._core.snapshot == newest:
                    raise
                # A newer one has been taken while the disk looked for this one.

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
