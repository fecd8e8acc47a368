"""Which configuration is in force at which index of a log.

A configuration is in force from the moment its entry is in the log, committed or not (dissertation 4.1); so it goes when its entry
is truncated, and the one before is in force again. What was in force where the log begins is kept, whatever is cut off.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise
from operator import itemgetter

from .._errors import InvariantError
from .._types import Index
from ._configuration import Configuration

_index_of = itemgetter(0)


class Configurations:
    """Configurations by the index of their entry; the first is the one at the beginning of the log."""

    __slots__ = ("_history", "newest", "newest_index")

    def __init__(self, history: Iterable[tuple[Index, Configuration]]) -> None:
        """
        Raises:
            InvariantError: the indexes do not rise.
        """
        self._history = list(history)
        indexes = [index for index, _ in self._history]
        if any(index <= before for before, index in pairwise(indexes)):
            raise InvariantError(f"the configurations of a log are out of order: {indexes}")
        self._look()

    def _look(self) -> None:
        # NB: looked at for each message, so it is no property.
        self.newest_index, self.newest = self._history[-1]

    def at(self, index: Index) -> Configuration:
        """The one in force at `index`, which is not before the beginning of the log."""
        return self._history[max(self._find(index) - 1, 0)][1]

    def since(self, index: Index) -> list[Configuration]:
        """The one in force at `index`, and all that follow it."""
        return [configuration for _, configuration in self._history[max(self._find(index) - 1, 0) :]]

    def append(self, index: Index, configuration: Configuration) -> None:
        self._history.append((index, configuration))
        self._look()

    def truncate(self, last_index: Index) -> None:
        """Entries above `last_index` are gone."""
        if self.newest_index > last_index:
            del self._history[max(self._find(last_index), 1) :]
            self._look()

    def compact(self, start: Index) -> None:
        """Entries up to `start` are cut off."""
        del self._history[: max(self._find(start) - 1, 0)]

    def reset(self, start: Index, configuration: Configuration) -> None:
        """The log begins anew behind `start`."""
        self._history = [(start, configuration)]
        self._look()

    def _find(self, index: Index) -> int:
        return bisect_right(self._history, index, key=_index_of)
