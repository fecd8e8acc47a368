"""What a node tells of itself."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from .._types import NodeId
from ._peers import PeerStatus


@attrs.frozen(kw_only=True)
class NodeStatus:
    """A node at one moment."""

    node_id: NodeId
    cluster_id: str
    store_id: str
    """Of its directory, 32 hex digits."""
    incarnation: int
    """How many times this node has been started."""
    groups: int
    """Groups that run here; those that nobody has needed since the start do not."""
    leading: int
    """Of these, led by this node."""
    failed: tuple[int, ...]
    """Ids of the groups that stopped by themselves."""
    peers: Mapping[NodeId, PeerStatus]
    sync_count: int
    """Syncs of the log since the start."""
    sync_age: float
    """Seconds for which the oldest unfinished write has been with the disk; inf: the log is poisoned."""
    has_room: bool
    """The log takes proposals."""
    log_memory: int
    """Bytes of entries that all groups hold in memory, roughly."""
