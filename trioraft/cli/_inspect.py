"""``trioraft inspect``: what is in a node's directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from .._types import NOTHING, EntryId, GroupId
from ..storage import EVERY_NUMBER, DirectoryReport, GroupRecord, GroupReport
from ._json import directory_document, finding_document, say_json
from ._text import NONE, counted, position, say, size, table


def show(report: DirectoryReport, *, as_json: bool, only: GroupId | None = None) -> bool:
    """Print a report. Returns whether anything is damaged."""
    if as_json:
        document = directory_document(report, only)
        for name, findings in (("findings", report.findings), ("notes", report.notes)):
            document[name] = [finding_document(each) for each in findings if only is None or each.group_id in (None, only)]
        say_json(document)
    else:
        for line in _lines(report, only):
            say(line)
    return bool(report.findings)


def headline(report: DirectoryReport) -> str:
    """Who a directory belongs to, in one line."""
    node = report.node
    who = "node unknown" if node is None else f"node {node.node_id} of cluster {node.cluster_id!r}"
    kind = "shared log" if report.has_shared_log else "a log for each group (FileStorage)"
    return f"{report.base_dir}: {who}, {kind}"


def _lines(report: DirectoryReport, only: GroupId | None) -> Iterator[str]:
    yield headline(report)
    if report.user is not None:
        yield f"  IN USE by {report.user}: this is how it was at one moment, and what is being written may look torn"
    if report.node is not None:
        yield f"  store {report.node.store_id}, started {counted(report.node.incarnation, 'time')}"
    if only is None:
        yield from _node_lines(report)
        yield from _group_table(report)
    else:
        yield from _group_lines(report.groups[only])
    for title, findings in (("damage", report.findings), ("notes", report.notes)):
        shown = [each for each in findings if only is None or each.group_id in (None, only)]
        if shown:
            yield from ("", title)
            yield from (f"  {each}" for each in shown)


def _node_lines(report: DirectoryReport) -> Iterator[str]:
    if report.peers:
        yield from ("", "peers")
        peers = [
            (peer.node_id, peer.store_id or NONE, peer.address or NONE, peer.address_version) for _, peer in sorted(report.peers.items())
        ]
        yield from table(("node", "store", "address", "version"), peers)
    yield from ("", f"log files ({size(sum(file.size for file in report.log_files))})")
    files = [
        (
            _short(file.path, report.base_dir),
            file.size,
            file.batches,
            "complete" if file.has_checkpoint else "none",
            "" if file.torn_from is None else f"torn from {file.torn_from} on",
        )
        for file in report.log_files
    ]
    yield from table(("file", "bytes", "batches", "checkpoint", "end"), files)


def _group_table(report: DirectoryReport) -> Iterator[str]:
    removed = [group for group in report.groups.values() if group.found.tombstone is not None]
    living = [group for group_id, group in sorted(report.groups.items()) if group.found.tombstone is None]
    yield from ("", f"groups ({counted(len(living), 'group')}, {counted(len(removed), 'tombstone')})")
    head = ("group", "member", "term", "vote", "start", "last", "commit", "snapshot", "log", "at rest", "members")
    yield from table(head, [_group_row(group) for group in living])
    if removed:
        yield from ("", "tombstones")
        rows = [(group.key, _barred(group.found.barred)) for group in sorted(removed, key=lambda group: group.key or ())]
        yield from table(("group", "replica numbers that never come again"), rows)


def _group_row(group: GroupReport) -> tuple[object, ...]:
    found = group.found
    name = str(group.key or f"g{found.group_id}")
    if found.failure is not None or found.record is None:
        return (name, "REFUSED", *("" for _ in range(9)))
    durable, state = found.durable, found.durable.hard_state
    configurations = group.configurations
    return (
        name,
        _member(found.record),
        state.term,
        state.vote or NONE,
        position(durable.terms.start),
        position(durable.terms.last),
        durable.commit or NONE,
        position(durable.snapshot),
        size(group.log_bytes),
        size(sum(file.size for file in group.at_rest)),
        configurations[-1][1],
    )


def _group_lines(group: GroupReport) -> Iterator[str]:
    found = group.found
    yield from ("", f"group {group.key or found.group_id}")
    if found.failure is not None:
        yield f"  REFUSED: {found.failure}"
    elif found.tombstone is not None:
        yield "  removed; its tombstone keeps older incarnations away, and of this one"
        yield f"  replica numbers that never come again: {_barred(found.barred)}"
    else:
        yield from _living_lines(group)
    if group.snapshots:
        yield from ("", "snapshots")
        yield from table(("snapshot", "bytes", "file"), [(str(each.at), each.size, each.path) for each in group.snapshots])
    if group.at_rest:
        yield from ("", "entries at rest")
        rows = [(each.first or NONE, each.last or NONE, each.size, each.path) for each in group.at_rest]
        yield from table(("first", "last", "bytes", "file"), rows)


def _living_lines(group: GroupReport) -> Iterator[str]:
    durable, record = group.found.durable, group.found.record
    facts = [
        ("member", NONE if record is None else _member(record)),
        ("came", NONE if record is None else "to begin the group" if record.configuration.voters else "to join the group"),
        ("term", str(durable.hard_state.term)),
        ("vote", str(durable.hard_state.vote or NONE)),
        ("log begins behind", position(durable.terms.start)),
        ("log ends with", position(durable.terms.last)),
        ("commit hint", str(durable.commit or NONE)),
        ("snapshot", position(durable.snapshot)),
        ("in log files", size(group.log_bytes)),
    ]
    yield from (f"  {name.ljust(17)}  {value}" for name, value in facts)
    yield from ("", "configurations")
    yield from table(("from", "index", "members"), [(index, each.index, str(each)) for index, each in group.configurations])
    if group.runs:
        yield from ("", "terms")
        yield from table(("from", "term"), group.runs)


def _member(record: GroupRecord) -> str:
    """With its replica number; one that joined learns its own from a leader."""
    return f"{record.me} awaits a number" if record.awaits_number else str(record.me)


def _barred(number: EntryId) -> str:
    return "all" if number == EVERY_NUMBER else f"up to {position(number)}" if number != NOTHING else "that of a bootstrap member"


def _short(path: str, base_dir: str) -> str:
    return str(PurePath(path).relative_to(base_dir))
