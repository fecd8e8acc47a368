"""Taking snapshots while a group goes on; and everything that users' code and the disk can do to it, of which nothing may stop the group.

Machines are snapshotted in threads, which virtual time does not wait for: where it matters, the clock moves on only when nothing has
happened for a moment.
"""

from __future__ import annotations

import gc
import itertools
import random
import tracemalloc
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

import trioraft
from trioraft import ApplyContext, GroupConfig, StateMachine, StorageError, WireError
from trioraft._errors import SnapshotError
from trioraft._types import EntryId
from trioraft.core import Configuration
from trioraft.group import _taking
from trioraft.group._applier import ApplyThreads
from trioraft.observe import SnapshotSaved
from trioraft.wire import _snapshot_file

from .taking_kit import KEY, BlockingRecorder, FakeCore, FakeGroup, FakeHost, Gate, Recorder, Shelf, decoded, encoded, running, until

NO_SESSIONS = 0
"""Before the machine's records: how many sessions there are, and then each."""


@pytest.fixture
def patient_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0.05)


class Mute(StateMachine):
    def apply(self, command: Any, context: ApplyContext) -> Any:
        return None


class Viewed(Recorder):
    """Its views pass through a function."""

    def __init__(self, through: Callable[[Iterator[Any]], Iterable[Any]]) -> None:
        super().__init__()
        self.through = through
        self.views = 0

    def snapshot(self) -> Iterable[Any]:
        self.views += 1
        return self.through(iter(list(self.seen)))


class TestWhen:
    @pytest.mark.parametrize("machine", [Recorder, BlockingRecorder])
    async def test_a_snapshot_is_taken_when_enough_entries_were_applied(self, machine: type[Recorder]) -> None:
        group = FakeGroup(machine())
        async with running(group):
            await group.apply(4)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not group.taken
            await group.apply(1)
            await group.until(lambda: group.taken)
            assert group.taken == [EntryId(1, 5)]
            await group.apply(4)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert len(group.taken) == 1
            await group.apply(2)
            await group.until(lambda: len(group.taken) == 2)
        assert group.taken[1] == EntryId(2, 11)
        records, manifest = decoded(group.shelf.files[EntryId(2, 11)])
        assert records == [NO_SESSIONS, *([index, "x"] for index in range(1, 12))]
        assert (manifest.group, manifest.at) == (KEY, EntryId(2, 11))
        assert manifest.configuration == Configuration.bootstrap({1, 2, 111}), "the one in force at its own index"
        assert group.host.counters.snapshots_taken == 2
        saved = [event for _, event in group.host.events.seen if isinstance(event, SnapshotSaved)]
        assert [(event.at, event.size, event.received) for event in saved] == [
            (at, len(group.shelf.files[at]), False) for at in group.taken
        ]
        assert group.shelf.unfinished == 0
        assert group.taker.running_since is None

    async def test_or_enough_bytes(self) -> None:
        group = FakeGroup(Recorder(), config=GroupConfig(snapshot_bytes=1000))
        async with running(group):
            await group.apply(1, "x" * 900)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not group.taken
            await group.apply(1, "x" * 900)
            await group.until(lambda: group.taken)
            await group.apply(1, "x" * 900)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert len(group.taken) == 1, "counted from the last snapshot"

    async def test_what_is_applied_while_one_is_taken_counts_for_the_next(self) -> None:
        with Gate() as gate:

            def through(records: Iterator[Any]) -> Iterator[Any]:
                if machine.views == 1:
                    gate.pass_through()
                yield from records

            machine = Viewed(through)
            group = FakeGroup(machine, config=GroupConfig(snapshot_bytes=1000))
            async with running(group):
                await group.apply(1, "x" * 1000)
                await gate.reached()
                await group.apply(1, "x" * 1000)
                gate.open()
                await group.until(lambda: len(group.taken) == 2)

    async def test_the_count_goes_on_from_the_snapshot_that_is_there_at_the_start(self) -> None:
        group = FakeGroup(Recorder(), core=FakeCore(EntryId(1, 3)))
        group.applier.begin(3, None)
        group.next_index = 4
        async with running(group):
            await group.apply(4)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not group.taken
            await group.apply(1)
            await group.until(lambda: group.taken)

    async def test_a_machine_without_snapshot_is_left_alone(self) -> None:
        group = FakeGroup(Mute())
        async with running(group):
            await group.apply(20)
            await trio.testing.wait_all_tasks_blocked(0.01)
            with pytest.raises(SnapshotError, match=r"Mute must define snapshot\(\)"):
                await group.taker.take()
        assert not group.host.events.seen


