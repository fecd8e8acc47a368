"""Scenarios of snapshots and of logs that are cut, directed instead of drawn: every checker watches them too."""

from __future__ import annotations

from typing import Any

import pytest

from trioraft.core import AppendEntries, Campaign, GroupConfig, Role, Target
from trioraft.testing import PropertyViolation, Schedule, Simulator, planted
from trioraft.testing._replica import SimulatedReplica

E = 1000
SMALL = GroupConfig(snapshot_entries=10, keep_entries=3, stream_hold_entries=20, log_memory_bytes_max=1)


def cluster(seed: int = 1, **changes: Any) -> Simulator:
    sim = Simulator(Schedule.calm(seed, **{"config": SMALL, **changes}))
    sim.start()
    return sim


def lead(sim: Simulator, node: int) -> SimulatedReplica:
    """Campaign until elected."""
    sim.run_for(300)  # pulses first
    replica = sim.nodes[node].replicas[1]
    for _ in range(100):
        if replica.raft.role is Role.LEADER:
            sim.clients.believe(1, node)
            sim.run_for(20)
            return replica
        replica.put(Campaign())
        sim.run_for(50)
    pytest.fail(f"n{node} is not elected: {sim.describe(1)}")


def load(sim: Simulator, count: int) -> None:
    for _ in range(count):
        sim.clients.issue(1, 8)
        sim.run_for(10)
    sim.run_for(300)


def catches_up(sim: Simulator, node: int, leader: SimulatedReplica) -> bool:
    replica = sim.nodes[node].replicas[1]
    return sim.run_until(lambda: replica.is_level and replica.log.last == leader.log.last, within=5 * E)


def test_SN_a_dead_follower_does_not_let_the_log_grow_and_catches_up_by_a_snapshot() -> None:
    sim = cluster()
    leader = lead(sim, 1)
    sim.nodes[3].crash()
    for _ in range(5):
        load(sim, 100)
        # The interval between two snapshots, what is kept before one, and what was applied while it was written.
        assert leader.log.last_index - leader.log.start.index <= 10 + 3 + 15
        assert len(leader.disk.files) <= 2
    assert leader.log.start.index > 450
    installs = sim.counts["installs"]
    sim.nodes[3].start()
    assert catches_up(sim, 3, leader), sim.describe(1)
    assert sim.counts["installs"] == installs + 1
    sim.settle()


def test_SN_a_follower_that_is_a_little_behind_gets_entries_from_the_disk() -> None:
    sim = cluster(config=GroupConfig(snapshot_entries=1000, log_memory_bytes_max=1, append_entries_max=7))
    leader = lead(sim, 1)
    sim.nodes[3].crash()
    load(sim, 100)
    sim.nodes[3].start()
    assert catches_up(sim, 3, leader), sim.describe(1)
    assert sim.counts["loads"] > 10
    assert sim.counts["streams"] == 0
    sim.settle()


@pytest.mark.parametrize("durable", [False, True], ids=["memory", "durable"])
def test_SN_all_restart_with_no_entry_in_memory(durable: bool) -> None:
    sim = cluster(has_durable_machine=durable)
    lead(sim, 1)
    load(sim, 57)
    for node in sim.all_nodes:
        node.crash()
        node.start()
    assert all(replica.applier.index >= 40 for replica in sim.live_replicas(1))
    assert durable or sim.counts["restarts"] == 3
    sim.settle()


def test_SN_2_snapshots_of_the_past_change_nothing() -> None:
    """All streams come again, long after: none of them is installed, and nobody is deposed."""
    sim = cluster()
    leader = lead(sim, 1)
    for _ in range(3):
        sim.isolate(3)
        load(sim, 40)
        sim.mend()
        sim.clients.believe(1, 1)
        assert catches_up(sim, 3, leader), sim.describe(1)
    installs, term = sim.counts["installs"], leader.raft.term
    assert installs >= 3
    sim.network.replay(1500, 500)
    sim.run_for(3 * E)
    assert sim.counts["installs"] == installs
    assert leader.raft.role is Role.LEADER
    assert leader.raft.term == term
    sim.settle()


def test_SN_5_a_snapshot_carries_the_configuration_at_its_index() -> None:
    """A learner that was added before the snapshot was taken, and one that is added after: whoever installs it knows the first."""
    sim = cluster(spares=2)
    leader = lead(sim, 1)
    sim.nodes[3].crash()
    _add_learners(sim, leader, {4})
    load(sim, 40)
    taken = leader.raft.snapshot
    _add_learners(sim, leader, {4, 5})
    snapshot = leader.disk.files[taken]
    assert snapshot.configuration.learners == {4}
    sim.nodes[3].start()
    assert catches_up(sim, 3, leader), sim.describe(1)
    assert sim.nodes[3].replicas[1].raft.configuration.learners == {4, 5}
    sim.settle()
    assert set(sim.nodes[5].replicas[1].log.configurations[-1][1].members()) == {1, 2, 3, 4, 5}


def _add_learners(sim: Simulator, leader: SimulatedReplica, learners: set[int]) -> None:
    sim.operator.ask(leader, Target(frozenset({1, 2, 3}), frozenset(learners)))
    sim.run_for(50)


class LateLoad:
    """n1 has read entries for n3 that are in nobody else's log; before they are handed over they are replaced, and n1 leads again."""

    def __init__(self) -> None:
        self.sim = sim = cluster(3, config=GroupConfig(log_memory_bytes_max=1))
        lead(sim, 1)
        load(sim, 5)
        # 7@1 to 9@1 reach only the disk of n1, and are not in memory when it comes back.
        self.cut_appends = {(1, 2), (1, 3)}
        sim.network.drops = self.drops
        for _ in range(3):
            sim.clients.issue(1, 8)
        sim.run_for(20)
        sim.nodes[1].crash()
        sim.random.choice = lambda options: options[0]  # type: ignore[method-assign, assignment]  # always the first one
        sim.nodes[1].start()
        n1 = sim.nodes[1]
        assert n1.disk.groups[1].log.last_index == 9
        n1.read_ms, n1.answer_ms = (0, 0), (20_000, 20_000)
        leader = lead(sim, 1)
        # They say what they lack, but nothing arrives.
        self.cut_appends = {(1, 2)}
        sim.run_for(2 * E)
        self.loads = [load for load in leader.raft.loading.values() if load.reader is not None]
        self.replace()

    def replace(self) -> None:
        """n2 leads; n3 votes for it and hears nothing more; n1 gets 7@ of another term."""
        sim = self.sim
        self.cut_appends = {(2, 3), (1, 3)}
        sim.nodes[1].pause()
        lead(sim, 2)
        sim.nodes[1].resume()
        sim.run_for(2 * E)
        sim.nodes[2].pause()
        self.cut_appends = set()
        lead(sim, 1)
        sim.nodes[2].resume()

    def drops(self, source: int, target: int, packet: Any) -> bool:
        return isinstance(packet, tuple) and type(packet[1]) is AppendEntries and (source, target) in self.cut_appends


def test_entries_that_were_read_and_have_been_replaced_since_are_not_sent() -> None:
    story = LateLoad()
    assert [load.reader for load in story.loads] == [3]
    assert story.loads[0].first == 7
    story.sim.run_for(60 * E)
    assert "late load" in story.sim.nodes[1].replicas[1].raft.dropped
    story.sim.settle()


def test_the_plant_of_a_stale_load_is_found() -> None:
    with planted("stale-load-used"), pytest.raises(PropertyViolation, match="which is not in the log of the leader"):
        LateLoad().sim.run_for(60 * E)
