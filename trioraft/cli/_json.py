"""Reports as JSON: the fields are promised in ``docs/tools.md``, and are only ever added to."""

from __future__ import annotations

import json
from typing import Any

from .._types import NOTHING, EntryId, GroupId
from ..core import Configuration
from ..storage import EVERY_NUMBER, DirectoryReport, Finding, GroupReport
from ._text import say

JSON_VERSION = 1


def say_json(document: dict[str, Any]) -> None:
    say(json.dumps({"version": JSON_VERSION, **document}, indent=2))


def finding_document(finding: Finding) -> dict[str, Any]:
    return {"path": finding.path, "offset": finding.offset, "group": finding.group_id, "text": finding.text}


def directory_document(report: DirectoryReport, only: GroupId | None = None) -> dict[str, Any]:
    """Everything but the findings."""
    node = report.node
    return {
        "directory": report.base_dir,
        "storage": "wal" if report.has_shared_log else "files",
        "in_use_by": report.user,
        "node": None
        if node is None
        else {"node_id": node.node_id, "cluster_id": node.cluster_id, "store_id": node.store_id, "incarnation": node.incarnation},
        "peers": [
            {"node_id": peer.node_id, "store_id": peer.store_id, "address": peer.address, "address_version": peer.address_version}
            for _, peer in sorted(report.peers.items())
        ],
        "log_files": [
            {
                "path": file.path,
                "bytes": file.size,
                "batches": file.batches,
                "checkpoint": file.has_checkpoint,
                "torn_from": file.torn_from,
                "group": file.group_id,
            }
            for file in report.log_files
            if only is None or file.group_id in (None, only)
        ],
        "groups": [group_document(group) for group_id, group in sorted(report.groups.items()) if only in (None, group_id)],
    }


def group_document(group: GroupReport) -> dict[str, Any]:
    found, key = group.found, group.key
    durable, record = found.durable, found.record
    failure = None if found.failure is None else str(found.failure)
    return {
        "group": found.group_id,
        "incarnation": None if key is None else key.incarnation,
        "state": "damaged" if failure is not None else "removed" if record is None else "living",
        "failure": failure,
        "member": None if record is None else {"node_id": record.me.node_id, "replica": _position(record.me.replica)},
        "joined": None if record is None else not record.configuration.voters,
        "awaits_number": None if record is None else record.awaits_number,
        "barred": None if found.tombstone is None else "all" if found.barred == EVERY_NUMBER else _position(found.barred),
        "term": durable.hard_state.term,
        "vote": durable.hard_state.vote,
        "start": _position(durable.terms.start),
        "last": _position(durable.terms.last),
        "terms": [{"first": first, "term": term} for first, term in group.runs],
        "commit": durable.commit,
        "configurations": [{"index": index, **_configuration(each)} for index, each in group.configurations],
        "snapshot": None if durable.snapshot == NOTHING else _position(durable.snapshot),
        "snapshots": [{**_position(each.at), "path": each.path, "bytes": each.size} for each in group.snapshots],
        "at_rest": [{"path": each.path, "bytes": each.size, "first": each.first, "last": each.last} for each in group.at_rest],
        "log_bytes": group.log_bytes,
    }


def _position(at: EntryId) -> dict[str, int]:
    return {"index": at.index, "term": at.term}


def _configuration(configuration: Configuration) -> dict[str, Any]:
    return {
        "configuration_index": configuration.index,
        "voters": sorted(configuration.voters),
        "outgoing": sorted(configuration.outgoing),
        "learners": sorted(configuration.learners),
        "learners_next": sorted(configuration.learners_next),
        "replicas": {str(node_id): _position(replica) for node_id, replica in sorted(configuration.replicas.items())},
    }
