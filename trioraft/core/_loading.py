"""Entries that are not in memory: they are asked for (`LoadEntries`) and come as an event, maybe late.

A piece is used at once, for what it was asked for, or not at all: nothing is kept. The log says whether it is still what is needed, by
index and term; so it does not matter what has become of the replica meanwhile. Each reader (this replica's machine, or a member)
has one piece on its way at a time.
"""

from __future__ import annotations

from .._errors import InvariantError
from .._types import EntryId, Millis
from ._events import EntriesLoaded, TrimMemory
from ._replica import Replica
from ._replication import send_append
from ._roles import Leader, RoleState
from ._snapshots import send_snapshot


def on_entries_loaded(replica: Replica, state: RoleState, event: EntriesLoaded, now: Millis) -> None:
    load = event.load
    if replica.loading.get(load.reader) != load:
        replica.drop("unexpected load")
        return
    del replica.loading[load.reader]
    if load.reader is None:
        if replica.applying.deliver(load.first, event.entries):
            replica.loaded += event.entries
        else:
            replica.drop("late load")
    elif type(state) is Leader:
        _send_loaded(replica, state, event, now)


def _send_loaded(replica: Replica, state: Leader, event: EntriesLoaded, now: Millis) -> None:
    log, load, entries = replica.log, event.load, event.entries
    # Whatever becomes of this piece: there is a next one to ask for, or this one again.
    state.wants_append = True
    view = state.members.get(load.reader or 0)
    if view is None or view.progress.next != load.first or view.progress.is_paused or not log.agrees(load.first, entries):
        replica.drop("late load")
    elif entries:
        send_append(replica, state, view, (entries, sum(len(entry.payload) for entry in entries)), now)
    elif load.first <= replica.snapshot.index:
        # The disk has cut it off already, or earlier than this replica knows.
        send_snapshot(replica, view)
    else:
        wanted = EntryId(log.term_at(load.first), load.first)
        raise InvariantError(f"entry {wanted} is in the log behind the snapshot {replica.snapshot}, but its disk does not have it")


def on_trim_memory(replica: Replica, state: RoleState, event: TrimMemory, now: Millis) -> None:
    """Let go of entries; of those that cannot go yet, when they can."""
    replica.memory_bytes_max = min(replica.memory_bytes_max, event.bytes_max)
    replica.trim_memory()
