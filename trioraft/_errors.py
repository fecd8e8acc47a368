"""The error tree: whose fault it is, and whether a retry may do something twice.

=========================  ==================================================  ==================
error                      what happened                                       safe to retry?
=========================  ==================================================  ==================
`NotLeaderError`           asked the wrong node; in no log                     yes, at `leader`
`ProposalDroppedError`     the entry was replaced or never made it; in no log  yes
`BusyError`                no room in a queue; in no log                       yes, later
`EntryTooLargeError`       over the limit of the group; in no log              never: split it
`OutcomeUnknownError`      may be applied, or may not                          only if idempotent
`GroupStoppedError`        this replica stopped; see `reason`                  elsewhere
=========================  ==================================================  ==================
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from ._types import EntryId, GroupId, Index, NodeId, Term

Fate = Literal["applied", "dropped", "unknown"]


class RaftError(Exception):
    """Base of everything that trioraft raises on purpose."""


class InvariantError(RaftError):
    """A check that guards safety failed: a bug, or damaged state. The group stops. Holds under ``python -O`` too."""


class ConfigError(RaftError, ValueError):
    """A configuration value is out of range, or two contradict each other. The text names the field and the range."""


class NotLeaderError(RaftError):
    """The replica asked does not lead its group. The proposal is in no log."""

    def __init__(self, leader: NodeId | None) -> None:
        self.leader = leader
        super().__init__(f"not the leader; ask node {leader}" if leader is not None else "not the leader, and none is known yet")


class ProposalDroppedError(RaftError):
    """The proposal is in no log and never will be: safe to propose again."""


class BusyError(RaftError):
    """A queue or a window is full. The proposal is in no log: slow down, then try again."""


class OutcomeUnknownError(RaftError):
    """The proposal was handed over, and its answer did not come: it may be applied or not, now or later.

    `index` and `term` name the entry where they are known.
    """

    def __init__(
        self, reason: str, index: Index | None = None, term: Term | None = None, *, fate: Callable[[], Awaitable[Fate]] | None = None
    ) -> None:
        self.index, self.term = index, term
        self._fate = fate
        at = f" (entry {EntryId(term, index)})" if index is not None and term is not None else ""
        super().__init__(f"{reason}{at}: the proposal may or may not be applied")

    async def fate(self) -> Fate:
        """Wait until it is known what became of the proposal, as far as this node can tell.

        Returns ``"applied"``, ``"dropped"``, or at once ``"unknown"`` where nothing is left that could tell.
        """
        return "unknown" if self._fate is None else await self._fate()


class GroupStoppedError(RaftError):
    """This replica runs no more. `reason` is the error that stopped it, or None after an orderly stop."""

    def __init__(self, group_id: GroupId, reason: BaseException | None = None) -> None:
        self.group_id, self.reason = group_id, reason
        super().__init__(f"group {group_id} has stopped" + (f": {reason}" if reason is not None else ""))


class GroupNotFoundError(RaftError):
    """This node hosts no such group. Call `add_group` first, or ask another node."""


class GroupExistsError(RaftError):
    """The group exists here with other members, another incarnation, or a tombstone in the way. The text says which."""


class EntryTooLargeError(RaftError):
    """A command is larger than `entry_bytes_max`. Refused before any log."""


class StateMachineError(RaftError):
    """The state machine raised what it had not declared while it applied `index`. Its group has stopped."""

    def __init__(self, group_id: GroupId, index: Index) -> None:
        self.group_id, self.index = group_id, index
        super().__init__(f"the state machine of group {group_id} failed at index {index}; the group has stopped on this node")


class SnapshotError(RaftError):
    """A snapshot could not be taken, and the group goes on without; or the machine could not be restored from one, and it has stopped."""


class WireError(RaftError):
    """Bytes that are no valid frame, message or value; or a value that CBOR cannot carry. The only exception that leaves a decoder."""


class TransportError(RaftError):
    """A peer cannot be reached, or is not who it should be. `kind` is a short, stable name."""

    def __init__(self, kind: str, peer: NodeId | None, text: str) -> None:
        self.kind, self.peer = kind, peer
        super().__init__(text)


class StorageError(RaftError):
    """The disk, or what is on it, is not as needed. `kind` is a short, stable name; `path` names the file."""

    def __init__(self, kind: str, path: str, text: str) -> None:
        self.kind, self.path = kind, path
        super().__init__(f"{path}: {text}")


class CorruptSnapshotError(StorageError):
    """Damaged or foreign bytes at `offset` of the snapshot `path`. Nothing was removed and nothing is served from it."""

    def __init__(self, path: str, offset: int, text: str) -> None:
        self.offset = offset
        super().__init__("corrupt", path, f"damaged at offset {offset}: {text}")


class CorruptLogError(StorageError):
    """Damaged bytes at `offset` of `path`. Nothing was cut and nothing is served from it."""

    def __init__(self, path: str, offset: int, text: str) -> None:
        self.offset = offset
        super().__init__("corrupt", path, f"damaged at offset {offset}: {text}")
