"""What the tests of the transport share: a receiver that remembers, whole nodes on sockets or on streams in memory, raw callers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio
import trio.testing

from trioraft._types import EntryId, GroupKey, Member
from trioraft.core import AppendEntries, Entry, EntryKind, RequestVote
from trioraft.transport import Identity, RpcServer, RpcServerConfig, TcpTransport, TcpTransportConfig
from trioraft.transport._address import Address
from trioraft.wire import Envelope, FrameReader, Hello, Pulse, Welcome, decode_welcome, encode_frame, encode_hello

LOCAL = RpcServerConfig(bind_addr="127.0.0.1:0")


def identity(node_id: int, *, cluster: str = "test", incarnation: int = 1, store: int | None = None) -> Identity:
    return Identity(cluster, node_id, f"{store if store is not None else node_id:032x}", incarnation)


def append(source: int, target: int, *, group: int = 7, size: int = 0, index: int = 1) -> Envelope:
    entry = Entry(index, 1, EntryKind.COMMAND, b"x" * size)
    return Envelope(
        GroupKey(group),
        AppendEntries(Member(source), Member(target), 1, EntryId(1, index - 1) if index > 1 else EntryId(0, 0), 0, (entry,)),
    )


def vote(source: int, target: int, *, group: int = 7, term: int = 1) -> Envelope:
    return Envelope(GroupKey(group), RequestVote(Member(source), Member(target), term, EntryId(0, 0)))


def pulse(sequence: int = 1, incarnation: int = 1) -> Pulse:
    return Pulse(incarnation, sequence, 0, 0, 0, 0)


class FakeReceiver:
    """Remembers what it hears, and lets a test wait for it."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, list[Envelope]]] = []
        self.pulses: list[tuple[int, Pulse]] = []
        self.unreachable_peers: list[int] = []
        self.connected_peers: list[int] = []
        self.checked: list[Identity] = []
        self.refusal: str | None = None
        self._changed = trio.Event()

    @property
    def envelopes(self) -> list[Envelope]:
        return [envelope for _, envelopes in self.frames for envelope in envelopes]

    def has_more_than(self, count: int) -> bool:
        return len(self.envelopes) > count

    def check_peer(self, peer: Identity) -> str | None:
        self.checked.append(peer)
        return self.refusal

    def messages(self, peer: int, envelopes: Sequence[Envelope]) -> None:
        self.frames.append((peer, list(envelopes)))
        self._note()

    def pulse(self, peer: int, pulse: Pulse) -> None:
        self.pulses.append((peer, pulse))
        self._note()

    def unreachable(self, peer: int) -> None:
        self.unreachable_peers.append(peer)
        self._note()

    def connected(self, peer: int) -> None:
        self.connected_peers.append(peer)
        self._note()

    async def wait(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._changed = trio.Event()
            await self._changed.wait()

    def _note(self) -> None:
        self._changed.set()


class SnapshotTaker(FakeReceiver):
    """Also takes snapshots, a piece at a time, when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[tuple[int, bytes]] = []
        self.gate: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint

    async def snapshot(self, peer: int, data: bytes) -> None:
        await self.gate()
        self.pieces.append((peer, data))
        self._note()


class Node:
    """A whole node's worth of transport, without a node."""

    def __init__(
        self,
        who: Identity,
        *,
        receiver: FakeReceiver | None = None,
        config: TcpTransportConfig | None = None,
        server: RpcServerConfig = LOCAL,
        open_stream: Any = None,
    ) -> None:
        self.identity = who
        self.receiver = receiver if receiver is not None else FakeReceiver()
        self.transport = TcpTransport(config, open_stream=open_stream)
        self.server = RpcServer(server, self)
        self.address = ""

    async def listen(self, nursery: trio.Nursery) -> None:
        [self.address] = await nursery.start(self.server.serve)

    async def dial(self, nursery: trio.Nursery) -> None:
        await nursery.start(self.transport.serve, self.identity, self.receiver)

    def peer(self, node_id: int) -> Any:
        return self.transport.statistics().peers[node_id]


async def until(reached: Callable[[], bool], seconds: float = 5) -> None:
    """Wait for something that nobody tells of; polls."""
    with trio.fail_after(seconds):
        while not reached():
            await trio.sleep(0.002)


@asynccontextmanager
async def pair(
    one: Node | None = None, two: Node | None = None, *, both_ways: bool = False, wait: bool = True
) -> AsyncIterator[tuple[Node, Node, trio.Nursery]]:
    """Node 1 dials node 2 on real sockets; also the other way if `both_ways`."""
    one, two = one or Node(identity(1)), two or Node(identity(2))
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            await one.listen(nursery)
            await two.listen(nursery)
            one.transport.set_address(two.identity.node_id, two.address)
            if both_ways:
                two.transport.set_address(one.identity.node_id, one.address)
            await one.dial(nursery)
            await two.dial(nursery)
            if wait:
                await until(lambda: one.peer(two.identity.node_id).connected_lanes == 2)
            yield one, two, nursery
            nursery.cancel_scope.cancel()


class Cable:
    """An `open_stream` over streams in memory, so that whole nodes run on a mock clock. What it does is the test's choice."""

    def __init__(self, nursery: trio.Nursery, server: RpcServer | None = None) -> None:
        self.nursery, self.server = nursery, server
        self.attempts: list[float] = []
        self.ends: list[tuple[Any, Any]] = []
        self.is_up = True
        self.handler: Callable[[trio.abc.Stream], Awaitable[object]] | None = None

    async def open(self, address: Address) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.attempts.append(trio.current_time())
        if not self.is_up:
            raise ConnectionRefusedError("nobody there")
        ours, theirs = trio.testing.memory_stream_pair()
        self.ends.append((ours, theirs))
        if self.handler is not None:
            self.nursery.start_soon(self.handler, theirs)
        elif self.server is not None:
            self.nursery.start_soon(self.server.serve_stream, theirs, "memory:1")
        return ours

    def lose_what_is_sent(self) -> None:
        """From now on what was opened here is half-open: what the dialler says goes nowhere, and nobody tells it."""
        for ours, _ in self.ends:
            ours.send_stream.send_all_hook = partial(self._swallow, ours)
            ours.send_stream.close_hook = None

    async def _swallow(self, ours: Any) -> None:
        ours.send_stream.get_data_nowait()


@attrs.define
class Caller:
    """A raw connection to a listener, to say what no honest node would."""

    stream: trio.SocketStream
    frames: FrameReader = attrs.Factory(lambda: FrameReader(1 << 20))

    @classmethod
    async def dial(cls, address: str) -> Caller:
        at = Address.parse(address)
        return cls(await trio.open_tcp_stream(at.host, at.port))

    async def say(self, body: bytes) -> None:
        await self.stream.send_all(encode_frame([body]))

    async def hello(
        self, sender: int, receiver: int, *, cluster: str = "test", incarnation: int = 1, lane: str = "append", store: int | None = None
    ) -> Welcome:
        who = identity(sender, cluster=cluster, incarnation=incarnation, store=store)
        await self.say(encode_hello(Hello(cluster, sender, receiver, who.store_id, incarnation, lane)))
        body = await self.hear()
        assert body is not None
        return decode_welcome(body)

    async def hear(self) -> bytes | None:
        """The next body, or None when the listener closes."""
        while (body := self.frames.next_frame()) is None:
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self.frames.feed(data)
        return body

    async def is_closed(self) -> bool:
        """Wait until the listener closes; False if it says something first."""
        return await self.hear() is None

    async def close(self) -> None:
        await trio.aclose_forcefully(self.stream)
