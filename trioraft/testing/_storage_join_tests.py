"""Tests of replica numbers, and of a replica that comes back to a group which was removed from its node.

Such a group has two lives on one node, under one key. What was promised in the first must not be forgotten, so its numbers are barred;
and what was written in the first must not be found in the second.
"""

from __future__ import annotations

from .._errors import GroupExistsError, GroupNotFoundError, InvariantError, StorageError
from .._types import NOTHING, EntryId, GroupKey, Member
from ..core import Compaction, HardState, LoadEntries
from ..storage import EVERY_NUMBER, GroupRecord, MultiRaftStorage
from ._storage_parts import (
    ONE,
    TWO,
    Found,
    called,
    entries,
    find,
    hold,
    holds,
    joining,
    record,
    refused,
    same,
    serving,
    start_group,
)
from ._storage_place import StoragePlace


class JoinTests(StoragePlace):
    """Numbers that only rise, and two lives of one key."""

    # -- replica numbers ----------------------------------------------------------------------------------------------------------

    async def test_a_replica_that_joins_awaits_its_number(self) -> None:
        storage = await self.make_storage()
        for _ in range(2):
            async with serving(storage):
                await storage.create_group(joining(ONE))
                same(await find(storage, ONE), Found(joining(ONE), None, configurations=(joining(ONE).configuration,)), "the group")
                storage = await self.cut_power(storage)

    async def test_a_number_is_learned_with_what_follows_from_it(self) -> None:
        """One write has both, so that no promise is kept under a number that is forgotten."""
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE, joining(ONE))
            await group.write_and_wait(*entries(ONE, 1, 3, term=4), state=HardState(4, 2), me=called(3, 9))
            await group.write_and_wait(*entries(ONE, 3, 5, term=4))
            storage = await self.cut_power(storage)
        for _ in range(2):
            async with serving(storage):
                found = await find(storage, ONE)
                same(found.record, GroupRecord(ONE, called(3, 9), joining(ONE).configuration), "the record")
                same((found.hard_state, len(found.log)), (HardState(4, 2), 4), "the vote and the number of entries")
                storage = await self.cut_power(storage)

    async def test_the_last_number_counts(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            one, two = await start_group(storage, ONE), await start_group(storage, TWO, joining(TWO))
            await one.write_and_wait(me=called(2, 7))
            for number in (EntryId(1, 5), EntryId(1, 6), EntryId(2, 3)):
                await two.write_and_wait(me=Member(1, number))
            storage = await self.cut_power(storage)
        async with serving(storage):
            found = (await find(storage, ONE)).record
            same(found, GroupRecord(ONE, called(2, 7), record(ONE).configuration), "the record of a bootstrap member")
            found = (await find(storage, TWO)).record
            same(found, GroupRecord(TWO, called(2, 3), joining(TWO).configuration), "the record of a joined member")
            await hold(storage, TWO).write_and_wait(me=called(2, 4))
            storage = await self.cut_power(storage)
        async with serving(storage):
            found = (await find(storage, TWO)).record
            same(found, GroupRecord(TWO, called(2, 4), joining(TWO).configuration), "the record, changed in a later process")

    async def test_a_number_only_rises(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE, joining(ONE, EntryId(2, 5)))
            for me in (Member(1), called(1, 9), called(2, 5), Member(2, EntryId(9, 9))):
                with refused(InvariantError, f"the number of {me}"):
                    group.write(me=me)
            last = group.write(me=called(2, 6))
            with refused(InvariantError, "a number that is on its way"):
                group.write(me=called(2, 6))
            await group.listener.wait_confirmed(last)
            storage = await self.cut_power(storage)
        async with serving(storage):
            with refused(InvariantError, "the number of an earlier process"):
                hold(storage, ONE).write(me=called(2, 6))

    # -- what is barred -----------------------------------------------------------------------------------------------------------

    async def test_a_tombstone_bars_the_newest_number(self) -> None:
        """Also one that is still on its way to the disk: the replica may have spoken under it."""
        storage = await self.make_storage()
        async with serving(storage):
            one, two = await start_group(storage, ONE), await start_group(storage, TWO, joining(TWO))
            await one.write_and_wait(me=called(1, 5))
            two.write(*entries(TWO, 1, 30), me=called(1, 5))
            two.write(*entries(TWO, 30, 31), me=called(3, 7))
            await storage.remove_group(TWO)
            await storage.remove_group(ONE)
            same(storage.recovered[TWO.group_id].barred, EntryId(3, 7), "the barred number")
            storage = await self.cut_power(storage)
        async with serving(storage):
            same(await find(storage, ONE), Found(None, ONE, barred=EntryId(1, 5)), "a group")
            same(await find(storage, TWO), Found(None, TWO, barred=EntryId(3, 7)), "a group")

    async def test_what_is_barred_never_falls(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE, joining(ONE))
            await group.write_and_wait(me=called(4, 5))
            await storage.remove_group(ONE, EntryId(2, 9))
            steps = [(None, (4, 5)), (EntryId(4, 4), (4, 5)), (EntryId(5, 1), (5, 1)), (None, (5, 1)), (EVERY_NUMBER, EVERY_NUMBER)]
            for asked, expected in steps:
                await storage.remove_group(ONE, asked)
                same(storage.recovered[1].barred, EntryId(*expected), f"the barred number, asked for {asked}")
            await storage.remove_group(TWO, EntryId(7, 7))
            storage = await self.cut_power(storage)
        async with serving(storage):
            same(await find(storage, ONE), Found(None, ONE, barred=EVERY_NUMBER), "a group")
            same(await find(storage, TWO), Found(None, TWO, barred=EntryId(7, 7)), "a group that never was here")

    async def test_who_may_come_back(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            for key in (ONE, TWO):
                await (await start_group(storage, key, joining(key))).write_and_wait(me=called(4, 5))
            await storage.remove_group(ONE)
            await storage.remove_group(TWO, EVERY_NUMBER)
            storage = await self.cut_power(storage)
        async with serving(storage):
            for key in (ONE, TWO):
                with refused(GroupExistsError, "a beginning where a tombstone is"):
                    await storage.create_group(record(key))
                with refused(GroupExistsError, "a member with a number where a tombstone is"):
                    await storage.create_group(GroupRecord(key, called(4, 6), joining(key).configuration))
                with refused(GroupExistsError, "a replica that bars less than the tombstone"):
                    await storage.create_group(joining(key, EntryId(4, 4)))
            with refused(GroupExistsError, "a replica where every number is barred"):
                await storage.create_group(joining(TWO, EVERY_NUMBER))
            await storage.create_group(joining(ONE, EntryId(4, 5)))
            await storage.create_group(joining(GroupKey(2, 2)))
            storage = await self.cut_power(storage)
        async with serving(storage):
            same((await find(storage, ONE)).record, joining(ONE, EntryId(4, 5)), "the replica that came back")
            same((await find(storage, GroupKey(2, 2))).record, joining(GroupKey(2, 2)), "the replica of a later incarnation")
            await storage.remove_group(ONE)
            same(storage.recovered[1].barred, EntryId(4, 5), "the barred number of one that never learned its own")

    # -- two lives ----------------------------------------------------------------------------------------------------------------

    async def test_a_second_life_inherits_nothing(self) -> None:
        """No entry, no vote, no snapshot of the first one, also behind what it wrote itself."""
        storage = await self.make_storage()
        async with serving(storage):
            await self._live_once(storage)
            group = await start_group(storage, ONE, joining(ONE, EntryId(1, 5)))
            with refused(StorageError, "the first life's snapshot", kind="missing"):
                await group.log.snapshots.open(EntryId(1, 4))
            storage = await self.cut_power(storage)
        async with serving(storage):
            made = joining(ONE, EntryId(1, 5))
            same(await find(storage, ONE), Found(made, None, configurations=(made.configuration,)), "the second life")
            group = hold(storage, ONE)
            await group.write_and_wait(*entries(ONE, 1, 4, payload=b"second"), state=HardState(1, 3), me=called(2, 2))
            storage = await self.cut_power(storage)
        async with serving(storage):
            found = await find(storage, ONE)
            same({each.payload for each, _ in found.log}, {b"second"}, "what the entries hold")
            same((found.ids, found.hard_state, found.start), (["1@1", "2@1", "3@1"], HardState(1, 3), NOTHING), "the second life")
            with refused(StorageError, "the first life's snapshot", kind="missing"):
                await hold(storage, ONE).log.snapshots.open(EntryId(1, 4))

    async def _live_once(self, storage: MultiRaftStorage) -> None:
        group = await start_group(storage, ONE)
        await group.write_and_wait(*entries(ONE, 1, 9, payload=b"first"), state=HardState(3, 1), me=called(1, 5))
        await group.save_snapshot(EntryId(1, 4))
        group.log.compact(Compaction(EntryId(1, 4), EntryId(1, 2), 4))
        await storage.remove_group(ONE)

    async def test_who_held_the_first_life_has_nothing_to_do_with_the_second(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            first = await start_group(storage, ONE)
            await first.write_and_wait(*entries(ONE, 1, 9, payload=b"first"), state=HardState(3, 1), me=called(1, 5))
            late = await first.log.snapshots.create(EntryId(1, 4))
            await late.append(b"first")
            await storage.remove_group(ONE)
            heard = list(first.listener.heard)
            second = await start_group(storage, ONE, joining(ONE, EntryId(1, 5)))
            holds(second.log is not first.log, "a second life needs a log object of its own")
            await second.write_and_wait(*entries(ONE, 1, 9, payload=b"second"), me=called(1, 6))
            await second.save_snapshot(EntryId(1, 3), b"second")
            with refused(InvariantError, "a write of the first life"):
                first.write(*entries(ONE, 9, 10))
            with refused(InvariantError, "a compaction of the first life"):
                first.log.compact(Compaction(EntryId(1, 3), EntryId(1, 3), 3))
            with refused(InvariantError, "a listener of the first life"):
                first.log.attach(first.listener)
            with refused(StorageError, "a read of the first life"):
                await first.log.read(LoadEntries(None, 1, 8, 1 << 20))
            with refused(StorageError, "a snapshot of the first life"):
                await late.commit()
            await late.discard()
            with refused(StorageError, "the second life's snapshot, for the first"):
                await first.log.snapshots.open(EntryId(1, 3))
            try:
                await first.log.snapshots.remove(EntryId(1, 3))
            except StorageError:
                pass  # refused or ignored
            await second.write_and_wait(*entries(ONE, 9, 12, payload=b"second"))
            same(first.listener.heard, heard, "what the first life's listener has heard")
            same(await second.load_snapshot(EntryId(1, 3)), b"second", "the second life's snapshot")
            storage = await self.cut_power(storage)
        async with serving(storage):
            found = await find(storage, ONE)
            same([each.payload for each, _ in found.log], [b"second"] * 11, "what the entries hold")
            same(found.record, GroupRecord(ONE, called(1, 6), joining(ONE).configuration), "the record")
            same(await hold(storage, ONE).load_snapshot(EntryId(1, 3)), b"second", "the second life's snapshot")

    async def test_many_lives_of_one_key(self) -> None:
        """Each of them removed in the process in which it began, or in the next one; some never learn their number."""
        storage = await self.make_storage()
        barred = NOTHING
        for life in range(8):
            async with serving(storage):
                group = await start_group(storage, ONE, joining(ONE, barred))
                same((await find(storage, ONE)).log, (), f"the entries at the beginning of life {life}")
                if life % 3:
                    barred = EntryId(life, 1 + life)
                    await group.write_and_wait(*entries(ONE, 1, 3 + life, payload=b"%d" % life), me=Member(1, barred))
                if life % 2:
                    await storage.remove_group(ONE)
                storage = await self.cut_power(storage)
            async with serving(storage):
                await storage.remove_group(ONE)
                same(await find(storage, ONE), Found(None, ONE, barred=barred), f"what is left of life {life}")
                with refused(GroupNotFoundError, "the log of a removed group"):
                    storage.get_log_storage(1)
                if life % 4 < 2:
                    # In one process with the life that follows.
                    await storage.create_group(joining(ONE, barred))
                    await storage.remove_group(ONE)
                storage = await self.cut_power(storage)
