"""A replicated key-value store: the state machine of the examples.

Commands are CBOR lists: ``["put", key, value]``, ``["delete", key]``; keys are text, values are bytes. The query ``["get", key]`` reads.

The machine also keeps a running digest, a hash chain over everything it applied. Two replicas that have applied the same index
must have the same digest: one number to compare instead of a whole store.

Versions, positions and digest are part of the state, so they are in its snapshots: a replica that was restored from one goes on with the
chain, and a write that is applied a second time behind it still shows.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, ClassVar, NamedTuple

import attrs

from trioraft import ApplyContext, StateMachine
from trioraft.wire import encode_value

_DIGEST_BYTES = 16
_POSITION = struct.Struct("<QQ")
_RECORD_BYTES = 64 * 1024
"""About how much of the store goes into one record of a snapshot; a larger value still goes alone."""


class BadCommandError(Exception):
    """The command or query is none of those that the store knows. A result, equal on all replicas, and not a failure of any."""


class Row(NamedTuple):
    """What the store holds under one key."""

    value: bytes
    version: int
    """How often the key has been put since it was made. A key that is put once and has version 2 was applied twice."""
    log_index: int
    """Where in the log the last put stands."""


@attrs.define
class Store:
    """The whole state at one index."""

    rows: dict[str, Row] = attrs.Factory(dict)
    index: int = 0
    """The last index that reached the machine. Entries of Raft itself (a new leader's no-op) do not."""
    chain: bytes = bytes(_DIGEST_BYTES)

    @property
    def digest(self) -> str:
        """The hash chain over all commands up to `index`, as hex digits."""
        return self.chain.hex()

    def page(self, offset: int, limit: int) -> Iterator[tuple[str, Row]]:
        """Some of the keys, in the order in which they were made, which is the same on every replica."""
        return islice(self.rows.items(), offset, offset + limit)


class KeyValueMachine(StateMachine):
    """One group's keys, in memory; a restart begins with the newest snapshot and replays the log behind it."""

    declared_errors: ClassVar[tuple[type[Exception], ...]] = (BadCommandError,)

    def __init__(self) -> None:
        self.store = Store()
        """Changed by `apply`, replaced as a whole by `restore`, which runs in a thread: who reads more than one thing takes it once."""

    def apply(self, command: Any, context: ApplyContext) -> Any:
        """Apply one command.

        Returns:
            put: ``{"version", "index"}``; delete: ``{"deleted", "index"}``.

        Raises:
            BadCommandError: for anything else; nothing changes but the digest.
        """
        store = self.store
        link = store.chain + _POSITION.pack(context.index, context.term) + encode_value(command)
        store.chain = hashlib.blake2b(link, digest_size=_DIGEST_BYTES).digest()
        store.index = context.index
        match command:
            case ["put", str(key), bytes(value)]:
                return self._put(key, value, context.index)
            case ["delete", str(key)]:
                return {"deleted": store.rows.pop(key, None) is not None, "index": context.index}
        raise BadCommandError("not a command of this store")

    def query(self, query: Any) -> list[Any] | None:
        """Read one key: a `Row` as a list, or None.

        Raises:
            BadCommandError: for any other query.
        """
        match query:
            case ["get", str(key)]:
                row = self.store.rows.get(key)
                return None if row is None else list(row)
        raise BadCommandError("not a query of this store")

    def _put(self, key: str, value: bytes, index: int) -> dict[str, int]:
        before = self.store.rows.get(key)
        version = 1 if before is None else before.version + 1
        self.store.rows[key] = Row(value, version, index)
        return {"version": version, "index": index}

    def snapshot(self) -> Iterable[Any]:
        """The store as it is now. Rows are values, so a copy of the dict is a frozen view: it takes a millisecond for 100,000 keys."""
        return _records(Store(self.store.rows.copy(), self.store.index, self.store.chain))

    def restore(self, records: Iterator[Any]) -> None:
        """Replace the store at one stroke, once everything has been read."""
        index, chain = next(records)
        store = Store({}, index, chain)
        for record in records:
            for key, *row in record:
                store.rows[key] = Row(*row)
        self.store = store


def _records(store: Store) -> Iterator[Any]:
    """First index and chain, then the rows in their order, some in each record."""
    yield [store.index, store.chain]
    record: list[list[Any]] = []
    size = 0
    for key, row in store.rows.items():
        record.append([key, *row])
        size += len(key) + len(row.value)
        if size >= _RECORD_BYTES:
            yield record
            record, size = [], 0
    if record:
        yield record
