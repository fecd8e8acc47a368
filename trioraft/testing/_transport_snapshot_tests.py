"""Tests of the verb that waits: pieces of snapshots, one after the other, no faster than they are taken."""

from __future__ import annotations

import gc
from collections.abc import Callable

import trio

from ._storage_parts import holds, same
from ._transport_parts import Cluster, Node, SnapshotEar, append, cluster, failed_piece, vote
from ._transport_place import TransportPlace

_PIECE = 256 << 10
_PIECES = 256
"""Far more than the buffers of a connection hold."""


class SnapshotTests(TransportPlace):
    """Order, back-pressure, and what ends a piece."""

    async def test_pieces_arrive_whole_and_in_order(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            sent = [b"x", bytes(range(256)) * 1024, *(str(number).encode() for number in range(50))]
            for piece in sent:
                await one.send_piece(2, piece)
            ear = _taker(two)
            await ear.wait(lambda: len(ear.pieces) >= len(sent), "all pieces")
            same(ear.pieces == [(1, piece) for piece in sent], True, "whether the pieces are the ones that were sent")

    async def test_next_piece_waits_until_the_receiver_is_done(self) -> None:
        """However slow it is, nothing piles up, and nothing else is held up."""
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            await nodes.join(two, one)
            ear, gate, sent = _taker(two), trio.Event(), 0
            ear.gate = gate.wait

            async def send_all() -> None:
                nonlocal sent
                for _ in range(_PIECES):
                    await one.send_piece(2, bytes(_PIECE))
                    sent += 1

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_all)
                await ear.wait(lambda: ear.begun >= 1, "the first piece")
                await nodes.exchange(one, two)
                same(ear.begun, 1, "pieces of one stream that the receiver has to deal with at once")
                holds(sent < _PIECES, f"{_PIECES} pieces of {_PIECE} bytes were sent to a receiver that takes none")
                one.send_append(2, append(1, 2, size=1000))
                await two.receiver.wait(lambda: append(1, 2, size=1000) in two.receiver.envelopes, "an append beside the snapshot")
                ear.gate = trio.lowlevel.checkpoint
                gate.set()
            await ear.wait(lambda: len(ear.pieces) >= _PIECES, "all pieces, once they are taken")

    async def test_node_that_takes_no_snapshots(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.start(1), await nodes.start(2, takes_snapshots=False)
            await nodes.join(one, two)
            await failed_piece(self._send_on(one), "pieces for a node that takes none")
            one.send_vote(2, vote(1, 2))
            await two.receiver.wait(lambda: len(two.receiver.envelopes) >= 1, "a vote")

    async def test_cancelled_piece_does_not_spoil_the_next(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            await self._hold_up(nodes, one, two)
            ear = _taker(two)
            ear.gate = trio.lowlevel.checkpoint
            await one.send_piece(2, b"next")
            await ear.wait(lambda: (1, b"next") in ear.pieces, "a piece after one that was cancelled")
            holds(all(piece in (bytes(_PIECE), b"next") for _, piece in ear.pieces), "a piece arrived that nobody had sent")
            gc.collect()  # A connection that was left open warns when it goes.

    async def test_cancelled_before_it_begins(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            with trio.CancelScope() as scope:
                scope.cancel()
                await one.send_piece(2, b"never")
            holds(scope.cancelled_caught, "a piece was sent by a task that had been cancelled")
            await one.send_piece(2, b"next")
            ear = _taker(two)
            await ear.wait(lambda: len(ear.pieces) >= 1, "a piece")
            same(ear.pieces, [(1, b"next")], "the pieces that have arrived")

    async def test_receiver_that_goes_ends_a_piece(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            await self._fails_when(nodes, two.scope.cancel, one, two)
            await nodes.stop(two)

    async def test_removal_ends_a_piece(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            await self._fails_when(nodes, lambda: one.remove_peer(2), one, two)

    async def test_end_of_the_transport_ends_a_piece(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            await self._fails_when(nodes, one.scope.cancel, one, two)
            await nodes.stop(one)
            await failed_piece(one.send_piece(2, b"x"), "a piece after the end")

    async def test_piece_before_the_transport_serves(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.make(1), await nodes.start(2)
            one.set_address(2, two.address)
            await failed_piece(one.send_piece(2, b"x"), "a piece before the beginning")

    # -- steps --------------------------------------------------------------------------------------------------------------------

    async def _send_on(self, one: Node, sent: list[int] | None = None) -> None:
        for number in range(_PIECES):
            await one.send_piece(2, bytes(_PIECE))
            if sent is not None:
                sent.append(number)

    async def _wait_stuck(self, nodes: Cluster, one: Node, two: Node, sent: list[int]) -> None:
        """Wait until the receiver has its first piece, which it does not take, and the sender cannot get rid of another one."""
        ear, before = _taker(two), -1
        await ear.wait(lambda: ear.begun >= 1, "the first piece")
        while len(sent) > before:
            before = len(sent)
            await nodes.exchange(one, two)

    async def _hold_up(self, nodes: Cluster, one: Node, two: Node) -> None:
        """Send pieces until one is under way that cannot arrive, and cancel it."""
        await nodes.join(two, one)
        _taker(two).gate = trio.sleep_forever
        sent = list[int]()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_on, one, sent)
            await self._wait_stuck(nodes, one, two, sent)
            nursery.cancel_scope.cancel()

    async def _fails_when(self, nodes: Cluster, happens: Callable[[], None], one: Node, two: Node) -> None:
        """A piece that is held up is told, and soon, when something happens."""
        await nodes.join(two, one)
        _taker(two).gate = trio.sleep_forever
        sent, kinds = list[int](), list[str]()

        async def send_on() -> None:
            kinds.append(await failed_piece(self._send_on(one, sent), "pieces that nobody takes any more"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_on)
            await self._wait_stuck(nodes, one, two, sent)
            happens()
            await nodes.until(lambda: bool(kinds), "the end of a piece whose receiver is gone")


def _taker(node: Node) -> SnapshotEar:
    if not isinstance(node.receiver, SnapshotEar):
        raise TypeError("this node takes no snapshots")
    return node.receiver
