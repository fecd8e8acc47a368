"""Going through the bytes of one log file to find everything in it that is not as it was written.

Recovery asks what a log says, and stops believing a group at the first thing that is wrong with it. This asks about the bytes: also of
what nobody needs any more, of the padding between batches, and behind the first damage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from .._errors import WireError
from .._types import GroupKey
from ..core import Entry
from ..wire import open_records
from ._batch import (
    SECTOR,
    BadBytesError,
    BatchHeader,
    body_matches,
    decode_batch_header,
    decode_file_header,
    decode_group_ids,
    next_batch,
)
from ._segment import ENTRIES_HEADER_SIZE, SegmentKind, decode_segment_header

_FIELDS_END = 80
"""Of the header of a file; zeros follow."""

_WITH_RECORDS = frozenset({SegmentKind.ENTRIES, SegmentKind.CARRIED})

OnRecords = Callable[[GroupKey, int, Sequence[Entry]], None]
"""Called with the group, the offset of the first record, and the entries."""


@attrs.define(eq=False)
class LogWalk:
    """One log file.

    Args:
        end: where its torn end begins, or where it ends.
        on_records: also check what batches hold, and hand over all entries. None: only count batches.
    """

    data: bytes
    end: int
    on_records: OnRecords | None
    is_newest: bool
    batches: int = 0
    findings: list[tuple[int, str]] = attrs.Factory(list)
    """Offsets, and what is wrong there."""

    def walk(self) -> None:
        data, offset, sequence = self.data, SECTOR, 0
        try:
            identity = decode_file_header(data).identity
        except BadBytesError as error:
            self.findings.append((0, str(error)))
            return
        self._check_zeros(_FIELDS_END, SECTOR, "the header of the file")
        while offset < self.end:
            header = decode_batch_header(data, offset, identity)
            if header is None:
                self.findings.append((offset, "the header of a batch is unreadable"))
                following = next_batch(data, offset + SECTOR, identity, sequence)
                if following is None:
                    return
                offset = following
                continue
            sequence = header.sequence
            self.batches += 1
            if self.on_records is not None:
                self._check_batch(offset, header, self.on_records)
            offset += header.size

    def _check_batch(self, offset: int, header: BatchHeader, on_records: OnRecords) -> None:
        data, name = self.data, f"batch {header.sequence}"
        groups = decode_group_ids(data, offset, header)
        held = "" if groups is None else f"; it held records of {_shown(groups)}"
        start = offset + header.body_offset
        end = start + header.body_bytes
        if groups is None:
            self.findings.append((offset, f"the list of groups of {name} does not match its checksum"))
        if end > len(data):
            self.findings.append((offset, f"the file ends inside {name}{held}"))
            return
        padding_end = offset + header.size
        self._check_zeros(end, min(padding_end, len(data)), f"the padding behind {name}")
        # In the newest file, that is what an interrupted write may leave of a batch that is otherwise whole.
        if padding_end > len(data) and not self.is_newest:
            self.findings.append((len(data), f"the file ends inside the padding behind {name}: something was cut off"))
        if not body_matches(data, offset, header):
            self.findings.append((offset, f"{name} does not match its checksum{held}"))
            return
        try:
            self._open_segments(start, end, on_records)
        except BadBytesError as error:
            self.findings.append((offset, f"{name}: {error}"))

    def _open_segments(self, start: int, end: int, on_records: OnRecords) -> None:
        while start < end:
            kind, key, content, start = decode_segment_header(self.data, start, end)
            if kind not in _WITH_RECORDS:
                continue
            content += ENTRIES_HEADER_SIZE
            try:
                entries = open_records(self.data, content, start, group=key, payload_bytes_max=start - content)
            except WireError as error:
                self.findings.append((content, str(error)))
            else:
                on_records(key, content, entries)

    def _check_zeros(self, start: int, end: int, what: str) -> None:
        padding = self.data[start:end]
        if any(padding):
            place = len(padding) - len(padding.lstrip(b"\0"))
            self.findings.append((start + place, f"{what} is not zeros; nothing is lost, but something has written there"))


def _shown(groups: Sequence[int]) -> str:
    listed = ", ".join(map(str, groups[:5]))
    return f"group {listed}" if len(groups) == 1 else f"groups {listed}" + (f" and {len(groups) - 5} more" if len(groups) > 5 else "")
