"""Random things that happen to a group, carried out on its storage and on the model alike.

They are as a replica would have them: one log for each term's leader, so that an index and a term name an entry and all before it;
nothing that is committed is ever replaced; no entry before its term. A storage may count on all of that.
"""

from __future__ import annotations

import random

import attrs

from .._types import EntryId, GroupKey, Index, Member, Term
from ..core import Compaction, Configuration, Entry, HardState
from ._storage_model import GroupHistory, Leader, LogModel, snapshot_data
from ._storage_parts import HeldGroup, called, configuration_entry, entry, holds, installing, read_log, same

CONFIGURATIONS = tuple(Configuration.bootstrap(voters) for voters in ((1, 2, 3), (1, 2, 4), (1,), (1, 2, 3, 4, 5)))


async def random_step(rng: random.Random, history: GroupHistory, group: HeldGroup) -> None:
    """Do one thing that a driver could do next."""
    choice = rng.random()
    if choice < 0.6:
        write_something(rng, history, group)
    elif choice < 0.75:
        await compact_something(rng, history, group)
    elif choice < 0.85:
        await install_something(rng, history, group)
    else:
        await read_something(rng, history, group)


def write_something(rng: random.Random, history: GroupHistory, group: HeldGroup) -> None:
    """A vote, or what a leader sends: the same again, what follows, or what replaces what it does not have."""
    model = history.model
    term, vote = model.hard_state.term, model.hard_state.vote
    state = None
    if term == 0 or rng.random() < 0.3:
        state = HardState(term + rng.choice((1, 1, 2)), rng.choice((None, 1, 2)))
    elif vote is None and rng.random() < 0.3:
        state = HardState(term, 3)
    me = next_number(rng, model) if rng.random() < 0.1 else None
    if (state is not None or me is not None) and rng.random() < 0.3:
        history.write(group, state=state, me=me)
        return
    term = (state or model.hard_state).term
    while (matched := leader_of(rng, history, term).matched(model)) is None:
        term += 1
        state = HardState(term)
    low = rng.randint(max(model.floor, matched - 3), matched) + 1
    history.write(group, *sent_by(rng, history, term, low), state=state, me=me)


def next_number(rng: random.Random, model: LogModel) -> Member:
    """What a leader calls the replica after it was removed, and added again."""
    term, index = model.record.me.replica
    return called(term + 1, rng.randint(1, 9)) if rng.random() < 0.5 else called(term, index + rng.randint(1, 9))


def leader_of(rng: random.Random, history: GroupHistory, term: Term) -> Leader:
    """Who leads in a term. One that nobody has heard of is made up: its log branches off somewhere behind what is committed, and goes on
    with entries of the term before, if that had a leader whom nobody has heard of either.
    """
    leader, model = history.leaders.get(term), history.model
    if leader is not None:
        return leader
    base = rng.randint(max(model.floor, model.last.index - 4), model.last.index)
    known = {index: model.id_at(index) for index in range(model.base.index, base + 1)}
    before = term - 1
    if before > max((each.term for each in known.values()), default=0) and before not in history.leaders:
        history.leaders[before] = Leader(before, base, dict(known))
        for index in range(base + 1, base + 1 + rng.randint(0, 2)):
            known[index] = EntryId(before, index)
    history.leaders[term] = leader = Leader(term, max(known, default=0), known)
    return leader


def sent_by(rng: random.Random, history: GroupHistory, term: Term, low: Index) -> list[Entry]:
    """Some entries of a leader's log."""
    ids = [history.leaders[term].id_at(index) for index in range(low, low + rng.randint(1, 4))]
    return [the_entry(history.key, history.life, each) for each in ids if each is not None]


def the_entry(key: GroupKey, life: int, at: EntryId) -> Entry:
    """The one entry of that index and term that there can be."""
    rng = random.Random(f"{key} {life} {at}")
    if rng.random() < 0.1:
        return configuration_entry(key, at.index, at.term, attrs.evolve(rng.choice(CONFIGURATIONS), index=at.index))
    return entry(key, at.index, at.term, rng.randbytes(rng.choice((0, 20, 300, 1500))))


def matching_last(history: GroupHistory) -> Index:
    """Up to here a log may be committed: what the present leader does not have never will be."""
    model = history.model
    leader = history.leaders.get(model.hard_state.term)
    matched = model.last.index if leader is None else leader.matched(model)
    return model.floor if matched is None else matched


async def compact_something(rng: random.Random, history: GroupHistory, group: HeldGroup) -> None:
    model, last = history.model, min(stable_last(history, group), matching_last(history))
    floor = max(model.snapshot.index, model.commit)
    if last <= floor:
        return
    at = model.id_at(rng.randint(floor + 1, last))
    await save(history.key, group, at)
    start = model.id_at(rng.randint(model.start.index, at.index))
    history.compact(group, Compaction(at, start, rng.randint(at.index, last)))


async def install_something(rng: random.Random, history: GroupHistory, group: HeldGroup) -> None:
    """Over a log that holds the snapshot's last entry, or another one there, or ends before."""
    model, index = history.model, history.model.floor + rng.randint(1, 4)
    if index <= matching_last(history) and rng.random() < 0.5:
        at, state, term = model.id_at(index), None, model.hard_state.term
        leader_of(rng, history, term)
        if history.leaders[term].id_at(index) != at:
            return  # it was made up just now, and branches off before
    else:
        # A leader of whom nobody has heard; what is before the snapshot in its log will never be asked for.
        term = max([model.hard_state.term, *history.leaders]) + 1
        at, state = EntryId(term, index), HardState(term)
        history.leaders[term] = Leader(term, index - 1)
    await save(history.key, group, at)
    new = sent_by(rng, history, term, index + 1) if rng.random() < 0.3 else []
    configuration = attrs.evolve(rng.choice(CONFIGURATIONS), index=rng.randint(1, at.index))
    history.write(group, *new, state=state, install=installing(at, configuration))


async def read_something(rng: random.Random, history: GroupHistory, group: HeldGroup) -> None:
    model, stable = history.model, stable_last(history, group)
    if model.start.index < stable:
        first = rng.randint(model.start.index + 1, stable)
        last = rng.randint(first, stable)
        found = await read_log(group.log, first, last, rng.choice((1, 500, 1 << 20)))
        expected = model.behind(first - 1)[: last - first + 1]
        same(list(map(str, found)), list(map(str, expected)), f"entries {first} to {last} of {history.key}")
        holds([each.record for each in found] == [each.record for each in expected], f"other records than were written: {expected}")


def stable_last(history: GroupHistory, group: HeldGroup) -> Index:
    """Up to here, what is confirmed is what no write on its way will change."""
    states: list[LogModel] = history.confirmed_states(group)
    last, stable = min(state.last.index for state in states), max(state.start.index for state in states)
    while stable < last and len({state.id_at(stable + 1) for state in states}) == 1:
        stable += 1
    return stable


async def save(key: GroupKey, group: HeldGroup, at: EntryId) -> None:
    await group.save_snapshot(at, snapshot_data(key, at))
