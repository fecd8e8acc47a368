"""The snapshots of one replica, in one life: taken here, streamed to others, received from a leader.

The network carries a stream as one packet, which may be lost, come twice, much later, or again when it is long forgotten. The sender
tells its core of the end exactly once: when the receiver says that it has all of it, or when it has heard nothing for too long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from .._types import EntryId, Member, Millis
from ..core import InstallSnapshot, SendSnapshot, SnapshotSent, SnapshotTaken
from ._machine import Snapshot
from ._violation import PropertyViolation

if TYPE_CHECKING:
    from ._replica import SimulatedReplica

_BROKEN = 0.15
"""How often a stream breaks before anything has arrived."""


class Stream(NamedTuple):
    """A whole snapshot on its way."""

    message: InstallSnapshot
    snapshot: Snapshot
    number: int

    def __str__(self) -> str:
        message = self.message
        return f"{message.source}@{message.term} -> {message.target} snapshot {self.snapshot}"


class StreamEnd(NamedTuple):
    """The receiver has all of it, and has handed it to its core."""

    sender: Member
    receiver: Member
    number: int

    def __str__(self) -> str:
        return f"{self.receiver} -> {self.sender} has the snapshot"


class SimulatedSnapshots:
    """What the driver of a replica does about snapshots."""

    def __init__(self, replica: SimulatedReplica) -> None:
        self._replica = replica
        self._node, self._simulator = replica.node, replica.node.simulator
        self._schedule = self._simulator.schedule
        self._random = self._simulator.random
        self._is_taking = False
        self._streams: dict[int, SnapshotSent] = {}

    def _later(self, limits: tuple[Millis, Millis], call: Callable[..., None], *args: object) -> None:
        self._simulator.call_in(self._random.randint(*limits), self._when_running, call, args)

    def _when_running(self, call: Callable[..., None], args: tuple[object, ...]) -> None:
        if self._replica.is_alive:
            self._node.when_running(self._if_alive, call, args)

    def _if_alive(self, call: Callable[..., None], args: tuple[object, ...]) -> None:
        if self._replica.is_alive:
            call(*args)

    # --- taking -----------------------------------------------------------------------------------------------------------------------

    def consider(self) -> None:
        """The machine has applied something: take a view of it if it is time, or just so."""
        replica, schedule = self._replica, self._schedule
        raft, applier = replica.raft, replica.applier
        index = applier.index
        if self._is_taking or applier.is_restoring or index < replica.log.start.index or index <= raft.snapshot.index:
            return
        if index - raft.snapshot.index < schedule.config.snapshot_entries and self._random.random() * 1000 >= schedule.snapshot_chance:
            return
        if not raft.configuration_at(index).voters:
            return  # it joined, and does not know yet who was in the group then
        at = EntryId(raft.term_at(index), index)
        snapshot = applier.machine.snapshot(at, raft.configuration_at(index))
        self._is_taking = True
        self._later(schedule.snapshot_ms, self._taken, snapshot)

    def _taken(self, snapshot: Snapshot) -> None:
        self._is_taking = False
        if self._node.disk.is_full:
            return
        self._save(snapshot)
        self._simulator.counts["snapshots"] += 1
        self._simulator.note("taken", self._replica.who, snapshot)
        self._replica.put(SnapshotTaken(snapshot.at))

    def _save(self, snapshot: Snapshot) -> None:
        disk = self._replica.disk
        disk.files[snapshot.at] = snapshot
        for check in self._simulator.checkers.saves:
            check(self._replica.who, snapshot, disk)

    # --- sending ----------------------------------------------------------------------------------------------------------------------

    def send(self, request: SendSnapshot) -> None:
        """Stream the snapshot that was asked for, or a newer one."""
        self._simulator.counts["streams"] += 1
        self._later((0, self._schedule.snapshot_ms[1]), self._start, request)

    def _start(self, request: SendSnapshot) -> None:
        replica = self._replica
        newest = replica.raft.snapshot
        snapshot = replica.disk.files.get(newest)
        if snapshot is None:
            raise PropertyViolation("snapshot-lost", f"{replica.who} wants to send {newest}, which is not on its disk")
        if newest.index < request.at.index:
            raise PropertyViolation("snapshot-lost", f"{replica.who} wants to send {request.at}, but its newest is {newest}")
        end = SnapshotSent(request.target, newest, False)
        if self._random.random() < _BROKEN:
            replica.put(end)
            return
        self._simulator.stream_count += 1
        number = self._simulator.stream_count
        self._streams[number] = end
        message = InstallSnapshot(replica.me, request.target, request.term, newest, snapshot.configuration)
        self._node.send(replica.group, Stream(message, snapshot, number))
        self._later((500, 3000), self._end, number, False)

    def ended(self, end: StreamEnd) -> None:
        """The receiver says that it has everything."""
        if end.sender == self._replica.me:
            self._end(end.number, True)

    def _end(self, number: int, arrived: bool) -> None:
        end = self._streams.pop(number, None)
        if end is not None:
            self._replica.put(SnapshotSent(end.target, end.at, arrived))

    # --- receiving --------------------------------------------------------------------------------------------------------------------

    def receive(self, stream: Stream) -> None:
        """Take a snapshot; what is of no use is answered by the core, as a message that comes too late."""
        message, raft = stream.message, self._replica.raft
        if message.target != self._replica.me or raft.is_superseded(message.source):
            return
        if message.term < raft.term or message.at.index <= raft.commit_index:
            self._hand_over(stream)
        elif not self._node.disk.is_full:
            self._later(self._schedule.snapshot_ms, self._received, stream)

    def _received(self, stream: Stream) -> None:
        if not self._node.disk.is_full:
            self._save(stream.snapshot)
            self._hand_over(stream)

    def _hand_over(self, stream: Stream) -> None:
        message = stream.message
        self._replica.put(message)
        self._node.send(self._replica.group, StreamEnd(message.source, message.target, stream.number))
