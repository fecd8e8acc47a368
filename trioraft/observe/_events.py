"""What can be told about a node while it runs: one frozen class per kind of event, no payloads in any of them."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from .._types import GroupId, NodeId, Term
from ..core import Role


@attrs.frozen
class RoleChanged:
    """A replica on this node has another role, term or leader."""

    group_id: GroupId
    role: Role
    term: Term
    leader: NodeId | None


@attrs.frozen
class GroupFailed:
    """A group stopped on this node by itself. The others go on."""

    group_id: GroupId
    error: BaseException


@attrs.frozen
class PeerLiveness:
    """A peer is live from now on, or is not: it hears us and its disk moves, or one of these is not so."""

    node_id: NodeId
    live: bool


@attrs.frozen
class PeerRefused:
    """Somebody who is not who a peer should be was turned away, here or there. `reason` starts with a stable name."""

    node_id: NodeId
    reason: str


@attrs.frozen
class DiskSpaceChanged:
    """The node's log has no room (and the node refuses to take part), or has room again."""

    available: bool


@attrs.frozen
class SlowRoundTrip:
    """A pulse took more than half the election timeout to come back: elections will flap. Raise `election_timeout`."""

    node_id: NodeId
    milliseconds: int
    election_timeout: int


Event: TypeAlias = RoleChanged | GroupFailed | PeerLiveness | PeerRefused | DiskSpaceChanged | SlowRoundTrip
