"""What a running node knows of its groups is always what the next start would read."""

from __future__ import annotations

import random
from itertools import pairwise

import attrs
import pytest
import trio

from tests.storage.kit import FIRST, LOG, Group, hold, installing, record, serving, start_group, state_of, wal
from trioraft._types import EntryId, GroupKey
from trioraft.core import Compaction, Configuration, Entry, EntryKind, HardState, encode_configuration
from trioraft.storage import SimulatedDisk, WalStorage, _committer as committer_module
from trioraft.storage._batch import BadBytesError
from trioraft.storage._committer import Mark
from trioraft.storage._extents import Extent, Extents
from trioraft.storage._log_file import LogEnd
from trioraft.storage._recovery import recover
from trioraft.storage._row import AtRest, Row
from trioraft.storage._row_bytes import encode_row_content
from trioraft.storage._segment import encode_at_rest, encode_carried, encode_group, encode_row, encode_tombstone, encode_write
from trioraft.storage._table import Body, Table
from trioraft.wire import seal

# -- extents, against a dictionary -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_extents_say_of_each_entry_where_it_is(seed: int) -> None:
    rng = random.Random(seed)
    extents, model, start, last = Extents(), dict[int, tuple[int, int]](), 0, 0
    for number in range(200):
        what = rng.choice(("append", "append", "append", "truncate", "compact", "move"))
        if what == "append":
            first, last = last + 1, last + rng.randint(1, 6)
            extents.append(first, last, number, 7 * number, 9)
            model |= dict.fromkeys(range(first, last + 1), (number, 7 * number))
        elif what == "truncate":
            last = rng.randint(max(start, last - 8), last)
            extents.truncate(last)
            model = {index: place for index, place in model.items() if index <= last}
        elif what == "compact":
            start = rng.randint(start, min(last, start + 4))
            extents.compact(start)
            model = {index: place for index, place in model.items() if index > start}
        elif last > start:
            low = rng.randint(start + 1, last)
            high = rng.randint(low, min(last, low + 9))
            extents.vacate(low, high)
            extents.insert(Extent(low, high, number, 7 * number, 9))
            model |= dict.fromkeys(range(low, high + 1), (number, 7 * number))
        found = [extents[place] for place in range(len(extents))]
        assert {index: (each.file, each.offset) for each in found for index in range(each.first, each.last + 1)} == model
        assert all(one.last < other.first for one, other in pairwise(found))
        assert extents.count() == len(model)
        for index in range(start + 1, last + 1):
            assert (found[extents.place_of(index)].file, found[extents.place_of(index)].offset) == model[index]
        for file in {each.file for each in found}:
            assert extents.is_in(file)
            assert extents.in_file(file) == [each for each in found if each.file == file]
        assert not extents.is_in(10_000)


# -- rows ------------------------------------------------------------------------------------------------------------------------------


def row_of(*runs: tuple[int, int]) -> Row:
    """A row whose log has these runs: last index, term."""
    row = Row.living(record(GroupKey(7)))
    for number, (last, term) in enumerate(runs, 1):
        first = row.terms.last_index + 1
        row.extend(last, term)
        row.add_extent(first, last, number, 512, 100)
    return row


def places(row: Row) -> list[tuple[int, int, int | str]]:
    return [(each.first, each.last, each.name if isinstance(each, AtRest) else each.file) for each in row.places(row.terms.start.index + 1)]


def test_SN_1_an_install_over_a_divergent_tail_empties_the_log() -> None:
    row = row_of((20, 2))
    row.install(EntryId(3, 15), Configuration.bootstrap({4}))
    assert (row.terms.start, row.terms.last_index, row.snapshot, row.commit) == (EntryId(3, 15), 15, EntryId(3, 15), 15)
    assert places(row) == []
    assert row.configurations == ((15, Configuration.bootstrap({4})),)


def test_SN_1_an_install_over_a_matching_tail_keeps_it() -> None:
    row = row_of((10, 2), (20, 2))
    row.configure(20, Configuration.bootstrap({5}))
    row.install(EntryId(2, 15), Configuration.bootstrap({4}))
    assert (row.terms.start, row.terms.last_index) == (EntryId(2, 15), 20)
    assert places(row) == [(16, 20, 2)]
    assert row.configurations == ((15, Configuration.bootstrap({4})), (20, Configuration.bootstrap({5})))


def test_an_older_install_changes_nothing() -> None:
    row = row_of((20, 2))
    row.install(EntryId(2, 15), Configuration.bootstrap({4}))
    before = encode_row_content(row, {})
    row.install(EntryId(2, 9), Configuration.bootstrap({5}))
    assert encode_row_content(row, {}) == before


