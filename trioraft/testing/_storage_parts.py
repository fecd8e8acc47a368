"""What the tests of a storage are made of: entries, a group as its driver would hold it, and what a start finds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, NamedTuple

import attrs
import trio

from .._errors import StorageError
from .._types import NOTHING, EntryId, GroupKey, Index, Member
from ..core import Configuration, Entry, EntryKind, HardState, InstallSnapshot, LoadEntries, encode_configuration
from ..storage import GroupRecord, LogStorage, MultiRaftStorage, WriteListener
from ..wire import seal

ONE, TWO, THREE = GroupKey(1), GroupKey(2), GroupKey(3)

NODE_ID: Final = 1
CLUSTER_ID: Final = "suite"

# Real seconds for one life of a storage in one test: what takes longer hangs.
LIFE_SECONDS: Final = 60.0


# --- claims: no test runner is needed to tell what is wrong ----------------------------------------------------------------------------


def holds(claim: object, what: str) -> None:
    if not claim:
        raise AssertionError(what)


def same(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise AssertionError(f"{what}\n  found    {found!r}\n  expected {expected!r}")


@contextmanager
def refused(error: type[BaseException], what: str, *, kind: str | None = None) -> Iterator[None]:
    """Inside, `error` is raised, of that `kind`."""
    try:
        yield
    except error as caught:
        if kind is not None:
            same(getattr(caught, "kind", None), kind, f"{what}: the kind of error")
    else:
        raise AssertionError(f"{what}: no {error.__name__} was raised")


# --- what is written -------------------------------------------------------------------------------------------------------------------


def entry(key: GroupKey, index: Index, term: int = 1, payload: bytes | None = None) -> Entry:
    made = Entry(index, term, EntryKind.COMMAND, f"{key} {index}@{term}".encode() if payload is None else payload)
    seal(key, made)
    return made


def entries(key: GroupKey, low: Index, high: Index, term: int = 1, payload: bytes | None = None) -> tuple[Entry, ...]:
    """Those with indexes in ``[low, high)``."""
    return tuple(entry(key, index, term, payload) for index in range(low, high))


def configuration_entry(key: GroupKey, index: Index, term: int, configuration: Configuration) -> Entry:
    made = Entry(index, term, EntryKind.CONFIGURATION, encode_configuration(configuration))
    seal(key, made)
    return made


def record(key: GroupKey, *voters: int) -> GroupRecord:
    return GroupRecord(key, Member(NODE_ID), Configuration.bootstrap(voters or (1, 2, 3)))


def joining(key: GroupKey, barred: EntryId = NOTHING) -> GroupRecord:
    """Of a replica that joins a group which others have begun."""
    return GroupRecord(key, Member(NODE_ID, barred), Configuration(()), awaits_number=True)


def called(term: int, index: Index) -> Member:
    """This node, with that replica number."""
    return Member(NODE_ID, EntryId(term, index))


def installing(at: EntryId, configuration: Configuration) -> InstallSnapshot:
    return InstallSnapshot(Member(2), Member(NODE_ID), at.term, at, configuration)


# --- a group that writes ---------------------------------------------------------------------------------------------------------------


class Listener:
    """A group's ear."""

    def __init__(self) -> None:
        self.heard: list[int | bool | StorageError] = []
        """Numbers as they are confirmed, errors, and True or False for space."""
        self.confirmed = 0
        self._change = trio.Event()

    def persisted(self, sequence: int) -> None:
        self.confirmed = max(self.confirmed, sequence)
        self._hear(sequence)

    def storage_failed(self, error: StorageError) -> None:
        self._hear(error)

    def space_changed(self, available: bool) -> None:
        self._hear(available)

    def _hear(self, what: int | bool | StorageError) -> None:
        self.heard.append(what)
        self._change.set()
        self._change = trio.Event()

    @property
    def failures(self) -> list[StorageError]:
        return [what for what in self.heard if isinstance(what, StorageError)]

    @property
    def space(self) -> list[bool]:
        return [what for what in self.heard if isinstance(what, bool)]

    async def wait_confirmed(self, sequence: int) -> None:
        while self.confirmed < sequence:
            if self.failures:
                raise AssertionError(f"write {sequence} was never confirmed") from self.failures[0]
            await self._change.wait()

    async def wait_failure(self) -> StorageError:
        while not self.failures:
            await self._change.wait()
        return self.failures[0]

    async def wait_heard(self, count: int) -> None:
        while len(self.heard) < count:
            await self._change.wait()


_: type[WriteListener] = Listener


