"""The conformance suite can fail: storages that are broken on purpose, each in one way, and the test that finds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from trioraft._errors import RaftError
from trioraft._types import NOTHING, EntryId
from trioraft.core import HardState
from trioraft.storage import MemoryStorage, MultiRaftStorage, _held_log, _memory
from trioraft.storage._contract import RecoveredGroup
from trioraft.storage._log_state import LogState
from trioraft.storage._memory_group import MemoryGroup
from trioraft.storage._memory_snapshots import MemorySnapshots
from trioraft.testing import StorageSuite

Patch = pytest.MonkeyPatch


class Broken(StorageSuite):
    """Not collected: its tests are run one by one."""

    __test__ = False

    async def make_storage(self) -> MultiRaftStorage:
        return MemoryStorage()

    async def cut_power(self, storage: MultiRaftStorage) -> MultiRaftStorage:
        assert isinstance(storage, MemoryStorage)
        return storage.restart()


DEFECTS: dict[str, tuple[Callable[[Patch], None], list[str]]] = {}


def found_by(*tests: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    def register(defect: Callable[[Patch], None]) -> Callable[[Patch], None]:
        DEFECTS[defect.__name__] = defect, list(tests)
        return defect

    return register


HISTORY = "test_random_histories_with_power_cuts"


# -- writes ----------------------------------------------------------------------------------------------------------------------


@found_by("test_term_and_vote_are_one_record", "test_a_vote_stays_when_entries_follow", HISTORY)
def forgets_votes(patch: Patch) -> None:
    write = MemoryGroup.write
    patch.setattr(MemoryGroup, "write", lambda self, state, *rest: write(self, state and HardState(state.term), *rest))


@found_by("test_term_and_vote_are_one_record", HISTORY)
def writes_a_vote_only_with_entries(patch: Patch) -> None:
    write = MemoryGroup.write
    patch.setattr(MemoryGroup, "write", lambda self, state, new, install: write(self, state if new else None, new, install))


@found_by("test_each_confirmation_is_true", "test_what_is_confirmed_is_found", HISTORY)
def confirms_before_it_is_durable(patch: Patch) -> None:
    """Each write is carried out with the next one."""
    submit = MemoryStorage._submit
    late: list[Callable[[], None]] = []

    def carry_out_the_last(write: Any) -> None:
        late.append(write.carry_out)

        def carry_out() -> None:
            for earlier in late[: late.index(this)]:
                earlier()
            del late[: late.index(this)]

        this, write.carry_out = write.carry_out, carry_out

    def submit_late(self: MemoryStorage, write: Any) -> None:
        if write.sequence is not None:
            carry_out_the_last(write)
        submit(self, write)

    patch.setattr(MemoryStorage, "_submit", submit_late)


@found_by("test_a_shorter_write_of_the_same_term_truncates_too", HISTORY)
def loses_truncations(patch: Patch) -> None:
    """What is behind a write stays, wherever the terms allow it."""
    write = MemoryGroup.write

    def write_in_place(self: MemoryGroup, state: Any, new: Any, install: Any) -> None:
        behind = self.entries[new[-1].index - self.state.terms.start.index :] if new and install is None else []
        write(self, state, new, install)
        if behind and behind[0].term >= new[-1].term:
            write(self, None, behind, None)

    patch.setattr(MemoryGroup, "write", write_in_place)


@found_by("test_what_is_confirmed_is_found", HISTORY)
def writes_halves(patch: Patch) -> None:
    """The last entry of a larger write is lost."""
    write = MemoryGroup.write
    patch.setattr(MemoryGroup, "write", lambda self, state, new, install: write(self, state, new[:-1] if len(new) > 1 else new, install))


@found_by("test_confirmations_rise_and_reach_the_last_write")
def confirms_the_writes_of_others(patch: Patch) -> None:
    commit = MemoryStorage._commit_batch

    async def commit_for_all(self: MemoryStorage) -> None:
        last = max((write.sequence for write in self._queue if write.sequence is not None), default=0)
        await commit(self)
        if last:
            for listener in self._listeners.values():
                listener.persisted(last)

    patch.setattr(MemoryStorage, "_commit_batch", commit_for_all)


@found_by("test_an_unsealed_entry_is_refused")
def takes_unsealed_entries(patch: Patch) -> None:
    patch.setattr(_memory._MemoryLog, "_write", lambda self, sequence, state, new, install, me: None)


# -- configurations --------------------------------------------------------------------------------------------------------------


@found_by("test_configurations_are_found_where_they_are_in_force", HISTORY)
def forgets_the_configuration_at_the_start(patch: Patch) -> None:
    compact = LogState.compact

    def compact_all(self: LogState, compaction: Any) -> None:
        compact(self, compaction)
        self.configurations = [each for each in self.configurations if each[0] > compaction.start.index]

    patch.setattr(LogState, "compact", compact_all)


@found_by("test_configurations_are_found_where_they_are_in_force")
def keeps_configurations_that_were_truncated(patch: Patch) -> None:
    write = LogState.write

    def write_without_rollback(self: LogState, state: Any, new: Any) -> None:
        before = list(self.configurations)
        write(self, state, new)
        known = {index for index, _ in self.configurations}
        self.configurations = sorted([*self.configurations, *(each for each in before if each[0] not in known)], key=lambda each: each[0])

    patch.setattr(LogState, "write", write_without_rollback)


# -- compaction and installs -------------------------------------------------------------------------------------------------------


@found_by("test_a_compaction_loses_nothing_above_its_start", HISTORY)
def compacts_too_much(patch: Patch) -> None:
    compact = MemoryGroup.compact

    def compact_up_to_the_snapshot(self: MemoryGroup, compaction: Any) -> None:
        compact(self, attrs.evolve(compaction, start=compaction.snapshot))

    patch.setattr(MemoryGroup, "compact", compact_up_to_the_snapshot)


@found_by("test_compactions_bound_the_log")
def never_compacts(patch: Patch) -> None:
    patch.setattr(MemoryGroup, "compact", lambda self, compaction: None)


@found_by("test_a_compaction_loses_nothing_above_its_start", HISTORY)
def compacts_in_halves(patch: Patch) -> None:
    """The beginning of the log is cut, and the snapshot is not noted."""
    compact = MemoryGroup.compact

    def compact_half(self: MemoryGroup, compaction: Any) -> None:
        before = self.state.snapshot
        compact(self, compaction)
        self.state.snapshot = before

    patch.setattr(MemoryGroup, "compact", compact_half)


@found_by("test_a_compaction_removes_older_ones")
def keeps_all_snapshots(patch: Patch) -> None:
    patch.setattr(MemoryGroup, "compact", lambda self, compaction: self.state.compact(compaction))


@found_by("test_a_compaction_removes_older_ones", "test_compactions_bound_the_log")
def removes_all_snapshots(patch: Patch) -> None:
    compact = MemoryGroup.compact

    def compact_and_remove(self: MemoryGroup, compaction: Any) -> None:
        compact(self, compaction)
        self.snapshots.clear()

    patch.setattr(MemoryGroup, "compact", compact_and_remove)


@found_by("test_an_install_over_another_log_leaves_nothing_of_it", HISTORY)
def keeps_a_divergent_tail(patch: Patch) -> None:
    def install(self: LogState, at: EntryId, configuration: Any) -> None:
        terms = self.terms
        if terms.start.index <= at.index <= terms.last_index:
            terms.compact(at.index)
        else:
            terms.reset(at)
        self.configurations = [(at.index, configuration), *(each for each in self.configurations if each[0] > at.index)]
        self._advance(at, at.index)

    patch.setattr(LogState, "install", install)


@found_by("test_an_install_into_its_own_log_keeps_what_follows", HISTORY)
def drops_a_matching_tail(patch: Patch) -> None:
    def install(self: LogState, at: EntryId, configuration: Any) -> None:
        self.terms.reset(at)
        self.configurations = [(at.index, configuration)]
        self._advance(at, at.index)

    patch.setattr(LogState, "install", install)


# -- reading ---------------------------------------------------------------------------------------------------------------------


@found_by("test_reading_keeps_its_limits")
def reads_without_limits(patch: Patch) -> None:
    read = MemoryGroup.read
    patch.setattr(MemoryGroup, "read", lambda self, load: read(self, attrs.evolve(load, bytes_max=1 << 40)))


@found_by("test_reading_keeps_its_limits", HISTORY)
def reads_nothing_that_is_too_large(patch: Patch) -> None:
    read = MemoryGroup.read

    def read_small(self: MemoryGroup, load: Any) -> Any:
        found = read(self, load)
        return found if sum(len(each.payload) for each in found) <= load.bytes_max else ()

    patch.setattr(MemoryGroup, "read", read_small)


@found_by("test_compactions_bound_the_log")
def reads_from_where_the_log_begins_now(patch: Patch) -> None:
    """Asked for what was cut off, it answers with what follows."""
    read = MemoryGroup.read

    def read_later(self: MemoryGroup, load: Any) -> Any:
        return read(self, attrs.evolve(load, first=max(load.first, self.state.terms.start.index + 1)))

    patch.setattr(MemoryGroup, "read", read_later)


# -- groups ----------------------------------------------------------------------------------------------------------------------


@found_by("test_each_start_is_counted")
def does_not_count_its_starts(patch: Patch) -> None:
    opened = MemoryStorage.open

    async def open_again(self: MemoryStorage, *names: Any) -> Any:
        record = await opened(self, *names)
        self._metal.node = attrs.evolve(record, incarnation=0)
        return record

    patch.setattr(MemoryStorage, "open", open_again)


@found_by("test_a_removed_group_leaves_a_tombstone", HISTORY)
def forgets_tombstones(patch: Patch) -> None:
    remove = MemoryStorage.remove_group

    async def remove_all(self: MemoryStorage, key: Any, barred: Any = None) -> None:
        await remove(self, key, barred)
        self._metal.groups.pop(key.group_id, None)
        self._recovered.pop(key.group_id, None)

    patch.setattr(MemoryStorage, "remove_group", remove_all)


@found_by("test_a_new_incarnation_inherits_nothing")
def inherits(patch: Patch) -> None:
    """A new incarnation finds the old one's votes and snapshots."""
    settle = MemoryStorage._settle
    kept: dict[int, MemoryGroup] = {}

    async def settle_and_keep(self: MemoryStorage, group_id: int, change: Any) -> None:
        before = self._metal.groups.get(group_id)
        if before is not None and before.record is not None:
            kept[group_id] = before
        await settle(self, group_id, change)
        after = self._metal.groups[group_id]
        if after is not before and after.record is not None and group_id in kept:
            after.snapshots, after.state = kept[group_id].snapshots, kept[group_id].state

    patch.setattr(MemoryStorage, "_settle", settle_and_keep)


