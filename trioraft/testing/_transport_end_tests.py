"""Tests of the beginning and the end of a transport: before, it keeps nothing; after, nothing of it is left."""

from __future__ import annotations

import gc

import trio

from ._storage_parts import holds, same
from ._transport_parts import append, cluster, pulse, vote
from ._transport_place import TransportPlace


class EndTests(TransportPlace):
    """A transport serves until it is cancelled."""

    async def test_verbs_before_it_serves_are_harmless(self) -> None:
        """Addresses are known before that, and kept."""
        async with cluster(self) as nodes:
            one, two = await nodes.make(1), await nodes.start(2)
            one.set_address(2, two.address)
            one.send_append(2, append(1, 2, 1))
            one.send_vote(2, vote(1, 2, 1))
            one.send_pulse(2, pulse(1))
            one.send_pulse(2, pulse(2))
            one.retry_now(2)
            holds(not one.has_room(2), "there is room before the transport serves")
            await nodes.run(one)
            await nodes.wait_open(one, two)
            one.send_vote(2, vote(1, 2, 2))
            await two.receiver.wait(lambda: len(two.receiver.envelopes) >= 1, "a vote")
            await two.receiver.wait(lambda: len(two.receiver.pulses) >= 1, "the newest pulse")
            same((two.receiver.envelopes, two.receiver.sequences), ([vote(1, 2, 2)], [2]), "what has arrived")

    async def test_verbs_after_the_end_are_harmless(self) -> None:
        """A group that stops last may still want to say something."""
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            await nodes.stop(one)
            heard = len(two.receiver.envelopes)
            one.send_append(2, append(1, 2))
            one.send_vote(2, vote(1, 2))
            one.send_pulse(2, pulse(1))
            one.send_vote(9, vote(1, 9))
            one.retry_now(2)
            one.set_address(3, two.address)
            holds(not one.has_room(2), "there is room after the end")
            one.remove_peer(2)
            one.endpoint.transport.statistics()
            again = await nodes.start(1, incarnation=2)
            await nodes.join(again, two)
            again.send_vote(2, vote(1, 2, 2))
            await two.receiver.wait(lambda: len(two.receiver.envelopes) > heard, "a vote")
            same(two.receiver.envelopes[heard:], [vote(1, 2, 2)], "what has arrived since")

    async def test_cancellation_leaves_nothing(self) -> None:
        """In the middle of work, at both ends. A connection that was left open warns when it is collected."""
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            three = await nodes.start(3)
            await nodes.join(two, three)
            await nodes.join(three, two)
            for number in range(1, 101):
                one.send_append(2, append(1, 2, number, size=1000))
            await two.receiver.wait(lambda: len(two.receiver.envelopes) >= 1, "the first append")
            await nodes.stop(one)
            one.send_append(2, append(1, 2, 200))
            await nodes.exchange(two, three)
            arrived = [each for each in two.receiver.envelopes if each == append(1, 2, 200)]
            same(arrived, [], "what was sent after the end, and arrived")
            await nodes.stop(two)
            gc.collect()
            await nodes.stop(three)

    async def test_cancelled_while_it_dials(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.start(1), await nodes.start(2)
            one.set_address(2, two.address)
            await nodes.stop(one)
            two.set_address(1, one.address)
            await trio.lowlevel.checkpoint()
            await nodes.stop(two)
            gc.collect()

    async def test_ten_lives(self) -> None:
        """A node that is started again and again finds its peers, and they find it."""
        async with cluster(self) as nodes:
            two = await nodes.start(2)
            for incarnation in range(1, 11):
                one = await nodes.start(1, incarnation=incarnation)
                await nodes.join(one, two)
                await nodes.join(two, one)
                await nodes.exchange(one, two, 2)
                await nodes.stop(one)
                await nodes.until(lambda: two.peer(1).connected_lanes == 0, "shut lanes")
