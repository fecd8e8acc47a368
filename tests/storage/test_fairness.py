"""Which writes make up a batch when more waits than fits into one: the groups take turns.

The log is a fake here: it takes any number of bytes for nothing, and notes what each batch holds.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from trioraft._errors import StorageError
from trioraft.storage import StorageConfig
from trioraft.storage._committer import Committer, Mark
from trioraft.storage._disk import NoSpaceError
from trioraft.storage._log_file import Written
from trioraft.storage._table import Table

MIB = 1 << 20
HUGE = bytes(8 * MIB)
BATCH_MAX = StorageConfig().batch_bytes_max


class Batches:
    """A log file that remembers its batches, each once it was let through."""

    directory = "log"
    is_full = False
    fullness = 0.0
    has_checkpoint = True

    def __init__(self) -> None:
        self.written: list[list[bytes]] = []
        self.before_each: Callable[[], None] = lambda: None
        self.gate = trio.Event()
        self.gate.set()
        self.errors: list[OSError] = []
        self.tried: list[list[bytes]] = []

    async def append(self, groups: Collection[int], segments: Sequence[bytes], *, sync: bool = False) -> Written:
        self.before_each()
        self.tried.append(list(segments))
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        self.written.append(list(segments))
        return Written(1, 0, bytearray(), 0, 0)


class Ear:
    """Hears what is confirmed, in terms of batches."""

    def __init__(self, log: Batches) -> None:
        self.log = log
        self.heard: list[tuple[int, int]] = []
        self.errors: list[StorageError] = []

    def persisted(self, sequence: int) -> None:
        self.heard.append((sequence, len(self.log.written)))

    def storage_failed(self, error: StorageError) -> None:
        self.errors.append(error)

    def space_changed(self, available: bool) -> None: ...


@pytest.fixture
def log() -> Batches:
    return Batches()


@asynccontextmanager
async def committing(log: Batches) -> AsyncIterator[Committer]:
    committer = Committer(log, Table(log.directory), StorageConfig(space_poll_interval=1.0))  # type: ignore[arg-type]  # of any type
    async with trio.open_nursery() as nursery:
        await nursery.start(committer.serve)
        yield committer
        nursery.cancel_scope.cancel()


async def test_MG_17_a_small_write_behind_ten_huge_ones_is_in_the_very_next_batch(log: Batches) -> None:
    async with committing(log) as committer:
        ear = Ear(log)
        committer.attach(2, ear)
        log.gate = trio.Event()
        for sequence in range(1, 11):
            committer.submit(1, HUGE, sequence)
        await trio.testing.wait_all_tasks_blocked()
        assert log.tried == [[HUGE]], "the first of them is on its way"
        committer.submit(2, b"small", 11)
        log.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert ear.heard == [(11, 2)]
        assert log.written == [[HUGE], [b"small", HUGE], *[[HUGE]] * 8]
        assert committer.queued_bytes == 0


async def test_MG_17_small_writes_of_many_groups_all_pass_a_flood(log: Batches) -> None:
    async with committing(log) as committer:
        for sequence in range(1, 11):
            committer.submit(1, HUGE, sequence)
        for group_id in range(2, 502):
            committer.submit(group_id, b"small", group_id)
        await trio.testing.wait_all_tasks_blocked()
        assert log.written == [[b"small"] * 500 + [HUGE], *[[HUGE]] * 9]


async def test_MG_17_a_flood_of_ordinary_writes_leaves_room_too(log: Batches) -> None:
    """The same where each write of the flood fits into a batch, and only their number is too much."""
    ordinary = bytes(MIB)
    async with committing(log) as committer:
        for sequence in range(1, 101):
            committer.submit(1, ordinary, sequence)
        committer.submit(2, b"small", 101)
        await trio.testing.wait_all_tasks_blocked()
        assert log.written[0] == [ordinary, b"small", ordinary, ordinary]
        assert len(log.written) == 26


async def test_a_huge_write_is_not_kept_waiting_by_small_ones_that_never_end(log: Batches) -> None:
    half = bytes(BATCH_MAX // 2)
    async with committing(log) as committer:

        def more() -> None:
            if len(log.tried) < 50:
                for group_id in (2, 3, 4):
                    committer.submit(group_id, half, len(log.tried) + 1)

        more()
        log.before_each = more
        committer.submit(1, HUGE, 1)
        await trio.testing.wait_all_tasks_blocked()
    assert HUGE in [segment for batch in log.written[:2] for segment in batch]


@pytest.mark.parametrize("seed", range(20))
async def test_order_within_a_group_and_bounds_hold_for_any_mix(log: Batches, seed: int) -> None:
    rng = random.Random(seed)
    sizes = [10, 1000, BATCH_MAX // 3, BATCH_MAX - 20, BATCH_MAX, BATCH_MAX + 1]
    blobs = {size: bytes(size) for size in sizes}
    submitted: dict[int, list[int]] = {group_id: [] for group_id in range(1, 8)}
    ears = {group_id: Ear(log) for group_id in submitted}
    async with committing(log) as committer:

        def some(count: int) -> None:
            for _ in range(count):
                group_id = rng.choice(list(submitted))
                size = rng.choice(sizes)
                submitted[group_id].append(size)
                committer.submit(group_id, blobs[size], sum(map(len, submitted.values())))

        for group_id, ear in ears.items():
            committer.attach(group_id, ear)
        log.before_each = lambda: some(rng.randrange(6)) if len(log.tried) < 20 else None
        some(30)
        await trio.testing.wait_all_tasks_blocked()
        assert committer.queued_bytes == 0
    for ear in ears.values():
        assert ear.heard == sorted(ear.heard)
    assert sum(map(len, log.written)) == sum(map(len, submitted.values()))
    for batch in log.written:
        assert batch
        assert sum(map(len, batch)) <= BATCH_MAX or sum(map(len, batch[:-1])) <= BATCH_MAX < len(batch[-1])


@pytest.mark.parametrize("seed", range(20))
async def test_writes_and_marks_of_a_group_keep_their_order(log: Batches, seed: int) -> None:
    rng = random.Random(seed)
    order: dict[int, list[bytes]] = {group_id: [] for group_id in (1, 2, 3, 4)}
    marks: list[bytes] = []
    expected: list[bytes] = []
    async with committing(log) as committer:
        for number in range(60):
            group_id = rng.choice(list(order))
            data = (b"%d/%d " % (group_id, number)).ljust(rng.choice([10, BATCH_MAX // 5]))
            order[group_id].append(data)
            if rng.random() < 0.2:
                expected.append(data)
                committer.submit(group_id, data, mark=Mark(lambda data=data: marks.append(data)))  # type: ignore[misc]  # bound now
            else:
                committer.submit(group_id, data, number)
        await trio.testing.wait_all_tasks_blocked()
    written = [segment for batch in log.written for segment in batch]
    for group_id, data_of in order.items():
        assert [segment for segment in written if segment.startswith(b"%d/" % group_id)] == data_of
    assert sorted(marks) == sorted(expected)


async def test_a_full_disk_tries_the_same_batch_again_whatever_else_waits(log: Batches, autojump_clock: trio.testing.MockClock) -> None:
    async with committing(log) as committer:
        log.errors = [NoSpaceError(28, "simulated"), NoSpaceError(28, "simulated")]
        for sequence in range(1, 4):
            committer.submit(1, HUGE, sequence)
        await trio.sleep(0.5)
        committer.submit(2, b"small", 4)
        await trio.sleep(5)
        assert log.tried[:3] == [[HUGE]] * 3
        assert log.written == [[HUGE], [b"small", HUGE], [HUGE]]


async def test_a_failure_reaches_the_marks_that_wait_for_their_turn(log: Batches) -> None:
    async with committing(log) as committer:
        ear = Ear(log)
        committer.attach(1, ear)
        log.errors = [OSError(5, "simulated")]
        mark = Mark(lambda: pytest.fail("it was not written"))
        committer.submit(1, HUGE, 1)
        committer.submit(1, HUGE, 2)
        committer.submit(1, b"mark", mark=mark)
        with pytest.raises(StorageError, match="may or may not"):
            await mark.wait()
        assert [error.kind for error in ear.errors] == ["io"]
        committer.submit(1, HUGE, 3)
        await trio.testing.wait_all_tasks_blocked()
        assert (len(log.tried), log.written, committer.queued_bytes) == (1, [], 0)
