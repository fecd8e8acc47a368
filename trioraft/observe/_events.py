"""What can be told about a node while it runs: one frozen class per kind of event, no payloads in any of them.

As text an event is a sentence for the log.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from .._types import EntryId, GroupId, NodeId, Term
from ..core import Role


@attrs.frozen
class RoleChanged:
    """A replica on this node has another role, term or leader."""

    group_id: GroupId
    role: Role
    term: Term
    leader: NodeId | None

    def __str__(self) -> str:
        leader = "no leader known" if self.leader is None else f"led by node {self.leader}"
        return f"group {self.group_id}: {self.role.value} in term {self.term}, {leader}"


@attrs.frozen
class GroupFailed:
    """A group stopped on this node by itself. The others go on."""

    group_id: GroupId
    error: BaseException

    def __str__(self) -> str:
        return f"group {self.group_id} has stopped on this node: {type(self.error).__name__}: {self.error}"


@attrs.frozen
class PeerLiveness:
    """A peer is live from now on, or is not: it hears us and its disk moves, or one of these is not so."""

    node_id: NodeId
    live: bool

    def __str__(self) -> str:
        return f"node {self.node_id} is {'live' if self.live else 'not live any more'}"


@attrs.frozen
class PeerRefused:
    """Somebody who is not who a peer should be was turned away, here or there. `reason` starts with a stable name."""

    node_id: NodeId
    reason: str

    def __str__(self) -> str:
        return f"node {self.node_id} is refused: {self.reason}"


@attrs.frozen
class DiskSpaceChanged:
    """The node's log has no room (and the node refuses to take part), or has room again."""

    available: bool

    def __str__(self) -> str:
        return "the disk has space again" if self.available else "the disk is full: this node takes no part until there is space"


@attrs.frozen
class SlowRoundTrip:
    """A pulse took more than half the election timeout to come back: elections will flap. Raise `election_timeout`."""

    node_id: NodeId
    milliseconds: int
    election_timeout: int

    def __str__(self) -> str:
        return (
            f"election timeout too short: a pulse with node {self.node_id} took {self.milliseconds} ms there and back, "
            f"of {self.election_timeout} ms; raise election_timeout on all nodes"
        )


@attrs.frozen
class SnapshotSaved:
    """A snapshot of a group is on this node's disk: taken here, or received from its leader."""

    group_id: GroupId
    at: EntryId
    size: int
    """Bytes of its file."""
    received: bool

    def __str__(self) -> str:
        return f"group {self.group_id}: snapshot at {self.at} {'received' if self.received else 'taken'}, {self.size} bytes"


@attrs.frozen
class SnapshotFailed:
    """A snapshot could not be taken, sent or received. It will be tried again; until then the log is kept."""

    group_id: GroupId
    what: str
    """``taking``, ``sending to node 3``, ``receiving from node 1``."""
    error: BaseException

    def __str__(self) -> str:
        return f"group {self.group_id}: {self.what} a snapshot failed: {type(self.error).__name__}: {self.error}"


Event: TypeAlias = (
    RoleChanged | GroupFailed | PeerLiveness | PeerRefused | DiskSpaceChanged | SlowRoundTrip | SnapshotSaved | SnapshotFailed
)
