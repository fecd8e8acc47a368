"""Replaces a machine's state by a snapshot from the disk.

The machine's `restore` runs in a worker thread and pulls its records through the whole chain: bytes read by the storage, checked and
decoded in that thread. So no more than a piece of the file and a block of records are in memory at once, and the event loop does nothing
but to start the reads.

What counts is decided here and not by what `restore` does with an exception: damage anywhere in the file, also behind the last record
that it took, and a cancellation at any point, make the restore fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import trio

from .._errors import CorruptSnapshotError, SnapshotError
from .._machine import StateMachine
from .._types import EntryId, GroupKey
from ..storage import SnapshotReader, SnapshotStorage
from ..wire import SnapshotBytesError, SnapshotDecoder
from ._manifest import read_manifest_of
from ._session_table import SessionTable
from ._user_code import Breather, defines, run_in_thread

_PIECE_BYTES: Final = 256 << 10


async def restore_machine(
    machine: StateMachine,
    sessions: SessionTable,
    snapshots: SnapshotStorage,
    key: GroupKey,
    at: EntryId,
    limiter: trio.CapacityLimiter,
    *,
    patience: float,
) -> SessionTable:
    """Replace the state of `machine` by the snapshot at `at` of the group `key`; return its table of sessions, to be used instead.

    Args:
        patience: seconds that a cancelled restore waits for the machine's thread.

    Raises:
        CorruptSnapshotError: the snapshot is damaged, or is of another group or entry. In the latter case the machine was not touched.
        StorageError: it is ``missing``, or cannot be read.
        SnapshotError: the machine has no `restore`, or it raised; the error is the cause.

    *Cancellation:* the machine's state is undefined, and its thread may still be at work on it: use it no more.
    """
    if not defines(machine, "restore"):
        raise SnapshotError(f"{type(machine).__name__} must define restore(): group {key} goes on from the snapshot at {at}")
    reader = await snapshots.open(at)
    file = _File(reader)
    try:
        await read_manifest_of(reader, key, at)
        records = _Records(file)

        def restore() -> SessionTable:
            table = sessions.restored(records)
            try:
                machine.restore(records)
            except BaseException as error:  # noqa: ASYNC103  # in a thread of its own; if cancelled, nobody waits for what it says
                if records.failure is None:
                    text = f"{type(machine).__name__}.restore() of group {key} failed with the snapshot at {at} ({file.path})"
                    raise SnapshotError(f"{text}: {type(error).__name__}: {error}") from error  # noqa: ASYNC104  # as above
            records.check_rest()
            return table

        async with limiter:
            return await run_in_thread(restore, patience=patience, stop=records.stop)
    finally:
        file.close()


class _File:
    """A reader that is not closed before a read that is under way has ended, whoever waits for it."""

    def __init__(self, reader: SnapshotReader) -> None:
        self._reader = reader
        self._is_read = self._is_closed = False
        self.path: Final = reader.path
        self.size: Final = reader.size

    async def read(self, offset: int, size: int) -> bytes:
        self._is_read = True
        try:
            return await self._reader.read(offset, size)
        finally:
            self._is_read = False
            if self._is_closed:
                self._reader.close()

    def close(self) -> None:
        self._is_closed = True
        if not self._is_read:
            self._reader.close()


class _StoppedError(BaseException):
    """Nobody waits for the machine any more. No `Exception`, because it is none of those that `restore` may handle."""


class _Records(Iterator[Any]):
    """What `restore` iterates over, in its thread. It ends only once the whole file has been found to be as it was written."""

    def __init__(self, file: _File) -> None:
        self._file = file
        self._records = self._read()
        self._is_stopped = False
        self.failure: BaseException | None = None

    def __next__(self) -> Any:
        if self.failure is not None:
            raise self.failure
        return next(self._records)

    def _read(self) -> Iterator[Any]:
        file, decoder, breather, offset = self._file, SnapshotDecoder(self._file.size), Breather(), 0
        try:
            while offset < file.size:
                # NB: runs in a task of the system, and not in the one that waits for this thread, which may have been cancelled.
                data = trio.from_thread.run(file.read, offset, min(_PIECE_BYTES, file.size - offset))
                if not data:
                    raise SnapshotBytesError(offset, f"the file ends here; it had {file.size} bytes")
                offset += len(data)
                for record in decoder.feed(data):
                    if self._is_stopped:
                        raise _StoppedError
                    breather.breathe()
                    yield record
            decoder.finish()
        except SnapshotBytesError as error:
            self.failure = CorruptSnapshotError(file.path, error.offset, str(error))
            raise self.failure from error
        except BaseException as error:
            self.failure = error
            raise

    def check_rest(self) -> None:
        """Read on to the end, for the sake of the checksums.

        Raises:
            CorruptSnapshotError, StorageError: now, or while the machine iterated, whatever it made of it.
        """
        for _ in self:
            pass

    def stop(self) -> None:
        """From the event loop: no more records."""
        self._is_stopped = True
