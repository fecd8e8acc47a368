"""Takes the snapshot that a leader streams to this replica, and hands it to the core when all of it is on the disk.

One stream at a time per group. A snapshot of a later leader, or a newer one, takes the place of an older one; what is older waits until
its sender gives up. A snapshot that is of no use, because its leader is deposed or this replica has gone beyond it, is not even
looked at: the core answers it as it answers any message that comes too late.
"""

from __future__ import annotations

from typing import Final

import attrs
import trio

from .._errors import RaftError, StorageError
from .._types import GroupKey, NodeId
from ..core import InstallSnapshot, Raft
from ..observe import SnapshotFailed, SnapshotSaved
from ..storage import SnapshotStorage
from ..wire import SnapshotAnswer, SnapshotManifest, SnapshotPiece, SnapshotReply
from ._host import Host
from ._inbound_stream import InboundStream, StreamEndedError
from ._inbox import Inbox

_SIZE_MAX: Final = 1 << 50
"""Bytes of a snapshot's file: whoever announces more is mistaken."""

_REMEMBER: Final = 10.0
"""Election timeouts for which a snapshot that failed is turned away without being transferred again."""

# How long a cancelled task waits for the disk to remove what is of no use any more.
_CLEAN_UP_SECONDS: Final = 5.0


@attrs.frozen
class _Failure:
    """Why a snapshot could not be taken."""

    of: InboundStream
    answer: SnapshotAnswer
    text: str
    until: float


@attrs.define(eq=False)
class _Install:
    """A snapshot that is on the disk, and that the core has yet to see."""

    message: InstallSnapshot
    stepped: trio.Event = attrs.Factory(trio.Event)
    installed: bool = False


