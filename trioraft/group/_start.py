"""Where a machine stands when its group starts.

A machine in memory begins with the newest snapshot, or with nothing if the log goes back to its beginning. A durable one says itself
what it has, and that must fit the log: a machine that is ahead of its log, or a log whose beginning is neither in a machine nor in a
snapshot, is two directories of different days put together.
"""

from __future__ import annotations

import attrs

from .._errors import StorageError
from .._machine import StateMachine
from .._types import NOTHING, EntryId, GroupKey, Index
from ..core import Durable


@attrs.frozen
class Start:
    """What to do before the first entry is applied."""

    applied: Index
    """Entries up to this are in the machine, once `restore` is."""
    restore: EntryId | None = None
    """The snapshot to begin with."""


def find_start(key: GroupKey, machine: StateMachine, durable: Durable) -> Start:
    """Decide with what the machine begins.

    Raises:
        StorageError: ``mismatch``: machine, snapshot and log do not fit together.
    """
    stored, terms, snapshot = machine.stored_index(), durable.terms, durable.snapshot
    if stored > terms.last_index:
        text = f"the machine has stored everything up to index {stored}, but the log of the group ends with {terms.last}"
        raise StorageError("mismatch", str(key), f"{text}: one of them is an older copy; put the one back that belongs to the other")
    if stored > 0 and stored >= terms.start.index:
        return Start(stored)
    if terms.start == snapshot == NOTHING:
        return Start(0)
    if snapshot.index < terms.start.index:
        text = f"the log begins behind {terms.start}, the machine has stored up to index {stored}, and the newest snapshot is at {snapshot}"
        raise StorageError("mismatch", str(key), f"{text}: what lies between is lost; remove this replica and add it anew")
    return Start(snapshot.index, snapshot)
