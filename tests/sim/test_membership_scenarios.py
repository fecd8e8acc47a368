"""Scenarios of members, leaders, reads and sessions, directed instead of drawn: every checker watches them too."""

from __future__ import annotations

from typing import Any

import pytest

from trioraft._types import NOTHING, Member
from trioraft.core import AppendEntries, Campaign, GroupConfig, Role, Target, TransferLeadership
from trioraft.testing import Schedule, Simulator
from trioraft.testing._replica import SimulatedReplica

E = 1000


class Answer:
    """What a request is answered with, as a token."""

    def __init__(self) -> None:
        self.said: list[object] = []

    def succeed(self, value: object) -> None:
        self.said.append(value)

    def fail(self, error: Exception) -> None:
        self.said.append(getattr(error, "kind", type(error).__name__))


def cluster(seed: int = 1, **changes: Any) -> tuple[Simulator, SimulatedReplica]:
    """A cluster that n1 leads."""
    sim = Simulator(Schedule.calm(seed, **changes))
    sim.start()
    sim.run_for(300)
    lead(sim, 1)
    return sim, sim.nodes[1].replicas[1]


def lead(sim: Simulator, node: int) -> None:
    replica = sim.nodes[node].replicas[1]
    for _ in range(100):
        if replica.raft.role is Role.LEADER:
            break
        replica.put(Campaign())
        sim.run_for(50)
    assert replica.raft.role is Role.LEADER, sim.describe(1)
    sim.clients.believe(1, node)
    sim.run_for(50)


def change(sim: Simulator, leader: SimulatedReplica, voters: set[int], learners: frozenset[int] = frozenset()) -> None:
    sim.operator.ask(leader, Target(frozenset(voters), learners))
    assert sim.run_until(lambda: leader.log.configurations[-1][1].voters == voters and leader.is_level, within=5 * E), sim.describe(1)


def load(sim: Simulator, count: int) -> None:
    for _ in range(count):
        sim.clients.issue(1, 8)
        sim.run_for(10)
    sim.run_for(300)


def test_MB_a_leader_that_alone_has_its_own_demotion_is_elected_again() -> None:
    """Dissertation 4.2.2, figure 4.6: n1 is out by its own log, n2 cannot be elected without it."""
    sim, leader = cluster(voters=2)
    sim.network.drops = lambda source, _target, packet: source == 1 and isinstance(packet, tuple) and type(packet[1]) is AppendEntries
    sim.operator.ask(leader, Target(frozenset({2}), frozenset({1})))
    sim.run_for(50)
    sim.nodes[1].crash()
    sim.nodes[1].start()
    assert sim.nodes[1].replicas[1].raft.configuration.voters == {2}
    sim.settle()
    assert sim.nodes[2].replicas[1].raft.configuration.voters == {2}
    assert sim.nodes[2].replicas[1].raft.role is Role.LEADER


@pytest.mark.parametrize("wiped", [False, True], ids=["with-its-disk", "wiped"])
def test_MB_a_node_that_is_removed_and_added_again_has_another_number(wiped: bool) -> None:
    sim, leader = cluster()
    load(sim, 5)
    sim.isolate(3)
    change(sim, leader, {1, 2})
    if wiped:
        sim.nodes[3].leave(1)
    load(sim, 5)
    sim.operator.ask(leader, Target(frozenset({1, 2, 3})))
    sim.run_for(2 * E)
    sim.mend()
    sim.settle()
    number = leader.log.configurations[-1][1].replicas[3]
    assert leader.log.configurations[-1][1].voters == {1, 2, 3}
    assert number > NOTHING
    replica = sim.nodes[3].replicas[1]
    assert replica.me == replica.disk.me == Member(3, number)
    assert (replica.disk.number == 2) is wiped
    # It attaches too: the last thing that its node heard of before it had the number.
    sim.run_for(20 * E)
    assert sim.group_messages == _after(sim, 20 * E)


def _after(sim: Simulator, span: int) -> int:
    sim.run_for(span)
    return sim.group_messages


def test_MB_8_a_removed_replica_is_told_and_goes_quiet() -> None:
    sim, leader = cluster()
    sim.isolate(3)
    change(sim, leader, {1, 2})
    sim.run_for(20 * E)
    removed, term = sim.nodes[3].replicas[1], leader.raft.term
    assert not removed.raft.is_removed
    sim.mend()
    assert sim.run_until(lambda: removed.raft.is_removed, within=10 * E)
    sim.settle()
    assert sim.nodes[3].replicas[1] is removed
    assert leader.raft.term == term


def test_a_replica_that_joined_takes_no_snapshot_of_a_time_of_which_it_does_not_know_who_was_in_the_group() -> None:
    sim, leader = cluster(spares=1, snapshot_chance=1000, config=GroupConfig(apply_entries_max=1))
    leader.node.set_space(True)
    load(sim, 5)
    change(sim, leader, {1, 2, 3, 4})
    load(sim, 5)
    sim.settle()
    files = sim.nodes[4].disk.groups[1].files
    assert all(snapshot.configuration.voters for snapshot in files.values())


def test_LT_a_transfer_moves_leadership_within_a_few_round_trips() -> None:
    sim, leader = cluster()
    load(sim, 5)
    answer = Answer()
    leader.request(TransferLeadership(answer, 3))
    assert sim.run_until(lambda: sim.nodes[3].replicas[1].raft.role is Role.LEADER, within=200)
    sim.run_for(100)
    assert answer.said == [None]
    sim.settle()


def test_RD_a_lease_read_of_a_process_that_was_stopped_asks_again() -> None:
    """It was to be answered at once, then the process stopped for seconds: another leads by then, and has committed more."""
    sim, leader = cluster(config=GroupConfig(lease_reads=True))
    load(sim, 3)
    sim.clients.read(1, "linearizable")
    sim.run_for(50)
    assert leader.raft.lease_until > leader.node.local_now()
    leader.node.apply_ms = (50, 50)
    operation = sim.clients.issue(1, 8)
    # It is committed here, and applied when the process goes on.
    assert sim.run_until(lambda: leader.raft.commit_index > leader.applier.index, within=100, every=1)
    reading = sim.clients.read(1, "lease")
    leader.node.pause()
    assert sim.run_until(lambda: any(r.raft.role is Role.LEADER and r is not leader for r in sim.live_replicas(1)), within=6 * E)
    leases = sim.counts["leases"]
    leader.node.resume()
    sim.run_for(E)
    assert sim.counts["leases"] == leases
    assert reading.attempts > 1
    sim.settle()
    assert operation.attempts >= 1


@pytest.mark.parametrize("seed", range(4))
def test_CL_a_command_of_a_session_takes_effect_once_whoever_dies(seed: int) -> None:
    """The leader dies while commands are under way, each is asked for again, and snapshots are between the two."""
    sim, _ = cluster(seed, config=GroupConfig(snapshot_entries=3, keep_entries=0))
    operations = []
    for _ in range(4):
        operations += [sim.clients.sessions.issue(1, 8) for _ in range(5)]
        sim.run_for(seed)
        leader = sim.leader()
        if leader is not None:
            leader.node.crash()
            sim.call_in(300, leader.node.start)
        sim.run_for(3 * E)
    sim.settle()
    assert sum(operation.fate == "acknowledged" for operation in operations) >= 10
    assert sum(operation.attempts for operation in operations) > len(operations)