@attrs.define(eq=False)
class HeldGroup:
    """A group as its driver would hold it."""

    storage: MultiRaftStorage
    key: GroupKey
    log: LogStorage
    listener: Listener
    term: int = 0

    def write(self, *new: Entry, state: HardState | None = None, install: InstallSnapshot | None = None, me: Member | None = None) -> int:
        """As a driver does it: no entry is written before its term is."""
        term = max([each.term for each in new] + ([install.at.term] if install else []), default=0)
        if state is None and term > self.term:
            state = HardState(term)
        if state is not None:
            self.term = state.term
        sequence = self.storage.next_sequence()
        self.log.write(sequence, state, new, install, me)
        return sequence

    async def write_and_wait(
        self, *new: Entry, state: HardState | None = None, install: InstallSnapshot | None = None, me: Member | None = None
    ) -> None:
        await self.listener.wait_confirmed(self.write(*new, state=state, install=install, me=me))

    async def save_snapshot(self, at: EntryId, data: bytes = b"snapshot") -> None:
        writer = await self.log.snapshots.create(at)
        await writer.append(data)
        await writer.commit()

    async def load_snapshot(self, at: EntryId) -> bytes:
        reader = await self.log.snapshots.open(at)
        try:
            return await reader.read(0, reader.size)
        finally:
            reader.close()


def hold(storage: MultiRaftStorage, key: GroupKey) -> HeldGroup:
    """Take hold of a group that exists."""
    log, listener = storage.get_log_storage(key.group_id), Listener()
    log.attach(listener)
    return HeldGroup(storage, key, log, listener, storage.recovered[key.group_id].durable.hard_state.term)


async def start_group(storage: MultiRaftStorage, key: GroupKey, made: GroupRecord | None = None) -> HeldGroup:
    """Make a group if it is not there, and take hold of it."""
    await storage.create_group(made or record(key))
    return hold(storage, key)


@asynccontextmanager
async def serving(storage: MultiRaftStorage) -> AsyncIterator[trio.Nursery]:
    """Open a storage and let it work for a while: one process's life."""
    with trio.fail_after(LIFE_SECONDS):
        await storage.open(NODE_ID, CLUSTER_ID)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(storage.serve)
                yield nursery
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LIFE_SECONDS):
                await storage.aclose()


# --- what is found ---------------------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """A group as a start finds it, in a form that can be compared."""

    record: GroupRecord | None
    tombstone: GroupKey | None
    hard_state: HardState = HardState()
    start: EntryId = EntryId(0, 0)
    snapshot: EntryId = EntryId(0, 0)
    commit: Index = 0
    log: tuple[tuple[Entry, bytes], ...] = ()
    """The entries behind `start`, each with its record."""
    configurations: tuple[Configuration, ...] = ()
    """The one in force at `start`, then at each entry behind it."""
    barred: EntryId = NOTHING

    @property
    def ids(self) -> list[str]:
        return [str(each) for each, _ in self.log]


async def find(storage: MultiRaftStorage, key: GroupKey) -> Found:
    """What this start has found of a group, its entries read back.

    Raises:
        AssertionError: the outline and the entries contradict each other.
        StorageError: it is damaged.
    """
    recovered = storage.recovered.get(key.group_id)
    if recovered is None:
        raise AssertionError(f"{key} is not known")
    if recovered.failure is not None:
        raise recovered.failure
    if recovered.record is None:
        return Found(None, recovered.tombstone, barred=recovered.barred)
    durable, terms = recovered.durable, recovered.durable.terms
    log = await read_log(storage.get_log_storage(key.group_id), terms.start.index + 1, terms.last_index)
    same([each.id for each in log], [EntryId(terms.at(index), index) for index in _behind(terms)], f"terms and entries of {key}")
    at: dict[Index, Configuration] = {0: recovered.record.configuration, **dict(durable.configurations)}
    configurations = [at[max(known for known in at if known <= index)] for index in (terms.start.index, *_behind(terms))]
    log_found = tuple((each, each.record) for each in log)
    return Found(
        recovered.record,
        recovered.tombstone,
        durable.hard_state,
        terms.start,
        durable.snapshot,
        durable.commit,
        log_found,
        tuple(configurations),
    )


def _behind(terms: Any) -> range:
    return range(terms.start.index + 1, terms.last_index + 1)


async def read_log(log: LogStorage, first: Index, last: Index, bytes_max: int = 1 << 20) -> tuple[Entry, ...]:
    """Read ``[first, last]`` piece by piece, as a driver would."""
    found: list[Entry] = []
    while first <= last:
        piece = await log.read(LoadEntries(None, first, last, bytes_max))
        holds(piece, f"entry {first} is in the log, which ends with {last}, and was not read")
        same([each.index for each in piece], list(range(first, first + len(piece))), "the indexes that were read")
        holds(piece[-1].index <= last, f"more was read than asked for: {piece[-1]} beyond {last}")
        holds(len(piece) == 1 or sum(len(each.payload) for each in piece) <= bytes_max, f"more was read than {bytes_max} bytes")
        found += piece
        first = piece[-1].index + 1
    return tuple(found)


async def find_all(storage: MultiRaftStorage) -> dict[int, Found]:
    return {group_id: await find(storage, GroupKey(group_id)) for group_id in storage.recovered}
