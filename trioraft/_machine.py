"""The contract of a replicated state machine: what a user writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Protocol

import attrs

from ._types import GroupId, Index, NodeId, Term


@attrs.frozen
class ApplyContext:
    """Where a command stands in the log. Equal on all replicas, except `node_id`: never let that into the state."""

    group_id: GroupId
    index: Index
    term: Term
    node_id: NodeId


class Codec(Protocol):
    """Maps commands of an application's own types to bytes."""

    def encode(self, command: Any) -> bytes:
        """Turn a command into bytes, at whoever proposes it. An exception refuses the proposal."""

    def decode(self, payload: bytes) -> Any:
        """Turn bytes back into the command, on every replica. An exception stops the group, so decode whatever you ever encoded."""


class StateMachine:
    """State that is equal on all replicas, because each applies the same commands in the same order.

    `apply` must be deterministic: no clock, no randomness, no input from outside. It runs inline on the event loop, so it must be
    quick; a machine with `blocking = True` runs in a worker thread instead, a batch at a time, and cannot slow down other groups.
    """

    blocking: ClassVar[bool] = False
    """True: `apply` may block (files, a database); it then runs in a worker thread."""

    codec: ClassVar[Codec | None] = None
    """Turns commands into bytes and back. None: CBOR, for whatever CBOR can carry."""

    declared_errors: ClassVar[tuple[type[Exception], ...]] = ()
    """Exceptions that are *results*: raised at whoever proposed, on every replica alike. Any other stops the group."""

    def apply(self, command: Any, context: ApplyContext) -> Any:
        """Apply one command and return its result, which goes to whoever proposed it (any CBOR value).

        Called once per entry, in the order of the log. After a restart, a machine in memory gets the newest snapshot (`restore`) and
        the commands behind it again; a durable one gets those behind its `stored_index`.
        """
        raise NotImplementedError

    def query(self, query: Any) -> Any:
        """Answer a query from the state as it is, and change nothing. For `RaftGroup.read`.

        Runs where `apply` runs, between two commands: inline on the event loop, or in a worker thread if `blocking`. What it raises goes
        to whoever asked, and stops nothing; from another node only `declared_errors` arrive as they are. There, query and answer are
        any CBOR values.
        """
        raise NotImplementedError

    def snapshot(self) -> Iterable[Any]:
        """Return a view of the whole state as it is now, at once; it must not change while the machine goes on to apply.

        The view yields records: any CBOR values, each much smaller than the state, since one record is handled in one piece. It is
        iterated once, later, in worker threads, not always the same one, and closed if it has a `close`. Copy what `apply` changes,
        or use structures that share (a copied dict of immutable values will do); a durable machine opens a read transaction. This
        method itself must not be a generator function: nothing in it would run before the first record is pulled.

        Called where `apply` is called, between two commands. A machine that does not define it is never snapshotted: its log grows
        for ever. What it raises, here or while it is iterated, stops nothing: it is reported, and tried again later.
        """
        raise NotImplementedError

    def restore(self, records: Iterator[Any]) -> None:
        """Replace the whole state by what `snapshot` yielded, on this replica or on another.

        Called in a worker thread, at the start or when the replica has fallen too far behind; nothing is applied meanwhile. A durable
        machine stores the new state and its index (`stored_index`) in one transaction: any exception may come out of `records` at any
        point, also one that is no `Exception` when the group stops, and then everything must be as it was.

        Whatever it raises stops the group.
        """
        raise NotImplementedError

    def stored_index(self) -> Index:
        """Tell up to which index the state is stored durably, if the machine stores it by itself; called once, at the start.

        Such a machine stores `ApplyContext.index` in the same transaction as the effect of the command: commands up to this index will
        not come again, and every later one will. 0: in memory.
        """
        return 0
