"""The machine itself: what comes in, in which order it is looked at, and what goes out.

Each step is the same: first the clock (a leader whose quorum has passed steps down *before* it looks at anything that relies on
it), then who sent the event and in which term, and only then what it says, by the table of the present role (`_handlers`).

How the terms of messages are treated:

- higher: this replica moves on to that term (paper 5.1), unless the message is only a question (`PreVote`), the answer to one, or a
  `RequestVote` while there is a leader (dissertation 4.2.3);
- lower: whoever could still believe to lead is told the present term; the rest is dropped.
"""

from __future__ import annotations

from typing import Any, get_args

from .._errors import InvariantError
from .._types import NEVER, EntryId, Index, Millis, NodeId, Term
from . import _leader_clock, _reads, _removal, _replication, _resending
from ._configuration import Configuration
from ._entries import is_well_formed
from ._entry import Entry
from ._events import Event
from ._handlers import CHECKS, HANDLERS
from ._messages import (
    AppendEntries,
    AppendEntriesReply,
    Attach,
    AttachRefused,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteReply,
    Removed,
    RequestVote,
    RequestVoteReply,
)
from ._ready import CoreStatus, Ready, Role, RoleChange
from ._replica import Replica
from ._role_changes import become_follower
from ._roles import Follower, Leader

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
        CHECKS[type(self.state)](self, self.state, now)
        kind = type(event)
        if kind in _MESSAGES and not self._admits(event, kind, now):
            return
        state = self.state
        HANDLERS[type(state)][kind](self, state, event, now)

    def _admits(self, message: Any, kind: type, now: Millis) -> bool:
        """Look at who sent a message and in which term; return whether to look at what it says."""
        source = message.source
        # NB: nearly always so, and looked at for each message.
        is_plain = (
            self.has_place
            and message.target == self.me
            and self.is_counted(source)
            and kind not in _removal.FOR_VOTES
            and source.node_id != self.me.node_id
        )
        if not (is_plain or _removal.admits_members(self, message, kind, now)):
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
        become_follower(self, message.term, message.source if is_leading else None, now)
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
            return _leader_clock.leader_deadline(self, state, self._now)
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
