"""Whoever runs the cluster: changes who is in a group while it works, and starts and removes replicas as it goes.

A new member's replica is started once a leader has taken the change, sooner or later. The node may have had an older one: that is gone
by then, with all that it had, for its removal was committed before the change could be asked for.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import attrs

from .._types import GroupId, NodeId
from ..core import ChangeMembers, Configuration, Target

if TYPE_CHECKING:
    from ._simulator import Simulator

_START_MS = (0, 600)


@attrs.frozen
class _Change:
    """A change that was asked for, as the core sees it."""

    operator: Operator
    group: GroupId

    def accepted(self) -> None:
        self.operator.simulator.counts["changes"] += 1

    def begins(self, configuration: Configuration) -> None:
        self.operator.start_members(self.group, configuration)


class Operator:
    """Asks for changes, one at a time or not; the leader knows what can be done."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator

    def change(self, group: GroupId, draw: random.Random) -> None:
        """Ask the leader, if there is any, for a small change."""
        leader = self.simulator.leader(group)
        if leader is None:
            return
        configuration = leader.log.configurations[-1][1]
        if not configuration.is_joint:
            target = self._draw_target(draw, configuration, leader.node.id)
            self.simulator.note("CHANGE", f"g{group}", configuration, "to", sorted(target.voters), sorted(target.learners))
            leader.put(ChangeMembers(self.token(group), target))

    def token(self, group: GroupId) -> _Change:
        """What a change is asked for with."""
        return _Change(self, group)

    def _draw_target(self, draw: random.Random, configuration: Configuration, leader: NodeId) -> Target:
        voters, learners = set(configuration.voters), set(configuration.learners)
        outside = [node for node in self.simulator.node_ids if node not in configuration.members()]
        steps = [(learners.add, outside), (learners.discard, sorted(learners))]
        if self.simulator.schedule.changes_voters and draw.random() < 0.5:
            others = sorted(voters - {leader})
            promoted = draw.sample(sorted(learners), draw.randint(0, min(2, len(learners))))
            demoted = draw.sample(others, draw.randint(0, max(min(2, len(others), len(voters) + len(promoted) - 2), 0)))
            return Target(frozenset(voters - {*demoted} | {*promoted}), frozenset(learners - {*promoted} | {*demoted}))
        step, candidates = draw.choice([step for step in steps if step[1]] or [(learners.discard, [leader])])
        step(draw.choice(candidates))
        return Target(frozenset(voters), frozenset(learners))

    def start_members(self, group: GroupId, configuration: Configuration) -> None:
        """Start the replicas of a new configuration that are not there yet."""
        for node_id in configuration.members():
            held = self.simulator.disks.get((group, node_id))
            member = configuration.member(node_id)
            if held is None or held.me.replica < member.replica:
                delay = self.simulator.random.randint(*_START_MS)
                self.simulator.call_in(delay, self.simulator.nodes[node_id].join, group, member)

    def retire(self, group: GroupId) -> None:
        """Remove the replicas that are no members any more."""
        leader = self.simulator.leader(group)
        if leader is None:
            return
        configuration = leader.log.configurations[-1][1]
        for node in self.simulator.all_nodes:
            if node.id not in configuration.members():
                node.leave(group)
