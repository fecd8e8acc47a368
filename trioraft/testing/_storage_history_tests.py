"""Random histories: writes, truncations, compactions, installs, removals, with power cuts at random points, against a plain model."""

from __future__ import annotations

import random

import attrs

from .._types import GroupKey
from ..core import HardState
from ..storage import MultiRaftStorage
from ._storage_model import Expectation, GroupHistory, expect
from ._storage_parts import HeldGroup, entries, find_all, hold, joining, record, same, serving, start_group
from ._storage_place import StoragePlace
from ._storage_steps import random_step

GROUPS = 3


@attrs.define(eq=False)
class NodeHistory:
    """All groups of a node, and what is done to them."""

    rng: random.Random
    groups: dict[int, GroupHistory] = attrs.Factory(
        lambda: {number: GroupHistory(record(GroupKey(number))) for number in range(1, GROUPS + 1)}
    )
    held: dict[int, HeldGroup] = attrs.Factory(dict)
    """Those that are there, in the present process."""

    def expectations(self) -> list[Expectation]:
        return [expect(history, self.held.get(number)) for number, history in self.groups.items()]

    async def begin_life(self, storage: MultiRaftStorage, expectations: list[Expectation], where: str) -> None:
        """A start must have found what is expected; from here on, that is what there is."""
        same(set(storage.recovered) - set(self.groups), set(), f"groups that never were, {where}")
        self.held.clear()
        for number, expectation in zip(self.groups, expectations, strict=True):
            history = self.groups[number]
            model = await expectation.check(storage, where)
            history.exists = (model is not None,)
            if model is not None:
                history.settle(model)
                self.held[number] = hold(storage, history.key)

    async def step(self, storage: MultiRaftStorage) -> None:
        rng = self.rng
        number = rng.choice(sorted(self.groups))
        group = self.held.get(number)
        if group is None:
            await self._make(storage, number)
        elif rng.random() < 0.02:
            await self._remove(storage, number, returns=rng.random() < 0.5)
        else:
            await random_step(rng, self.groups[number], group)
        if rng.random() < 0.3:
            await self.wait_confirmed(rng.choice(sorted(self.groups)))

    async def wait_confirmed(self, number: int) -> None:
        group, history = self.held.get(number), self.groups[number]
        if group is not None and max(history.sequences):
            await group.listener.wait_confirmed(max(history.sequences))

    async def _make(self, storage: MultiRaftStorage, number: int) -> None:
        history = self.groups[number]
        history.exists = (False, True)
        self.held[number] = await start_group(storage, history.key, history.born)
        history.exists = (True,)

    async def return_to(self, storage: MultiRaftStorage, number: int) -> None:
        """A replica is removed in the middle of its work, and comes back to its group."""
        if number not in self.held:
            await self._make(storage, number)
        for _ in range(5):
            await random_step(self.rng, self.groups[number], self.held[number])
        await self._remove(storage, number, returns=True)
        await self._make(storage, number)
        for _ in range(5):
            await random_step(self.rng, self.groups[number], self.held[number])

    async def _remove(self, storage: MultiRaftStorage, number: int, *, returns: bool) -> None:
        history, key = self.groups[number], self.groups[number].key
        barred = history.model.record.me.replica
        history.exists, history.tombstone, history.barred = (False, True), key, barred
        await storage.remove_group(key)
        del self.held[number]
        if returns:
            self.groups[number] = GroupHistory(joining(key, barred), tombstone=key, barred=barred, life=history.life + 1)
        else:
            self.groups[number] = GroupHistory(record(GroupKey(number, key.incarnation + 1)), tombstone=key, barred=barred)


class HistoryTests(StoragePlace):
    """What each start finds after a random history."""

    async def test_random_histories_with_power_cuts(self) -> None:
        for seed in self.seeds:
            await self._live(random.Random(f"history {seed}"), seed)

    async def _live(self, rng: random.Random, seed: int) -> None:
        storage = await self.make_storage()
        history = NodeHistory(rng)
        expectations = history.expectations()
        for life in range(1, 6):
            where = f"in life {life} of seed {seed}"
            async with serving(storage):
                await history.begin_life(storage, expectations, where)
                for _ in range(rng.randint(1, 60)):
                    await history.step(storage)
                # In the same moment: what is confirmed later must not count as confirmed now.
                expectations = history.expectations()
                storage = await self.cut_power(storage)
        async with serving(storage):
            await history.begin_life(storage, expectations, f"at the end of seed {seed}")
            before = await find_all(storage)
            key = GroupKey(77)
            group = await start_group(storage, key)
            await group.write_and_wait(*entries(key, 1, 4), state=HardState(1, 1))
            storage = await self.cut_power(storage)
        async with serving(storage):
            after = await find_all(storage)
            same(len(after.pop(77).log), 3, f"the entries of a new group, seed {seed}")
            same(after, before, f"what was there before, seed {seed}")
