"""What happens to many groups of one node at once: they wake together, hear of stale messages one by one, and all recover."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
import trio
import trio.testing

from trioraft import MemoryTransport, PeerLiveness
from trioraft._types import Member, NodeId
from trioraft.core import Heartbeat, HeartbeatReply
from trioraft.wire import Envelope

from .cluster import Cluster, SimNode, eventually, propose_until_done, running_cluster

E = 1.0
"""The election timeout of these clusters, in seconds."""


def terms_of(node: SimNode) -> dict[int, int]:
    return {group_id: group.status().term for group_id, group in node.up.groups.items()}


def is_led(cluster: Cluster, group_id: int) -> bool:
    """Whether a majority knows the same leader in the same term: one that only believes to lead does not count."""
    known = Counter((s.leader, s.term) for s in (node.group(group_id).status() for node in cluster.running()) if s.leader)
    return bool(known) and max(known.values()) * 2 > len(cluster.nodes)


async def wait_for_all_leaders(cluster: Cluster) -> None:
    for group_id in cluster.group_ids:
        await cluster.leader(group_id)


async def test_MG_14_a_dead_node_wakes_all_its_groups_without_a_cascade(autojump_clock: trio.testing.MockClock) -> None:
    """The groups that were led by the dead node all wake on the same two others, in the same moment."""
    async with running_cluster(groups=300) as cluster:
        with trio.fail_after(600):
            await wait_for_all_leaders(cluster)
            await trio.sleep(10)
            victim = max(cluster.running(), key=lambda node: node.up.status().leading)
            orphans = [group_id for group_id in cluster.group_ids if victim.group(group_id).is_leader]
            assert len(orphans) >= 100
            survivors = [node for node in cluster.running() if node is not victim]
            before = {node.node_id: terms_of(node) for node in survivors}
            pulses = {node.node_id: node.up.counters.pulses_out for node in survivors}
            for node in survivors:
                node.events.seen.clear()

            start = trio.current_time()
            await cluster.crash(victim.node_id)
            await wait_for_all_leaders(cluster)
            assert trio.current_time() - start < 5 * E
            await trio.sleep(start + 10 - trio.current_time())

            for node in survivors:
                rises = [term - before[node.node_id][group_id] for group_id, term in terms_of(node).items()]
                assert max(rises) <= 4, "elections end; they do not call forth more of them"
                assert sum(rises) <= 2 * len(orphans)
                # A pulse that was late by more than E/2 would be missing here; by more than E, the other node would count as dead.
                sent = node.up.counters.pulses_out - pulses[node.node_id]
                assert sent >= 10 * 10 - 5, "the pulse goes on while hundreds of groups elect"
                assert {event.node_id for event in node.events.of(PeerLiveness) if not event.live} == {victim.node_id}
            # Then all is quiet again.
            turns = [node.up.counters.turns for node in survivors]
            await trio.sleep(10)
            assert [node.up.counters.turns for node in survivors] == turns


async def test_MG_2_in_one_batch_the_stale_group_alone_is_answered_with_a_higher_term(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[NodeId, Envelope]] = []
    send_vote = MemoryTransport.send_vote

    def listen(self: MemoryTransport, peer: NodeId, envelopes: Sequence[Envelope]) -> None:
        said.extend((self.node_id, envelope) for envelope in envelopes)
        send_vote(self, peer, envelopes)

    async with running_cluster(groups=2) as cluster:
        with trio.fail_after(120):
            # Group 2 comes to a higher term; its old leader knows nothing of that in the batch that it is about to send.
            deposed = await cluster.leader(2)
            await cluster.settle(2)
            stale_term = deposed.group(2).status().term
            await cluster.crash(deposed.node_id)
            await wait_for_all_leaders(cluster)
            await cluster.start(deposed.node_id)
            await wait_for_all_leaders(cluster)
            await cluster.settle(1)
            await cluster.settle(2)
            await trio.sleep(5)
            leader = await cluster.leader(1)
            leaders = (leader, await cluster.leader(2))
            hearer = next(node for node in cluster.running() if node not in leaders)
            before = terms_of(hearer)
            assert stale_term < before[2]

            monkeypatch.setattr(MemoryTransport, "send_vote", listen)
            source, target = Member(leader.node_id), Member(hearer.node_id)
            commit = hearer.group(1).status().commit_index
            batch = [
                Envelope(hearer.group(1).key, Heartbeat(source, target, before[1], commit)),
                Envelope(hearer.group(2).key, Heartbeat(source, target, stale_term, 0)),
            ]
            hearer.up.receiver.messages(leader.node_id, batch)
            await trio.sleep(0.0005)
            answers = {e.group.group_id: e.message for who, e in said if who == hearer.node_id}
            assert {group_id: message.term for group_id, message in answers.items()} == before
            assert all(isinstance(message, HeartbeatReply) for message in answers.values())
            await trio.sleep(5)
            assert leader.group(1).is_leader, "nobody of group 1 heard of another term"
            assert terms_of(hearer) == before


@pytest.mark.parametrize("seed", range(4))
async def test_P5_after_faults_every_group_has_a_leader_within_ten_timeouts(autojump_clock: trio.testing.MockClock, seed: int) -> None:
    """Cuts in one direction or both, crashes and losses, for a while; then a majority can talk both ways."""
    rng = random.Random(seed)
    async with running_cluster(seed=seed, nodes=5, groups=10) as cluster:
        with trio.fail_after(600):
            for _ in range(20):
                one, other = rng.sample(list(cluster.node_ids), 2)
                match rng.choice(["cut", "one way", "isolate", "crash", "loss", "heal"]):
                    case "cut":
                        cluster.network.cut(one, other)
                    case "one way":
                        cluster.network.cut_one_way(one, other)
                    case "isolate":
                        cluster.network.isolate(one)
                    case "crash" if cluster.nodes[one].manager is not None and len(cluster.running()) > 3:
                        await cluster.crash(one)
                    case "loss":
                        cluster.network.set_loss(rng.choice([0.0, 0.3]))
                    case _:
                        cluster.network.heal_all()
                await trio.sleep(rng.uniform(0, 2 * E))
            # At least three of five are up, and nothing stands between these from now on.
            cluster.network.heal_all()
            cluster.network.set_loss(0.0)
            start = trio.current_time()
            for group_id in cluster.group_ids:
                await eventually(lambda g=group_id: is_led(cluster, g))  # type: ignore[misc]  # the default binds it now
            assert trio.current_time() - start < 10 * E
            for group_id in cluster.group_ids:
                node = await cluster.leader(group_id)
                await propose_until_done(lambda n=node, g=group_id: n.group(g).propose("x"))  # type: ignore[misc]  # bound now