class TestFrozen:
    @pytest.mark.parametrize("blocking", [False, True])
    async def test_the_group_goes_on_and_the_view_stays(self, blocking: bool) -> None:
        with Gate() as gate:

            def through(records: Iterator[Any]) -> Iterator[Any]:
                yield next(records)
                if machine.views == 1:
                    gate.pass_through()
                yield from records

            machine = (type("BlockingViewed", (Viewed,), {"blocking": True}) if blocking else Viewed)(through)
            group = FakeGroup(machine)
            async with running(group):
                await group.apply(5)
                await gate.reached()
                await group.apply(30, "later")
                assert group.taken == []
                gate.open()
                await group.until(lambda: len(group.taken) == 2)
            records, manifest = decoded(group.shelf.files[group.taken[0]])
            assert records == [NO_SESSIONS, *([index, "x"] for index in range(1, 6))]
            assert manifest.at == EntryId(1, 5)
            assert manifest.configuration == Configuration.bootstrap({1, 2, 105})
            assert group.taken[1] == EntryId(2, 35), "the next one follows at once, because it is due"

    async def test_sn_13_memory_does_not_grow_with_the_state(self) -> None:
        generator = random.Random(5)
        machine = Viewed(lambda _: (generator.randbytes(64 << 10) for _ in range(512)))
        group = FakeGroup(machine, shelf=Shelf(keeps=False))
        tracemalloc.start()
        try:
            async with running(group):
                await group.apply(5)
                await group.until(lambda: group.taken)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert group.shelf.largest_append < 1 << 20
        assert peak < 4 << 20

    async def test_one_record_after_the_other_is_pulled_as_it_is_written(self) -> None:
        """A disk that does not go on holds up the view, instead of letting records pile up."""
        pulled, released = 0, trio.Event()

        def through(_: Iterator[Any]) -> Iterator[Any]:
            nonlocal pulled
            for _ in range(300):
                pulled += 1
                yield random.Random(pulled).randbytes(64 << 10)

        group = FakeGroup(Viewed(through), shelf=Shelf(trouble=lambda operation: released.wait() if operation == "append" else None))
        async with running(group):
            await group.apply(5)
            await until(lambda: pulled)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert pulled < 20
            await group.apply(20)
            released.set()
            await group.until(lambda: group.taken)
        assert pulled >= 300


def raising(error: BaseException, after: int = 2) -> Callable[[Iterator[Any]], Iterable[Any]]:
    def through(records: Iterator[Any]) -> Iterator[Any]:
        for _ in range(after):
            yield next(records)
        raise error

    return through


def from_itself() -> Callable[[Iterator[Any]], Iterable[Any]]:
    def through(records: Iterator[Any]) -> Iterator[Any]:
        yield next(records)
        error = RuntimeError("round")
        raise error from error

    return through


def at_once(error: Exception) -> Callable[[Iterator[Any]], Iterable[Any]]:
    def through(records: Iterator[Any]) -> Iterable[Any]:
        raise error

    return through


def yielding(bad: Any) -> Callable[[Iterator[Any]], Iterable[Any]]:
    return lambda records: iter([*records, bad])


TROUBLES: dict[str, tuple[Callable[[Iterator[Any]], Iterable[Any]], type[Exception], str]] = {
    "raises": (at_once(RuntimeError("no")), RuntimeError, "no"),
    "raises later": (raising(RuntimeError("no more")), RuntimeError, "no more"),
    "raises its own cause": (from_itself(), RuntimeError, "round"),
    "exits": (raising(SystemExit(1)), SnapshotError, "SystemExit"),
    "no CBOR": (yielding(object()), WireError, "record 6 of the snapshot: .*object"),
    "too large": (yielding(b"x" * 5000), WireError, "record 6 of the snapshot: .*5003 bytes"),
    "nothing to iterate over": (lambda records: None, TypeError, "NoneType"),  # type: ignore[dict-item, return-value]  # bad on purpose
}


