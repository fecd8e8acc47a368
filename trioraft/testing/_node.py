"""One simulated node: process, clock, disk and pulse links, around the replicas that it hosts.

The pulse is the real one (`PulseLink`): what the manager runs is what is tested here. The rest imitates the manager: liveness is read
off the links each interval, `PeerDown` and `PeerUp` go to the groups that watch that peer, and lines that are news become messages.

A *crash* ends everything at once; the disk keeps what was synced, and some of what was in flight. A *pause* (SIGSTOP) keeps the process:
its clock goes on, arrivals queue up, and all of it is handled in one turn afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from .._errors import NotLeaderError, RaftError
from .._types import NEVER, NOTHING, GroupId, GroupKey, Member, Millis, NodeId
from ..core import (
    Attach,
    AttachRefused,
    Configuration,
    Detach,
    DiskSpace,
    EntryKind,
    Message,
    PeerDown,
    PeerUp,
    Persisted,
    Propose,
    Unreachable,
)
from ..manager._pulse import PulseLink
from ..wire import Pulse, PulseKind, PulseLine
from ._applier import Outcome
from ._disk import GroupDisk, SimulatedDisk, Write
from ._reader import Asker, IndexAsked, IndexTold
from ._replica import SimulatedReplica
from ._snapshots import Stream, StreamEnd

if TYPE_CHECKING:
    from ._simulator import Simulator

_KINDS: dict[type[Attach | Detach | AttachRefused], PulseKind] = {
    Attach: PulseKind.ATTACH,
    Detach: PulseKind.DETACH,
    AttachRefused: PulseKind.REFUSED,
}
_MESSAGES = {kind: message for message, kind in _KINDS.items()}

_Said: TypeAlias = Message | Stream | StreamEnd | IndexAsked | IndexTold
Packet: TypeAlias = "Pulse | tuple[GroupId, _Said]"
"""What the network carries: a pulse, or a message of a group, or a snapshot, or what somebody asks a leader on behalf of a reader."""


class Proposal(Protocol):
    """What a client proposes, and is answered to."""

    @property
    def payload(self) -> bytes: ...

    @property
    def kind(self) -> EntryKind: ...

    def accepted(self) -> None: ...

    def succeed(self, outcome: Outcome) -> None: ...

    def fail(self, error: RaftError) -> None: ...


class SimulatedNode:
    """A node over all its lives."""

    def __init__(self, simulator: Simulator, node_id: NodeId, peers: tuple[NodeId, ...], *, clock_rate: int) -> None:
        """
        Args:
            clock_rate: how fast the node's clock runs, per thousand.
        """
        self.simulator = simulator
        self.id = node_id
        self._peers = peers
        self._clock_rate = clock_rate
        self._clock_start: Millis = 0
        self.random = random.Random(simulator.random.getrandbits(64))
        self.disk = SimulatedDisk(simulator, simulator.random, synced=self._synced, told=self._told)
        self.life = 0
        self.is_up = False
        self.is_paused = False
        self.armed: str | None = None
        """The moment of a turn at which the node is going to crash: ``taken``, ``written``, ``sent``, ``synced``."""
        self.on_armed_crash: Callable[[], None] = lambda: None
        self.apply_ms: tuple[Millis, Millis] = (0, 0)
        self.read_ms: tuple[Millis, Millis] = simulator.schedule.read_ms
        """Range of the time until the disk reads what it was asked for."""
        self.answer_ms: tuple[Millis, Millis] = simulator.schedule.read_ms
        """Range of the time from there until what was read is handed over."""
        self.replicas: dict[GroupId, SimulatedReplica] = {}
        self.liveness: dict[NodeId, Millis] = {}
        self._live: set[NodeId] = set()
        self._known: dict[NodeId, int] = {}
        self._links: dict[NodeId, PulseLink] = {}
        self._sequence = 0
        self._parked: list[tuple[Callable[..., None], tuple[object, ...]]] = []

    # --- time -------------------------------------------------------------------------------------------------------------------------

    def local_now(self) -> Millis:
        """Read the node's clock. It runs at a rate of its own, also while the process is stopped or down."""
        return self._clock_start + self.simulator.now * self._clock_rate // 1000

    def simulated_time(self, local: Millis) -> Millis:
        """Tell when the node's clock will show `local`."""
        return -((self._clock_start - local) * 1000 // self._clock_rate)

    def _tick(self, life: int) -> None:
        if life != self.life or not self.is_up:
            return
        self.simulator.call_in(self.simulator.schedule.timing.heartbeat_interval, self._tick, life)
        if not self.is_paused:
            self._watch_liveness()
            self._send_pulses()

    # --- lives ------------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a life with what is on the disk; nothing happens while the node is up."""
        if self.is_up:
            return
        self.life += 1
        self.is_up = True
        # A machine that comes back counts its time from anywhere.
        self._clock_start = self.simulator.random.randint(0, 1_000_000)
        self.simulator.note("start", f"n{self.id} life {self.life}")
        timing = self.simulator.schedule.timing
        self._links = {peer: PulseLink(self.life, timing) for peer in self._peers}
        self.liveness = {self.id: NEVER, **dict.fromkeys(self._peers, 0)}
        self._live = {self.id}
        self._known = dict.fromkeys(self._peers, 0)
        for group in sorted(self.disk.groups):
            self._open(group)
        self.simulator.call_in(self.simulator.random.randint(0, timing.heartbeat_interval), self._tick, self.life)

    def _open(self, group: GroupId) -> None:
        self.replicas[group] = SimulatedReplica(self, group)
        if self.disk.is_full:
            self.replicas[group].put(DiskSpace(False))

    def join(self, group: GroupId) -> None:
        """A replica begins here, if there is none, and learns everything from whoever leads."""
        if group in self.disk.groups:
            return
        me = Member(self.id, self.disk.barred.get(group, NOTHING))
        self.simulator.note("join", f"{me}/g{group}")
        self.simulator.disks[group, self.id] = self.disk.create(group, me, Configuration(()), awaits_number=True)
        if self.is_up:
            self._open(group)

    def leave(self, group: GroupId) -> None:
        """The replica of a group is removed here, with all that it had; its number never comes again."""
        if group in self.disk.groups:
            self.simulator.note("leave", f"n{self.id}/g{group}")
        self.replicas.pop(group, None)
        for link in self._links.values():
            link.leave(GroupKey(group))
        self.simulator.disks.pop((group, self.id), None)
        self.disk.remove(group)

    def crash(self) -> None:
        """End this life, at whatever point it is."""
        if not self.is_up:
            return
        self.simulator.note("crash", f"n{self.id} life {self.life}")
        self.is_up = self.is_paused = False
        self.replicas = {}
        self._parked = []
        self.disk.crash()
        if self.armed is not None:
            self.armed = None
            self.on_armed_crash()

    def crashes_at(self, moment: str) -> bool:
        return self.armed == moment

    def pause(self) -> None:
        """Stop the process; its clock goes on."""
        if self.is_up and not self.is_paused:
            self.simulator.note("pause", f"n{self.id}")
            self.is_paused = self.disk.is_stopped = True

    def resume(self) -> None:
        """Let the process go on: everything that happened meanwhile happens now, in an order that the seed draws."""
        if not self.is_paused:
            return
        self.simulator.note("resume", f"n{self.id}")
        self.is_paused = self.disk.is_stopped = False
        parked, self._parked = self._parked, []
        clock_first = self.simulator.random.random() < 0.5
        if clock_first:
            self._watch_liveness()
        for call, args in parked:
            if self.is_up:
                call(*args)
        if not self.is_up:
            return
        if not clock_first:
            self._watch_liveness()
        for replica in self.replicas.values():
            replica.resume()
        self.disk.begin()

    def when_running(self, call: Callable[..., None], *args: object) -> None:
        """Call now, or when the process goes on."""
        if self.is_paused:
            self._parked.append((call, args))
        else:
            call(*args)

    # --- disk -------------------------------------------------------------------------------------------------------------------------

    def next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def _synced(self, write: Write, disk: GroupDisk) -> None:
        replica = self.replicas.get(write.group)
        if replica is not None:
            for check in self.simulator.checkers.synced:
                check(replica.who, disk)

    def _told(self, newest: dict[GroupId, int]) -> None:
        if self.crashes_at("synced"):
            self.crash()
            return
        self.when_running(self._tell_persisted, newest)

    def _tell_persisted(self, newest: dict[GroupId, int]) -> None:
        for group, sequence in newest.items():
            if group in self.replicas:
                self.replicas[group].put(Persisted(sequence))

    def set_space(self, available: bool) -> None:
        """The disk is full, or has space again."""
        if self.disk.is_full is not available:
            return
        self.simulator.note("space" if available else "full", f"n{self.id}")
        self.disk.is_full = not available
        if self.is_up:
            self.when_running(self._tell_space, available)
        if available:
            self.disk.begin()

    def _tell_space(self, available: bool) -> None:
        for replica in self.replicas.values():
            replica.put(DiskSpace(available))

    def apply_delay(self) -> Millis:
        low, high = self.apply_ms
        return self.simulator.random.randint(low, high) if high else 0

    # --- messages ---------------------------------------------------------------------------------------------------------------------

    def send(self, group: GroupId, message: _Said) -> None:
        if isinstance(message, Stream):
            target = message.message.target.node_id
        elif isinstance(message, IndexAsked | IndexTold):
            target = message.target
        else:
            target = (message.sender if isinstance(message, StreamEnd) else message.target).node_id
        sent = self.simulator.network.send(self.id, target, (group, message))
        self.simulator.group_messages += 1
        self.simulator.note("sends" if sent else "LOST", f"g{group}", message)
        if not sent and self.simulator.random.random() < 0.3:
            # The real transport notices some losses (a broken connection, a full queue), and only after a while.
            self.simulator.call_in(self.simulator.random.randint(1, 500), self._unreachable, self.life, target)

    def _unreachable(self, life: int, peer: NodeId) -> None:
        if self.is_up and life == self.life:
            self.when_running(self._tell, Unreachable(peer))

    def _tell(self, event: Unreachable) -> None:
        for replica in self.replicas.values():
            replica.put(event)

    def arrive(self, source: NodeId, packet: Packet) -> None:
        """A packet arrives at this node's socket."""
        if not self.is_up:
            return
        if self.is_paused:
            self._parked.append((self._receive, (source, packet)))
        else:
            self._receive(source, packet)

    def _receive(self, source: NodeId, packet: Packet) -> None:
        if isinstance(packet, Pulse):
            self._receive_pulse(source, packet)
        else:
            group, message = packet
            replica = self.replicas.get(group)
            if replica is None:
                return
            if isinstance(message, Stream):
                replica.snapshots.receive(message)
            elif isinstance(message, StreamEnd):
                replica.snapshots.ended(message)
            elif isinstance(message, IndexAsked):
                replica.reader.asked(message)
            elif isinstance(message, IndexTold):
                replica.reader.told(message)
            else:
                replica.put(message)

    def propose(self, group: GroupId, token: Proposal) -> None:
        """A client's command arrives."""
        self.when_running(self._propose, group, token)

    def _propose(self, group: GroupId, token: Proposal) -> None:
        replica = self.replicas.get(group)
        if replica is None:
            token.fail(NotLeaderError(None))
        else:
            replica.request(Propose(token, token.payload, token.kind))

    def read(self, group: GroupId, asker: Asker) -> None:
        """A client's read arrives."""
        self.when_running(self._read, group, asker)

    def _read(self, group: GroupId, asker: Asker) -> None:
        replica = self.replicas.get(group)
        if replica is None:
            asker.fail(NotLeaderError(None))
        else:
            replica.reader.read(asker)

    # --- the pulse --------------------------------------------------------------------------------------------------------------------

    def put_line(self, group: GroupId, message: Attach | Detach | AttachRefused) -> None:
        """Put a line on the pulse instead of sending a message."""
        self.simulator.note("line", f"g{group}", message)
        line = PulseLine(_KINDS[type(message)], GroupKey(group), message.term, message.source.replica, message.target.replica)
        self._links[message.target.node_id].put(line)

    def _send_pulses(self) -> None:
        now, age = self.local_now(), self.disk.sync_age()
        for peer, link in self._links.items():
            self.simulator.network.send(self.id, peer, link.next_pulse(now, age))

    def _receive_pulse(self, source: NodeId, pulse: Pulse) -> None:
        link, now = self._links[source], self.local_now()
        # NB: before the pulse moves the point: a core may have compared it with the time already, and then must hear of the return.
        self._watch_peer(source, now)
        news = link.receive(pulse, now)
        self.liveness[source] = link.live_until
        self._watch_peer(source, now)
        for line in news:
            message = _MESSAGES[line.kind](Member(source, line.source_replica), Member(self.id, line.target_replica), line.term)
            self.simulator.note("hears", line.group, message)
            replica = self.replicas.get(line.group.group_id)
            if replica is not None:
                replica.put(message)
            elif line.kind is PulseKind.ATTACH:
                link.refuse(line)
            else:
                link.forget(line)

    def _watch_liveness(self) -> None:
        now = self.local_now()
        # A node whose own disk hangs is not live for its own groups either: they cannot lead.
        is_sick = self.disk.sync_age() >= self.simulator.schedule.timing.election_timeout
        self.liveness[self.id] = min(now, self.liveness[self.id]) if is_sick else NEVER
        self._watch_peer(self.id, now)
        for peer in self._peers:
            self._watch_peer(peer, now)

    def _watch_peer(self, peer: NodeId, now: Millis) -> None:
        is_live = self.liveness[peer] > now
        if is_live == (peer in self._live):
            return
        if is_live:
            self._live.add(peer)
        else:
            self._live.discard(peer)
        self.simulator.note("up" if is_live else "down", f"n{self.id} sees n{peer}")
        event = self._return_of(peer) if is_live else PeerDown(peer)
        for replica in self.replicas.values():
            if peer in replica.watched:
                replica.put(event)

    def _return_of(self, peer: NodeId) -> PeerUp:
        """A node is live again: the process that was live before, or one that has forgotten what only the old one knew."""
        if peer == self.id:
            return PeerUp(peer, restarted=False)
        before, self._known[peer] = self._known[peer], self._links[peer].peer_incarnation
        return PeerUp(peer, restarted=before != self._known[peer])
