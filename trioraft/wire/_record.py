"""Records: sealed entries, the same bytes on every disk and on every wire.

    4 bytes  CRC-32 (zlib) of everything behind this field
    4 bytes  length of the payload
    8 bytes  group id
    4 bytes  incarnation of the group
    8 bytes  index, from 1
    8 bytes  term, from 1
    1 byte   kind of the entry
    n bytes  the payload

All little-endian. The leader seals an entry once; followers store and forward the slice that they received, so nobody computes a
checksum over bytes that somebody else may have damaged before. The checksum covers the length and the group, so a record neither
changes size nor moves to another group. A header of zeros is never valid: CRC-32 of 33 zero bytes is not 0, and index 0 is none.
"""

from __future__ import annotations

import struct
from typing import Final
from zlib import crc32

from .._errors import WireError
from .._types import GroupKey
from ..core import BadConfigurationError, Entry, EntryKind, decode_configuration
from ._strict import NUMBER_MAX

_HEADER: Final = struct.Struct("<IIQIQQB")
_SEALED: Final = struct.Struct("<IQIQQB")  # the header behind its checksum
_CRC: Final = struct.Struct("<I")

RECORD_HEADER_SIZE: Final = _HEADER.size

# Several times quicker than EntryKind(n). The kind that is missing here is rare, and its payload is checked.
_KINDS: Final[dict[int, EntryKind]] = {int(kind): kind for kind in EntryKind if kind is not EntryKind.CONFIGURATION}


def seal(group: GroupKey, entry: Entry) -> bytes:
    """Return the record of an entry; the first call makes it and keeps it in `entry.record`."""
    if not entry.record:
        payload = entry.payload
        head = _SEALED.pack(len(payload), group.group_id, group.incarnation, entry.index, entry.term, entry.kind)
        entry.record = _CRC.pack(crc32(payload, crc32(head))) + head + payload
    return entry.record


def open_record(data: bytes | memoryview, offset: int, *, payload_bytes_max: int) -> tuple[GroupKey, Entry, int]:
    """Read the record at `offset`: whose it is, the entry (with `record` set to its own copy of the slice), and the offset behind it.

    Raises:
        WireError: no whole, valid record is there, or its payload is larger than `payload_bytes_max`. A length is checked against that
            limit and against the end of `data` before anything is copied.
    """
    group, entries, end = _open(data, offset, len(data), None, payload_bytes_max)
    return group, entries[0], end


def open_records(data: bytes | memoryview, offset: int, end: int, *, group: GroupKey, payload_bytes_max: int) -> tuple[Entry, ...]:
    """Read the records that fill ``data[offset:end]`` exactly, all of them of `group`.

    Raises:
        WireError: as `open_record`; or a record belongs to another group.
    """
    if offset == end:
        return ()
    return tuple(_open(data, offset, end, group, payload_bytes_max)[1])


def _open(
    data: bytes | memoryview, offset: int, limit: int, expected: GroupKey | None, payload_bytes_max: int
) -> tuple[GroupKey, list[Entry], int]:
    """Read records up to `limit`, all of them of the expected group; or, where None is expected, the first one only.

    One long loop, because a follower opens every entry of every group here: as a function of its own for each record it takes twice
    the time.
    """
    unpack, kinds = _HEADER.unpack_from, _KINDS
    group = expected
    entries: list[Entry] = []
    while True:
        start = offset + RECORD_HEADER_SIZE
        if start > limit:
            raise WireError("the bytes end inside the header of a record")
        checksum, length, group_id, incarnation, index, term, kind_number = unpack(data, offset)
        if length > payload_bytes_max:
            raise WireError(f"record with a payload of {length} bytes; up to {payload_bytes_max} are accepted")
        end = start + length
        if end > limit:
            raise WireError("the bytes end inside the payload of a record")
        record = bytes(data[offset:end])
        payload = record[RECORD_HEADER_SIZE:]
        # NB: two calls on two slices; for small records that is quicker than one call on a memoryview.
        if crc32(payload, crc32(record[_CRC.size : RECORD_HEADER_SIZE])) != checksum:
            raise WireError("wrong checksum of a record")
        kind = kinds.get(kind_number)
        if kind is None:
            kind = _check_configuration(kind_number, payload)
        if not 0 < index <= NUMBER_MAX or not 0 < term <= NUMBER_MAX or group_id > NUMBER_MAX:
            raise WireError("index, term or group id of a record is out of range")
        if group is None:
            group = GroupKey(group_id, incarnation)
        elif group_id != group[0] or incarnation != group[1]:
            raise WireError(f"record of group {GroupKey(group_id, incarnation)} in a message of group {group}")
        entries.append(Entry(index, term, kind, payload, record))
        if expected is None or end == limit:
            return group, entries, end
        offset = end


def _check_configuration(kind_number: int, payload: bytes) -> EntryKind:
    """What a configuration does to a group when it is appended cannot wait for its commit: so bytes that are none get no further."""
    if kind_number != EntryKind.CONFIGURATION:
        raise WireError(f"record of an unknown kind {kind_number}")
    try:
        decode_configuration(payload)
    except BadConfigurationError as error:
        raise WireError(f"record of a configuration that is none: {error}") from None
    return EntryKind.CONFIGURATION
