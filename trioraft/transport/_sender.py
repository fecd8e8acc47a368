"""One lane of one peer: dial, introduce ourselves, write until the connection ends, wait, dial again.

A wait starts at `backoff_min` only after a connection that lived for `backoff_max`, or when the peer itself is heard of: a peer that
accepts and closes at once, or refuses, is dialled no more often than one that is away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from .._errors import TransportError
from .._types import NodeId
from ._address import Address, AnyAddress
from ._backoff import Backoff
from ._batcher import Batcher
from ._config import TcpTransportConfig
from ._connection import OutgoingConnection
from ._contract import Identity, Receiver
from ._greeting import introduce
from ._outbox import Outbox
from ._remarks import Remarks, logger
from ._statistics import LaneCounters

OpenStream: TypeAlias = Callable[[Address], Awaitable[trio.abc.Stream]]
"""Open a stream to a ``host:port``: TCP by default. Raises OSError if there is none to be had."""

OpenAny: TypeAlias = Callable[[AnyAddress], Awaitable[trio.abc.Stream]]
"""The same for addresses of any form."""


class Sender:
    def __init__(
        self,
        peer: NodeId,
        lane: str,
        address: AnyAddress,
        outbox: Outbox,
        *,
        config: TcpTransportConfig,
        open_stream: OpenAny,
        backoff: Backoff,
    ) -> None:
        self.peer, self.lane, self.outbox = peer, lane, outbox
        self.counters = LaneCounters()
        self._address = address
        self._config, self._open_stream, self._backoff = config, open_stream, backoff
        self._attempt = trio.CancelScope()
        self._was_refused = False
        self._remarks = Remarks()

    async def run(self, me: Identity, receiver: Receiver) -> None:
        """Keep the lane open, until cancelled."""
        while True:
            with trio.CancelScope() as self._attempt:
                await self._run_once(me, receiver)
                await self._backoff.wait()

    def move(self, address: AnyAddress) -> None:
        """The peer is somewhere else now: drop what is open or being dialled, and dial there at once."""
        self._address = address
        self._was_refused = False
        self._backoff.reset()
        self._attempt.cancel()

    def retry_now(self) -> None:
        """End a wait. After a refusal the next wait is still a long one: hearing of the peer says nothing about its opinion of us."""
        if not self._was_refused:
            self._backoff.reset()
        self._backoff.wake()

    async def _run_once(self, me: Identity, receiver: Receiver) -> None:
        try:
            stream = await self.open(me, receiver)
        except TransportError as error:
            self._ended(f"{error.kind}: {error}")
            self._was_refused = error.kind not in ("away", "timeout")
            return
        self._was_refused = False
        try:
            await self._write(stream, me, receiver)
        finally:
            self.outbox.shut()

    async def open(self, me: Identity, receiver: Receiver) -> trio.abc.Stream:
        """Dial and introduce ourselves.

        Raises:
            TransportError: ``away``, ``timeout``, or a refusal of either side.
        """
        self.counters.attempts += 1
        stream: trio.abc.Stream | None = None
        try:
            with trio.fail_after(self._config.connect_timeout):
                stream = await self._open_stream(self._address)
                await introduce(stream, me, self.peer, self.lane, receiver)
        except trio.TooSlowError as error:
            await self._discard(stream)
            raise TransportError("timeout", self.peer, f"no handshake within {self._config.connect_timeout} s") from error
        except (OSError, UnicodeError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            await self._discard(stream)
            raise TransportError("away", self.peer, str(error) or "the connection broke during the handshake") from error
        except BaseException:
            await self._discard(stream)  # noqa: ASYNC102  # shielded, and forceful: it waits for nothing
            raise
        return stream

    async def _discard(self, stream: trio.abc.Stream | None) -> None:
        if stream is not None:
            with trio.CancelScope(shield=True):  # closes at once: forcefully means that nothing is waited for
                await trio.aclose_forcefully(stream)

    async def _write(self, stream: trio.abc.Stream, me: Identity, receiver: Receiver) -> None:
        config = self._config
        batcher = Batcher(
            self.outbox,
            self.counters,
            source=me.node_id,
            target=self.peer,
            batch_bytes_max=config.batch_bytes_max,
            frame_bytes_max=config.frame_bytes_max,
        )
        self.counters.connects += 1
        self.outbox.open()
        self._remarks = Remarks()
        logger.info("the %s lane to node %d is open, at %s", self.lane, self.peer, self._address)
        receiver.connected(self.peer)
        opened = trio.current_time()
        self._ended(await OutgoingConnection(stream, batcher, config, self.counters).run())
        if trio.current_time() - opened >= config.backoff_max:
            self._backoff.reset()

    def _ended(self, reason: str) -> None:
        self.counters.last_refusal = reason
        kind = reason.partition(":")[0]
        self._remarks.warn(kind, "the %s lane to node %d at %s is not open: %s", self.lane, self.peer, self._address, reason)
