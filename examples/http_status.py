"""What a node and its replicas tell of themselves, as JSON."""

from __future__ import annotations

from typing import Any

import attrs

from trioraft import MultiRaftManager, RaftGroup


def node_json(node: MultiRaftManager) -> dict[str, Any]:
    """The node, and all groups that are open there."""
    status = node.status()
    return {
        "node": {"id": status.node_id, "store": str(status.store_id), "incarnation": status.incarnation},
        "syncs": status.sync_count,
        "counters": attrs.asdict(node.counters),
        "groups": {str(group_id): replica_json(group) for group_id, group in sorted(node.groups.items())},
    }


def replica_json(group: RaftGroup) -> dict[str, Any]:
    """One replica: its place in the group, its log, and what its machine holds."""
    status, store = group.status(), group.machine.store
    return {
        "incarnation": status.incarnation,
        "role": status.role.name.lower(),
        "term": status.term,
        "leader": status.leader,
        "replica": str(status.replica),
        "voters": sorted(status.voters),
        "learners": sorted(status.learners),
        "outgoing": sorted(status.outgoing),
        "configuration": status.configuration_index,
        "is_removed": status.is_removed,
        "commit": status.commit_index,
        "applied": status.applied_index,
        "first": status.first_index,
        "last": status.last_index,
        "snapshot": status.snapshot.index,
        "keys": len(store.rows),
        "index": store.index,
        "digest": store.digest,
        "failure": None if status.failure is None else str(status.failure),
    }
