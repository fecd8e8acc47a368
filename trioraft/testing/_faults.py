"""The faults by name: each function makes one thing go wrong and sees to it that it ends.

`FAULTS` names them; the schedule says which, when and for how long, and a generator of the fault's own draws the rest.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._types import EntryId, Member, Millis, NodeId
from ..core import (
    AppendEntries,
    AppendEntriesReply,
    Campaign,
    Configuration,
    Entry,
    EntryKind,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    PreVoteReply,
    RequestVote,
    RequestVoteReply,
    Role,
)
from ._network import Weather

if TYPE_CHECKING:
    from ._node import SimulatedNode
    from ._replica import SimulatedReplica
    from ._simulator import Simulator

_MOMENTS = ("now", "now", "taken", "written", "sent", "synced")
STRANGER: NodeId = 99
"""A node that belongs to no group."""
_BEFORE_ALL = EntryId(-1, 0)


def crash(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """Kill a node, now or at a chosen moment of its next turn with a write; it comes back after `lasts`."""
    _crash_node(sim, draw.choice(sim.all_nodes), draw.choice(_MOMENTS), lasts)


def crash_leader(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """The same with a node that leads a group, if there is one."""
    leaders = [node for node in sim.all_nodes if any(replica.raft.role is Role.LEADER for replica in node.replicas.values())]
    _crash_node(sim, draw.choice(leaders or sim.all_nodes), draw.choice(_MOMENTS), lasts)


def _crash_node(sim: Simulator, node: SimulatedNode, moment: str, lasts: Millis) -> None:
    if moment == "now" or not node.is_up:
        node.crash()
        sim.while_faulty(lasts, node.start)
        return
    node.armed = moment
    node.on_armed_crash = lambda: sim.while_faulty(lasts, node.start)


def churn(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """Kill every leader soon after its election, over and over; each is back before the next is elected."""
    every, until = draw.randint(10, 120), sim.now + 3 * lasts

    def kill_leaders() -> None:
        if sim.now >= until:
            return
        for node in sim.all_nodes:
            if any(replica.raft.role is Role.LEADER for replica in node.replicas.values()):
                node.crash()
                sim.while_faulty(draw.randint(1, 600), node.start)
        sim.while_faulty(every, kill_leaders)

    kill_leaders()


def crash_all(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """Cut the power: all nodes at once; they come back one after the other."""
    for node in sim.all_nodes:
        node.crash()
        sim.while_faulty(min(lasts, 1500) + draw.randint(0, 500), node.start)


def crash_in_recovery(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """Kill a node, and kill it again right after each of its next starts."""
    node = draw.choice(sim.all_nodes)
    node.crash()
    at = min(lasts, 500)
    for _ in range(draw.randint(1, 3)):
        sim.while_faulty(at, node.start)
        at += draw.randint(0, 200)
        sim.while_faulty(at, node.crash)
        at += draw.randint(1, 50)
    sim.while_faulty(at, node.start)


def pause(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """Stop a process (SIGSTOP) and let it go on later."""
    node = draw.choice(sim.all_nodes)
    node.pause()
    sim.while_faulty(lasts, node.resume)


def _cut(sim: Simulator, links: list[tuple[NodeId, NodeId]], lasts: Millis) -> None:
    for source, target in links:
        sim.network.cut(source, target)
        sim.while_faulty(lasts, sim.network.mend, source, target)
    sim.note("cut", " ".join(f"n{source}>n{target}" for source, target in links))


def cut(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """Cut two nodes from each other, both ways."""
    if len(sim.node_ids) > 1:
        one, other = draw.sample(sim.node_ids, 2)
        _cut(sim, [(one, other), (other, one)], lasts)


def one_way_cut(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """Lose what one node sends to another, but not the answers."""
    if len(sim.node_ids) > 1:
        one, other = draw.sample(sim.node_ids, 2)
        _cut(sim, [(one, other)], lasts)


def _others(sim: Simulator, node: NodeId) -> list[NodeId]:
    return [other for other in sim.node_ids if other != node]


def isolate(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """Cut a node from all others, both ways."""
    _cut_off(sim, draw.choice(sim.node_ids), lasts)


def deaf(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """A node hears nothing; what it says arrives."""
    node = draw.choice(sim.node_ids)
    _cut(sim, [(other, node) for other in _others(sim, node)], lasts)


def mute(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """A node hears everything; what it says is lost."""
    node = draw.choice(sim.node_ids)
    _cut(sim, [(node, other) for other in _others(sim, node)], lasts)


def partition(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """Cut the cluster in two, anywhere."""
    side = {node for node in sim.node_ids if draw.random() < 0.5}
    _cut(sim, [(a, b) for a in sim.node_ids for b in sim.node_ids if (a in side) != (b in side)], lasts)


def bridge(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """Two halves that cannot hear each other, and one node that hears both."""
    middle = draw.choice(sim.node_ids)
    side = {node for node in sim.node_ids if draw.random() < 0.5}
    pairs = [(a, b) for a in sim.node_ids for b in sim.node_ids if middle not in (a, b)]
    _cut(sim, [(a, b) for a, b in pairs if (a in side) != (b in side)], lasts)


def storm(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """All links lose, repeat and reorder a lot."""
    before = sim.network.weather
    delay, loss, duplicate = (1, draw.choice((20, 200))), draw.choice((100, 300, 600)), draw.choice((100, 400))
    sim.network.weather = Weather(delay=delay, loss=loss, duplicate=duplicate, straggle=100)
    sim.while_faulty(lasts, sim.set_weather, before)


def slow_link(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """One link has a long delay, up to most of an election timeout."""
    if len(sim.node_ids) > 1:
        one, other = draw.sample(sim.node_ids, 2)
        low = draw.randint(50, 800)
        sim.network.link_weather[one, other] = Weather(delay=(low, low + draw.randint(0, 300)))
        sim.while_faulty(lasts, sim.network.link_weather.pop, (one, other), None)


def late_answers(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """Whatever a leader hears comes late, and it is asked all the while."""
    group = draw.choice(sorted(sim.configurations))
    leader = sim.leader(group)
    if leader is None:
        return
    low, until = draw.randint(100, 500), sim.now + max(lasts, 2000)
    for other in _others(sim, leader.node.id):
        sim.network.link_weather[other, leader.node.id] = Weather(delay=(low, low + 50))
        sim.while_faulty(until - sim.now, sim.network.link_weather.pop, (other, leader.node.id), None)
    level = "lease" if sim.schedule.config.lease_reads else "linearizable"
    sim.clients.believe(group, leader.node.id)
    for at in range(0, until - sim.now, draw.randint(10, 80)):
        sim.while_faulty(at, sim.clients.read, group, level)


def slow_disk(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """A node's syncs take up to 900 ms."""
    node = draw.choice(sim.all_nodes)
    node.disk.sync_ms = (draw.randint(1, 100), draw.randint(100, 900))
    sim.while_faulty(lasts, sim.mend_disk, node)


