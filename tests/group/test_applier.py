"""The applier: commands, and what else is done with a machine between them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import trio

import trioraft
from trioraft import ApplyContext, StateMachineError, StorageError
from trioraft._errors import CorruptSnapshotError, SnapshotError
from trioraft._types import EntryId
from trioraft.core import Entry, EntryKind
from trioraft.group._applier import SLICE, Applier, ApplyThreads
from trioraft.group._codec import ValueCodec
from trioraft.group._proposals import Proposals

from .taking_kit import KEY, BlockingRecorder, Caller, Gate, Recorder, Shelf, encoded, entry

AT = EntryId(2, 10)


class Bench:
    """An applier whose turns are called by hand."""

    def __init__(self, machine: Recorder, patience: float = 0.2) -> None:
        self.machine, self.proposals, self.shelf = machine, Proposals(), Shelf()
        self.wakes = 0
        self.threads = ApplyThreads(trio.CapacityLimiter(2), patience)
        self.applier = Applier(KEY, 1, machine, ValueCodec(), self.proposals, self.shelf, wake=self._wake, threads=self.threads)

    def _wake(self) -> None:
        self.wakes += 1

    async def turn(self) -> None:
        """One turn, and all that it starts. Raises what stops the group."""
        failure: Exception | None = None
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                try:
                    self.applier.work(nursery)
                except Exception as error:  # noqa: BLE001
                    failure = error
        if failure is not None:
            raise failure


class TestCommands:
    async def test_results_and_declared_errors_reach_their_callers(self) -> None:
        bench = Bench(Recorder())
        good, bad = Caller(), Caller()
        bench.proposals.add(EntryId(1, 1), good)
        bench.proposals.add(EntryId(1, 2), bad)
        bench.applier.add([entry(1), entry(2, "declared"), entry(3, kind=EntryKind.NOOP)])
        await bench.turn()
        assert good.result == "x"
        assert isinstance(bad.error, ValueError)
        assert bench.applier.applied_index == 3
        assert bench.machine.seen == [(1, "x")], "a no-op is not the machine's business"

    async def test_a_long_replay_is_done_in_slices(self) -> None:
        bench = Bench(Recorder())
        bench.applier.add([entry(i) for i in range(1, 2 * SLICE + 2)])
        for done in (SLICE, 2 * SLICE, 2 * SLICE + 1):
            await bench.turn()
            assert bench.applier.applied_index == done
        assert bench.wakes == 2, "woken for the rest, and not after it"

    async def test_what_was_applied_is_counted_in_bytes(self) -> None:
        bench = Bench(Recorder())
        entries = [entry(1, "one"), entry(2, "three"), entry(3, kind=EntryKind.NOOP)]
        bench.applier.add(entries)
        await bench.turn()
        assert bench.applier.applied_bytes == sum(len(each.payload) for each in entries)

    @pytest.mark.parametrize("machine", [Recorder, BlockingRecorder])
    async def test_an_undeclared_exception_names_its_index_and_keeps_what_was_done_before(self, machine: type[Recorder]) -> None:
        bench = Bench(machine())
        bench.applier.add([entry(1), entry(2, "bug"), entry(3)])
        with pytest.raises(StateMachineError) as caught:
            await bench.turn()
            await bench.turn()  # what happened in a thread is heard of one turn later
        assert caught.value.index == 2
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert bench.applier.applied_index == 1

    async def test_a_command_that_cannot_be_decoded_stops_like_a_failing_machine(self) -> None:
        bench = Bench(Recorder())
        bench.applier.add([Entry(1, 1, EntryKind.COMMAND, b"\xff")])
        with pytest.raises(StateMachineError):
            await bench.turn()

    async def test_a_blocking_machine_runs_in_a_thread_one_batch_at_a_time(self) -> None:
        bench, caller = Bench(BlockingRecorder()), Caller()
        bench.proposals.add(EntryId(1, 2), caller)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                bench.applier.add([entry(1), entry(2)])
                bench.applier.work(nursery)
                assert bench.applier.applied_index == 0
                bench.applier.add([entry(3)])
                bench.applier.work(nursery)  # the first batch still runs
        assert bench.applier.applied_index == 2
        assert caller.result == "x"
        assert bench.wakes
        await bench.turn()
        assert bench.applier.applied_index == 3

    async def test_those_who_wait_for_an_index_are_told(self) -> None:
        bench = Bench(Recorder())
        first, second, late = Caller(), Caller(), Caller()
        bench.applier.notify(2, second)
        bench.applier.notify(1, first)
        bench.applier.notify(9, late)
        first.result = second.result = "waiting"
        bench.applier.add([entry(1), entry(2)])
        await bench.turn()
        assert (first.result, second.result) == (1, 2)
        bench.applier.close(trioraft.GroupStoppedError(7))
        assert isinstance(late.error, trioraft.GroupStoppedError)


class Slow(BlockingRecorder):
    """Waits in each batch, and notes whether anything else is done with it meanwhile."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate
        self.at_once = threading.Lock()
        self.threads: set[int | None] = set()

    def apply(self, command: Any, context: ApplyContext) -> Any:
        with self._alone():
            if command == "wait":
                self.gate.pass_through()
            return super().apply(command, context)

    def snapshot(self) -> Iterable[Any]:
        with self._alone():
            self.threads.add(threading.current_thread().ident)
            if self.seen[-1][1] == "view waits":
                self.gate.pass_through()
            return super().snapshot()

    def restore(self, records: Iterator[Any]) -> None:
        with self._alone():
            super().restore(records)

    def _alone(self) -> Slow:
        return self

    def __enter__(self) -> None:
        if not self.at_once.acquire(blocking=False):
            raise RuntimeError("two things at once")

    def __exit__(self, *_: object) -> None:
        self.at_once.release()