def test_a_log_is_cut_once_and_stays_cut() -> None:
    row = row_of((10, 2), (20, 3))
    row.compact(EntryId(3, 15), EntryId(3, 12), 17)
    row.compact(EntryId(2, 8), EntryId(2, 5), 9)
    assert (row.terms.start, row.snapshot, row.commit) == (EntryId(3, 12), EntryId(3, 15), 17)
    assert places(row) == [(13, 20, 2)]
    for start, snapshot in ((EntryId(2, 14), EntryId(3, 15)), (EntryId(3, 21), EntryId(3, 21)), (EntryId(3, 16), EntryId(3, 15))):
        with pytest.raises(BadBytesError):
            row.compact(snapshot, start, 17)


def test_configurations_roll_back_with_their_entries_and_the_oldest_one_stays() -> None:
    one, two, three = (Configuration.bootstrap(ids) for ids in ({1}, {2}, {3}))
    row = row_of((5, 2))
    row.configure(5, one)
    row.extend(8, 2)
    row.configure(8, two)
    row.compact(EntryId(2, 6), EntryId(2, 6), 6)
    assert row.configurations == ((5, one), (8, two)), "the one in force at the start is known, with the index of its entry"
    row.replace_from(8, 3)
    assert row.configurations == ((5, one),)
    row.extend(8, 3)
    row.configure(8, three)
    row.compact(EntryId(3, 8), EntryId(3, 8), 8)
    assert row.configurations == ((8, three),)


def test_what_was_moved_counts_only_where_the_log_still_has_it() -> None:
    """Truncated, rewritten in another term, or cut off, while the storage copied it: nothing comes back."""
    row = row_of((10, 2), (20, 3), (25, 5))
    row.compact(EntryId(2, 4), EntryId(2, 4), 4)
    assert row.carry(1, 10, 2, 9, 0, 50)
    assert places(row) == [(5, 10, 9), (11, 20, 2), (21, 25, 3)]
    assert not row.carry(1, 4, 2, 10, 0, 50)
    assert not row.carry(21, 25, 4, 10, 0, 50)
    assert not row.carry(26, 30, 5, 10, 0, 50)
    assert row.carry(18, 30, 3, 10, 0, 50)
    assert places(row) == [(5, 10, 9), (11, 17, 2), (18, 20, 10), (21, 25, 3)]
    row.rest(3, 23, 1000, [(3, 2), (11, 3), (21, 4)])
    assert places(row) == [(5, 20, "3.log"), (21, 25, 3)]
    row.replace_from(15, 6)
    assert places(row) == [(5, 14, "3.log")]
    row.rest(1, 4, 1000, [(1, 2)])
    row.rest(15, 16, 1000, [(15, 3)])
    assert places(row) == [(5, 14, "3.log")]
    assert row.carry(7, 8, 2, 11, 0, 50)
    assert places(row) == [(5, 6, "3.log"), (7, 8, 11), (9, 14, "3.log")]
    assert row.find_gap() is None


def test_what_a_log_takes_is_told_roughly() -> None:
    """Of the log files as it is; of a file at rest as much as is left of its entries."""
    row = row_of((10, 2))
    taken = row.durable().log_bytes
    assert taken == sum(place.length for place in row.places(1) if isinstance(place, Extent)) > 0
    row.extend(30, 2)
    row.add_extent(11, 30, 3, 0, 700)
    assert row.durable().log_bytes == taken + 700
    row.rest(11, 30, 2000, [(11, 2)])
    assert row.durable().log_bytes == taken + 2000
    row.compact(EntryId(2, 25), EntryId(2, 25), 25)
    assert row.durable().log_bytes == 500
    row.install(EntryId(3, 40), Configuration.bootstrap({4}))
    assert row.durable().log_bytes == 0


def test_a_gap_is_named() -> None:
    row = row_of((10, 2))
    row.extend(15, 2)
    assert row.find_gap() == (11, 15)
    row.extend(20, 2)
    row.add_extent(16, 20, 4, 0, 9)
    assert row.find_gap() == (11, 15)
    assert row.carry(12, 15, 2, 5, 0, 9)
    assert row.find_gap() == (11, 11)
    assert row.carry(11, 11, 2, 5, 0, 9)
    assert row.find_gap() is None


# -- live and replayed -------------------------------------------------------------------------------------------------------------------


@attrs.define
class Model:
    """What one group was told to write."""

    key: GroupKey
    group: Group | None = None
    state: HardState = HardState()
    start: int = 0
    log: list[Entry] = attrs.Factory(list)

    @property
    def last(self) -> int:
        return self.start + len(self.log)

    def entry_at(self, index: int) -> Entry:
        return self.log[index - self.start - 1]


