"""The error tree: whose fault it is, and whether a retry may do something twice.

=========================  ==================================================  ==================
error                      what happened                                       safe to retry?
=========================  ==================================================  ==================
`NotLeaderError`           asked the wrong node; in no log                     yes, at `leader`
`ProposalDroppedError`     the entry was replaced or never made it; in no log  yes
`BusyError`                no room in a queue; in no log                       yes, later
`EntryTooLargeError`       over the limit of the group; in no log              never: split it
`ChangeRefusedError`       the membership stays; see `kind`                    see `kind`
`TransferRefusedError`     the leader stays; see `kind`                        yes
`SessionExpiredError`      the log has forgotten the session                   only if idempotent
`OutcomeUnknownError`      may be applied, or may not; see `fate()`            only if idempotent, or
                           and `request_id`                                    in a session
`GroupStoppedError`        this replica stopped; see `reason`                  elsewhere
`VersionError`             code and log are of different versions; in no log   after `upgrade`
`ResultError`              applied, and the result cannot be told              never: it is done
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


class ChangeRefusedError(RaftError):
    """The membership was not changed, or not further than the text says. `kind` is a short, stable name.

    ==========================  ==========================================================================
    kind                        why
    ==========================  ==========================================================================
    ``already_joint``           a joint configuration cannot be entered from another
    ``change_pending``          another change is under way: ask again when it is through
    ``joint_in_progress``       the change before has yet to leave its joint configuration
    ``learner_behind``          a node that shall vote has not caught up: ask again when it has
    ``learner_silent``          a node that shall vote does not answer: is its node up, and was `add_group` called there?
    ``needs_joint``             more than one voter changes: a direct step could make two leaders
    ``no_voters_to_join_from``  a configuration without voters has no outgoing half
    ``not_joint``               there is no joint configuration to leave
    ``removes_all_voters``      nobody would be left to vote
    ``stale_expect``            the configuration is not the one that was expected: look at it, and ask again
    ``term_not_begun``          the leader has not committed an entry of its own term yet: ask again
    ``unknown_node``            the leader knows no address of a node: tell it by `set_address`
    ==========================  ==========================================================================
    """

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(text)


class TransferRefusedError(RaftError):
    """Leadership was not handed over; the group goes on as before. `kind` is a short, stable name.

    ===============  =================================================================================
    kind             why
    ===============  =================================================================================
    ``leads``        the target leads already
    ``no_voter``     the target is a learner, no member, or was removed or demoted meanwhile
    ``pending``      a transfer to another node is under way
    ``silent``       the target's node is not there
    ``timeout``      the target did not catch up, or did not win, within an election timeout
    ===============  =================================================================================
    """

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(text)


class SessionExpiredError(RaftError):
    """The log has forgotten the session, or its answer to a command that was said to be done with. What was asked for before may have
    been applied; what is refused by this has not been applied once more.
    """

    def __init__(self, session_id: int, sequence: int | None = None) -> None:
        self.session_id, self.sequence = session_id, sequence
        if sequence is None:
            super().__init__(f"session {session_id} has expired, or never was: open a new one")
        else:
            super().__init__(f"command {sequence} of session {session_id} is long past: what became of it is forgotten")


class ProposalDroppedError(RaftError):
    """The proposal is in no log and never will be: safe to propose again."""


class BusyError(RaftError):
    """A queue or a window is full. The proposal is in no log: slow down, then try again."""


class OutcomeUnknownError(RaftError):
    """The proposal was handed over, and its answer did not come: it may be applied or not, now or later.

    `index` and `term` name the entry where they are known. `request_id` names the request where it has one: (id of the session, sequence)
    of a command of a client's session, which may be asked for again under that name; or (incarnation of this node's process, number) of
    what was passed on to the leader's node, and is never sent again.
    """

    def __init__(
        self,
        reason: str,
        index: Index | None = None,
        term: Term | None = None,
        *,
        request_id: tuple[int, int] | None = None,
        fate: Callable[[], Awaitable[Fate]] | None = None,
    ) -> None:
        self.index, self.term, self.request_id = index, term, request_id
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


class VersionError(RaftError):
    """A replicated object's code and its group's log are of different versions; the text names both.

    Raised at a caller: the method is not in use yet, or not in this form; nothing is in the log. As the reason why a group stopped: the
    log has what this node's code does not know. Nothing is lost: start the node with the newer code.
    """


class ResultError(RaftError):
    """A replicated object's command was applied (or its query was answered), and what came of it is nothing that can be handed over."""


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