@found_by("test_a_number_is_learned_with_what_follows_from_it", "test_a_tombstone_bars_the_newest_number", HISTORY)
def forgets_numbers(patch: Patch) -> None:
    patch.setattr(MemoryGroup, "learn_number", lambda self, me: None)


@found_by("test_a_number_only_rises")
def takes_any_number(patch: Patch) -> None:
    patch.setattr(_held_log, "check_number", lambda before, now: None)


@found_by("test_a_tombstone_bars_the_newest_number")
def bars_what_is_confirmed(patch: Patch) -> None:
    """The number that is on its way is not."""
    remove = MemoryStorage.remove_group

    async def remove_at_once(self: MemoryStorage, key: Any, barred: Any = None) -> None:
        record = self._metal.groups[key.group_id].record
        await remove(self, key, barred)
        if record is not None:
            self._metal.groups[key.group_id].barred = record.me.replica
            self._recovered[key.group_id] = self._metal.groups[key.group_id].recovered(key.group_id)

    patch.setattr(MemoryStorage, "remove_group", remove_at_once)


@found_by("test_a_tombstone_bars_the_newest_number", "test_what_is_barred_never_falls", HISTORY)
def forgets_what_is_barred(patch: Patch) -> None:
    restart = MemoryStorage.restart

    def restart_without(self: MemoryStorage) -> MemoryStorage:
        for group in self._metal.groups.values():
            group.barred = NOTHING
        return restart(self)

    patch.setattr(MemoryStorage, "restart", restart_without)


