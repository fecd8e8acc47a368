"""What the tests of a transport are made of: messages, an ear that watches how it is called, and nodes that come and go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final, TypeAlias

import attrs
import trio

from .._errors import TransportError
from .._types import EntryId, GroupKey, Index, Member, NodeId, Term
from ..core import AppendEntries, Entry, EntryKind, RequestVote
from ..transport import Identity, PeerStatistics, Receiver, ServedNode, SnapshotReceiver
from ..wire import Envelope, Pulse
from ._storage_parts import holds, same
from ._transport_place import Endpoint, TransportPlace

CLUSTER_ID: Final = "suite"
LANES: Final = 2
ROUND_TRIPS: Final = 50
"""After so many of them, whatever else was on its way has had its time. No clock is needed for that."""

Judge: TypeAlias = Callable[[Identity], str | None]


# --- what is sent ----------------------------------------------------------------------------------------------------------------------


def append(source: NodeId, target: NodeId, index: Index = 1, *, group: int = 7, size: int = 0) -> Envelope:
    entry = Entry(index, 1, EntryKind.COMMAND, bytes(size))
    before = EntryId(min(1, index - 1), index - 1)
    return Envelope(GroupKey(group), AppendEntries(Member(source), Member(target), 1, before, 0, (entry,)))


def vote(source: NodeId, target: NodeId, term: Term = 1, *, group: int = 7) -> Envelope:
    return Envelope(GroupKey(group), RequestVote(Member(source), Member(target), term, EntryId(0, 0)))


def pulse(sequence: int, incarnation: int = 1) -> Pulse:
    return Pulse(incarnation, sequence, 0, 0, 0, 0)


def index_of(envelope: Envelope) -> Index:
    message = envelope.message
    return message.entries[0].index if isinstance(message, AppendEntries) else 0


def term_of(envelope: Envelope) -> Term:
    message = envelope.message
    return message.term if isinstance(message, RequestVote) else 0


# --- what is heard ---------------------------------------------------------------------------------------------------------------------


@attrs.define
class Watch:
    """What went wrong in one test that no single claim would have seen."""

    verb: str | None = None
    """Which verb is being called at this moment."""
    faults: list[str] = attrs.Factory(list)


class Ear:
    """A receiver that remembers, and lets a test wait."""

    def __init__(self, watch: Watch, node_id: NodeId, seconds: float) -> None:
        self._watch, self._node_id, self._seconds = watch, node_id, seconds
        self.frames: list[tuple[NodeId, Sequence[Envelope]]] = []
        self.pulses: list[tuple[NodeId, Pulse]] = []
        self.lost: list[NodeId] = []
        """Of `unreachable`."""
        self.opened: list[NodeId] = []
        """Of `connected`."""
        self.checked: list[Identity] = []
        self.judge: Judge = lambda peer: None
        self.is_over = False
        self._changed = trio.Event()

    @property
    def envelopes(self) -> list[Envelope]:
        return [envelope for _, envelopes in self.frames for envelope in envelopes]

    @property
    def sequences(self) -> list[int]:
        return [heard.sequence for _, heard in self.pulses]

    def check_peer(self, peer: Identity) -> str | None:
        self._hear("check_peer")
        self.checked.append(peer)
        return self.judge(peer)

    def messages(self, peer: NodeId, envelopes: Sequence[Envelope]) -> None:
        self._hear("messages")
        self.frames.append((peer, envelopes))

    def pulse(self, peer: NodeId, pulse: Pulse) -> None:
        self._hear("pulse")
        self.pulses.append((peer, pulse))

    def unreachable(self, peer: NodeId) -> None:
        self._hear("unreachable")
        self.lost.append(peer)

    def connected(self, peer: NodeId) -> None:
        self._hear("connected")
        self.opened.append(peer)

    def _hear(self, what: str) -> None:
        if self._watch.verb is not None:
            self._watch.faults.append(f"`{what}` of node {self._node_id} was called from inside `{self._watch.verb}`")
        if self.is_over:
            self._watch.faults.append(f"`{what}` of node {self._node_id} was called after its transport had ended")
        self._changed.set()
        self._changed = trio.Event()

    async def wait(self, reached: Callable[[], bool], what: str) -> None:
        with trio.move_on_after(self._seconds):
            while not reached():
                await self._changed.wait()
            return
        raise AssertionError(f"{what}: not within {self._seconds} s")


class SnapshotEar(Ear):
    """Takes snapshots, too, as slowly as its gate lets it."""

    def __init__(self, watch: Watch, node_id: NodeId, seconds: float) -> None:
        super().__init__(watch, node_id, seconds)
        self.pieces: list[tuple[NodeId, bytes]] = []
        """Those that were taken to their end."""
        self.begun = 0
        self.gate: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint

    async def snapshot(self, peer: NodeId, data: bytes) -> None:
        self._hear("snapshot")
        self.begun += 1
        await self.gate()
        self.pieces.append((peer, data))
        self._hear("snapshot")


_: type[Receiver] = Ear
_s: type[SnapshotReceiver] = SnapshotEar


# --- nodes -----------------------------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Node:
    """A node without anything in it but its end of the transport."""

    identity: Identity
    receiver: Ear
    watch: Watch
    endpoint: Endpoint = attrs.field(init=False)
    address: str = ""
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    ended: trio.Event = attrs.Factory(trio.Event)

    @property
    def id(self) -> NodeId:
        return self.identity.node_id

    @contextmanager
    def calling(self, verb: str) -> Iterator[None]:
        self.watch.verb = verb
        try:
            yield
        finally:
            self.watch.verb = None

    def send_append(self, peer: NodeId, *envelopes: Envelope) -> None:
        with self.calling("send_append_entries"):
            self.endpoint.transport.send_append_entries(peer, envelopes)

    def send_vote(self, peer: NodeId, *envelopes: Envelope) -> None:
        with self.calling("send_vote"):
            self.endpoint.transport.send_vote(peer, envelopes)

    def send_pulse(self, peer: NodeId, pulse: Pulse) -> None:
        with self.calling("send_heartbeat_batch"):
            self.endpoint.transport.send_heartbeat_batch(peer, pulse)

    async def send_piece(self, peer: NodeId, data: bytes) -> None:
        await self.endpoint.transport.send_install_snapshot(peer, data)

    def has_room(self, peer: NodeId) -> bool:
        with self.calling("has_room"):
            return self.endpoint.transport.has_room(peer)

    def set_address(self, peer: NodeId, address: str) -> None:
        with self.calling("set_address"):
            self.endpoint.transport.set_address(peer, address)

    def remove_peer(self, peer: NodeId) -> None:
        with self.calling("remove_peer"):
            self.endpoint.transport.remove_peer(peer)

    def retry_now(self, peer: NodeId) -> None:
        with self.calling("retry_now"):
            self.endpoint.transport.retry_now(peer)

    @property
    def dropped_unknown(self) -> int:
        return self.endpoint.transport.statistics().dropped_unknown

    def peer(self, peer: NodeId) -> PeerStatistics:
        return self.endpoint.transport.statistics().peers[peer]

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Live until `scope` is cancelled."""
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    self.address = self.endpoint.address
                    if self.endpoint.acceptor is not None:
                        self.address = (await nursery.start(self.endpoint.acceptor.serve))[0]
                    await nursery.start(self.endpoint.transport.serve, self.identity, self.receiver)
                    task_status.started()
                    await trio.sleep_forever()
        finally:
            self.receiver.is_over = True
            self.ended.set()


