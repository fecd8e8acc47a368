"""Pulls records out of a view of a machine's state, and makes the bytes of a snapshot of them.

This runs users' code: the view is iterated and, if it is a generator, closed, in worker threads only. A slice of it takes a moment, as
long as that code goes on; so whoever wants no more of it is not kept waiting, and the event loop is let in between.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

from .._errors import InvariantError, WireError
from .._types import EntryId, GroupKey
from ..core import Configuration
from ..wire import SnapshotEncoder, default_compression
from ._user_code import Breather

_SLICE_BYTES: Final = 256 << 10
_SLICE_SECONDS: Final = 0.02


class Pull:
    """A snapshot's bytes, pulled out of a view. Its methods are for worker threads, all but `stop`; one at a time, but for `close`."""

    def __init__(self, view: Iterable[Any], key: GroupKey, at: EntryId, configuration: Configuration) -> None:
        self._view = view
        self._records: Iterator[Any] | None = None
        self._encoder = SnapshotEncoder(key, at, configuration, compression=default_compression())
        self._count = 0
        self._breather = Breather()
        self._in_use = threading.Lock()
        self._is_stopped = self._is_closed = False
        self.is_finished = False

    def slice(self) -> bytes:
        """Return the next bytes of the file, b"" if none are ready yet.

        Raises:
            WireError: a record that cannot be in a snapshot.
            BaseException: what the view raised.
        """
        try:
            with self._in_use:
                return self._slice()
        finally:
            if self._is_stopped:
                self.close()

    def _slice(self) -> bytes:
        if self._is_closed:
            raise InvariantError("a view that was closed is not read")
        if self._records is None:
            self._records = iter(self._view)
        deadline = time.monotonic() + _SLICE_SECONDS
        finished, size = list[bytes](), 0
        for record in self._records:
            self._add(record)
            self._breather.breathe()
            data = self._encoder.take()
            if data:
                finished.append(data)
                size += len(data)
            if size >= _SLICE_BYTES or self._is_stopped or time.monotonic() >= deadline:
                break
        else:
            finished.append(self._encoder.finish())
            self.is_finished = True
        return b"".join(finished)

    def _add(self, record: Any) -> None:
        try:
            self._encoder.add(record)
        except WireError as error:
            raise WireError(f"record {self._count} of the snapshot: {error}") from error
        self._count += 1

    def stop(self) -> None:
        """From the event loop: nobody waits any more; a slice that runs ends soon, and closes the view."""
        self._is_stopped = True

    def close(self) -> None:
        """Let go of the view, and end what it has open if it is a generator. A slice that still runs does it when it ends."""
        if not self._in_use.acquire(blocking=False):
            self._is_stopped = True
            return
        try:
            close = getattr(self._view if self._records is None else self._records, "close", None)
            self._view, self._records, self._is_closed = (), None, True
            if close is not None:
                with contextlib.suppress(Exception):  # it has been read: whatever it says now changes nothing
                    close()
        finally:
            self._in_use.release()
