"""The segments of a batch: each says what happened to one group. `docs/disk.md` says the same for other languages.

Whatever happens to a group is a segment, in the order in which it happened; `Row` has the effect of each. There are three sorts: what
the group wrote itself (entries, votes, ...), what the storage did with it (moved its entries to another file), and what a checkpoint
repeats of it, so that older files need not be read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from .._errors import InvariantError, WireError
from .._types import EntryId, GroupKey, Index, Member, Term
from ..core import Compaction, Entry, EntryKind, HardState, InstallSnapshot, encode_configuration
from ..wire import open_records
from ._batch import BadBytesError
from ._configurations import Configurations
from ._contract import GroupRecord

_SEGMENT_HEADER: Final = struct.Struct("<B3xIQI")
"""Kind, bytes of the content that follows, group id, incarnation."""
SEGMENT_HEADER_SIZE: Final = _SEGMENT_HEADER.size

SEGMENT_RECORDS_BYTES_MAX: Final = 1 << 18
"""The records of one segment, unless a single one is larger: whoever looks for an entry reads no more than that in vain."""
WRITE_BYTES_MAX: Final = 1 << 31
"""The segments of one write. Far above what a window lets through, far below what the length field holds."""

_ENTRIES: Final = struct.Struct("<QQQQI")
"""Index of the first and of the last, term of the first and of the last, flags."""
ENTRIES_HEADER_SIZE: Final = _ENTRIES.size
_HAS_CONFIGURATIONS: Final = 1

_VOTE: Final = struct.Struct("<QI")
"""Term, node voted for or 0."""
_MEMBER: Final = struct.Struct("<IQQ")
"""Node id, replica number as term and index."""
MEMBER_SIZE: Final = _MEMBER.size
_GROUP: Final = struct.Struct("<IQQB")
"""Member, 1 if it awaits its number; the configuration follows."""
_ENTRY_ID: Final = struct.Struct("<QQ")
"""Term and index."""
_COMPACTED: Final = struct.Struct("<QQQQQ")
"""Snapshot as term and index, start as term and index, commit."""
_AT_REST: Final = struct.Struct("<QQQ")
"""First and last index in the file, bytes of the file; runs of terms follow."""
_RUN: Final = struct.Struct("<QQ")
"""First index, term."""
_END: Final = struct.Struct("<QI")
"""Count of the rows, 1 if there is a row of every group."""


class SegmentKind(IntEnum):
    """What a segment holds. There is no kind 0, so zeros are never a segment."""

    ENTRIES = 1
    """Sealed records of one group, one after the other, as on the wire; the first one replaces all at and above its index."""
    VOTE = 2
    """A group's term and vote."""
    GROUP = 3
    """A replica's birth certificate."""
    TOMBSTONE = 4
    """The replica is gone, and everything before this of its group; some of its numbers never come again."""
    COMPACTED = 5
    """The log was cut at its beginning."""
    INSTALLED = 6
    """The log begins behind a snapshot that came from elsewhere."""
    CARRIED = 7
    """Records that were copied out of an older file. Says where entries are, never that they are there."""
    AT_REST = 8
    """Entries are in a file of the group's own directory. Says where entries are, never that they are there."""
    ROW = 9
    """Part of a checkpoint: all that the files before this one say of a group."""
    END_OF_CHECKPOINT = 10
    """The checkpoint is complete. Of no group."""
    NUMBER = 11
    """The replica is called by a new number."""


_KIND_MAX: Final = int(max(SegmentKind))

OF_NO_GROUP: Final = GroupKey(0, 0)


class EntriesHeader(NamedTuple):
    """What a segment of records begins with: enough to do without the records, most of the time."""

    first: Index
    last: Index
    first_term: Term
    last_term: Term
    flags: int

    @property
    def is_plain(self) -> bool:
        """Whether the records are all of one term, and none is a configuration."""
        return self.first_term == self.last_term and not self.flags


# --- what a group writes -----------------------------------------------------------------------------------------------------------


