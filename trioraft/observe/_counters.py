"""Plain counters of one node: cheap to bump, read by whoever wants to export them."""

from __future__ import annotations

import attrs


@attrs.define
class Counters:
    """All of these only ever rise. One object per node, handed out by `MultiRaftManager.counters`."""

    proposals: int = 0
    """Calls of `propose` that reached a group."""
    forwards: int = 0
    """Of these, passed on to another node."""
    turns: int = 0
    """Driver turns, of all groups."""
    messages_in: int = 0
    messages_out: int = 0
    messages_unknown_group: int = 0
    """Messages for a group, or an incarnation of one, that this node does not run: dropped, nothing created."""
    messages_no_room: int = 0
    """Messages that a full inbox dropped."""
    messages_not_understood: int = 0
    """Pieces of snapshots that are none."""
    messages_duplicate: int = 0
    """Forwards that arrived a second time: ignored."""
    pulses_in: int = 0
    pulses_out: int = 0
    elections: int = 0
    """Terms that a replica of this node began to lead."""
    groups_failed: int = 0
    groups_touched: int = 0
    """Groups found on the disk that were started because somebody needed them."""
    entries_loaded: int = 0
    """Entries that were read back from the disk, because they were not in memory any more."""
    snapshots_taken: int = 0
    snapshots_sent: int = 0
    """Of these, all streams that the other side took whole."""
    snapshots_received: int = 0
    snapshot_bytes_out: int = 0
    snapshot_bytes_in: int = 0
    instrument_errors: int = 0
    """Exceptions that an `Instrument` let out: logged and ignored."""