_n: Callable[[Node], ServedNode] = lambda node: node  # noqa: E731  # the type is all there is to it


class Cluster:
    """The nodes of one test."""

    def __init__(self, place: TransportPlace, nursery: trio.Nursery) -> None:
        self._place, self._nursery = place, nursery
        self.watch = Watch()

    async def make(
        self,
        node_id: NodeId,
        *,
        cluster_id: str = CLUSTER_ID,
        incarnation: int = 1,
        judge: Judge | None = None,
        takes_snapshots: bool = True,
    ) -> Node:
        """A node that does not run yet."""
        ear = (SnapshotEar if takes_snapshots else Ear)(self.watch, node_id, self._place.seconds)
        ear.judge = judge or ear.judge
        node = Node(Identity(cluster_id, node_id, f"{node_id:032x}", incarnation), ear, self.watch)
        node.endpoint = await self._place.make_endpoint(node)
        return node

    async def run(self, node: Node) -> Node:
        with trio.fail_after(self._place.seconds):
            await self._nursery.start(node.run)
        return node

    async def start(
        self,
        node_id: NodeId,
        *,
        cluster_id: str = CLUSTER_ID,
        incarnation: int = 1,
        judge: Judge | None = None,
        takes_snapshots: bool = True,
    ) -> Node:
        """A node that runs."""
        made = self.make(node_id, cluster_id=cluster_id, incarnation=incarnation, judge=judge, takes_snapshots=takes_snapshots)
        return await self.run(await made)

    async def stop(self, node: Node) -> None:
        node.scope.cancel()
        with trio.move_on_after(self._place.seconds):
            await node.ended.wait()
            return
        raise AssertionError(f"a transport that was cancelled has not ended within {self._place.seconds} s")

    async def pair(self) -> tuple[Node, Node]:
        """Node 1 with open lanes to node 2. Node 2 knows no addresses."""
        one, two = await self.start(1), await self.start(2)
        await self.join(one, two)
        return one, two

    async def join(self, one: Node, other: Node) -> None:
        """Tell one of the other, and wait until the lanes there are open. Meanwhile the other is heard of, again and again."""
        one.set_address(other.id, other.address)
        await self.wait_open(one, other)

    async def wait_open(self, one: Node, other: Node) -> None:
        def is_open() -> bool:
            one.retry_now(other.id)
            return one.peer(other.id).connected_lanes == LANES and len(other.receiver.opened) > 0

        await self.until(is_open, f"lanes of node {one.id} to node {other.id}")

    async def exchange(self, one: Node, other: Node, count: int = ROUND_TRIPS) -> None:
        """So many messages to one side and the other, each sent when the one before it has arrived. Both must know each other."""
        for _ in range(count):
            for source, target in ((one, other), (other, one)):
                before = len(target.receiver.frames)
                source.send_vote(target.id, vote(source.id, target.id))
                await target.receiver.wait(lambda target=target, before=before: len(target.receiver.frames) > before, "a vote")  # type: ignore[misc]  # mypy cannot infer a lambda's defaults

    async def until(self, reached: Callable[[], bool], what: str) -> None:
        """Wait for what only the statistics tell."""
        with trio.move_on_after(self._place.seconds):
            while not reached():  # noqa: ASYNC110  # nobody tells what only counters know
                await trio.sleep(0.001)
            return
        raise AssertionError(f"{what}: not within {self._place.seconds} s")

    def flood(self, source: Node, target: NodeId, send: Callable[[int], None], *, most: int = 1 << 17) -> int:
        """Call `send` with 1, 2, 3, ... without a pause, until messages are dropped, and a few times more. Returns how often."""
        before = source.peer(target).dropped_messages
        for number in range(1, most):
            send(number)
            if source.peer(target).dropped_messages - before >= 20:
                return number
        raise AssertionError(f"{most} messages found room in a queue: it has no limit")


@asynccontextmanager
async def cluster(place: TransportPlace) -> AsyncIterator[Cluster]:
    """The nodes of one test, until its end; then, whether their transports kept to the rules."""
    with trio.move_on_after(3 * place.seconds) as patience:
        await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            made = Cluster(place, nursery)
            yield made
            nursery.cancel_scope.cancel()
    holds(not patience.cancelled_caught, f"the test hangs: {3 * place.seconds} s were not enough")
    same(made.watch.faults, [], "what no transport may do")


async def failed_piece(sending: Awaitable[None], what: str) -> str:
    """The kind of error with which a piece was refused."""
    try:
        await sending
    except TransportError as error:
        holds(error.kind, f"{what}: an error without a kind")
        return error.kind
    raise AssertionError(f"{what}: no TransportError was raised")
