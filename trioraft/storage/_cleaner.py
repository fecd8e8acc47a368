"""The cleaner: one task that keeps the log of all groups short, and the groups' own directories tidy.

A log file can go when no restart needs it: when no entry in it counts any more, a newer file begins with a whole checkpoint, and all
older files are gone. What keeps the oldest one is moved out of it (`_mover`).

What it does comes in small steps, with one sync of its own at a time. Whatever only removes things comes first, so that a full disk does
not stop what would make room. Nothing that fails is fatal: the file stays where it is, `trouble` says why, and after a while the cleaner
tries again. Removing and moving each have their own trouble: a directory that cannot be tidied stops no move. While any group is damaged,
no log file and no directory is removed: it could be all that is left.
"""

from __future__ import annotations

import attrs
import trio

from .._errors import StorageError
from .._types import GroupId
from ._committer import Committer
from ._disk import Disk
from ._folder import translated
from ._group_directory import GroupDirectories
from ._log_file import LogFile
from ._log_reader import LogReader
from ._mover import Mover
from ._oldest_file import OldestFile
from ._settling import settle
from ._table import Table
from ._trouble import Trouble


@attrs.frozen
class CleanerStatistics:
    """What the cleaner has done since the start."""

    log_files: int
    """Files of the log now."""
    files_removed: int
    """Log files."""
    bytes_carried: int
    bytes_at_rest: int
    directories_left: tuple[str, ...]
    """Directories of removed groups that hold what is not ours."""
    trouble: str | None
    """What it could not do when it last tried."""


class Cleaner:
    """Removes what nobody needs any more; see the top of the file."""

    def __init__(
        self, disk: Disk, log: LogFile, table: Table, committer: Committer, reader: LogReader, directories: GroupDirectories
    ) -> None:
        self._disk, self._log, self._table, self._committer = disk, log, table, committer
        self._reader, self._directories = reader, directories
        directories.on_left = self.wake
        self._wake = trio.Event()
        self._untidy: dict[GroupId, None] = {}
        self._untidy_later: dict[GroupId, None] = {}
        self._oldest = OldestFile(table)
        self._mover = Mover(log, table, committer, reader, directories, self._oldest, self.wake)
        self._removing = Trouble()
        self._files_removed = 0

    # -- what others call: nothing here waits -----------------------------------------------------------------------------------------

    def wake(self) -> None:
        """A new file has its checkpoint, or a group was removed: there may be something to do."""
        self._wake.set()

    def tidy(self, group_id: GroupId) -> None:
        """The beginning of a group's log was cut, durably: there may be files that it needs no more."""
        self._untidy[group_id] = None
        self._wake.set()

    def statistics(self) -> CleanerStatistics:
        trouble = self._mover.trouble.error or self._removing.error or self._mover.refused
        return CleanerStatistics(
            log_files=len(self._table.files.numbers),
            files_removed=self._files_removed,
            bytes_carried=self._mover.bytes_carried,
            bytes_at_rest=self._mover.bytes_at_rest,
            directories_left=tuple(self._directories.foreign),
            trouble=None if trouble is None else str(trouble),
        )

    # -- the task -----------------------------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Clean until cancelled, or until the log has failed.

        *Cancellation:* at any point; the next start goes on.
        """
        while self._committer.failure is None:
            self._wake = trio.Event()
            await self._clean()
            with trio.move_on_at(min(self._removing.retry_at, self._mover.trouble.retry_at)):
                await self._wake.wait()

    async def _clean(self) -> None:
        """Do all that can be done now. What has to wait for the log wakes the cleaner when it is through.

        What failed lately is not tried again yet, however often groups compact their logs.
        """
        if self._removing.may_try():
            self._untidy.update(self._untidy_later)
            self._untidy_later.clear()
            await self._remove_directories()
        await self._tidy_groups()
        await self._remove_files()
        if self._mover.begin():
            while await self._mover.move():
                await self._tidy_groups()

    async def _remove_directories(self) -> None:
        """Those of removed groups."""
        leftovers = self._directories.leftovers
        if leftovers and self._table.has_damage:
            return
        for group_id in leftovers:
            try:
                await self._directories.remove(group_id)
            except StorageError as error:
                self._removing.note(error)

    async def _tidy_groups(self) -> None:
        """Remove snapshots and files at rest that a log needs no more."""
        for group_id in list(self._untidy):
            # While the log does not say yet what was moved where, there may be a file at rest that no row knows.
            if group_id not in self._mover.in_flight:
                del self._untidy[group_id]
                await self._tidy_group(group_id)

    async def _tidy_group(self, group_id: GroupId) -> None:
        row = self._table.rows.get(group_id)
        if row is None or row.key is None or not row.is_living:
            return
        directory = self._directories.of(row.key)
        try:
            # NB: as of before the log is settled. What the row forgets later, a power cut may bring back.
            snapshot, kept = row.snapshot, {each.name for each in row.at_rest}
            await settle(self._log, self._table, self._committer)
            await directory.snapshots.prune(snapshot)
            await directory.at_rest.prune(kept)
        except StorageError as error:
            if self._table.rows.get(group_id) is row and row.is_living:
                self._untidy_later[group_id] = None
                self._removing.note(error)

    async def _remove_files(self) -> None:
        """Remove log files, the oldest first, each durably before the next one: a power cut must not leave a hole."""
        while self._oldest.is_emptied() and (removable := self._table.removable()):
            path = self._table.files.path_of(removable[0])
            try:
                await settle(self._log, self._table, self._committer)
                with translated(path):
                    await self._disk.remove(path)
                    await self._disk.sync_directory(self._log.directory)
            except StorageError as error:
                self._removing.note(error)
                return
            self._table.files.remove(removable[0])
            self._reader.forget(removable[0])
            self._files_removed += 1
