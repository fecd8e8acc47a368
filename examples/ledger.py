"""What the clients asked for, and what they were told: the other side of the audit.

Every write has a key of its own that is never written again, so what the replicas hold can be compared write by write. The ledger keeps
them all, about 300 bytes each.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

import attrs

VALUE_BYTES = 64
ENTRY_BYTES_MAX = 144
"""A write in the log: the record's header, the command's shape, key and value."""
ROW_BYTES_MAX = 128
"""A write in a snapshot: key, value, version and position."""


class Outcome(enum.Enum):
    """What a client knows of its write."""

    UNKNOWN = "unknown"
    """Sent, and no answer, or one that says nobody knows. It may be there or not. Also every write that is still under way."""
    ACKNOWLEDGED = "acknowledged"
    """It must be there, once, on every replica, for ever."""
    REFUSED = "refused"
    """Nothing was done, it was said: it must not be there."""


@attrs.define
class Write:
    """One request of one client."""

    group_id: int
    key: str
    outcome: Outcome = Outcome.UNKNOWN
    index: int | None = None
    """Where in the log it stands, says the answer."""

    @property
    def value(self) -> str:
        """What is written: a function of the key, so that it needs no room here."""
        return f"value of {self.key}".ljust(VALUE_BYTES, ".")


class Ledger:
    """All writes of one run."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._writes: dict[str, Write] = {}
        self.acknowledged = 0
        self.refused = 0

    def __iter__(self) -> Iterator[Write]:
        return iter(self._writes.values())

    def get(self, key: str) -> Write | None:
        """The write with that key."""
        return self._writes.get(key)

    @property
    def unknown(self) -> int:
        """Writes of which nobody was told what became of them."""
        return len(self._writes) - self.acknowledged - self.refused

    def is_ours(self, key: str) -> bool:
        """Whether a key can only come from this run."""
        return key.startswith(f"{self.run_id}-")

    def open(self, group_id: int, client: int) -> Write:
        """Note a write *before* it is sent, with a key that nobody else has or will have."""
        write = Write(group_id, f"{self.run_id}-c{client}-{len(self._writes) + 1}")
        self._writes[write.key] = write
        return write

    def acknowledge(self, write: Write, index: int) -> None:
        """The client was told that the write is there."""
        write.outcome, write.index = Outcome.ACKNOWLEDGED, index
        self.acknowledged += 1

    def refuse(self, write: Write) -> None:
        """The client was told that nothing was done, or there was nobody to tell."""
        write.outcome = Outcome.REFUSED
        self.refused += 1
