"""What became of an entry whose answer was lost, as far as this replica's own log can tell."""

from __future__ import annotations

from .._errors import Fate, GroupStoppedError, OutcomeUnknownError
from .._types import EntryId, Index, Term
from ..core import Raft
from ._applier import Applier


class Fates:
    """Of the entries of one group."""

    def __init__(self, core: Raft, applier: Applier) -> None:
        self._core, self._applier = core, applier

    def unknown(
        self, reason: str, index: Index | None = None, term: Term | None = None, *, request_id: tuple[int, int] | None = None
    ) -> OutcomeUnknownError:
        """The error for a request whose answer was lost; it can find out the fate of its entry, if that is known."""
        if index is None or term is None:
            return OutcomeUnknownError(reason, index, term, request_id=request_id)

        async def fate() -> Fate:
            return await self._find(EntryId(term, index))

        return OutcomeUnknownError(reason, index, term, request_id=request_id, fate=fate)

    async def _find(self, at: EntryId) -> Fate:
        try:
            await self._applier.wait_applied(at.index)
        except GroupStoppedError:
            return "unknown"
        if at.index <= self._core.log.start.index:
            return "unknown"  # the log does not tell any more
        return "applied" if self._core.term_at(at.index) == at.term else "dropped"