def sealed(key: GroupKey, index: int, term: int) -> Entry:
    """An entry. There is one of each position (log matching), sometimes a configuration."""
    rng = random.Random(f"{key} {index}@{term}")
    if rng.random() < 0.1:
        entry = Entry(index, term, EntryKind.CONFIGURATION, encode_configuration(Configuration.bootstrap(rng.sample(range(1, 9), 3))))
    else:
        entry = Entry(index, term, EntryKind.COMMAND, rng.randbytes(rng.choice((0, 30, 900))))
    seal(key, entry)
    return entry


class Life:
    """Random things that happen to the groups of a node."""

    def __init__(self, storage: WalStorage, rng: random.Random) -> None:
        self.storage, self.rng = storage, rng
        self.models = {number: Model(GroupKey(number)) for number in range(1, 5)}

    async def step(self) -> str:
        rng, model = self.rng, self.models[self.rng.randint(1, 4)]
        if model.group is None:
            await self.storage.create_group(record(model.key))
            model.group = hold(self.storage, model.key)
            return "create"
        what = rng.choice(("write",) * 8 + ("compact", "compact", "install", "carry", "carry", "rest", "rest", "remove"))
        await getattr(self, what)(model, model.group)
        return what

    async def write(self, model: Model, group: Group) -> None:
        rng = self.rng
        state = HardState(model.state.term + rng.choice((0, 0, 1)) or 1, rng.choice((None, 1, 2)))
        changes = state.term != model.state.term
        low = rng.randint(max(model.start, model.last - 3) + 1, model.last + 1)
        before = self.storage._table.rows[model.key.group_id].terms.at(low - 1)
        terms = sorted(rng.choices((max(before, state.term - 1, 1), state.term), k=rng.randint(0, 6)))
        new = [sealed(model.key, index, term) for index, term in enumerate(terms, low)]
        await group.write_and_wait(*new, state=state if changes else None)
        if changes:
            model.state = state
        if new:
            model.log[low - model.start - 1 :] = new

    async def compact(self, model: Model, group: Group) -> None:
        if not model.log:
            return
        snapshot = self.rng.randint(model.start + 1, model.last)
        start = self.rng.randint(model.start + 1, snapshot)
        at, cut = model.entry_at(snapshot).id, model.entry_at(start).id
        group.log.compact(Compaction(at, cut, snapshot))
        await group.write_and_wait()
        del model.log[: start - model.start]
        model.start = start

    async def install(self, model: Model, group: Group) -> None:
        index = self.rng.randint(model.start + 1, model.last + 5)
        keeps = index <= model.last and self.rng.random() < 0.5
        term = model.entry_at(index).term if keeps else model.state.term + 1
        keeps = keeps and model.entry_at(index).term == term
        model.state = HardState(max(model.state.term, term), model.state.vote if term <= model.state.term else None)
        count = 0 if keeps else self.rng.randint(0, 2)
        new = [sealed(model.key, each, model.state.term) for each in range(index + 1, index + 1 + count)]
        await group.write_and_wait(*new, state=model.state, install=installing(EntryId(term, index), *self.rng.sample(range(1, 9), 3)))
        model.log = model.log[index - model.start :] if keeps else new
        model.start = index

    async def carry(self, model: Model, group: Group) -> None:
        """As the cleaner does it; what it carries may be gone by then."""
        if (copied := await self._copy(model)) is None:
            return
        if self.rng.random() < 0.3:
            await self.write(model, group)
        await self._mark(model.key, encode_carried(model.key, copied))

    async def rest(self, model: Model, group: Group) -> None:
        if (copied := await self._copy(model)) is None:
            return
        row = self.storage._table.rows[model.key.group_id]
        if any(each.origin == copied[0].index for each in row.at_rest):
            return
        assert self.storage._directories is not None
        writer = await self.storage._directories.of(model.key).at_rest.create(copied[0].index)
        await writer.append(copied)
        header = await writer.commit(log_position=0)
        runs: list[tuple[int, int]] = []
        for entry in copied:
            if not runs or runs[-1][1] != entry.term:
                runs.append((entry.index, entry.term))
        if self.rng.random() < 0.3:
            await self.write(model, group)
        await self._mark(model.key, encode_at_rest(model.key, copied[0].index, copied[-1].index, header.size, runs))

    async def remove(self, model: Model, group: Group) -> None:
        if self.rng.random() < 0.3:
            await self.storage.remove_group(model.key)
            self.models[model.key.group_id] = Model(GroupKey(model.key.group_id, model.key.incarnation + 1))

    async def _copy(self, model: Model) -> list[Entry] | None:
        if not model.log:
            return None
        low = self.rng.randint(model.start + 1, model.last)
        return model.log[low - model.start - 1 :][: self.rng.randint(1, 8)]

    async def _mark(self, key: GroupKey, data: bytes) -> None:
        mark = Mark()
        assert self.storage._committer is not None
        self.storage._committer.submit(key.group_id, data, mark=mark)
        await mark.wait()


