"""Reading the log at start: one pass over all files, for all groups. Changes nothing; `Recovery` says what is to be done.

The one question that matters is asked wherever bytes do not match their checksum: was this ever confirmed?

* *Torn*: the last batch of the newest file, if the file ends inside it, or more of its sectors read as zeros than were written as
  zeros. That is what an interrupted write leaves, and the next batch would only have been written after this one's sync: so nobody
  was ever told of it. It is dropped.
* *Damaged*: everything else, anywhere. It may well have been confirmed, so dropping it could lose what was acknowledged, or give a
  vote twice. The groups that the batch names fail, with file and offset; all groups fail where it is not known which ones it held.
  Nothing is cut, and the other groups go on.

A group that fails is healed by removing its replica and adding it anew: its tombstone supersedes all that comes before it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

import attrs
import trio

from .._errors import CorruptLogError, StorageError, WireError
from .._types import GroupId, GroupKey
from ..core import Durable, Entry, HardState
from ..wire import open_records
from ._batch import (
    BATCH_MAGIC,
    FORMAT_VERSION,
    SECTOR,
    BadBytesError,
    BatchHeader,
    FileHeader,
    Segment,
    SegmentKind,
    body_matches,
    count_zero_sectors,
    decode_batch_header,
    decode_file_header,
    decode_group,
    decode_group_ids,
    decode_tombstone,
    decode_vote,
    split_segments,
)
from ._contract import GroupRecord, RecoveredGroup
from ._disk import Disk
from ._log_file import LogEnd, log_name, log_number

# A checkpoint of the event loop for each so many batches: a long start can be cancelled.
BATCHES_PER_CHECKPOINT = 64


@attrs.frozen
class Recovery:
    """What the log says."""

    groups: dict[GroupId, RecoveredGroup]
    end: LogEnd
    cut: int | None
    """The newest file has a torn batch behind `end`: it is to be cut there, and synced, before anything is appended."""
    damage: CorruptLogError | None
    """Damage that may have held any group, so no group may be made either, unless its tombstone is younger."""
    healed: frozenset[GroupId]
    """The groups to which `damage` does not matter."""
    bytes_read: int


@attrs.define(eq=False)
class _Group:
    """What the log has said of a group so far."""

    record: GroupRecord | None = None
    tombstone: GroupKey | None = None
    hard_state: HardState = HardState()
    entries: list[Entry] = attrs.Factory(list)
    failure: CorruptLogError | None = None
    healed: bool = False
    """Its tombstone came after the last damage that named no group."""


async def recover(disk: Disk, directory: str, store_id: bytes, *, least: LogEnd) -> Recovery:
    """Read the whole log.

    Args:
        least: a file and a batch that are known to have been there once.

    Raises:
        StorageError: ``format``: a file of a later version.
        OSError: a file cannot be read.
    """
    reader = _Reader(directory, store_id)
    try:
        names = await disk.list_directory(directory)
    except FileNotFoundError:
        names = []
    numbers = sorted(number for name in names if (number := log_number(name)) is not None)
    newest = numbers[-1] if numbers else 0
    # Opened by number, not by listing: so a file that is missing in the middle is missed.
    for number in range(1, newest + 1):
        path = posixpath.join(directory, log_name(number))
        # The newest may hold what was never synced, or what only the cache still has after a failed sync. Older ones were synced.
        data = await disk.read_file(path, settle=number == newest) if number in numbers else None
        await reader.read_file(number, path, data, is_newest=number == newest)
    reader.check_least(least)
    return reader.result()


@attrs.define(eq=False)
class _Reader:
    directory: str
    store_id: bytes
    groups: dict[GroupId, _Group] = attrs.Factory(dict)
    damage: CorruptLogError | None = None
    end: LogEnd = attrs.Factory(LogEnd)
    cut: int | None = None
    bytes_read: int = 0
    place_lost: bool = False
    """Something was unreadable, so it is not known which batch or file comes next: the next one says it."""

    # -- files --------------------------------------------------------------------------------------------------------------------

    async def read_file(self, number: int, path: str, data: bytes | None, *, is_newest: bool) -> None:
        if data is None:
            self._damage_all(path, 0, "the file is missing")
        header = None if data is None else self._file_header(number, path, data)
        if data is None or header is None:
            # NB: its identity stays that of the file before. A file that is made next has to name something.
            self.place_lost = True
            self.end = attrs.evolve(self.end, number=number, size=0, usable=False)
            return
        self.bytes_read += len(data)
        if header.first_sequence != self.end.sequence + 1 and not self.place_lost:
            text = f"the file begins with batch {header.first_sequence}, the one before ends with {self.end.sequence}: something is missing"
            self._damage_all(path, 0, text)
        self.place_lost = False
        self.end = LogEnd(header.first_sequence - 1, number, header.identity, SECTOR, usable=is_newest)
        await self._read_batches(path, data, is_newest)

    def _file_header(self, number: int, path: str, data: bytes) -> FileHeader | None:
        """The header of a file whose batches may be read."""
        try:
            header = decode_file_header(data)
        except BadBytesError as error:
            self._damage_all(path, 0, str(error))
            return None
        if header.version > FORMAT_VERSION:
            text = f"written by a later version (format {header.version}, this one knows {FORMAT_VERSION}); nothing was touched"
            raise StorageError("format", path, text)
        if header.store_id != self.store_id:
            self._damage_all(path, 0, "the file is from another store's log")
            return None
        if header.number != number:
            self._damage_all(path, 0, f"the file was made as number {header.number}")
            return None
        if header.previous != self.end.identity and not self.place_lost:
            self._damage_all(path, 0, "the file does not follow the one before it")
        return header

    async def _read_batches(self, path: str, data: bytes, is_newest: bool) -> None:
        offset, identity, count = SECTOR, self.end.identity, 0
        while offset < len(data):
            count += 1
            if count % BATCHES_PER_CHECKPOINT == 0:
                await trio.lowlevel.checkpoint()
            header = decode_batch_header(data, offset, identity)
            if header is None or header.sequence <= self.end.sequence:
                following = self._skip_unreadable(path, data, offset, identity, is_newest)
                if following is None:
                    return
                offset = following
                continue
            if header.sequence != self.end.sequence + 1 and not self.place_lost:
                text = f"batch {header.sequence} follows batch {self.end.sequence}: something is missing"
                self._damage_all(path, offset, text)
            self.place_lost = False
            if not self._read_batch(path, data, offset, header, is_newest):
                return
            offset += header.size
            self.end = attrs.evolve(self.end, sequence=header.sequence, size=offset)

    def _skip_unreadable(self, path: str, data: bytes, offset: int, identity: bytes, is_newest: bool) -> int | None:
        """No batch header where one must be. Returns where the next batch starts, None if there is none."""
        following = _next_batch(data, offset + SECTOR, identity, self.end.sequence)
        # A sector is written or not: one that is neither zeros nor cut off was written, and has rotted since.
        sector = data[offset : offset + SECTOR]
        if following is None and is_newest and (len(sector) < SECTOR or not any(sector)):
            self.cut = offset
            return None
        self._damage_all(path, offset, "the header of a batch is unreadable")
        self.place_lost = True
        self.end = attrs.evolve(self.end, usable=False)
        return following

    def _read_batch(self, path: str, data: bytes, offset: int, header: BatchHeader, is_newest: bool) -> bool:
        """Read one batch whose header is good. Returns False if it was torn."""
        group_ids = decode_group_ids(data, offset, header)
        if group_ids is not None and body_matches(data, offset, header):
            try:
                for segment in split_segments(data, offset + header.body_offset, offset + header.body_offset + header.body_bytes):
                    self._replay(path, data, offset, segment)
            except BadBytesError as error:
                self._damage_some(path, offset, str(error), group_ids)
            return True
        if is_newest and _is_torn(data, offset, header):
            self.cut = offset
            return False
        self.end = attrs.evolve(self.end, usable=False)
        if group_ids is None:
            self._damage_all(path, offset, f"the list of groups of batch {header.sequence} does not match its checksum")
        else:
            self._damage_some(path, offset, f"batch {header.sequence} does not match its checksum", group_ids)
        return True

    def check_least(self, least: LogEnd) -> None:
        """Files and batches that were there at an earlier start must be there still."""
        if self.end.number < least.number:
            self._damage_all(posixpath.join(self.directory, log_name(least.number)), 0, "the file is missing")
        elif self.end.sequence < least.sequence and not self.place_lost:
            text = f"the log ends with batch {self.end.sequence}; batch {least.sequence} was there at the last start"
            self._damage_all(posixpath.join(self.directory, log_name(self.end.number)), self.end.size, text)
        else:
            return
        # What is written next takes neither the name nor the number of what is missing: so it will be missed again.
        number, sequence = max(self.end.number, least.number), max(self.end.sequence, least.sequence)
        self.end = attrs.evolve(self.end, number=number, sequence=sequence, usable=False)
        self.cut = None

    # -- groups -------------------------------------------------------------------------------------------------------------------

    def _replay(self, path: str, data: bytes, batch: int, segment: Segment) -> None:
        """Do again what a segment says. Raises `BadBytesError` where that is impossible."""
        kind, key, start, end = segment
        group = self.groups.setdefault(key.group_id, _Group())
        if kind == SegmentKind.TOMBSTONE:
            decode_tombstone(data[start:end])
            self.groups[key.group_id] = _Group(tombstone=key, healed=True)
        elif group.failure is not None:
            return
        elif kind == SegmentKind.ENTRIES:
            _check_living(group, key)
            _replay_entries(group, data, segment)
        elif kind == SegmentKind.VOTE:
            _check_living(group, key)
            _replay_vote(group, decode_vote(data[start:end]))
        elif kind == SegmentKind.GROUP:
            self._replay_group(group, decode_group(key, data[start:end]))
        else:
            raise BadBytesError(f"a segment of the unknown kind {kind}")

    def _replay_group(self, group: _Group, record: GroupRecord) -> None:
        if group.record == record:
            return  # asked for twice, because the first time was cancelled
        if group.record is not None:
            raise BadBytesError(f"group {record.key} was made twice")
        if group.tombstone is not None and record.key.incarnation <= group.tombstone.incarnation:
            raise BadBytesError(f"group {record.key} was made although {group.tombstone} had been removed")
        # The tombstone stays known as far as damage goes: what came before it does not concern this replica.
        self.groups[record.key.group_id] = _Group(record, healed=group.healed)

    def _damage_all(self, path: str, offset: int, text: str) -> None:
        """Refuse all groups: those that are known, and any that may have been in what is unreadable."""
        error = CorruptLogError(path, offset, text)
        for group in self.groups.values():
            group.failure = group.failure or (None if group.healed else self.damage) or error
            group.healed = False
        self.damage = self.damage or error

    def _damage_some(self, path: str, offset: int, text: str, group_ids: Iterable[GroupId]) -> None:
        for group_id in group_ids:
            group = self.groups.setdefault(group_id, _Group())
            if group.failure is None:
                # After damage that names no group, what a group lacks here is what it lost there.
                lost_before = None if group.healed else self.damage
                group.failure = lost_before or CorruptLogError(path, offset, f"{text}; it held records of group {group_id}")
                group.entries.clear()

    def result(self) -> Recovery:
        recovered = {group_id: self._recovered(group_id, group) for group_id, group in sorted(self.groups.items())}
        healed = frozenset(group_id for group_id, group in self.groups.items() if group.healed)
        return Recovery(recovered, self.end, self.cut, self.damage, healed, self.bytes_read)

    def _recovered(self, group_id: GroupId, group: _Group) -> RecoveredGroup:
        failure = group.failure or (None if group.healed else self.damage)
        if failure is not None:
            return RecoveredGroup(group_id, group.record, failure=failure)
        if group.record is None:
            return RecoveredGroup(group_id, tombstone=group.tombstone)
        return RecoveredGroup(group_id, group.record, Durable(hard_state=group.hard_state, entries=group.entries))


# --- torn, or damaged ------------------------------------------------------------------------------------------------------------------


def _is_torn(data: bytes, offset: int, header: BatchHeader) -> bool:
    """Whether the batch at `offset`, in the newest file, is one that was being written when the lights went out."""
    end = offset + header.size
    if end > len(data):
        return True
    # Anything behind it was written after its sync.
    if any(data[end:]):
        return False
    return count_zero_sectors(data, offset, end) > header.zero_sectors


def _next_batch(data: bytes, offset: int, identity: bytes, after: int) -> int | None:
    """The first sector from `offset` on where a later batch of this file starts."""
    place = data.find(BATCH_MAGIC, offset)
    while place >= 0:
        if place % SECTOR == 0:
            header = decode_batch_header(data, place, identity)
            if header is not None and header.sequence > after:
                return place
        place = data.find(BATCH_MAGIC, place + 1)
    return None


# --- what happened to a group ------------------------------------------------------------------------------------------------------------


def _check_living(group: _Group, key: GroupKey) -> None:
    if group.record is None or group.record.key != key:
        raise BadBytesError(f"a record of {key}, which does not exist at that point")


def _replay_vote(group: _Group, hard_state: HardState) -> None:
    before = group.hard_state
    if hard_state.term < before.term:
        raise BadBytesError(f"the term falls from {before.term} to {hard_state.term}")
    if hard_state.term == before.term and before.vote is not None and hard_state.vote != before.vote:
        raise BadBytesError(f"a second vote in term {before.term}")
    group.hard_state = hard_state


def _replay_entries(group: _Group, data: bytes, segment: Segment) -> None:
    _, key, start, end = segment
    try:
        new = open_records(data, start, end, group=key, payload_bytes_max=end - start)
    except WireError as error:
        raise BadBytesError(str(error)) from None
    entries = group.entries
    for entry in new:
        # The first entry of a write replaces everything at and above its index (paper 5.3); so it does here.
        if entry.index <= len(entries):
            del entries[entry.index - 1 :]
        elif entry.index != len(entries) + 1:
            raise BadBytesError(f"entry {entry} follows index {len(entries)}: something is missing")
        if entries and entry.term < entries[-1].term:
            raise BadBytesError(f"entry {entry} follows {entries[-1]}: terms never fall")
        entries.append(entry)
