"""Whoever runs the cluster: changes who is in a group while it works, hands leadership over, and starts and removes replicas as it goes.

A new member's replica joins with nothing, before the change is asked for or some time after. Who was removed goes on until it is told,
and comes back with all that it has when it is added again; or its replica is removed for good, but never before its removal is
committed, and whoever is added there again begins with nothing and cannot have the old number.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from .._errors import RaftError
from .._types import EntryId, GroupId, NodeId
from ..core import ChangeMembers, Configuration, Role, Target, TransferLeadership
from ._violation import PropertyViolation

if TYPE_CHECKING:
    from ._replica import SimulatedReplica
    from ._simulator import Simulator

_START_MS = (0, 600)
_AT_ONCE = 0.2
"""How often two changes are asked for at once."""
_EXPECTS = 0.3
"""How often a change says what configuration it goes by; half of these are wrong."""
_REMOVES = 0.4
"""How often, at each change, replicas that are members no more are removed for good."""


@attrs.frozen(eq=False)
class Changing:
    """A change that was asked for: what the core answers to."""

    operator: Operator
    group: GroupId
    target: Target
    is_stale: bool = False
    """It goes by a configuration that is not in force."""

    def accepted(self) -> None:
        self.operator.simulator.counts["changes"] += 1

    def reached(self, configuration: Configuration, at: EntryId) -> None:
        """The target is in a leader's log."""
        if Target.of(configuration) != self.target or configuration.is_joint or configuration.index != at.index:
            raise PropertyViolation("requests", f"a change to {self.target} is said to be reached by {configuration} at {at}")
        self._check_expect()
        self.operator.start_members(self.group, configuration)

    def succeed(self, _index: object) -> None:
        """There was nothing to do."""
        self._check_expect()

    def _check_expect(self) -> None:
        if self.is_stale:
            raise PropertyViolation("requests", f"a change to {self.target} was made although it expected another configuration")

    def fail(self, error: RaftError) -> None:
        self.operator.simulator.note("refused", f"g{self.group}", sorted(self.target.voters), error)


@attrs.frozen(eq=False)
class _Transferring:
    """A transfer that was asked for."""

    leader: SimulatedReplica

    def succeed(self, _nothing: None) -> None:
        if self.leader.raft.role is Role.LEADER and self.leader.raft.term == self.leader.led_before_turn:
            raise PropertyViolation("requests", f"{self.leader.who} says that it has handed over, and leads")
        self.leader.node.simulator.counts["transfers"] += 1

    def fail(self, error: RaftError) -> None:
        self.leader.node.simulator.note("refused", self.leader.who, error)


