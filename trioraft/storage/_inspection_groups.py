"""The part of an inspection that is about groups' own directories."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

import attrs

from .._errors import CorruptLogError, CorruptSnapshotError, StorageError
from .._types import NOTHING, EntryId, GroupId
from ..core import Entry
from ..wire import SnapshotManifest
from ._at_rest import LOGS_DIRECTORY, at_rest_first, at_rest_name
from ._group_directory import group_directory_name
from ._inspection_entries import digest_of
from ._inspection_files import walk_at_rest, walk_snapshot
from ._inspection_look import Look
from ._inspection_report import AtRestReport, SnapshotReport
from ._row import Row
from ._snapshot_files import SNAPSHOT_DIRECTORY, snapshot_id, snapshot_name


@attrs.define(eq=False)
class GroupDirectoriesLook:
    """Reads entries at rest and snapshots."""

    look: Look

    async def read(self, group_ids: Sequence[GroupId]) -> None:
        for group_id in group_ids:
            row, path = self.look.rows.get(group_id), posixpath.join(self.look.report.base_dir, group_directory_name(group_id))
            if row is None:
                if self.look.report.has_shared_log:
                    self._unknown_directory(path, group_id)
            elif row.failure is None and row.record is None:
                if self.look.report.has_shared_log:
                    self.look.note(path, "left of a group that was removed: it goes before long, or at the next start", None, group_id)
            else:
                await self._read_at_rest(row, posixpath.join(path, LOGS_DIRECTORY))
                await self._read_snapshots(row, posixpath.join(path, SNAPSHOT_DIRECTORY))
        present = set(group_ids)
        for row in self.look.rows.values():
            if row.is_living and row.group_id not in present and (row.at_rest or row.snapshot != NOTHING):
                path = posixpath.join(self.look.report.base_dir, group_directory_name(row.group_id))
                self.look.miss(path, "the directory is missing; it held a snapshot or entries of the group", row.group_id)

    def _unknown_directory(self, path: str, group_id: GroupId) -> None:
        if self.look.report.user is not None:
            self.look.note(path, "the directory of a group that is newer than what was read of the log", None, group_id)
        else:
            text = "the directory of a group that the log knows nothing of: no crash leaves one, so a part of the log may be lost"
            self.look.find(path, None, text, group_id)

    async def _read_at_rest(self, row: Row, directory: str) -> None:
        names = await self.look.names(directory)
        self.look.note_leftovers(directory, names)
        if not self.look.report.has_shared_log:
            return
        counting = {each.name: each for each in row.at_rest}
        group = self.look.report.groups[row.group_id]
        for name in names:
            if at_rest_first(name) is None:
                continue
            path = posixpath.join(directory, name)
            wanted = [each for each in row.at_rest if each.name == name]
            first, last = (min(each.first for each in wanted), max(each.last for each in wanted)) if wanted else (0, 0)
            size = await self.look.size(path)
            if not wanted and row.failure is None:
                self.look.note(path, "nothing in the file counts any more: it is removed before long", None, row.group_id)
            if size is not None:
                group.at_rest.append(AtRestReport(path, size, first, last))
                if self.look.deep:
                    await self._check_at_rest(row, path, name)
        for name in counting.keys() - set(names):
            path = posixpath.join(directory, name)
            self.look.miss(path, f"the file is missing; it held entries {counting[name].first} to {counting[name].last}", row.group_id)

    async def _check_at_rest(self, row: Row, path: str, name: str) -> None:
        group, start = self.look.report.groups[row.group_id], row.terms.start.index
        # What is said of a group that is refused need not be so.
        wanted = [each for each in row.at_rest if each.name == name and row.is_living]

        def take(entry: Entry) -> None:
            if any(each.first <= entry.index <= each.last for each in wanted):
                if entry.term != row.terms.at(entry.index):
                    raise CorruptLogError(path, 0, f"entry {entry} is where {entry.index}@{row.terms.at(entry.index)} was")
                group.digests[entry.index - start - 1] = digest_of(entry)

        self.look.progress(path)
        try:
            data = await self.look.disk.read_file(path)
            header = walk_at_rest(path, data, bytes.fromhex(self.look.report.store_id or ""), row.key, take)
            if wanted and (at_rest_name(header.first.index) != name or any(each.size != len(data) for each in wanted)):
                raise CorruptLogError(path, 0, f"the log counts on a file of {wanted[0].size} bytes from {wanted[0].origin} on")
        except StorageError as error:
            group.is_damaged = group.is_damaged or bool(wanted)
            self.look.add(error, row.group_id)
        except FileNotFoundError:
            self.look.miss(path, "the file has vanished", row.group_id)

    async def _read_snapshots(self, row: Row, directory: str) -> None:
        names = await self.look.names(directory)
        self.look.note_leftovers(directory, names)
        group, found = self.look.report.groups[row.group_id], set()
        for name in names:
            at, path = snapshot_id(name), posixpath.join(directory, name)
            if at is None or (size := await self.look.size(path)) is None:
                continue
            found.add(at)
            if row.is_living and at.index < row.snapshot.index:
                self.look.note(path, f"an older snapshot than the log's, {row.snapshot}: it is removed before long", None, row.group_id)
            if row.is_living and at.index > row.snapshot.index:
                self.look.note(path, f"a newer snapshot than the log's, {row.snapshot}: it does not count yet", None, row.group_id)
            group.snapshots.append(SnapshotReport(at, path, size, await self._check_snapshot(row, path, at) if self.look.deep else None))
        group.snapshots.sort(key=lambda each: each.at.index)
        if row.is_living and row.snapshot != NOTHING and row.snapshot not in found:
            path = posixpath.join(directory, snapshot_name(row.snapshot))
            self.look.miss(path, "the file is missing; the log begins behind this snapshot", row.group_id)

    async def _check_snapshot(self, row: Row, path: str, at: EntryId) -> SnapshotManifest | None:
        group = self.look.report.groups[row.group_id]
        self.look.progress(path)
        try:
            manifest = await walk_snapshot(self.look.disk, path, row.key, at)
            expected = group.configuration_at(at.index)
            if row.is_living and row.terms.at(at.index) == at.term and expected not in (None, manifest.configuration):
                raise CorruptSnapshotError(path, 0, f"its configuration is not the one that the log has at index {at.index}")
        except CorruptSnapshotError as error:
            group.is_damaged = group.is_damaged or at == row.snapshot
            self.look.add(error, row.group_id)
        except FileNotFoundError:
            self.look.miss(path, "the file has vanished", row.group_id)
        else:
            return manifest
        return None
