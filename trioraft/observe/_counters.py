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
    messages_duplicate: int = 0
    """Forwards that arrived a second time: ignored."""
    pulses_in: int = 0
    pulses_out: int = 0
    elections: int = 0
    """Terms that a replica of this node began to lead."""
    groups_failed: int = 0
    instrument_errors: int = 0
    """Exceptions that an `Instrument` let out: logged and ignored."""
