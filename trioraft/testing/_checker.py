"""What watches a simulated cluster: the base class of all checkers, and the view that they have.

A checker never looks into a core. It sees what anybody outside could see: what is written, what is on the disks, what leaves a node,
what is committed, applied and acknowledged. So it cannot share a mistake with the core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, NoReturn

import attrs

from .._types import GroupId, Index, NodeId, Term
from ..core import Configuration, Entry, HardState, Message
from ._disk import GroupDisk
from ._violation import PropertyViolation


class Who(NamedTuple):
    """One life of one replica."""

    node: NodeId
    group: GroupId
    life: int

    def __str__(self) -> str:
        return f"n{self.node}/g{self.group} (life {self.life})"


@attrs.frozen
class World:
    """What checkers may look at: the disks, as they are now, and who belongs to each group."""

    configurations: Mapping[GroupId, Configuration]
    disks: Mapping[tuple[GroupId, NodeId], GroupDisk]

    def is_on_majority(self, group: GroupId, entry: Entry) -> bool:
        """Tell whether the entry is on the disks of a majority of each half of the voters."""
        configuration = self.configurations[group]
        holders = {node for node in configuration.members() if self.disks[group, node].term_at(entry.index) == entry.term}
        halves = [configuration.voters, configuration.outgoing]
        return all(2 * len(half & holders) > len(half) for half in halves if half)


class Checker:
    """Watches for one property. Subclasses override the hooks they need; each hook is called at the moment that its name says."""

    name: ClassVar[str]

    def fail(self, detail: str) -> NoReturn:
        raise PropertyViolation(self.name, detail)

    def started(self, who: Who, disk: GroupDisk) -> None:
        """A replica begins a life with what is on its disk."""

    def writes(self, who: Who, hard_state: HardState | None, entries: Sequence[Entry], log: Sequence[Entry], leads: Term | None) -> None:
        """A replica has handed out a write, durable later.

        `log` is its log before this write, `leads` the term that it leads in.
        """

    def synced(self, who: Who, disk: GroupDisk) -> None:
        """A write of the replica has become durable."""

    def elected(self, who: Who, term: Term) -> None:
        """A replica leads in `term`."""

    def leads(self, who: Who, term: Term, log: Sequence[Entry]) -> None:
        """A replica that leads in `term` has handed out its log up to now; called for each turn in which it leads."""

    def sends(self, who: Who, message: Message, disk: GroupDisk) -> None:
        """A message leaves a node whose disk holds `disk` at this moment."""

    def commits(self, who: Who, commit: Index, log: Sequence[Entry], term: Term, leads: bool) -> None:
        """A replica in `term` has another commit index than before; it has led that term all the while, or not."""

    def applies(self, who: Who, entry: Entry, disk: GroupDisk) -> None:
        """A replica is given an entry to apply."""

    def acknowledges(self, who: Who, entry: Entry) -> None:
        """A client is told that its command, which is `entry`, is done."""
