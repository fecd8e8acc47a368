"""Tests of one group's log: what was confirmed is there, in its order, and nothing else is."""

from __future__ import annotations

import trio

from .._errors import InvariantError
from .._types import NOTHING, EntryId, GroupKey
from ..core import Compaction, Configuration, Entry, EntryKind, HardState, LoadEntries
from ..wire import open_record
from ._storage_parts import (
    ONE,
    TWO,
    Found,
    HeldGroup,
    configuration_entry,
    entries,
    entry,
    find,
    find_all,
    hold,
    holds,
    installing,
    read_log,
    record,
    refused,
    same,
    serving,
    start_group,
)
from ._storage_place import StoragePlace

FOUR = Configuration.bootstrap((1, 2, 3, 4))
ALONE = Configuration.bootstrap((1,))


class LogTests(StoragePlace):
    """Writes, votes, reading back, compaction, installs."""

    # -- writes -------------------------------------------------------------------------------------------------------------------

    async def test_what_is_confirmed_is_found(self) -> None:
        """Byte for byte, whatever its size, over several starts."""
        written = [entry(ONE, 1, payload=b""), entry(ONE, 2, payload=bytes(3000)), *entries(ONE, 3, 40), entry(ONE, 40, 2, b"x" * 200_000)]
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.write_and_wait(*written[:3], state=HardState(1, 1))
            group.write(*written[3:5])
            await group.write_and_wait(*written[5:], state=HardState(3, 2))
            storage = await self.cut_power(storage)
        for _ in range(2):
            async with serving(storage):
                found = await find(storage, ONE)
                holds([each for each, _ in found.log] == written, f"another log than was written: {found.ids}")
                holds([sealed for _, sealed in found.log] == [each.record for each in written], "other records than were written")
                same(found.hard_state, HardState(3, 2), "term and vote")
                for each, sealed in found.log:
                    same(open_record(sealed, 0, payload_bytes_max=1 << 20)[:2], (ONE, each), "an opened record")
                storage = await self.cut_power(storage)

    async def test_each_confirmation_is_true(self) -> None:
        """The power goes right after one."""
        storage = await self.make_storage()
        for index in range(1, 8):
            async with serving(storage):
                group = await start_group(storage, ONE)
                await group.write_and_wait(entry(ONE, index, index), state=HardState(index, 1))
                storage = await self.cut_power(storage)
            async with serving(storage):
                found = await find(storage, ONE)
                same((found.ids[-1:], found.hard_state), ([f"{index}@{index}"], HardState(index, 1)), "what was confirmed last")
                storage = await self.cut_power(storage)

    async def test_term_and_vote_are_one_record(self) -> None:
        storage = await self.make_storage()
        for state in (HardState(4, 3), HardState(5, None), HardState(5, 1), HardState(1 << 40, (1 << 32) - 1)):
            async with serving(storage):
                group = await start_group(storage, ONE)
                await group.write_and_wait(state=state)
                storage = await self.cut_power(storage)
            async with serving(storage):
                same((await find(storage, ONE)).hard_state, state, "term and vote")
                storage = await self.cut_power(storage)

    async def test_a_vote_stays_when_entries_follow(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.write_and_wait(state=HardState(7, 2))
            for index in range(1, 30):
                await group.write_and_wait(entry(ONE, index, 7))
            storage = await self.cut_power(storage)
        async with serving(storage):
            same((await find(storage, ONE)).hard_state, HardState(7, 2), "term and vote")

    async def test_a_write_replaces_everything_from_its_first_index_on(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.write_and_wait(*entries(ONE, 1, 10))
            group.write(*entries(ONE, 2, 5))
            group.write(*entries(ONE, 5, 9, term=3))
            await group.write_and_wait(*entries(ONE, 3, 4, term=4))
            same([str(each) for each in await read_log(group.log, 1, 3)], ["1@1", "2@1", "3@4"], "the log, read at once")
            storage = await self.cut_power(storage)
        async with serving(storage):
            same((await find(storage, ONE)).ids, ["1@1", "2@1", "3@4"], "the log")
            group = hold(storage, ONE)
            await group.write_and_wait(*entries(ONE, 4, 6, term=4))
            storage = await self.cut_power(storage)
        async with serving(storage):
            same((await find(storage, ONE)).ids, ["1@1", "2@1", "3@4", "4@4", "5@4"], "the log")

    async def test_what_was_truncated_never_comes_back(self) -> None:
        """Not behind the new end either, once that has grown to where the old one was."""
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.write_and_wait(*entries(ONE, 1, 10))
            await group.write_and_wait(*entries(ONE, 1, 2, term=2))
            storage = await self.cut_power(storage)
        async with serving(storage):
            same((await find(storage, ONE)).ids, ["1@2"], "the log")
            await hold(storage, ONE).write_and_wait(*entries(ONE, 2, 4, term=3))
            storage = await self.cut_power(storage)
        async with serving(storage):
            same((await find(storage, ONE)).ids, ["1@2", "2@3", "3@3"], "the log")

    async def test_a_shorter_write_of_the_same_term_truncates_too(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.write_and_wait(*entries(ONE, 1, 10))
            await group.write_and_wait(*entries(ONE, 2, 5))
            storage = await self.cut_power(storage)
        async with serving(storage):
            same((await find(storage, ONE)).ids, ["1@1", "2@1", "3@1", "4@1"], "the log")

    async def test_groups_have_nothing_in_common(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            one, two = await start_group(storage, ONE), await start_group(storage, TWO)
            last = 0
            for index in range(1, 5):
                one.write(*entries(ONE, index, index + 1), state=HardState(index, 1))
                last = two.write(*entries(TWO, index, index + 1, term=7), state=HardState(7, 2))
            await two.listener.wait_confirmed(last)
            await one.write_and_wait(*entries(ONE, 2, 3, term=9))
            storage = await self.cut_power(storage)
        async with serving(storage):
            first, second = await find(storage, ONE), await find(storage, TWO)
            same((first.ids, first.hard_state), (["1@1", "2@9"], HardState(9, None)), "group 1")
            same((second.ids, second.hard_state), (["1@7", "2@7", "3@7", "4@7"], HardState(7, 2)), "group 2")

    async def test_confirmations_rise_and_reach_the_last_write(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            one, two = await start_group(storage, ONE), await start_group(storage, TWO)
            for index in range(1, 30):
                (one if index % 3 else two).write(state=HardState(index, 1))
                if index % 5 == 0:
                    await trio.lowlevel.checkpoint()
            await one.listener.wait_confirmed(29)
            await two.listener.wait_confirmed(27)
            for group in (one, two):
                numbers = [number for number in group.listener.heard if isinstance(number, int)]
                same(group.listener.heard, sorted(set(numbers)), "the confirmations, in order and once each")
            holds(all(isinstance(number, int) and number % 3 for number in one.listener.heard), "a group heard of another's writes")
            holds(storage.sync_count >= 1, "nothing was synced")
            same(storage.sync_age(), 0.0, "the age of the oldest unfinished write")

    async def test_sequences_are_of_the_node(self) -> None:
        storage = await self.make_storage()
        same([storage.next_sequence() for _ in range(3)], [1, 2, 3], "the first numbers")

    async def test_an_unsealed_entry_is_refused(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            with refused(InvariantError, "an entry without its record"):
                group.write(Entry(1, 1, EntryKind.COMMAND, b"x"))
            await group.write_and_wait(*entries(ONE, 1, 2))

    async def test_a_second_start_finds_the_same(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            one, two = await start_group(storage, ONE), await start_group(storage, TWO)
            await one.write_and_wait(*entries(ONE, 1, 9), state=HardState(2, 2))
            await two.write_and_wait(*entries(TWO, 1, 3), state=HardState(1, None))
            await storage.create_group(record(GroupKey(3)))
            await storage.remove_group(GroupKey(3))
            storage = await self.cut_power(storage)
        found = []
        for _ in range(3):
            async with serving(storage):
                found.append(await find_all(storage))
                storage = await self.cut_power(storage)
        same(found[1:], found[:1] * 2, "the second and the third start")
        same(set(found[0]), {1, 2, 3}, "the groups")

    # -- configurations -----------------------------------------------------------------------------------------------------------

    async def test_configurations_are_found_where_they_are_in_force(self) -> None:
        """Rolled back with their entries; the one at the start stays known when its entry is cut off."""
        first = record(ONE).configuration
        joint = Configuration(frozenset({1, 5}), frozenset({1, 2, 3}), frozenset({4}), frozenset(), {5: EntryId(2, 4), 4: EntryId(1, 2)})
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.write_and_wait(entry(ONE, 1), configuration_entry(ONE, 2, 1, FOUR), entry(ONE, 3))
            await group.write_and_wait(configuration_entry(ONE, 4, 1, ALONE), entry(ONE, 5))
            storage = await self.cut_power(storage)
        async with serving(storage):
            same((await find(storage, ONE)).configurations, (first, first, FOUR, FOUR, ALONE, ALONE), "the configurations")
            group = hold(storage, ONE)
            await group.write_and_wait(*entries(ONE, 3, 6, term=2))
            storage = await self.cut_power(storage)
        async with serving(storage):
            same((await find(storage, ONE)).configurations, (first, first, FOUR, FOUR, FOUR, FOUR), "the configurations")
            group = hold(storage, ONE)
            await group.write_and_wait(configuration_entry(ONE, 4, 2, joint))
            storage = await self.cut_power(storage)
        async with serving(storage):
            same((await find(storage, ONE)).configurations, (first, first, FOUR, FOUR, joint), "the configurations")
            group = hold(storage, ONE)
            await group.save_snapshot(EntryId(2, 3))
            compact(group, EntryId(2, 3), EntryId(2, 3))
            await group.write_and_wait(entry(ONE, 5, 2))
            storage = await self.cut_power(storage)
        async with serving(storage):
            found = await find(storage, ONE)
            same(found.configurations[-3:], (FOUR, joint, joint), "the configurations")

    # -- reading back -------------------------------------------------------------------------------------------------------------

    async def test_reading_keeps_its_limits(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.write_and_wait(*entries(ONE, 1, 6, payload=b"x" * 100))
            await group.write_and_wait(*entries(ONE, 6, 11, payload=b"y" * 100))
            for _ in range(2):
                for bytes_max, count in ((0, 1), (99, 1), (100, 1), (250, 2), (1000, 8), (1 << 20, 8)):
                    piece = await group.log.read(LoadEntries(None, 3, 10, bytes_max))
                    holds(1 <= len(piece) <= count, f"{len(piece)} entries of 100 bytes are in a piece of {bytes_max}")
                    same([each.id for each in piece], [EntryId(1, 3 + number) for number in range(len(piece))], "a piece")
                same([each.index for each in await group.log.read(LoadEntries(2, 5, 6, 1 << 20))][:2], [5, 6], "the last one is meant")
                same([each.index for each in await group.log.read(LoadEntries(2, 10, 10, 1 << 20))], [10], "one entry")

    async def test_reading_while_others_write(self) -> None:
        storage = await self.make_storage()
        async with serving(storage) as nursery:
            one, two = await start_group(storage, ONE), await start_group(storage, TWO)
            await one.write_and_wait(*entries(ONE, 1, 30, payload=b"x" * 500))

            async def write() -> None:
                for index in range(1, 60):
                    two.write(*entries(TWO, index, index + 1, payload=b"y" * 700))
                    one.write(*entries(ONE, 29 + index, 30 + index))
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(write)
            for _ in range(10):
                same([each.index for each in await read_log(one.log, 5, 29, 2000)], list(range(5, 30)), "what was read")

    # -- compaction ---------------------------------------------------------------------------------------------------------------

    async def test_a_compaction_loses_nothing_above_its_start(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.write_and_wait(*entries(ONE, 1, 21), *entries(ONE, 21, 31, term=2), state=HardState(2, 2))
            await group.save_snapshot(EntryId(2, 25))
            compact(group, EntryId(2, 25), EntryId(1, 18), commit=27)
            same([each.index for each in await read_log(group.log, 19, 30)], list(range(19, 31)), "what was read")
            await group.write_and_wait(*entries(ONE, 29, 33, term=3), state=HardState(3, None))
            same([str(each) for each in await read_log(group.log, 28, 32)], ["28@2", "29@3", "30@3", "31@3", "32@3"], "what was read")
            storage = await self.cut_power(storage)
        async with serving(storage):
            found = await find(storage, ONE)
            holds((found.start, found.snapshot) in ((NOTHING, NOTHING), (EntryId(1, 18), EntryId(2, 25))), f"half of a cut: {found}")
            holds(found.commit <= 27, f"{found.commit} is known to be committed; it was 27")
            same(found.ids[-5:], ["28@2", "29@3", "30@3", "31@3", "32@3"], "the end of the log")
            same(found.hard_state, HardState(3, None), "term and vote")

    async def test_a_log_may_be_cut_off_as_a_whole(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.write_and_wait(*entries(ONE, 1, 6))
            await group.save_snapshot(EntryId(1, 5))
            compact(group, EntryId(1, 5), EntryId(1, 5))
            await group.write_and_wait(*entries(ONE, 6, 8, term=2))
            storage = await self.cut_power(storage)
        async with serving(storage):
            found = await find(storage, ONE)
            same(found.ids[-2:], ["6@2", "7@2"], "the end of the log")
            await hold(storage, ONE).write_and_wait(entry(ONE, 8, 2))

    async def test_compactions_bound_the_log(self) -> None:
        """One that is forgotten by a crash is no harm; but they must not be forgotten for ever. What was cut is not served any more."""
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            for index in range(1, 41):
                await group.write_and_wait(entry(ONE, index, payload=b"x" * 400))
                if index % 5 == 0:
                    await group.save_snapshot(EntryId(1, index))
                    compact(group, EntryId(1, index), EntryId(1, index - 2), commit=index)
            await group.write_and_wait(entry(ONE, 41))
            same(await group.log.read(LoadEntries(None, 1, 41, 1 << 20)), (), "what was cut off")
            storage = await self.cut_power(storage)
        async with serving(storage):
            found = await find(storage, ONE)
            holds(found.start.index >= 20, f"after eight cuts, the last at 38, the log begins behind {found.start}")
            holds(found.snapshot.index >= found.start.index, "the log begins behind its snapshot")
            same(await hold(storage, ONE).load_snapshot(found.snapshot), b"snapshot", "the snapshot")
            same(await hold(storage, ONE).log.read(LoadEntries(None, found.start.index, 41, 1 << 20)), (), "what was cut off")

    async def test_what_the_log_takes_is_told_or_not_known(self) -> None:
        """Roughly: with what goes with each entry, and some of what was cut off."""
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            for index in range(1, 31):
                await group.write_and_wait(entry(ONE, index, payload=bytes(1000)))
            await group.write_and_wait(entry(ONE, 21, 2, payload=bytes(1000)))
            storage = await self.cut_power(storage)
        for term in (3, 4):
            async with serving(storage):
                durable = storage.recovered[ONE.group_id].durable
                least = 1000 * (21 - durable.terms.start.index)
                told = durable.log_bytes
                holds(told == 0 or least <= told <= 2 * least, f"{told} bytes in a log of at least {least}")
                group, at = hold(storage, ONE), EntryId(1, 5 * term)
                await group.save_snapshot(at)
                compact(group, at, at)
                await group.write_and_wait(state=HardState(term))
                storage = await self.cut_power(storage)

    async def test_an_older_compaction_changes_nothing(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.write_and_wait(*entries(ONE, 1, 21))
            for at in (10, 15):
                await group.save_snapshot(EntryId(1, at))
            compact(group, EntryId(1, 15), EntryId(1, 15))
            compact(group, EntryId(1, 10), EntryId(1, 10))
            await group.write_and_wait(entry(ONE, 21))
            same([each.index for each in await read_log(group.log, 16, 21)], list(range(16, 22)), "what was read")
            same(await group.load_snapshot(EntryId(1, 15)), b"snapshot", "the newer snapshot")
            storage = await self.cut_power(storage)
        async with serving(storage):
            found = await find(storage, ONE)
            holds(found.snapshot.index >= found.start.index, f"a log behind {found.start} without what was before, only {found.snapshot}")
            same(found.ids[-6:], [f"{index}@1" for index in range(16, 22)], "the end of the log")

    # -- installs -----------------------------------------------------------------------------------------------------------------

    async def test_an_install_over_another_log_leaves_nothing_of_it(self) -> None:
        """SN-1: 1..20 of term 2, snapshot 15@3."""
        found = await self._install(EntryId(3, 15))
        same((found.start, found.snapshot, found.ids), (EntryId(3, 15), EntryId(3, 15), []), "the log")
        same(found.configurations, (FOUR,), "the configurations")

    async def test_an_install_into_its_own_log_keeps_what_follows(self) -> None:
        """SN-1: 1..20 of term 2, snapshot 15@2."""
        found = await self._install(EntryId(2, 15))
        expected = [f"{index}@2" for index in range(16, 21)]
        same((found.start, found.snapshot, found.ids), (EntryId(2, 15), EntryId(2, 15), expected), "the log")
        same(found.configurations, (FOUR,) * 3 + (ALONE,) * 3, "the configurations")

    async def test_an_install_beyond_the_log(self) -> None:
        found = await self._install(EntryId(2, 100))
        same((found.start, found.snapshot, found.ids), (EntryId(2, 100), EntryId(2, 100), []), "the log")

    async def test_an_install_with_what_follows_it(self) -> None:
        """Snapshot, entries behind it, term and vote: all in one write."""
        found = await self._install(EntryId(3, 15), *entries(ONE, 16, 18, term=3), state=HardState(3, 2))
        same((found.start, found.ids, found.hard_state), (EntryId(3, 15), ["16@3", "17@3"], HardState(3, 2)), "the log")

    async def _install(self, at: EntryId, *new: Entry, state: HardState | None = None) -> Found:
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.write_and_wait(*entries(ONE, 1, 18, term=2), state=HardState(2, 2))
            await group.write_and_wait(configuration_entry(ONE, 18, 2, ALONE), *entries(ONE, 19, 21, term=2))
            await group.save_snapshot(at)
            await group.write_and_wait(*new, state=state, install=installing(at, FOUR))
            same(await group.log.read(LoadEntries(None, 15, 15, 1 << 20)), (), "what was replaced")
            storage = await self.cut_power(storage)
        async with serving(storage):
            found = await find(storage, ONE)
            holds(found.hard_state.term >= 2, "the vote is gone")
            same(await hold(storage, ONE).load_snapshot(at), b"snapshot", "the snapshot")
            group = hold(storage, ONE)
            behind = found.log[-1][0].index if found.log else at.index
            await group.write_and_wait(entry(ONE, behind + 1, 9))
            storage = await self.cut_power(storage)
        async with serving(storage):
            again = await find(storage, ONE)
            same(again.ids, [*found.ids, f"{behind + 1}@9"], "the log, after it went on")
        return found


def compact(group: HeldGroup, snapshot: EntryId, start: EntryId, commit: int = 0) -> None:
    group.log.compact(Compaction(snapshot, start, commit or snapshot.index))
