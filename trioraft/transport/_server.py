"""The listener of a node: strangers come in, introduce themselves, and become connections of a peer, or are sent away.

What a stranger can cost is fixed: one task, one buffer of a handshake's size, `handshake_timeout` seconds, and one of
`unauthenticated_connections_max` places. When these are taken the *oldest* stranger goes: a peer needs its place for one round trip,
so a flood of silent connections cannot keep peers out for the length of a timeout.

Of one peer and lane the newest connection counts and ends the one before, which is usually a half-open rest; a newer incarnation of
a peer ends every connection of the older one.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Protocol

import attrs
import trio

from .._errors import TransportError, WireError
from .._types import NodeId
from ..wire import Hello, ProtocolVersionError, decode_hello
from ._address import AnyAddress, UnixAddress
from ._config import RpcServerConfig
from ._contract import Acceptor, Identity, Receiver, SnapshotReceiver
from ._greeting import SNAPSHOT, answer, judge, receive_greeting
from ._inbound import BadFrame, InboundReader
from ._remarks import Remarks, logger
from ._socket import open_listeners, remote_address, set_options
from ._statistics import InboundCounters, InboundStatistics, ServerStatistics

_ABSENT_PEERS_MAX = 1024
"""Nodes without a connection that a listener remembers: their newest start, and their counters."""

_ANSWER_SECONDS_MAX = 2
"""How long a refused caller may take to take its refusal."""


class ServedNode(Protocol):
    """What a listener needs of the node it serves."""

    @property
    def identity(self) -> Identity:
        """Who answers."""

    @property
    def receiver(self) -> Receiver:
        """Who gets what comes in."""


@attrs.define(eq=False)
class _Caller:
    """One connection, a stranger's until `hello` is set."""

    remote: str
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    hello: Hello | None = None
    is_closed: bool = False

    def close(self) -> None:
        self.is_closed = True
        self.scope.cancel()


