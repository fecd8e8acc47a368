"""What a replica knows only while it has a role. Changing roles means a new object: nothing of an old role is left behind."""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

import attrs

from .._types import NEVER, Index, Member, Millis, NodeId
from ._confchange import Target
from ._progress import Progress
from ._ready import Role

LONG_AGO: Millis = -NEVER
"""A point in time before any other."""


@attrs.define(eq=False)
class Follower:
    """Follows a leader, or waits for one.

    While it is *attached* and its leader's node is live, silence means nothing, and it does not campaign: the pulse between the
    two nodes speaks for all their groups.
    """

    role: ClassVar[Role] = Role.FOLLOWER

    leader: Member | None
    last_heard: Millis
    """When the leader itself spoke last: a message of this group, not a pulse."""
    election_deadline: Millis
    is_attached: bool = False
    is_woken: bool = False
    """Attached, but the leader's node has stopped being live: the election deadline counts."""


@attrs.define(eq=False)
class PreCandidate:
    """Asks whether it would be elected, in its old term: without a trace if the answer is no (dissertation 9.6)."""

    role: ClassVar[Role] = Role.PRE_CANDIDATE

    election_deadline: Millis
    votes: dict[NodeId, bool] = attrs.Factory(dict)


@attrs.define(eq=False)
class Candidate:
    """Asks to be elected."""

    role: ClassVar[Role] = Role.CANDIDATE

    election_deadline: Millis
    votes: dict[NodeId, bool] = attrs.Factory(dict)
    """Answers so far; its own vote is among them only once it is durable."""


@attrs.define(eq=False)
class MemberView:
    """What a leader knows of one other member."""

    member: Member
    progress: Progress
    contact: Millis
    """When a message of this term came last."""
    has_answered: bool = False
    """It has spoken in this term, and by this number, since its node was started."""
    is_detached: bool = False
    """It does not count on this node's pulse, so its node's pulse does not speak for it."""
    commit_sent: Index = 0
    """The highest commit index in a message to it."""
    commit_known: Index = 0
    """The commit index that it said it has."""
    resend_at: Millis = NEVER
    """When it has owed an answer for too long."""
    holds_log: bool = False
    """The log is not cut behind the snapshot that it was sent, until it has caught up."""
    streams_failed: int = 0
    """Snapshots in a row that did not arrive."""
    round_heard: int = 0
    """The newest round that it has answered."""


@attrs.define(eq=False)
class ReadRound:
    """Members are asked whether this replica still leads, for all reads that had come before."""

    number: int
    index: Index
    """The commit index when it was sent: the answer to its reads."""
    sent_at: Millis
    """For the first time: an answer may be to that."""
    resend_at: Millis
    reads: list[Any]
    """Tokens."""


@attrs.define(eq=False)
class Transfer:
    """Leadership is being handed over."""

    token: Any
    target: NodeId
    deadline: Millis
    """When this replica goes on as before."""
    resend_at: Millis = NEVER
    """When the target is told to campaign once more; NEVER: when it has the whole log."""


@attrs.define(eq=False)
class Change:
    """Members are changing, and the entry that reaches the target is not in the log yet; others are."""

    token: Any
    target: Target
    deadline: Millis = NEVER
    """When it is looked at whether those that shall vote are still there."""


@attrs.define(eq=False)
class Leader:
    """Leads. Every entry of its log that others lack is on its way to them, or has a deadline to be sent again."""

    role: ClassVar[Role] = Role.LEADER

    members: dict[NodeId, MemberView]
    """All other members, in id order."""
    match: dict[NodeId, Index]
    """What each member, this one included, holds durably: the input of the commit rule."""
    quorum_until: Millis = 0
    """A lower bound of when the quorum passes, looked at again when it is reached."""
    announce_at: Millis = NEVER
    """When followers are told of the commit index, unless appends have told them by then."""
    due: Millis = 0
    """A lower bound of all points in time at which there is something to do."""
    wants_append: bool = True
    """There may be entries to send."""
    reads: list[Any] = attrs.Factory(list)
    """Tokens of reads that wait for the next round."""
    wants_round: bool = False
    """There are such reads, and no reason for them to wait any longer."""
    round: ReadRound | None = None
    """The one in flight."""
    lease_until: Millis = 0
    """Until then nobody else is elected, unless this replica has asked for that."""
    transfer: Transfer | None = None
    change: Change | None = None
    has_called_election: bool = False
    """It has told somebody to campaign. That may arrive at any time, and is stronger than a lease: no lease any more in this term."""

    def waiting(self) -> list[Any]:
        """Tokens of the requests that this leader has not answered yet."""
        return [*self.waiting_reads(), *(request.token for request in (self.transfer, self.change) if request is not None)]

    def waiting_reads(self) -> list[Any]:
        """Tokens of the reads among them, in flight or not."""
        return self.reads if self.round is None else [*self.round.reads, *self.reads]

    def wake_at(self, point: Millis) -> None:
        if point < self.due:
            self.due = point


RoleState: TypeAlias = Follower | PreCandidate | Candidate | Leader
