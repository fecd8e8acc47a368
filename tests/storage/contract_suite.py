"""What every storage must do, whatever it is made of: each test takes a `Maker`, and runs before and after a restart.

Collected by `test_contract`, once for each storage.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import pytest
import trio
import trio.testing

from tests.storage.kit import G1, G2, Listener, entries, entry, record, serving, start_group, state_of
from trioraft._errors import GroupExistsError, GroupNotFoundError, InvariantError, StorageError
from trioraft._types import EntryId, GroupKey, Member
from trioraft.core import Configuration, Entry, EntryKind, HardState
from trioraft.storage import GroupRecord, MultiRaftStorage, PeerRecord
from trioraft.wire import open_record


class Maker(ABC):
    """One node's place to keep things, over many processes."""

    @abstractmethod
    def storage(self) -> MultiRaftStorage:
        """The storage of the next process."""


class StorageContract:
    """The suite."""

    async def test_an_empty_store_reports_nothing(self, maker: Maker) -> None:
        storage = maker.storage()
        async with serving(storage):
            assert dict(storage.recovered) == {}
            assert dict(storage.peers) == {}
            assert storage.has_room
            assert storage.sync_age() == 0.0

    async def test_a_new_group_has_no_entries_and_no_vote(self, maker: Maker) -> None:
        for _ in range(2):
            storage = maker.storage()
            async with serving(storage):
                await storage.create_group(record(G1))
                found = storage.recovered[1]
                assert (found.record, found.tombstone, found.failure) == (record(G1), None, None)
                assert found.durable.hard_state == HardState()
                assert list(found.durable.entries) == []

    async def test_who_the_node_is(self, maker: Maker) -> None:
        starts = []
        for _ in range(3):
            storage = maker.storage()
            starts.append(await storage.open(1, "demo"))
            await storage.aclose()
        assert [start.incarnation for start in starts] == [1, 2, 3]
        assert {(start.node_id, start.cluster_id) for start in starts} == {(1, "demo")}
        (store_id,) = {start.store_id for start in starts}
        assert len(bytes.fromhex(store_id)) == 16

    @pytest.mark.parametrize("node_id, cluster_id", [(2, "demo"), (1, "other")])
    async def test_a_foreign_directory_is_refused(self, maker: Maker, node_id: int, cluster_id: str) -> None:
        storage = maker.storage()
        async with serving(storage):
            pass
        stranger = maker.storage()
        with pytest.raises(StorageError) as caught:
            await stranger.open(node_id, cluster_id)
        assert caught.value.kind == "foreign"
        await stranger.aclose()
        storage = maker.storage()
        assert (await storage.open(1, "demo")).incarnation == 2
        await storage.aclose()

    async def test_what_is_written_is_read_back(self, maker: Maker) -> None:
        written = [*entries(G1, 1, 6), Entry(6, 2, EntryKind.NOOP, b""), entry(G1, 7, 2, b"\0" * 2000), entry(G1, 8, 3, b"")]
        from trioraft.wire import seal

        seal(G1, written[5])
        storage = maker.storage()
        async with serving(storage):
            group = await start_group(storage, G1)
            await group.write_and_wait(*written[:3], state=HardState(1, 1))
            group.write(*written[3:5])
            await group.write_and_wait(*written[5:], state=HardState(3, 2))
        for _ in range(2):
            storage = maker.storage()
            async with serving(storage):
                durable = storage.recovered[1].durable
                assert list(durable.entries) == written
                assert durable.hard_state == HardState(3, 2)
                for found, original in zip(durable.entries, written, strict=True):
                    assert found.record == original.record, "so that nobody seals it anew"
                    assert open_record(found.record, 0, payload_bytes_max=1 << 20)[:2] == (G1, original)

    async def test_the_vote_is_read_back(self, maker: Maker) -> None:
        for state in (HardState(4, 3), HardState(5, None), HardState(5, 1), HardState(1 << 40, (1 << 32) - 1)):
            storage = maker.storage()
            async with serving(storage):
                group = await start_group(storage, G1)
                await group.write_and_wait(state=state)
            storage = maker.storage()
            async with serving(storage):
                assert storage.recovered[1].durable.hard_state == state

    async def test_a_write_replaces_everything_at_and_above_its_first_index(self, maker: Maker) -> None:
        expected = [(1, 1), (2, 1), (3, 4)]
        storage = maker.storage()
        async with serving(storage):
            group = await start_group(storage, G1)
            await group.write_and_wait(*entries(G1, 1, 10))
            group.write(*entries(G1, 2, 5))
            group.write(*entries(G1, 5, 9, term=3))
            await group.write_and_wait(*entries(G1, 3, 4, term=4))
        storage = maker.storage()
        async with serving(storage):
            assert [(found.index, found.term) for found in storage.recovered[1].durable.entries] == expected
            group = await start_group(storage, G1)
            await group.write_and_wait(*entries(G1, 4, 6, term=4))
        storage = maker.storage()
        async with serving(storage):
            found = [(each.index, each.term) for each in storage.recovered[1].durable.entries]
            assert found == [*expected, (4, 4), (5, 4)]

    async def test_deleting_from_1_leaves_what_replaced_it(self, maker: Maker) -> None:
        storage = maker.storage()
        async with serving(storage):
            group = await start_group(storage, G1)
            await group.write_and_wait(*entries(G1, 1, 10))
            await group.write_and_wait(*entries(G1, 1, 2, term=2))
        storage = maker.storage()
        async with serving(storage):
            assert [str(found) for found in storage.recovered[1].durable.entries] == ["1@2"]

    async def test_groups_have_nothing_in_common(self, maker: Maker) -> None:
        storage = maker.storage()
        async with serving(storage):
            one, two = await start_group(storage, G1), await start_group(storage, G2)
            for index in range(1, 5):
                one.write(*entries(G1, index, index + 1), state=HardState(index, 1))
                two.write(*entries(G2, index, index + 1, term=7), state=HardState(7, 2))
            await two.listener.wait_until(8)
            await one.write_and_wait(*entries(G1, 2, 3, term=9))
        storage = maker.storage()
        async with serving(storage):
            assert [str(found) for found in storage.recovered[1].durable.entries] == ["1@1", "2@9"]
            assert [str(found) for found in storage.recovered[2].durable.entries] == ["1@7", "2@7", "3@7", "4@7"]
            assert storage.recovered[2].durable.hard_state == HardState(7, 2)

    async def test_confirmations_rise_and_reach_the_last_write(self, maker: Maker) -> None:
        storage = maker.storage()
        async with serving(storage):
            one, two = await start_group(storage, G1), await start_group(storage, G2)
            for index in range(1, 30):
                (one if index % 3 else two).write(state=HardState(index, 1))
                if index % 5 == 0:
                    await trio.lowlevel.checkpoint()
            await one.listener.wait_until(29)
            await two.listener.wait_until(27)
            for group in (one, two):
                assert group.listener.heard == sorted(set(group.listener.heard))  # type: ignore[type-var]
            assert all(number % 3 for number in one.listener.heard)  # type: ignore[operator]
            assert storage.sync_count >= 1

    async def test_sequences_are_of_the_node(self, maker: Maker) -> None:
        storage = maker.storage()
        assert [storage.next_sequence() for _ in range(3)] == [1, 2, 3]

    async def test_a_group_with_all_kinds_of_members(self, maker: Maker) -> None:
        configuration = Configuration(
            frozenset({1, 2, 3}),
            frozenset({1, 4}),
            frozenset({5}),
            frozenset({4}),
            {1: EntryId(0, 0), 2: EntryId(3, 17), 5: EntryId(4, 99)},
        )
        made = GroupRecord(GroupKey(0, 5), Member(2, EntryId(3, 17)), configuration)
        largest = GroupRecord(GroupKey((1 << 63) - 1, (1 << 32) - 1), Member(1), Configuration.bootstrap([1, (1 << 32) - 1]))
        storage = maker.storage()
        async with serving(storage):
            await storage.create_group(made)
            await storage.create_group(largest)
            assert storage.recovered[0].record == made
        storage = maker.storage()
        async with serving(storage):
            assert storage.recovered[0].record == made
            assert storage.recovered[(1 << 63) - 1].record == largest

    async def test_making_a_group_twice(self, maker: Maker) -> None:
        for _ in range(2):
            storage = maker.storage()
            async with serving(storage):
                await storage.create_group(record(G1))
                await storage.create_group(record(G1))
                with pytest.raises(GroupExistsError):
                    await storage.create_group(record(G1, 1, 2))
                with pytest.raises(GroupExistsError):
                    await storage.create_group(record(GroupKey(1, 2)))

    async def test_a_removed_group_leaves_a_tombstone(self, maker: Maker) -> None:
        storage = maker.storage()
        async with serving(storage):
            group = await start_group(storage, G1)
            await group.write_and_wait(*entries(G1, 1, 5), state=HardState(3, 1))
            await storage.remove_group(G1)
            await storage.remove_group(G1)
        for _ in range(2):
            storage = maker.storage()
            async with serving(storage):
                found = storage.recovered[1]
                assert (found.record, found.tombstone, found.failure) == (None, G1, None)
                with pytest.raises(GroupNotFoundError):
                    storage.get_log_storage(1)
                with pytest.raises(GroupExistsError):
                    await storage.create_group(record(G1))
        storage = maker.storage()
        async with serving(storage):
            await storage.create_group(record(GroupKey(1, 2)))
            with pytest.raises(GroupNotFoundError):
                await storage.remove_group(G1)
        storage = maker.storage()
        async with serving(storage):
            assert storage.recovered[1].record == record(GroupKey(1, 2))
            assert storage.recovered[1].durable.hard_state == HardState()
            assert list(storage.recovered[1].durable.entries) == []

    async def test_an_unknown_group_has_no_log(self, maker: Maker) -> None:
        storage = maker.storage()
        async with serving(storage):
            with pytest.raises(GroupNotFoundError):
                storage.get_log_storage(1)

    async def test_a_log_is_one_object(self, maker: Maker) -> None:
        storage = maker.storage()
        async with serving(storage):
            await storage.create_group(record(G1))
            assert storage.get_log_storage(1) is storage.get_log_storage(1)

    async def test_an_unsealed_entry_is_refused(self, maker: Maker) -> None:
        storage = maker.storage()
        async with serving(storage):
            group = await start_group(storage, G1)
            with pytest.raises(InvariantError):
                group.write(Entry(1, 1, EntryKind.COMMAND, b"x"))

    async def test_peers_are_remembered(self, maker: Maker) -> None:
        peers = [PeerRecord(2, "ab" * 16, "10.0.0.2:5001", 7), PeerRecord(3, None, '[::1]:1 "quoted" \\ ü', 0), PeerRecord(4, "00" * 16)]
        storage = maker.storage()
        async with serving(storage):
            await storage.remember_peer(PeerRecord(2, "ab" * 16, "old:1", 6))
            async with trio.open_nursery() as nursery:
                for peer in peers:
                    nursery.start_soon(storage.remember_peer, peer)
            assert dict(storage.peers) == {peer.node_id: peer for peer in peers}
        storage = maker.storage()
        async with serving(storage):
            assert dict(storage.peers) == {peer.node_id: peer for peer in peers}

    async def test_a_store_that_is_closed_takes_no_writes(self, maker: Maker) -> None:
        storage = maker.storage()
        async with serving(storage):
            group = await start_group(storage, G1)
            await group.write_and_wait(*entries(G1, 1, 3))
        group.write(*entries(G1, 3, 4))
        await trio.testing.wait_all_tasks_blocked()
        assert group.listener.heard == [1]
        with pytest.raises(StorageError):
            await storage.create_group(record(G2))
        late = Listener()
        storage.get_log_storage(1).attach(late)
        assert len(late.heard) == 1
        await storage.aclose()
        storage = maker.storage()
        async with serving(storage):
            assert [found.index for found in storage.recovered[1].durable.entries] == [1, 2]

    async def test_a_second_restart_finds_the_same(self, maker: Maker) -> None:
        storage = maker.storage()
        async with serving(storage):
            one, two = await start_group(storage, G1), await start_group(storage, G2)
            await one.write_and_wait(*entries(G1, 1, 9), state=HardState(2, 2))
            await two.write_and_wait(*entries(G2, 1, 3), state=HardState(1, None))
            await storage.create_group(record(GroupKey(3)))
            await storage.remove_group(GroupKey(3))
        found = []
        for _ in range(3):
            storage = maker.storage()
            async with serving(storage):
                found.append(state_of(storage))
        assert found[0] == found[1] == found[2]
        assert set(found[0]) == {1, 2, 3}