def encode_write(
    key: GroupKey,
    hard_state: HardState | None,
    entries: Sequence[Entry],
    install: InstallSnapshot | None = None,
    me: Member | None = None,
) -> bytes:
    """Build the segments of one write.

    Raises:
        InvariantError: an entry is not sealed.
    """
    # NB: this runs for each write of each group; hence the short cuts.
    parts = [] if hard_state is None else [_segment(SegmentKind.VOTE, key, _VOTE.pack(hard_state.term, hard_state.vote or 0))]
    if me is not None:
        parts.append(_segment(SegmentKind.NUMBER, key, _ENTRY_ID.pack(*me.replica)))
    if install is not None:
        parts.append(_segment(SegmentKind.INSTALLED, key, _ENTRY_ID.pack(*install.at) + encode_configuration(install.configuration)))
    if entries:
        parts.append(_encode_entries(_KIND_ENTRIES, key, entries))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def encode_carried(key: GroupKey, entries: Sequence[Entry]) -> bytes:
    """Build the segments that say: these entries are here now. Each has records of one term only."""
    runs: list[list[Entry]] = []
    for entry in entries:
        if runs and runs[-1][-1].id == EntryId(entry.term, entry.index - 1):
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return b"".join(_encode_entries(_KIND_CARRIED, key, run) for run in runs)


_KIND_ENTRIES: Final = int(SegmentKind.ENTRIES)
_KIND_CARRIED: Final = int(SegmentKind.CARRIED)
_CONFIGURATION: Final = EntryKind.CONFIGURATION


def _encode_entries(kind: int, key: GroupKey, entries: Sequence[Entry]) -> bytes:
    records = [entry.record for entry in entries]
    if not all(records):
        raise InvariantError(f"an entry of {key} was handed to the log unsealed")
    size = sum(map(len, records))
    if size > SEGMENT_RECORDS_BYTES_MAX and len(entries) > 1:
        return b"".join(_encode_entries(kind, key, piece) for piece in _pieces(entries))
    first, last = entries[0], entries[-1]
    flags = _HAS_CONFIGURATIONS if _CONFIGURATION in [entry.kind for entry in entries] else 0
    header = _SEGMENT_HEADER.pack(kind, ENTRIES_HEADER_SIZE + size, key[0], key[1])
    return b"".join((header, _ENTRIES.pack(first.index, last.index, first.term, last.term, flags), *records))


