"""The state that a replica has in every role, and what can be told by it alone.

The rules are functions in modules of their own, one for each part of the protocol; all of them work on a `Replica`. Nothing here looks
at a message, and nothing here changes the role (`_role_changes`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from .._errors import InvariantError, RaftError
from .._types import NEVER, NOTHING, EntryId, Index, Member, Millis, NodeId, Term
from ._applying import Applying
from ._ballot import Ballot
from ._config import GroupConfig, Timing
from ._configuration import Configuration
from ._durable import Durable, open_log
from ._entry import Entry
from ._messages import InstallSnapshot, Message
from ._ready import Compaction, LoadEntries, Role, RoleChange, SendSnapshot
from ._roles import LONG_AGO, Follower, Leader, RoleState

if TYPE_CHECKING:
    from random import Random

# A refused pre-vote doubles the next timeouts, twice: up to [4E, 8E).
_BACK_OFF_MAX = 2


def _members_of(configuration: Configuration) -> dict[NodeId, Member]:
    return {node_id: configuration.member(node_id) for node_id in configuration.members()}


class Replica:
    """What there is to know at one replica of one group."""

    def __init__(
        self,
        me: Member,
        configuration: Configuration,
        durable: Durable,
        *,
        config: GroupConfig,
        timing: Timing,
        random: Random,
        liveness: Mapping[NodeId, Millis],
        now: Millis,
        applied: Index = 0,
        awaits_number: bool = False,
    ) -> None:
        """
        Args:
            configuration: the group's first one.
            awaits_number: this replica joined a group that others began, and goes by whatever number above `me` a leader calls it.
            applied: where the machine stands: what it has stored by itself, or the snapshot it was restored from; 0: it is new.
            liveness: the node's view of its peers, read and never written here: node id -> until when that node counts as live
                (a missing peer is dead; this node itself is live unless its entry says otherwise). The node moves these points with
                each pulse and steps `PeerDown`/`PeerUp` when one passes or returns; the core compares them with `now` wherever it
                uses them.
            random: the node's generator, shared by all its groups.

        Raises:
            InvariantError: what the disk held cannot be the state of a replica.
        """
        self.me = me
        self.me_unwritten: Member | None = None
        """The number that this replica has just learned it has."""
        self.awaits_number = awaits_number
        self.was_told_removed = False
        self.genesis = configuration.genesis
        """Tells groups apart that were begun by other voters; 0 for a replica that joined."""
        self.founders: Collection[NodeId] = frozenset(id for id, number in configuration.replicas.items() if number == NOTHING)
        """Whoever is a member since the group began; empty for a replica that joined."""
        self.config, self.timing = config, timing
        self.log = open_log(configuration, durable, applied)
        self.applying = Applying(self.log, applied)
        self.snapshot = durable.snapshot
        """The newest snapshot on the disk."""
        self.configuration = self.log.configurations.newest
        """The one in force."""
        self.ballot = Ballot(durable.hard_state)
        if self.log.last.term > self.ballot.term:
            # Term and vote are durable before any entry of the term: if they are not there, a vote may have been lost with them.
            raise InvariantError(f"the log ends with {self.log.last}, but the durable term is {self.ballot.term}: a vote may be lost")
        self.dropped: dict[str, int] = {}
        """Messages that were not looked at any further, by reason."""
        self.has_space = True
        self.memory_bytes_max = config.log_memory_bytes_max
        """For entries in memory: less than configured while the node has asked for less and not got it."""
        self.led_term: Term = 0
        """The last term that this replica has led, in this life."""
        self.refused_rounds = 0
        """Pre-vote rounds in a row that somebody refused."""
        self.rounds = 0
        """The number of the newest round of reads; no role begins anew."""
        self.bound_to: Member | None = None
        self.bound_until = LONG_AGO
        """Until then a lease of `bound_to` may count on this replica. None: it may have been bound before it was started, to anybody."""
        # NB: whoever has made it the sole voter may still lead, and have a lease, until it knows that this is committed.
        if config.lease_reads and not (self.is_sole_voter and self.log.configurations.newest_index <= self.log.commit_index):
            self.bound_until = now + timing.election_timeout

        # What goes out with the next Ready.
        self.messages: list[Message] = []
        self.after_write: list[Message] = []
        self.accepted: list[tuple[Any, EntryId]] = []
        self.answered: list[tuple[Any, Any]] = []
        self.refused: list[tuple[Any, RaftError]] = []
        self.loaded: list[Entry] = []
        """Entries that were read to be applied."""
        self.loads: list[LoadEntries] = []
        self.install: InstallSnapshot | None = None
        self.compaction: Compaction | None = None
        self.send_snapshots: list[SendSnapshot] = []

        # NB: both outlive the role. Who has one under way gets no second one, whatever has become of the first; each is answered once.
        self.loading: dict[NodeId | None, LoadEntries] = {}
        """Entries that are being read, by reader."""
        self.streams: set[NodeId] = set()
        """Nodes that a snapshot is on its way to."""

        self._random = random
        self._liveness = liveness
        self._members = _members_of(self.configuration)
        self.has_place = self.is_counted(me)
        """The newest configuration in the log has this very replica, and nobody has told otherwise."""
        self._now = now
        self._told = RoleChange(Role.FOLLOWER, self.term, None)
        self.state: RoleState = Follower(leader=None, last_heard=LONG_AGO, election_deadline=self.patience_until(now))

    # Who is who

    @property
    def term(self) -> Term:
        return self.ballot.term

    @property
    def leader(self) -> NodeId | None:
        """The leader of the present term, as far as known here."""
        state = self.state
        if type(state) is Leader:
            return self.me.node_id
        if type(state) is Follower and state.leader is not None:
            return state.leader.node_id
        return None

    def is_counted(self, source: Member) -> bool:
        """Whether votes and acknowledgements of this life of a node count: equal replica number, no stranger."""
        return self._members.get(source.node_id) == source

    def is_superseded(self, source: Member) -> bool:
        """Whether this is a former life of a member."""
        known = self._members.get(source.node_id)
        return known is not None and source.replica < known.replica

    def other_members(self) -> list[Member]:
        return [member for node_id, member in self._members.items() if node_id != self.me.node_id]

    def other_voters(self) -> list[Member]:
        return [self._members[node_id] for node_id in self.configuration.voter_ids() if node_id != self.me.node_id]

    def adopt_configuration(self) -> None:
        """Go by the newest configuration in the log, whenever that may have changed."""
        configuration = self.log.configurations.newest
        if configuration is not self.configuration:
            self.configuration = configuration
            self._members = _members_of(configuration)
            self.look_for_place()

    def look_for_place(self) -> None:
        """Go by its own number, or by what it was told of its removal, whenever that may have changed."""
        self.has_place = self.is_counted(self.me) and not self.was_told_removed

    @property
    def is_sole_voter(self) -> bool:
        return self.configuration.voter_ids() == (self.me.node_id,)

    @property
    def can_campaign(self) -> bool:
        return self.has_space and ((self.has_place and self.configuration.is_voter(self.me.node_id)) or self._is_still_needed)

    @property
    def _is_still_needed(self) -> bool:
        """Whether it votes by what is committed or may be, and no more by the newest of that.

        Dissertation 4.2.2, figure 4.6: nobody else may have that entry, and then nobody else can be elected. Its own vote does not count.
        """
        log, me = self.log, self.me
        if log.configurations.newest_index <= log.commit_index or self.was_told_removed:
            return False
        # NB: after a start less is known to be committed than is: it may have come to vote since.
        since = log.configurations.since(log.commit_index)
        return any(known.replicas.get(me.node_id) == me.replica and known.is_voter(me.node_id) for known in since)

    @property
    def is_removed(self) -> bool:
        """It was told, or knows by its log, that it is in the group no more: of what is committed, nothing else counts."""
        if self.has_place or self.was_told_removed:
            return self.was_told_removed
        # Else the newest configuration is older than this replica; or it is the first one, which has removed nobody.
        is_newer = self.me.replica.index <= self.configuration.index != 0
        return is_newer and not self.awaits_number and self.log.configurations.newest_index <= self.log.commit_index

    @property
    def is_out(self) -> bool:
        """Whether nobody may mean this replica by its present number."""
        return not self.has_place and (self.awaits_number or self.is_removed)

    # Time

    def live_until(self, node_id: NodeId) -> Millis:
        """Until when the node counts as live, as its pulse tells."""
        return self._liveness.get(node_id, LONG_AGO)

    def is_own_disk_moving(self, now: Millis) -> bool:
        """Whether this node counts itself as live: its oldest unfinished sync is younger than E. Unless told, it does."""
        return now < self._liveness.get(self.me.node_id, NEVER)

    def draw_delay(self) -> Millis:
        """A part of E, for those whose leader has been silent long enough: so that they do not all start at once."""
        return int(self._random.random() * self.timing.election_timeout)

    def patience_until(self, now: Millis) -> Millis:
        """Until when a follower waits for a leader; a sole voter has nobody to wait for."""
        return now if self.is_sole_voter else now + self.draw_timeout()

    def draw_timeout(self) -> Millis:
        """An election timeout, anew each time (paper 9.3)."""
        base = self.timing.election_timeout << min(self.refused_rounds, _BACK_OFF_MAX)
        return base + int(self._random.random() * base)

    def is_leader_live(self, state: Follower, now: Millis) -> bool:
        """Whether this replica is attached to a leader whose node is live: that pulse speaks for it, and its silence means nothing."""
        return state.is_attached and state.leader is not None and now < self.live_until(state.leader.node_id)

    def is_sticky(self, asker: Member, term: Term, now: Millis) -> bool:
        """Whether this replica has a live leader, as far as it can know, and so helps nobody to replace it (dissertation 4.2.3).

        A leader that asks to be elected in a higher term leads no longer, whatever its node's pulse says.
        """
        if self.is_bound(asker, now):
            return True
        state = self.state
        if type(state) is Follower and state.leader is not None:
            if state.leader == asker and term > self.term:
                return False
            if now < state.last_heard + self.timing.election_timeout:
                return True
            return self.is_leader_live(state, now)
        # A leader whose quorum had passed would have stepped down before it looked at any message.
        return type(state) is Leader

    def bind(self, leader: Member, now: Millis) -> None:
        """Confirm that `leader` leads; it may count on that for a while (dissertation 6.4.1), whatever becomes of either."""
        if self.config.lease_reads:
            self.bound_to, self.bound_until = leader, now + self.timing.election_timeout

    def is_bound(self, asker: Member, now: Millis) -> bool:
        """Whether a lease counts on this replica not to help `asker`, maybe itself, to lead. The leader that has it may replace itself."""
        return now < self.bound_until and asker != self.bound_to

    # What it says

    def send(self, message: Message) -> None:
        """Say something that promises nothing, except that its term is durable."""
        (self.messages if self.ballot.is_durable else self.after_write).append(message)

    def promise(self, message: Message) -> None:
        """Say something that is true once everything up to now is durable."""
        self.after_write.append(message)

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    # What it has in memory

    def load(self, reader: NodeId | None, first: Index, last: Index, bytes_max: int) -> None:
        """Ask for entries that are not in memory; nothing is under way for this reader."""
        load = LoadEntries(reader, first, last, bytes_max)
        self.loading[reader] = load
        self.loads.append(load)

    def trim_memory(self) -> None:
        """Let go of entries beyond the limit, as far as that is possible now."""
        self.log.evict(self.memory_bytes_max)
        if self.log.memory_bytes <= self.memory_bytes_max:
            self.memory_bytes_max = self.config.log_memory_bytes_max
