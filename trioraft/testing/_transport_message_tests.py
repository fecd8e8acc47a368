"""Tests of the three verbs that never wait: what arrives, in which order, and what goes when there is no room."""

from __future__ import annotations

from ..wire import Envelope
from ._storage_parts import holds, same
from ._transport_parts import LANES, Cluster, Node, append, cluster, index_of, pulse, term_of, vote
from ._transport_place import TransportPlace


class MessageTests(TransportPlace):
    """Order, batches, and full queues."""

    async def test_each_verb_reaches_the_receiver(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            sent = [append(1, 2, 3, size=100), append(1, 2, 4, group=1 << 40), vote(1, 2, 1 << 40)]
            one.send_append(2, *sent[:2])
            one.send_vote(2, sent[2])
            one.send_pulse(2, pulse(5))
            ear = two.receiver
            await ear.wait(lambda: len(ear.envelopes) >= 3 and len(ear.pulses) >= 1, "what was sent")
            same(sorted(map(repr, ear.envelopes)), sorted(map(repr, sent)), "the messages")
            same(ear.pulses, [(1, pulse(5))], "the pulses")
            same({peer for peer, _ in ear.frames}, {1}, "who they came from")
            holds(all(envelopes for _, envelopes in ear.frames), "a frame without messages")

    async def test_both_ways_at_once(self) -> None:
        """Two nodes that dial each other at the same moment both get through."""
        async with cluster(self) as nodes:
            one, two = await nodes.start(1), await nodes.start(2)
            one.set_address(2, two.address)
            two.set_address(1, one.address)
            await nodes.wait_open(one, two)
            await nodes.wait_open(two, one)
            await nodes.exchange(one, two)
            same((one.receiver.lost, two.receiver.lost), ([], []), "losses that were told")

    async def test_appends_of_a_group_stay_in_order(self) -> None:
        """Also where there are many, of many sizes, of several groups, and the transport works meanwhile."""
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            for index in range(1, 401):
                for group in (1, 2, 3):
                    one.send_append(2, append(1, 2, index, group=group, size=index * 37 % 2000))
                if index % 10 == 0:
                    await two.receiver.wait(lambda index=index: len(two.receiver.envelopes) >= 3 * (index - 20), "appends")  # type: ignore[misc]  # mypy cannot infer a lambda's defaults
            await two.receiver.wait(lambda: len(two.receiver.envelopes) >= 1200, "all appends")
            for group in (1, 2, 3):
                arrived = [index_of(each) for each in two.receiver.envelopes if each.group.group_id == group]
                same(arrived, list(range(1, 401)), f"the appends of group {group}, in the order in which they arrived")

    async def test_what_goes_in_one_call_is_not_scattered(self) -> None:
        """Each call of the receiver costs its node a turn of its groups."""
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            for first in (1, 101):
                one.send_append(2, *(append(1, 2, index) for index in range(first, first + 100)))
            await two.receiver.wait(lambda: len(two.receiver.envelopes) >= 200, "all appends")
            holds(len(two.receiver.frames) <= 2, f"two calls of the verb became {len(two.receiver.frames)} of the receiver")

    async def test_empty_calls_are_harmless(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            one.send_append(2)
            one.send_vote(2)
            one.send_vote(2, vote(1, 2))
            await two.receiver.wait(lambda: len(two.receiver.envelopes) >= 1, "the vote")
            same((len(two.receiver.frames), one.receiver.lost), (1, []), "frames, and losses that were told")

    async def test_newer_pulse_takes_the_place_of_one_that_waits(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            for sequence in range(1, 1001):
                one.send_pulse(2, pulse(sequence))
            await two.receiver.wait(lambda: 1000 in two.receiver.sequences, "the newest pulse")
            arrived = two.receiver.sequences
            same(arrived, sorted(set(arrived)), "pulses in the order in which they arrived")
            holds(len(arrived) <= 2, f"{len(arrived)} of 1000 pulses arrived that nobody had the time to send one by one")
            same(one.peer(2).replaced_pulses, 1000 - len(arrived), "pulses that were replaced, by the statistics")

    async def test_full_append_lane_drops_the_newest(self) -> None:
        """What is left is a prefix, which a follower can use. It is told once, and the lane is as good as new when it has drained."""
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            holds(one.has_room(2), "there is no room in an empty queue")
            offered = nodes.flood(one, 2, lambda index: one.send_append(2, append(1, 2, index, size=1000)))
            holds(not one.has_room(2), "there is room in a full queue")
            dropped = one.peer(2).dropped_messages
            holds(one.peer(2).queued_bytes > 0 and one.peer(2).queued_messages > 0, "the statistics know nothing of a full queue")
            await two.receiver.wait(lambda: len(two.receiver.envelopes) >= offered - dropped, "what had found room")
            same([index_of(each) for each in two.receiver.envelopes], list(range(1, offered - dropped + 1)), "the appends that arrived")
            await one.receiver.wait(lambda: len(one.receiver.lost) >= 1, "`unreachable`")
            await nodes.until(lambda: one.has_room(2), "room in a queue that has drained")
            await self._still_goes(nodes, one, two)
            same(one.receiver.lost, [2], "how often the overflow was told")
            same((one.peer(2).dropped_messages, one.peer(2).queued_messages), (dropped, 0), "dropped and queued messages, later on")

    async def test_full_control_lane_drops_the_oldest(self) -> None:
        """The newest vote counts. And the pulse needs no room."""
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            offered = nodes.flood(one, 2, lambda term: one.send_vote(2, vote(1, 2, term)))
            one.send_pulse(2, pulse(9))
            dropped = one.peer(2).dropped_messages
            await two.receiver.wait(lambda: len(two.receiver.envelopes) >= offered - dropped, "what had found room")
            same([term_of(each) for each in two.receiver.envelopes], list(range(dropped + 1, offered + 1)), "the votes that arrived")
            await two.receiver.wait(lambda: two.receiver.sequences == [9], "the pulse, in front of or behind a full lane")
            await one.receiver.wait(lambda: len(one.receiver.lost) >= 1, "`unreachable`")
            await self._still_goes(nodes, one, two)
            same(one.receiver.lost, [2], "how often the overflow was told")

    async def test_full_lane_does_not_fill_the_other(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            nodes.flood(one, 2, lambda index: one.send_append(2, append(1, 2, index, size=1000)))
            dropped = one.peer(2).dropped_messages
            one.send_vote(2, vote(1, 2, 77))
            await two.receiver.wait(lambda: 77 in map(term_of, two.receiver.envelopes), "a vote beside a full append lane")
            same(one.peer(2).dropped_messages, dropped, "dropped messages")

    async def test_message_that_cannot_go_costs_only_itself(self) -> None:
        """Too large, or in the name of another node: it is counted, told as a loss, and the others of its call arrive."""
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            too_large = append(1, 2, 2, size=one.endpoint.transport.payload_bytes_max + (1 << 20))
            one.send_append(2, append(1, 2, 1), too_large, append(1, 2, 3))
            await two.receiver.wait(lambda: len(two.receiver.envelopes) >= 2, "what stood beside it")
            one.send_append(2, append(1, 2, 4), append(8, 2, 5), append(1, 2, 6))
            one.send_vote(2, vote(1, 2, 1), vote(8, 2, 2), vote(1, 2, 3))
            await two.receiver.wait(lambda: len(two.receiver.envelopes) >= 6, "what stood beside it")
            appends = [index_of(each) for each in two.receiver.envelopes if index_of(each)]
            same(appends, [1, 3, 4, 6], "the appends that arrived")
            same([term_of(each) for each in two.receiver.envelopes if term_of(each)], [1, 3], "the votes that arrived")
            await one.receiver.wait(lambda: len(one.receiver.lost) >= 1, "`unreachable`")
            same(one.peer(2).dropped_messages, 3, "dropped messages")
            same(one.peer(2).connected_lanes, LANES, "open lanes")

    async def test_payload_bytes_max_is_true(self) -> None:
        """A message with so large a payload goes, also through a queue that is meant for less."""
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            largest = one.endpoint.transport.payload_bytes_max
            one.send_append(2, append(1, 2, 1, size=largest))
            await two.receiver.wait(lambda: len(two.receiver.envelopes) >= 1, f"a message with {largest} bytes of payload")
            same(_payload_sizes(two.receiver.envelopes), [largest], "the payload's size")
            same((one.peer(2).dropped_messages, one.receiver.lost), (0, []), "dropped messages, and losses that were told")

    async def test_statistics_add_up(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            offered = nodes.flood(one, 2, lambda index: one.send_append(2, append(1, 2, index, size=1000)))
            early = one.endpoint.transport.statistics()
            await nodes.until(lambda: one.peer(2).queued_messages == 0, "an empty queue")
            await two.receiver.wait(lambda: len(two.receiver.envelopes) >= offered - one.peer(2).dropped_messages, "all that was kept")
            seen = one.peer(2)
            same(seen.messages_sent + seen.dropped_messages, offered, "sent and dropped messages")
            same(seen.messages_sent, len(two.receiver.envelopes), "sent messages, and those that arrived")
            holds(1 <= seen.frames_sent <= seen.bytes_sent, f"frames and bytes: {seen}")
            holds(seen.attempts >= seen.connects >= 1, f"attempts and connections: {seen}")
            same((seen.connected_lanes, seen.queued_bytes), (LANES, 0), "open lanes and queued bytes")
            holds(early.peers[2].queued_messages > 0, "statistics that were taken change later on")

    async def _still_goes(self, nodes: Cluster, one: Node, two: Node) -> None:
        """Messages back and forth: enough for anything that was late."""
        await nodes.join(two, one)
        await nodes.exchange(one, two)
        before = len(two.receiver.envelopes)
        one.send_append(2, append(1, 2, 1_000_000))
        await two.receiver.wait(lambda: len(two.receiver.envelopes) > before, "an append after the overflow")


def _payload_sizes(envelopes: list[Envelope]) -> list[int]:
    return [len(entry.payload) for envelope in envelopes for entry in getattr(envelope.message, "entries", ())]
