"""The file of a snapshot as bytes: header, blocks, manifest, trailer. Pure: no I/O.

    header    8 bytes magic, 4 bytes version, 4 bytes CRC-32 of these 12;
              8 bytes group id, 4 bytes incarnation, 8 bytes term, 8 bytes index, 1 byte compression, 4 bytes CRC-32 of these 29
    block...  4 bytes stored size, 4 bytes raw size, 4 bytes CRC-32 of these 8 and of what follows; the stored bytes
    manifest, trailer: see ``_snapshot_manifest.py``

All little-endian. A block holds whole records, one CBOR item behind the other, compressed by itself. One that compressing does not
make smaller is stored as it is: its sizes are equal. A raw size of 0 marks the manifest. Header up to its first checksum and trailer
are the same in all versions.

Whoever reads may have got the file from anywhere: each size is checked against its limit and against the size of the file before
anything is waited for, allocated or decompressed. Both ends hold one block at a time, however large the snapshot is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, Final
from zlib import crc32

import attrs

from .._errors import ConfigError, InvariantError, WireError
from .._types import EntryId, GroupKey
from ..core import Configuration
from ._compression import COMPRESSIONS, BadCompressionError, Compression, open_compressor, open_decompressor
from ._snapshot_manifest import (
    MANIFEST_BYTES_MAX,
    SECTION,
    SNAPSHOT_CODEC,
    SNAPSHOT_VERSION,
    TRAILER,
    SnapshotBytesError,
    SnapshotManifest,
    check_section,
    check_version,
    make_end,
    make_section,
    open_manifest,
    open_trailer,
)
from ._value import decode_value, decode_values, encode_value

SNAPSHOT_RECORD_BYTES_MAX: Final = 64 << 20
"""The largest record."""

_BLOCK_BYTES: Final = 256 << 10  # of records, before they are compressed; a larger block holds one record

_MAGIC: Final = b"TRIORSNP"
_PREFIX: Final = struct.Struct("<8sI")
_HEADER: Final = struct.Struct("<QIQQB")
_CRC: Final = struct.Struct("<I")
_PREFIX_SIZE: Final = _PREFIX.size + _CRC.size
_HEADER_SIZE: Final = _HEADER.size + _CRC.size


class SnapshotEncoder:
    """Makes the file, piece by piece. Not thread-safe, but may move from thread to thread.

    Holds one block, and what is finished until it is taken: `take` after each `add`.

    Raises:
        ConfigError: that compression is not there.
    """

    def __init__(self, group: GroupKey, at: EntryId, configuration: Configuration, *, compression: Compression) -> None:
        self._group, self._at, self._configuration, self._compression = group, at, configuration, compression
        self._compress = open_compressor(compression)
        self._block: list[bytes] = []
        self._block_bytes = 0
        self._finished: list[bytes] = []
        self._hash = sha256()
        self._records = self._raw_bytes = self._stored_bytes = 0
        self._manifest: SnapshotManifest | None = None
        self._store(_seal(_PREFIX.pack(_MAGIC, SNAPSHOT_VERSION)) + _seal(_HEADER.pack(*group, *at, COMPRESSIONS.index(compression))))

    def add(self, record: Any) -> None:
        """Take one record.

        Raises:
            WireError: CBOR cannot carry it, or it is larger than `SNAPSHOT_RECORD_BYTES_MAX`.
        """
        if self._manifest is not None:
            raise InvariantError("a record behind the end of a snapshot")
        data = encode_value(record)
        size = len(data)
        if size > SNAPSHOT_RECORD_BYTES_MAX:
            raise WireError(f"a record of {size} bytes; up to {SNAPSHOT_RECORD_BYTES_MAX} fit into a snapshot")
        if self._block_bytes + size > _BLOCK_BYTES:
            self._finish_block()
        self._block.append(data)
        self._block_bytes += size

    def take(self) -> bytes:
        """What is finished of the file since the last call (the header, whole blocks); b"" while there is nothing."""
        if not self._finished:
            return b""
        finished = b"".join(self._finished)
        self._finished.clear()
        return finished

    def finish(self) -> bytes:
        """The rest of the file: what was not taken yet, the last block, manifest, trailer.

        Raises:
            InvariantError: the configuration has so many members that no manifest can hold it.
        """
        if self._manifest is not None:
            raise InvariantError("a snapshot ends only once")
        self._finish_block()
        self._manifest = SnapshotManifest(
            group=self._group,
            at=self._at,
            configuration=self._configuration,
            codec=SNAPSHOT_CODEC,
            compression=self._compression,
            records=self._records,
            raw_bytes=self._raw_bytes,
            stored_bytes=self._stored_bytes,
            sha256=self._hash.digest(),
        )
        return self.take() + make_end(self._manifest)

    @property
    def manifest(self) -> SnapshotManifest:
        """After `finish`."""
        if self._manifest is None:
            raise InvariantError("what a snapshot is, is known when it is finished")
        return self._manifest

    def _finish_block(self) -> None:
        if not self._block:
            return
        raw = b"".join(self._block)
        self._records += len(self._block)
        self._raw_bytes += len(raw)
        self._block.clear()
        self._block_bytes = 0
        compressed = self._compress(raw)
        self._store(make_section(compressed if len(compressed) < len(raw) else raw, len(raw)))

    def _store(self, data: bytes) -> None:
        self._hash.update(data)
        self._stored_bytes += len(data)
        self._finished.append(data)


class SnapshotDecoder:
    """Reads the file, piece by piece, from its first byte to its last; checks everything on the way.

    Holds one block with its records, and what one `feed` brought. After an error it stays broken.
    """

    def __init__(self, size: int) -> None:
        """
        Args:
            size: of the whole file.
        """
        self._size = size
        self._buffer = bytearray()
        self._start = 0
        """Where that part of the file begins which is read now: for errors."""
        self._taken = 0
        """How much of the file has left the buffer."""
        self._wanted = _PREFIX_SIZE
        """How much must be there for `_step`, which handles just that and says what comes next."""
        self._step: Callable[[bytes], list[Any]] = self._open_prefix
        self._hash = sha256()
        self._group: GroupKey
        self._at: EntryId
        self._compression: Compression
        self._decompress: Callable[[bytes, int], bytes]
        self._section = (0, 0, 0)
        self._records = self._raw_bytes = 0
        self._manifest: SnapshotManifest | None = None
        self._failure: SnapshotBytesError | None = None
        self._is_drained = True

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take the next bytes; return an iterator over the records that are whole by now. Exhaust it before the next call.

        Nothing is checked or decoded before it is asked for: few bytes, well compressed, may hold a lot.

        Raises:
            SnapshotBytesError: from the iterator. Names the offset of the header, block, manifest or trailer that is not as written;
                or a version or compression that is not known here (the text says which, and what to install).
            InvariantError: the iterator of the last call was not exhausted: its records would be lost.
        """
        self._check_state()
        self._buffer += data
        self._is_drained = False
        return self._drain()

    def finish(self) -> SnapshotManifest:
        """Everything was fed: return what the snapshot is.

        Raises:
            SnapshotBytesError: the file ends too early; or what was wrong before.
            InvariantError: as `feed`.
        """
        self._check_state()
        if self._manifest is None or self._taken != self._size:
            raise SnapshotBytesError(self._start, "the file ends inside of this part of it")
        return self._manifest

    def _check_state(self) -> None:
        if self._failure is not None:
            raise self._failure
        if not self._is_drained:
            raise InvariantError("the records of a snapshot must all be taken before it is read on")

    def _drain(self) -> Iterator[Any]:
        while len(self._buffer) >= self._wanted:
            with memoryview(self._buffer) as view:
                part = bytes(view[: self._wanted])
            del self._buffer[: self._wanted]
            self._taken += len(part)
            try:
                records = self._step(part)
            except SnapshotBytesError as error:
                self._failure = error
                self._buffer.clear()
                raise
            del part
            yield from records
        self._is_drained = True

    def _expect(self, size: int, step: Callable[[bytes], list[Any]]) -> list[Any]:
        self._wanted, self._step = size, step
        return []

    def _expect_section(self) -> None:
        self._start = self._taken
        self._expect(SECTION.size, self._open_section)

    def _open_prefix(self, part: bytes) -> list[Any]:
        magic, version = _PREFIX.unpack_from(part)
        if magic != _MAGIC:
            raise SnapshotBytesError(0, "not a snapshot")
        _check_seal(part)
        check_version(version, 0)
        self._hash.update(part)
        return self._expect(_HEADER_SIZE, self._open_header)

    def _open_header(self, part: bytes) -> list[Any]:
        _check_seal(part)
        group_id, incarnation, term, index, compression = _HEADER.unpack_from(part)
        self._group, self._at = GroupKey(group_id, incarnation), EntryId(term, index)
        if compression >= len(COMPRESSIONS):
            raise SnapshotBytesError(0, f"compression number {compression} is not known to this version of trioraft")
        self._compression = COMPRESSIONS[compression]
        try:
            self._decompress = open_decompressor(self._compression)
        except ConfigError as error:
            raise SnapshotBytesError(0, str(error)) from None
        self._hash.update(part)
        self._expect_section()
        return []

    def _open_section(self, part: bytes) -> list[Any]:
        self._section = stored_size, raw_size, _ = SECTION.unpack(part)
        behind = self._size - self._taken - stored_size
        if raw_size == 0:
            if stored_size > MANIFEST_BYTES_MAX or behind != TRAILER.size:
                raise SnapshotBytesError(self._start, f"a manifest of {stored_size} bytes cannot be here")
            return self._expect(stored_size, self._open_manifest)
        if not stored_size <= raw_size <= SNAPSHOT_RECORD_BYTES_MAX or behind < SECTION.size + TRAILER.size:
            raise SnapshotBytesError(self._start, f"a block of {stored_size} bytes, {raw_size} uncompressed, cannot be here")
        self._hash.update(part)
        return self._expect(stored_size, self._open_block)

    def _open_block(self, stored: bytes) -> list[Any]:
        stored_size, raw_size, checksum = self._section
        check_section(stored, raw_size, checksum, self._start)
        self._hash.update(stored)
        try:
            raw = stored if stored_size == raw_size else self._decompress(stored, raw_size)
            records = decode_values(raw) if raw_size <= _BLOCK_BYTES else [decode_value(raw)]
        except (BadCompressionError, WireError) as error:
            raise SnapshotBytesError(self._start, f"bad block: {error}") from None
        self._records += len(records)
        self._raw_bytes += raw_size
        self._expect_section()
        return records

    def _open_manifest(self, part: bytes) -> list[Any]:
        manifest = open_manifest(part, self._section[2], self._start)
        found = attrs.evolve(
            manifest,
            group=self._group,
            at=self._at,
            compression=self._compression,
            records=self._records,
            raw_bytes=self._raw_bytes,
            sha256=self._hash.digest(),
        )
        if found != manifest:
            raise SnapshotBytesError(self._start, "the manifest does not belong to what is before it")
        self._manifest = manifest
        self._start = self._taken
        return self._expect(TRAILER.size, self._open_trailer)

    def _open_trailer(self, part: bytes) -> list[Any]:
        manifest_at = open_trailer(part, self._start)
        if self._manifest is None or manifest_at != self._manifest.stored_bytes:
            raise SnapshotBytesError(self._start, f"the manifest is not at offset {manifest_at}")
        self._start = self._taken
        return self._expect(1, self._refuse)

    def _refuse(self, part: bytes) -> list[Any]:
        raise SnapshotBytesError(self._start, "more bytes than the file has")


def _seal(data: bytes) -> bytes:
    return data + _CRC.pack(crc32(data))


def _check_seal(part: bytes) -> None:
    if _seal(part[: -_CRC.size]) != part:
        raise SnapshotBytesError(0, "wrong checksum of the header")
