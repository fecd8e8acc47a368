"""``logs/vote.dat`` of a group in `FileStorage`: who the group is, its term and vote, and where its log begins.

It says what was so when the log file `first_file` was begun; that file and the ones behind it say what has happened since. It is
replaced as a whole, and never missing as long as the group, or the tombstone of it, is there.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

import attrs

from .._errors import CorruptLogError, StorageError
from .._types import GroupId, GroupKey
from ._batch import BadBytesError
from ._configurations import Configurations
from ._row import Row
from ._row_bytes import decode_row, encode_row_content

VOTE_NAME: Final = "vote.dat"
VOTE_MAGIC: Final = b"TRIORVOT"
VOTE_VERSION: Final = 1

_HEADER: Final = struct.Struct("<8sII16sQIQQ")
"""Magic, checksum of what follows, version, store id, group, incarnation, first file, its first batch. The row follows."""
_CHECKED_FROM: Final = 12


@attrs.frozen
class VoteFile:
    row: Row
    """As of the moment before `first_sequence`. Where the entries are is not in it."""
    first_file: int = 0
    """0: there is no log any more."""
    first_sequence: int = 0
    """The first batch of `first_file`."""


def encode_vote_file(vote_file: VoteFile, store_id: bytes) -> bytes:
    row = vote_file.row
    fields = (VOTE_VERSION, store_id, *(row.key or (0, 0)), vote_file.first_file, vote_file.first_sequence)
    data = _HEADER.pack(VOTE_MAGIC, 0, *fields) + encode_row_content(row, {})
    return data[:8] + struct.pack("<I", zlib.crc32(data[_CHECKED_FROM:])) + data[_CHECKED_FROM:]


def decode_vote_file(data: bytes, path: str, group_id: GroupId, store_id: bytes) -> VoteFile:
    """Read what `encode_vote_file` wrote.

    Raises:
        CorruptLogError: it did not write these bytes, or not for this group.
        StorageError: ``format``: a later version wrote them.
    """
    if len(data) < _HEADER.size or data[:8] != VOTE_MAGIC:
        raise CorruptLogError(path, 0, "not a vote file")
    _, checksum, version, its_store_id, its_group_id, incarnation, first_file, first_sequence = _HEADER.unpack_from(data)
    if checksum != zlib.crc32(data[_CHECKED_FROM:]):
        raise CorruptLogError(path, 0, "the file does not match its checksum")
    if version > VOTE_VERSION:
        text = f"written by a later version (format {version}, this one knows {VOTE_VERSION}); nothing was touched"
        raise StorageError("format", path, text)
    if (its_store_id, its_group_id) != (store_id, group_id):
        raise CorruptLogError(path, 0, f"the file is of group {its_group_id} of store {its_store_id.hex()}, and was put here")
    try:
        row = decode_row(GroupKey(group_id, incarnation), data[_HEADER.size :], Configurations())
    except BadBytesError as error:
        raise CorruptLogError(path, _HEADER.size, str(error)) from None
    return VoteFile(row, first_file, first_sequence)