@found_by("test_who_may_come_back")
def lets_anybody_come_back(patch: Patch) -> None:
    patch.setattr(RecoveredGroup, "_check_return", lambda self, tombstone, record: None)


@found_by("test_who_held_the_first_life_has_nothing_to_do_with_the_second")
def takes_one_life_for_the_other(patch: Patch) -> None:
    """What was given out for the first life goes on with the second."""
    patch.setattr(_memory._MemoryLog, "_check_open", lambda self: None)
    patch.setattr(_memory._MemoryLog, "_find", lambda self: self.storage._group(self.key))


@found_by("test_a_second_life_inherits_nothing", "test_many_lives_of_one_key")
def goes_on_with_the_first_life(patch: Patch) -> None:
    """Entries of the first life are there again."""
    settle = MemoryStorage._settle
    kept: dict[int, MemoryGroup] = {}

    async def settle_and_return(self: MemoryStorage, group_id: int, change: Any) -> None:
        before = self._metal.groups.get(group_id)
        if before is not None and before.record is not None:
            kept[group_id] = before
        await settle(self, group_id, change)
        after = self._metal.groups[group_id]
        if after is not before and after.record is not None and group_id in kept and after.record.key == kept[group_id].record.key:
            after.entries, after.state = kept[group_id].entries, kept[group_id].state
            self._recovered[group_id] = after.recovered(group_id)

    patch.setattr(MemoryStorage, "_settle", settle_and_return)


