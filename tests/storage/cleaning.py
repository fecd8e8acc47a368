"""Random histories of groups whose log is cleaned meanwhile, power cuts at every step of them, and what may be found afterwards."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from typing import NamedTuple

import attrs
import trio
import trio.testing

from tests.storage import kit
from tests.storage.kit import Group, Listener, entries, installing, read_all, record
from trioraft._types import NOTHING, EntryId, GroupKey
from trioraft.core import Compaction, Entry, HardState
from trioraft.storage import DiskCall, GroupRecord, SimulatedDisk, WalStorage
from trioraft.storage._cleaner import CleanerStatistics
from trioraft.storage._simulated_disk import Keep
from trioraft.testing._storage_parts import called, joining

wal = partial(kit.wal, cleaning=True)

KEEPS: tuple[Keep, ...] = ("none", "all", "random")


class State(NamedTuple):
    """All that matters of one group at one moment."""

    incarnation: int
    """0: there never was one; negative: removed."""
    hard_state: HardState = HardState()
    start: EntryId = NOTHING
    snapshot: EntryId = NOTHING
    log: tuple[str, ...] = ()
    """Behind `start`: position and payload of each."""
    number: EntryId = NOTHING
    """The newest replica number; of a removed one, the highest that is barred."""
    awaits_number: bool = False

    @property
    def last(self) -> int:
        return self.start.index + len(self.log)

    def term_at(self, index: int) -> int:
        if index == self.start.index:
            return self.start.term
        return int(self.log[index - self.start.index - 1].split()[0].split("@")[1])


def cleaning(storage: WalStorage) -> CleanerStatistics:
    """What the cleaner of an open storage has done."""
    assert storage._cleaner is not None
    return storage._cleaner.statistics()


def shown(entry: Entry) -> str:
    return f"{entry} {entry.payload.hex()}"


def snapshot_bytes(key: GroupKey, at: EntryId) -> bytes:
    return f"{key} {at} ".encode() * 40


@attrs.define(eq=False)
class Story:
    """What one group was told to do: its state after each step, and how many of them are certain."""

    number: int
    states: list[State] = attrs.Factory(lambda: [State(0)])
    certain: int = 0
    """The last state of which somebody was told that it is durable."""
    sequences: list[tuple[int, int]] = attrs.Factory(list)
    """Number of a write, number of the state after it."""
    group: Group | None = None

    @property
    def state(self) -> State:
        return self.states[-1]

    @property
    def key(self) -> GroupKey:
        return GroupKey(self.number, abs(self.state.incarnation))

    def allowed(self) -> list[State]:
        """What recovery may find."""
        confirmed = 0 if self.group is None else self.group.listener.confirmed
        return self.states[max([self.certain, *(state for sequence, state in self.sequences if sequence <= confirmed)]) :]


class Moment(NamedTuple):
    """The disk at one step, and what recovery may find of each group."""

    disk: SimulatedDisk
    step: str
    allowed: dict[int, list[State]]


class History:
    """Groups on one disk, and everything that they did."""

    def __init__(self, rng: random.Random, groups: int = 3, **options: int | bool) -> None:
        self.rng, self.options = rng, options
        self.disk = SimulatedDisk(rng)
        self.stories = {number: Story(number) for number in range(1, groups + 1)}
        self.moments: list[Moment] = []
        self.storage = wal(self.disk.mount(), **options)

    async def note(self, call: DiskCall) -> None:
        allowed = {number: story.allowed() for number, story in self.stories.items()}
        step = f"{call.number} {call.verb} {call.path}"
        self.moments.append(Moment(self.disk.fork(random.Random(self.rng.random())), step, allowed))

    # -- what groups do -----------------------------------------------------------------------------------------------------------

    async def create(self, number: int) -> None:
        story = self.stories[number]
        story.states.append(State(abs(story.state.incarnation) + 1))
        await self._begin(story, record(story.key))

    async def come_back(self, number: int) -> None:
        """Join the group that was removed."""
        story = self.stories[number]
        story.states.append(State(abs(story.state.incarnation), number=story.state.number, awaits_number=True))
        await self._begin(story, joining(story.key, story.state.number))

    async def _begin(self, story: Story, made: GroupRecord) -> None:
        number = story.number
        await self.storage.create_group(made)
        story.certain = len(story.states) - 1
        log, listener = self.storage.get_log_storage(number), Listener()
        log.attach(listener)
        story.group, story.sequences = Group(self.storage, story.key, log, listener), []

    async def remove(self, number: int) -> None:
        story = self.stories[number]
        key = story.key
        story.states.append(State(-key.incarnation, number=story.state.number))
        await self.storage.remove_group(key)
        story.certain, story.group = len(story.states) - 1, None

    def write(
        self, number: int, *, low: int | None = None, count: int | None = None, size: int | None = None, learns: bool = False
    ) -> None:
        """Entries at the end of the log, or in place of its end; maybe with a new replica number."""
        story, rng = self.stories[number], self.rng
        assert story.group is not None
        state = story.state
        if low is None:
            low = rng.randint(max(state.start.index + 1, state.last - 2), state.last + 1)
        before = state.term_at(low - 1)
        term = max(state.hard_state.term, before, 1) + rng.choice((0, 0, 1)) + (low <= state.last)
        count = rng.randint(1, 4) if count is None else count
        new = entries(story.key, low, low + count, term, rng.randbytes(rng.choice((0, 20, 200)) if size is None else size))
        hard_state = HardState(term, rng.choice((None, 2))) if term > state.hard_state.term else None
        log = (*state.log[: low - 1 - state.start.index], *map(shown, new))
        me = None
        if learns:
            me = called(state.number.term + 1, low)
            state = state._replace(number=me.replica, awaits_number=False)
        story.states.append(state._replace(hard_state=hard_state or state.hard_state, log=log))
        story.sequences.append((story.group.write(*new, state=hard_state, me=me), len(story.states) - 1))

    async def compact(self, number: int, index: int | None = None, keep: int = 0) -> None:
        """Take a snapshot, and cut the log."""
        story = self.stories[number]
        assert story.group is not None
        state = story.state
        index = self.rng.randint(state.start.index, state.last) if index is None else index
        if index <= state.snapshot.index:
            return
        at = EntryId(state.term_at(index), index)
        await self._write_snapshot(story, at)
        cut = max(state.start.index, index - keep)
        start = EntryId(state.term_at(cut), cut)
        story.states.append(state._replace(start=start, snapshot=at, log=state.log[cut - state.start.index :]))
        story.group.log.compact(Compaction(at, start, index))

    async def install(self, number: int) -> None:
        """A snapshot from elsewhere, over a log that ends before it, differs from it, or goes on behind it."""
        story, rng = self.stories[number], self.rng
        assert story.group is not None
        state = story.state
        index = rng.randint(state.snapshot.index + 1, max(state.last, state.snapshot.index) + 5)
        fits = state.start.index <= index <= state.last and rng.random() < 0.5
        term = state.term_at(index) if fits else max(state.hard_state.term, 1) + 1
        at = EntryId(term, index)
        await self._write_snapshot(story, at)
        hard_state = HardState(term) if term > state.hard_state.term else None
        log = state.log[index - state.start.index :] if fits else ()
        story.states.append(state._replace(hard_state=hard_state or state.hard_state, start=at, snapshot=at, log=log))
        story.sequences.append((story.group.write(state=hard_state, install=installing(at)), len(story.states) - 1))

    async def _write_snapshot(self, story: Story, at: EntryId) -> None:
        assert story.group is not None
        writer = await story.group.log.snapshots.create(at)
        await writer.append(snapshot_bytes(story.key, at))
        await writer.commit()

    async def furnish(self) -> None:
        """Groups 1 and 2; of group 1 there are files at rest, and snapshots."""
        await self.create(1)
        await self.create(2)
        for _ in range(3):
            for _ in range(4):
                self.write(1, low=self.stories[1].state.last + 1, size=150)
                self.write(2)
                await self.confirm(2)
            await self.compact(1, keep=20)
            await trio.testing.wait_all_tasks_blocked()
        assert "logs" in self.disk.names(f"{kit.BASE}/group-1")

    async def confirm(self, number: int) -> None:
        story = self.stories[number]
        if story.group is not None and story.sequences:
            await story.group.listener.wait_confirmed(story.sequences[-1][0])

    async def live(self, steps: int) -> None:
        """Do anything, some of it at once, some of it after the cleaner has come to rest."""
        rng = self.rng
        for number in self.stories:
            await self.create(number)
        for _ in range(steps):
            number = rng.choice(sorted(self.stories))
            if self.stories[number].state.incarnation < 0:
                await (self.create if rng.random() < 0.5 else self.come_back)(number)
            choice = rng.random()
            if choice < 0.65:
                for _ in range(rng.randint(1, 3)):
                    self.write(number, learns=rng.random() < 0.1)
            elif choice < 0.78:
                await self.compact(number, keep=rng.choice((0, 2, 5)))
            elif choice < 0.88:
                await self.install(number)
            elif choice < 0.93:
                await self.remove(number)
            if rng.random() < 0.5:
                await self.confirm(number)
            if rng.random() < 0.3:
                await trio.testing.wait_all_tasks_blocked()


# -- what is found ---------------------------------------------------------------------------------------------------------------------


async def found_by(storage: WalStorage, number: int) -> State:
    """A group as a storage has it; its entries are read, and its snapshot is opened."""
    found = storage.recovered.get(number)
    if found is None:
        return State(0)
    assert found.failure is None, str(found.failure)
    if found.record is None:
        assert found.tombstone is not None
        return State(-found.tombstone.incarnation, number=found.barred)
    durable, key = found.durable, found.record.key
    log = storage.get_log_storage(number)
    if durable.snapshot != NOTHING:
        reader = await log.snapshots.open(durable.snapshot)
        assert await reader.read(0, reader.size) == snapshot_bytes(key, durable.snapshot)
        reader.close()
    read = await read_all(log, found)
    log_found = tuple(map(shown, read))
    start, me = durable.terms.start, found.record.me
    return State(key.incarnation, durable.hard_state, start, durable.snapshot, log_found, me.replica, found.record.awaits_number)


async def check(moment: Moment, keep: Keep, *, goes_on: bool = False, **options: int | bool) -> None:
    """Cut the power; what is there then must be what may be there, and stay so."""
    disk = moment.disk.fork(random.Random(f"{moment.step}{keep}"))
    disk.crash(keep)
    where = f"after a power cut at {moment.step}, keeping {keep}"
    storage = wal(disk.mount(), seed=1, **options)
    await storage.open(1, "demo")
    found = {}
    for number, states in moment.allowed.items():
        found[number] = await found_by(storage, number)
        assert found[number] in states, f"group {number} {where}: {found[number]} is none of {states}"
    if goes_on:
        # The cleaner goes on, and changes nothing of that.
        async with trio.open_nursery() as nursery:
            await nursery.start(storage.serve)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    await storage.aclose()
    disk.crash("none")
    again = wal(disk.mount(), seed=2, **options)
    await again.open(1, "demo")
    for number, state in found.items():
        assert await found_by(again, number) == state, f"group {number}, the second time, {where}"
    await again.aclose()


async def check_all(history: History, *, share: float = 1.0, goes_on: float = 0.1) -> Counter[str]:
    """Cut the power at each step that changes a directory or a group's own files, and at a share of the others."""
    counts: Counter[str] = Counter()
    rng = random.Random(len(history.moments))
    for moment in history.moments:
        _, verb, path = moment.step.split(" ", 2)
        is_usual = (verb in ("write", "sync") and "group-" not in path) or verb in ("open", "read", "size", "list")
        if is_usual and rng.random() >= share:
            continue
        for keep in KEEPS:
            counts[f"{verb} {'group' if 'group-' in path else 'log'}"] += 1
            await check(moment, keep, goes_on=rng.random() < goes_on, **history.options)
    return counts


async def check_removals(history: History) -> Counter[str]:
    """Cut the power at each step, some of which took a group's own files away."""
    history.disk.hook = None
    counts = await check_all(history)
    print(f"{len(history.moments)} steps, {sum(counts.values())} power cuts: {dict(counts)}")
    assert counts["remove group"] > 5
    assert counts["rmdir group"] > 5
    return counts
