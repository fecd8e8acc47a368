"""Tests of a group's snapshots: files of bytes that are there as a whole, or not at all."""

from __future__ import annotations

import trio

from .._errors import StorageError
from .._types import EntryId
from ..core import Compaction
from ..storage import SnapshotReader
from ._storage_group_tests import cancelled_after
from ._storage_parts import ONE, TWO, HeldGroup, entries, entry, hold, holds, refused, same, serving, start_group
from ._storage_place import StoragePlace

AT, LATER, LATEST = EntryId(1, 5), EntryId(2, 9), EntryId(2, 12)


class SnapshotTests(StoragePlace):
    """Create, commit, read, replace, remove."""

    async def test_a_committed_snapshot_is_there(self) -> None:
        pieces = [bytes([number]) * 70_000 for number in range(10)]
        data = b"".join(pieces)
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            writer = await group.log.snapshots.create(AT)
            for piece in pieces:
                await writer.append(piece)
            path = await writer.commit()
            await writer.discard()
            reader = await group.log.snapshots.open(AT)
            same(reader.path, path, "the path")
            reader.close()
            storage = await self.cut_power(storage)
        async with serving(storage):
            reader = await hold(storage, ONE).log.snapshots.open(AT)
            same(reader.size, len(data), "the size")
            for offset, size in ((0, 1), (69_999, 2), (123_456, 300_000), (len(data) - 10, 10), (0, len(data))):
                same(await reader.read(offset, size), data[offset : offset + size], f"{size} bytes from {offset} on")
            same(await reader.read(len(data) - 10, 100), data[-10:], "the bytes at the end")
            same(await reader.read(len(data), 100), b"", "the bytes behind the end")
            reader.close()
            reader.close()

    async def test_each_commit_is_durable(self) -> None:
        """The power goes right after it."""
        storage = await self.make_storage()
        for index in range(1, 6):
            async with serving(storage):
                group = await start_group(storage, ONE)
                await group.save_snapshot(EntryId(1, index), b"%d" % index)
                storage = await self.cut_power(storage)
            async with serving(storage):
                same(await hold(storage, ONE).load_snapshot(EntryId(1, index)), b"%d" % index, "the snapshot")
                storage = await self.cut_power(storage)

    async def test_an_empty_one(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await (await group.log.snapshots.create(AT)).commit()
            same(await group.load_snapshot(AT), b"", "the snapshot")

    async def test_what_is_not_committed_is_not_there(self) -> None:
        """Nor does it stand in the way of the next try, in this process or in another one."""
        storage = await self.make_storage()
        for _ in range(3):
            async with serving(storage):
                group = await start_group(storage, ONE)
                await self._is_missing(group, AT)
                left = await group.log.snapshots.create(AT)
                await left.append(b"never finished")
                await self._is_missing(group, AT)
                given_up = await group.log.snapshots.create(AT)
                await given_up.append(b"given up")
                await given_up.discard()
                await self._is_missing(group, AT)
                storage = await self.cut_power(storage)
        async with serving(storage):
            group = hold(storage, ONE)
            await self._is_missing(group, AT)
            await group.save_snapshot(AT, b"at last")
            same(await group.load_snapshot(AT), b"at last", "the snapshot")

    async def test_several_are_written_at_once(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            one, two = await start_group(storage, ONE), await start_group(storage, TWO)
            writers = [await group.log.snapshots.create(at) for group in (one, two) for at in (AT, LATER)]
            for round_ in range(5):
                for number, writer in enumerate(writers):
                    await writer.append(b"%d%d " % (number, round_))
            async with trio.open_nursery() as nursery:
                for writer in writers:
                    nursery.start_soon(writer.commit)
            storage = await self.cut_power(storage)
        async with serving(storage):
            found = [await hold(storage, key).load_snapshot(at) for key in (ONE, TWO) for at in (AT, LATER)]
            same(found, [b"".join(b"%d%d " % (number, round_) for round_ in range(5)) for number in range(4)], "the snapshots")

    async def test_one_that_is_replaced_can_be_read_to_its_end(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.save_snapshot(AT, b"old" * 1000)
            reader = await group.log.snapshots.open(AT)
            same(await reader.read(0, 3), b"old", "the beginning")
            await group.save_snapshot(AT, b"new" * 2000)
            same(await self._rest(reader), b"old" * 1000, "the old one")
            same(await group.load_snapshot(AT), b"new" * 2000, "the new one")
            storage = await self.cut_power(storage)
        async with serving(storage):
            same(await hold(storage, ONE).load_snapshot(AT), b"new" * 2000, "the new one")

    async def test_one_that_is_removed_can_be_read_to_its_end(self) -> None:
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.save_snapshot(AT, b"data" * 1000)
            reader = await group.log.snapshots.open(AT)
            await group.log.snapshots.remove(AT)
            await group.log.snapshots.remove(AT)
            await self._is_missing(group, AT)
            same(await self._rest(reader), b"data" * 1000, "the removed one")
            storage = await self.cut_power(storage)
        async with serving(storage):
            await hold(storage, ONE).log.snapshots.remove(LATER)

    async def test_a_compaction_removes_older_ones(self) -> None:
        """Only those, and only once it is durable; who still reads one reads on."""
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.write_and_wait(*entries(ONE, 1, 8), *entries(ONE, 8, 14, term=2))
            for at in (AT, LATER, LATEST):
                await group.save_snapshot(at, str(at).encode() * 1000)
            reader = await group.log.snapshots.open(AT)
            group.log.compact(Compaction(LATER, AT, 9))
            await group.write_and_wait(entry(ONE, 14, 2))
            await self._until_missing(group, AT)
            for at in (LATER, LATEST):
                same(await group.load_snapshot(at), str(at).encode() * 1000, f"the snapshot {at}")
            same(await self._rest(reader), str(AT).encode() * 1000, "the one that was removed")
            storage = await self.cut_power(storage)
        async with serving(storage):
            same(await hold(storage, ONE).load_snapshot(LATER), str(LATER).encode() * 1000, "the snapshot that the log begins with")

    async def test_reading_is_over_when_the_reader_says_so(self) -> None:
        """Many readers at once, and none of them left behind."""
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            await group.save_snapshot(AT, b"data")
            for _ in range(30):
                readers = [await group.log.snapshots.open(AT) for _ in range(8)]
                for reader in readers:
                    same(await reader.read(1, 2), b"at", "two bytes")
                    reader.close()

    async def test_cancelling_a_writer(self) -> None:
        """Whole or missing; and nothing is left that would be in the way."""
        storage = await self.make_storage()
        async with serving(storage):
            group = await start_group(storage, ONE)
            for steps in range(10):
                at = EntryId(1, steps + 1)
                await cancelled_after(steps, save_or_discard, group, at)
                try:
                    same(await group.load_snapshot(at), b"half" * 2, "a snapshot whose writer was cancelled")
                except StorageError as error:
                    same(error.kind, "missing", "the kind of error")
                await cancelled_after(steps, group.log.snapshots.remove, at)
                await group.save_snapshot(at, b"whole")
                same(await group.load_snapshot(at), b"whole", "the snapshot")
                await cancelled_after(steps, group.load_snapshot, at)

    async def _rest(self, reader: SnapshotReader) -> bytes:
        data = await reader.read(0, reader.size)
        reader.close()
        return data

    async def _is_missing(self, group: HeldGroup, at: EntryId) -> None:
        with refused(StorageError, f"a snapshot {at} that is not there", kind="missing"):
            await group.log.snapshots.open(at)

    async def _until_missing(self, group: HeldGroup, at: EntryId) -> None:
        for _ in range(1000):
            try:
                (await group.log.snapshots.open(at)).close()
            except StorageError as error:
                same(error.kind, "missing", "the kind of error")
                return
            await trio.sleep(0.005)
        holds(False, f"the snapshot {at} is never removed")


async def save_or_discard(group: HeldGroup, at: EntryId) -> None:
    writer = await group.log.snapshots.create(at)
    try:
        await writer.append(b"half")
        await writer.append(b"half")
        await writer.commit()
    finally:
        await writer.discard()  # noqa: ASYNC102  # it does its work when cancelled, too