@found_by("test_peers_are_remembered")
def forgets_peers(patch: Patch) -> None:
    restart = MemoryStorage.restart

    def restart_alone(self: MemoryStorage) -> MemoryStorage:
        self._metal.peers = {}
        return restart(self)

    patch.setattr(MemoryStorage, "restart", restart_alone)


# -- snapshots -------------------------------------------------------------------------------------------------------------------


@found_by("test_each_commit_is_durable", "test_a_committed_snapshot_is_there", HISTORY)
def loses_snapshots(patch: Patch) -> None:
    restart = MemoryStorage.restart

    def restart_without(self: MemoryStorage) -> MemoryStorage:
        for group in self._metal.groups.values():
            group.snapshots.clear()
        return restart(self)

    patch.setattr(MemoryStorage, "restart", restart_without)


@found_by("test_what_is_not_committed_is_not_there", "test_cancelling_a_writer")
def shows_what_is_not_committed(patch: Patch) -> None:
    create = MemorySnapshots.create

    async def create_at_once(self: MemorySnapshots, at: EntryId) -> Any:
        self.find_group().snapshots[at] = b"half"
        return await create(self, at)

    patch.setattr(MemorySnapshots, "create", create_at_once)


@found_by("test_one_that_is_replaced_can_be_read_to_its_end")
def reads_what_replaced_it(patch: Patch) -> None:
    opened = MemorySnapshots.open

    async def open_live(self: MemorySnapshots, at: EntryId) -> Any:
        reader = await opened(self, at)

        class Live(type(reader)):  # type: ignore[misc]  # of any type
            async def read(_, offset: int, size: int) -> bytes:
                return self.find_group().snapshots[at][offset : offset + size]

        return Live(reader.path, b"x" * reader.size)

    patch.setattr(MemorySnapshots, "open", open_live)


# --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("defect, test", [(name, test) for name, (_, tests) in DEFECTS.items() for test in tests])
async def test_the_suite_finds(defect: str, test: str, monkeypatch: pytest.MonkeyPatch) -> None:
    DEFECTS[defect][0](monkeypatch)
    Broken.seeds = range(1, 12)
    with pytest.raises(Exception) as caught:
        await getattr(Broken(), test)()
    assert any(isinstance(error, AssertionError | RaftError) for error in leaves(caught.value)), "found by a claim, not by an accident"


@pytest.mark.parametrize("test", sorted({test for _, tests in DEFECTS.values() for test in tests}))
async def test_and_nothing_where_nothing_is_wrong(test: str) -> None:
    await getattr(Broken(), test)()


def leaves(error: BaseException) -> list[BaseException]:
    return [leaf for each in error.exceptions for leaf in leaves(each)] if isinstance(error, BaseExceptionGroup) else [error]
