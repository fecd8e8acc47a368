"""What became of an entry whose answer was lost, as far as this replica's own log can tell."""

from __future__ import annotations

import trio

from .._errors import Fate, GroupStoppedError, NotLeaderError, OutcomeUnknownError
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
        core, applier = self._core, self._applier
        try:
            # NB: entry by entry: the log may have gone on to a newer term before `at`, and not grow to its index for a long time.
            while (applied := applier.applied_index) < at.index and core.term_at(applied) <= at.term:
                if core.is_removed and applied >= core.commit_index:
                    return "unknown"  # nobody brings the log here any more
                await applier.wait_applied(applied + 1)
        except (GroupStoppedError, NotLeaderError):
            return "unknown"
        await trio.lowlevel.checkpoint()
        if at.index <= core.log.start.index:
            return "unknown"  # the log does not tell any more
        return "applied" if at.index <= applier.applied_index and core.term_at(at.index) == at.term else "dropped"
