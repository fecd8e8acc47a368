"""How much may be on its way to one follower: a bound in messages and one in bytes."""

from __future__ import annotations

import attrs

from .._errors import InvariantError
from .._types import Index


@attrs.define
class Window:
    """The appends in flight to one follower, oldest first.

    Full when it holds `count_max` appends or at least `bytes_max` bytes (0: bytes do not count). The last append may overshoot
    the bytes: otherwise an append larger than the whole window could never be sent. `bytes` is always the sum of what is in it.
    """

    count_max: int
    bytes_max: int = 0
    bytes: int = attrs.field(default=0, init=False)
    """Payload in flight."""
    # NB: a list, not a deque: an empty deque costs 0.7 KiB, and every idle group of the node holds a window for each follower.
    _sent: list[tuple[Index, int]] = attrs.field(factory=list, init=False)

    @property
    def count(self) -> int:
        """Appends in flight."""
        return len(self._sent)

    @property
    def is_full(self) -> bool:
        return len(self._sent) >= self.count_max or (0 < self.bytes_max <= self.bytes)

    def add(self, last_index: Index, size: int) -> None:
        """Count an append up to `last_index` as in flight.

        Raises:
            InvariantError: the window is full, or the append does not lie behind the one before.
        """
        if self.is_full:
            raise InvariantError(f"an append up to {last_index} into a full window ({self.count} appends, {self.bytes} bytes)")
        if self._sent and last_index <= self._sent[-1][0]:
            raise InvariantError(f"an append up to {last_index} after one up to {self._sent[-1][0]}")
        self._sent.append((last_index, size))
        self.bytes += size

    def free_to(self, index: Index) -> None:
        """Forget every append that ends at or below `index`: it has arrived."""
        freed = 0
        for last_index, size in self._sent:
            if last_index > index:
                break
            self.bytes -= size
            freed += 1
        if freed:
            del self._sent[:freed]

    def reset(self) -> None:
        """Forget everything: what was in flight counts as lost."""
        if self._sent:
            self._sent.clear()
            self.bytes = 0