class TestRestoring:
    @pytest.mark.parametrize("machine", [Recorder, BlockingRecorder])
    async def test_rd_5_a_snapshot_replaces_the_state_and_frees_those_who_wait(self, machine: type[Recorder]) -> None:
        bench = Bench(machine())
        bench.shelf.files[AT] = encoded([[9, "from afar"]], AT)
        in_it, behind_it, reader, late = Caller(), Caller(), Caller(), Caller()
        bench.proposals.add(EntryId(1, 9), in_it)
        bench.proposals.add(EntryId(2, 11), behind_it)
        bench.applier.notify(10, reader)
        bench.applier.notify(12, late)
        reader.result = late.result = "waiting"
        bench.applier.add([entry(1), entry(2)])
        bench.applier.restore(AT)
        bench.applier.add([entry(11, "after", term=2)])
        await bench.turn()
        assert bench.applier.applied_index == 10
        assert bench.machine.seen == [(9, "from afar")]
        assert isinstance(in_it.error, trioraft.OutcomeUnknownError)
        assert reader.result == 10
        await bench.turn()
        assert bench.machine.seen == [(9, "from afar"), (11, "after")]
        assert behind_it.result == "after"
        assert late.result == "waiting"

    async def test_a_start_from_a_snapshot_counts_from_there_once_it_is_restored(self) -> None:
        bench, reader = Bench(Recorder()), Caller()
        bench.shelf.files[AT] = encoded([[9, "kept"]], AT)
        bench.applier.begin(AT.index, AT)
        assert bench.wakes == 1, "nobody else would wake the driver of a group that has just started"
        reader.result = "waiting"
        bench.applier.notify(10, reader)
        assert (bench.applier.applied_index, reader.result) == (0, "waiting")
        await bench.turn()
        assert (bench.applier.applied_index, reader.result) == (10, 10)

    async def test_a_durable_machine_starts_where_it_stands(self) -> None:
        bench = Bench(Recorder())
        bench.applier.begin(12, None)
        assert bench.applier.applied_index == 12

    async def test_a_batch_that_runs_is_finished_first(self) -> None:
        with Gate() as gate:
            bench = Bench(Slow(gate))
            bench.shelf.files[AT] = encoded([[9, "from afar"]], AT)
            caller = Caller()
            bench.proposals.add(EntryId(1, 1), caller)
            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    bench.applier.add([entry(1, "wait"), entry(2)])
                    bench.applier.work(nursery)
                    await gate.reached()
                    bench.applier.restore(AT)
                    bench.applier.work(nursery)
                    gate.open()
            assert bench.applier.applied_index == 2
            assert caller.result == "wait", "it was applied, and this is its result"
            await bench.turn()
            assert bench.applier.applied_index == 10
            assert bench.machine.seen == [(9, "from afar")]

    async def test_nothing_is_applied_before_the_snapshot_is_whole(self) -> None:
        bench = Bench(Recorder())
        data = encoded([[9, "from afar"]], AT)
        bench.shelf.files[AT] = data[:40] + bytes([data[40] ^ 1]) + data[41:]
        waiting = Caller()
        waiting.result = "waiting"
        bench.applier.notify(10, waiting)
        bench.applier.restore(AT)
        bench.applier.add([entry(11)])
        await bench.turn()
        assert (bench.applier.applied_index, waiting.result) == (0, "waiting")
        with pytest.raises(CorruptSnapshotError):
            await bench.turn()

    async def test_a_newer_snapshot_makes_up_for_one_that_has_gone(self) -> None:
        bench = Bench(Recorder())
        newer = EntryId(2, 20)
        bench.shelf.files[newer] = encoded([[19, "newer"]], newer)
        bench.applier.restore(AT)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                bench.applier.work(nursery)
                bench.applier.restore(newer)
        await bench.turn()
        assert bench.applier.applied_index == 20
        assert bench.machine.seen == [(19, "newer")]

    async def test_a_missing_snapshot_is_the_failure_of_the_group(self) -> None:
        bench = Bench(Recorder())
        bench.applier.restore(AT)
        await bench.turn()
        with pytest.raises(StorageError) as caught:
            await bench.turn()
        assert caught.value.kind == "missing"

    @pytest.mark.parametrize("opened", [True, False])
    async def test_a_restore_that_is_stopped_never_counts(self, opened: bool) -> None:
        with Gate() as gate:

            class Hanging(Recorder):
                def restore(self, records: Iterator[Any]) -> None:
                    super().restore(records)
                    gate.pass_through()

            bench, caller = Bench(Hanging()), Caller()
            bench.shelf.files[AT] = encoded([[9, "x"]], AT)
            bench.proposals.add(EntryId(1, 5), caller)
            bench.applier.restore(AT)
            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    bench.applier.work(nursery)
                    await gate.reached()
                    bench.applier.close(trioraft.GroupStoppedError(7))
                    if opened:
                        gate.open()
            assert bench.applier.applied_index == 0
            assert caller.error is None, "whoever stops the group answers its callers"


