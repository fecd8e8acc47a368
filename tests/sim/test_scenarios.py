"""Scenarios by their ids, directed instead of drawn: every checker watches them too."""

from __future__ import annotations

from typing import Any

import pytest

from trioraft._types import NEVER
from trioraft.core import AppendEntries, AppendEntriesReply, GroupConfig, Heartbeat, Role, Timing, Unreachable
from trioraft.testing import Load, Schedule, Simulator, Weather
from trioraft.testing._replica import SimulatedReplica

E = 1000
ROUND_TRIP = 10


def cluster(seed: int = 1, **changes: Any) -> Simulator:
    sim = Simulator(Schedule.calm(seed, **changes))
    sim.start()
    return sim


def elected(sim: Simulator, *, node: int | None = None, within: int = 5 * E) -> SimulatedReplica:
    """Wait until there is a leader, the given one or any, and the group has gone quiet."""
    if node is not None:
        sim.run_for(300)  # pulses first
        sim.campaign(node)
    assert sim.run_until(lambda: _leads(sim, node), within=within), sim.describe(1)
    assert sim.run_until(lambda: _is_quiet(sim), within=within), sim.describe(1)
    leader = sim.leader()
    assert leader is not None
    return leader


def _leads(sim: Simulator, node: int | None) -> bool:
    leader = sim.leader()
    return leader is not None and node in (None, leader.node.id)


def _is_quiet(sim: Simulator) -> bool:
    return all(replica.raft.deadline >= NEVER for replica in sim.live_replicas(1))


def _level(sim: Simulator) -> bool:
    return len({(replica.log.last_index, replica.raft.commit_index, replica.applier.index) for replica in sim.live_replicas(1)}) == 1


def propose(sim: Simulator, node: int, size: int = 8) -> Any:
    """Send a command to a node."""
    sim.clients.believe(1, node)
    return sim.clients.issue(1, size)


def is_group_message(packet: object) -> bool:
    return isinstance(packet, tuple)


@pytest.mark.time_limit(120)
def test_EL_5_split_votes_end() -> None:
    """Four voters whose timers all fire on one tick, 1,000 seeds: a leader within 10 E in at least 99.9 % of them."""
    late = []
    for seed in range(1000):
        sim = cluster(seed, voters=4, timing=Timing(heartbeat_interval=200, election_timeout=E))
        for node in sim.node_ids:
            sim.campaign(node)
        if not sim.run_until(lambda sim=sim: sim.leader() is not None, within=10 * E):  # type: ignore[misc]  # mypy cannot infer a lambda's defaults
            late.append(seed)
    assert len(late) <= 1, late


@pytest.mark.parametrize("seed", range(3))
def test_TP_1_duplicate_and_reorder(seed: int) -> None:
    """Every packet comes 0 to many times, in any order, p = 0.3, for 10,000 of them; progress within the liveness bound afterwards."""
    sim = cluster(seed)
    sim.network.weather = Weather(delay=(1, 100), loss=300, duplicate=300, straggle=50)
    while sim.network.sent < 10_000:
        sim.clients.issue(1, 20)
        sim.run_for(50)
    sim.settle()
    assert sim.statistics().acknowledged > 0


def test_TP_1_replayed_past_is_harmless() -> None:
    sim = cluster(5, loads=())
    leader = elected(sim)
    for _ in range(20):
        sim.clients.issue(1, 20)
        sim.run_for(30)
    sim.run_for(5 * E)
    term = leader.raft.term
    for _ in range(5):
        sim.network.replay(1500, 200)
        sim.run_for(2 * E)
    assert sim.leader() is leader
    assert leader.raft.term == term
    sim.settle()


def test_PV_1_isolated_node_returns() -> None:
    sim = cluster(3)
    leader = elected(sim)
    term = leader.raft.term
    away = next(node for node in sim.node_ids if node != leader.node.id)
    sim.isolate(away)
    sim.run_for(100 * E)
    assert sim.nodes[away].replicas[1].raft.term == term
    sim.mend()
    sim.run_for(10 * E)
    assert sim.leader() is leader
    assert {replica.raft.term for replica in sim.live_replicas(1)} == {term}
    sim.settle()


def test_PV_3_deaf_leader_steps_down() -> None:
    sim = cluster(4)
    leader = elected(sim)
    term = leader.raft.term
    for other in sim.node_ids:
        if other != leader.node.id:
            sim.network.cut(other, leader.node.id)
    assert sim.run_until(lambda: leader.raft.role is not Role.LEADER, within=2 * E)
    assert sim.run_until(lambda: any(r.raft.role is Role.LEADER and r.raft.term > term for r in sim.live_replicas(1)), within=5 * E)
    sim.settle()