def outline(table: Table) -> dict[int, object]:
    """All of a table, in a form that can be compared."""
    return {
        group_id: (row.key, None if row.failure else encode_row_content(row, {}), str(row.failure), list(row.places(0)))
        for group_id, row in sorted(table.rows.items())
    }


def assert_kept_rows_are_true(table: Table) -> None:
    """What is ready for the next checkpoint is what would be encoded now."""
    for group_id, segment in table.encoded_rows._kept.items():
        row = table.rows[group_id]
        assert row.failure is not None or (row.key is not None and segment == encode_row(row.key, encode_row_content(row, {})))


@pytest.mark.parametrize("seed", range(8))
async def test_the_table_of_a_running_node_is_what_a_start_would_read(seed: int) -> None:
    """Random writes, truncations, votes, installs, cuts, moves, removals and roll-overs; compared after each."""
    rng = random.Random(seed)
    disk = SimulatedDisk(rng)
    storage = wal(disk.mount(), max_log_file_size=4096 * rng.choice((1, 4)))
    done: list[str] = []
    async with serving(storage):
        life = Life(storage, rng)
        for _ in range(100):
            done.append(await life.step())
            twin = disk.fork(random.Random(1))
            twin.crash("none")
            replayed = (await recover(twin.mount(), LOG, disk.contents(FIRST)[64:80], least=LogEnd())).table
            assert outline(replayed) == outline(storage._table), done
            assert_kept_rows_are_true(storage._table)
            assert replayed.files.numbers == storage._table.files.numbers
            assert {file: replayed.files.groups_in(file) for file in replayed.files.numbers} == {
                file: storage._table.files.groups_in(file) for file in replayed.files.numbers
            }
        for model in life.models.values():
            if model.group is not None:
                assert storage.recovered[model.key.group_id].failure is None
        found = await state_of(storage)
        for number, model in life.models.items():
            if model.group is not None:
                assert (found[number].start.index, found[number].hard_state) == (model.start, model.state)
                assert [each.record for each in found[number].entries] == [each.record for each in model.log]
        assert storage._log is not None
        assert storage._log.end.number > 3, "there were roll-overs"
    assert {"create", "write", "compact", "install", "carry", "rest", "remove"} <= set(done)


async def test_a_large_batch_is_applied_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others get their turn in between, and nobody is told before all of it is applied."""
    monkeypatch.setattr(committer_module, "WRITES_PER_CHECKPOINT", 7)
    disk = SimulatedDisk(random.Random(1))
    storage = wal(disk.mount())
    async with serving(storage):
        group, other = [await start_group(storage, GroupKey(number)) for number in (1, 2)]
        seen: set[int] = set()
        for index in range(1, 51):
            group.write(sealed(group.key, index, 1))
            other.write(sealed(other.key, index, 1))
        while other.listener.confirmed == 0:
            seen.add(storage._table.rows[1].terms.last_index)
            assert group.listener.confirmed == 0
            await trio.lowlevel.checkpoint()
        assert len(seen) > 3
        assert group.listener.heard == [99]
        found = await state_of(storage)
        assert [len(found[number].entries) for number in (1, 2)] == [50, 50]
    replayed = (await recover(disk.mount(), LOG, disk.contents(FIRST)[64:80], least=LogEnd())).table
    assert outline(replayed) == outline(storage._table)


# -- what comes late -------------------------------------------------------------------------------------------------------------------


def test_what_comes_behind_the_tombstone_of_its_own_replica_is_passed_over() -> None:
    table, key = Table(LOG), GroupKey(7, 2)
    table.add_file(1)
    write = encode_write(key, HardState(3, 1), (), None)

    def apply(*segments: bytes) -> list[int]:
        data = b"".join(segments)
        return table.apply(Body({7}, 1, 512, data, 0, len(data), 512))

    assert apply(encode_group(record(key)), encode_tombstone(key, record(key).me), write) == []
    assert table.rows[7].recovered().tombstone == key
    assert not table.has_damage
    assert apply(encode_write(GroupKey(7, 1), HardState(3, 1), (), None)) == [7], "of any other one: damage"


def test_what_was_cut_off_is_what_the_log_held_and_what_was_truncated_is_not() -> None:
    row = row_of((6, 1), (9, 2))
    assert all(row.still_has(EntryId(term, index)) for term, index in ((1, 6), (2, 7), (2, 9)))
    assert not row.still_has(EntryId(1, 7))
    assert not row.still_has(EntryId(2, 10)), "truncated, and nothing has taken its place yet"
    row.compact(EntryId(1, 4), EntryId(1, 4), 4)
    assert row.still_has(EntryId(1, 4))
    assert row.still_has(EntryId(1, 2))
    assert not row.still_has(EntryId(2, 10))
