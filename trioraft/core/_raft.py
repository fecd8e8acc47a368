"""The machine itself: what comes in, in which order it is looked at, and what goes out.

Each step is the same: first the clock (a leader whose quorum has passed steps down *before* it looks at anything that relies on
it), then who sent the event and in which term, and only then what it says, by a table of the present role. The tables are
complete: each names every kind of event, also those that the role ignores.

How the terms of messages are treated:

- higher: this replica moves on to that term (paper 5.1), unless the message is only a question (`PreVote`), the answer to one, or a
  `RequestVote` while there is a leader (dissertation 4.2.3);
- lower: whoever could still believe to lead is told the present term; the rest is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, get_args

from .._errors import InvariantError, NotLeaderError
from .._types import NEVER, EntryId, Index, Millis, NodeId, Term
from . import _attachment, _election, _following, _loading, _membership, _reads, _removal, _replication, _resending, _snapshots, _transfer
from ._configuration import Configuration
from ._entries import is_well_formed
from ._entry import Entry
from ._events import (
    Applied,
    Campaign,
    ChangeMembers,
    DiskSpace,
    EntriesLoaded,
    Event,
    PeerDown,
    PeerUp,
    Persisted,
    Propose,
    Read,
    Request,
    SnapshotSent,
    SnapshotTaken,
    TimePassed,
    TransferLeadership,
    TrimMemory,
    Unreachable,
)
from ._messages import (
    AppendEntries,
    AppendEntriesReply,
    Attach,
    AttachRefused,
    Detach,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteReply,
    Removed,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from ._ready import CoreStatus, Ready, Role, RoleChange
from ._replica import Replica
from ._roles import Candidate, Follower, Leader, PreCandidate, RoleState

Handler: TypeAlias = Callable[[Any, Any, Any, Millis], None]


# Events that are the same in every role


def _ignore(replica: Replica, state: RoleState, event: Event, now: Millis) -> None:
    """Nothing follows from this event in this role."""


def _on_request(replica: Replica, state: RoleState, event: Request, now: Millis) -> None:
    replica.refused.append((event.token, NotLeaderError(replica.leader)))


def _on_persisted(replica: Replica, state: RoleState, event: Persisted, now: Millis) -> None:
    replica.log.persisted(event.sequence)
    replica.ballot.persisted(event.sequence)
    if type(state) is Leader:
        _replication.count_own_write(replica, state, now)
    elif type(state) is Candidate:
        _election.count_own_vote(replica, state, now)


def _on_applied(replica: Replica, state: RoleState, event: Applied, now: Millis) -> None:
    applying = replica.applying
    was_restoring = applying.is_restoring
    applying.applied(event.index)
    if was_restoring and not applying.is_restoring:
        # Only now: until then older snapshots are kept, the one that is being restored among them.
        _snapshots.compact(replica)


def _on_disk_space(replica: Replica, state: RoleState, event: DiskSpace, now: Millis) -> None:
    """Whoever cannot write can neither lead nor campaign; when there is space again, nobody is in a hurry."""
    if replica.has_space == event.available:
        return
    replica.has_space = event.available
    if type(state) is not Follower:
        replica.become_follower(replica.term, None, now)
    else:
        state.election_deadline = replica.patience_until(now)


_EVERYWHERE: dict[type, Handler] = {
    TimePassed: _ignore,  # the clock has been looked at
    Persisted: _on_persisted,
    Applied: _on_applied,
    DiskSpace: _on_disk_space,
    PreVote: _election.on_pre_vote,
    RequestVote: _election.on_request_vote,
    AppendEntries: _following.on_append_entries,
    Heartbeat: _following.on_heartbeat,
    Attach: _attachment.on_attach,
    AttachRefused: _ignore,  # its term has been looked at
    InstallSnapshot: _following.on_install_snapshot,
    EntriesLoaded: _loading.on_entries_loaded,
    TrimMemory: _loading.on_trim_memory,
    SnapshotTaken: _snapshots.on_snapshot_taken,
    SnapshotSent: _snapshots.on_snapshot_sent,
    Removed: _removal.on_removed,
}

_NOT_LEADING: dict[type, Handler] = {
    **_EVERYWHERE,
    Propose: _on_request,
    ChangeMembers: _on_request,
    TransferLeadership: _on_request,
    Read: _on_request,
    Campaign: _election.on_campaign,
    PeerDown: _ignore,  # liveness is compared with the clock, which has been looked at
    PeerUp: _ignore,
    AppendEntriesReply: _ignore,  # it was for the leader that this replica is no more
    HeartbeatReply: _attachment.on_mistaken_reply,
}

HANDLERS: dict[type, dict[type, Handler]] = {
    Follower: {
        **_NOT_LEADING,
        PreVoteReply: _ignore,
        RequestVoteReply: _ignore,
        TimeoutNow: _transfer.on_timeout_now,
        Detach: _attachment.on_detach,
        Unreachable: _attachment.on_unreachable,
    },
    PreCandidate: {
        **_NOT_LEADING,
        PreVoteReply: _election.on_pre_vote_reply,
        RequestVoteReply: _ignore,
        TimeoutNow: _ignore,
        Detach: _ignore,
        Unreachable: _ignore,
    },
    Candidate: {
        **_NOT_LEADING,
        PreVoteReply: _ignore,
        RequestVoteReply: _election.on_request_vote_reply,
        TimeoutNow: _ignore,
        Detach: _ignore,
        Unreachable: _ignore,
    },
    Leader: {
        **_EVERYWHERE,
        Propose: _replication.on_propose,
        ChangeMembers: _membership.on_change_members,
        TransferLeadership: _transfer.on_transfer,
        Read: _reads.on_read,
        Campaign: _ignore,
        TimeoutNow: _ignore,
        PeerDown: _replication.on_peer_down,
        PeerUp: _replication.on_peer_up,
        Unreachable: _replication.on_unreachable,
        PreVoteReply: _ignore,
        RequestVoteReply: _ignore,
        AppendEntriesReply: _replication.on_append_reply,
        HeartbeatReply: _replication.on_heartbeat_reply,
        Detach: _replication.on_detach,
    },
}
"""What each role does with each kind of event."""

_CHECKS: dict[type, Callable[[Any, Any, Millis], None]] = {
    Follower: _election.check_follower,
    PreCandidate: _election.check_candidate,
    Candidate: _election.check_candidate,
    Leader: _replication.check_leader,
}


def check_complete(handlers: Mapping[type, Mapping[type, Handler]]) -> None:
    """Refuse tables that do not name every kind of event for every role.

    Raises:
        InvariantError: names the role and what it lacks.
    """
    for role in get_args(RoleState):
        missing = set(get_args(Event)) ^ handlers[role].keys()
        if missing:
            names = sorted(kind.__name__ for kind in missing)
            raise InvariantError(f"the table of {role.__name__} and the kinds of events differ in {names}")


check_complete(HANDLERS)

_MESSAGES: frozenset[type] = frozenset(get_args(Message))


class Raft(Replica):
    """One replica of one group, as a pure state machine.

    No clock, no I/O, no global randomness: the same calls in the same order give the same outputs.
    """

    def step(self, event: Event, now: Millis) -> None:
        """Take one event. Deadlines and quorum are checked against `now` first, before the event is looked at.

        Raises:
            InvariantError: safety is in danger; the core must not be used any more.
        """
        self._now = now
        _CHECKS[type(self.state)](self, self.state, now)
        kind = type(event)
        if kind in _MESSAGES and not self._admits(event, kind, now):
            return
        state = self.state
        HANDLERS[type(state)][kind](self, state, event, now)

    def _admits(self, message: Any, kind: type, now: Millis) -> bool:
        """Look at who sent a message and in which term; return whether to look at what it says."""
        source = message.source
        # NB: nearly always so, and looked at for each message.
        is_plain = self.has_place and message.target == self.me and self.is_counted(source) and kind not in _removal.FOR_VOTES
        if not (is_plain and source.node_id != self.me.node_id) and not _removal.admits_members(self, message, kind, now):
            return False
        if kind is AppendEntries and not is_well_formed(message.previous, message.entries, message.term):
            self.drop("malformed")
            return False
        if kind is InstallSnapshot and not 0 < message.at.term <= message.term:
            self.drop("malformed")
            return False
        if kind is PreVote or (kind is PreVoteReply and message.granted) or kind is Removed:
            return True
        if message.term > self.term:
            return self._admits_higher(message, kind, now)
        if message.term < self.term:
            return self._admits_lower(message, kind)
        return True

    def _admits_higher(self, message: Any, kind: type, now: Millis) -> bool:
        if kind is RequestVote and not message.transfer and self.is_sticky(message.source, message.term, now):
            # NB: not even its term counts, or a replica that cannot hear the leader would depose it.
            if type(self.state) is Leader:
                _resending.recall(self, self.state, message.source)
            self.drop("sticky")
            return False
        is_leading = kind in _removal.FROM_LEADERS
        self.become_follower(message.term, message.source if is_leading else None, now)
        # Any other message was meant for a role in a term that this replica was not in: its term was all it had to tell.
        return is_leading or kind is RequestVote

    def _admits_lower(self, message: Any, kind: type) -> bool:
        if kind is PreVoteReply:
            # A refusal by somebody who has a leader in an older term is a refusal.
            return True
        if kind is AppendEntries:
            self.send(AppendEntriesReply(self.me, message.source, self.term, match=0, rejected=message.previous.index))
        elif kind is InstallSnapshot:
            self.send(AppendEntriesReply(self.me, message.source, self.term, match=0, rejected=message.at.index))
        elif kind is Heartbeat:
            self.send(HeartbeatReply(self.me, message.source, self.term, 0, message.round))
        elif kind is Attach:
            self.send(AttachRefused(self.me, message.source, self.term))
        elif kind is RequestVote:
            self.send(RequestVoteReply(self.me, message.source, self.term, granted=False))
        self.drop("stale term")
        return False

    @property
    def has_ready(self) -> bool:
        """Whether `take_ready` has anything to hand out."""
        return bool(
            self.messages
            or self.after_write
            or self.accepted
            or self.refused
            or self.answered
            or self.me_unwritten is not None
            or self.log.has_unwritten
            or self.ballot.has_unwritten
            or (type(self.state) is Leader and (self.state.wants_append or self.state.wants_round))
            or self._has_to_apply
            or self.loaded
            or self.loads
            or self.compaction
            or self.send_snapshots
            or self._role_change() is not None
        )

    @property
    def _has_to_apply(self) -> bool:
        applying, config = self.applying, self.config
        if applying.has_next(config.apply_bytes_max, config.apply_entries_max):
            return applying.is_next_in_memory or None not in self.loading
        return applying.has_restore

    def take_ready(self, sequence: int) -> Ready:
        """Hand out everything that has come up since the last call; `sequence` numbers its write, if it has one.

        Sequences given to one core rise from call to call.
        """
        state = self.state
        if type(state) is Leader:
            if state.wants_append:
                _replication.send_appends(self, state, self._now)
            if state.wants_round:
                _reads.begin_round(self, state, self._now)
        restore = None if self.applying.restore is None else self.applying.take_restore()
        ready = Ready(
            hard_state=self.ballot.take_unwritten(sequence),
            entries=self.log.take_unwritten(sequence),
            messages=tuple(self.messages),
            after_write=tuple(self.after_write),
            committed=self._take_committed(),
            accepted=tuple(self.accepted),
            refused=tuple(self.refused),
            answered=tuple(self.answered),
            me=self.me_unwritten,
            role_change=self._role_change(),
        )
        # NB: what is rare costs nothing where it does not happen.
        if restore or self.install or self.compaction or self.loads or self.send_snapshots:
            self._take_rare(ready, restore)
        if ready.writes:
            ready.sequence = sequence
        if ready.role_change is not None:
            self._told = ready.role_change
        self.me_unwritten = None
        for taken in (self.messages, self.after_write, self.accepted, self.answered, self.refused):
            taken.clear()
        if self.log.memory_bytes > self.memory_bytes_max:
            self.trim_memory()
        return ready

    def _take_committed(self) -> tuple[Entry, ...]:
        """What was read from the disk, then what follows in memory; or have the next piece read."""
        applying, config = self.applying, self.config
        committed = applying.take(config.apply_bytes_max, config.apply_entries_max)
        if self.loaded:
            committed = (*self.loaded, *committed)
            self.loaded.clear()
        if self.log.evicted_index and not applying.is_next_in_memory and self._has_to_apply:
            self.load(None, *applying.missing(config.apply_bytes_max, config.apply_entries_max))
        return committed

    def _take_rare(self, ready: Ready, restore: EntryId | None) -> None:
        ready.restore, ready.install, ready.compaction = restore, self.install, self.compaction
        ready.loads, ready.send_snapshots = tuple(self.loads), tuple(self.send_snapshots)
        self.install = self.compaction = None
        self.loads.clear()
        self.send_snapshots.clear()

    def _role_change(self) -> RoleChange | None:
        told = self._told
        role, term, leader = self.role, self.term, self.leader
        if (told.role, told.term, told.leader) == (role, term, leader):
            return None
        return RoleChange(role, term, leader)

    @property
    def deadline(self) -> Millis:
        """The next point in time at which `TimePassed` must be stepped; NEVER if none."""
        state = self.state
        if isinstance(state, Leader):
            return _replication.leader_deadline(self, state, self._now)
        is_idle = not self.can_campaign or (isinstance(state, Follower) and self.is_leader_live(state, self._now))
        return NEVER if is_idle else state.election_deadline

    @property
    def lease_until(self) -> Millis:
        """Until when reads may be answered without asking anybody (dissertation 6.4.1), by the clock that `now` is read from.

        0: not at all; `NEVER`: this is the only voter. To be compared with a *new* reading of the clock just before an answer is
        given: the process may have been stopped, or the machine suspended, since the last event.
        """
        return _reads.lease_until(self, self.state) if type(self.state) is Leader else 0

    @property
    def role(self) -> Role:
        return self.state.role

    @property
    def commit_index(self) -> Index:
        return self.log.commit_index

    @property
    def applied_index(self) -> Index:
        return self.applying.applied_index

    @property
    def memory_bytes(self) -> int:
        """What the entries in memory take up, roughly."""
        return self.log.memory_bytes

    def term_at(self, index: Index) -> Term:
        """The term of an entry of the log; 0 before its start and beyond the last."""
        return self.log.term_at(index)

    def configuration_at(self, index: Index) -> Configuration:
        """The configuration in force at an index of the log, its start included.

        Raises:
            InvariantError: the log does not go there.
        """
        log = self.log
        if not log.start.index <= index <= log.last_index:
            raise InvariantError(f"the configuration at {index} is asked of a log from {log.start} to {log.last}")
        return log.configurations.at(index)

    def waiting(self) -> list[Any]:
        """Tokens of the requests that have not been answered by any Ready yet: whoever stops this replica has to answer them."""
        answers = [*self.accepted, *self.answered, *self.refused]
        leading = self.state.waiting() if type(self.state) is Leader else []
        return [*(token for token, _ in answers), *leading]

    def watched(self) -> frozenset[NodeId]:
        """The nodes whose `PeerDown`/`PeerUp` this replica wants to hear of (its leader; or as leader: the members, this node included)."""
        if type(self.state) is Leader:
            return frozenset({self.me.node_id, *self.state.members})
        return frozenset() if self.leader is None else frozenset({self.leader})

    def status(self) -> CoreStatus:
        """Describe this moment."""
        log = self.log
        transfer = self.state.transfer if type(self.state) is Leader else None
        return CoreStatus(
            role=self.role,
            term=self.term,
            vote=self.ballot.vote,
            leader=self.leader,
            start=log.start,
            last=log.last,
            snapshot=self.snapshot,
            memory_bytes=log.memory_bytes,
            persisted_index=log.persisted_index,
            commit_index=log.commit_index,
            applied_index=self.applied_index,
            me=self.me,
            configuration=self.configuration,
            is_removed=self.is_removed,
            transfer_target=None if transfer is None else transfer.target,
            match=dict(self.state.match) if type(self.state) is Leader else {},
        )
