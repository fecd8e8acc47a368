"""A network in memory, for tests: no threads, no sockets, everything on Trio's clock, so a mock clock with autojump runs it.

Messages go through the real codec by default. What can go wrong is asked for:

- `cut`, `cut_one_way`, `isolate`, `heal`: a link in one direction breaks, with all that is under way on it; its sender is told
  `unreachable`, as a broken connection would tell it, and dials anew when the link is whole again.
- `set_loss`: messages vanish and nobody is told.
- `set_delay`: messages take their time; those of one link stay in order, as on a connection.
- `kill`: a node's handles are dead at once. What it sent before still arrives; nothing that it does while it is being torn down
  reaches anybody.

A link is one direction between two nodes and plays both lanes. It is opened by a handshake with the real checks on both sides.
"""

from __future__ import annotations

import random as random_module
from itertools import count
from typing import TYPE_CHECKING

import attrs
import trio

from .._types import NodeId

if TYPE_CHECKING:
    from ._memory import MemoryTransport


@attrs.frozen
class Weather:
    """What a direction does to messages."""

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0


class MemoryNetwork:
    """The hub that joins memory transports: who is there, and what happens between whom."""

    def __init__(self, random: random_module.Random | None = None, *, codec: bool = True, queue_bytes_max: int = 32 << 20) -> None:
        """
        Args:
            random: draws losses and jitter.
            codec: False hands objects over as they are: faster, and nobody notices a message that cannot be encoded.
            queue_bytes_max: what may be under way on one link.
        """
        self.random = random if random is not None else random_module.Random(0)
        self.codec, self.queue_bytes_max = codec, queue_bytes_max
        self._nodes: dict[NodeId, MemoryTransport] = {}
        self._cuts: set[tuple[NodeId, NodeId]] = set()
        self._weather: dict[tuple[NodeId | None, NodeId | None], Weather] = {}
        self.order = count()

    # What goes wrong.

    def cut(self, one: NodeId, other: NodeId) -> None:
        """Break both directions between two nodes, until `heal`."""
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def cut_one_way(self, source: NodeId, target: NodeId) -> None:
        """Break what goes from `source` to `target`; the other direction stays as it is, and can still be dialled."""
        self._cuts.add((source, target))
        link = self._nodes[source].links.get(target) if source in self._nodes else None
        if link is not None:
            link.shut()

    def isolate(self, node: NodeId) -> None:
        """Cut a node from all that are there now."""
        for other in self._nodes:
            if other != node:
                self.cut(node, other)

    def heal(self, one: NodeId, other: NodeId) -> None:
        """Make both directions between two nodes whole."""
        self._cuts -= {(one, other), (other, one)}
        for source, target in ((one, other), (other, one)):
            if source in self._nodes:
                self._nodes[source].dial_soon(target)

    def heal_all(self) -> None:
        """No more cuts; delays and losses stay."""
        for source, target in sorted(self._cuts):
            self.heal(source, target)

    def set_delay(self, seconds: float, jitter: float = 0.0, *, source: NodeId | None = None, target: NodeId | None = None) -> None:
        """Let messages take `seconds` and up to `jitter` more: from `source` or everybody, to `target` or everybody."""
        self._change(source, target, delay=seconds, jitter=jitter)

    def set_loss(self, probability: float, *, source: NodeId | None = None, target: NodeId | None = None) -> None:
        """Let messages vanish, and nobody be told: from `source` or everybody, to `target` or everybody."""
        self._change(source, target, loss=probability)

    def kill(self, node: NodeId) -> None:
        """Make a node's handles dead at once, as a crash does; its tasks may be cancelled later. A new transport may take its place."""
        transport = self._nodes.get(node)
        if transport is not None:
            transport.is_dead = True
            self.leave(transport)

    # What transports ask.

    def join(self, transport: MemoryTransport) -> None:
        """Let a node in, and have everybody dial it."""
        before = self._nodes.get(transport.node_id)
        if before is not None:
            raise trio.BusyResourceError(f"node {transport.node_id} is on this network already")
        self._nodes[transport.node_id] = transport
        for other in self._nodes.values():
            other.dial_soon(transport.node_id)

    def leave(self, transport: MemoryTransport) -> None:
        """Let a node go: links to it break. What it sent stays under way."""
        if self._nodes.get(transport.node_id) is transport:
            del self._nodes[transport.node_id]
            for other in self._nodes.values():
                link = other.links.get(transport.node_id)
                if link is not None:
                    link.shut()

    def reach(self, source: NodeId, target: NodeId) -> MemoryTransport | None:
        """Who answers when `source` dials `target`."""
        return None if (source, target) in self._cuts else self._nodes.get(target)

    def weather(self, source: NodeId, target: NodeId) -> Weather:
        """What was said of this very direction, else of the source, else of the target, else of all."""
        for key in ((source, target), (source, None), (None, target), (None, None)):
            if key in self._weather:
                return self._weather[key]
        return Weather()

    def _change(self, source: NodeId | None, target: NodeId | None, **what: float) -> None:
        key = (source, target)
        self._weather[key] = attrs.evolve(self._weather.get(key, Weather()), **what)
