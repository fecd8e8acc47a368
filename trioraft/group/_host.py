"""What a group needs of the node that runs it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Protocol

from .._types import GroupId, GroupKey, Millis, NodeId
from ..core import Message, Timing
from ..observe import Announcer, Counters
from ._applier import ApplyThreads
from ._waiter import Token


class Host(Protocol):
    """The node as its groups see it. Everything here is synchronous and returns at once."""

    @property
    def node_id(self) -> NodeId: ...

    @property
    def timing(self) -> Timing: ...

    @property
    def random(self) -> random.Random: ...

    @property
    def liveness(self) -> Mapping[NodeId, Millis]:
        """Until when each peer counts as live; moved by the node, read by the cores."""

    @property
    def counters(self) -> Counters: ...

    @property
    def announcer(self) -> Announcer: ...

    @property
    def has_room(self) -> bool:
        """False while the log cannot take proposals."""

    @property
    def apply_threads(self) -> ApplyThreads:
        """What blocking machines run in."""

    def now(self) -> Millis: ...

    def next_sequence(self) -> int:
        """The number of this group's next write."""

    def set_deadline(self, group_id: GroupId, deadline: Millis) -> None:
        """Have the group's inbox told at `deadline`, instead of any earlier wish."""

    def watch(self, group_id: GroupId, nodes: frozenset[NodeId]) -> None:
        """Have the group's inbox told when one of `nodes` goes down or comes back, instead of any earlier wish."""

    def send(self, key: GroupKey, messages: Iterable[Message]) -> None:
        """Hand messages to the senders of their targets, in order."""

    def forward(self, peer: NodeId, key: GroupKey, payload: bytes, token: Token) -> None:
        """Pass a proposal on to `peer`, once; the token hears the answer."""

    def group_stopped(self, key: GroupKey) -> None:
        """The group runs no more: route nothing to it, wake it no more, detach it from its peers."""
