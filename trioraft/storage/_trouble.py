"""What failed in the background, and when to try it again."""

from __future__ import annotations

import math

import attrs
import trio

from .._errors import RaftError

RETRY_SECONDS_MIN, RETRY_SECONDS_MAX = 1.0, 60.0


@attrs.define
class Trouble:
    """What could not be done when it was last tried, and when to try again: less and less often."""

    error: RaftError | None = None
    """The first one of the last try."""
    retry_at: float = math.inf
    _delay: float = RETRY_SECONDS_MIN

    def note(self, error: RaftError) -> None:
        if self.error is None:
            self.error = error
            self.retry_at = trio.current_time() + self._delay
            self._delay = min(2 * self._delay, RETRY_SECONDS_MAX)

    def may_try(self) -> bool:
        """Whether there was none, or its time has come; then it is forgotten until it is noted again."""
        if self.error is None:
            self._delay = RETRY_SECONDS_MIN
        elif trio.current_time() < self.retry_at:
            return False
        self.error, self.retry_at = None, math.inf
        return True
