"""What a storage should hold: a plain model of one group.

After a power cut a storage may have any state from the last confirmed write on, as a whole. What a compaction cut off may be there
again; what an install replaced may not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from .._types import NOTHING, EntryId, GroupKey, Index, Member, Term
from ..core import (
    Compaction,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    InstallSnapshot,
    decode_configuration,
    encode_configuration,
)
from ..storage import GroupRecord, MultiRaftStorage
from ._storage_parts import Found, HeldGroup, find, hold, holds, same


@attrs.frozen(kw_only=True)
class LogModel:
    """One group after some writes."""

    record: GroupRecord
    """With the newest replica number."""
    hard_state: HardState = HardState()
    base: EntryId = NOTHING
    """The newest snapshot that was installed."""
    log: tuple[Entry, ...] = ()
    """Everything behind `base`, cut off since or not."""
    cuts: tuple[tuple[EntryId, EntryId], ...] = ((NOTHING, NOTHING),)
    """Where the log begins and the newest snapshot, ever since `base`: the last is the present one."""
    commit: Index = 0
    configurations: tuple[tuple[Index, Configuration], ...] = ()
    """That at `base`, and those of the entries behind it."""

    @property
    def last(self) -> EntryId:
        return self.log[-1].id if self.log else self.base

    @property
    def floor(self) -> Index:
        """What is at or below this is committed: nobody replaces it."""
        return max(self.commit, self.start.index, self.snapshot.index)

    @property
    def start(self) -> EntryId:
        return self.cuts[-1][0]

    @property
    def snapshot(self) -> EntryId:
        return self.cuts[-1][1]

    def id_at(self, index: Index) -> EntryId:
        """Of an entry from `base` up to the last."""
        return self.base if index == self.base.index else self.log[index - self.base.index - 1].id

    def configuration_at(self, index: Index) -> Configuration:
        known = [configuration for at, configuration in self.configurations if at <= index]
        return known[-1] if known else self.record.configuration

    def behind(self, index: Index) -> tuple[Entry, ...]:
        return self.log[index - self.base.index :]

    def written(self, hard_state: HardState | None, new: Sequence[Entry], install: InstallSnapshot | None, me: Member | None) -> LogModel:
        model = self if install is None else self._installed(install)
        if me is not None:
            model = attrs.evolve(model, record=attrs.evolve(model.record, me=me, awaits_number=False))
        if hard_state is not None:
            model = attrs.evolve(model, hard_state=hard_state)
        if not new:
            return model
        kept = tuple(item for item in model.configurations if item[0] < new[0].index)
        changed = tuple((each.index, decode_configuration(each.payload)) for each in new if each.kind is EntryKind.CONFIGURATION)
        log = (*model.log[: new[0].index - model.base.index - 1], *new)
        return attrs.evolve(model, log=log, configurations=kept + changed)

    def _installed(self, install: InstallSnapshot) -> LogModel:
        at = install.at
        matches = self.base.index <= at.index <= self.last.index and self.id_at(at.index) == at
        behind = tuple(item for item in self.configurations if item[0] > at.index) if matches else ()
        return attrs.evolve(
            self,
            base=at,
            log=self.behind(at.index) if matches else (),
            cuts=((at, at),),
            commit=max(self.commit, at.index),
            configurations=((at.index, install.configuration), *behind),
        )

    def compacted(self, compaction: Compaction) -> LogModel:
        cut = (max(self.start, compaction.start, key=_index), max(self.snapshot, compaction.snapshot, key=_index))
        return attrs.evolve(self, cuts=(*self.cuts, cut), commit=max(self.commit, compaction.commit))

    def differences(self, found: Found) -> Iterator[str]:
        """In what a start's finding is not this."""
        if found.record != self.record:
            yield f"the record is {found.record} instead of {self.record}"
        if found.hard_state != self.hard_state:
            yield f"{found.hard_state} instead of {self.hard_state}"
        if (found.start, found.snapshot) not in self.cuts:
            yield f"the log begins behind {found.start}, the snapshot is {found.snapshot}; possible are {list(map(_pair, self.cuts))}"
            return
        if found.commit > self.commit:
            yield f"commit {found.commit}, known was {self.commit}"
        expected = self.behind(found.start.index)
        if found.log != tuple((each, each.record) for each in expected):
            yield f"the log is {found.ids} instead of {[str(each) for each in expected]}"
            return
        indexes = range(found.start.index, self.last.index + 1)
        # As bytes: the index at which each came in force is no part of their equality.
        if [*map(encode_configuration, found.configurations)] != [encode_configuration(self.configuration_at(index)) for index in indexes]:
            yield "the configurations are others"


def _index(at: EntryId) -> Index:
    return at.index


def _pair(cut: tuple[EntryId, EntryId]) -> str:
    return f"{cut[0]} with {cut[1]}"


