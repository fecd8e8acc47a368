"""Term and vote of one replica, and whether its disk has them.

Term and vote are one record (paper 5.2): a vote means nothing without its term. No message tells anybody of a term that is not
durable here, and no vote, not even a candidate's for itself, counts before it is.
"""

from __future__ import annotations

from .._errors import InvariantError
from .._types import NodeId, Term
from ._ready import HardState


class Ballot:
    """Who this replica voted for, and in which term."""

    __slots__ = ("_is_taken", "_sequence", "is_durable", "term", "vote")

    def __init__(self, durable: HardState) -> None:
        self.term: Term = durable.term
        self.vote: NodeId | None = durable.vote
        self.is_durable = True
        # Whether the present state has been handed out to be written, and under which number.
        self._is_taken = True
        self._sequence = 0

    def enter(self, term: Term, vote: NodeId | None = None) -> None:
        """Go on to a higher term."""
        if term <= self.term:
            raise InvariantError(f"term {term} does not follow term {self.term}")
        self.term, self.vote = term, vote
        self._changed()

    def cast(self, vote: NodeId) -> None:
        """Vote in the present term; voting for the same node again changes nothing.

        Raises:
            InvariantError: this replica has voted for somebody else.
        """
        if self.vote == vote:
            return
        if self.vote is not None:
            raise InvariantError(f"a second vote in term {self.term}: for node {self.vote}, then for node {vote}")
        self.vote = vote
        self._changed()

    def _changed(self) -> None:
        self.is_durable = self._is_taken = False

    @property
    def has_unwritten(self) -> bool:
        return not self._is_taken

    def take_unwritten(self, sequence: int) -> HardState | None:
        """Hand out what must be written, as part of write number `sequence`."""
        if self._is_taken:
            return None
        self._is_taken = True
        self._sequence = sequence
        return HardState(self.term, self.vote)

    def persisted(self, sequence: int) -> None:
        """All writes up to `sequence` are durable."""
        if self._is_taken and self._sequence <= sequence:
            self.is_durable = True