def _pieces(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    start = size = 0
    for place, entry in enumerate(entries):
        if place > start and size + len(entry.record) > SEGMENT_RECORDS_BYTES_MAX:
            yield entries[start:place]
            start, size = place, 0
        size += len(entry.record)
    yield entries[start:]


def encode_compacted(key: GroupKey, compaction: Compaction) -> bytes:
    content = _COMPACTED.pack(*compaction.snapshot, *compaction.start, compaction.commit)
    return _segment(SegmentKind.COMPACTED, key, content)


def encode_group(record: GroupRecord) -> bytes:
    head = _GROUP.pack(record.me.node_id, *record.me.replica, record.awaits_number)
    return _segment(SegmentKind.GROUP, record.key, head + encode_configuration(record.configuration))


def encode_tombstone(key: GroupKey, barred: Member) -> bytes:
    """
    Args:
        barred: this node, with the highest replica number that never comes again.
    """
    return _segment(SegmentKind.TOMBSTONE, key, encode_member(barred))


# --- what the storage does with a group ----------------------------------------------------------------------------------------------


def encode_at_rest(key: GroupKey, first: Index, last: Index, size: int, runs: Sequence[tuple[Index, Term]]) -> bytes:
    """Build the segment that says: these entries are in ``logs/{first}.log`` now.

    Args:
        size: of the file.
        runs: first index and term of each run of entries of one term, the first of them from `first` on.
    """
    content = _AT_REST.pack(first, last, size) + b"".join(_RUN.pack(*run) for run in runs)
    return _segment(SegmentKind.AT_REST, key, content)


def encode_row(key: GroupKey, content: bytes) -> bytes:
    return _segment(SegmentKind.ROW, key, content)


def encode_end_of_checkpoint(rows: int, *, is_whole: bool) -> bytes:
    """
    Args:
        is_whole: no group is refused, so there is a row of each that there is.
    """
    return _segment(SegmentKind.END_OF_CHECKPOINT, OF_NO_GROUP, _END.pack(rows, is_whole))


def _segment(kind: SegmentKind, key: GroupKey, content: bytes) -> bytes:
    return _SEGMENT_HEADER.pack(kind, len(content), *key) + content


def encode_member(member: Member) -> bytes:
    return _MEMBER.pack(member.node_id, *member.replica)


# --- reading -------------------------------------------------------------------------------------------------------------------------


def decode_segment_header(data: bytes | bytearray, offset: int, end: int) -> tuple[int, GroupKey, int, int]:
    """Kind, group, and where the content starts and ends, of the segment at `offset` in a body that ends at `end`.

    Raises:
        BadBytesError: none is there.
    """
    start = offset + SEGMENT_HEADER_SIZE
    if start > end:
        raise BadBytesError("a segment header is cut off")
    kind, size, group_id, incarnation = _SEGMENT_HEADER.unpack_from(data, offset)
    if size > end - start:
        raise BadBytesError("a segment is longer than its batch")
    if not 0 < kind <= _KIND_MAX:
        raise BadBytesError(f"a segment of the unknown kind {kind}")
    return kind, GroupKey(group_id, incarnation), start, start + size


ENTRIES_SEGMENT: Final = struct.Struct(_SEGMENT_HEADER.format + _ENTRIES.format.removeprefix("<"))
"""The header of a segment and, if it is one of entries, that of its content: for whoever is in a hurry."""


def decode_entries_header(data: bytes | bytearray, start: int, end: int) -> EntriesHeader:
    if end - start < ENTRIES_HEADER_SIZE:
        raise BadBytesError("a segment of entries is cut off")
    header = EntriesHeader._make(_ENTRIES.unpack_from(data, start))
    if not (0 < header.first <= header.last and header.first_term <= header.last_term and header.flags <= _HAS_CONFIGURATIONS):
        raise BadBytesError("a segment of entries begins with what cannot be")
    return header


def decode_entries(data: bytes | bytearray, key: GroupKey, start: int, end: int, header: EntriesHeader) -> tuple[Entry, ...]:
    """Open the records of a segment."""
    records = bytes(data[start + ENTRIES_HEADER_SIZE : end])
    try:
        entries = open_records(records, 0, len(records), group=key, payload_bytes_max=len(records))
    except WireError as error:
        raise BadBytesError(str(error)) from None
    if [entry.index for entry in entries] != list(range(header.first, header.last + 1)):
        raise BadBytesError("a segment holds other entries than it says")
    if entries[0].term != header.first_term or entries[-1].term != header.last_term:
        raise BadBytesError("a segment holds entries of other terms than it says")
    return entries


def decode_vote(content: bytes) -> HardState:
    term, vote = _unpack(_VOTE, content, "a vote")
    return HardState(term, vote or None)


def decode_group(key: GroupKey, content: bytes, configurations: Configurations) -> GroupRecord:
    node_id, term, index, awaits_number = _unpack(_GROUP, content[: _GROUP.size], "a group")
    if awaits_number > 1:
        raise BadBytesError("a group that neither awaits a number nor does not")
    configuration = configurations.decode(content[_GROUP.size :])
    return GroupRecord(key, Member(node_id, EntryId(term, index)), configuration, bool(awaits_number))


def decode_number(content: bytes) -> EntryId:
    return EntryId(*_unpack(_ENTRY_ID, content, "a replica number"))


def decode_member(content: bytes) -> Member:
    node_id, term, index = _unpack(_MEMBER, content, "a member")
    return Member(node_id, EntryId(term, index))


def decode_compacted(content: bytes) -> tuple[EntryId, EntryId, Index]:
    """Snapshot, start, commit."""
    fields = _unpack(_COMPACTED, content, "a compaction")
    return EntryId(*fields[:2]), EntryId(*fields[2:4]), fields[4]


def decode_installed(content: bytes) -> tuple[EntryId, bytes]:
    """The snapshot, and its configuration as bytes."""
    if len(content) < _ENTRY_ID.size:
        raise BadBytesError("an installed snapshot has another size")
    return EntryId(*_ENTRY_ID.unpack_from(content)), content[_ENTRY_ID.size :]


def decode_at_rest(content: bytes) -> tuple[Index, Index, int, list[tuple[Index, Term]]]:
    """First and last index, size, runs of terms."""
    rest = len(content) - _AT_REST.size
    if rest <= 0 or rest % _RUN.size:
        raise BadBytesError("a file at rest has another size")
    first, last, size = _AT_REST.unpack_from(content)
    runs = list(_RUN.iter_unpack(content[_AT_REST.size :]))
    indexes, terms = [index for index, _ in runs], [term for _, term in runs]
    if indexes[0] != first or indexes[-1] > last or indexes != sorted(set(indexes)) or terms != sorted(set(terms)):
        raise BadBytesError("a file at rest with terms that cannot be")
    return first, last, size, runs


def decode_end_of_checkpoint(content: bytes) -> tuple[int, bool]:
    """Count of the rows, and whether there is one of every group."""
    rows, is_whole = _unpack(_END, content, "the end of a checkpoint")
    return rows, bool(is_whole)


def _unpack(layout: struct.Struct, content: bytes, what: str) -> tuple[int, ...]:
    if len(content) != layout.size:
        raise BadBytesError(f"{what} has another size")
    return layout.unpack(content)
