"""What a replica finds on its disk when it starts, and the log that this makes."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from .._errors import InvariantError
from .._types import NOTHING, EntryId, Index
from ._configuration import Configuration
from ._configurations import Configurations
from ._entries import configurations_in, terms_of
from ._entry import Entry
from ._log import Log
from ._ready import HardState
from ._terms import Terms


@attrs.frozen(kw_only=True)
class Durable:
    """What a replica finds on its disk when it starts."""

    hard_state: HardState = HardState()

    entries: Sequence[Entry] = ()
    """The end of the log, as far as it is in memory; none of it need be. What is not is asked for when it is needed."""

    terms: Terms = attrs.field(default=attrs.Factory(lambda durable: terms_of(durable.entries), takes_self=True))
    """The whole log; left out if `entries` begin with the first that there ever was. Not changed by the replica."""

    log_bytes: int = attrs.field(default=0, eq=False)
    """What the log takes on the disk, roughly: entries that are not in memory count as if each took the same. 0: not known, so nothing."""

    snapshot: EntryId = NOTHING
    """The newest snapshot on the disk; 0@0: none. Never before ``terms.start``, so what was cut off is in it."""

    commit: Index = 0
    """Known to be committed: a hint, which may be too low."""

    configurations: Sequence[tuple[Index, Configuration]] = attrs.field(
        default=attrs.Factory(lambda durable: configurations_in(durable.entries), takes_self=True)
    )
    """The configuration at ``terms.start``, then those in the log behind it, each with the index of its entry. The first may be left out
    if it is the group's first one; and all, if the whole log is in `entries`."""


def open_log(first: Configuration, durable: Durable, applied: Index) -> Log:
    """Make the log of what the disk and the machine say.

    Raises:
        InvariantError: they contradict each other.
    """
    terms, snapshot = durable.terms, durable.snapshot
    if not terms.start.index <= snapshot.index <= terms.last_index:
        raise InvariantError(f"the newest snapshot on the disk is {snapshot}, but the log goes from {terms.start} to {terms.last}")
    if terms.at(snapshot.index) != snapshot.term:
        raise InvariantError(f"the newest snapshot on the disk is {snapshot}, but the log has term {terms.at(snapshot.index)} there")
    history = list(durable.configurations)
    if not history or history[0][0] > terms.start.index:
        history.insert(0, (terms.start.index, first))
    # What is in the machine or in a snapshot was committed, whatever the hint says.
    commit = max(durable.commit, applied, snapshot.index)
    return Log(durable.entries, terms, configurations=Configurations(history), commit=commit, size=durable.log_bytes)
