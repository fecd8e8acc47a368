"""Going through a group's own files, entries at rest and snapshots, from the first byte to the last."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Final

from .._errors import CorruptLogError, CorruptSnapshotError, WireError
from .._types import EntryId, GroupKey
from ..core import Entry
from ..wire import SnapshotBytesError, SnapshotDecoder, SnapshotManifest, open_record
from ._at_rest import HEADER_SIZE, AtRestHeader, decode_at_rest_header
from ._disk import Disk

READ_BYTES: Final = 1 << 20

_ROW: Final = struct.Struct("<QQ")


def walk_at_rest(path: str, data: bytes, store_id: bytes, key: GroupKey | None, on_entry: Callable[[Entry], None]) -> AtRestHeader:
    """Check a file of entries at rest.

    Args:
        key: the group that it should be of; None: not known.

    Raises:
        CorruptLogError: with the first thing that is wrong; the entries before it have been handed over.
        StorageError: ``format``: a later version wrote it.
    """
    header = decode_at_rest_header(data, path)
    if header.store_id != store_id:
        raise CorruptLogError(path, 0, "the file is from another store")
    if key is not None and header.key != key:
        raise CorruptLogError(path, 0, f"the file is of group {header.key}, not of {key}")
    if header.size != len(data):
        text = f"the file has {len(data)} bytes, its header says {header.size}"
        raise CorruptLogError(path, min(header.size, len(data)), text)
    end = HEADER_SIZE + header.records_bytes
    table = data[end:]
    if zlib.crc32(table) != header.table_checksum or len(table) % _ROW.size:
        raise CorruptLogError(path, end, "the table does not match its checksum")
    rows = dict(_ROW.iter_unpack(table))
    offset, index, records = HEADER_SIZE, header.first.index, data[:end]
    last = None
    while offset < end:
        try:
            its_key, entry, following = open_record(records, offset, payload_bytes_max=end)
        except WireError as error:
            raise CorruptLogError(path, offset, f"{error}; it should be that of entry {index}") from None
        if its_key != header.key or entry.index != index:
            raise CorruptLogError(path, offset, f"entry {entry} of {its_key} stands where {index} of {header.key} belongs")
        if rows.pop(index, offset) != offset:
            raise CorruptLogError(path, end, f"the table has another place for entry {index} than offset {offset}")
        on_entry(entry)
        offset, index, last = following, index + 1, entry.id
    if last != header.last or rows:
        raise CorruptLogError(path, end, f"the records end with {last}, the header says {header.last}")
    return header


async def walk_snapshot(disk: Disk, path: str, key: GroupKey | None, at: EntryId) -> SnapshotManifest:
    """Decode a whole snapshot.

    Raises:
        CorruptSnapshotError: it is not what was written, or not what its name says; or its compression is not installed here.
        OSError: the file is not there, or cannot be read.
    """
    file = await disk.open(path)
    try:
        size = await disk.size(file)
        decoder, offset = SnapshotDecoder(size), 0
        while piece := await disk.read(file, offset, min(READ_BYTES, size - offset)):
            for _ in decoder.feed(piece):
                pass
            offset += len(piece)
        manifest = decoder.finish()
    except SnapshotBytesError as error:
        raise CorruptSnapshotError(path, error.offset, str(error)) from None
    finally:
        disk.close(file)
    if manifest.at != at:
        raise CorruptSnapshotError(path, 0, f"the snapshot reaches up to {manifest.at}, its name says {at}")
    if key is not None and manifest.group != key:
        raise CorruptSnapshotError(path, 0, f"the snapshot is of group {manifest.group}, not of {key}")
    return manifest
