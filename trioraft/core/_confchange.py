"""How one configuration becomes the next: pure functions over values.

A change is a *target*: the voters and learners that shall be in the end. Whatever the target, any two configurations that follow
each other directly must have overlapping quorums, or two leaders could be elected side by side. Two kinds of step give that:

- `simple`: at most one voter comes or goes, so any two majorities overlap (dissertation 4.1);
- `enter_joint`, later `leave_joint`: in between, both majorities are needed (dissertation 4.3).

`next_configuration` picks the step. These functions judge the sets alone. The rest is the leader's to hold: a step is in force
when it is appended, one is uncommitted at a time, none is taken before an entry of the leader's own term is committed (without
that even single-voter steps are unsafe), and joint is left only after it is committed.
"""

from __future__ import annotations

import attrs

from .._errors import ChangeRefusedError, ConfigError
from .._types import EntryId, NodeId
from ._configuration import Configuration


@attrs.frozen
class Target:
    """Who shall vote and who shall learn when a change is through.

    Raises:
        ConfigError: a node is in both sets.
    """

    voters: frozenset[NodeId]
    learners: frozenset[NodeId] = frozenset()

    def __attrs_post_init__(self) -> None:
        if self.voters & self.learners:
            raise ConfigError(f"nodes {sorted(self.voters & self.learners)} cannot be voters and learners at once")

    @classmethod
    def of(cls, configuration: Configuration) -> Target:
        """Name where a configuration leads when it is left alone."""
        return cls(configuration.voters, configuration.learners | configuration.learners_next)


def next_configuration(configuration: Configuration, target: Target, added_by: EntryId) -> Configuration:
    """Return the configuration to append next on the way to the target; `configuration` itself if it is there already.

    At most one voter differs: the target. More: the joint configuration that leads to it. Joint already, with this same target:
    the target. `Target.of(result)` is always the target.

    Args:
        configuration: the one in force.
        added_by: the position that the step's entry will have; new members get it as their replica number.

    Raises:
        ChangeRefusedError: ``removes_all_voters``, or ``joint_in_progress`` with another target.
        ConfigError: the id of a node is impossible.
    """
    if configuration.is_joint:
        if target != Target.of(configuration):
            raise _joint_in_progress(configuration)
        return leave_joint(configuration, added_by)
    if target == Target.of(configuration):
        return configuration
    if len(configuration.voters ^ target.voters) <= 1:
        return simple(configuration, target, added_by)
    return enter_joint(configuration, target, added_by)


def simple(configuration: Configuration, target: Target, added_by: EntryId) -> Configuration:
    """Return the target, reached directly: at most one voter may differ; learners may differ at will.

    Raises:
        ChangeRefusedError: ``joint_in_progress``, ``removes_all_voters`` or ``needs_joint``.
    """
    if configuration.is_joint:
        raise _joint_in_progress(configuration)
    _check_voters_left(target)
    changed = configuration.voters ^ target.voters
    if len(changed) > 1:
        raise ChangeRefusedError("needs_joint", f"voters {sorted(changed)} change at once: only joint consensus can do that safely")
    return _with_replicas(Configuration(target.voters, learners=target.learners), configuration, added_by)


def enter_joint(configuration: Configuration, target: Target, added_by: EntryId) -> Configuration:
    """Return the joint configuration on the way to the target: both halves must agree until it is left.

    A voter that shall learn goes on voting in the outgoing half, and learns only when that is dropped.

    Raises:
        ChangeRefusedError: ``already_joint``, ``no_voters_to_join_from`` or ``removes_all_voters``.
    """
    if configuration.is_joint:
        raise ChangeRefusedError("already_joint", f"{configuration} is joint already")
    if not configuration.voters:
        raise ChangeRefusedError("no_voters_to_join_from", "a configuration without voters cannot become joint")
    _check_voters_left(target)
    outgoing = configuration.voters
    joint = Configuration(target.voters, outgoing, target.learners - outgoing, target.learners & outgoing)
    return _with_replicas(joint, configuration, added_by)


def leave_joint(configuration: Configuration, at: EntryId) -> Configuration:
    """Return what is left when the outgoing half is dropped, by the entry `at`. Nobody is new there, so it makes no replica numbers.

    Raises:
        ChangeRefusedError: ``not_joint``.
    """
    if not configuration.is_joint:
        raise ChangeRefusedError("not_joint", f"{configuration} is not joint")
    target = Target.of(configuration)
    stay = target.voters | target.learners
    replicas = {node_id: replica for node_id, replica in configuration.replicas.items() if node_id in stay}
    return Configuration(target.voters, learners=target.learners, replicas=replicas, index=at.index)


def _with_replicas(to: Configuration, before: Configuration, added_by: EntryId) -> Configuration:
    """Give each member of `to` its replica number: who was a member keeps it, even as it changes sides."""
    replicas = {node_id: before.replicas.get(node_id, added_by) for node_id in to.members()}
    return attrs.evolve(to, replicas=replicas, index=added_by.index)


def _check_voters_left(target: Target) -> None:
    if not target.voters:
        raise ChangeRefusedError("removes_all_voters", "a group needs at least one voter")


def _joint_in_progress(configuration: Configuration) -> ChangeRefusedError:
    return ChangeRefusedError("joint_in_progress", f"a change is under way: {configuration} has yet to be left")
