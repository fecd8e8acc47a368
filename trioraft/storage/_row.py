"""A row: all that the log says of one group, but for the entries themselves.

Each kind of segment has its effect here, as one method. Recovery calls them for what it reads, the committer for what it has just
written, in the same order: so what a running node knows is always what a restart would find. What cannot be is a `BadBytesError`: the row
is worth nothing then, and whoever called knows where it was.

Of each entry in ``(terms.start, terms.last]`` the row knows its term and its place: an extent of a log file, or a file at rest in the
group's own directory. A row that comes from a checkpoint has entries without a place at first, because what had been in older files was
carried into newer ones later in the log; at the end of a recovery each has one, or the group is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import attrs

from .._errors import GroupNotFoundError, StorageError
from .._types import NOTHING, EntryId, GroupId, GroupKey, Index, Member, NodeId, Term
from ..core import Configuration, Durable, HardState, Terms
from ._batch import BadBytesError
from ._contract import EVERY_NUMBER, GroupRecord, RecoveredGroup
from ._extents import Extent, Extents


class Tombstone(NamedTuple):
    """What is left of a group that was removed. Greater is who bars more."""

    key: GroupKey
    barred: EntryId
    """Replica numbers of that incarnation up to this never come again."""


class AtRest(NamedTuple):
    """A file of entries in a group's own directory, of which those from `first` to `last` count."""

    origin: Index
    """The first entry in the file, which names it; `first` is larger once the log was cut."""
    first: Index
    last: Index
    size: int
    """Bytes of the whole file."""

    @property
    def name(self) -> str:
        return f"{self.origin}.log"


