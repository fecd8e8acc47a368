"""The contract of a replicated state machine: what a user writes."""

from __future__ import annotations

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

        Called once per entry, in the order of the log. A restart replays commands on a fresh machine.
        """
        raise NotImplementedError