class TestTrouble:
    @pytest.mark.parametrize("trouble", TROUBLES)
    @pytest.mark.parametrize("blocking", [False, True], ids=["inline", "blocking"])
    async def test_sn_12_code_that_fails_stops_nothing_is_seen_and_is_tried_again(
        self, patient_clock: trio.testing.MockClock, trouble: str, blocking: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_snapshot_file, "SNAPSHOT_RECORD_BYTES_MAX", 4000)
        through, kind, text = TROUBLES[trouble]
        machine = (type("BlockingViewed", (Viewed,), {"blocking": True}) if blocking else Viewed)(through)
        group = FakeGroup(machine)
        async with running(group):
            await group.apply(5)
            await group.until(lambda: group.failures)
            assert isinstance(group.taker.failure, kind)
            event = group.failures[0][1]
            assert (event.group_id, event.what, event.error) == (7, "taking", group.taker.failure)
            with pytest.raises(kind, match=text):
                raise event.error
            assert group.taker.running_since is None
            assert (group.taken, group.shelf.unfinished, group.shelf.files) == ([], 0, {})
            await group.apply(5)
            assert group.failure is None
            machine.through = lambda records: records
            await group.until(lambda: group.taken)
            assert group.taker.failure is None
        assert group.taken == [EntryId(1, 10)]

    async def test_the_pause_doubles_up_to_64_times_and_begins_anew_after_a_success(self, patient_clock: trio.testing.MockClock) -> None:
        machine = Viewed(at_once(RuntimeError("no")))
        group = FakeGroup(machine)
        async with running(group):
            await group.apply(5)
            await group.until(lambda: len(group.failures) == 10)
            times = [time for time, _ in group.failures]
            pauses = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
            assert pauses == [1, 2, 4, 8, 16, 32, 64, 64, 64]
            machine.through = lambda records: records
            await group.until(lambda: group.taken)
            machine.through = at_once(RuntimeError("no"))
            await group.apply(5)
            await group.until(lambda: len(group.failures) == 12)
            assert round(group.failures[11][0] - group.failures[10][0]) == 1

    async def test_a_generator_function_is_refused_because_it_freezes_nothing(self) -> None:
        class Lazy(Recorder):
            def snapshot(self) -> Iterable[Any]:
                yield from self.seen

        group = FakeGroup(Lazy())
        async with running(group):
            await group.apply(5)
            await group.until(lambda: group.failures)
            with pytest.raises(SnapshotError, match="generator function"):
                await group.taker.take()

    @pytest.mark.parametrize("operation", ["create", "append", "commit"])
    async def test_a_full_disk_loses_nothing(self, patient_clock: trio.testing.MockClock, operation: str) -> None:
        is_full = True

        def trouble(name: str) -> None:
            if name == operation and is_full:
                raise StorageError("full", "shelf", "no space")

        ended: list[bool] = []

        def through(records: Iterator[Any]) -> Iterator[Any]:
            try:
                yield from records
            finally:
                ended.append(True)

        group = FakeGroup(Viewed(through), shelf=Shelf(trouble=trouble))
        async with running(group):
            await group.apply(5)
            await group.until(lambda: group.failures)
            assert isinstance(group.taker.failure, StorageError)
            assert (group.shelf.unfinished, group.shelf.files, group.taken) == (0, {}, [])
            await group.apply(1)
            is_full = False
            await group.until(lambda: group.taken)
        assert group.taken == [EntryId(1, 6)]
        assert decoded(group.shelf.files[EntryId(1, 6)])[0] == [NO_SESSIONS, *([index, "x"] for index in range(1, 7))]

    async def test_a_failure_holds_on_to_nothing_of_the_state(self) -> None:
        class State:
            pass

        alive: weakref.ref[State] | None = None

        def through(records: Iterator[Any]) -> Iterator[Any]:
            nonlocal alive
            state = State()
            alive = weakref.ref(state)
            yield next(records)
            raise RuntimeError(f"no {type(state)}")

        group = FakeGroup(Viewed(through))
        async with running(group):
            await group.apply(5)
            await group.until(lambda: group.failures)
            gc.collect()
            assert alive is not None
            assert alive() is None
            assert group.taker.failure is not None
            assert group.taker.failure.__traceback__ is not None, "where it happened is told"

    async def test_an_abandoned_view_is_closed(self) -> None:
        ended = 0

        def through(records: Iterator[Any]) -> Iterator[Any]:
            nonlocal ended
            try:
                yield from records
                yield object()
            finally:
                ended += 1

        def trouble(operation: str) -> None:
            if operation == "append":
                raise StorageError("full", "shelf", "no space")

        kept: list[Iterator[Any]] = []

        def many(records: Iterator[Any]) -> Iterator[Any]:
            kept.append(through(iter([random.Random(n).randbytes(64 << 10) for n in range(64)])))
            return kept[0]

        group = FakeGroup(Viewed(many), shelf=Shelf(trouble=trouble))
        async with running(group):
            await group.apply(5)
            await group.until(lambda: group.failures)
            assert ended == 1, "a read transaction is not left open until somebody collects garbage"


