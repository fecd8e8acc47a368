"""Watches the cluster from outside, through ``GET /status``: who leads what, how quickly it commits, whether replicas agree.

Elections are seen, not told: each new (group, term, leader) counts once. A term that begins and ends between two looks stays unseen, so
the count is a lower bound.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

import attrs
import trio
from cluster_nodes import ClusterNodes
from http_client import Answer, HttpConnection, NoAnswerError, NotSentError
from node_process import HOST, NodeProcess, NodeState

LOOK_SECONDS = 0.25
_ANSWER_SECONDS = 1.0
_SAMPLES_MAX = 200_000


@attrs.define
class NodeView:
    """What is known of one node."""

    node_id: int
    groups: dict[int, dict[str, Any]] = attrs.Factory(dict)
    """Its replicas, as of the last answer."""
    answered: bool = False
    """Whether the last look got an answer."""
    commit_rate: float = 0.0
    """Entries committed per second, over all groups, between the last two looks of one life."""
    syncs_by_life: dict[int, int] = attrs.Factory(dict)
    """Syncs of the log, as last seen in each life of the node."""
    counters_by_life: dict[int, dict[str, int]] = attrs.Factory(dict)
    """The node's counters, the same way: what it did between the last look and a kill is missing."""
    restored: int = 0
    """Replicas that had a snapshot when the node was first seen in a new life: they began with it."""
    _looked: float = 0.0

    @property
    def led(self) -> int:
        """How many groups it says it leads."""
        return sum(1 for group in self.groups.values() if group["role"] == "leader") if self.answered else 0

    @property
    def syncs(self) -> int:
        """Syncs over all lives."""
        return sum(self.syncs_by_life.values())

    def counted(self, name: str) -> int:
        """One of the node's counters, over all lives."""
        return sum(counters[name] for counters in self.counters_by_life.values())

    def take(self, status: dict[str, Any], now: float) -> None:
        """Take over what the node says of itself."""
        groups = {int(group_id): group for group_id, group in status["groups"].items()}
        life = status["node"]["incarnation"]
        is_same_life = life in self.syncs_by_life
        if not is_same_life:
            self.restored += sum(1 for group in groups.values() if group["snapshot"] > 0)
        committed = sum(
            max(0, group["commit"] - self.groups[group_id]["commit"]) for group_id, group in groups.items() if group_id in self.groups
        )
        self.commit_rate = committed / max(now - self._looked, 1e-3) if is_same_life else 0.0
        self.groups, self.answered, self._looked = groups, True, now
        self.syncs_by_life[life] = status["syncs"]
        self.counters_by_life[life] = status["counters"]