def stuck_disk(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """A node's next syncs take seconds: its process is well, its disk is not."""
    node = draw.choice(sim.all_nodes)
    node.disk.sync_ms = (lasts, lasts)
    sim.while_faulty(min(lasts, 1000), sim.mend_disk, node)


def full_disk(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """A node's disk is full for a while."""
    node = draw.choice(sim.all_nodes)
    node.set_space(False)
    sim.while_faulty(lasts, node.set_space, True)


def absence(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """A node is down or cut off for so long that the others' logs begin behind the end of its own."""
    node = draw.choice(sim.all_nodes)
    lasts = min(lasts + 3000, 8000)
    if draw.random() < 0.5:
        _crash_node(sim, node, "now", lasts)
    else:
        _cut_off(sim, node.id, lasts)


def fork(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """A leader is cut off with commands, and a change of members maybe, that only it has; it dies, and comes back to a group that has
    gone on without them.
    """
    group = draw.choice(sorted(sim.configurations))
    leader = sim.leader(group)
    if leader is None:
        return
    node = leader.node
    _cut_off(sim, node.id, lasts)
    sim.clients.believe(group, node.id)
    for _ in range(draw.randint(1, 20)):
        sim.clients.issue(group, draw.randint(8, 60))
    if sim.schedule.changes:
        sim.operator.change(group, draw)
    for at in (draw.randint(20, 1000), lasts + draw.randint(0, 1500)):
        sim.while_faulty(at, node.crash)
        sim.while_faulty(at + draw.randint(1, 300), node.start)


def seesaw(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """The lead goes back and forth, faster than what is read from the disks arrives."""
    fork(sim, draw, 200)
    for node in sim.all_nodes:
        node.answer_ms = (1, draw.choice((5, 3000)))
        sim.while_faulty(6000, sim.mend_reads, node)
    at = 200
    for _ in range(draw.randint(4, 8)):
        away, next_leader = draw.choice(sim.node_ids), draw.choice(sim.node_ids)
        span = draw.randint(200, 1200)
        sim.while_faulty(at, _cut_off, sim, away, span)
        for delay in range(0, span, 100):
            sim.while_faulty(at + delay, _campaign, sim, next_leader)
        at += span


def _campaign(sim: Simulator, node: NodeId) -> None:
    for replica in sim.nodes[node].replicas.values():
        replica.put(Campaign())


def _cut_off(sim: Simulator, node: NodeId, lasts: Millis) -> None:
    others = _others(sim, node)
    _cut(sim, [(node, other) for other in others] + [(other, node) for other in others], lasts)


def slow_reads(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """A node's disk takes up to seconds to read what it was asked for, or to hand it over."""
    node = draw.choice(sim.all_nodes)
    node.read_ms = (1, draw.choice((5, 500, 3000)))
    node.answer_ms = (1, draw.choice((500, 3000)))
    sim.while_faulty(3 * lasts, sim.mend_reads, node)


def slow_apply(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """A node's state machine takes its time."""
    node = draw.choice(sim.all_nodes)
    node.apply_ms = (1, draw.randint(5, 400))
    sim.while_faulty(lasts, sim.mend_apply, node)


def replay(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """Packets of the past arrive once more."""
    count = sim.network.replay(draw.choice((5, 50, 200)), lasts)
    sim.note("replay", f"{count} packets")


def revenants(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """Over and over, what nodes said before they were removed for good arrives once more; they may have been added again."""

    def is_of_former_life(packet: object) -> bool:
        if not isinstance(packet, tuple) or not isinstance(packet[1], AppendEntriesReply | RequestVoteReply | HeartbeatReply):
            return False
        source = packet[1].source
        return source.replica <= sim.nodes[source.node_id].disk.barred.get(packet[0], _BEFORE_ALL)

    until = sim.now + 3 * lasts

    def repeat() -> None:
        if sim.now < until:
            sim.network.replay(10, 100, is_of_former_life)
            sim.while_faulty(draw.randint(20, 200), repeat)

    repeat()


def ghosts(sim: Simulator, draw: random.Random, lasts: Millis) -> None:
    """Messages that must not count: of former lives of members, to former lives, and of strangers."""
    for group, configuration in sim.configurations.items():
        for node in sim.all_nodes:
            replica = node.replicas.get(group)
            if replica is None:
                continue
            term, last = replica.raft.term, replica.log.last_index
            for other in configuration.members():
                if other != node.id and configuration.member(other).replica.index:
                    for message in _forged(Member(other), replica.me, term, last + draw.randint(0, 3)):
                        sim.deliver_forged(group, message, draw.randint(0, lasts))
            for former in _former_lives(sim, replica):
                for message in _forged(former, replica.me, term, last - draw.randint(0, 2)):
                    sim.deliver_forged(group, message, draw.randint(0, lasts))
            for message in _forged(Member(STRANGER), replica.me, term, last)[:3]:
                sim.deliver_forged(group, message, draw.randint(0, lasts))
            if replica.me.replica.index:
                source = configuration.member(draw.choice(configuration.members()))
                for message in _forged(source, Member(node.id), term, last):
                    sim.deliver_forged(group, message, draw.randint(0, lasts))


def _former_lives(sim: Simulator, replica: SimulatedReplica) -> list[Member]:
    """Who was removed for good and is a member again, as this replica knows for sure."""
    configuration, group = replica.log.configurations[-1][1], replica.group
    if configuration.index > replica.raft.commit_index:
        return []
    barred = {other: sim.nodes[other].disk.barred.get(group) for other in configuration.members() if other != replica.node.id}
    return [Member(other, number) for other, number in barred.items() if number is not None and number < configuration.replicas[other]]


def _forged(source: Member, target: Member, term: int, match: int) -> list[Message]:
    entry = Entry(match + 1, term + 1, EntryKind.COMMAND, b"forged")
    return [
        RequestVoteReply(source, target, term, True),
        PreVoteReply(source, target, term + 1, True),
        AppendEntriesReply(source, target, term, match),
        HeartbeatReply(source, target, term, match, 1),
        RequestVote(source, target, term + 7, EntryId(term + 7, match + 100)),
        AppendEntries(source, target, term + 1, EntryId(term, match), match + 1, (entry,)),
        InstallSnapshot(source, target, term + 1, EntryId(term + 1, match + 5), Configuration({STRANGER})),
    ]


FAULTS: dict[str, Callable[[Simulator, random.Random, Millis], None]] = {
    function.__name__: function
    for function in (
        crash, crash_leader, churn, crash_all, crash_in_recovery, pause, cut, one_way_cut, isolate, deaf, mute, partition, bridge, storm,
        slow_link, late_answers, slow_disk, stuck_disk, full_disk, slow_apply, replay, revenants, ghosts, absence, slow_reads, fork, seesaw,
    )
}  # fmt: skip
