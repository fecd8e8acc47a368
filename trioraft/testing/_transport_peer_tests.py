"""Tests of who is a peer and where: handshakes, refusals, peers that are away, come back, move or are removed."""

from __future__ import annotations

from ..transport import Identity
from ._storage_parts import holds, same
from ._transport_parts import LANES, Cluster, Judge, Node, append, cluster, failed_piece, index_of, pulse, term_of, vote
from ._transport_place import TransportPlace, needs_addresses


class PeerTests(TransportPlace):
    """Handshakes, incidents, addresses."""

    # -- handshakes ---------------------------------------------------------------------------------------------------------------

    async def test_both_sides_judge_each_other_and_hear_of_it(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.start(1, incarnation=3), await nodes.start(2, incarnation=1 << 40)
            await nodes.join(one, two)
            holds(two.identity in one.receiver.checked, f"node 1 was not asked about {two.identity}, only about {one.receiver.checked}")
            holds(one.identity in two.receiver.checked, f"node 2 was not asked about {one.identity}, only about {two.receiver.checked}")
            await one.receiver.wait(lambda: 2 in one.receiver.opened, "`connected` where the lane was dialled")
            await two.receiver.wait(lambda: 1 in two.receiver.opened, "`connected` where it was accepted")
            same(one.peer(2).last_refusal, None, "the last refusal")

    async def test_other_cluster_is_refused(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.start(1), await nodes.start(2, cluster_id="another")
            await self._is_refused(nodes, one, two, "wrong-cluster")
            same(two.receiver.checked, [], "who the receiver of the other cluster was asked about")

    async def test_refusal_of_who_accepts_is_seen_by_who_dials(self) -> None:
        """With its kind: an operator must see on each side what is wrong."""
        for kind in ("wrong-store", "unknown-node"):
            async with cluster(self) as nodes:
                one, two = await nodes.start(1), await nodes.start(2, judge=_refuse(kind))
                await self._is_refused(nodes, one, two, kind)
                holds(one.identity in two.receiver.checked, "node 2 was not asked")

    async def test_refusal_of_who_dials_keeps_the_lane_shut(self) -> None:
        for kind in ("wrong-store", "unknown-node"):
            async with cluster(self) as nodes:
                one, two = await nodes.start(1, judge=_refuse(kind)), await nodes.start(2)
                await self._is_refused(nodes, one, two, kind)
                holds(two.identity in one.receiver.checked, "node 1 was not asked")

    @needs_addresses
    async def test_other_node_at_the_address_is_refused(self) -> None:
        """Address books may be wrong, and a message for one node must not reach another."""
        async with cluster(self) as nodes:
            one, two = await nodes.start(1), await nodes.start(2)
            one.set_address(3, two.address)
            await nodes.until(lambda: one.peer(3).last_refusal is not None, "a refusal")
            same(_kind(one, 3), "wrong-node", "the refusal's kind")
            one.send_vote(3, vote(1, 3))
            await nodes.join(one, two)
            one.send_vote(2, vote(1, 2))
            await two.receiver.wait(lambda: len(two.receiver.frames) >= 1, "a vote")
            same(two.receiver.envelopes, [vote(1, 2)], "what has arrived")

    async def test_retry_now_ends_a_wait(self) -> None:
        """And only the newest pulse was kept for the lane while it was not open."""
        async with cluster(self) as nodes:
            one, two = await nodes.start(1), await nodes.start(2, judge=_refuse("wrong-store"))
            one.set_address(2, two.address)
            await nodes.until(lambda: one.peer(2).last_refusal is not None, "a refusal")
            for number in range(1, 11):
                one.send_pulse(2, pulse(number))
                one.send_vote(2, vote(1, 2, number))
                one.send_append(2, append(1, 2, number))
            two.receiver.judge = lambda peer: None
            await nodes.wait_open(one, two)
            await two.receiver.wait(lambda: len(two.receiver.pulses) >= 1, "the newest pulse")
            one.send_vote(2, vote(1, 2, 11))
            one.send_append(2, append(1, 2, 11))
            await two.receiver.wait(lambda: len(two.receiver.envelopes) >= 2, "what was sent on open lanes")
            same(sorted((term_of(each), index_of(each)) for each in two.receiver.envelopes), [(0, 11), (11, 0)], "what has arrived")
            same(two.receiver.sequences, [10], "the pulses that have arrived")
            same(one.peer(2).dropped_messages, 20, "dropped messages")

    async def test_retry_now_of_who_is_there_is_nothing(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            await nodes.join(two, one)
            before = one.peer(2).attempts
            for _ in range(10):
                one.retry_now(2)
                await nodes.exchange(one, two, 5)
            same((one.peer(2).attempts, one.receiver.lost), (before, []), "attempts, and losses that were told")

    # -- incidents ----------------------------------------------------------------------------------------------------------------

    async def test_messages_for_who_is_away_are_one_incident(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            await nodes.join(two, one)
            gone = await nodes.start(3)
            await nodes.stop(gone)
            one.set_address(3, gone.address)
            for index in range(1, 101):
                one.send_append(3, append(1, 3, index))
            await one.receiver.wait(lambda: 3 in one.receiver.lost, "`unreachable`")
            await nodes.exchange(one, two)
            for index in range(1, 101):
                one.send_append(3, append(1, 3, index))
            await nodes.exchange(one, two)
            same(one.receiver.lost, [3], "how often it was told")
            same((one.peer(3).dropped_messages, one.peer(3).queued_messages), (200, 0), "dropped and queued messages")
            holds(not one.has_room(3), "there is room for a node that is away")
            holds(3 not in one.receiver.opened, "a lane to a node that is away was opened")
            await failed_piece(one.send_piece(3, b"x"), "a piece for a node that is away")

    async def test_peer_that_breaks_off_and_comes_back_in_a_new_start(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            for incarnation in (2, 3):
                del one.receiver.lost[:], one.receiver.opened[:]
                await nodes.stop(two)
                await one.receiver.wait(lambda: 2 in one.receiver.lost, "`unreachable` after a connection broke")
                await nodes.until(lambda: one.peer(2).connected_lanes == 0, "shut lanes")
                for number in range(1, 101):
                    one.send_append(2, append(1, 2, number))
                    one.send_vote(2, vote(1, 2, number))
                two = await nodes.start(2, incarnation=incarnation)
                await nodes.join(one, two)
                holds(two.identity in one.receiver.checked, f"node 1 was not asked about start {incarnation}")
                holds(2 in one.receiver.opened, "`connected` was not called anew")
                await nodes.join(two, one)
                await nodes.exchange(one, two)
                same([each for each in two.receiver.envelopes if index_of(each)], [], "appends of before that have arrived")
                holds(len(one.receiver.lost) <= LANES, f"`unreachable` was called {len(one.receiver.lost)} times for {LANES} lanes")
                holds(one.has_room(2), "there is no room after the return")

    async def test_newer_start_of_the_sender_is_who_is_heard(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            one.send_vote(2, vote(1, 2, 1))
            await two.receiver.wait(lambda: len(two.receiver.envelopes) >= 1, "a vote")
            await nodes.stop(one)
            again = await nodes.start(1, incarnation=2)
            await nodes.join(again, two)
            holds(again.identity in two.receiver.checked, "node 2 was not asked about the new start")
            again.send_vote(2, vote(1, 2, 2))
            await two.receiver.wait(lambda: len(two.receiver.envelopes) >= 2, "a vote of the new start")
            same([term_of(each) for each in two.receiver.envelopes], [1, 2], "the votes that arrived")

    # -- addresses ----------------------------------------------------------------------------------------------------------------

    @needs_addresses
    async def test_peer_moves(self) -> None:
        """All goes to the new place and nothing to the old one, although somebody still listens there."""
        async with cluster(self) as nodes:
            one, old = await nodes.pair()
            new = await nodes.start(2, incarnation=2)
            one.send_append(2, append(1, 2, 1))
            await old.receiver.wait(lambda: len(old.receiver.envelopes) >= 1, "an append")
            await nodes.join(one, new)
            one.send_append(2, append(1, 2, 2))
            one.send_vote(2, vote(1, 2, 2))
            await one.send_piece(2, b"moved")
            ear = new.receiver
            await ear.wait(lambda: len(ear.envelopes) >= 2 and len(getattr(ear, "pieces", ())) >= 1, "messages and a piece, there")
            same(len(old.receiver.envelopes), 1, "messages that arrived at the old place")
            same(getattr(old.receiver, "pieces", None), [], "pieces that arrived at the old place")

    async def test_same_address_again_changes_nothing(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            await nodes.join(two, one)
            before = one.peer(2)
            one.set_address(2, two.address)
            await nodes.exchange(one, two)
            after = one.peer(2)
            same((after.attempts, after.connects, one.receiver.lost), (before.attempts, before.connects, []), "what was dialled and lost")

    async def test_removed_peer_gets_nothing_and_may_come_back(self) -> None:
        async with cluster(self) as nodes:
            one, two = await nodes.pair()
            three = await nodes.start(3)
            await nodes.join(one, three)
            await nodes.join(three, one)
            one.send_append(2, *(append(1, 2, index, size=1000) for index in range(1, 11)))
            one.remove_peer(2)
            one.remove_peer(2)
            self._knows_nobody(one, 2)
            await failed_piece(one.send_piece(2, b"x"), "a piece for a node that was removed")
            await nodes.exchange(one, three)
            one.send_vote(2, vote(1, 2))
            await nodes.exchange(one, three)
            same(two.receiver.envelopes, [], "what has arrived, of what waited when the peer was removed, and of what came later")
            await nodes.join(one, two)
            one.send_vote(2, vote(1, 2, 7))
            await two.receiver.wait(lambda: 7 in map(term_of, two.receiver.envelopes), "a vote after the return")

    async def test_node_without_an_address(self) -> None:
        async with cluster(self) as nodes:
            one = await nodes.start(1)
            self._knows_nobody(one, 9)
            one.retry_now(9)
            one.remove_peer(9)
            await failed_piece(one.send_piece(9, b"x"), "a piece for a node without an address")
            same(one.receiver.lost, [], "losses that were told")

    # -- steps --------------------------------------------------------------------------------------------------------------------

    def _knows_nobody(self, one: Node, peer: int) -> None:
        before = one.dropped_unknown
        one.send_append(peer, append(1, peer), append(1, peer, 2))
        one.send_vote(peer, vote(1, peer))
        one.send_pulse(peer, pulse(1))
        same(one.dropped_unknown - before, 4, f"messages and pulses for node {peer}, which has no address, by the statistics")
        holds(not one.has_room(peer), f"there is room for node {peer}, which has no address")
        holds(peer not in one.endpoint.transport.statistics().peers, f"there are statistics of node {peer}, which has no address")

    async def _is_refused(self, nodes: Cluster, one: Node, two: Node, kind: str) -> None:
        one.set_address(2, two.address)
        await nodes.until(lambda: one.peer(2).last_refusal is not None, "a refusal")
        same(_kind(one, 2), kind, "the refusal's kind")
        one.send_vote(2, vote(1, 2))
        one.send_append(2, append(1, 2))
        await one.receiver.wait(lambda: 2 in one.receiver.lost, "`unreachable`")
        await failed_piece(one.send_piece(2, b"x"), "a piece for a node that was refused")
        same((one.peer(2).connected_lanes, one.receiver.opened, one.has_room(2)), (0, [], False), "open lanes, and room")
        same((two.receiver.frames, getattr(two.receiver, "pieces", None)), ([], []), "what has arrived")


def _refuse(kind: str) -> Judge:
    def judge(peer: Identity) -> str:
        return f"{kind}: node {peer.node_id} is not welcome"

    return judge


def _kind(one: Node, peer: int) -> str:
    return str(one.peer(peer).last_refusal).partition(":")[0]
