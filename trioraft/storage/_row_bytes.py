"""A row as bytes: what a checkpoint repeats of a group. `docs/disk.md` says the same for other languages.

There is one encoding of each row: so a row that is read is compared with one that is known as bytes.
"""

from __future__ import annotations

import struct
from typing import Final

from .._errors import InvariantError
from .._types import EntryId, GroupKey
from ..core import Configuration, HardState, Terms, encode_configuration
from ._batch import BadBytesError
from ._configurations import Configurations
from ._contract import GroupRecord
from ._row import AtRest, Row, Tombstone
from ._segment import MEMBER_SIZE, decode_member, encode_member

_LIVING: Final = struct.Struct("<IQQ I QI Q QQ QQQ IIII")
"""Member; 1 if it awaits its number; term and vote; commit; snapshot as term and index; start as term and index, last index; bytes of the
group's first configuration; counts of runs, of files at rest, of configurations."""
_RUN: Final = struct.Struct("<QQ")
_AT_REST: Final = struct.Struct("<QQQQ")
"""Origin, first, last, bytes of the file."""
_CONFIGURATION: Final = struct.Struct("<QI")
"""Index, bytes that follow."""

EncodedConfigurations = dict[int, tuple[Configuration, bytes]]
"""By the identity of the object, which is therefore kept alive."""


def encode_row_content(row: Row, encoded: EncodedConfigurations) -> bytes:
    """Encode a row without a failure.

    Args:
        encoded: what was encoded already; many rows share few configurations.
    """
    record, terms = row.record, row.terms
    if row.me is None or row.key is None:
        raise InvariantError(f"there is nothing to say of group {row.group_id}")
    if record is None:
        return encode_member(row.me)
    first = _encoded(record.configuration, encoded)
    runs, state = terms.runs, row.hard_state
    node_id, (replica_term, replica_index) = row.me
    counts = len(first), len(runs), len(row.at_rest), len(row.configurations)
    # NB: ten thousand of these are encoded in a row. Most have one run, and nothing behind it.
    content = (
        _LIVING.pack(
            node_id,
            replica_term,
            replica_index,
            record.awaits_number,
            state.term,
            state.vote or 0,
            row.commit,
            *row.snapshot,
            *terms.start,
            terms.last_index,
            *counts,
        )
        + first
    )
    for run in runs:
        content += _RUN.pack(*run)
    for file in row.at_rest:
        content += _AT_REST.pack(*file)
    for index, configuration in row.configurations:
        data = _encoded(configuration, encoded)
        content += _CONFIGURATION.pack(index, len(data)) + data
    return content


def _encoded(configuration: Configuration, encoded: EncodedConfigurations) -> bytes:
    found = encoded.get(id(configuration))
    if found is None:
        found = encoded[id(configuration)] = configuration, encode_configuration(configuration)
    return found[1]


def decode_row(key: GroupKey, content: bytes, configurations: Configurations) -> Row:
    """Read what `encode_row_content` wrote.

    Raises:
        BadBytesError: it did not write these bytes.
    """
    if len(content) == MEMBER_SIZE:
        node_id, barred = decode_member(content)
        return Row.removed(Tombstone(key, barred), node_id)
    reader = _Reader(content)
    fields = reader.take(_LIVING)
    awaits_number, term, vote, commit = fields[3:7]
    length, run_count, file_count, configuration_count = fields[12:]
    me, first = decode_member(content[:MEMBER_SIZE]), configurations.decode(reader.take_bytes(length))
    row = Row.living(GroupRecord(key, me, first, bool(awaits_number)))
    row.hard_state, row.commit = HardState(term, vote or None), commit
    row.snapshot, start = EntryId(*fields[7:9]), EntryId(*fields[9:11])
    try:
        row.terms = Terms(start, [reader.take(_RUN) for _ in range(run_count)], fields[11])  # type: ignore[misc]  # a run is two numbers
    except InvariantError as error:
        raise BadBytesError(str(error)) from None
    row.at_rest = tuple(AtRest._make(reader.take(_AT_REST)) for _ in range(file_count))
    row.configurations = tuple(
        (index, configurations.decode(reader.take_bytes(size)))
        for index, size in (reader.take(_CONFIGURATION) for _ in range(configuration_count))
    )
    if reader.offset != len(content) or awaits_number > 1 or not _is_possible(row):
        raise BadBytesError(f"a row of {key} makes no sense")
    return row


def _is_possible(row: Row) -> bool:
    start, last = row.terms.start.index, row.terms.last_index
    for file in row.at_rest:
        if not (start < file.first <= file.last <= last and file.origin <= file.first):
            return False
        start = file.last
    indexes = [index for index, _ in row.configurations]
    return indexes == sorted(set(indexes)) and (not indexes or (indexes[0] <= row.terms.start.index and indexes[-1] <= last))


class _Reader:
    """Takes one thing after the other. A count or length that is too large ends at the end of the bytes."""

    def __init__(self, content: bytes) -> None:
        self.content, self.offset = content, 0

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.take_bytes(layout.size))

    def take_bytes(self, size: int) -> bytes:
        taken = self.content[self.offset : self.offset + size]
        if len(taken) != size:
            raise BadBytesError("a row is cut off")
        self.offset += size
        return taken
