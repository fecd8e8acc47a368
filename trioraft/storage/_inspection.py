"""Looking into a node's directory without touching it: for tools that run while no node does, or beside one.

What a group's log says is found by the code that a start uses, on a disk that can only read. Nothing is settled, synced, cut or removed,
and no lock is taken. A *deep* inspection also goes through every byte that is kept, and takes a digest of each entry, by which logs of
several nodes can be compared.
"""

from __future__ import annotations

import posixpath
from array import array
from collections.abc import Callable, Sequence

import attrs

from .._errors import CorruptLogError, StorageError
from .._types import GroupId
from ._at_rest import LOGS_DIRECTORY
from ._batch import BadBytesError, decode_file_header
from ._directory_use import find_user
from ._extents import Extent
from ._file_log import FileLog, file_number
from ._file_log_start import read_file_log
from ._group_directory import group_directory_name, group_of_directory
from ._inspection_entries import EntrySearch
from ._inspection_groups import GroupDirectoriesLook
from ._inspection_look import Look, place_of
from ._inspection_report import DirectoryReport, Finding, GroupReport, LogFileReport
from ._log_file import LogEnd
from ._log_name import LOG_DIRECTORY, log_number
from ._log_walk import LogWalk
from ._node_file import NODE_FILE_NAME, NodeFile, read_node_file
from ._read_only_disk import ReadOnlyDisk
from ._recovery import Recovery, recover
from ._row import Row

# A running node may remove a file between our looking for it and our reading it.
TRIES_MAX = 3


async def inspect_directory(
    base_dir: str, *, deep: bool = False, progress: Callable[[str, int], None] = lambda path, size: None
) -> DirectoryReport:
    """Read a node's directory; change nothing in it.

    Args:
        deep: read everything, to the last byte.
        progress: called with each file that is about to be read, and the bytes read so far.

    Raises:
        StorageError: ``foreign``: no node's directory; ``format``: a later version wrote it; ``unreadable``: a file or directory that
            cannot be read; ``changing``: a node that runs there is too quick.
    """
    path = None
    for _ in range(TRIES_MAX):
        inspector = _Inspector(base_dir, deep, progress)
        try:
            return await inspector.run()
        except FileNotFoundError as error:
            path = error.filename
        except OSError as error:
            raise StorageError("unreadable", error.filename or base_dir, f"cannot be read: {error.strerror or error}") from None
    raise StorageError("changing", path or base_dir, "the file vanishes while it is read: stop the node first, or copy the directory")


