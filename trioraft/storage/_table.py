"""The table: one row for each group and tombstone.

A batch is applied to it segment by segment, in the order of the log: at a start by recovery, and later by the committer, as soon as a
batch is on stable storage and before anybody is told. Both give it the same bytes, so the table of a running node is what a restart
would read; a checkpoint is nothing but the table, written down.

Segments of a group that is damaged are passed over, except the tombstone that heals it. So are those that come late, behind the tombstone
of their replica. So are those of groups that are not known yet when
the log begins with a file that has no checkpoint: the checkpoint of a later file says what became of them.

A replica that joins a group may have the key of one that was removed here. The tombstone parts the two lives: nothing of the first is
submitted once it is durable, and the second begins behind it. So each life has a row of its own, and whoever holds on to a row
(`_group_log`, `_mover`) sees by its identity whether that life is still the present one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Set as AbstractSet
from typing import Final, NamedTuple

from .._errors import CorruptLogError, GroupExistsError, StorageError
from .._types import NOTHING, EntryId, GroupId, GroupKey
from ..core import EntryKind
from ._batch import BadBytesError
from ._configurations import Configurations
from ._contract import GroupRecord
from ._encoded_rows import EncodedRows
from ._log_files import LogFiles
from ._row import Row, Tombstone
from ._row_bytes import EncodedConfigurations, decode_row, encode_row_content
from ._segment import (
    ENTRIES_HEADER_SIZE,
    ENTRIES_SEGMENT,
    MEMBER_SIZE,
    OF_NO_GROUP,
    SEGMENT_HEADER_SIZE,
    SegmentKind,
    decode_at_rest,
    decode_compacted,
    decode_end_of_checkpoint,
    decode_entries,
    decode_entries_header,
    decode_group,
    decode_installed,
    decode_member,
    decode_number,
    decode_segment_header,
    decode_vote,
)


class Body(NamedTuple):
    """The body of a batch that matched its checksum: ``data[start:end]``."""

    groups: AbstractSet[GroupId]
    """Those that the batch names."""
    file: int
    """The number of the log file."""
    batch: int
    """Where in the file the batch starts."""
    data: bytes | bytearray
    start: int
    end: int
    shift: int
    """Where in the file ``data[0]`` is."""


class Table:
    """What the log says, as of the last batch that was applied.

    Args:
        directory: that of the log files, for messages.
    """

    def __init__(self, directory: str) -> None:
        self.rows: dict[GroupId, Row] = {}
        self.files = LogFiles(directory, self.rows)
        self.damage: CorruptLogError | None = None
        """Damage that may have held any group, so no group may be made either, unless its tombstone is younger."""
        self.encoded_rows = EncodedRows(self.rows)
        """What a checkpoint says."""
        self.configurations = Configurations()
        self.skips_unknown = False
        """No checkpoint was read yet, and the log does not begin with its first file."""
        self._failed: set[GroupId] = set()
        # The highest incarnation that any segment of a group names: the group may be damaged, and its beginning with it.
        self._seen: dict[GroupId, int] = {}
        # The highest replica number that anything says of a life.
        self._numbers: dict[GroupKey, EntryId] = {}
        # Rows of groups that are not known, until their checkpoint is known to be complete.
        self._new_rows: dict[GroupId, Row] = {}
        self._encoded: EncodedConfigurations = {}
        # Of the newest file.
        self._segments_read = self._rows_read = 0
        self._lost: set[GroupId] = set()
        self.has_checkpoint = False
        """Whether the newest file, as far as it was read, begins with all of a checkpoint."""

    def add_file(self, number: int) -> None:
        """A new file is there; all that is applied from now on is in it."""
        self.files.add(number)
        self._forget_checkpoint()
        self._segments_read = self._rows_read = 0
        self._lost.clear()
        self.has_checkpoint = False

    def removable(self) -> list[int]:
        """The oldest files, as many as no restart needs any more. Remove them in this order, one by one, durably."""
        return [] if self.has_damage else self.files.unneeded()

    @property
    def has_only_rows(self) -> bool:
        """Whether nothing but a part of a checkpoint was read of the newest file."""
        return self._segments_read == self._rows_read

    # -- damage -------------------------------------------------------------------------------------------------------------------

    @property
    def has_damage(self) -> bool:
        """Whether anything is refused that may be in a file: then no file is removed."""
        return self.damage is not None or bool(self._failed)

    def may_make(self, group_id: GroupId) -> bool:
        """Whether a group may be made as far as damage goes that named no group: among what cannot be read there may be a vote of it."""
        row = self.rows.get(group_id)
        return self.damage is None or (row is not None and row.healed)

    def damage_all(self, error: CorruptLogError) -> None:
        """Refuse all groups: those that are known, and any that may have been in what is unreadable."""
        for row in self.rows.values():
            self.fail(row, self._earlier(row) or error)
            row.healed = False
        self.damage = self.damage or error

    def damage_batch(self, group_ids: Collection[GroupId], file: int, offset: int, text: str) -> None:
        """A batch of the newest file, about these groups, is worth nothing."""
        self._lost.update(group_ids)
        self._damage_some(group_ids, file, offset, text)

    def refuse_unknown(self) -> None:
        """After the last file: groups of which something was read, and not how they began, are not to vanish without a word."""
        for group_id in sorted(self._seen.keys() - self.rows.keys()):
            self.rows[group_id] = row = Row(group_id)
            lost = f"how group {group_id} began is in no file, and in no checkpoint that counts"
            self.fail(row, self.damage or CorruptLogError(self.files.path_of(self.files.numbers[0]), 0, lost))

    def seen(self, group_id: GroupId) -> Tombstone:
        """The newest life of a group that anything readable names, and its highest number, also behind damage; zeros: none does."""
        key = GroupKey(group_id, self._seen.get(group_id, 0))
        return Tombstone(key, self._numbers.get(key, NOTHING))

    def _note_number(self, key: GroupKey, replica: EntryId) -> None:
        if replica > self._numbers.get(key, NOTHING):
            self._numbers[key] = replica

    def _damage_some(self, group_ids: Collection[GroupId], file: int, offset: int, text: str) -> None:
        for group_id in group_ids:
            row = self.rows.get(group_id)
            if row is None:
                row = self.rows[group_id] = Row(group_id)
            # After damage that names no group, what a group lacks here is what it lost there.
            text_of_group = f"{text}; it held records of group {group_id}"
            self.fail(row, self._earlier(row) or CorruptLogError(self.files.path_of(file), offset, text_of_group))

    def fail(self, row: Row, error: StorageError) -> None:
        """Nothing of a group counts any more, but a tombstone; the first error stays."""
        row.fail(error)
        self._failed.add(row.group_id)

    def _earlier(self, row: Row) -> CorruptLogError | None:
        return None if row.healed else self.damage

    # -- applying -----------------------------------------------------------------------------------------------------------------

    def apply(self, body: Body) -> list[GroupId]:
        """Carry out what a batch says. Returns the groups to which it says what cannot be: they have failed.

        One loop with short cuts, because all that anybody ever writes comes through here, and at a start all of it again at once.

        Raises:
            BadBytesError: it does not consist of segments; what comes before the first that is none was carried out.
        """
        groups, file, batch, data, offset, end, shift = body
        failed: list[GroupId] = []
        find_row, unpack, quick_end = self.rows.get, ENTRIES_SEGMENT.unpack_from, end - ENTRIES_SEGMENT.size
        has_entries = self.files.groups_put_in(file)
        self.encoded_rows.forget(groups)
        while offset < end:
            self._segments_read += 1
            if offset <= quick_end:
                # Entries that follow the last one of their group, in its term: most segments are just that.
                kind, size, group_id, incarnation, first, last, first_term, last_term, flags = unpack(data, offset)
                row = find_row(group_id) if kind == _ENTRIES and first_term == last_term and not flags else None
                start, following = offset + ENTRIES_SEGMENT.size, offset + SEGMENT_HEADER_SIZE + size
                if (
                    row is not None
                    and row.key is not None
                    and row.key[1] == incarnation
                    and start < following <= end
                    and row.append(first, last, last_term, file, shift + start, following - start)
                ):
                    has_entries.add(group_id)
                    offset = following
                    continue
            kind, key, start, offset = decode_segment_header(data, offset, end)
            if key.group_id not in groups and key != OF_NO_GROUP:
                raise BadBytesError(f"a segment of group {key.group_id}, which the batch does not name")
            try:
                self._apply_segment(kind, key, start, offset, body)
            except BadBytesError as error:
                self._damage_some((key.group_id,), file, batch, str(error))
                failed.append(key.group_id)
        return failed

    def _apply_entries(self, key: GroupKey, start: int, end: int, body: Body) -> None:
        row = self._living(key)
        if row is None:
            return
        header = decode_entries_header(body.data, start, end)
        entries = () if header.is_plain else decode_entries(body.data, key, start, end, header)
        row.replace_from(header.first, header.first_term)
        if header.is_plain:
            row.extend(header.last, header.first_term)
        for entry in entries:
            row.extend(entry.index, entry.term)
            if entry.kind is EntryKind.CONFIGURATION:
                row.configure(entry.index, self.configurations.decode(entry.payload))
        offset = start + ENTRIES_HEADER_SIZE
        row.add_extent(header.first, header.last, body.file, body.shift + offset, end - offset)
        self.files.groups_put_in(body.file).add(key.group_id)

    def _apply_segment(self, kind: int, key: GroupKey, start: int, end: int, body: Body) -> None:
        if key.incarnation > self._seen.get(key.group_id, 0):
            self._seen[key.group_id] = key.incarnation
        if kind == SegmentKind.ENTRIES:
            self._apply_entries(key, start, end, body)
        elif kind == SegmentKind.CARRIED:
            self._apply_carried(key, start, end, body)
        elif kind == SegmentKind.END_OF_CHECKPOINT:
            self._apply_end(*decode_end_of_checkpoint(bytes(body.data[start:end])), body.file)
        else:
            _EFFECTS[kind](self, key, bytes(body.data[start:end]))

    def _apply_vote(self, key: GroupKey, content: bytes) -> None:
        if (row := self._living(key)) is not None:
            row.vote(decode_vote(content))

    def _apply_compacted(self, key: GroupKey, content: bytes) -> None:
        if (row := self._living(key)) is not None:
            row.compact(*decode_compacted(content))

    def _apply_installed(self, key: GroupKey, content: bytes) -> None:
        if (row := self._living(key)) is not None:
            at, configuration = decode_installed(content)
            row.install(at, self.configurations.decode(configuration))

    def _apply_at_rest(self, key: GroupKey, content: bytes) -> None:
        first, last, size, runs = decode_at_rest(content)
        if (row := self._still_living(key)) is not None:
            row.rest(first, last, size, runs)

    def _apply_number(self, key: GroupKey, content: bytes) -> None:
        replica = decode_number(content)
        self._note_number(key, replica)
        if (row := self._living(key)) is not None:
            row.learn_number(replica)

    def _apply_tombstone(self, key: GroupKey, content: bytes) -> None:
        node_id, barred = decode_member(content)
        row = self.rows.get(key.group_id)
        self._note_number(key, barred)
        if row is not None and row.failure is None and row.key == key and row.me is not None and barred < row.me.replica:
            raise BadBytesError(f"a tombstone of {key} bars numbers up to {barred}, and there was {row.me}")
        self.rows[key.group_id] = removed = Row.removed(Tombstone(key, barred), node_id)
        removed.healed = True
        self._failed.discard(key.group_id)

    def _apply_carried(self, key: GroupKey, start: int, end: int, body: Body) -> None:
        header = decode_entries_header(body.data, start, end)
        if header.first_term != header.last_term:
            raise BadBytesError("records that were carried are of several terms")
        row = self._still_living(key)
        offset, length = body.shift + start + ENTRIES_HEADER_SIZE, end - start - ENTRIES_HEADER_SIZE
        if row is not None and row.carry(header.first, header.last, header.first_term, body.file, offset, length):
            self.files.groups_put_in(body.file).add(key.group_id)

    def _apply_group(self, key: GroupKey, content: bytes) -> None:
        record = decode_group(key, content, self.configurations)
        row = self.rows.get(key.group_id)
        self._note_number(key, record.me.replica)
        if row is None:
            self.rows[key.group_id] = Row.living(record)
        elif row.failure is not None or row.record == record:
            return  # asked for twice, because the first time was cancelled
        elif row.record is not None:
            raise BadBytesError(f"group {key} was made twice")
        else:
            _check_grave(row, record)
            # The tombstone stays known as far as damage goes: what came before it does not concern this replica.
            self.rows[key.group_id] = made = Row.living(record)
            made.healed = row.healed

    def _living(self, key: GroupKey) -> Row | None:
        """The row that a segment is about; None: it is to be passed over."""
        row = self.rows.get(key[0])
        if row is None and self.skips_unknown:
            return None
        if row is not None and (row.failure is not None or (row.record is None and row.key == key)):
            return None
        if row is None or row.record is None or row.key != key:
            raise BadBytesError(f"a record of {key}, which does not exist at that point")
        return row

    def _still_living(self, key: GroupKey) -> Row | None:
        """As `_living`, for what the storage does by itself: it may come to its end when the group is gone."""
        row = self.rows.get(key[0])
        return row if row is not None and row.is_living and row.key == key else None

    # -- checkpoints --------------------------------------------------------------------------------------------------------------

    def _apply_row(self, key: GroupKey, content: bytes) -> None:
        self._rows_read += 1
        row = self.rows.get(key.group_id)
        if row is None or row.failure is not None:
            self._note_number(key, decode_member(content[:MEMBER_SIZE]).replica)
        if row is None:
            self._new_rows[key.group_id] = decode_row(key, content, self.configurations)
        elif row.failure is None and (row.key != key or encode_row_content(row, self._encoded) != content):
            # Everything before it was read, so it says what is known already; or else something was read that should not count.
            raise BadBytesError(f"the checkpoint says otherwise of {key} than what comes before it")

    def _apply_end(self, rows: int, is_whole: bool, file: int) -> None:
        self.has_checkpoint = True
        missing = rows - self._rows_read
        if missing and missing != len(self._lost):
            return  # it does not count: nobody knows which are missing
        # Else those that are missing were in damaged batches, which name them: these groups have failed, and the others can go on.
        if self.skips_unknown and not is_whole:
            # NB: some group was refused when it was written, and who knows whether for a vote. Nobody may begin with it.
            self._forget_checkpoint()
            return
        for group_id, row in self._new_rows.items():
            if self.skips_unknown or self.damage is not None:
                self.rows[group_id] = row
            else:
                self._damage_some((group_id,), file, 0, f"a checkpoint has a row of {row.key}, which was never made")
        self._forget_checkpoint()
        self.skips_unknown = False
        if is_whole and not missing:
            self.files.set_complete(file)

    def _forget_checkpoint(self) -> None:
        self._new_rows.clear()
        self._encoded.clear()


def _check_grave(removed: Row, record: GroupRecord) -> None:
    """Whether a replica may have been made where one was removed."""
    try:
        removed.recovered().is_made(record)
    except GroupExistsError as error:
        raise BadBytesError(f"group {record.key} was made although {removed.key} had been removed: {error}") from None


_ENTRIES: Final = int(SegmentKind.ENTRIES)

_EFFECTS: Final[dict[int, Callable[[Table, GroupKey, bytes], None]]] = {
    SegmentKind.VOTE: Table._apply_vote,
    SegmentKind.GROUP: Table._apply_group,
    SegmentKind.TOMBSTONE: Table._apply_tombstone,
    SegmentKind.NUMBER: Table._apply_number,
    SegmentKind.COMPACTED: Table._apply_compacted,
    SegmentKind.INSTALLED: Table._apply_installed,
    SegmentKind.AT_REST: Table._apply_at_rest,
    SegmentKind.ROW: Table._apply_row,
}
"""Of the segments that need nothing but their content."""
