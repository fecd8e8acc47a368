"""A replicated key-value store: the state machine of the examples.

Commands are CBOR lists: ``["put", key, value]``, ``["delete", key]``, ``["get", key]``; keys are text, values are bytes.
Reading is a command like any other here: it takes its place in the log, so it sees every write that was acknowledged before it.

The machine also keeps a running digest, a hash chain over everything it applied. Two replicas that have applied the same index
must have the same digest: one number to compare instead of a whole store.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar, NamedTuple

from trioraft import ApplyContext, StateMachine
from trioraft.wire import encode_value

_DIGEST_BYTES = 16
_POSITION = struct.Struct("<QQ")


class BadCommandError(Exception):
    """The command is none of those that the store knows. A result, equal on all replicas, and not a failure of any."""


class Row(NamedTuple):
    """What the store holds under one key."""

    value: bytes
    version: int
    """How often the key has been put since it was made. A key that is put once and has version 2 was applied twice."""
    log_index: int
    """Where in the log the last put stands."""


class KeyValueMachine(StateMachine):
    """One group's keys, in memory; a restart replays the log."""

    declared_errors: ClassVar[tuple[type[Exception], ...]] = (BadCommandError,)

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.index = 0
        """The last index that reached this machine. Entries of Raft itself (a new leader's no-op) do not."""
        self._digest = bytes(_DIGEST_BYTES)

    @property
    def digest(self) -> str:
        """The hash chain over all commands up to `index`, as hex digits."""
        return self._digest.hex()

    def apply(self, command: Any, context: ApplyContext) -> Any:
        """Apply one command.

        Returns:
            put: ``{"version", "index"}``; delete: ``{"deleted", "index"}``; get: a `Row` as a list, or None.

        Raises:
            BadCommandError: for anything else; nothing changes but the digest.
        """
        link = self._digest + _POSITION.pack(context.index, context.term) + encode_value(command)
        self._digest = hashlib.blake2b(link, digest_size=_DIGEST_BYTES).digest()
        self.index = context.index
        match command:
            case ["put", str(key), bytes(value)]:
                return self._put(key, value, context.index)
            case ["delete", str(key)]:
                return {"deleted": self.rows.pop(key, None) is not None, "index": context.index}
            case ["get", str(key)]:
                row = self.rows.get(key)
                return None if row is None else list(row)
        raise BadCommandError("not a command of this store")

    def _put(self, key: str, value: bytes, index: int) -> dict[str, int]:
        before = self.rows.get(key)
        version = 1 if before is None else before.version + 1
        self.rows[key] = Row(value, version, index)
        return {"version": version, "index": index}

    def page(self, offset: int, limit: int) -> Iterator[tuple[str, Row]]:
        """Some of the keys, in the order in which they were made, which is the same on every replica."""
        return islice(self.rows.items(), offset, offset + limit)