def test_PV_3_deaf_leader_of_a_busy_group_steps_down() -> None:
    sim = cluster(4)
    leader = elected(sim)
    for other in sim.node_ids:
        if other != leader.node.id:
            sim.network.cut(other, leader.node.id)
    for _ in range(10):
        propose(sim, leader.node.id)
        sim.run_for(E // 5)
    assert leader.raft.role is not Role.LEADER
    sim.settle()


def test_MG_3_wakes_on_a_proposal_within_two_round_trips() -> None:
    sim = cluster(2)
    leader = elected(sim)
    sim.run_for(20 * E)
    assert _is_quiet(sim)
    sim.clients.believe(1, leader.node.id)
    operation = sim.clients.issue(1, 8)
    assert sim.run_until(lambda: operation.fate == "acknowledged", within=2 * ROUND_TRIP + 100, every=1)


def test_MG_5_must_not_sleep_while_a_live_follower_lags() -> None:
    sim = cluster(6)
    leader = elected(sim)
    behind = next(node for node in sim.node_ids if node != leader.node.id)
    # Its node is well, but nothing of the group gets through.
    sim.network.drops = lambda _source, target, packet: target == behind and is_group_message(packet)
    sim.clients.believe(1, leader.node.id)
    operation = sim.clients.issue(1, 8)
    assert sim.run_until(lambda: operation.fate == "acknowledged", within=E)
    for _ in range(200):
        sim.run_for(50)
        now = sim.leader()
        assert now is None or now.raft.deadline < NEVER, "sleeps although a live follower lags"
    sim.network.drops = None
    assert sim.run_until(lambda: _level(sim), within=3 * E), sim.describe(1)
    assert sim.run_until(lambda: _is_quiet(sim), within=3 * E), sim.describe(1)
    sim.settle()


def test_MG_5_may_sleep_with_a_dead_follower_and_wakes_when_it_returns() -> None:
    sim = cluster(7)
    leader = elected(sim)
    dead = next(node for node in sim.node_ids if node != leader.node.id)
    sim.nodes[dead].crash()
    sim.clients.believe(1, leader.node.id)
    for _ in range(10):
        sim.clients.issue(1, 8)
        sim.run_for(20)
    assert sim.run_until(lambda: _is_quiet(sim), within=5 * E), sim.describe(1)
    before = sim.group_messages
    sim.run_for(20 * E)
    assert sim.group_messages == before
    assert sim.leader() is leader
    sim.nodes[dead].start()
    assert sim.run_until(lambda: _level(sim), within=3 * E), sim.describe(1)
    assert sim.leader() is leader
    sim.settle()


@pytest.mark.parametrize("down_for", [0, 50, 500, 1500, 10_000])
@pytest.mark.parametrize("voters", [2, 3, 5])
def test_MG_7_leader_restarts_while_followers_sleep(voters: int, down_for: int) -> None:
    sim = cluster(8, voters=voters)
    leader = elected(sim)
    sim.run_for(10 * E)
    assert _is_quiet(sim)
    leader.node.crash()
    sim.run_for(down_for)
    leader.node.start()
    assert sim.run_until(lambda: sim.leader() is not None, within=5 * E), sim.describe(1)
    sim.settle()


def test_MG_7_all_restart_at_once() -> None:
    sim = cluster(9)
    elected(sim)
    sim.run_for(5 * E)
    for node in sim.all_nodes:
        node.crash()
    for node in sim.all_nodes:
        node.start()
    assert sim.run_until(lambda: sim.leader() is not None, within=5 * E), sim.describe(1)
    sim.settle()


def test_LR_10_a_hung_follower_costs_the_others_nothing() -> None:
    """It takes everything and answers nothing: no growing traffic to it, and commits go on as before."""
    sim = cluster(10, config=GroupConfig(window_messages=4))
    leader = elected(sim)
    hung = next(node for node in sim.node_ids if node != leader.node.id)
    to_hung = []

    def drops(source: int, target: int, packet: Any) -> bool:
        if target == hung and is_group_message(packet) and isinstance(packet[1], AppendEntries):
            to_hung.append(packet[1])
        return source == hung and is_group_message(packet)

    sim.network.drops = drops
    sim.clients.believe(1, leader.node.id)
    for _ in range(100):
        operation = sim.clients.issue(1, 8)
        assert sim.run_until(lambda operation=operation: operation.fate == "acknowledged", within=200, every=5)  # type: ignore[misc]  # as above
    assert len(to_hung) <= 20
    sim.settle()


class Figure8:
    """Figure 8 of the paper on five nodes: 2@1 is on S1 and S2; S5 led term 2 and has 2@2; S1 leads term 3 and copies 2@1 to S3."""

    def __init__(self, *, whole: bool) -> None:
        # An append takes one entry: the command is larger than a message may be.
        self.sim = sim = cluster(11, voters=5, config=GroupConfig(append_bytes_max=1))
        self.leader = elected(sim, node=1)
        assert self.leader.raft.commit_index == 1
        sim.network.drops = lambda source, target, packet: source == 1 and target != 2 and is_group_message(packet)
        sim.clients.believe(1, 1)
        sim.clients.issue(1, 20)
        sim.run_for(50)
        assert [replica.log.last_index for replica in sim.live_replicas(1)] == [2, 2, 1, 1, 1]
        sim.nodes[1].crash()
        sim.network.drops = lambda source, _target, packet: source == 5 and is_group_message(packet) and type(packet[1]) is AppendEntries
        self.elect(5)
        assert sim.nodes[5].disk.group(1).log.term_at(2) == 2
        sim.nodes[5].crash()
        sim.nodes[1].start()
        self.allow_only_s3(whole)
        self.elect(1)
        sim.run_for(60)

    def allow_only_s3(self, whole: bool) -> None:
        def drops(source: int, target: int, packet: Any) -> bool:
            if source != 1 or not is_group_message(packet) or type(packet[1]) is not AppendEntries:
                return False
            newest = packet[1].entries[-1].term if packet[1].entries else 0
            # The first no-op that S3 is sent is the probe that it rejects; one that it could append is lost.
            return target == 4 or (target == 3 and newest == 3 and s3.log.last_index > 1 and not whole)

        s3 = self.sim.nodes[3].disk.group(1)
        self.sim.network.drops = drops

    def elect(self, node: int) -> None:
        """Campaign until elected, as its timer would do in the end."""
        for _ in range(40):
            if self.sim.nodes[node].replicas[1].raft.role is Role.LEADER:
                # its no-op reaches its own disk
                self.sim.run_for(5)
                return
            self.sim.campaign(node)
            self.sim.run_for(100)
        pytest.fail(f"n{node} is not elected: {self.sim.describe(1)}")


def test_CM_1_an_old_entry_on_a_majority_does_not_count_and_may_be_replaced() -> None:
    figure = Figure8(whole=False)
    sim = figure.sim
    s1, s3 = sim.nodes[1].replicas[1], sim.nodes[3].disk.group(1)
    assert [entry.term for entry in s3.log.entries] == [1, 1]
    assert s1.raft.role is Role.LEADER
    assert s1.raft.commit_index < 2
    assert len(sim.checkers.agreement.committed[1]) == 1
    sim.nodes[1].crash()
    sim.nodes[5].start()
    sim.network.drops = None
    figure.elect(5)
    sim.settle()
    assert {node.disk.group(1).log.term_at(2) for node in sim.all_nodes} == {2}


def test_CM_1_with_an_own_entry_on_a_majority_the_other_cannot_win() -> None:
    figure = Figure8(whole=True)
    sim = figure.sim
    assert sim.nodes[1].replicas[1].raft.commit_index == 3
    sim.nodes[1].crash()
    sim.nodes[5].start()
    sim.network.drops = None
    for _ in range(30):
        sim.campaign(5)
        sim.run_for(100)
        assert sim.nodes[5].replicas[1].raft.role is not Role.LEADER
        if sim.leader() is not None:
            break
    sim.settle()
    assert {node.disk.group(1).log.term_at(2) for node in sim.all_nodes} == {1}


@pytest.mark.parametrize("moment", ["taken", "written", "sent", "synced"])
@pytest.mark.parametrize("kind", [AppendEntriesReply, None], ids=["append", "anything"])
def test_CM_5_crash_at_every_step_of_an_append(moment: str, kind: type | None) -> None:
    """A follower dies at a step of each append, its unsynced data lost, over and over: nothing that it acknowledged is gone."""
    sim = cluster(12, sync_ms=(5, 20))
    leader = elected(sim)
    follower = next(node for node in sim.all_nodes if node.id != leader.node.id)
    sim.clients.believe(1, leader.node.id)
    for _ in range(30):
        follower.armed = moment
        sim.clients.issue(1, 8)
        sim.run_for(60)
        follower.crash()
        sim.run_for(40 if kind is None else 0)
        follower.start()
        sim.run_for(120)
    sim.settle()


@pytest.mark.parametrize("seed", range(20))
def test_EL_1_and_EL_10_votes_survive_a_crash_at_any_moment(seed: int) -> None:
    """Everybody campaigns and dies at a step of its turn, over and over; `VotesOnce` and `DurableBeforeTold` watch."""
    sim = cluster(seed, sync_ms=(1, 30))
    sim.run_for(200)
    for turn in range(40):
        node = sim.all_nodes[turn % 3]
        if node.is_up:
            node.armed = ("taken", "written", "sent", "synced")[sim.random.randrange(4)]
            sim.campaign(node.id)
        sim.run_for(sim.random.randrange(40))
        for other in sim.all_nodes:
            if not other.is_up:
                other.start()
    sim.settle()
    assert sim.checkers.elections.leaders


def test_CM_3_idle_new_leader_commits_what_it_found() -> None:
    """No clients: the no-op of a new leader commits the old tail within two round trips."""
    sim = cluster(13)
    leader = elected(sim)
    sim.clients.believe(1, leader.node.id)
    # Entries reach everybody; the leader hears no answers, so it cannot commit, and dies.
    sim.network.drops = lambda _source, target, packet: (
        target == leader.node.id and is_group_message(packet) and type(packet[1]) is AppendEntriesReply
    )
    for _ in range(5):
        sim.clients.issue(1, 8)
    sim.run_for(30)
    leader.node.crash()
    sim.network.drops = None
    assert sim.run_until(lambda: sim.leader() is not None, within=5 * E, every=1)
    new = sim.leader()
    assert new is not None
    assert sim.run_until(lambda: new.raft.commit_index == new.log.last_index >= 7, within=2 * ROUND_TRIP + 6, every=1), sim.describe(1)
    sim.settle()


def test_a_node_with_a_hung_disk_does_not_keep_leadership() -> None:
    """DESIGN 5: a node whose oldest sync is as old as E is not live, however well it talks."""
    sim = cluster(14)
    leader = elected(sim)
    leader.node.disk.sync_ms = (60 * E, 60 * E)
    sim.clients.believe(1, leader.node.id)
    sim.clients.issue(1, 8)
    assert sim.run_until(lambda: sim.leader() not in (None, leader), within=8 * E), sim.describe(1)


def test_a_full_disk_hands_leadership_over_and_comes_back_without_a_restart() -> None:
    sim = cluster(15)
    leader = elected(sim)
    leader.node.set_space(False)
    assert sim.run_until(lambda: sim.leader() not in (None, leader), within=5 * E), sim.describe(1)
    sim.run_for(5 * E)
    assert leader.raft.role is not Role.LEADER
    leader.node.set_space(True)
    sim.settle()
    assert leader.node.life == 1


def test_a_paused_leader_finds_out_before_it_says_anything() -> None:
    """It wakes with a late `now`: another leads, and what it had promised to nobody is refused or unknown, never acknowledged twice."""
    sim = cluster(16, loads=(Load(0, 0, ()),))
    leader = elected(sim)
    leader.node.pause()
    assert sim.run_until(lambda: any(r.raft.role is Role.LEADER and r is not leader for r in sim.live_replicas(1)), within=6 * E)
    sim.clients.believe(1, leader.node.id)
    operation = sim.clients.issue(1, 8)
    sim.run_for(E)
    leader.node.resume()
    sim.run_for(1)
    assert leader.raft.role is not Role.LEADER
    sim.run_for(E)
    assert operation.attempts >= 1
    sim.settle()


def test_a_late_heartbeat_of_an_old_term_deposes_nobody() -> None:
    """The present leader answers it with its term; whoever gets that answer must not take the leader for one of its followers."""
    sim = cluster(17)
    old = elected(sim)
    old_term = old.raft.term
    old.node.pause()
    assert sim.run_until(lambda: any(r.raft.role is Role.LEADER and r is not old for r in sim.live_replicas(1)), within=6 * E)
    old.node.resume()
    sim.run_for(5 * E)
    new = sim.leader()
    assert new is not None
    assert new is not old
    term = new.raft.term
    # The two are the whole quorum: losing the one costs the other its leadership.
    sim.nodes[6 - old.node.id - new.node.id].crash()
    assert sim.run_until(lambda: _is_quiet(sim), within=5 * E), sim.describe(1)
    sim.deliver_forged(1, Heartbeat(old.me, new.me, old_term, 0), 1)
    sim.run_for(10 * E)
    assert sim.leader() is new
    assert new.raft.term == term
    sim.settle()


def test_LR_9_a_follower_that_was_probed_in_vain_and_has_everything_gets_the_next_entry_at_once() -> None:
    """Word of a loss while only the commit index is owed must not leave the follower waited for when that has been told."""
    sim = cluster(18)
    leader = elected(sim)
    other = next(node for node in sim.node_ids if node != leader.node.id)
    sim.network.drops = lambda _source, target, packet: target == other and is_group_message(packet) and type(packet[1]) is Heartbeat
    propose(sim, leader.node.id)
    sim.run_for(150)
    leader.put(Unreachable(other))
    sim.run_for(10)
    sim.network.drops = None
    assert sim.run_until(lambda: _is_quiet(sim), within=3 * E), sim.describe(1)
    operation = propose(sim, leader.node.id)
    assert sim.run_until(lambda: operation.fate == "acknowledged", within=E)
    assert sim.run_until(lambda: sim.nodes[other].replicas[1].log.last_index == leader.log.last_index, within=50), sim.describe(1)
    sim.settle()