class TestHanging:
    async def test_sn_12_code_that_hangs_holds_up_only_itself(self, patient_clock: trio.testing.MockClock) -> None:
        with Gate() as gate:

            def through(records: Iterator[Any]) -> Iterator[Any]:
                gate.pass_through()
                yield from records

            host = FakeHost(snapshot_threads=trio.CapacityLimiter(1))
            hanging, other = FakeGroup(Viewed(through), host=host), FakeGroup(Recorder(), host=host)
            async with running(hanging, other):
                began = trio.current_time()
                await hanging.apply(5)
                await gate.reached()
                assert hanging.taker.running_since == pytest.approx(began, abs=1)
                await other.apply(5)
                await other.until(lambda: other.taken)
                assert trio.current_time() - began >= _taking.HANGING_SECONDS, "it may just be slow: it keeps its place for a while"
                await hanging.apply(50)
                assert hanging.taken == []
                assert hanging.taker.running_since == pytest.approx(began, abs=1)
                gate.open()
                await hanging.until(lambda: hanging.taken)
                assert hanging.taken[0] == EntryId(1, 5)
            assert host.snapshot_threads.borrowed_tokens == 0

    async def test_a_stop_leaves_it_to_itself_within_its_bound_and_it_never_commits(self) -> None:
        ended = False
        with Gate() as gate:

            def through(records: Iterator[Any]) -> Iterator[Any]:
                nonlocal ended
                try:
                    yield next(records)
                    gate.pass_through()
                    yield next(records)
                    yield next(records)
                finally:
                    ended = True

            def held(records: Iterator[Any]) -> Iterator[Any]:
                kept.append(through(records))
                return kept[0]

            kept: list[Iterator[Any]] = []
            host = FakeHost(apply_threads=ApplyThreads(trio.CapacityLimiter(1), 0.05))
            group = FakeGroup(Viewed(held), host=host)
            with trio.fail_after(10):
                async with running(group):
                    await group.apply(5)
                    await gate.reached()
            assert (group.taken, group.shelf.files, group.shelf.unfinished) == ([], {}, 0)
            assert host.snapshot_threads.borrowed_tokens == 0
            gate.open()
            await until(lambda: ended)  # when the thread is back, it closes the view
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert (group.taken, group.shelf.files) == ([], {})

    async def test_a_failing_group_does_not_wait_for_it_either(self) -> None:
        with Gate() as gate:

            def through(records: Iterator[Any]) -> Iterator[Any]:
                gate.pass_through()
                yield from records

            group = FakeGroup(Viewed(through), host=FakeHost(apply_threads=ApplyThreads(trio.CapacityLimiter(1), 0.05)))
            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(group.run)
                    await group.apply(5)
                    await gate.reached()
                    group.add(1, "bug")  # its nursery is not cancelled: the children end because they are closed
            assert isinstance(group.failure, trioraft.StateMachineError)

    @pytest.mark.parametrize("operation", ["create", "append", "commit"])
    async def test_a_stop_at_any_operation_of_the_disk_leaves_nothing_behind(self, operation: str) -> None:
        reached = trio.Event()

        def trouble(name: str) -> Any:
            if name == operation:
                reached.set()
                return trio.Event().wait()
            return None

        group = FakeGroup(Recorder(), shelf=Shelf(trouble=trouble))
        with trio.fail_after(10):
            async with running(group):
                await group.apply(5)
                await reached.wait()
        assert (group.taken, group.shelf.files, group.shelf.unfinished) == ([], {}, 0)
        assert group.host.snapshot_threads.borrowed_tokens == 0
        assert not group.failures, "a stop is no failure"


