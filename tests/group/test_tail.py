"""The stream of what is applied, over a log whose entries are in memory, on the disk, or gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing

from trioraft import AppliedEntry, ConfigError, GroupStoppedError, Reset, StorageError
from trioraft._types import EntryId
from trioraft.core import Entry, EntryKind, LoadEntries, Raft
from trioraft.group._codec import ValueCodec
from trioraft.group._session_table import encode_call, encode_open
from trioraft.group._tail import Tail
from trioraft.storage import LogStorage
from trioraft.wire import encode_value

from .taking_kit import Recorder, entry
from .test_applier import Bench


@attrs.define(eq=False)
class CutLog:
    """A log without an end, of which some are behind a snapshot, and some on the disk only."""

    start: int = 0
    evicted: int = 0
    snapshot_index: int = 0
    applier: Any = attrs.Factory(lambda: Bench(Recorder()).applier)
    reads: list[LoadEntries] = attrs.Factory(list)
    trouble: Any = None

    def tail(self, first: int) -> Tail:
        return Tail(first, cast(Raft, self), cast(LogStorage, SimpleNamespace(read=self._read)), ValueCodec(), self.applier)

    @property
    def snapshot(self) -> EntryId:
        return EntryId(1, self.snapshot_index)

    @property
    def log(self) -> Any:
        return SimpleNamespace(start=EntryId(1, self.start), evicted_index=self.evicted, slice=self._slice)

    def _slice(self, first: int, bytes_max: int, entries_max: int) -> tuple[tuple[Entry, ...], int]:
        assert first > self.evicted
        assert entries_max > 0
        return tuple(entry(index, index) for index in range(first, first + entries_max)), 0

    async def _read(self, load: LoadEntries) -> tuple[Entry, ...]:
        await trio.lowlevel.checkpoint()
        self.reads.append(load)
        if self.trouble is not None:
            await self.trouble()
        if load.first <= self.start:
            return ()
        return tuple(entry(index, index) for index in range(load.first, min(load.last, load.first + 9) + 1))

    def apply_to(self, index: int) -> None:
        self.applier._advance(index)


async def take(tail: Tail, count: int) -> list[Any]:
    return [await anext(tail) for _ in range(count)]


def numbers(tailed: list[Any]) -> list[Any]:
    return [seen.command if isinstance(seen, AppliedEntry) else seen for seen in tailed]


@pytest.fixture
def bench() -> CutLog:
    return CutLog()


async def test_nothing_comes_before_it_is_applied_and_nothing_twice(bench: CutLog) -> None:
    tail = bench.tail(3)
    with trio.fail_after(5):
        bench.apply_to(5)
        assert numbers(await take(tail, 3)) == [3, 4, 5]
        with trio.move_on_after(0) as scope:
            await anext(tail)
        assert scope.cancelled_caught
        assert bench.applier.waiting == 0
        bench.apply_to(1000)
        assert numbers(await take(tail, 995)) == list(range(6, 1001)), "in pieces, and without a hole"


async def test_what_is_not_in_memory_is_read_from_the_disk_and_a_cancelled_read_skips_nothing(bench: CutLog) -> None:
    bench.evicted = 30
    bench.apply_to(40)
    tail = bench.tail(1)
    with trio.fail_after(5):
        bench.trouble = trio.sleep_forever
        with trio.move_on_after(0.01):
            await anext(tail)
        bench.trouble = None
        assert numbers(await take(tail, 40)) == list(range(1, 41))
    assert all(load.last <= 40 for load in bench.reads)


async def test_a_log_that_is_cut_is_told_and_the_stream_goes_on_behind_the_snapshot(bench: CutLog) -> None:
    bench.start, bench.evicted, bench.snapshot_index = 20, 20, 25
    bench.apply_to(30)
    tail = bench.tail(1)
    with trio.fail_after(5):
        assert numbers(await take(tail, 3)) == [Reset(EntryId(1, 25)), 26, 27]
        assert numbers(await take(bench.tail(21), 2)) == [21, 22], "what is there is not skipped"


async def test_a_log_that_is_cut_while_it_is_read_is_told(bench: CutLog) -> None:
    bench.evicted = 30
    bench.apply_to(40)

    async def cut() -> None:
        bench.start = bench.evicted = bench.snapshot_index = 35
        await trio.lowlevel.checkpoint()

    bench.trouble = cut
    with trio.fail_after(5):
        assert numbers(await take(bench.tail(1), 2)) == [Reset(EntryId(1, 35)), 36]


async def test_a_snapshot_counts_when_it_is_in_the_machine(bench: CutLog) -> None:
    bench.apply_to(10)
    bench.start = bench.evicted = bench.snapshot_index = 100
    tail, seen = bench.tail(5), list[Any]()

    async def read() -> None:
        seen.append(await anext(tail))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            assert seen == []
            bench.apply_to(100)
        assert seen == [Reset(EntryId(1, 100))]


async def test_commands_are_decoded_and_the_groups_own_business_has_none(bench: CutLog, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = (
        Entry(1, 1, EntryKind.NOOP, b""),
        Entry(2, 1, EntryKind.COMMAND, encode_value(["set", "x"])),
        Entry(3, 2, EntryKind.SESSION, encode_open(8)),
        Entry(4, 2, EntryKind.SESSION, encode_call(3, 1, 0, encode_value("in a session"))),
    )
    monkeypatch.setattr(CutLog, "_slice", lambda self, first, bytes_max, entries_max: (entries, 0))
    bench.apply_to(4)
    with trio.fail_after(5):
        assert await take(bench.tail(1), 4) == [
            AppliedEntry(1, 1, False),
            AppliedEntry(2, 1, True, ["set", "x"]),
            AppliedEntry(3, 2, False),
            AppliedEntry(4, 2, True, "in a session"),
        ]


async def test_a_disk_that_cannot_be_read_and_a_replica_that_stops(bench: CutLog) -> None:
    bench.evicted = 30
    bench.apply_to(40)

    async def fail() -> None:
        raise StorageError("io", "wal", "broken")

    bench.trouble = fail
    tail = bench.tail(1)
    with trio.fail_after(5):
        with pytest.raises(StorageError):
            await anext(tail)
        bench.applier.close(GroupStoppedError(7))
        with pytest.raises(GroupStoppedError):
            await anext(tail)


@pytest.mark.parametrize("index", [0, -1, True, "1", 1.0])
def test_an_index_is_that_of_an_entry(bench: CutLog, index: Any) -> None:
    with pytest.raises(ConfigError):
        bench.tail(index)
