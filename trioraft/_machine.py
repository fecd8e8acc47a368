"""The contract of a replicated state machine: what a user writes."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs

from ._types import GroupId, Index, NodeId, Term


@attrs.frozen
class ApplyContext:
    """Where a command stands in the log. Equal on all replicas, except `node_id`: never let that into the state."""

    group_id: GroupId
    index: Index
    term: Term
    node_id: NodeId


class StateMachine:
    """State that is equal on all replicas, because each applies the same commands in the same order.

    `apply` must be deterministic: no clock, no randomness, no input from outside. It runs inline on the event loop, so it must be
    quick; a machine with `blocking = True` runs in a worker thread instead, a batch at a time, and cannot slow down other groups.
    """

    blocking: ClassVar[bool] = False
    """True: `apply` may block (files, a database); it then runs in a worker thread."""

    declared_errors: ClassVar[tuple[type[Exception], ...]] = ()
    """Exceptions that are *results*: raised at whoever proposed, on every replica alike. Any other stops the group."""

    def apply(self, command: Any, context: ApplyContext) -> Any:
        """Apply one command and return its result, which goes to whoever proposed it (any CBOR value).

        Called once per entry, in the order of the log. A restart replays commands on a fresh machine.
        """
        raise NotImplementedError

    def encode_command(self, command: Any) -> bytes:
        """Turn a command into bytes. By default: deterministic CBOR."""
        from .wire import encode_value

        return encode_value(command)

    def decode_command(self, payload: bytes) -> Any:
        """Turn bytes back into a command. By default: CBOR, decoded strictly."""
        from .wire import decode_value

        return decode_value(payload)