class TestTake:
    async def test_it_holds_what_was_applied_and_callers_share_it(self) -> None:
        machine = Viewed(lambda records: records)
        group = FakeGroup(machine, config=GroupConfig())
        async with running(group):
            await group.apply(3)
            found: list[EntryId] = []

            async def take() -> None:
                found.append(await group.taker.take())

            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(take)
            assert found == [EntryId(1, 3)] * 5
            assert machine.views == 1
            assert await group.taker.take() == EntryId(1, 3), "nothing was applied since"
            assert machine.views == 1
            await group.apply(1)
            assert await group.taker.take() == EntryId(1, 4)
        assert sorted(group.shelf.files) == [EntryId(1, 3), EntryId(1, 4)]

    async def test_one_that_began_too_early_is_waited_for_and_another_taken(self) -> None:
        with Gate() as gate:

            def through(records: Iterator[Any]) -> Iterator[Any]:
                gate.pass_through()
                yield from records

            machine = Viewed(through)
            group = FakeGroup(machine)
            found: list[EntryId] = []

            async def take() -> None:
                found.append(await group.taker.take())

            async with running(group), trio.open_nursery() as nursery:
                await group.apply(5)
                await gate.reached()
                nursery.start_soon(take)
                await trio.testing.wait_all_tasks_blocked()
                await group.apply(1)
                nursery.start_soon(take)
                await trio.testing.wait_all_tasks_blocked()
                gate.open()
            assert found == [EntryId(1, 5), EntryId(1, 6)]
            assert machine.views == 2

    async def test_nothing_applied_is_nothing_to_take(self) -> None:
        group = FakeGroup(Recorder())
        async with running(group):
            with pytest.raises(SnapshotError, match="nothing has been applied"):
                await group.taker.take()

    async def test_a_failure_reaches_whoever_asked_and_the_next_call_does_not_wait_for_the_pause(self) -> None:
        machine = Viewed(at_once(RuntimeError("no")))
        group = FakeGroup(machine, host=FakeHost(snapshot_retry_interval=1000.0))
        with trio.fail_after(10):
            async with running(group):
                await group.apply(5)
                await group.until(lambda: group.failures)
                for _ in range(2):
                    with pytest.raises(SnapshotError, match="RuntimeError: no") as caught:
                        await group.taker.take()
                    assert isinstance(caught.value.__cause__, RuntimeError)
                machine.through = lambda records: records
                assert await group.taker.take() == EntryId(1, 5)

    async def test_a_failure_of_one_that_began_earlier_is_not_that_of_a_later_caller(self) -> None:
        with Gate() as gate:

            def through(records: Iterator[Any]) -> Iterator[Any]:
                gate.pass_through()
                if machine.views == 1:
                    raise RuntimeError("no")
                yield from records

            machine = Viewed(through)
            group = FakeGroup(machine, host=FakeHost(snapshot_retry_interval=1000.0))
            found: list[EntryId] = []

            async def take() -> None:
                found.append(await group.taker.take())

            with trio.fail_after(10):
                async with running(group), trio.open_nursery() as nursery:
                    await group.apply(5)
                    await gate.reached()
                    await group.apply(1)
                    nursery.start_soon(take)
                    await trio.testing.wait_all_tasks_blocked()
                    gate.open()
            assert found == [EntryId(1, 6)]
            assert len(group.failures) == 1

    async def test_a_caller_that_leaves_is_forgotten(self) -> None:
        with Gate() as gate:

            def through(records: Iterator[Any]) -> Iterator[Any]:
                gate.pass_through()
                yield from records

            group = FakeGroup(Viewed(through), config=GroupConfig())
            async with running(group):
                await group.apply(1)
                with trio.move_on_after(0.05) as scope:
                    await group.taker.take()
                assert scope.cancelled_caught
                gate.open()
                await group.until(lambda: group.taken)

    async def test_the_end_of_the_group_reaches_whoever_waits_and_whoever_comes_later(self) -> None:
        with Gate() as gate:

            def through(records: Iterator[Any]) -> Iterator[Any]:
                gate.pass_through()
                yield from records

            group = FakeGroup(Viewed(through), host=FakeHost(apply_threads=ApplyThreads(trio.CapacityLimiter(1), 0.05)))
            ends = 0

            async def take() -> None:
                nonlocal ends
                with pytest.raises(trioraft.GroupStoppedError):
                    await group.taker.take()
                ends += 1

            async with trio.open_nursery() as nursery, running(group):
                await group.apply(5)
                nursery.start_soon(take)
                await gate.reached()
            await take()
            assert ends == 2


