"""What tests of taking and restoring snapshots share: machines, a shelf for snapshots that fails as told, and a group without its core."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Self

import attrs
import trio

import trioraft
from trioraft import ApplyContext, GroupConfig, Instrument, StateMachine, StorageError
from trioraft._types import NOTHING, EntryId, GroupKey
from trioraft.core import Configuration, Entry, EntryKind, SnapshotTaken
from trioraft.group._applier import Applier, ApplyThreads
from trioraft.group._codec import ValueCodec
from trioraft.group._inbox import Inbox
from trioraft.group._proposals import Proposals
from trioraft.group._taking import SnapshotTaker
from trioraft.observe import Announcer, Counters, SnapshotFailed
from trioraft.storage import SnapshotReader, SnapshotStorage, SnapshotWriter
from trioraft.wire import SnapshotDecoder, SnapshotEncoder, SnapshotManifest, encode_value

KEY = GroupKey(7, 2)


def entry(index: int, command: Any = "x", kind: EntryKind = EntryKind.COMMAND, term: int = 1) -> Entry:
    return Entry(index, term, kind, encode_value(command))


class Caller:
    def __init__(self) -> None:
        self.result: Any = None
        self.error: Exception | None = None

    def succeed(self, result: Any) -> None:
        self.result = result

    def fail(self, error: Exception) -> None:
        self.error = error


class Recorder(StateMachine):
    """Remembers what it applied; that is its state."""

    declared_errors = (ValueError,)

    def __init__(self) -> None:
        self.seen: list[tuple[int, Any]] = []

    def apply(self, command: Any, context: ApplyContext) -> Any:
        if command == "declared":
            raise ValueError("no")
        if command == "bug":
            raise RuntimeError("oops")
        self.seen.append((context.index, command))
        return command

    def snapshot(self) -> Iterable[Any]:
        return iter(list(self.seen))

    def restore(self, records: Iterator[Any]) -> None:
        self.seen = [(index, command) for index, command in records]


class BlockingRecorder(Recorder):
    blocking = True


# --- a shelf ----------------------------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Shelf(SnapshotStorage):
    """Snapshots in memory. `trouble` is called with the name of each operation before it is done; it may raise, or return an awaitable."""

    files: dict[EntryId, bytes] = attrs.Factory(dict)
    trouble: Callable[[str], Any] = lambda operation: None
    unfinished: int = 0
    open_readers: int = 0
    largest_append: int = 0
    keeps: bool = True

    async def _do(self, operation: str) -> None:
        await trio.lowlevel.checkpoint()
        waiting = self.trouble(operation)
        if waiting is not None:
            await waiting

    async def create(self, at: EntryId) -> SnapshotWriter:
        await self._do("create")
        self.unfinished += 1
        return _Writer(self, at)

    async def open(self, at: EntryId) -> SnapshotReader:
        await self._do("open")
        if at not in self.files:
            raise StorageError("missing", str(at), "there is no such snapshot")
        self.open_readers += 1
        return _Reader(self, f"shelf/{at}", self.files[at])

    async def remove(self, at: EntryId) -> None:
        await self._do("remove")
        self.files.pop(at, None)


@attrs.define(eq=False)
class _Writer(SnapshotWriter):
    shelf: Shelf
    at: EntryId
    data: bytearray = attrs.Factory(bytearray)
    is_done: bool = False

    async def append(self, data: bytes) -> None:
        await self.shelf._do("append")
        self.shelf.largest_append = max(self.shelf.largest_append, len(data))
        if self.shelf.keeps:
            self.data += data

    async def commit(self) -> str:
        await self.shelf._do("commit")
        self.shelf.files[self.at] = bytes(self.data)
        self._end()
        return f"shelf/{self.at}"

    async def discard(self) -> None:
        self._end()
        await trio.lowlevel.checkpoint()

    def _end(self) -> None:
        self.shelf.unfinished -= not self.is_done
        self.is_done = True


@attrs.define(eq=False)
class _Reader(SnapshotReader):
    shelf: Shelf
    path: str
    data: bytes
    is_reading: bool = False
    is_closed: bool = False

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self, offset: int, size: int) -> bytes:
        if self.is_closed:
            raise RuntimeError("read after close")
        self.is_reading = True
        try:
            await self.shelf._do("read")
            return self.data[offset : offset + size]
        finally:
            self.is_reading = False

    def close(self) -> None:
        if self.is_reading:
            raise RuntimeError("closed while it is read")
        self.shelf.open_readers -= not self.is_closed
        self.is_closed = True


def encoded(records: Iterable[Any], at: EntryId, key: GroupKey = KEY) -> bytes:
    """A snapshot of a machine, in a group without sessions."""
    encoder = SnapshotEncoder(key, at, Configuration.bootstrap({1, 2, 3}), compression="none")
    data = bytearray()
    for record in (0, *records):
        encoder.add(record)
        data += encoder.take()
    return bytes(data + encoder.finish())


def decoded(data: bytes) -> tuple[list[Any], SnapshotManifest]:
    decoder = SnapshotDecoder(len(data))
    records = list(decoder.feed(data))
    return records, decoder.finish()


# --- a group without its core -----------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Events(Instrument):
    seen: list[tuple[float, trioraft.Event]] = attrs.Factory(list)
    listeners: list[Callable[[], None]] = attrs.Factory(list)

    def on_event(self, event: trioraft.Event) -> None:
        self.seen.append((trio.current_time(), event))
        for listener in self.listeners:
            listener()


@attrs.define(eq=False)
class FakeHost:
    """What a taker and an applier want of a node."""

    apply_threads: ApplyThreads = attrs.Factory(lambda: ApplyThreads(trio.CapacityLimiter(2), 0.2))
    snapshot_threads: trio.CapacityLimiter = attrs.Factory(lambda: trio.CapacityLimiter(2))
    snapshot_retry_interval: float = 1.0
    counters: Counters = attrs.Factory(Counters)
    events: Events = attrs.Factory(Events)

    @property
    def announcer(self) -> Announcer:
        return Announcer(self.counters, [self.events])


@attrs.define(eq=False)
class FakeCore:
    """Term 1 up to index 10, term 2 behind; a configuration per index."""

    snapshot: EntryId = NOTHING

    def term_at(self, index: int) -> int:
        return 1 if index <= 10 else 2

    def configuration_at(self, index: int) -> Configuration:
        return Configuration.bootstrap({1, 2, index + 100})


@attrs.define(eq=False)
class FakeGroup:
    """An applier and a taker, and turns for them."""

    machine: StateMachine
    shelf: Shelf = attrs.Factory(Shelf)
    host: FakeHost = attrs.Factory(FakeHost)
    config: GroupConfig = attrs.Factory(lambda: GroupConfig(snapshot_entries=5))
    core: FakeCore = attrs.Factory(FakeCore)
    taken: list[EntryId] = attrs.Factory(list)
    failure: Exception | None = None
    inbox: Inbox = attrs.field(init=False)
    applier: Applier = attrs.field(init=False)
    taker: SnapshotTaker = attrs.field(init=False)
    next_index: int = 1
    _changed: trio.Event = attrs.Factory(trio.Event)

    def __attrs_post_init__(self) -> None:
        self.host.events.listeners.append(self._tell)
        self.inbox = Inbox(100, 1 << 20)
        self.applier = Applier(
            KEY,
            1,
            self.machine,
            ValueCodec(),
            Proposals(),
            self.shelf,
            wake=self.inbox.run_again,
            threads=self.host.apply_threads,
        )
        host: Any = self.host
        core: Any = self.core
        self.taker = SnapshotTaker(KEY, self.machine, core, self.applier, self.shelf, self.config, host, self.inbox)

    def add(self, count: int, command: Any = "x") -> None:
        """`count` more entries are committed."""
        indexes = range(self.next_index, self.next_index + count)
        self.next_index += count
        self.applier.add([entry(index, command) for index in indexes])
        self.inbox.run_again()

    async def apply(self, count: int, command: Any = "x") -> None:
        self.add(count, command)
        await self.until(lambda: self.applier.applied_index == self.next_index - 1)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for what becomes true in a turn or with an event; without a timer, so that a mock clock goes on to those of the group."""
        while not condition():
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def install(self, at: EntryId) -> None:
        """The leader's snapshot takes the place of the log."""
        self.core.snapshot = at
        self.taker.saved(at)
        self.applier.restore(at)
        self.next_index = at.index + 1
        self.inbox.run_again()

    @property
    def failures(self) -> list[tuple[float, SnapshotFailed]]:
        return [(time, event) for time, event in self.host.events.seen if isinstance(event, SnapshotFailed)]

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            try:
                while True:
                    await self.inbox.wait()
                    for event in self.inbox.take():
                        if isinstance(event, SnapshotTaken):
                            self.taken.append(event.at)
                            self.core.snapshot = max(self.core.snapshot, event.at, key=lambda at: at.index)
                    self.applier.work(nursery)
                    self.taker.work(nursery)
                    self._tell()
            except Exception as error:  # noqa: BLE001
                self.failure = error
            finally:
                self.close()

    def close(self) -> None:
        error = trioraft.GroupStoppedError(7)
        self.applier.close(error)
        self.taker.close(error)


@asynccontextmanager
async def running(*groups: FakeGroup) -> AsyncIterator[None]:
    """The groups' turns, until the end of the block. They are stopped then, as a node would."""
    async with trio.open_nursery() as nursery:
        for group in groups:
            nursery.start_soon(group.run)
        yield
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], Any]) -> None:
    """Wait for what a thread brings about."""
    while not condition():
        await trio.sleep(0.001)


class Gate:
    """Holds up a thread until it is opened; opens by itself at the end of a `with` block, so that no thread is left behind."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._reached = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()

    def pass_through(self) -> None:
        self._reached.set()
        if not self._open.wait(30):
            raise RuntimeError("nobody opened the gate")

    def open(self) -> None:
        self._open.set()

    async def reached(self) -> None:
        await until(self._reached.is_set)
