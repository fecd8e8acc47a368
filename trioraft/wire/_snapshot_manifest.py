"""The manifest at the end of a snapshot's file: what the snapshot is, and how to find that out without reading the rest.

    manifest  4 bytes size, 4 bytes 0, 4 bytes CRC-32 of these 8 and of what follows; one CBOR array, flat
    trailer   8 bytes offset of the manifest, 4 bytes version, 4 bytes CRC-32 of these 12, 8 bytes magic

The trailer is the same in all versions, so that a file of a later one is told from damage.
"""

from __future__ import annotations

import struct
from typing import Any, Final, cast
from zlib import crc32

import attrs
import cbor2

from .._errors import InvariantError, WireError
from .._types import EntryId, GroupKey
from ..core import BadConfigurationError, Configuration, decode_configuration, encode_configuration
from ._compression import COMPRESSIONS, Compression
from ._strict import INCARNATION_MAX, checked_number, decode_strict

SNAPSHOT_VERSION: Final = 1
"""Of the format of a snapshot's file."""

SNAPSHOT_TAIL_BYTES: Final = 2 << 20
"""A manifest and its trailer are never larger."""

SNAPSHOT_CODEC: Final = "cbor"
"""How records become bytes; there is no other way yet."""

SECTION: Final = struct.Struct("<III")
"""What is in front of a block and of the manifest: stored size, raw size (of a manifest 0), checksum."""

TRAILER: Final = struct.Struct("<QII8s")
"""Offset of the manifest, version, checksum of both, magic."""

MANIFEST_BYTES_MAX: Final = SNAPSHOT_TAIL_BYTES - SECTION.size - TRAILER.size

_SIZES: Final = struct.Struct("<II")
_END: Final = struct.Struct("<QI")
_END_MAGIC: Final = b"TRIORSNE"
_SHA256_BYTES: Final = 32


class SnapshotBytesError(Exception):
    """Bytes that no snapshot has at that place. Whoever reads them knows the path."""

    def __init__(self, offset: int, text: str) -> None:
        self.offset = offset
        super().__init__(text)


@attrs.frozen(kw_only=True)
class SnapshotManifest:
    """What a snapshot is."""

    group: GroupKey
    at: EntryId
    """The last entry whose effect is in it."""
    configuration: Configuration
    """The one in force at that entry."""
    codec: str
    """How records became bytes; ``cbor``."""
    compression: Compression
    records: int
    raw_bytes: int
    """Of all records, uncompressed."""
    stored_bytes: int
    """From the start of the file to the manifest."""
    sha256: bytes
    """Of these."""


def read_manifest(tail: bytes, size: int) -> SnapshotManifest:
    """Read the manifest out of the end of a file of `size` bytes, without looking at its blocks.

    Args:
        tail: at least the last `SNAPSHOT_TAIL_BYTES` of the file, or all of it.

    Raises:
        SnapshotBytesError: that is no end of a snapshot.
    """
    trailer = size - TRAILER.size
    start = open_trailer(tail[-TRAILER.size :], trailer)
    if not size - len(tail) <= start <= trailer - SECTION.size:
        raise SnapshotBytesError(trailer, f"a manifest at offset {start} is not within the last {len(tail)} of {size} bytes")
    section = tail[start - size : -TRAILER.size]
    stored_size, raw_size, checksum = SECTION.unpack_from(section)
    stored = section[SECTION.size :]
    if len(stored) != stored_size or raw_size != 0 or len(stored) > MANIFEST_BYTES_MAX:
        raise SnapshotBytesError(start, "this is where the manifest should be, and it is not there")
    return open_manifest(stored, checksum, start)


def check_section(stored: bytes, raw_size: int, checksum: int, start: int) -> None:
    if section_checksum(stored, raw_size) != checksum:
        raise SnapshotBytesError(start, "wrong checksum")


def section_checksum(stored: bytes, raw_size: int) -> int:
    return crc32(stored, crc32(_SIZES.pack(len(stored), raw_size)))