class TestInstalled:
    """The leader's snapshot comes while one is taken here."""

    AT = EntryId(2, 40)

    @pytest.mark.parametrize("operation", ["create", "append", "commit"])
    async def test_the_older_one_leaves_nothing_behind(self, operation: str) -> None:
        reached, released = trio.Event(), trio.Event()

        def trouble(name: str) -> Any:
            if name == operation and not reached.is_set():
                reached.set()
                return released.wait()
            return None

        group = FakeGroup(Recorder(), shelf=Shelf(trouble=trouble))
        group.shelf.files[self.AT] = self.leaders()
        with trio.fail_after(10):
            async with running(group):
                await group.apply(5)
                await reached.wait()
                group.install(self.AT)
                released.set()
                await until(lambda: group.host.snapshot_threads.borrowed_tokens == 0)
                await until(lambda: group.applier.applied_index == 40)
                assert await group.taker.take() == self.AT
                await group.apply(5)
                await group.until(lambda: group.taken)
        assert group.taken == [EntryId(2, 45)]
        assert set(group.shelf.files) == {self.AT, EntryId(2, 45)}
        assert (group.shelf.unfinished, group.failures) == (0, [])

    async def test_bytes_are_counted_from_there(self) -> None:
        group = FakeGroup(Recorder(), config=GroupConfig(snapshot_bytes=1000))
        group.shelf.files[self.AT] = self.leaders()
        async with running(group):
            await group.apply(1, "x" * 900)
            group.install(self.AT)
            await group.until(lambda: group.applier.applied_index == 40)
            await group.apply(1, "x" * 900)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert group.taken == []

    async def test_records_are_not_pulled_any_more(self) -> None:
        with Gate() as gate:
            pulled = 0

            def through(records: Iterator[Any]) -> Iterator[Any]:
                nonlocal pulled
                for pulled in range(1000):
                    yield random.Random(pulled).randbytes(64 << 10)
                    if pulled == 20:
                        gate.pass_through()

            group = FakeGroup(Viewed(through))
            group.shelf.files[self.AT] = self.leaders()
            with trio.fail_after(10):
                async with running(group):
                    await group.apply(5)
                    await gate.reached()
                    group.install(self.AT)
                    gate.open()
                    await until(lambda: group.applier.applied_index == 40)
                    await until(lambda: group.taker.running_since is None)
            assert pulled < 100
            assert (group.taken, set(group.shelf.files), group.shelf.unfinished) == ([], {self.AT}, 0)

    async def test_whoever_waits_gets_the_leaders(self) -> None:
        with Gate() as gate:

            def through(records: Iterator[Any]) -> Iterator[Any]:
                gate.pass_through()
                yield from records

            group = FakeGroup(Viewed(through))
            group.shelf.files[self.AT] = self.leaders()
            found: list[EntryId] = []

            async def take() -> None:
                found.append(await group.taker.take())

            with trio.fail_after(10):
                async with running(group), trio.open_nursery() as nursery:
                    await group.apply(5)
                    nursery.start_soon(take)
                    await gate.reached()
                    group.install(self.AT)
                    await group.until(lambda: found)
                    gate.open()
            assert found == [self.AT]

    def leaders(self) -> bytes:
        return encoded([[index, "leader"] for index in range(1, 41)], self.AT)
