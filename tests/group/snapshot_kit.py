"""One group's sending and receiving end without anything below: a disk of a few lines, a core that says what the test says, and a wire on
which everything can go wrong."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace
from typing import Any, cast

import attrs
import trio

from trioraft._errors import StorageError
from trioraft._types import NEVER, NOTHING, EntryId, GroupKey, Member, Millis, NodeId
from trioraft.core import Configuration, Event, InstallSnapshot, Raft, Role, SendSnapshot, SnapshotSent, Timing
from trioraft.group import Host
from trioraft.group._inbox import Inbox
from trioraft.group._receiving import SnapshotReceiver
from trioraft.group._sending import SnapshotSender
from trioraft.observe import Announcer, Counters, Event as Told, Instrument, SnapshotFailed
from trioraft.storage import SnapshotReader, SnapshotStorage, SnapshotWriter
from trioraft.wire import SnapshotEncoder, SnapshotPiece, SnapshotReply, read_manifest

E = 1.0
"""The election timeout, in seconds."""

KEY = GroupKey(7)
LEADER, FOLLOWER = Member(1), Member(2)
TERM = 3
AT = EntryId(2, 100)
CONFIGURATION = Configuration(frozenset({1, 2, 3}))
PIECE = 1000


def make_file(at: EntryId = AT, *, key: GroupKey = KEY, size: int = 5000, seed: int = 0) -> bytes:
    """A snapshot's file, of about that size."""
    encoder = SnapshotEncoder(key, at, CONFIGURATION, compression="none")
    for number in range(size // 100):
        encoder.add([number, random.Random(seed * 1000 + number).randbytes(90)])
    return encoder.finish()


def sha256_of(data: bytes) -> bytes:
    return read_manifest(data, len(data)).sha256


def offer(data: bytes, at: EntryId = AT, *, term: int = TERM, source: Member = LEADER, **changes: Any) -> SnapshotPiece:
    piece = SnapshotPiece(
        group=KEY, source=source, target=FOLLOWER, term=term, at=at, sha256=sha256_of(data), size=len(data), offset=0, data=b""
    )
    return attrs.evolve(piece, **changes)


def cut(data: bytes, like: SnapshotPiece, *, size: int = PIECE) -> list[SnapshotPiece]:
    """All pieces of a file, in order."""
    return [attrs.evolve(like, offset=start, data=data[start : start + size]) for start in range(0, len(data), size)]


@attrs.define(eq=False)
class Writer(SnapshotWriter):
    files: Files
    at: EntryId
    data: bytearray = attrs.Factory(bytearray)

    async def append(self, data: bytes) -> None:
        await self.files.call("append")
        self.data += data

    async def commit(self) -> str:
        await self.files.call("commit")
        self.files.whole[self.at] = bytes(self.data)
        self.files.partial.discard(self)
        return str(self.at)

    async def discard(self) -> None:
        with trio.CancelScope(shield=True):
            await self.files.call("discard")
        self.files.partial.discard(self)


@attrs.define(eq=False)
class Reader(SnapshotReader):
    files: Files
    data: bytes
    path: str = "some.snap"

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self, offset: int, size: int) -> bytes:
        await self.files.call("read")
        assert self in self.files.readers
        return b"" if self.files.is_cut else self.data[offset : offset + size]

    def close(self) -> None:
        self.files.readers.discard(self)


class Files(SnapshotStorage):
    """Snapshots in memory."""

    def __init__(self) -> None:
        self.whole: dict[EntryId, bytes] = {}
        self.partial: set[Writer] = set()
        self.readers: set[Reader] = set()
        self.errors: dict[str, Exception] = {}
        self.blocked: dict[str, trio.Event] = {}
        self.calls: list[str] = []
        self.seconds = 0.0
        self.is_cut = False

    async def call(self, name: str) -> None:
        self.calls.append(name)
        await trio.sleep(self.seconds)
        if name in self.blocked:
            await self.blocked[name].wait()
        if name in self.errors:
            raise self.errors[name]

    async def create(self, at: EntryId) -> SnapshotWriter:
        await self.call("create")
        writer = Writer(self, at)
        self.partial.add(writer)
        return writer

    async def open(self, at: EntryId) -> SnapshotReader:
        await self.call("open")
        if at not in self.whole:
            raise StorageError("missing", str(at), "there is no such snapshot")
        reader = Reader(self, self.whole[at])
        self.readers.add(reader)
        return reader

    async def remove(self, at: EntryId) -> None:
        await self.call("remove")
        self.whole.pop(at, None)


