"""Most rows of a checkpoint are ready before it is due; and each of them says what its group says by then."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.storage.kit import LOG, Group, entries, found_on, hold, record, serving, wal
from trioraft._types import GroupId, GroupKey
from trioraft.core import HardState
from trioraft.storage import SimulatedDisk, WalStorage, _encoded_rows as encoded_rows_module
from trioraft.storage._encoded_rows import PREPARE_FROM, EncodedRows
from trioraft.storage._row import Row
from trioraft.storage._row_bytes import EncodedConfigurations, encode_row_content
from trioraft.storage._segment import encode_row

GROUPS = 100


@contextmanager
def noted_encodings() -> Iterator[list[GroupId]]:
    """The groups whose rows are encoded, in order."""
    noted: list[GroupId] = []

    def encode(row: Row, encoded: EncodedConfigurations) -> bytes:
        noted.append(row.group_id)
        return encode_row_content(row, encoded)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoded_rows_module, "encode_row_content", encode)
        yield noted


def living(*numbers: int) -> dict[GroupId, Row]:
    return {number: Row.living(record(GroupKey(number))) for number in numbers}


def fresh(rows: dict[GroupId, Row]) -> dict[GroupId, bytes]:
    return {number: encode_row(row.key, encode_row_content(row, {})) for number, row in rows.items() if row.key is not None}


# -- the pass --------------------------------------------------------------------------------------------------------------------------


def test_the_pass_keeps_step_with_the_file() -> None:
    rows = living(*range(100))
    encoded = EncodedRows(rows)
    with noted_encodings() as noted:
        for fullness, count in ((0.1, 0), (PREPARE_FROM - 0.01, 0), (0.5, 0), (0.625, 25), (0.625, 25), (0.875, 75), (1.2, 100)):
            assert not encoded.prepare(fullness, 1000)
            assert len(set(noted)) == len(noted) == count, f"at {fullness}"
        assert dict(encoded.take_all()) == fresh(rows)
        assert len(noted) == 100, "all of them were ready"


def test_it_goes_on_piece_by_piece_until_it_has_caught_up() -> None:
    encoded = EncodedRows(living(*range(100)))
    with noted_encodings() as noted:
        assert not encoded.prepare(0.5, 7)
        more = [encoded.prepare(0.75, 7) for _ in range(9)]
        assert (more, len(noted)) == ([True] * 7 + [False] * 2, 50)


def test_a_file_that_is_full_at_once_is_left_to_the_checkpoint() -> None:
    rows = living(*range(10))
    encoded = EncodedRows(rows)
    with noted_encodings() as noted:
        assert not encoded.prepare(0.4, 1000)
        assert not encoded.prepare(1.1, 1000)
        assert noted == []
        assert dict(encoded.take_all()) == fresh(rows)


def test_what_changes_behind_the_pass_is_encoded_again_by_the_checkpoint_only() -> None:
    rows = living(1, 2, 3)
    encoded = EncodedRows(rows)
    with noted_encodings() as noted:
        encoded.prepare(0.5, 1000)
        encoded.prepare(1.0, 1000)
        rows[2].hard_state = HardState(7, 3)
        encoded.forget({2, 9})
        rows |= living(4)
        encoded.prepare(1.0, 1000)
        assert sorted(noted) == [1, 2, 3]
        assert dict(encoded.take_all()) == fresh(rows)
        assert noted[3:] == [2, 4]
        assert dict(encoded.take_all()) == fresh(rows), "a checkpoint that is begun anew"
        assert len(noted) == 5


def test_each_file_has_a_pass_of_its_own() -> None:
    rows = living(1, 2, 3)
    encoded = EncodedRows(rows)
    encoded.prepare(0.5, 1000)
    assert dict(encoded.take_all()) == fresh(rows)
    rows[2].hard_state = HardState(7, 3)
    encoded.forget({2})
    with noted_encodings() as noted:
        encoded.prepare(0.5, 1000)
        encoded.prepare(1.0, 1000)
        assert noted == [2]


def test_a_group_that_is_refused_has_no_row() -> None:
    rows = living(1, 2) | {3: Row(3)}
    encoded = EncodedRows(rows)
    encoded.prepare(0.5, 1000)
    encoded.prepare(1.0, 1000)
    expected = fresh(rows)
    assert dict(encoded.take_all()) == expected
    rows[2].fail(RuntimeError())  # type: ignore[arg-type]  # whatever the reason
    del expected[2]
    assert dict(encoded.take_all()) == expected


# -- in a log --------------------------------------------------------------------------------------------------------------------------


async def many_groups(storage: WalStorage) -> dict[GroupId, Group]:
    keys = [GroupKey(number) for number in range(1, GROUPS + 1)]
    for key in keys:
        await storage.create_group(record(key))
    return {key.group_id: hold(storage, key) for key in keys}


async def fill(storage: WalStorage, group: Group, index: int, fullness: float) -> int:
    """Write until the file is as full as that, one kilobyte at a time. Returns the next index."""
    while storage._log_file().fullness < fullness:
        await group.write_and_wait(*entries(group.key, index, index + 1, payload=b"p" * 1000))
        index += 1
    return index


async def test_a_roll_over_finds_the_rows_ready_except_of_groups_that_wrote_since() -> None:
    disk = SimulatedDisk(random.Random(1))
    storage = wal(disk.mount(), max_log_file_size=1 << 18)
    async with serving(storage):
        groups = await many_groups(storage)
        assert storage._log_file().fullness < PREPARE_FROM
        with noted_encodings() as noted:
            index = await fill(storage, groups[1], 1, 0.9)
            changed = noted[0]
            await groups[changed].write_and_wait(state=HardState(9, 3))
            index = await fill(storage, groups[1], index, 1.0)
            assert (storage._table.files.numbers, sorted(noted)) == ([1], list(range(1, GROUPS + 1))), "one pass"
            noted.clear()
            await groups[3].write_and_wait(state=HardState(8, 2))
            assert (storage._table.files.numbers, set(noted) - {1}) == ([1, 2], {changed}), "group 1 wrote all the time"
            noted.clear()
            await fill(storage, groups[1], index, 1.0)
            await groups[1].write_and_wait(state=HardState(5, 2))
            assert (storage._table.files.numbers, set(noted)) == ([1, 2, 3], {1, 3})
    # NB: a start compares each row with what comes before its checkpoint.
    found = await found_on(disk)
    assert [number for number, group in found.items() if group.failure is not None] == []
    assert [found[number].hard_state for number in (1, 3, changed)] == [HardState(5, 2), HardState(8, 2), HardState(9, 3)]


async def test_a_table_that_changes_all_the_time_rolls_over_all_the_same() -> None:
    """No file goes beyond its size by more than a batch, and no row is encoded more than twice for a file."""
    disk = SimulatedDisk(random.Random(1))
    storage = wal(disk.mount(), max_log_file_size=1 << 16)
    largest = 0
    async with serving(storage):
        groups = await many_groups(storage)
        with noted_encodings() as noted:
            for term in range(1, 200):
                before = storage._log_file().end
                last = [group.write(state=HardState(term, 1)) for group in groups.values()][-1]
                await groups[GROUPS].listener.wait_confirmed(last)
                if (after := storage._log_file().end).number == before.number:
                    largest = max(largest, after.size - before.size)
            files = len(storage._table.files.numbers)
            assert files > 5
            assert len(noted) <= 2 * GROUPS * files
        assert len(noted) > GROUPS * files, "there were passes"
    sizes = [len(disk.contents(f"{LOG}/{name}")) for name in disk.names(LOG)]
    assert max(sizes) < (1 << 16) + largest
    assert all(group.failure is None for group in (await found_on(disk)).values())