class SnapshotReceiver:
    """One group's receiving end."""

    def __init__(self, key: GroupKey, snapshots: SnapshotStorage, core: Raft, host: Host, inbox: Inbox) -> None:
        self._key, self._snapshots, self._core, self._host, self._inbox = key, snapshots, core, host, inbox
        self._timeout: Final = host.timing.election_timeout / 1000
        self._stream: InboundStream | None = None
        self._is_started = False
        self._install: _Install | None = None
        self._useless: dict[NodeId, InstallSnapshot] = {}
        """By sender, snapshots that were not taken and that the core has yet to answer: one each."""
        self._failure: _Failure | None = None
        self._closed = trio.Event()

    # --- the connections' tasks ---------------------------------------------------------------------------------------------------------

    async def receive(self, piece: SnapshotPiece) -> None:
        """Take a piece; returning is the back-pressure. Raises nothing.

        *Cancellation:* the piece was taken as a whole, or is lost; its sender hears where to go on.
        """
        await trio.lowlevel.checkpoint()
        self._host.counters.snapshot_bytes_in += len(piece.data)
        while self._is_admitted(piece):
            stream = self._stream
            if stream is None:
                if not self._begin(piece):
                    return
            elif stream.is_same(piece) and piece.term >= stream.term:
                await self._go_on(stream, piece)
                return
            elif stream.gives_way_to(piece):
                stream.abandon()
                await stream.done.wait()
            else:
                self._reply(piece, SnapshotAnswer.BUSY)
                return

    def _is_admitted(self, piece: SnapshotPiece) -> bool:
        """Whether a piece is for this replica, well-formed, and of use."""
        core = self._core
        if self._closed.is_set():
            return False
        # NB: whoever leads need not be known here as a member: this replica may lag behind the entry that added it (dissertation 4.2.2).
        if piece.target != core.me or piece.source.node_id == core.me.node_id:
            core.drop("wrong target")
        elif core.is_superseded(piece.source):
            core.drop("former replica")
        elif not 0 < piece.size <= _SIZE_MAX or piece.offset + len(piece.data) > piece.size or not 0 < piece.at.term <= piece.term:
            core.drop("malformed")
        elif piece.term < core.term or piece.at.index <= core.commit_index:
            self._let_core_answer(piece)
        else:
            return True
        return False

    def _let_core_answer(self, piece: SnapshotPiece) -> None:
        node_id = piece.source.node_id
        if node_id not in self._useless:
            # The configuration is not looked at: neither term nor commit index of the core ever falls, so this will not be installed.
            message = InstallSnapshot(piece.source, piece.target, piece.term, piece.at, self._core.configuration)
            self._useless[node_id] = message
            self._inbox.put_completion(message)
        self._reply(piece, SnapshotAnswer.ARRIVED)

    def _begin(self, piece: SnapshotPiece) -> bool:
        """Make room for a snapshot that nothing is here of, or say why not. Return whether there is something to do with the piece."""
        failure, now = self._failure, trio.current_time()
        if failure is not None and now < failure.until and failure.of.is_same(piece):
            self._reply(piece, failure.answer, text=failure.text)
            return False
        stream = InboundStream(self._key, piece, election_timeout=self._timeout)
        if not stream.take_place(self._host.snapshot_traffic.incoming()):
            stream.close()
            self._reply(piece, SnapshotAnswer.BUSY)
            return False
        self._stream, self._is_started = stream, False
        self._inbox.run_again()  # `work` starts it
        if piece.offset:
            # The middle of a stream that was begun with a former process here, or has been given up.
            stream.asked = 0
            self._reply(piece, SnapshotAnswer.CONTINUE)
        return not piece.offset

    async def _go_on(self, stream: InboundStream, piece: SnapshotPiece) -> None:
        stream.source, stream.term = piece.source, piece.term
        if not stream.is_whole and not stream.take_place(self._host.snapshot_traffic.incoming()):
            self._reply(piece, SnapshotAnswer.BUSY)
        elif not piece.data:
            stream.asked = None
            self._reply(piece, SnapshotAnswer.CONTINUE, stream.offset)
        elif not await stream.take(piece) and stream is self._stream and stream.asked != stream.offset:
            # Once only: what is under way behind the piece that was lost comes to nothing too.
            stream.asked = stream.offset
            self._reply(piece, SnapshotAnswer.CONTINUE, stream.offset)

    def _reply(self, to: SnapshotPiece | InboundStream, answer: SnapshotAnswer, offset: int = 0, text: str = "") -> None:
        reply = SnapshotReply(self._core.me, to.source, to.at, to.sha256, answer, offset, text)
        self._host.send_snapshot_reply(self._key, reply)

    # --- the group's own tasks ----------------------------------------------------------------------------------------------------------

    def work(self, nursery: trio.Nursery) -> None:
        """Once a turn: start the task of a stream that has begun."""
        if self._stream is not None and not self._is_started and not self._closed.is_set():
            self._is_started = True
            nursery.start_soon(self._run, self._stream)

    def stepped(self, message: InstallSnapshot, *, installed: bool) -> None:
        """The core has seen the message; if it was not installed, its file is of no use."""
        node_id = message.source.node_id
        if self._useless.get(node_id) is message:
            del self._useless[node_id]
        elif self._install is not None and self._install.message is message:
            self._install.installed = installed
            self._install.stepped.set()

    def close(self) -> None:
        """The group stops: nothing is taken any more. What runs is cancelled by its nursery."""
        self._closed.set()
        if self._install is not None:
            self._install.stepped.set()
        stream = self._stream
        if stream is not None:
            stream.abandon()
            if not self._is_started:
                stream.close()
                self._end(stream)

    async def _run(self, stream: InboundStream) -> None:
        is_stopping = False
        try:
            manifest = await stream.run(self._snapshots)
            if manifest is not None:
                await self._hand_over(stream, manifest)
        except StreamEndedError:
            pass  # its sender announces what goes wrong there
        except trio.Cancelled:
            is_stopping = True
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it concerns this snapshot only
            self._failed(stream, error)
        finally:
            with trio.move_on_after(_CLEAN_UP_SECONDS, shield=True):
                if is_stopping:
                    await self._closed.wait()  # the driver may have one more turn, in which the core takes the snapshot
                await self._remove_useless(stream)
            self._end(stream)

    async def _hand_over(self, stream: InboundStream, manifest: SnapshotManifest) -> None:
        """Let the core install it; wait until it has decided."""
        message = InstallSnapshot(stream.source, self._core.me, stream.term, stream.at, manifest.configuration)
        install = self._install = _Install(message)
        self._inbox.put_completion(message)
        self._reply(stream, SnapshotAnswer.ARRIVED)
        await install.stepped.wait()
        if install.installed:
            self._host.counters.snapshots_received += 1
            self._host.announcer.announce(SnapshotSaved(self._key.group_id, stream.at, stream.size, received=True))

    async def _remove_useless(self, stream: InboundStream) -> None:
        """Remove a file that got its name and was not installed, where nothing can refer to that name.

        NB: this replica may have taken a snapshot at the same entry, or be about to, and its log on the disk rely on it, whatever the core
        knows by now. So it is removed only if the group has stopped before it came that far. What is left, the storage prunes once a
        newer one is durable.
        """
        install, self._install = self._install, None
        if not stream.may_exist or (install is not None and install.installed):
            return
        core, index = self._core, stream.at.index
        if self._closed.is_set() and core.commit_index < index:
            try:
                await self._snapshots.remove(stream.at)
            except Exception:  # noqa: BLE001, S110  # one more file that is pruned later
                pass

    def _failed(self, stream: InboundStream, error: Exception) -> None:
        is_full = isinstance(error, StorageError) and error.kind == "full"
        answer = SnapshotAnswer.BUSY if is_full else SnapshotAnswer.REFUSED
        text = str(error) if isinstance(error, RaftError) else f"{type(error).__name__}: {error}"
        self._failure = _Failure(stream, answer, text, trio.current_time() + _REMEMBER * self._timeout)
        self._host.announcer.announce(SnapshotFailed(self._key.group_id, f"receiving from node {stream.source.node_id}", error))
        self._reply(stream, answer, text=text)

    def _end(self, stream: InboundStream) -> None:
        if self._stream is stream:
            self._stream = None
        stream.done.set()