@attrs.define(eq=False)
class Core:
    """What snapshots need of a replica."""

    me: Member
    role: Role = Role.FOLLOWER
    term: int = TERM
    commit_index: int = 0
    start: EntryId = NOTHING
    snapshot: EntryId = NOTHING
    configuration: Configuration = CONFIGURATION
    members: set[Member] = attrs.Factory(lambda: {LEADER, FOLLOWER, Member(3)})
    dropped: Counter[str] = attrs.Factory(Counter)

    def is_counted(self, member: Member) -> bool:
        return member in self.members

    def is_superseded(self, source: Member) -> bool:
        return any(source.node_id == known.node_id and source.replica < known.replica for known in self.members)

    def drop(self, reason: str) -> None:
        self.dropped[reason] += 1

    @property
    def log(self) -> Any:
        return SimpleNamespace(start=self.start)

    def step_install(self, message: InstallSnapshot) -> bool:
        """Whether the real one would install it."""
        if message.term < self.term or message.at.index <= self.commit_index:
            return False
        self.term, self.commit_index, self.snapshot = message.term, message.at.index, message.at
        return True


class Traffic:
    """Places and a way out; `deliver` is what the wire does with a piece."""

    def __init__(self, *, streams_max: int = 2) -> None:
        self.piece_bytes, self.reply_timeout = PIECE, 3.0
        self.streams_max = streams_max
        self.outgoing_now = self.incoming_now = 0
        self.sent: list[SnapshotPiece] = []
        self.deliver: Callable[[SnapshotPiece], Awaitable[None]] = self._lose
        self._places = trio.CapacityLimiter(streams_max)

    async def _lose(self, piece: SnapshotPiece) -> None:
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def outgoing(self, peer: NodeId) -> AsyncIterator[None]:
        async with self._places:
            self.outgoing_now += 1
            try:
                yield
            finally:
                self.outgoing_now -= 1

    @contextmanager
    def incoming(self) -> Iterator[bool]:
        if self.incoming_now >= self.streams_max:
            yield False
            return
        self.incoming_now += 1
        try:
            yield True
        finally:
            self.incoming_now -= 1

    async def send(self, peer: NodeId, piece: SnapshotPiece) -> None:
        assert piece.target.node_id == peer
        self.sent.append(piece)
        await self.deliver(piece)

    @property
    def data_sent(self) -> int:
        return sum(len(piece.data) for piece in self.sent)


class Log(Instrument):
    def __init__(self) -> None:
        self.events: list[Told] = []

    def on_event(self, event: Told) -> None:
        self.events.append(event)

    @property
    def failures(self) -> list[SnapshotFailed]:
        return [event for event in self.events if isinstance(event, SnapshotFailed)]