def make_section(stored: bytes, raw_size: int) -> bytes:
    return SECTION.pack(len(stored), raw_size, section_checksum(stored, raw_size)) + stored


def make_end(manifest: SnapshotManifest) -> bytes:
    """Return manifest and trailer: the end of the file.

    Raises:
        InvariantError: the manifest is too large.
    """
    configuration = encode_configuration(manifest.configuration)
    numbers = (manifest.records, manifest.raw_bytes, manifest.stored_bytes)
    fields = [*manifest.group, *manifest.at, configuration, manifest.codec, manifest.compression, *numbers, manifest.sha256]
    stored = cbor2.dumps(fields)
    if len(stored) > MANIFEST_BYTES_MAX:
        raise InvariantError(f"a configuration of {len(configuration)} bytes does not fit into the manifest of a snapshot")
    end = _END.pack(manifest.stored_bytes, SNAPSHOT_VERSION)
    return make_section(stored, 0) + TRAILER.pack(manifest.stored_bytes, SNAPSHOT_VERSION, crc32(end), _END_MAGIC)


def open_manifest(stored: bytes, checksum: int, start: int) -> SnapshotManifest:
    """Read the manifest that begins at `start` of the file."""
    check_section(stored, 0, checksum, start)
    try:
        manifest = _manifest(decode_strict(stored, depth_max=1))
    except (WireError, BadConfigurationError) as error:
        raise SnapshotBytesError(start, f"bad manifest: {error}") from None
    if manifest.stored_bytes != start:
        raise SnapshotBytesError(start, f"a manifest that should be at offset {manifest.stored_bytes}")
    return manifest


def _manifest(fields: Any) -> SnapshotManifest:
    if type(fields) is not list or len(fields) != 11:
        raise WireError("it is not an array of 11 elements")
    group_id, incarnation, term, index, configuration, codec, compression, records, raw_bytes, stored_bytes, sha256 = fields
    if type(configuration) is not bytes or type(sha256) is not bytes or len(sha256) != _SHA256_BYTES:
        raise WireError(f"configuration and sha256 must be bytes, the latter {_SHA256_BYTES} of them")
    if codec != SNAPSHOT_CODEC:
        raise WireError(f"codec {_shown(codec)} is not known to this version of trioraft")
    if compression not in COMPRESSIONS:
        raise WireError(f"compression {_shown(compression)} is not known to this version of trioraft")
    return SnapshotManifest(
        group=GroupKey(checked_number(group_id, "group id"), checked_number(incarnation, "incarnation", 0, INCARNATION_MAX)),
        at=EntryId(checked_number(term, "term", 1), checked_number(index, "index", 1)),
        configuration=decode_configuration(configuration),
        codec=codec,
        compression=cast(Compression, compression),
        records=checked_number(records, "records"),
        raw_bytes=checked_number(raw_bytes, "raw_bytes"),
        stored_bytes=checked_number(stored_bytes, "stored_bytes"),
        sha256=sha256,
    )


def _shown(value: object) -> str:
    return repr(value)[:40]


def open_trailer(data: bytes, start: int) -> int:
    """Return where the manifest begins, out of the last bytes of a file, where the trailer should be at `start`."""
    if len(data) != TRAILER.size or data[-len(_END_MAGIC) :] != _END_MAGIC:
        raise SnapshotBytesError(max(start, 0), "not a whole snapshot: it does not end like one")
    manifest_at, version, checksum, _ = TRAILER.unpack(data)
    if crc32(_END.pack(manifest_at, version)) != checksum:
        raise SnapshotBytesError(start, "wrong checksum of the trailer")
    check_version(version, start)
    return int(manifest_at)


def check_version(version: int, start: int) -> None:
    if version != SNAPSHOT_VERSION:
        raise SnapshotBytesError(
            start, f"written by a later version of trioraft: format version {version}; this one reads version {SNAPSHOT_VERSION}"
        )
