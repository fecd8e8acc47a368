"""Waiting until the disk has what the table knows."""

from __future__ import annotations

from typing import Final

import trio

from ._committer import Committer, Mark
from ._log_file import LogFile
from ._table import Table

SETTLE_SECONDS: Final = 1.0
"""So often is looked whether the disk became full under a mark that is waited for."""


async def settle(log: LogFile, table: Table, committer: Committer) -> None:
    """Make durable what the table knows. With `sync_on_write` it is; otherwise a mark brings a sync of all that came before it.

    A full disk takes no mark, but then nothing is left to be synced: cutting off what found no space was a sync, too.

    Raises:
        StorageError: the log has failed.
    """
    group_id = next(iter(table.rows), None)
    if log.sync_on_write or group_id is None or committer.is_full:
        return
    mark = Mark()
    committer.submit(group_id, b"", mark=mark)
    while not committer.is_full:
        with trio.move_on_after(SETTLE_SECONDS):
            await mark.wait()
            return
