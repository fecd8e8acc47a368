"""Logs as the tables give them: by the terms of their entries."""

from __future__ import annotations

from collections.abc import Iterable

from trioraft._types import EntryId, Index, Term
from trioraft.core import Entry, EntryKind, Terms
from trioraft.core._log import Log

UNBOUNDED = 1 << 30


def entries(first: Index, terms: Iterable[Term], size: int = 1) -> list[Entry]:
    return [Entry(index, term, EntryKind.COMMAND, bytes(size)) for index, term in enumerate(terms, first)]


def terms(log: Log, first: Index = 1) -> list[Term]:
    return [log.term_at(index) for index in range(first, log.last_index + 1)]


def merge(log: Log, new: list[Entry]) -> None:
    """Append what follows the entry before, as a leader's message would."""
    if new:
        before = new[0].index - 1
        # The term before a log's beginning does not matter.
        log.merge(EntryId(log.term_at(before), before), new)


def cut(compacted_at: list[int], terms_after: list[Term], size: int = 1) -> Log:
    """Make a log that begins behind an entry, given as [index, term]."""
    index, term = compacted_at
    known = Terms(EntryId(term, index))
    for number, of in enumerate(terms_after, index + 1):
        known.extend(number, of)
    return Log(entries(index + 1, terms_after, size), known)
