"""``trioraft fsck``: whether directories are whole, and agree with each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from .._types import GroupKey, NodeId
from ..storage import DirectoryReport, GroupReport
from ._compare import Contradiction, find_contradictions
from ._inspect import headline
from ._json import finding_document, say_json
from ._survivor import Survivor, find_survivor
from ._text import counted, say, size


@attrs.define(eq=False)
class ClusterReport:
    """What several directories say of each other."""

    findings: list[str] = attrs.Factory(list)
    notes: list[str] = attrs.Factory(list)
    contradictions: list[tuple[GroupKey, Contradiction]] = attrs.Factory(list)
    survivors: list[Survivor] = attrs.Factory(list)


def compare(reports: Sequence[DirectoryReport]) -> ClusterReport:
    """Compare the directories of the nodes of one cluster."""
    cluster = ClusterReport()
    nodes = _nodes(reports, cluster)
    in_use = [report.base_dir for report in nodes.values() if report.user is not None]
    if in_use:
        cluster.notes.append(
            f"a node runs on {', '.join(in_use)}: the directories are not of one moment, so a part of the comparison is advice only"
        )
    for key in sorted({group.key for report in nodes.values() for group in report.groups.values() if group.key is not None}):
        found = {node_id: report.groups.get(key.group_id) for node_id, report in nodes.items()}
        replicas = {node_id: group for node_id, group in found.items() if group is not None and _is_comparable(group, key)}
        for contradiction in find_contradictions(replicas):
            if in_use and contradiction.of_one_moment:
                cluster.notes.append(f"group {key}: {contradiction.text}")
            else:
                cluster.contradictions.append((key, contradiction))
        if any(group is not None and group.key == key and group.found.tombstone is None for group in found.values()):
            cluster.survivors.append(find_survivor(key, replicas, len(nodes)))
    return cluster


def _is_comparable(group: GroupReport, key: GroupKey) -> bool:
    return group.key == key and group.found.record is not None and group.found.failure is None


def _nodes(reports: Sequence[DirectoryReport], cluster: ClusterReport) -> dict[NodeId, DirectoryReport]:
    """Those that can be compared: of one cluster, and of one node each."""
    nodes: dict[NodeId, DirectoryReport] = {}
    stores: dict[str, str] = {}
    cluster_id = None
    for report in reports:
        node = report.node
        if node is None:
            cluster.notes.append(f"{report.base_dir} is not compared: its node.toml cannot be read")
            continue
        cluster_id = cluster_id or node.cluster_id
        other = nodes.get(node.node_id)
        if node.cluster_id != cluster_id:
            cluster.findings.append(
                f"{report.base_dir} belongs to cluster {node.cluster_id!r}, the others to {cluster_id!r}; it is not compared"
            )
        elif node.store_id in stores:
            text = f"{report.base_dir} and {stores[node.store_id]} have the same store id {node.store_id}: one is a copy of the other"
            cluster.findings.append(f"{text}; it is not compared")
        elif other is not None:
            cluster.findings.append(f"{report.base_dir} and {other.base_dir} are both of node {node.node_id}; the former is not compared")
        else:
            nodes[node.node_id] = report
        stores.setdefault(node.store_id, report.base_dir)
    for node_id, report in sorted(nodes.items()):
        for peer_id, peer in sorted(report.peers.items()):
            its = nodes[peer_id].store_id if peer_id in nodes else None
            if its is not None and peer.store_id not in (None, its):
                text = (
                    f"node {node_id} knows node {peer_id} as store {peer.store_id}; its directory {nodes[peer_id].base_dir} is store {its}"
                )
                cluster.notes.append(f"{text}: it was wiped or replaced")
    return nodes


# --- printing --------------------------------------------------------------------------------------------------------------------------


def show(reports: Sequence[DirectoryReport], failures: Sequence[str], cluster: ClusterReport | None, *, as_json: bool) -> bool:
    """Print what was found. Returns whether anything is wrong."""
    count = sum(len(report.findings) for report in reports)
    if cluster is not None:
        count += len(cluster.findings) + len(cluster.contradictions)
    if as_json:
        say_json(_document(reports, failures, cluster, not count and not failures))
        return bool(count)
    for report in reports:
        for line in _directory_lines(report):
            say(line)
    if cluster is not None:
        for line in _cluster_lines(cluster):
            say(line)
    say()
    say(counted(count, "finding") if count else "no findings")
    return bool(count)


def _directory_lines(report: DirectoryReport) -> Iterator[str]:
    yield headline(report)
    living = [group for group in report.groups.values() if group.found.tombstone is None]
    entries = sum(len(group.digests) for group in living)
    snapshots = sum(len(group.snapshots) for group in living)
    parts = (
        counted(len(report.log_files), "log file"),
        counted(len(living), "group"),
        counted(entries, "entry", "entries"),
        counted(snapshots, "snapshot"),
        f"{size(report.bytes_read)} read",
    )
    yield f"  checked {', '.join(parts)}"
    if report.user is not None:
        yield f"  warning: IN USE by {report.user}: this is how it was at one moment; stop the node for a check that counts"
    yield from (f"  FOUND {each}" for each in report.findings)
    yield from (f"  note  {each}" for each in report.notes)


def _cluster_lines(cluster: ClusterReport) -> Iterator[str]:
    yield from ("", "between the nodes")
    yield from (f"  FOUND {text}" for text in cluster.findings)
    yield from (f"  FOUND group {key}: {each.text}" for key, each in cluster.contradictions)
    yield from (f"  note  {text}" for text in cluster.notes)
    equal = [each for each in cluster.survivors if each.has_everything and len(each.equals) > 1]
    for each in cluster.survivors:
        if each not in equal:
            who = "no safe survivor" if each.node_id is None else f"safest survivor is node {each.node_id}, with {each.last}"
            yield f"  group {each.key}: {who}; {each.text}"
    by_nodes: dict[tuple[NodeId, ...], list[Survivor]] = {}
    for each in equal:
        by_nodes.setdefault(each.equals, []).append(each)
    for nodes, survivors in sorted(by_nodes.items()):
        names = ", ".join(str(each.key) for each in survivors[:10]) + (f" and {len(survivors) - 10:,} more" if len(survivors) > 10 else "")
        listed = ", ".join(map(str, nodes))
        yield f"  {counted(len(survivors), 'group')} ({names}): nodes {listed} are equally safe; nothing that was committed would be lost"


def _document(reports: Sequence[DirectoryReport], failures: Sequence[str], cluster: ClusterReport | None, is_well: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "ok": is_well,
        "directories": [
            {
                "directory": report.base_dir,
                "node_id": None if report.node is None else report.node.node_id,
                "in_use_by": report.user,
                "groups": sum(group.found.tombstone is None for group in report.groups.values()),
                "entries": sum(len(group.digests) for group in report.groups.values()),
                "bytes_read": report.bytes_read,
                "findings": [finding_document(each) for each in report.findings],
                "notes": [finding_document(each) for each in report.notes],
            }
            for report in reports
        ],
        "unreadable": list(failures),
    }
    if cluster is not None:
        document["cluster"] = {
            "findings": [
                *({"group": None, "incarnation": None, "text": text} for text in cluster.findings),
                *({"group": key.group_id, "incarnation": key.incarnation, "text": each.text} for key, each in cluster.contradictions),
            ],
            "notes": cluster.notes,
            "survivors": [_survivor(each) for each in cluster.survivors],
        }
    return document


def _survivor(survivor: Survivor) -> dict[str, Any]:
    return {
        "group": survivor.key.group_id,
        "incarnation": survivor.key.incarnation,
        "node_id": survivor.node_id,
        "last": None if survivor.last is None else {"index": survivor.last.index, "term": survivor.last.term},
        "equals": list(survivor.equals),
        "has_everything": survivor.has_everything,
        "text": survivor.text,
    }