class RpcServer(Acceptor):
    """The listener of a node, on TCP or on a Unix socket."""

    def __init__(self, config: RpcServerConfig, manager: ServedNode) -> None:
        self._config, self._node = config, manager
        self._strangers: dict[_Caller, None] = {}
        self._callers: dict[NodeId, dict[_Caller, None]] = {}
        self._newest: dict[NodeId, tuple[str, int]] = {}
        self._counters: dict[NodeId, InboundCounters] = {}
        self._refusals: Counter[str] = Counter()
        self._accepted = self._evicted = self._replaced = self._bad_frames = 0
        self._remarks = Remarks()

    async def serve(self, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled; `started()` with the addresses that are bound, as peers dial them.

        Raises:
            TransportError: ``bind``: the address cannot be listened on.
        Cancellation: the listener and all its connections are closed.
        """
        address = self._config.address
        try:
            listeners, bound = await open_listeners(address, self._config.backlog)
        except OSError as error:
            raise TransportError("bind", None, f"cannot listen on {address}: {error}") from error
        if not address.is_loopback:
            logger.warning("listening on %s in plain TCP: whoever can reach it can read everything and act as any node", ", ".join(bound))
        else:
            logger.info("listening on %s", ", ".join(bound))
        async with trio.open_nursery() as nursery:
            task_status.started(bound)
            await trio.serve_listeners(partial(self._serve_socket, address), listeners, handler_nursery=nursery)

    async def _serve_socket(self, here: AnyAddress, stream: trio.SocketStream) -> None:
        try:
            if not isinstance(here, UnixAddress):
                set_options(stream, nodelay=self._config.tcp_nodelay, keepalive=self._config.tcp_keepalive)
            remote = remote_address(stream, here)
        except OSError:
            await trio.aclose_forcefully(stream)
            return
        await self.serve_stream(stream, remote)

    async def serve_stream(self, stream: trio.abc.Stream, remote: str) -> None:
        """Serve one connection that was accepted elsewhere (over TLS, for instance) until it ends, then close it.

        Args:
            remote: where it came from, for the log.
        """
        caller = _Caller(remote)
        self._strangers[caller] = None
        if len(self._strangers) > self._config.unauthenticated_connections_max:
            self._evict(next(iter(self._strangers)))
        try:
            with caller.scope:
                hello = await self._greet(stream, caller)
                if hello is not None:
                    await self._read(stream, caller, hello)
        finally:
            self._forget(caller)
            await trio.aclose_forcefully(stream)

    # From stranger to peer.

    def _evict(self, stranger: _Caller) -> None:
        self._evicted += 1
        # NB: out of the count at once, not when its task comes to its end: a newer one may come in before that.
        self._forget(stranger)
        stranger.close()

    async def _greet(self, stream: trio.abc.Stream, caller: _Caller) -> Hello | None:
        """Return the caller's introduction once it is accepted, or send the caller away."""
        with trio.move_on_after(self._config.handshake_timeout):
            try:
                hello = decode_hello(await receive_greeting(stream))
                return hello if await self._answer(stream, caller, hello) else None
            except ProtocolVersionError as error:
                await self._send_away(stream, caller, None, ("version", str(error)))
            except WireError as error:
                # NB: no answer: what sent this does not speak our language.
                self._refused(caller, None, ("garbage", str(error)))
            except TransportError as error:
                self._refused(caller, None, (error.kind, str(error)))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._refused(caller, None, ("broken", "the connection broke during the handshake"))
            return None
        self._refused(caller, None, ("handshake-timeout", f"no introduction within {self._config.handshake_timeout} s"))
        return None

    async def _answer(self, stream: trio.abc.Stream, caller: _Caller, hello: Hello) -> bool:
        if caller.is_closed:
            return False  # Evicted while its introduction was on the way up.
        refusal = judge(hello, self._node.identity, self._node.receiver) or self._check_room(hello)
        if refusal is not None:
            await self._send_away(stream, caller, hello, refusal)
            return False
        # NB: entered before the answer leaves, in the same synchronous stretch as the checks: two callers cannot take one place.
        self._enter(caller, hello)
        await answer(stream, self._node.identity, None)
        return True

    def _check_room(self, hello: Hello) -> tuple[str, str] | None:
        """Refuse what the receiver has accepted but this listener will not hold."""
        store_id, incarnation = self._newest.get(hello.sender, (hello.store_id, 0))
        if store_id == hello.store_id and hello.incarnation < incarnation:
            return "old-incarnation", f"start {incarnation} of node {hello.sender} has been here, and this is start {hello.incarnation}"
        present = self._callers.get(hello.sender, {})
        if hello.lane == SNAPSHOT and not isinstance(self._node.receiver, SnapshotReceiver):
            return "unknown-lane", "this node takes no snapshots"
        if self._to_replace(hello):
            return None
        if len(present) >= self._config.max_connections_per_addr:
            return "busy", f"node {hello.sender} has {len(present)} connections already"
        if sum(map(len, self._callers.values())) >= self._config.max_connections:
            return "busy", f"all {self._config.max_connections} connections are taken"
        return None

    def _to_replace(self, hello: Hello) -> list[_Caller]:
        """The caller's connections that end when it comes in."""
        return [
            other
            for other in self._callers.get(hello.sender, {})
            if other.hello is not None
            and (
                (other.hello.lane == hello.lane and hello.lane != SNAPSHOT)
                or (other.hello.store_id, other.hello.incarnation) != (hello.store_id, hello.incarnation)
            )
        ]

    def _enter(self, caller: _Caller, hello: Hello) -> None:
        for other in self._to_replace(hello):
            self._replaced += 1
            other.close()
            self._forget(other)
        del self._strangers[caller]
        caller.hello = hello
        self._callers.setdefault(hello.sender, {})[caller] = None
        self._newest[hello.sender] = (hello.store_id, hello.incarnation)
        self._counters.setdefault(hello.sender, InboundCounters())
        self._accepted += 1
        self._forget_absent_peers()

    def _forget_absent_peers(self) -> None:
        """Without TLS anybody can be any node: what is remembered of nodes that are not here must not grow with their number."""
        for book in (self._newest, self._counters):
            while len(book) > self._config.max_connections + _ABSENT_PEERS_MAX:
                del book[next(peer for peer in book if peer not in self._callers)]

    def _forget(self, caller: _Caller) -> None:
        self._strangers.pop(caller, None)
        if caller.hello is not None:
            callers = self._callers.get(caller.hello.sender, {})
            callers.pop(caller, None)
            if not callers:
                self._callers.pop(caller.hello.sender, None)

    async def _send_away(self, stream: trio.abc.Stream, caller: _Caller, hello: Hello | None, refusal: tuple[str, str]) -> None:
        self._refused(caller, hello, refusal)
        with trio.move_on_after(_ANSWER_SECONDS_MAX):
            try:
                await answer(stream, self._node.identity, refusal)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # It has gone by itself.

    def _refused(self, caller: _Caller, hello: Hello | None, refusal: tuple[str, str]) -> None:
        kind, text = refusal
        self._refusals[kind] += 1
        host = caller.remote.rpartition(":")[0]
        who = f"a stranger at {caller.remote}" if hello is None else f"node {hello.sender} at {caller.remote} ({hello.lane} lane)"
        self._remarks.warn((kind, host), "refused %s: %s: %s", who, kind, text)

    # A peer's connection.

    async def _read(self, stream: trio.abc.Stream, caller: _Caller, hello: Hello) -> None:
        peer, node = hello.sender, self._node
        reader = InboundReader(
            stream,
            me=node.identity.node_id,
            peer=peer,
            receiver=node.receiver,
            config=self._config,
            counters=self._counters[peer],
            remarks=self._remarks,
        )
        logger.info("node %d opened its %s lane, from %s", peer, hello.lane, caller.remote)
        node.receiver.connected(peer)
        try:
            reason = await reader.run(is_snapshot=hello.lane == SNAPSHOT)
        except BadFrame as error:
            self._bad_frames += 1
            self._remarks.warn(("bad-frame", peer), "the %s lane of node %d is closed: bad-frame: %s", hello.lane, peer, error)
        else:
            logger.info("the %s lane of node %d has ended: %s", hello.lane, peer, reason)

    def statistics(self) -> ServerStatistics:
        """Counters as of now, frozen."""
        return ServerStatistics(
            connections=sum(map(len, self._callers.values())),
            unauthenticated=len(self._strangers),
            accepted=self._accepted,
            evicted=self._evicted,
            replaced=self._replaced,
            bad_frames=self._bad_frames,
            refusals=dict(self._refusals),
            peers={peer: self._frozen(peer, counters) for peer, counters in self._counters.items()},
        )

    def _frozen(self, peer: NodeId, counters: InboundCounters) -> InboundStatistics:
        return InboundStatistics(
            connections=len(self._callers.get(peer, {})),
            frames=counters.frames,
            bytes=counters.bytes,
            messages=counters.messages,
            bad_messages=counters.bad_messages,
        )
