"""Tests of a node's storage as a whole: who it is, which groups it has, whom it knows, how it ends."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from .._errors import GroupExistsError, GroupNotFoundError, StorageError
from .._types import NOTHING, EntryId, GroupKey, Member
from ..core import Compaction, Configuration, HardState, LoadEntries
from ..storage import GroupRecord, PeerRecord
from ._storage_parts import (
    CLUSTER_ID,
    NODE_ID,
    ONE,
    TWO,
    Found,
    Listener,
    entries,
    entry,
    find,
    hold,
    holds,
    record,
    refused,
    same,
    serving,
    start_group,
)
from ._storage_place import StoragePlace, needs

SECOND_ONE = GroupKey(1, 2)


class GroupTests(StoragePlace):
    """Identity, groups, peers, and the end of a process."""

    # -- who it is ----------------------------------------------------------------------------------------------------------------

    async def test_a_new_storage_reports_nothing(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            same((dict(storage.recovered), dict(storage.peers)), ({}, {}), "groups and peers")
            same((storage.has_room, storage.is_full, storage.sync_age()), (True, False, 0.0), "room, full, age of the oldest write")

    async def test_each_start_is_counted(self) -> None:
        storage = await self.make_storage()
        starts = []
        for _ in range(3):
            starts.append(await storage.open(NODE_ID, CLUSTER_ID))
            following = await self.cut_power(storage)
            await storage.aclose()
            storage = following
        same([start.incarnation for start in starts], [1, 2, 3], "the incarnations")
        same({(start.node_id, start.cluster_id) for start in starts}, {(NODE_ID, CLUSTER_ID)}, "node and cluster")
        same(len({start.store_id for start in starts}), 1, "the number of store ids")
        same(len(bytes.fromhex(starts[0].store_id)), 16, "the bytes of a store id")

    async def test_another_nodes_or_clusters_storage_is_refused(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            await start_group(storage, ONE)
            storage = await self.cut_power(storage)
        for node_id, cluster_id in ((2, CLUSTER_ID), (NODE_ID, "other")):
            with refused(StorageError, "a foreign storage", kind="foreign"):
                await storage.open(node_id, cluster_id)
            following = await self.cut_power(storage)
            await storage.aclose()
            storage = following
        async with serving(storage):
            same((await find(storage, ONE)).record, record(ONE), "the owner's group")

    @needs("open_second", "two processes cannot meet in such a storage")
    async def test_two_processes_at_once(self) -> None:
        """ST-16: the second is refused, and works once the first has ended."""
        storage = await self.make_storage()
        async with serving(storage):
            second = await self.open_second(storage)
            group = await start_group(storage, ONE)
            with refused(StorageError, "a second process", kind="locked"):
                await second.open(NODE_ID, CLUSTER_ID)
            await second.aclose()
            await group.write_and_wait(*entries(ONE, 1, 3))
            storage = await self.cut_power(storage)
        async with serving(storage):
            same((await find(storage, ONE)).ids, ["1@1", "2@1"], "the log")

    # -- groups -------------------------------------------------------------------------------------------------------------------

    async def test_a_new_group_has_no_entries_and_no_vote(self) -> None:
        storage = await self.make_storage()
        for _ in range(2):
            async with serving(storage):
                await storage.create_group(record(ONE))
                same(await find(storage, ONE), Found(record(ONE), None, configurations=(record(ONE).configuration,)), "the group")
                storage = await self.cut_power(storage)

    async def test_a_group_with_all_kinds_of_members(self) -> None:
        configuration = Configuration(
            frozenset({1, 2, 3}), frozenset({1, 4}), frozenset({5}), frozenset({4}), {1: NOTHING, 2: EntryId(3, 17), 5: EntryId(4, 99)}
        )
        made = GroupRecord(GroupKey(0, 5), Member(2, EntryId(3, 17)), configuration)
        largest = GroupRecord(GroupKey((1 << 63) - 1, (1 << 32) - 1), Member(1), Configuration.bootstrap([1, (1 << 32) - 1]))
        storage = await self.make_storage()
        async with serving(storage):
            await storage.create_group(made)
            await storage.create_group(largest)
            same(storage.recovered[0].record, made, "a record")
            storage = await self.cut_power(storage)
        async with serving(storage):
            same(storage.recovered[0].record, made, "a record")
            same(storage.recovered[(1 << 63) - 1].record, largest, "a record")

    async def test_making_a_group_twice(self) -> None:
        storage = await self.make_storage()
        for _ in range(2):
            async with serving(storage):
                await storage.create_group(record(ONE))
                await storage.create_group(record(ONE))
                with refused(GroupExistsError, "other members"):
                    await storage.create_group(record(ONE, 1, 2))
                with refused(GroupExistsError, "another incarnation"):
                    await storage.create_group(record(SECOND_ONE))
                storage = await self.cut_power(storage)

    async def test_an_unknown_group_has_no_log(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            with refused(GroupNotFoundError, "the log of no group"):
                storage.get_log_storage(1)

    async def test_a_log_is_one_object(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            await storage.create_group(record(ONE))
            holds(storage.get_log_storage(1) is storage.get_log_storage(1), "two objects for one log")

    async def test_a_removed_group_leaves_a_tombstone(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.write_and_wait(*entries(ONE, 1, 5), state=HardState(3, 1))
            await group.save_snapshot(EntryId(1, 3))
            await storage.remove_group(ONE)
            await storage.remove_group(ONE)
            storage = await self.cut_power(storage)
        for _ in range(2):
            async with serving(storage):
                same(await find(storage, ONE), Found(None, ONE), "the group")
                with refused(GroupNotFoundError, "the log of a removed group"):
                    storage.get_log_storage(1)
                with refused(GroupExistsError, "making a group that was removed"):
                    await storage.create_group(record(ONE))
                storage = await self.cut_power(storage)

    async def test_a_new_incarnation_inherits_nothing(self) -> None:
        """No entry, no vote, no snapshot of the old one, also behind what it wrote itself."""
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.write_and_wait(*entries(ONE, 1, 9), state=HardState(3, 1))
            await group.save_snapshot(EntryId(1, 4))
            group.log.compact(Compaction(EntryId(1, 4), EntryId(1, 2), 4))
            await storage.remove_group(ONE)
            group = await start_group(storage, SECOND_ONE)
            with refused(StorageError, "the old group's snapshot", kind="missing"):
                await group.log.snapshots.open(EntryId(1, 4))
            with refused(GroupNotFoundError, "removing the old group once more"):
                await storage.remove_group(ONE)
            storage = await self.cut_power(storage)
        async with serving(storage):
            expected = Found(record(SECOND_ONE), None, configurations=(record(SECOND_ONE).configuration,))
            same((await find(storage, SECOND_ONE))._replace(tombstone=None), expected, "the new group")
            group = hold(storage, SECOND_ONE)
            with refused(StorageError, "the old group's snapshot", kind="missing"):
                await group.log.snapshots.open(EntryId(1, 4))
            await group.write_and_wait(*entries(SECOND_ONE, 1, 4, term=5), state=HardState(5, None))
            storage = await self.cut_power(storage)
        async with serving(storage):
            found = await find(storage, SECOND_ONE)
            same((found.ids, found.hard_state, found.start), (["1@5", "2@5", "3@5"], HardState(5, None), NOTHING), "the new group")

    async def test_a_removal_takes_what_was_queued_with_it(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            one, two = await start_group(storage, ONE), await start_group(storage, TWO)
            one.write(*entries(ONE, 1, 50), state=HardState(1, 1))
            last = two.write(*entries(TWO, 1, 50), state=HardState(1, 1))
            await storage.remove_group(ONE)
            await two.listener.wait_confirmed(last)
            storage = await self.cut_power(storage)
        async with serving(storage):
            same(await find(storage, ONE), Found(None, ONE), "the group")
            same(len((await find(storage, TWO)).log), 49, "the entries of the other group")

    # -- peers --------------------------------------------------------------------------------------------------------------------

    async def test_peers_are_remembered(self) -> None:
        peers = [PeerRecord(2, "ab" * 16, "10.0.0.2:5001", 7), PeerRecord(3, None, '[::1]:1 "quoted" \\ ü', 0), PeerRecord(4, "00" * 16)]
        storage = await self.make_storage()
        async with serving(storage):
            await storage.remember_peer(PeerRecord(2, "ab" * 16, "old:1", 6))
            async with trio.open_nursery() as nursery:
                for peer in peers:
                    nursery.start_soon(storage.remember_peer, peer)
            same(dict(storage.peers), {peer.node_id: peer for peer in peers}, "the peers")
            storage = await self.cut_power(storage)
        async with serving(storage):
            same(dict(storage.peers), {peer.node_id: peer for peer in peers}, "the peers")

    # -- the end ------------------------------------------------------------------------------------------------------------------

    async def test_a_closed_storage_takes_no_writes(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.write_and_wait(*entries(ONE, 1, 3))
        group.write(*entries(ONE, 3, 4))
        group.log.compact(Compaction(EntryId(1, 1), EntryId(1, 1), 1))
        await trio.testing.wait_all_tasks_blocked()
        same(group.listener.confirmed, 1, "the last confirmed write")
        with refused(StorageError, "a group in a closed storage"):
            await storage.create_group(record(TWO))
        late = Listener()
        storage.get_log_storage(1).attach(late)
        same(len(late.failures), 1, "the failures that a late listener hears of")
        same((storage.has_room, storage.sync_age()), (False, math.inf), "room, age of the oldest write")
        await storage.aclose()
        storage = await self.cut_power(storage)
        async with serving(storage):
            same((await find(storage, ONE)).ids, ["1@1", "2@1"], "the log")

    async def test_an_end_in_the_middle_of_writes(self) -> None:
        """What is found is what some write left, the last confirmed one or a later one: nothing is reordered, nothing in halves."""
        storage = await self.make_storage()
        for round_ in range(1, 9):
            async with serving(storage) as nursery:
                group = await start_group(storage, ONE)
                before = len((await find(storage, ONE)).log)
                states = [(before, (await find(storage, ONE)).hard_state)]
                for number in range(20):
                    low = states[-1][0] + 1
                    state = HardState(round_, 2) if number == 10 else None
                    group.write(
                        *entries(ONE, low, low + 1 + number % 3, term=round_), state=state or (HardState(round_) if not number else None)
                    )
                    states.append((low + number % 3, state or (HardState(round_) if not number else states[-1][1])))
                for _ in range(2 * round_):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            confirmed = group.listener.confirmed
            storage = await self.cut_power(storage)
            async with serving(storage):
                found = await find(storage, ONE)
                holds(
                    (len(found.log), found.hard_state) in states[confirmed:],
                    f"{found.ids[-3:]}, {found.hard_state} after {confirmed} writes",
                )
                storage = await self.cut_power(storage)

    async def test_closing_is_idempotent_and_may_be_cancelled(self) -> None:
        storage = await self.make_storage()
        await storage.open(NODE_ID, CLUSTER_ID)
        with trio.CancelScope() as scope:
            scope.cancel()
            await storage.aclose()
        await storage.aclose()
        storage = await self.cut_power(storage)
        async with serving(storage):
            await start_group(storage, ONE)

    async def test_a_storage_that_was_never_opened_can_be_closed(self) -> None:
        storage = await self.make_storage()
        await storage.aclose()

    # -- cancellation -------------------------------------------------------------------------------------------------------------

    async def test_cancelling_a_start(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.write_and_wait(*entries(ONE, 1, 9), state=HardState(1, 2))
            storage = await self.cut_power(storage)
        for steps in range(8):
            await cancelled_after(steps, storage.open, NODE_ID, CLUSTER_ID)
            following = await self.cut_power(storage)
            await storage.aclose()
            storage = following
        async with serving(storage):
            found = await find(storage, ONE)
            same((len(found.log), found.hard_state), (8, HardState(1, 2)), "the log's length and the vote")

    async def test_cancelling_whoever_waits(self) -> None:
        """Each call that waits is cancelled after a few steps; asked again, it does what it should."""
        storage = await self.make_storage()
        key = GroupKey(9)
        async with serving(storage):
            one = await start_group(storage, ONE)
            await one.write_and_wait(*entries(ONE, 1, 9))
            for steps in range(8):
                await cancelled_after(steps, storage.create_group, record(key))
                await storage.create_group(record(key))
                await cancelled_after(steps, storage.remember_peer, PeerRecord(7, "ab" * 16, "x:1", steps))
                await storage.remember_peer(PeerRecord(7, "ab" * 16, "x:1", steps))
                same(storage.peers[7].address_version, steps, "the version of an address")
                await cancelled_after(steps, read_first, one)
                await one.write_and_wait(entry(ONE, 9 + steps))
                await cancelled_after(steps, storage.remove_group, key)
                await storage.remove_group(key)
                same(storage.recovered[9].tombstone, key, "the tombstone")
                key = GroupKey(9, key.incarnation + 1)
            storage = await self.cut_power(storage)
        async with serving(storage):
            same(storage.recovered[9].tombstone, GroupKey(9, 8), "the tombstone")
            same(len((await find(storage, ONE)).log), 16, "the entries")


async def read_first(group: Any) -> None:
    await group.log.read(LoadEntries(None, 1, 8, 1 << 20))


async def cancelled_after(steps: int, call: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
    """Begin a call, and cancel it some steps of the event loop later, unless it has ended by then."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, *arguments)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
