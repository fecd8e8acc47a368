"""Restoring a machine from a snapshot: all of it as it was written, or a refusal that says where; and never anything after a stop."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from trioraft import StateMachine, StorageError
from trioraft._errors import CorruptSnapshotError, SnapshotError
from trioraft._types import EntryId, GroupKey
from trioraft.group._restoring import restore_machine
from trioraft.group._session_table import SessionTable

from .taking_kit import KEY, Gate, Recorder, Shelf, encoded, until

AT = EntryId(2, 10)
RECORDS = [[1, "one"], [2, "two"], [9, {"nine": [None, True, 9.5, b"9"]}]]


class Transactional(StateMachine):
    """Takes over a new state in one go, after the last record; and nothing if an exception comes out of the iterator."""

    def __init__(self) -> None:
        self.state: list[Any] = ["old"]

    def restore(self, records: Iterator[Any]) -> None:
        self.state = list(records)


async def restore(machine: StateMachine, shelf: Shelf, key: GroupKey = KEY, at: EntryId = AT, *, patience: float = 0.2) -> None:
    try:
        with trio.fail_after(30):
            await restore_machine(machine, SessionTable(()), shelf, key, at, trio.CapacityLimiter(1), patience=patience)
    finally:
        assert shelf.open_readers == 0


async def test_the_state_is_what_was_written() -> None:
    machine = Transactional()
    await restore(machine, Shelf({AT: encoded(RECORDS, AT)}))
    assert machine.state == RECORDS


async def test_a_snapshot_without_records_is_an_empty_state() -> None:
    machine = Transactional()
    await restore(machine, Shelf({AT: encoded([], AT)}))
    assert machine.state == []


async def test_sn_13_a_state_larger_than_memory_allows_goes_through_in_pieces() -> None:
    class Counting(StateMachine):
        count = size = 0

        def restore(self, records: Iterator[Any]) -> None:
            for record in records:
                self.count += 1
                self.size += len(record)

    blob = random.Random(5).randbytes(64 << 10)
    shelf, machine = Shelf({AT: encoded((blob for _ in range(512)), AT)}), Counting()
    tracemalloc.start()
    try:
        await restore(machine, shelf)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (machine.count, machine.size) == (512, 32 << 20)
    assert peak < 4 << 20


async def test_every_flipped_byte_is_a_refusal_that_names_path_and_offset() -> None:
    data = encoded(RECORDS, AT)
    for offset in range(len(data)):
        machine = Transactional()
        with pytest.raises(CorruptSnapshotError) as caught:
            await restore(machine, Shelf({AT: data[:offset] + bytes([data[offset] ^ 0x10]) + data[offset + 1 :]}))
        assert "shelf/10@2" in str(caught.value)
        assert 0 <= caught.value.offset <= offset
        assert machine.state == ["old"], f"a state was taken over with a flipped byte at {offset}"


async def test_every_length_but_the_whole_is_a_refusal() -> None:
    data = encoded(RECORDS, AT)
    for size in range(len(data)):
        machine = Transactional()
        with pytest.raises(CorruptSnapshotError):
            await restore(machine, Shelf({AT: data[:size]}))
        assert machine.state == ["old"]
    with pytest.raises(CorruptSnapshotError):
        await restore(Transactional(), Shelf({AT: data + b"\0"}))


def damaged_late() -> bytes:
    """A first record that is fine, and damage behind it."""
    data = bytearray(encoded([b"x" * (300 << 10), b"y" * (300 << 10)], AT))
    data[400 << 10] ^= 1
    return bytes(data)


async def test_damage_behind_what_the_machine_took_counts_too() -> None:
    class Early(Transactional):
        def restore(self, records: Iterator[Any]) -> None:
            self.state = [next(records)]

    machine = Early()
    with pytest.raises(CorruptSnapshotError):
        await restore(machine, Shelf({AT: damaged_late()}))
    assert machine.state == [b"x" * (300 << 10)], "it was there, and it does not count"
    await restore(Early(), Shelf({AT: encoded(RECORDS, AT)}))


async def test_a_machine_that_makes_light_of_damage_is_not_restored() -> None:
    class Careless(Transactional):
        def restore(self, records: Iterator[Any]) -> None:
            self.state = []
            while len(self.state) < 9:
                try:
                    self.state.append(next(records))
                except Exception:  # noqa: BLE001
                    self.state.append(None)

    with pytest.raises(CorruptSnapshotError):
        await restore(Careless(), Shelf({AT: damaged_late()}))


@pytest.mark.parametrize("key, at", [(GroupKey(8, 2), AT), (GroupKey(7, 1), AT), (KEY, EntryId(2, 11)), (KEY, EntryId(3, 10))], ids=str)
async def test_a_foreign_snapshot_is_refused_with_both_names_before_anything_is_touched(key: GroupKey, at: EntryId) -> None:
    machine = Transactional()
    with pytest.raises(CorruptSnapshotError) as caught:
        await restore(machine, Shelf({AT: encoded(RECORDS, at, key)}))
    assert all(name in str(caught.value) for name in (str(key), str(at), str(KEY), str(AT), "shelf/10@2"))
    assert machine.state == ["old"]


async def test_a_missing_snapshot_is_named() -> None:
    with pytest.raises(StorageError) as caught:
        await restore(Transactional(), Shelf())
    assert caught.value.kind == "missing"


async def test_a_disk_that_cannot_be_read_is_no_end_of_the_records() -> None:
    shelf, machine = Shelf({AT: encoded([b"x" * (300 << 10), b"y" * (300 << 10)], AT)}), Transactional()
    reads = 0

    def trouble(operation: str) -> None:
        nonlocal reads
        reads += operation == "read"
        if reads > 2:  # the first one is of the manifest
            raise StorageError("io", "shelf", "no")

    shelf.trouble = trouble
    with pytest.raises(StorageError) as caught:
        await restore(machine, shelf)
    assert caught.value.kind == "io"
    assert machine.state == ["old"]


class Mute(StateMachine):
    pass


async def test_a_machine_that_cannot_restore_is_told_what_to_define() -> None:
    with pytest.raises(SnapshotError, match=r"Mute must define restore\(\)"):
        await restore(Mute(), Shelf({AT: encoded(RECORDS, AT)}))


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), SystemExit(3), StopIteration(), KeyError("x")], ids=lambda error: type(error).__name__
)
async def test_what_restore_raises_names_the_snapshot(error: BaseException) -> None:
    class Failing(StateMachine):
        def restore(self, records: Iterator[Any]) -> None:
            next(records)
            raise error

    with pytest.raises(SnapshotError) as caught:
        await restore(Failing(), Shelf({AT: encoded(RECORDS, AT)}))
    assert caught.value.__cause__ is error
    assert all(text in str(caught.value) for text in ("Failing", "10@2", "shelf", type(error).__name__))


class TestCancelled:
    @pytest.mark.parametrize("swallows", [False, True])
    async def test_the_machine_is_stopped_at_its_next_record_and_nothing_counts(self, swallows: bool) -> None:
        with Gate() as gate:

            class Dogged(StateMachine):
                taken = 0
                outcome = "none"

                def restore(self, records: Iterator[Any]) -> None:
                    try:
                        for _ in records:
                            self.taken += 1
                            if self.taken == 2:
                                gate.pass_through()
                    except Exception:  # noqa: BLE001
                        self.outcome = "took it for one of its own"
                    except BaseException as error:
                        self.outcome = type(error).__name__
                        if not swallows:
                            raise

            machine, shelf = Dogged(), Shelf({AT: encoded([[n, "x"] for n in range(1000)], AT)})
            returned = False
            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:

                    async def task() -> None:
                        nonlocal returned
                        await restore(machine, shelf, patience=5)
                        returned = True

                    nursery.start_soon(task)
                    await gate.reached()
                    nursery.cancel_scope.cancel()
                    # After the task has heard of it, which it does first.
                    trio.lowlevel.current_trio_token().run_sync_soon(lambda: trio.lowlevel.current_trio_token().run_sync_soon(gate.open))
            assert not returned
            assert machine.taken == 2
            assert machine.outcome == "_StoppedError"

    async def test_a_machine_that_hangs_is_left_to_itself_after_a_while(self) -> None:
        with Gate() as gate:

            class Hanging(StateMachine):
                def restore(self, records: Iterator[Any]) -> None:
                    gate.pass_through()

            returned = False
            limiter = trio.CapacityLimiter(1)
            shelf = Shelf({AT: encoded(RECORDS, AT)})
            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:

                    async def task() -> None:
                        nonlocal returned
                        await restore_machine(Hanging(), SessionTable(()), shelf, KEY, AT, limiter, patience=0.05)
                        returned = True

                    nursery.start_soon(task)
                    await gate.reached()
                    nursery.cancel_scope.cancel()
            assert not returned
            assert (limiter.borrowed_tokens, shelf.open_readers) == (0, 0)

    async def test_a_file_is_not_closed_while_a_read_that_hangs_is_at_it(self) -> None:
        shelf, released = Shelf({AT: encoded(RECORDS, AT)}), trio.Event()
        reads = 0

        def trouble(operation: str) -> Any:
            nonlocal reads
            reads += operation == "read"
            return released.wait() if reads == 2 else None

        shelf.trouble = trouble
        machine = Transactional()
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    lambda: restore_machine(machine, SessionTable(()), shelf, KEY, AT, trio.CapacityLimiter(1), patience=0.05)
                )
                await until(lambda: reads == 2)
                nursery.cancel_scope.cancel()
            assert shelf.open_readers == 1
            released.set()
            await until(lambda: shelf.open_readers == 0)
        assert machine.state == ["old"]

    async def test_waiting_for_a_thread_is_left_at_once(self) -> None:
        limiter, machine = trio.CapacityLimiter(1), Recorder()
        shelf = Shelf({AT: encoded([[1, "x"]], AT)})
        async with limiter:
            with trio.move_on_after(0.05) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(lambda: restore_machine(machine, SessionTable(()), shelf, KEY, AT, limiter, patience=60))
        assert scope.cancelled_caught
        assert machine.seen == []
        assert shelf.open_readers == 0
