"""What the launcher must notice from outside, and which faults it may cause."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cluster_nodes import ClusterNodes, StartError
from log_limits import LogLimits
from node_process import NodeProcess, NodeState
from observer import Observer


def make_nodes(count: int, tmp_path: Path, replicas: int | None = None) -> ClusterNodes:
    nodes = ClusterNodes(count, 1, tmp_path, LogLimits(), lambda _: None, replicas=replicas)
    for node_id in range(1, count + 1):
        nodes.nodes[node_id] = NodeProcess(node_id, 1, 1, tmp_path, (), state=NodeState.UP)
    return nodes


class Watched:
    """An observer of three nodes and one group, and what it told."""

    def __init__(self, tmp_path: Path) -> None:
        self.told: list[str] = []
        self.observer = Observer(make_nodes(3, tmp_path), self.told.append)

    def see(
        self, node_id: int, *, now: float = 0.0, incarnation: int = 1, syncs: int = 1, received: int = 0, life: int = 1, **changes: Any
    ) -> None:
        group = {
            "incarnation": life,
            "voters": [1, 2, 3],
            "outgoing": [],
            "learners": [],
            "role": "follower",
            "term": 1,
            "leader": None,
            "commit": 5,
            "applied": 5,
            "last": 5,
            "snapshot": 0,
            "keys": 3,
            "index": 5,
            "digest": "d",
            "failure": None,
        }
        status = {
            "node": {"id": node_id, "incarnation": incarnation},
            "syncs": syncs,
            "counters": {"snapshots_received": received},
            "groups": {"1": group | changes},
        }
        self.observer.take(node_id, status, now)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_each_leader_of_a_term_is_told_and_counted_once(watched: Watched) -> None:
    for _ in range(2):
        watched.see(1, role="leader", term=2)
    watched.see(2, role="leader", term=3)
    watched.see(1, role="leader", term=2)
    assert watched.told == ["group 1: node 1 elected in term 2", "group 1: node 2 elected in term 3"]
    assert watched.observer.elections == 2
    assert watched.observer.violations == []


def test_two_leaders_of_one_term_are_a_violation(watched: Watched) -> None:
    watched.see(1, role="leader", term=2)
    watched.see(2, role="leader", term=2)
    assert "both led group 1 in term 2" in watched.observer.violations[0]


def test_other_digests_at_the_same_index_are_a_violation_whenever_they_are_seen(watched: Watched) -> None:
    watched.see(1, index=5, digest="a")
    watched.see(1, index=6, digest="b")
    watched.see(2, index=4, digest="c")
    assert watched.observer.violations == []
    watched.see(2, index=5, digest="x")
    assert watched.observer.differing
    assert "at index 5" in watched.observer.violations[0]


def test_another_incarnation_is_another_group(watched: Watched) -> None:
    for number in (1, 2):
        watched.see(number, life=number, role="leader", term=2, digest=f"d{number}")
    assert watched.observer.violations == []
    assert watched.observer.elections == 2


def test_a_failed_group_is_a_violation(watched: Watched) -> None:
    watched.see(3, failure="broken")
    assert "group 1 failed on node 3: broken" in watched.observer.violations


def test_settled_means_a_leader_and_everything_applied_everywhere(watched: Watched) -> None:
    observer = watched.observer
    watched.see(1, role="leader")
    watched.see(2)
    assert not observer.is_settled(1)
    watched.see(3, applied=4)
    assert observer.unsettled(1) == [1]
    watched.see(3)
    assert observer.is_settled(1)
    assert not observer.is_settled(2)
    watched.see(1, role="follower")
    assert observer.leaderless(1) == [1]
    assert not observer.is_settled(1)


def test_only_members_need_hold_everything_and_learners_are_members(watched: Watched) -> None:
    observer = watched.observer
    watched.see(1, role="leader", voters=[1], outgoing=[], learners=[2])
    watched.see(3, applied=4)
    watched.see(2, applied=4)
    assert (observer.members(1), observer.unsettled(1)) == ([1, 2], [1])
    watched.see(2)
    assert observer.is_settled(1)
    watched.see(3, role="leader", term=0)  # an older one, which does not know yet
    assert observer.members(1) == [1, 2]


def test_syncs_are_counted_over_all_lives(watched: Watched) -> None:
    watched.see(1, syncs=10)
    watched.see(1, syncs=15)
    watched.see(1, incarnation=2, syncs=3)
    assert watched.observer.views[1].syncs == 18


def test_counters_and_replicas_that_began_with_a_snapshot_are_counted_over_all_lives(watched: Watched) -> None:
    watched.see(1, received=0)
    watched.see(1, received=2, snapshot=4)
    watched.see(1, incarnation=2, received=0, snapshot=4)
    watched.see(1, incarnation=2, received=1, snapshot=5)
    view = watched.observer.views[1]
    assert (view.counted("snapshots_received"), view.restored) == (3, 1)


def test_keys_and_commits_are_those_of_the_replica_that_knows_most(watched: Watched) -> None:
    watched.see(1, keys=7, commit=9)
    watched.see(2, keys=8, commit=6)
    assert (watched.observer.keys, watched.observer.commits()) == (8, {1: 9})


def test_commit_rate_counts_within_one_life_only(watched: Watched) -> None:
    watched.see(1, now=0.0, commit=100)
    watched.see(1, now=2.0, commit=300)
    assert watched.observer.views[1].commit_rate == pytest.approx(100)
    watched.see(1, now=3.0, incarnation=2, commit=900)
    assert watched.observer.views[1].commit_rate == 0


@pytest.mark.parametrize(
    "count, replicas, down, may",
    [
        (3, 3, 0, True),
        (3, 3, 1, False),
        (5, 5, 1, True),
        (5, 5, 2, False),
        (5, 3, 0, True),
        (5, 3, 1, False),
        (4, 4, 1, False),
        (1, 1, 0, False),
        (2, 2, 0, False),
    ],
)
def test_faults_leave_a_majority(tmp_path: Path, count: int, replicas: int, down: int, may: bool) -> None:
    nodes = make_nodes(count, tmp_path, replicas)
    for node in list(nodes.nodes.values())[:down]:
        node.state = NodeState.STOPPED
    assert nodes.may_lose_one() is may


@pytest.mark.parametrize("text", ["{", '"x"', "[1, 2]x", "[1, 2]", '{"replicas": 3, "ports": [0, 1, 2, 3, 4, 5]}'])
async def test_a_damaged_directory_is_a_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "ports.json").write_text(text)
    with pytest.raises(StartError, match="ports.json"):
        await ClusterNodes(3, 1, tmp_path, LogLimits(), lambda _: None).start()