class Observer:
    """What has been seen of all nodes."""

    def __init__(self, nodes: ClusterNodes, tell: Callable[[str], None]) -> None:
        self._nodes, self._tell = nodes, tell
        self.views = {node_id: NodeView(node_id) for node_id in nodes.nodes}
        self.violations: list[str] = []
        """Things that must never be seen."""
        self.differing = False
        """Replicas had other digests at the same index."""
        # By group *and incarnation*: a group that was removed and begun anew is another one.
        self._leaders: dict[tuple[int, int, int], int] = {}
        self._current: dict[int, tuple[int, int]] = {}
        self._digests: dict[tuple[int, int, int], tuple[str, int]] = {}

    @property
    def elections(self) -> int:
        """Leaders seen to be elected, the first one of each group included."""
        return len(self._leaders)

    async def run(self) -> None:
        """Look at all nodes, again and again, until cancelled."""
        async with trio.open_nursery() as nursery:
            for node in self._nodes.nodes.values():
                nursery.start_soon(self._watch, node)

    async def _watch(self, node: NodeProcess) -> None:
        view = self.views[node.node_id]
        async with HttpConnection(HOST, node.http_port) as connection:
            while True:
                if node.state in (NodeState.UP, NodeState.STARTING) and (answer := await _ask(connection)) is not None:
                    self.take(node.node_id, answer.json(), trio.current_time())
                else:
                    view.answered, view.commit_rate = False, 0.0
                await trio.sleep(LOOK_SECONDS)

    def take(self, node_id: int, status: dict[str, Any], now: float) -> None:
        """Take in one node's status, and check it against everything seen before."""
        view = self.views[node_id]
        view.take(status, now)
        for group_id, group in view.groups.items():
            self._check_leader(node_id, group_id, group)
            self._check_digest(node_id, group_id, group)
            if group["failure"]:
                self._violation(f"group {group_id} failed on node {node_id}: {group['failure']}")

    def _check_leader(self, node_id: int, group_id: int, group: dict[str, Any]) -> None:
        """Note who leads, by its own word; two leaders of one term would break Raft's first promise."""
        if group["role"] != "leader":
            return
        known = self._leaders.setdefault((group_id, group["incarnation"], group["term"]), node_id)
        if known != node_id:
            self._violation(f"two leaders: nodes {known} and {node_id} both led group {group_id} in term {group['term']}")
        before = self._current.get(group_id)
        if before is None or before < (group["incarnation"], group["term"]):
            self._current[group_id] = (group["incarnation"], group["term"])
            self._tell(f"group {group_id}: node {node_id} elected in term {group['term']}")

    def _check_digest(self, node_id: int, group_id: int, group: dict[str, Any]) -> None:
        """Replicas that applied the same index must have the same digest, at any moment of the run."""
        if len(self._digests) >= _SAMPLES_MAX:
            self._digests.clear()
        place = (group_id, group["incarnation"], group["index"])
        digest, first_node = self._digests.setdefault(place, (group["digest"], node_id))
        if digest != group["digest"]:
            self.differing = True
            self._violation(f"differing: group {group_id} at index {group['index']}: nodes {first_node} and {node_id} have other digests")

    def _violation(self, text: str) -> None:
        if text not in self.violations:
            self.violations.append(text)
            self._tell(text)

    def leader_row(self, group_id: int) -> dict[str, Any] | None:
        """What the group's leader says of itself and of the members, by the last answers: of two, the one with the higher term."""
        rows = [view.groups[group_id] for view in self.views.values() if view.answered and group_id in view.groups]
        return max((row for row in rows if row["role"] == "leader"), key=itemgetter("term"), default=None)

    def members(self, group_id: int) -> list[int]:
        """The nodes whose replicas must hold everything: those that the leader names; all nodes while there is none."""
        row = self.leader_row(group_id)
        return sorted(self.views) if row is None else sorted({*row["voters"], *row["outgoing"], *row["learners"]})

    def leaderless(self, groups: int) -> list[int]:
        """The groups that no node says it leads, by the last answers."""
        return [group_id for group_id in range(1, groups + 1) if self.leader_row(group_id) is None]

    @property
    def keys(self) -> int:
        """Keys of all groups together, by the replicas that have most of them."""
        most: dict[int, int] = {}
        for view in self.views.values():
            for group_id, group in view.groups.items():
                most[group_id] = max(most.get(group_id, 0), group["keys"])
        return sum(most.values())

    def commits(self) -> dict[int, int]:
        """How far each group has committed, by the replicas that know best."""
        furthest: dict[int, int] = {}
        for view in self.views.values():
            for group_id, group in view.groups.items():
                furthest[group_id] = max(furthest.get(group_id, 0), group["commit"])
        return furthest

    def is_settled(self, groups: int) -> bool:
        """Every node answers, every group has a leader, and every member has applied all of the same log."""
        return all(view.answered for view in self.views.values()) and not self.leaderless(groups) and not self.unsettled(groups)

    def unsettled(self, groups: int) -> list[int]:
        """The groups whose members have not all applied all of the same log."""
        return [group_id for group_id in range(1, groups + 1) if not self._is_equal(group_id)]

    def _is_equal(self, group_id: int) -> bool:
        replicas = [self.views[node_id].groups.get(group_id) for node_id in self.members(group_id)]
        ends = {None if replica is None else (replica["applied"], replica["commit"], replica["last"]) for replica in replicas}
        if len(ends) != 1 or (end := ends.pop()) is None:
            return False
        applied, _commit, last = end
        return bool(applied == last)


async def _ask(connection: HttpConnection) -> Answer | None:
    answer = None
    with trio.move_on_after(_ANSWER_SECONDS):
        try:
            answer = await connection.request("GET", "/status")
        except (NotSentError, NoAnswerError):
            return None
    return answer if answer is not None and answer.status == 200 else None