class End:
    """One replica, as far as its snapshots go: both ends of a stream, and what a driver does for them."""

    def __init__(self, me: Member, *, role: Role = Role.FOLLOWER, files: Files | None = None) -> None:
        self.core = Core(me, role)
        self.files = files or Files()
        self.traffic = Traffic()
        self.log = Log()
        self.counters = Counters()
        self.liveness: dict[NodeId, Millis] = {2: NEVER, 3: NEVER}
        self.replies: list[SnapshotReply] = []
        self.on_reply: Callable[[SnapshotReply], None] = lambda reply: None
        self.events: list[Event] = []
        self.holds_back = False
        """The core looks at no snapshot."""
        self.inbox = Inbox(100, 1 << 20)
        host = cast(
            Host,
            SimpleNamespace(
                timing=Timing(heartbeat_interval=100, election_timeout=round(E * 1000)),
                random=random.Random(0),
                counters=self.counters,
                announcer=Announcer(self.counters, [self.log]),
                snapshot_traffic=self.traffic,
                liveness=self.liveness,
                now=lambda: round(trio.current_time() * 1000),
                snapshot_retry_interval=5.0,
                send_snapshot_reply=self._send_reply,
            ),
        )
        core = cast(Raft, self.core)
        self.sender = SnapshotSender(KEY, self.files, core, host, self.inbox, on_unreadable=lambda at: None)
        self.receiver = SnapshotReceiver(KEY, self.files, core, host, self.inbox)
        self.nursery: trio.Nursery
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()

    def _send_reply(self, key: GroupKey, reply: SnapshotReply) -> None:
        assert key == KEY
        self.replies.append(reply)
        self.on_reply(reply)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as self.nursery:
                    task_status.started()
                    try:
                        while True:
                            await self.inbox.wait()
                            self._turn()
                    finally:
                        self.receiver.close()
        finally:
            self._stopped.set()

    def _turn(self) -> None:
        events = self.inbox.take()
        self.events += events
        for event in events:
            if isinstance(event, InstallSnapshot) and not self.holds_back:
                self.receiver.stepped(event, installed=self.core.step_install(event))
        self.receiver.work(self.nursery)

    async def stop(self) -> None:
        """As a group stops: cancelled, and all of its tasks are gone on return."""
        self._scope.cancel()
        await self._stopped.wait()

    def send(self, at: EntryId = AT, *, target: Member = FOLLOWER) -> None:
        """The core asks for a stream."""
        self.sender.send(self.nursery, SendSnapshot(target, self.core.term, at))

    async def wait_sent(self, count: int = 1) -> list[SnapshotSent]:
        """Wait for answers to the core's requests."""
        with trio.fail_after(3600):
            while len(self.sent) < count:
                await trio.sleep(0.01)
        return self.sent

    @property
    def has_stopped(self) -> bool:
        return self._stopped.is_set()

    @property
    def sent(self) -> list[SnapshotSent]:
        return [event for event in self.events if isinstance(event, SnapshotSent)]

    @property
    def installs(self) -> list[InstallSnapshot]:
        return [event for event in self.events if isinstance(event, InstallSnapshot)]

    @property
    def answers(self) -> list[tuple[str, int]]:
        return [(reply.answer.name, reply.offset) for reply in self.replies]

    def take_answers(self) -> list[tuple[str, int]]:
        answers = self.answers
        self.replies.clear()
        return answers


@asynccontextmanager
async def running(*ends: End) -> AsyncIterator[None]:
    """Run the ends while the block runs; afterwards nothing of a stream may be left anywhere."""
    async with trio.open_nursery() as nursery:
        for end in ends:
            await nursery.start(end.run)
        yield
        for end in ends:
            await end.stop()
    for end in ends:
        assert_nothing_left(end)


def assert_nothing_left(end: End) -> None:
    assert end.files.partial == set()
    assert end.files.readers == set()
    assert (end.traffic.incoming_now, end.traffic.outgoing_now) == (0, 0)


def join(leader: End, follower: End) -> None:
    """A wire that works."""

    async def deliver(piece: SnapshotPiece) -> None:
        await follower.receiver.receive(piece)

    leader.traffic.deliver = deliver
    follower.on_reply = leader.sender.replied


def pair(data: bytes | None = None) -> tuple[End, End]:
    """A leader that has a snapshot, and a follower, joined."""
    leader, follower = End(LEADER, role=Role.LEADER), End(FOLLOWER)
    leader.files.whole[AT] = make_file() if data is None else data
    leader.core.snapshot = AT
    join(leader, follower)
    return leader, follower


async def run_inline(function: Callable[..., Any], *args: Any, **_options: Any) -> Any:
    """In the place of `trio.to_thread.run_sync`: a mock clock does not wait for threads."""
    await trio.lowlevel.checkpoint()
    return function(*args)
