"""A power cut at every single step of the disk, over random histories of several groups.

One run notes, at each step, a copy of the disk and what had been confirmed by then; each copy is then cut off, once with nothing that
was unsynced, once with all of it, and with random sectors of it. What recovery finds must contain everything that was confirmed and
nothing that was never written; recovering again must find the same; and the log must go on from there.
"""

from __future__ import annotations

import random

import attrs
import pytest

from tests.storage.kit import Found, Group, entries, found_on, serving, start_group, state_of, wal
from trioraft._types import GroupKey
from trioraft.core import Entry, HardState
from trioraft.storage import DiskCall, SimulatedDisk, WalStorage
from trioraft.storage._simulated_disk import Keep

KEEPS: tuple[Keep, ...] = ("none", "all", "random")

State = tuple[HardState, tuple[str, ...]]


@attrs.define
class History:
    """What one group was told to write: its state after each write, the confirmed one marked."""

    key: GroupKey
    states: list[State] = attrs.Factory(lambda: [(HardState(), ())])
    sequences: list[int] = attrs.Factory(lambda: [0])
    made: bool = False

    @property
    def term(self) -> int:
        return self.states[-1][0].term

    def confirmed(self, group: Group | None) -> int:
        """The number of the last state that was confirmed."""
        last = 0 if group is None else group.listener.confirmed
        return max(number for number, sequence in enumerate(self.sequences) if sequence <= last)


@attrs.frozen
class Moment:
    """The disk at one step, and for each group the states that recovery may find."""

    disk: SimulatedDisk
    step: str
    allowed: dict[int, tuple[bool, list[State]]]
    """Group id -> (must exist, states)."""


async def live(rng: random.Random, moments: list[Moment], **options: int) -> None:
    """Run a random history, noting the moments."""
    disk = SimulatedDisk(rng)
    histories = {number: History(GroupKey(number)) for number in range(1, 4)}
    groups: dict[int, Group] = {}

    async def note(call: DiskCall) -> None:
        allowed = {}
        for number, history in histories.items():
            if history.key.group_id in groups or history.made:
                allowed[number] = (number in groups, history.states[history.confirmed(groups.get(number)) :])
        moments.append(Moment(disk.fork(random.Random(rng.random())), f"{call.number} {call.verb} {call.path}", allowed))

    disk.hook = note
    storage = wal(disk.mount(), **options)
    async with serving(storage):
        for number, history in histories.items():
            history.made = True
            groups[number] = await start_group(storage, history.key)
        for _ in range(8):
            for number in rng.sample(sorted(histories), rng.randint(1, 3)):
                write(rng, histories[number], groups[number])
            last = rng.choice(sorted(histories))
            if rng.random() < 0.7:
                await groups[last].listener.wait_confirmed(histories[last].sequences[-1])
    disk.hook = None


def write(rng: random.Random, history: History, group: Group) -> None:
    """One random write: a higher term or not, entries that replace a part of the log or not."""
    state, log = history.states[-1]
    term = state.term + rng.choice((0, 0, 1)) or 1
    changes = term != state.term
    state = HardState(term, rng.choice((1, 2))) if changes else state
    new: tuple[Entry, ...] = ()
    if rng.random() < 0.8 or not changes:
        low = rng.randint(max(1, len(log) - 2), len(log) + 1)
        new = entries(history.key, low, low + rng.randint(1, 4), term, rng.randbytes(rng.choice((0, 20, 300, 1500))))
        log = (*log[: low - 1], *(f"{each} {each.payload.hex()}" for each in new))
    history.states.append((state, log))
    history.sequences.append(group.write(*new, state=state if changes else None))


def outline(found: Found) -> State:
    return found.hard_state, tuple(f"{each} {each.payload.hex()}" for each in found.entries)


@pytest.mark.parametrize("seed", range(4))
async def test_a_power_cut_at_every_step(seed: int) -> None:
    rng = random.Random(seed)
    moments: list[Moment] = []
    await live(rng, moments, max_log_file_size=rng.choice((4096, 1 << 20)), batch_bytes_max=rng.choice((4096, 1 << 20)))
    assert len(moments) > 30
    for moment in moments:
        for keep in KEEPS:
            await check(moment, keep)


async def check(moment: Moment, keep: Keep) -> None:
    disk = moment.disk.fork(random.Random(f"{moment.step}{keep}"))
    disk.crash(keep)
    where = f"at step {moment.step}, keeping {keep}"

    storage = wal(disk.mount(), seed=1)
    await storage.open(1, "demo")
    first = await state_of(storage)
    for number, found in first.items():
        assert found.failure is None, f"{found.failure} {where}"
        assert number in moment.allowed, where
        _, states = moment.allowed[number]
        assert outline(found) in states, f"group {number} {where}"
    assert {number for number, (must_exist, _) in moment.allowed.items() if must_exist} <= set(storage.recovered), where
    await storage.aclose()

    disk.crash("none")
    assert await found_on(disk) == first, f"not the same the second time, {where}"

    storage = wal(disk.mount(), seed=2)
    async with serving(storage):
        key = GroupKey(9)
        group = await start_group(storage, key)
        await group.write_and_wait(*entries(key, 1, 4), state=HardState(1, 1))
    disk.crash("none")
    after = await found_on(disk)
    assert len(after.pop(9).entries) == 3, where
    assert after == first, where


@pytest.mark.parametrize("seed", range(4))
async def test_power_cuts_during_recovery(seed: int) -> None:
    """A start that is cut off, at each of its steps, over a log with a torn end, leaves what the next start needs."""
    rng = random.Random(seed)
    moments: list[Moment] = []
    await live(rng, moments, max_log_file_size=4096)
    moment = rng.choice([moment for moment in moments[20:] if " sync " in moment.step and ".wal" in moment.step])
    disk = moment.disk.fork(rng)
    disk.crash("random")
    expected = await found_on(disk.fork(rng))

    copies: list[SimulatedDisk] = []

    async def copy(call: DiskCall) -> None:
        copies.append(disk.fork(random.Random(len(copies))))

    disk.hook = copy
    assert await found_on(disk) == expected
    assert len(copies) > 8
    for each in copies:
        for keep in KEEPS:
            twin = each.fork(random.Random(7))
            twin.crash(keep)
            assert await found_on(twin) == expected


async def test_ST_20_power_cut_right_after_a_confirmation() -> None:
    """Default settings, unsynced data dropped: the entry is there."""
    disk = SimulatedDisk(random.Random(3))
    storage = WalStorage(disk=disk.mount())
    async with serving(storage):
        group = await start_group(storage, GroupKey(7))
        for index in range(1, 20):
            await group.write_and_wait(*entries(group.key, index, index + 1))
            twin = disk.fork(random.Random(3))
            twin.crash("none")
            reopened = WalStorage(disk=twin.mount())
            await reopened.open(1, "demo")
            assert len((await state_of(reopened))[7].entries) == index
            await reopened.aclose()


async def test_a_drive_that_lies_about_syncs_is_caught_by_these_tests() -> None:
    """Proof that a missing sync would be noticed here."""
    disk = SimulatedDisk(random.Random(1), dead_calls="raise")
    storage = wal(disk.mount())
    async with serving(storage):
        group = await start_group(storage, GroupKey(1))
        disk.lying = True
        await group.write_and_wait(*entries(group.key, 1, 4))
        disk.crash("none")
        disk.lying = False
        assert len((await found_on(disk))[1].entries) == 0
