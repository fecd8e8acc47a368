"""Who is in a group.

A configuration is a value: it is made by `bootstrap` or by the algebra in `_confchange`, and never changed. These hold of each:

- `learners` are no voters of either half;
- `learners_next` vote in the outgoing half only: they become learners when that half is dropped, not before, because until then
  their vote is needed (so nobody votes and learns at once);
- every member has exactly one replica number, and nobody else has any.

A joint configuration is always left by the leader, once it is committed: so there is no such thing as staying joint until told.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping

import attrs

from .._errors import ConfigError
from .._types import NOTHING, EntryId, Index, Member, NodeId

_NODE_ID_MAX = (1 << 32) - 1


def _node_set(nodes: Iterable[NodeId]) -> frozenset[NodeId]:
    return frozenset(nodes)


@attrs.frozen
class Configuration:
    """Who is in a group: two halves of voters while joint, and learners. Equal as sets.

    Raises:
        ConfigError: the sets contradict each other, or a node id or replica number is impossible.
    """

    voters: frozenset[NodeId] = attrs.field(converter=_node_set)
    """The voters; while joint, the incoming half."""

    outgoing: frozenset[NodeId] = attrs.field(default=frozenset(), converter=_node_set)
    """While joint, the old half; empty otherwise."""

    learners: frozenset[NodeId] = attrs.field(default=frozenset(), converter=_node_set)
    """Members that get the log and have no say."""

    learners_next: frozenset[NodeId] = attrs.field(default=frozenset(), converter=_node_set)
    """Voters of the outgoing half that become learners when it is dropped."""

    # NB: a dict of its own that nobody writes to; left out of the hash because a dict has none.
    replicas: Mapping[NodeId, EntryId] = attrs.field(factory=dict, hash=False)
    """The replica number of each member. One left out at construction is `NOTHING`: a member since bootstrap."""

    index: Index = attrs.field(default=0, eq=False)
    """Of the entry that put it in force; 0: the group's first one. What a change is compared with (`ChangeMembers.expect`)."""

    _members: tuple[NodeId, ...] = attrs.field(init=False, eq=False, repr=False)
    _voter_ids: tuple[NodeId, ...] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        voting = self.voters | self.outgoing
        members = voting | self.learners
        for node_id in members:
            if type(node_id) is not int or not 1 <= node_id <= _NODE_ID_MAX:
                raise ConfigError(f"a node id must be a whole number from 1 to {_NODE_ID_MAX}, not {node_id!r}")
        if self.learners & voting:
            raise ConfigError(f"nodes {sorted(self.learners & voting)} cannot be voters and learners at once")
        if not self.learners_next <= self.outgoing - self.voters:
            raise ConfigError(f"learners_next {sorted(self.learners_next)} must vote in the outgoing half only")
        if not self.replicas.keys() <= members:
            raise ConfigError(f"replica numbers for nodes {sorted(self.replicas.keys() - members)}, which are no members")
        replicas = {node_id: EntryId(*self.replicas.get(node_id, NOTHING)) for node_id in sorted(members)}
        object.__setattr__(self, "replicas", replicas)
        object.__setattr__(self, "_members", tuple(replicas))
        object.__setattr__(self, "_voter_ids", tuple(sorted(voting)))

    @classmethod
    def bootstrap(cls, voters: Iterable[NodeId]) -> Configuration:
        """Make the configuration of a group that begins: these voters, nobody else.

        Raises:
            ConfigError: no voters, or an impossible node id.
        """
        configuration = cls(voters)
        if not configuration.voters:
            raise ConfigError("a group needs at least one voter")
        return configuration

    @property
    def genesis(self) -> int:
        """Tell groups apart that were begun by other voters, whatever they are called; 0: by nobody."""
        voters = sorted(self.voters)
        return (zlib.crc32(struct.pack(f"<{len(voters)}I", *voters)) or 1) if voters else 0

    @property
    def is_joint(self) -> bool:
        return bool(self.outgoing)

    def members(self) -> tuple[NodeId, ...]:
        """All members, in id order."""
        return self._members

    def voter_ids(self) -> tuple[NodeId, ...]:
        """The voters of both halves, in id order."""
        return self._voter_ids

    def is_voter(self, node_id: NodeId) -> bool:
        """Tell whether the node votes in either half."""
        return node_id in self.voters or node_id in self.outgoing

    def member(self, node_id: NodeId) -> Member:
        """Name the present life of a member.

        Raises:
            KeyError: the node is no member.
        """
        return Member(node_id, self.replicas[node_id])

    def __str__(self) -> str:
        """Read as ``(1 2 3)``, or ``(1 2 3)&(1 2) learners (4) next (5)``."""
        text = _listed(self.voters)
        if self.outgoing:
            text += f"&{_listed(self.outgoing)}"
        if self.learners:
            text += f" learners {_listed(self.learners)}"
        if self.learners_next:
            text += f" next {_listed(self.learners_next)}"
        return text


def _listed(nodes: Iterable[NodeId]) -> str:
    return "(" + " ".join(map(str, sorted(nodes))) + ")"
