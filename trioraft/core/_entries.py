"""What a piece of a log says by itself: whether it is one at all, its terms, and its configurations."""

from __future__ import annotations

from collections.abc import Sequence

from .._errors import InvariantError
from .._types import NEVER, NOTHING, EntryId, Index, Term
from ._configuration import Configuration
from ._configuration_bytes import BadConfigurationError, decode_configuration
from ._entry import Entry, EntryKind
from ._terms import Terms

CONFIGURATION = EntryKind.CONFIGURATION


def is_well_formed(previous: EntryId, entries: Sequence[Entry], term: Term) -> bool:
    """Whether entries can follow `previous` in the log of a leader of `term`: no hole, no falling term, none from the future."""
    if previous.index < 0 or (previous.index == 0) != (previous.term == 0):
        return False
    index, newest = previous.index, previous.term
    for entry in entries:
        index += 1
        if entry.index != index or entry.term < newest:
            return False
        newest = entry.term
    # The first entry follows nothing and still has a term of at least 1.
    return newest <= term and (not entries or entries[0].term > 0)


def terms_of(entries: Sequence[Entry]) -> Terms:
    """The terms of a log of just these entries.

    Raises:
        InvariantError: they are no log from the first entry on.
    """
    if not is_well_formed(NOTHING, entries, NEVER):
        raise InvariantError(f"a log from disk has a hole or falling terms: {', '.join(map(str, entries[:20]))}")
    terms = Terms()
    for entry in entries:
        terms.extend(entry.index, entry.term)
    return terms


def configurations_in(entries: Sequence[Entry]) -> list[tuple[Index, Configuration]]:
    """The configurations among these entries, each with its index.

    Raises:
        InvariantError: one cannot be read.
    """
    return [(entry.index, configuration_in(entry)) for entry in entries if entry.kind is CONFIGURATION]


def configuration_in(entry: Entry) -> Configuration:
    """The configuration that an entry of that kind holds.

    Raises:
        InvariantError: it cannot be read.
    """
    try:
        configuration = decode_configuration(entry.payload)
    except BadConfigurationError as error:
        raise InvariantError(f"entry {entry}: {error}") from None
    if configuration.index != entry.index:
        raise InvariantError(f"entry {entry}: a configuration that says it is that of index {configuration.index}")
    return configuration
