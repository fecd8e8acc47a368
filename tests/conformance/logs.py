"""Logs as the tables give them: by the terms of their entries."""

from __future__ import annotations

from collections.abc import Iterable

from trioraft._types import EntryId, Index, Term
from trioraft.core import Entry, EntryKind
from trioraft.core._log import Log

UNBOUNDED = 1 << 30
NO_SNAPSHOTS = "Not built yet: logs that are cut behind a snapshot."


def entries(first: Index, terms: Iterable[Term], size: int = 1) -> list[Entry]:
    return [Entry(index, term, EntryKind.COMMAND, bytes(size)) for index, term in enumerate(terms, first)]


def terms(log: Log, first: Index = 1) -> list[Term]:
    return [log.term_at(index) for index in range(first, log.last_index + 1)]


def merge(log: Log, new: list[Entry]) -> None:
    """Append what follows the entry before, as a leader's message would."""
    if new:
        before = new[0].index - 1
        log.merge(EntryId(log.term_at(before), before), new)


def uncut(compacted_at: list[int], terms_after: list[Term], *, before: Term | None = None) -> Log:
    """Fill the part that the table has cut away: nothing is cut here yet, and what follows must not care."""
    index, term = compacted_at
    filled = [term if before is None else before] * (index - 1) + [term] * (index > 0)
    return Log(entries(1, [*filled, *terms_after]))