@attrs.define(eq=False)
class _Inspector:
    base_dir: str
    deep: bool
    progress: Callable[[str, int], None]
    disk: ReadOnlyDisk = attrs.Factory(ReadOnlyDisk)
    look: Look = attrs.field(init=False)

    async def run(self) -> DirectoryReport:
        names = await self._list_base()
        group_ids = sorted(group_id for name in names if (group_id := group_of_directory(name)) is not None)
        if NODE_FILE_NAME not in names and LOG_DIRECTORY not in names and not group_ids:
            raise StorageError("foreign", self.base_dir, "not a node's directory: no node has ever started in it")
        is_file_storage = LOG_DIRECTORY not in names and bool(group_ids)
        report = DirectoryReport(self.base_dir, not is_file_storage, user=find_user(self.base_dir))
        self.look = Look(report, self.disk, self.deep, self.progress)
        node_file = await self._read_node_file()
        self.look.note_leftovers(self.base_dir, names)
        if is_file_storage:
            await self._read_group_logs(group_ids, await self._store_id(node_file, group_ids))
        elif LOG_DIRECTORY in names:
            await self._read_shared_log(node_file, await self._store_id(node_file, group_ids))
        else:
            self.look.note(self.base_dir, "there is no log yet: the first start was interrupted")
        await GroupDirectoriesLook(self.look).read(group_ids)
        await self.look.note_changes()
        self.look.report.findings.sort(key=_order)
        self.look.report.bytes_read = self.disk.bytes_read
        return report

    async def _list_base(self) -> list[str]:
        try:
            return await self.disk.list_directory(self.base_dir)
        except FileNotFoundError:
            raise StorageError("unreadable", self.base_dir, "there is no such directory") from None
        except NotADirectoryError:
            raise StorageError("unreadable", self.base_dir, "not a directory") from None

    # -- who it is ----------------------------------------------------------------------------------------------------------------

    async def _read_node_file(self) -> NodeFile | None:
        report, path = self.look.report, posixpath.join(self.base_dir, NODE_FILE_NAME)
        try:
            node_file = await read_node_file(self.disk, self.base_dir)
        except CorruptLogError as error:
            self.look.add(error)
            return None
        if node_file is None:
            self.look.find(path, None, "the file is missing: nobody knows whose log this is, and a node refuses to start here")
            return None
        report.node, report.peers, report.store_id = node_file.record, dict(node_file.peers), node_file.record.store_id
        return node_file

    async def _store_id(self, node_file: NodeFile | None, group_ids: Sequence[GroupId]) -> bytes:
        """As `node.toml` says; or, without it, as any log file does."""
        if node_file is not None:
            return bytes.fromhex(node_file.record.store_id)
        directories = [posixpath.join(self.base_dir, group_directory_name(group_id), LOGS_DIRECTORY) for group_id in group_ids]
        for directory in (posixpath.join(self.base_dir, LOG_DIRECTORY), *directories):
            for name in await self.look.names(directory):
                if log_number(name) is not None or file_number(name) is not None:
                    try:
                        store_id = decode_file_header(await self.disk.read_file(posixpath.join(directory, name))).store_id
                    except BadBytesError:
                        continue
                    self.look.report.store_id = store_id.hex()
                    return store_id
        return bytes(16)

    # -- the log of all groups ----------------------------------------------------------------------------------------------------

    async def _read_shared_log(self, node_file: NodeFile | None, store_id: bytes) -> None:
        directory = posixpath.join(self.base_dir, LOG_DIRECTORY)
        self.look.progress(directory)
        least = LogEnd() if node_file is None else LogEnd(node_file.log_batch, node_file.log_file)
        recovery = await recover(self.disk, directory, store_id, least=least, settle=False)
        table = recovery.table
        for row in table.rows.values():
            self._take_row(row)
        self.look.note_leftovers(directory, await self.look.names(directory))
        places: set[tuple[str, int | None]] = set()
        for number in table.files.numbers:
            rows = [table.rows[group_id] for group_id in table.files.groups_in(number)]
            places |= await self._walk_shared(number, rows, recovery)
        if table.damage is not None and (table.damage.path, table.damage.offset) not in places:
            self.look.add(table.damage)
        for row in table.rows.values():
            if row.failure is not None and row.failure is not table.damage and place_of(row.failure) not in places:
                self.look.add(row.failure, row.group_id)

    async def _walk_shared(self, number: int, rows: Sequence[Row], recovery: Recovery) -> set[tuple[str, int | None]]:
        path = recovery.table.files.path_of(number)
        try:
            is_newest = number == recovery.table.files.numbers[-1]
            has_checkpoint = number == 1 or recovery.table.files.is_complete(number)
            cut = recovery.cut if is_newest else None
            return await self._walk(path, number, rows, cut=cut, has_checkpoint=has_checkpoint, is_newest=is_newest)
        except FileNotFoundError:
            if self.look.report.user is not None:
                raise
            return set()  # recovery has missed it too

    async def _walk(
        self,
        path: str,
        number: int,
        rows: Sequence[Row],
        *,
        cut: int | None,
        has_checkpoint: bool,
        is_newest: bool,
        group_id: GroupId | None = None,
    ) -> set[tuple[str, int | None]]:
        """Go through one log file; return where something is wrong with it."""
        self.look.progress(path)
        data = await self.disk.read_file(path)
        self.look.sizes[path] = len(data)
        search = EntrySearch(self.look, path, number, rows) if self.deep else None
        walk = LogWalk(data, len(data) if cut is None else cut, None if search is None else search.take, is_newest)
        walk.walk()
        self.look.report.log_files.append(LogFileReport(path, len(data), walk.batches, has_checkpoint, cut, group_id))
        for offset, text in walk.findings:
            self.look.find(path, offset, text, group_id)
        if search is not None:
            search.finish()
        if cut is not None:
            self.look.note(
                path, f"the last {len(data) - cut} bytes are torn: nobody was told of them, and the next start cuts them off", cut
            )
        return {(path, offset) for offset, _ in walk.findings}

    # -- logs of one group each -----------------------------------------------------------------------------------------------------

    async def _read_group_logs(self, group_ids: Sequence[GroupId], store_id: bytes) -> None:
        for group_id in group_ids:
            directory = posixpath.join(self.base_dir, group_directory_name(group_id), LOGS_DIRECTORY)
            log = FileLog(directory, store_id, Row(group_id), 0, True, bytes)
            self.look.progress(directory)
            cut = await read_file_log(self.disk, log, group_id)
            row = log.row
            if row.key is None and row.failure is None:
                self.look.note(directory, "a group that was being made, and is not there yet: the next start removes it", None, group_id)
                continue
            self._take_row(row)
            numbers = sorted(number for name in await self.look.names(directory) if (number := file_number(name)) is not None)
            places: set[tuple[str, int | None]] = set()
            if row.tombstone is None or row.failure is not None:
                for number in numbers:
                    is_newest = number == numbers[-1]
                    places |= await self._walk(
                        log.path_of(number),
                        number,
                        [row],
                        cut=cut if is_newest else None,
                        has_checkpoint=number <= log.vote_file,
                        is_newest=is_newest,
                        group_id=group_id,
                    )
            elif numbers:
                self.look.note(directory, "log files of a group that was removed: the next start removes them", None, group_id)
            if row.failure is not None and place_of(row.failure) not in places:
                self.look.add(row.failure, group_id)

    # -- groups -------------------------------------------------------------------------------------------------------------------

    def _take_row(self, row: Row) -> None:
        self.look.rows[row.group_id] = row
        group = self.look.report.groups[row.group_id] = GroupReport(row.recovered(), row.key, is_damaged=row.failure is not None)
        if not row.is_living:
            return
        places = list(row.places(row.terms.start.index + 1))
        group.log_bytes = sum({(each.file, each.offset): each.length for each in places if isinstance(each, Extent)}.values())
        if self.deep:
            group.digests = array("Q", bytes(8 * (row.terms.last_index - row.terms.start.index)))
        node = self.look.report.node
        if node is not None and row.me is not None and row.me.node_id != node.node_id:
            text = f"group {row.key} says that it is a replica of node {row.me.node_id}, and this is node {node.node_id}"
            self.look.find(self.base_dir, None, text, row.group_id)


def _order(finding: Finding) -> tuple[str, int]:
    return finding.path, -1 if finding.offset is None else finding.offset