class TestViews:
    @pytest.mark.parametrize("machine", [Recorder, BlockingRecorder])
    async def test_a_view_shows_exactly_what_was_applied(self, machine: type[Recorder]) -> None:
        bench = Bench(machine())
        total = 3 * SLICE
        bench.applier.add([entry(i) for i in range(1, total + 1)])
        seen: list[tuple[int, int]] = []

        async def look() -> None:
            for _ in range(2):
                index, view = await bench.applier.take_view(lambda index: index)
                seen.append((index, len(list(view)) - 1))
                await trio.sleep(0.002)

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                while len(seen) < 2 or bench.applier.applied_index < total:
                    bench.applier.work(nursery)
                    await trio.sleep(0.002)
        assert all(index == count for index, count in seen)

    async def test_a_blocking_machine_shows_itself_in_its_thread_between_two_batches(self) -> None:
        with Gate() as gate:
            machine = Slow(gate)
            bench = Bench(machine)
            views: list[Any] = []

            async def look() -> None:
                views.append(await bench.applier.take_view(lambda index: index))

            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    bench.applier.add([entry(1, "wait"), entry(2)])
                    bench.applier.work(nursery)
                    await gate.reached()
                    nursery.start_soon(look)
                    await trio.sleep(0.01)
                    bench.applier.add([entry(3)])
                    bench.applier.work(nursery)
                    assert not views
                    gate.open()
                    while bench.applier.applied_index < 3:
                        bench.applier.work(nursery)
                        await trio.sleep(0.001)
            index, view = views[0]
            assert index == len(list(view)) - 1
            assert threading.main_thread().ident not in machine.threads

    async def test_no_batch_runs_while_a_view_is_taken_in_the_thread(self) -> None:
        with Gate() as gate:
            bench = Bench(Slow(gate))
            views: list[Any] = []

            async def look() -> None:
                views.append(await bench.applier.take_view(lambda index: index))

            bench.applier.add([entry(1, "view waits")])
            await bench.turn()
            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(look)
                    await trio.sleep(0.01)
                    bench.applier.work(nursery)
                    await gate.reached()
                    bench.applier.add([entry(2)])
                    bench.applier.work(nursery)
                    assert bench.applier.applied_index == 1
                    gate.open()
            await bench.turn()
            assert bench.applier.applied_index == 2
            assert views[0][0] == 1
            assert list(views[0][1]) == [0, (1, "view waits")], "no sessions, then the machine's records"

    async def test_a_view_waits_for_a_restore(self) -> None:
        bench = Bench(Recorder())
        bench.shelf.files[AT] = encoded([[9, "from afar"]], AT)
        bench.applier.restore(AT)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                views: list[Any] = []

                async def look() -> None:
                    views.append(await bench.applier.take_view(lambda index: index))

                nursery.start_soon(look)
                await trio.sleep(0.01)
                while not views:
                    bench.applier.work(nursery)
                    await trio.sleep(0.001)
        assert views[0][0] == 10
        assert list(views[0][1]) == [0, (9, "from afar")]

    # On the event loop, SystemExit means what it says.
    @pytest.mark.parametrize(
        "blocking, error",
        [(False, RuntimeError("no")), (True, RuntimeError("no")), (True, SystemExit(1))],
        ids=["inline", "thread", "exit"],
    )
    async def test_what_snapshot_raises_is_the_business_of_whoever_wants_it(self, blocking: bool, error: BaseException) -> None:
        class Failing(Recorder):
            def snapshot(self) -> Iterable[Any]:
                raise error

        Failing.blocking = blocking
        bench = Bench(Failing())
        bench.applier.add([entry(1)])
        await bench.turn()
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:

                async def look() -> None:
                    with pytest.raises(RuntimeError if isinstance(error, Exception) else SnapshotError):
                        await bench.applier.take_view(lambda index: index)

                nursery.start_soon(look)
                await trio.sleep(0.01)
                bench.applier.work(nursery)
        bench.applier.add([entry(2)])
        await bench.turn()
        assert bench.applier.applied_index == 2

    async def test_whoever_waits_for_a_view_hears_of_the_end_and_may_leave(self) -> None:
        bench = Bench(Recorder())
        with trio.fail_after(10):
            with trio.move_on_after(0.01):
                await bench.applier.take_view(lambda index: index)
            async with trio.open_nursery() as nursery:
                bench.applier.work(nursery)  # and takes no view for somebody who has left

                async def look() -> None:
                    with pytest.raises(trioraft.GroupStoppedError):
                        await bench.applier.take_view(lambda index: index)

                nursery.start_soon(look)
                await trio.sleep(0.01)
                bench.applier.close(trioraft.GroupStoppedError(7))