@attrs.define(eq=False)
class Leader:
    """The log of a term's leader, as far as it matters: an index and a term name an entry and all before it (paper 5.3)."""

    term: Term
    after: Index
    """Behind this, all entries are of its own term."""
    known: dict[Index, EntryId] = attrs.Factory(dict)
    """Those at and before it, as far as anybody will ask."""

    def id_at(self, index: Index) -> EntryId | None:
        return EntryId(self.term, index) if index > self.after else self.known.get(index)

    def matched(self, model: LogModel) -> Index | None:
        """Up to where a log equals the leader's; None: it has committed what the leader does not have, so that one never led."""
        index = model.floor
        if self.id_at(index) != model.id_at(index):
            return None
        while index < model.last.index and self.id_at(index + 1) == model.id_at(index + 1):
            index += 1
        return index


@attrs.define(eq=False)
class GroupHistory:
    """All states of one group so far, in several processes: from its beginning on this node until it is removed."""

    born: GroupRecord
    states: list[LogModel] = attrs.field(default=attrs.Factory(lambda self: [LogModel(record=self.born)], takes_self=True))
    sequences: list[int] = attrs.Factory(lambda: [0])
    """The number of the write that led to each state; 0: none, nobody is told."""
    exists: tuple[bool, ...] = (False,)
    """It is there or not; both, while it is made or removed."""
    tombstone: GroupKey | None = None
    """What is found if it is not there."""
    barred: EntryId = NOTHING
    life: int = 1
    """Counts those on this node of the same key. Each gets entries of its own, so that none is taken for another's."""
    leaders: dict[Term, Leader] = attrs.Factory(dict)

    @property
    def key(self) -> GroupKey:
        return self.born.key

    @property
    def model(self) -> LogModel:
        return self.states[-1]

    def confirmed_states(self, group: HeldGroup | None) -> list[LogModel]:
        """Those that a start may find: from the last that was confirmed on."""
        confirmed = 0 if group is None else group.listener.confirmed
        known = [number for number, sequence in enumerate(self.sequences) if 0 < sequence <= confirmed]
        return self.states[known[-1] if known else 0 :]

    def settle(self, model: LogModel) -> None:
        """A start has found this: there is no other history any more."""
        self.states, self.sequences = [model], [0]

    def write(
        self,
        group: HeldGroup,
        *new: Entry,
        state: HardState | None = None,
        install: InstallSnapshot | None = None,
        me: Member | None = None,
    ) -> None:
        self.states.append(self.model.written(state, new, install, me))
        self.sequences.append(group.write(*new, state=state, install=install, me=me))

    def compact(self, group: HeldGroup, compaction: Compaction) -> None:
        self.states.append(self.model.compacted(compaction))
        self.sequences.append(0)
        group.log.compact(compaction)


@attrs.frozen
class Expectation:
    """What a start may find of one group at some moment."""

    key: GroupKey
    exists: tuple[bool, ...]
    tombstone: GroupKey | None
    barred: EntryId
    states: list[LogModel]

    async def check(self, storage: MultiRaftStorage, where: str) -> LogModel | None:
        """Compare with what this start has found, and return the state that it is; None: the group is not there."""
        recovered = storage.recovered.get(self.key.group_id)
        if recovered is None or (recovered.record is None and recovered.failure is None):
            holds(False in self.exists, f"{self.key} is gone, {where}")
            same(None if recovered is None else recovered.tombstone, self.tombstone, f"the tombstone of {self.key}, {where}")
            same(NOTHING if recovered is None else recovered.barred, self.barred, f"the numbers that are barred of {self.key}, {where}")
            return None
        found = await find(storage, self.key)
        holds(True in self.exists, f"{self.key} is there, {where}")
        for state in self.states:
            if not list(state.differences(found)):
                await self._check_snapshot(storage, found.snapshot, where)
                cut = state.cuts.index((found.start, found.snapshot))
                return attrs.evolve(state, cuts=state.cuts[: cut + 1])
        wrong = [f"({'; '.join(state.differences(found))})" for state in self.states]
        raise AssertionError(f"{self.key} is in a state that it never had or that was overtaken, {where}: {' and '.join(wrong)}")

    async def _check_snapshot(self, storage: MultiRaftStorage, at: EntryId, where: str) -> None:
        if at != NOTHING:
            data = await hold(storage, self.key).load_snapshot(at)
            same(data, snapshot_data(self.key, at), f"the snapshot {at} of {self.key}, {where}")


def expect(history: GroupHistory, group: HeldGroup | None) -> Expectation:
    return Expectation(history.key, history.exists, history.tombstone, history.barred, history.confirmed_states(group))


def snapshot_data(key: GroupKey, at: EntryId) -> bytes:
    return f"{key} {at} ".encode() * (at.index % 90 + 1)