class Operator:
    """Asks for changes, one at a time or not; the leader knows what can be done."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator

    # --- what it asks for ---------------------------------------------------------------------------------------------------------------

    def change(self, group: GroupId, draw: random.Random) -> None:
        """Ask the leader, if there is any, for other members."""
        if draw.random() < _REMOVES:
            self._remove_gone(group)
        leader = self.simulator.leader(group)
        if leader is None:
            return
        configuration = leader.log.configurations[-1][1]
        for _ in range(2 if draw.random() < _AT_ONCE else 1):
            target = self._draw_target(draw, configuration, leader.node.id)
            expect = None
            if draw.random() < _EXPECTS:
                expect = configuration.index - draw.randint(0, 1)
            self.ask(leader, target, expect)

    def ask(self, leader: SimulatedReplica, target: Target, expect: int | None = None) -> None:
        """Ask this replica, and start whoever is new."""
        configuration = leader.log.configurations[-1][1]
        group, is_stale = leader.group, expect is not None and expect < configuration.index
        self.simulator.note("CHANGE", f"g{group}", configuration, "to", sorted(target.voters), sorted(target.learners))
        self._start(group, target.voters | target.learners)
        leader.request(ChangeMembers(Changing(self, group, target, is_stale), target, expect))

    def transfer(self, group: GroupId, draw: random.Random) -> None:
        """Ask the leader, if there is any, to hand over: to anybody it likes, or to a node, whatever that is in the group."""
        leader = self.simulator.leader(group)
        if leader is not None:
            target = draw.choice((None, draw.choice(self.simulator.node_ids)))
            self.simulator.note("TRANSFER", leader.who, "to", target)
            leader.request(TransferLeadership(_Transferring(leader), target))

    def _draw_target(self, draw: random.Random, configuration: Configuration, leader: NodeId) -> Target:
        voters, learners = set(configuration.voters), set(configuration.learners | configuration.learners_next)
        outside = [node for node in self.simulator.node_ids if node not in configuration.members()]
        if not self.simulator.schedule.changes_voters or draw.random() < 0.2:
            steps = [(learners.add, outside), (learners.discard, sorted(learners))]
            step, candidates = draw.choice([step for step in steps if step[1]] or [(learners.discard, [leader])])
            step(draw.choice(candidates))
            return Target(frozenset(voters), frozenset(learners))
        coming = draw.sample([*sorted(learners), *outside], draw.randint(0, min(2, len(learners) + len(outside))))
        # Now and then it is the leader itself that goes.
        going = draw.sample(sorted(voters), draw.randint(0, min(2, len(voters) + len(coming) - 1, len(voters))))
        learning = {node for node in going if draw.random() < 0.4}
        return Target(frozenset(voters - {*going} | {*coming}), frozenset(learners - {*coming} | learning))

    # --- replicas ---------------------------------------------------------------------------------------------------------------------

    def start_members(self, group: GroupId, configuration: Configuration) -> None:
        """Start the replicas of a configuration that are not there yet."""
        self._start(group, configuration.members())

    def _start(self, group: GroupId, nodes: frozenset[NodeId] | tuple[NodeId, ...]) -> None:
        for node_id in sorted(nodes):
            if (group, node_id) not in self.simulator.disks:
                delay = self.simulator.random.randint(*_START_MS)
                self.simulator.call_in(delay, self.simulator.nodes[node_id].join, group)

    def _remove_gone(self, group: GroupId) -> None:
        """Remove the replicas that are no members any more, with all that they have."""
        for node in self.simulator.all_nodes:
            if (group, node.id) in self.simulator.disks and self._is_gone(group, node.id):
                node.leave(group)

    def _is_gone(self, group: GroupId, node_id: NodeId) -> bool:
        """Whether a node's removal is committed, and nobody has added it again, not even in an entry that may be lost yet."""
        agreement = self.simulator.checkers.agreement
        committed = len(agreement.committed[group])
        if node_id in agreement.configuration_at(group, committed).replicas:
            return False
        numbers = [self.simulator.disks[group, node_id].me.replica]
        replica = self.simulator.nodes[node_id].replicas.get(group)
        if replica is not None:
            numbers.append(replica.me.replica)
        if any(number.index > committed for number in numbers):
            return False
        return not any(index > committed and node_id in configuration.replicas for index, configuration in self._configurations(group))

    def _configurations(self, group: GroupId) -> Iterator[tuple[int, Configuration]]:
        """All that is in any log."""
        for (of, _), disk in self.simulator.disks.items():
            if of == group:
                yield from disk.log.configurations
        for replica in self.simulator.live_replicas(group):
            yield from replica.log.configurations

    def retire(self, group: GroupId) -> None:
        """Remove the replicas that are members no more and that nobody can tell so: all whom they could ask are gone."""
        leader = self.simulator.leader(group)
        if leader is None:
            return
        members = leader.log.configurations[-1][1].replicas
        for node in self.simulator.all_nodes:
            replica = node.replicas.get(group)
            if node.id in members or replica is None:
                continue
            known = replica.log.configurations[-1][1]
            if not any(members.get(voter) == known.replicas[voter] for voter in known.voter_ids()):
                node.leave(group)
