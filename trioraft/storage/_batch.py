"""The bytes of a log file: its header and the batches in it. `docs/disk.md` says the same for other languages.

A batch is what one sync makes durable. It starts on a 512-byte sector, because a sector is the unit in which disks write or do not
write; so a batch that a crash interrupted has whole sectors that read as zeros, or the file ends inside it. Anything else that does
not match its checksum was written and synced, and has rotted since.

To tell these two apart for sure, nothing is left to guess:

* the fixed part of a batch header lies in one sector, and has a checksum of its own: from it the extent of the batch is known even
  where the list of groups or the body is damaged;
* it counts the sectors that are zeros *as written* (a payload of zeros), so only further ones count as lost;
* it names the file by its random identity, so bytes of another file never pass for a batch of this one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import attrs

from .._errors import CorruptLogError, StorageError
from .._types import GroupId

SECTOR = 512
ZERO_SECTOR = bytes(SECTOR)

FORMAT_VERSION = 1

FILE_MAGIC = b"TRIORWAL"
BATCH_MAGIC = b"TRIORBAT"

IDENTITY_BYTES = 16
NO_IDENTITY = bytes(IDENTITY_BYTES)

_FILE_HEADER = struct.Struct("<8sIIQQ16s16s16s")
"""Magic, checksum of what follows, version, number, first sequence, identity, identity of the previous file, store id."""
_FILE_CHECKED_FROM = 12

_BATCH_HEADER = struct.Struct("<8sIIQ16sQIIII")
"""Magic, checksum of what follows, count of groups, sequence, identity of the file, bytes of the body, checksum of the body,
checksum of the list of groups, sectors that are zeros as written, 0."""
_BATCH_CHECKED_FROM = 12
BATCH_HEADER_SIZE = _BATCH_HEADER.size


class BadBytesError(Exception):
    """What is read here was never written like this. Never leaves the storage: its reader knows file and offset."""


# --- the file header: one sector, synced before the file gets its name ------------------------------------------------------------


@attrs.frozen
class FileHeader:
    """Who a log file is."""

    number: int
    """Files are numbered from 1, without a hole."""
    first_sequence: int
    """The sequence of its first batch; batches are numbered through all files."""
    identity: bytes
    """Random, made with the file."""
    previous: bytes
    """The identity of the file before, zeros for the first."""
    store_id: bytes
    version: int = FORMAT_VERSION


def encode_file_header(header: FileHeader) -> bytes:
    fields = (header.version, header.number, header.first_sequence, header.identity, header.previous, header.store_id)
    checksum = zlib.crc32(_FILE_HEADER.pack(FILE_MAGIC, 0, *fields)[_FILE_CHECKED_FROM:])
    return _FILE_HEADER.pack(FILE_MAGIC, checksum, *fields).ljust(SECTOR, b"\0")


def decode_file_header(data: bytes) -> FileHeader:
    """Read the first sector of a file.

    Raises:
        BadBytesError: it is no file header. A header of a future version is one: look at `version`.
    """
    if len(data) < SECTOR:
        raise BadBytesError("the file is shorter than its header")
    magic, checksum, version, number, first_sequence, identity, previous, store_id = _FILE_HEADER.unpack_from(data)
    if magic != FILE_MAGIC:
        raise BadBytesError("not a log file")
    if zlib.crc32(data[_FILE_CHECKED_FROM : _FILE_HEADER.size]) != checksum:
        raise BadBytesError("the file header does not match its checksum")
    return FileHeader(number, first_sequence, identity, previous, store_id, version)


def own_file_header(data: bytes, path: str, store_id: bytes) -> FileHeader:
    """The header of a file whose batches may be read.

    Raises:
        CorruptLogError: it is none, or of another store.
        StorageError: ``format``: a later version wrote it.
    """
    try:
        header = decode_file_header(data)
    except BadBytesError as error:
        raise CorruptLogError(path, 0, str(error)) from None
    if header.version > FORMAT_VERSION:
        text = f"written by a later version (format {header.version}, this one knows {FORMAT_VERSION}); nothing was touched"
        raise StorageError("format", path, text)
    if header.store_id != store_id:
        raise CorruptLogError(path, 0, "the file is from another store's log")
    return header


# --- batches -----------------------------------------------------------------------------------------------------------------------


class BatchHeader(NamedTuple):
    """The fixed part of a batch header, and what follows from it."""

    sequence: int
    group_count: int
    body_bytes: int
    body_checksum: int
    groups_checksum: int
    zero_sectors: int

    @property
    def body_offset(self) -> int:
        """Where the body starts, from the start of the batch."""
        return BATCH_HEADER_SIZE + 8 * self.group_count

    @property
    def size(self) -> int:
        """Bytes of the whole batch, padding included."""
        return aligned(self.body_offset + self.body_bytes)


def aligned(size: int) -> int:
    return -(-size // SECTOR) * SECTOR


class EncodedBatch(NamedTuple):
    """A batch, and where its body is."""

    data: bytearray
    body_start: int
    body_end: int


def encode_batch(identity: bytes, sequence: int, group_ids: Iterable[GroupId], segments: Sequence[bytes]) -> EncodedBatch:
    """Build a batch, padded to whole sectors.

    Args:
        group_ids: every group that has a segment inside.
    """
    ids = sorted(group_ids)
    groups = struct.pack(f"<{len(ids)}Q", *ids)
    data = bytearray().join((bytes(BATCH_HEADER_SIZE), groups, *segments))
    body_offset = BATCH_HEADER_SIZE + len(groups)
    body_bytes = len(data) - body_offset
    with memoryview(data) as view:
        body_checksum = zlib.crc32(view[body_offset:])
    data.extend(bytes(-len(data) % SECTOR))
    fields = (len(ids), sequence, identity, body_bytes, body_checksum, zlib.crc32(groups), count_zero_sectors(data), 0)
    checksum = zlib.crc32(_BATCH_HEADER.pack(BATCH_MAGIC, 0, *fields)[_BATCH_CHECKED_FROM:])
    _BATCH_HEADER.pack_into(data, 0, BATCH_MAGIC, checksum, *fields)
    return EncodedBatch(data, body_offset, body_offset + body_bytes)


def count_zero_sectors(data: bytes | bytearray, start: int = 0, end: int | None = None) -> int:
    """Count the whole sectors that are zeros, apart from the one at `start`, which has the magic."""
    if end is None:
        end = len(data)
    # One search in C settles the usual case: no run of that many zeros anywhere.
    place = data.find(ZERO_SECTOR, start + SECTOR, end)
    count = 0
    while place >= 0:
        sector = start + aligned(place - start)
        if data[sector : min(sector + SECTOR, end)] == ZERO_SECTOR:
            count += 1
        place = data.find(ZERO_SECTOR, sector + SECTOR, end)
    return count


def decode_batch_header(data: bytes, offset: int, identity: bytes) -> BatchHeader | None:
    """Read the fixed part of a batch header at `offset`; None if there is none of this file."""
    if data[offset : offset + len(BATCH_MAGIC)] != BATCH_MAGIC or len(data) - offset < BATCH_HEADER_SIZE:
        return None
    fields = _BATCH_HEADER.unpack_from(data, offset)
    _, checksum, group_count, sequence, file_identity, body_bytes, body_checksum, groups_checksum, zero_sectors, _ = fields
    if zlib.crc32(data[offset + _BATCH_CHECKED_FROM : offset + BATCH_HEADER_SIZE]) != checksum or file_identity != identity:
        return None
    return BatchHeader(sequence, group_count, body_bytes, body_checksum, groups_checksum, zero_sectors)


def decode_group_ids(data: bytes, offset: int, header: BatchHeader) -> tuple[GroupId, ...] | None:
    """The groups inside the batch at `offset`; None if the list is cut off or damaged."""
    listed = data[offset + BATCH_HEADER_SIZE : offset + header.body_offset]
    if len(listed) != 8 * header.group_count or zlib.crc32(listed) != header.groups_checksum:
        return None
    return struct.unpack(f"<{header.group_count}Q", listed)


def body_matches(data: bytes, offset: int, header: BatchHeader) -> bool:
    """Whether the body of the batch at `offset` is all there, as it was written."""
    start = offset + header.body_offset
    end = start + header.body_bytes
    # NB: the length comes first. Nothing is sliced, and nothing allocated, on the word of a length that the file contradicts.
    if end > len(data):
        return False
    with memoryview(data) as view:
        return zlib.crc32(view[start:end]) == header.body_checksum


# --- torn, or damaged --------------------------------------------------------------------------------------------------------------


def is_torn(data: bytes, offset: int, header: BatchHeader) -> bool:
    """Whether the batch at `offset`, in the newest file, is one that was being written when the lights went out."""
    end = offset + header.size
    if end > len(data):
        return True
    # Anything behind it was written after its sync.
    if any(data[end:]):
        return False
    return count_zero_sectors(data, offset, end) > header.zero_sectors


def is_unwritten(data: bytes, offset: int) -> bool:
    """Whether the sector at `offset`, where a batch must begin, never reached the disk.

    A sector is written or not: one that is neither zeros nor cut off was written, and has rotted since.
    """
    sector = data[offset : offset + SECTOR]
    return len(sector) < SECTOR or not any(sector)


def next_batch(data: bytes, offset: int, identity: bytes, after: int) -> int | None:
    """The first sector from `offset` on where a later batch of this file starts."""
    place = data.find(BATCH_MAGIC, offset)
    while place >= 0:
        if place % SECTOR == 0:
            header = decode_batch_header(data, place, identity)
            if header is not None and header.sequence > after:
                return place
        place = data.find(BATCH_MAGIC, place + 1)
    return None
