"""The callers whose proposals are in the log and not applied yet.

An index alone does not name an entry: a leader that was deposed and elected again may have put a second entry at the same index while the
first one may still win elsewhere. So callers wait for (index, term), and all that wait at an index are answered when it is applied.

Terms never fall along a log. So when an entry of a newer term is applied, no entry of an older one can come behind it: whoever waits for
one there is told at once, for the log may not grow to that index for a long time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from .._errors import OutcomeUnknownError, ProposalDroppedError
from .._types import EntryId, Index, Term
from ._waiter import Token

_Link: TypeAlias = "tuple[Term, Token, _Link | None]"


class Proposals:
    """Tokens by log position."""

    def __init__(self) -> None:
        self._waiting: dict[Index, _Link] = {}
        self._term: Term = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, at: EntryId, token: Token) -> None:
        """`token` waits for the entry `at`; another term's entry at that index may have its own."""
        self._waiting[at.index] = (at.term, token, self._waiting.get(at.index))

    def answer(self, index: Index, term: Term, result: Any, error: Exception | None = None) -> None:
        """The entry index@term was applied, so every other entry at `index` never will be, nor one of an older term behind it."""
        if term > self._term:
            self.begin_term(term)
        link = self._waiting.pop(index, None)
        while link is not None:
            entry_term, token, link = link
            if entry_term != term:
                token.fail(_dropped(index, entry_term))
            elif error is not None:
                token.fail(error)
            else:
                token.succeed(result)

    def begin_term(self, term: Term) -> None:
        """Everything that will be applied from now on is of `term` or a newer one."""
        self._term = term
        waiting, self._waiting = self._waiting, {}
        for index, link in waiting.items():
            self._keep(index, link, term)

    def _keep(self, index: Index, link: _Link | None, term: Term) -> None:
        while link is not None:
            entry_term, token, link = link
            if entry_term < term:
                token.fail(_dropped(index, entry_term))
            else:
                self.add(EntryId(entry_term, index), token)

    def abandon_to(self, index: Index, reason: str) -> None:
        """Entries up to `index` will not be applied one by one: whoever waits for them learns that the outcome is unknown."""
        self._abandon([waiting for waiting in self._waiting if waiting <= index], reason)

    def abandon_from(self, index: Index, reason: str) -> None:
        """Nobody will tell what becomes of entries from `index` on: whoever waits for them learns that the outcome is unknown."""
        self._abandon([waiting for waiting in self._waiting if waiting >= index], reason)

    def _abandon(self, indexes: Iterable[Index], reason: str) -> None:
        for index in indexes:
            link: _Link | None = self._waiting.pop(index)
            while link is not None:
                term, token, link = link
                token.fail(OutcomeUnknownError(reason, index, term))


def _dropped(index: Index, term: Term) -> ProposalDroppedError:
    return ProposalDroppedError(f"another leader's entries were committed in the place of {EntryId(term, index)}: propose again")
