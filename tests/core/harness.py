"""A small deterministic network of cores in memory, for tests that tell a story.

Messages arrive at once and in order, unless a link is cut; disks are durable at once, unless stalled, and are read at once; snapshots
arrive in one piece. Reads and snapshots can be held back. Time stands still until `wait` is called. Pulses are not simulated message
by message: two nodes that reach each other are live to each other, and stop being so one election timeout after they do not. Attach
and detach lines are repeated as a pulse would do it: what was lost is delivered when the link is back, and a node that restarts is
told everything anew.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import attrs

from trioraft._types import NEVER, NOTHING, EntryId, Index, Member, NodeId
from trioraft.core import (
    AppendEntries,
    AppendEntriesReply,
    Applied,
    Attach,
    AttachRefused,
    Campaign,
    ChangeMembers,
    Compaction,
    Configuration,
    Detach,
    DiskSpace,
    Durable,
    EntriesLoaded,
    Entry,
    EntryKind,
    Event,
    GroupConfig,
    HardState,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    LoadEntries,
    Message,
    PeerDown,
    PeerUp,
    Persisted,
    PreVote,
    PreVoteReply,
    Propose,
    Raft,
    Read,
    Ready,
    Removed,
    RequestVote,
    RequestVoteReply,
    Role,
    SendSnapshot,
    SnapshotSent,
    SnapshotTaken,
    Target,
    Terms,
    TimeoutNow,
    TimePassed,
    Timing,
    TransferLeadership,
    decode_configuration,
)

TIMING = Timing()
E = TIMING.election_timeout
H = TIMING.heartbeat_interval


def entries_of(terms: Iterable[int], first: int = 1) -> tuple[Entry, ...]:
    """Entries with these terms, from index `first` on."""
    return tuple(Entry(index, term, EntryKind.COMMAND, b"") for index, term in enumerate(terms, first))


def voters_of(*voters: NodeId, learners: Iterable[NodeId] = ()) -> Configuration:
    return Configuration(frozenset(voters), learners=frozenset(learners))


def make_raft(
    node_id: NodeId = 1,
    configuration: Configuration | None = None,
    *,
    log: Sequence[int] | Sequence[Entry] = (),
    term: int | None = None,
    vote: NodeId | None = None,
    config: GroupConfig | None = None,
    timing: Timing = TIMING,
    seed: int = 0,
    liveness: Mapping[NodeId, int] | None = None,
    now: int = 0,
) -> Raft:
    """A bare core of node `node_id` in a group of (1 2 3), with a log of these terms (or entries) on its disk."""
    configuration = configuration or voters_of(1, 2, 3)
    entries = tuple(
        entry if isinstance(entry, Entry) else Entry(index, entry, EntryKind.COMMAND, b"") for index, entry in enumerate(log, 1)
    )
    if term is None:
        term = entries[-1].term if entries else 0
    me = configuration.member(node_id) if node_id in configuration.members() else Member(node_id)
    # Whatever lives they have now, all of them were there when the group began.
    founders = attrs.evolve(configuration, replicas={})
    changes = [(e.index, decode_configuration(e.payload)) for e in entries if e.kind is EntryKind.CONFIGURATION]
    return Raft(
        me,
        founders,
        Durable(hard_state=HardState(term, vote), entries=entries, configurations=[(0, configuration), *changes]),
        config=config or GroupConfig(),
        timing=timing,
        random=random.Random(seed),
        liveness={} if liveness is None else liveness,
        now=now,
    )


class Turns:
    """Takes Readys from one bare core, and numbers them."""

    def __init__(self, raft: Raft, first: int = 1) -> None:
        self.raft, self.sequence = raft, first - 1

    def take(self) -> Ready:
        """One Ready; its write, if any, stays on its way to the disk."""
        self.sequence += 1
        return self.raft.take_ready(self.sequence)

    def settle(self, now: int) -> list[Message]:
        """Take Readys until there are no more, all written and applied at once; return all messages, in order."""
        messages: list[Message] = []
        while self.raft.has_ready:
            ready = self.take()
            messages += ready.messages
            if ready.writes:
                self.raft.step(Persisted(ready.sequence), now)
            messages += ready.after_write
            if ready.committed:
                self.raft.step(Applied(ready.committed[-1].index), now)
        return messages


def make_leader(
    node_id: NodeId = 1,
    configuration: Configuration | None = None,
    *,
    now: int = 0,
    is_settled: bool = True,
    **options: object,
) -> tuple[Raft, Turns]:
    """A core that all others have just elected; `is_settled`: its no-op is on all disks, committed and known to all."""
    raft = make_raft(node_id, configuration, now=now, **options)  # type: ignore[arg-type]  # of any type
    turns = Turns(raft)
    raft.step(Campaign(), now)
    turns.settle(now)
    for kind in (PreVoteReply, RequestVoteReply):
        for voter in raft.other_voters():
            term = raft.term + 1 if kind is PreVoteReply and raft.role is Role.PRE_CANDIDATE else raft.term
            raft.step(kind(voter, raft.me, term, granted=True), now)
        if kind is PreVoteReply:
            turns.settle(now)
    if raft.role is not Role.LEADER:
        raise AssertionError(f"not elected: {raft.status()}")
    if is_settled:
        turns.settle(now)
        for member in raft.other_members():
            raft.step(AppendEntriesReply(member, raft.me, raft.term, raft.log.last_index), now)
        turns.settle(now)
        for member in raft.other_members():
            raft.step(HeartbeatReply(member, raft.me, raft.term, raft.commit_index), now)
        turns.settle(now)
    return raft, turns


def cut(entries: Sequence[Entry], load: LoadEntries) -> tuple[Entry, ...]:
    """What a disk with these entries answers to a load."""
    if not entries or not entries[0].index <= load.first <= entries[-1].index:
        return ()
    taken: list[Entry] = []
    size = 0
    for entry in entries[load.first - entries[0].index : load.last - entries[0].index + 1]:
        size += len(entry.payload)
        if taken and size > load.bytes_max:
            break
        taken.append(entry)
    return tuple(taken)


@attrs.define
class Disk:
    """What one node has written; a crash keeps the durable part."""

    configuration: Configuration
    """The one where the log begins."""
    me: Member
    awaits_number: bool = False
    hard_state: HardState = HardState()
    start: EntryId = NOTHING
    entries: list[Entry] = attrs.Factory(list)
    commit: Index = 0
    snapshot: EntryId = NOTHING
    snapshots: dict[EntryId, Configuration] = attrs.Factory(dict)
    """Whole snapshots, each with the configuration at its index."""
    pending: deque[tuple[Ready, tuple[Message, ...]] | Compaction] = attrs.Factory(deque)
    """Writes on their way, each with the messages that wait for it; and cuts."""
    is_stalled: bool = False

    @property
    def terms(self) -> Terms:
        terms = Terms(self.start)
        for entry in self.entries:
            terms.extend(entry.index, entry.term)
        return terms

    @property
    def durable(self) -> Durable:
        """What a start finds; its entries are to be read when they are needed."""
        configurations = [(self.start.index, self.configuration)]
        configurations += [(e.index, decode_configuration(e.payload)) for e in self.entries if e.kind is EntryKind.CONFIGURATION]
        return Durable(
            hard_state=self.hard_state,
            terms=self.terms,
            log_bytes=sum(len(entry.payload) for entry in self.entries),
            snapshot=self.snapshot,
            commit=self.commit,
            configurations=configurations,
        )

    def write(self, ready: Ready) -> None:
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state
        if ready.me is not None:
            self.me, self.awaits_number = ready.me, False
        if ready.install is not None:
            at = ready.install.at
            if at not in self.snapshots:
                raise AssertionError(f"an install of {at}, which is not on the disk")
            self._cut(at, ready.install.configuration, keeps_tail=self.terms.at(at.index) == at.term)
            self.snapshot, self.commit = at, max(self.commit, at.index)
        if ready.entries:
            if not self.start.index < ready.entries[0].index <= self.start.index + len(self.entries) + 1:
                raise AssertionError(f"a hole: {ready.entries[0]} behind {self.entries[-1:] or self.start}")
            del self.entries[ready.entries[0].index - self.start.index - 1 :]
            self.entries += ready.entries

    def compact(self, compaction: Compaction) -> None:
        start, snapshot = compaction.start, compaction.snapshot
        if snapshot not in self.snapshots or start.index > snapshot.index or self.terms.at(start.index) != start.term:
            raise AssertionError(f"{compaction} of a log from {self.start} with {list(self.snapshots)}")
        terms = dict(self.durable.configurations)
        configuration = terms[max(index for index in terms if index <= start.index or index == self.start.index)]
        self._cut(start, configuration, keeps_tail=True)
        self.snapshot, self.commit = snapshot, max(self.commit, compaction.commit)
        self.snapshots = {at: kept for at, kept in self.snapshots.items() if at.index >= snapshot.index}

    def _cut(self, start: EntryId, configuration: Configuration, *, keeps_tail: bool) -> None:
        if start.index < self.start.index:
            raise AssertionError(f"a log that begins behind {self.start} is cut back to {start}")
        del self.entries[: start.index - self.start.index if keeps_tail else None]
        self.start, self.configuration = start, configuration


class Network:
    """Some nodes with one replica each of one group."""

    def __init__(
        self,
        voters: Iterable[NodeId] = (1, 2, 3),
        *,
        learners: Iterable[NodeId] = (),
        configuration: Configuration | None = None,
        logs: Mapping[NodeId, Sequence[int]] | None = None,
        terms: Mapping[NodeId, int] | None = None,
        config: GroupConfig | None = None,
        timing: Timing = TIMING,
        seed: int = 0,
    ) -> None:
        """Start all nodes.

        Args:
            logs: the terms of what is in a node's log already.
            terms: the durable terms; by default that of the last entry.
        """
        self.configuration = configuration or voters_of(*voters, learners=learners)
        self.config, self.timing = config or GroupConfig(), timing
        self.now = 0
        self.random = random.Random(seed)
        self.nodes: dict[NodeId, Raft] = {}
        self.disks: dict[NodeId, Disk] = {}
        self.applied: dict[NodeId, list[Entry]] = {}
        """What each node's state machine has been given since its last start or restore."""
        self.restored: dict[NodeId, EntryId] = {}
        """The snapshot that each state machine has been restored from."""
        self.holds_loads = False
        """What is to be read waits in `loads`, until `read`."""
        self.loads: deque[tuple[NodeId, LoadEntries]] = deque()
        self.holds_streams = False
        """Snapshots on their way wait in `streams`, until `end_stream`."""
        self.streams: deque[tuple[NodeId, SendSnapshot]] = deque()
        self.accepted: list[object] = []
        self.answered: list[tuple[object, object]] = []
        self.refused: list[tuple[object, Exception]] = []
        self.trace: list[str] = []
        self.sent: list[Message] = []
        """Every message that has left a node, lost ones included."""
        self._in_flight: deque[Message] = deque()
        self._cuts: set[tuple[NodeId, NodeId]] = set()
        self._liveness: dict[NodeId, dict[NodeId, int]] = {node_id: {} for node_id in self.configuration.members()}
        # The last attach or detach line from one node to another, and those that are lost so far.
        self._lines: dict[tuple[NodeId, NodeId], Attach | Detach] = {}
        self._lost_lines: set[tuple[NodeId, NodeId]] = set()
        self._joined: set[NodeId] = set()
        self._sequence = 0
        for node_id in self.configuration.members():
            entries = list(entries_of((logs or {}).get(node_id, ())))
            term = (terms or {}).get(node_id, entries[-1].term if entries else 0)
            self.disks[node_id] = Disk(self.configuration, self.configuration.member(node_id), hard_state=HardState(term), entries=entries)
        for node_id in self.configuration.members():
            self._start(node_id)
        self._refresh_liveness()

    def add_node(self, node_id: NodeId) -> None:
        """Let there be another node, with a replica that joins whenever a leader calls it."""
        for view in self._liveness.values():
            view[node_id] = 0
        self._liveness[node_id] = dict.fromkeys(self._liveness, 0)
        self._join(Member(node_id))

    def replace(self, node_id: NodeId) -> None:
        """Remove a node's replica with all that it had, and let a new one join; the number of the old one never comes again."""
        if node_id in self.nodes:
            self.crash(node_id)
        self._join(self.disks[node_id].me)

    @property
    def members(self) -> dict[NodeId, Member]:
        """The present life of each node in the group, as its disk has it."""
        return {node_id: disk.me for node_id, disk in self.disks.items()}

    # Faults

    def cut(self, one: NodeId, other: NodeId, *, both_ways: bool = True) -> None:
        """Lose what `one` says to `other`, and the other way round."""
        self._cuts.add((one, other))
        if both_ways:
            self._cuts.add((other, one))
        self._refresh_liveness()

    def isolate(self, node_id: NodeId) -> None:
        for other in self._liveness:
            if other != node_id:
                self.cut(node_id, other)

    def heal(self) -> None:
        """Mend every link."""
        self._cuts.clear()
        for pair in sorted(self._lost_lines):
            self._in_flight.append(self._lines[pair])
        self._lost_lines.clear()
        self._refresh_liveness()

    def crash(self, node_id: NodeId) -> None:
        """Stop a node; what is not durable is gone."""
        del self.nodes[node_id]
        self.disks[node_id].pending.clear()
        self.disks[node_id].is_stalled = False
        self.loads = deque(waiting for waiting in self.loads if waiting[0] != node_id)
        self.streams = deque(waiting for waiting in self.streams if waiting[0] != node_id)
        self._refresh_liveness()

    def restart(self, node_id: NodeId) -> None:
        """Start a node again from its disk."""
        if node_id in self.nodes:
            self.crash(node_id)
        self._start(node_id)
        for (source, target), line in sorted(self._lines.items()):
            if source == node_id:
                # What a new process does not list, it does not stand for.
                del self._lines[source, target]
                self._lost_lines.discard((source, target))
                if isinstance(line, Attach):
                    self._in_flight.append(Detach(line.source, line.target, line.term))
            elif target == node_id:
                self._in_flight.append(line)
        self._refresh_liveness()
        for other in sorted(self.nodes):
            if node_id in self.nodes[other].watched() and self._liveness[other][node_id] > self.now:
                self.step(other, PeerUp(node_id))

    def stall(self, node_id: NodeId) -> None:
        """Let a disk finish no more writes until `sync`."""
        self.disks[node_id].is_stalled = True

    def sync(self, node_id: NodeId) -> None:
        """Let a stalled disk finish everything, and go on as before."""
        disk = self.disks[node_id]
        disk.is_stalled = False
        while disk.pending:
            self._finish_write(node_id)

    # What users do

    def campaign(self, node_id: NodeId) -> None:
        """Let one node start an election now."""
        self.step(node_id, Campaign())

    def elect(self, node_id: NodeId) -> None:
        """Let one node win an election now, whoever leads: the others forget whom they follow.

        Raises:
            AssertionError: it did not win.
        """
        for other in sorted(self.nodes):
            raft = self.nodes[other]
            if other != node_id and raft.leader is not None:
                leader = self.configuration.member(raft.leader)
                if raft.leader != other:
                    self.step(other, Detach(leader, raft.me, raft.term))
        if self.nodes[node_id].leader is not None and self.nodes[node_id].role is not Role.LEADER:
            leader = self.configuration.member(self.nodes[node_id].leader or 0)
            self.step(node_id, Detach(leader, self.nodes[node_id].me, self.nodes[node_id].term))
        self.campaign(node_id)
        self.deliver()
        if self.nodes[node_id].role is not Role.LEADER:
            raise AssertionError(f"node {node_id} was not elected:\n" + "\n".join(self.trace))

    def propose(self, node_id: NodeId, *payloads: bytes) -> None:
        for payload in payloads:
            self.step(node_id, Propose(payload, payload))

    def change(self, node_id: NodeId, *voters: NodeId, learners: Iterable[NodeId] = ()) -> None:
        target = Target(frozenset(voters), frozenset(learners))
        self.step(node_id, ChangeMembers(target, target))

    def read_index(self, node_id: NodeId, *tokens: str) -> None:
        for token in tokens:
            self.step(node_id, Read([token]))

    def transfer(self, node_id: NodeId, target: NodeId | None = None) -> None:
        self.step(node_id, TransferLeadership("transfer", target))

    def snapshot(self, node_id: NodeId) -> EntryId:
        """Take a snapshot of what one node's machine has applied, unless it waits to be restored itself."""
        raft = self.nodes[node_id]
        index = raft.applied_index
        if raft.applying.is_restoring:
            return NOTHING
        at = EntryId(raft.term_at(index), index)
        self.disks[node_id].snapshots[at] = raft.configuration_at(index)
        self.trace.append(f"n{node_id} takes a snapshot at {at}")
        self.step(node_id, SnapshotTaken(at))
        return at

    def read(self) -> None:
        """Answer everything that is to be read, from what is durable."""
        while self.loads:
            node_id, load = self.loads.popleft()
            self.step(node_id, EntriesLoaded(load, cut(self.disks[node_id].entries, load)))

    def end_stream(self, *, arrives: bool = True) -> None:
        """Let the oldest snapshot on its way arrive, or be lost."""
        source, send = self.streams.popleft()
        target = send.target.node_id
        at = self.disks[source].snapshot
        arrives = arrives and self._reaches(source, target) and self._reaches(target, source) and self.nodes[target].me == send.target
        if arrives:
            configuration = self.disks[source].snapshots[at]
            self.disks[target].snapshots[at] = configuration
            message = InstallSnapshot(self.nodes[source].me, send.target, send.term, at, configuration)
            self.trace.append(render(message))
            self.step(target, message)
        else:
            self.trace.append(f"n{source} -> n{target} snapshot {at} does not arrive")
        self.step(source, SnapshotSent(send.target, at, arrives))

    def space(self, node_id: NodeId, available: bool) -> None:
        self.step(node_id, DiskSpace(available))

    def inject(self, message: Message) -> None:
        """Deliver a message that nobody sent."""
        if message.target.node_id in self.nodes:
            self.step(message.target.node_id, message)

    # Running

    def step(self, node_id: NodeId, event: Event) -> None:
        self.nodes[node_id].step(event, self.now)

    def turn(self, node_id: NodeId) -> None:
        """One turn of one node's driver: take one Ready and carry it out."""
        raft = self.nodes[node_id]
        self._sequence += 1
        ready = raft.take_ready(self._sequence)
        self._post(ready.messages)
        disk = self.disks[node_id]
        if ready.writes or ready.after_write:
            disk.pending.append((ready, ready.after_write))
        if ready.compaction is not None:
            disk.pending.append(ready.compaction)
        self.loads += [(node_id, load) for load in ready.loads]
        self.streams += [(node_id, send) for send in ready.send_snapshots]
        self.trace += [f"n{node_id} sends snapshot {send.at} to {send.target}" for send in ready.send_snapshots]
        while disk.pending and not disk.is_stalled:
            self._finish_write(node_id)
        if ready.restore is not None:
            if ready.restore not in disk.snapshots:
                raise AssertionError(f"node {node_id} is to restore {ready.restore}, which is gone")
            self.trace.append(f"n{node_id} restores {ready.restore}")
            self.applied[node_id], self.restored[node_id] = [], ready.restore
            self.step(node_id, Applied(ready.restore.index))
        if ready.committed:
            self._check_order(node_id, ready.committed)
            self.trace.append(f"n{node_id} applies {' '.join(map(str, ready.committed))}")
            self.applied[node_id] += ready.committed
            self.step(node_id, Applied(ready.committed[-1].index))
        self.accepted += [token for token, _ in ready.accepted]
        self.answered += ready.answered
        self.trace += [f"n{node_id} answers {token!r}: {value}" for token, value in ready.answered]
        self.refused += ready.refused
        self.trace += [f"n{node_id} refuses {token!r}: {error}" for token, error in ready.refused]
        if ready.role_change is not None:
            change = ready.role_change
            of = f" of n{change.leader}" if change.role is Role.FOLLOWER and change.leader is not None else ""
            self.trace.append(f"n{node_id} is {change.role.value}{of} in term {change.term}")

    def deliver(self, steps_max: int = 100_000) -> None:
        """Run until nobody has anything to say at this moment."""
        for _ in range(steps_max):
            if not self._run_ready() and not self._deliver_one() and not self._serve_disks_and_streams():
                return
        raise AssertionError("the network does not come to rest:\n" + "\n".join(self.trace[-40:]))

    def deliver_one(self) -> Message | None:
        """Run all drivers, then deliver one message; return it, or None if there is none."""
        while self._run_ready():
            pass
        return self._deliver_one()

    def drop_all(self) -> None:
        """Lose everything that is on its way."""
        while self._run_ready():
            pass
        self._in_flight.clear()

    def wait(self, milliseconds: int) -> None:
        """Let time pass: every deadline is met on time, and everything said is delivered at once."""
        end = self.now + milliseconds
        self.deliver()
        while (point := self._next_point()) <= end:
            self.now = max(self.now, point)
            for node_id, raft in sorted(self.nodes.items()):
                for other, until in sorted(self._liveness[node_id].items()):
                    if until == self.now and other in raft.watched():
                        self.step(node_id, PeerDown(other))
                if raft.deadline <= self.now:
                    self.step(node_id, TimePassed())
            self.deliver()
        self.now = end

    # Looking

    @property
    def leaders(self) -> list[NodeId]:
        return [node_id for node_id, raft in sorted(self.nodes.items()) if raft.role is Role.LEADER]

    @property
    def leader(self) -> NodeId | None:
        """Who leads the highest term."""
        leading = [(self.nodes[node_id].term, node_id) for node_id in self.leaders]
        return max(leading)[1] if leading else None

    def log_terms(self, node_id: NodeId) -> list[int]:
        raft = self.nodes[node_id]
        return [raft.term_at(index) for index in range(raft.log.start.index + 1, raft.log.last_index + 1)]

    def status_line(self, node_id: NodeId) -> str:
        if node_id not in self.nodes:
            return f"n{node_id} is down"
        status = self.nodes[node_id].status()
        deadline = self.nodes[node_id].deadline
        rest = "quiet" if deadline == NEVER else f"wakes at {deadline}"
        return (
            f"n{node_id}@{status.term} {status.role.value}, last {status.last}, commit {status.commit_index}, "
            f"applied {status.applied_index}, {rest}"
        )

    # Inside

    def _start(self, node_id: NodeId) -> None:
        disk = self.disks[node_id]
        self.applied[node_id], self.restored[node_id] = [], disk.snapshot
        self.nodes[node_id] = Raft(
            disk.me,
            Configuration(()) if node_id in self._joined else self.configuration,
            disk.durable,
            config=self.config,
            timing=self.timing,
            random=self.random,
            liveness=self._liveness[node_id],
            now=self.now,
            applied=disk.snapshot.index,
            awaits_number=disk.awaits_number,
        )

    def _join(self, barred: Member) -> None:
        node_id = barred.node_id
        self._joined.add(node_id)
        self.disks[node_id] = Disk(Configuration(()), barred, awaits_number=True)
        self._start(node_id)
        self._refresh_liveness()

    def _check_order(self, node_id: NodeId, committed: Sequence[Entry]) -> None:
        before = self.applied[node_id][-1].index if self.applied[node_id] else self.restored[node_id].index
        if [entry.index for entry in committed] != list(range(before + 1, before + 1 + len(committed))):
            raise AssertionError(f"node {node_id} is at {before}, and is given {', '.join(map(str, committed))}")

    def _serve_disks_and_streams(self) -> bool:
        if self.loads and not self.holds_loads:
            self.read()
            return True
        if self.streams and not self.holds_streams:
            self.end_stream()
            return True
        return False

    def _reaches(self, source: NodeId, target: NodeId) -> bool:
        return (source, target) not in self._cuts and target in self.nodes

    def _refresh_liveness(self) -> None:
        for one in self._liveness:
            for other in self._liveness:
                if one == other:
                    continue
                view = self._liveness[one]
                is_live = one in self.nodes and self._reaches(one, other) and self._reaches(other, one)
                if not is_live:
                    view[other] = min(view.get(other, 0), self.now + self.timing.election_timeout)
                elif view.get(other, 0) != NEVER:
                    was_dead = view.get(other, 0) <= self.now
                    view[other] = NEVER
                    if was_dead and other in self.nodes[one].watched():
                        self.step(one, PeerUp(other))

    def _finish_write(self, node_id: NodeId) -> None:
        disk = self.disks[node_id]
        done = disk.pending.popleft()
        if isinstance(done, Compaction):
            disk.compact(done)
            return
        ready, waiting = done
        disk.write(ready)
        if ready.writes:
            self.step(node_id, Persisted(ready.sequence))
        self._post(waiting)

    def _post(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self.sent.append(message)
            self.trace.append(render(message))
            if isinstance(message, Attach | Detach):
                self._lines[message.source.node_id, message.target.node_id] = message
            self._in_flight.append(message)

    def _run_ready(self) -> bool:
        busy = [node_id for node_id, raft in sorted(self.nodes.items()) if raft.has_ready]
        for node_id in busy:
            self.turn(node_id)
        return bool(busy)

    def _deliver_one(self) -> Message | None:
        while self._in_flight:
            message = self._in_flight.popleft()
            pair = message.source.node_id, message.target.node_id
            if self._reaches(*pair):
                self.step(message.target.node_id, message)
                return message
            if isinstance(message, Attach | Detach) and self._lines.get(pair) is message:
                self._lost_lines.add(pair)
        return None

    def _next_point(self) -> int:
        points = [raft.deadline for raft in self.nodes.values()]
        points += [until for node_id in self.nodes for until in self._liveness[node_id].values() if until > self.now]
        return min(points)


def render(message: Message) -> str:
    """Show a message on one line, as scripts do: ``n1@2 -> n2 AppendEntries 5@1 [6@2]``."""
    head = f"{message.source}@{message.term} -> {message.target} {type(message).__name__}"
    return f"{head}{_details(message)}"


def _details(message: Message) -> str:
    match message:
        case PreVote() | RequestVote():
            return f" {message.last}" + (" transfer" if getattr(message, "transfer", False) else "")
        case PreVoteReply() | RequestVoteReply():
            return " granted" if message.granted else " refused"
        case AppendEntries():
            return f" {message.previous} [{' '.join(map(str, message.entries))}] commit {message.commit}"
        case AppendEntriesReply():
            if message.rejected:
                return f" rejected {message.rejected}, hint {message.hint}"
            return f" match {message.match}"
        case Heartbeat() | HeartbeatReply():
            return f" commit {message.commit}" + (f" round {message.round}" if message.round else "")
        case InstallSnapshot():
            return f" {message.at} {message.configuration}"
        case Removed():
            return f" by {message.index}"
        case Attach() | Detach() | AttachRefused() | TimeoutNow():
            return ""