class Row:
    """What is known of one group: living, removed, or damaged."""

    __slots__ = (
        *("group_id", "key", "me", "record", "hard_state", "terms", "commit", "snapshot"),
        *("configurations", "at_rest", "failure", "healed", "_extents"),
    )

    def __init__(self, group_id: GroupId, key: GroupKey | None = None, me: Member | None = None, record: GroupRecord | None = None) -> None:
        self.group_id = group_id
        self.key = key
        """The group that lives here, or was removed; None: only damage is known of it."""
        self.me = me
        """With the newest number; of a tombstone: with the highest one that is barred."""
        self.record = record
        """None: the group was removed, or is not known."""
        self.hard_state = HardState()
        self.terms = Terms()
        self.commit: Index = 0
        self.snapshot: EntryId = NOTHING
        self.configurations: tuple[tuple[Index, Configuration], ...] = ()
        """The one at ``terms.start``, then those in the log behind it. None: the one of `record`, at index 0."""
        self.at_rest: tuple[AtRest, ...] = ()
        """Rising; no two share an entry that counts, nor does an extent."""
        self.failure: StorageError | None = None
        self.healed = False
        """Its tombstone, or that of the one before it, came after the last damage that named no group."""
        self._extents: Extents | None = None

    @classmethod
    def living(cls, record: GroupRecord) -> Row:
        return cls(record.key.group_id, record.key, record.me, record)

    @classmethod
    def removed(cls, tombstone: Tombstone, node_id: NodeId) -> Row:
        return cls(tombstone.key.group_id, tombstone.key, Member(node_id, tombstone.barred))

    @property
    def is_living(self) -> bool:
        return self.record is not None and self.failure is None

    @property
    def tombstone(self) -> Tombstone | None:
        return Tombstone(self.key, self._number) if self.record is None and self.key is not None else None

    def recovered(self) -> RecoveredGroup:
        """What the floors above see of it."""
        if self.failure is not None:
            return RecoveredGroup(self.group_id, self.record, failure=self.failure)
        if self.record is None:
            return RecoveredGroup(self.group_id, tombstone=self.key, barred=self._number)
        return RecoveredGroup(self.group_id, self.record, self.durable())

    def durable(self) -> Durable:
        return Durable(
            hard_state=self.hard_state,
            entries=(),
            terms=self.terms.copy(),
            log_bytes=self._bytes(),
            snapshot=self.snapshot,
            commit=self.commit,
            configurations=self.configurations,
        )

    def fail(self, failure: StorageError) -> None:
        """Nothing counts any more, but a tombstone. The first failure stays, and so does what is known of who it was."""
        if self.failure is None:
            self.failure = failure

    def grave(self, key: GroupKey, barred: EntryId | None, seen: Tombstone) -> Tombstone:
        """What the tombstone says, where `key` is to be removed. It bars whatever a damaged group may have been, as far as it is known.

        Args:
            barred: what the caller wants barred, if anything.
            seen: the newest life that anything names which can be read, also behind damage, and what was written for it.

        Raises:
            GroupNotFoundError: the group that lives here is another one; or `barred` is of an earlier one than the newest that was seen.
        """
        is_damaged = self.failure is not None
        own = 0 if self.key is None else self.key.incarnation
        if self.record is not None and (key.incarnation < own or (key.incarnation > own and not is_damaged)):
            raise GroupNotFoundError(f"group {key} is not here; {self.key} is")
        newest = max(own, seen.key.incarnation) if is_damaged else 0
        if key.incarnation < newest:
            if barred is not None:
                # NB: a number of one life says nothing of a later one, which may have promised something under a higher number.
                raise GroupNotFoundError(f"group {key} is not here; there are records of incarnation {newest}: a number must be of that")
            key = GroupKey(self.group_id, newest)
        if barred is None:
            barred = EVERY_NUMBER if is_damaged else NOTHING
        known = self._number if self.key == key else NOTHING
        return Tombstone(key, max(barred, known, seen.barred if seen.key == key else NOTHING))

    def bars(self, key: GroupKey, barred: EntryId | None) -> bool:
        """Whether it is a tombstone already, which says no less than this."""
        return self.failure is None and self.tombstone is not None and self.tombstone >= Tombstone(key, barred or NOTHING)

    # -- effects ------------------------------------------------------------------------------------------------------------------

    def vote(self, hard_state: HardState) -> None:
        before = self.hard_state
        if hard_state.term < before.term:
            raise BadBytesError(f"the term falls from {before.term} to {hard_state.term}")
        if hard_state.term == before.term and before.vote is not None and hard_state.vote != before.vote:
            raise BadBytesError(f"a second vote in term {before.term}")
        self.hard_state = hard_state

    def learn_number(self, replica: EntryId) -> None:
        """The replica is called by a new number from here on."""
        if self.me is None or self.record is None or replica <= self.me.replica:
            raise BadBytesError(f"the replica number of {self.me} becomes {replica}: it only rises")
        self.me = Member(self.me.node_id, replica)
        self.record = attrs.evolve(self.record, me=self.me, awaits_number=False)

    def append(self, first: Index, last: Index, term: Term, file: int, offset: int, length: int) -> bool:
        """The log goes on with entries of the same term as the last one. Does nothing, and returns False, if it is more than that."""
        terms, extents, before = self.terms, self._extents, first - 1
        if extents is None or before != terms.last_index or last < first or terms.at(before) != term or self.failure is not None:
            return False
        terms.extend(last, term)
        extents.append(first, last, file, offset, length)
        return True

    def replace_from(self, first: Index, term: Term) -> None:
        """Entries from `first` on are coming: what is there at and above it is gone (paper 5.3)."""
        terms = self.terms
        last = terms.last_index
        if first > last + 1:
            raise BadBytesError(f"entry {first}@{term} follows {terms.last}: something is missing")
        if first <= terms.start.index:
            raise BadBytesError(f"entry {first}@{term} in a log that begins behind {terms.start}")
        if term < (before := terms.at(first - 1)):
            raise BadBytesError(f"entry {first}@{term} follows {first - 1}@{before}: terms never fall")
        if first <= last:
            self._truncate(first - 1)

    def extend(self, last: Index, term: Term) -> None:
        """The log goes on up to `last`, with entries of `term`."""
        if term < self.terms.last.term or last <= self.terms.last_index:
            raise BadBytesError(f"entry {last}@{term} follows {self.terms.last}: terms never fall, and indexes rise")
        self.terms.extend(last, term)

    def add_extent(self, first: Index, last: Index, file: int, offset: int, length: int) -> None:
        """What the log was just extended by is there."""
        if self._extents is None:
            self._extents = Extents()
        self._extents.append(first, last, file, offset, length)

    def configure(self, index: Index, configuration: Configuration) -> None:
        """The last entry changes who is in the group."""
        self.configurations = (*self._all_configurations(), (index, configuration))

    def compact(self, snapshot: EntryId, start: EntryId, commit: Index) -> None:
        """The log was cut at `start`, behind which nothing is lost; what was cut off earlier stays cut off."""
        if start.index > self.terms.start.index and self.terms.at(start.index) != start.term:
            raise BadBytesError(f"the log from {self.terms.start} to {self.terms.last} was cut at {start}, which it does not have")
        if start.index > snapshot.index:
            raise BadBytesError(f"the log was cut at {start}, beyond the snapshot {snapshot}")
        self._cut(start.index)
        self.snapshot = max(self.snapshot, snapshot, key=_index)
        self.commit = max(self.commit, commit)

    def install(self, at: EntryId, configuration: Configuration) -> None:
        """The log begins behind a snapshot; it goes on with what it has behind it, or empty (paper 7, figure 13)."""
        if at.index < self.terms.start.index:
            return  # older than what was cut off
        if self.terms.at(at.index) == at.term:
            self._cut(at.index)
        else:
            self.terms.reset(at)
            self._extents, self.at_rest, self.configurations = None, (), ()
        self.configurations = ((at.index, configuration), *(each for each in self.configurations if each[0] > at.index))
        self.snapshot = max(self.snapshot, at, key=_index)
        self.commit = max(self.commit, at.index)

    def carry(self, first: Index, last: Index, term: Term, file: int, offset: int, length: int) -> bool:
        """Entries are in `file` now: as far as the log has them at all, with that term. Returns whether it has any."""
        first, last = self._present(first, last, term)
        if first > last:
            return False
        self._vacate(first, last)
        if self._extents is None:
            self._extents = Extents()
        self._extents.insert(Extent(first, last, file, offset, length))
        return True

    def rest(self, origin: Index, last: Index, size: int, runs: Sequence[tuple[Index, Term]]) -> None:
        """Entries are in a file of the group's own now: as far as the log has them at all, with these terms."""
        ends = [first - 1 for first, _ in runs[1:]] + [last]
        present = [self._present(first, end, term) for (first, term), end in zip(runs, ends, strict=True)]
        # By log matching, what is there is one piece: what was cut off before it, and truncated behind it, is not.
        present = [each for each in present if each[0] <= each[1]]
        if present:
            first, last = present[0][0], present[-1][1]
            self._vacate(first, last)
            self.at_rest = tuple(sorted((*self.at_rest, AtRest(origin, first, last, size)), key=_first))

    def still_has(self, at: EntryId) -> bool:
        """Whether an entry that was read is what the log holds. What was cut off since is what it held; what was truncated is not."""
        return at.index < self.terms.start_index or self.terms.at(at.index) == at.term

    # -- places -------------------------------------------------------------------------------------------------------------------

    def is_in(self, file: int) -> bool:
        """Whether any entry is in that log file."""
        return self._extents is not None and self._extents.is_in(file)

    def extents_in(self, file: int) -> list[Extent]:
        """The extents in one log file, in the order of their entries."""
        return [] if self._extents is None else self._extents.in_file(file)

    def places(self, first: Index) -> Iterator[Extent | AtRest]:
        """Where the entries from `first` on are, in order. Not to be used beyond the next await: the row changes."""
        extents = self._extents
        place = 0 if extents is None else extents.place_of(first)
        resting = [each for each in self.at_rest if each.last >= first]
        while extents is not None and place < len(extents):
            extent = extents[place]
            while resting and resting[0].first < extent.first:
                yield resting.pop(0)
            yield extent
            place += 1
        yield from resting

    def find_loss(self) -> str | None:
        """What is missing of a group of which all was read, as text; None: it is whole."""
        terms = self.terms
        if terms.last.term > self.hard_state.term:
            return f"the log of group {self.group_id} ends with {terms.last}, and its term is {self.hard_state.term}: a vote was lost"
        if self.snapshot.index < terms.start.index:
            return f"the log of group {self.group_id} begins behind {terms.start}, and its snapshot reaches up to {self.snapshot}"
        if (gap := self.find_gap()) is not None:
            return f"entries {gap[0]} to {gap[1]} of group {self.group_id} are in no file"
        return None

    def find_gap(self) -> tuple[Index, Index] | None:
        """The first entries, first and last of them, that have no place. None: each has one."""
        start, last = self.terms.start.index, self.terms.last_index
        count = sum(each.last - each.first + 1 for each in self.at_rest)
        if self._extents is not None:
            count += self._extents.count()
        # No two places share an entry, and none has one that the log does not have: so they can be counted.
        if count == last - start:
            return None
        following = start + 1
        for place in self.places(following):
            if place.first > following:
                return following, place.first - 1
            following = place.last + 1
        return following, last

    def _bytes(self) -> int:
        """What the entries take, roughly: of a file at rest that was cut, a part as large as the part of its entries."""
        rest = sum(each.size * (each.last - each.first + 1) // (each.last - each.origin + 1) for each in self.at_rest)
        return rest + (0 if self._extents is None else self._extents.bytes())

    @property
    def _number(self) -> EntryId:
        return NOTHING if self.me is None else self.me.replica

    # -- parts of effects -----------------------------------------------------------------------------------------------------------

    def _present(self, first: Index, last: Index, term: Term) -> tuple[Index, Index]:
        """Which of these entries the log has, with that term."""
        terms = self.terms
        low, high = max(first, terms.start.index + 1), min(last, terms.last_index)
        # Terms never fall: those of one term are one piece.
        return max(low, terms.find(high, term - 1) + 1), min(high, terms.find(high, term))

    def _truncate(self, last: Index) -> None:
        self.terms.truncate(last)
        if self._extents is not None:
            self._extents.truncate(last)
        if self.at_rest and self.at_rest[-1].last > last:
            self.at_rest = tuple(each._replace(last=min(each.last, last)) for each in self.at_rest if each.first <= last)
        if self.configurations and self.configurations[-1][0] > last:
            self.configurations = tuple(each for each in self.configurations if each[0] <= last)

    def _cut(self, index: Index) -> None:
        if index <= self.terms.start.index:
            return
        self.terms.compact(index)
        if self._extents is not None:
            self._extents.compact(index)
        self.at_rest = tuple(each._replace(first=max(each.first, index + 1)) for each in self.at_rest if each.last > index)
        before = [each for each in self.configurations if each[0] <= index]
        self.configurations = self.configurations[max(0, len(before) - 1) :]

    def _vacate(self, first: Index, last: Index) -> None:
        """These entries have another place from now on."""
        if self._extents is not None:
            self._extents.vacate(first, last)
        self.at_rest = tuple(_without(self.at_rest, first, last))

    def _all_configurations(self) -> tuple[tuple[Index, Configuration], ...]:
        if self.configurations or self.record is None:
            return self.configurations
        return ((0, self.record.configuration),)


def _without(files: Iterable[AtRest], first: Index, last: Index) -> Iterator[AtRest]:
    for each in files:
        if each.last < first or each.first > last:
            yield each
            continue
        if each.first < first:
            yield each._replace(last=first - 1)
        if each.last > last:
            yield each._replace(first=last + 1)


def _index(at: EntryId) -> Index:
    return at.index


def _first(file: AtRest) -> Index:
    return file.first
