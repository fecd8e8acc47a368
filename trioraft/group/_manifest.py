"""The end of a snapshot's file, which says what the file is."""

from __future__ import annotations

from .._errors import CorruptSnapshotError
from .._types import EntryId, GroupKey
from ..storage import SnapshotReader
from ..wire import SNAPSHOT_TAIL_BYTES, SnapshotBytesError, SnapshotManifest, read_manifest


async def read_manifest_of(reader: SnapshotReader, key: GroupKey, at: EntryId) -> SnapshotManifest:
    """Return the manifest of what should be the snapshot at `at` of the group `key`.

    Raises:
        CorruptSnapshotError: it is damaged, or is of another group or entry.
        StorageError: it cannot be read.
    """
    tail = min(reader.size, SNAPSHOT_TAIL_BYTES)
    try:
        manifest = read_manifest(await reader.read(reader.size - tail, tail), reader.size)
    except SnapshotBytesError as error:
        raise CorruptSnapshotError(reader.path, error.offset, str(error)) from error
    if (manifest.group, manifest.at) != (key, at):
        text = f"this is the snapshot at {manifest.at} of group {manifest.group}, in the place of that at {at} of group {key}"
        raise CorruptSnapshotError(reader.path, manifest.stored_bytes, text)
    return manifest
