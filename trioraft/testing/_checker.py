"""What watches a simulated cluster: the base class of all checkers, and the view that they have.

A checker never looks into a core. It sees what anybody outside could see: what is written, what is on the disks, what leaves a node,
what is committed, applied and acknowledged. So it cannot share a mistake with the core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple, NoReturn

import attrs

from .._types import NOTHING, EntryId, GroupId, Index, Member, Millis, NodeId, Term
from ..core import Compaction, Configuration, Entry, HardState, InstallSnapshot, LoadEntries, Message
from ._disk import GroupDisk
from ._log_window import LogWindow
from ._machine import SimulatedMachine, Snapshot
from ._violation import PropertyViolation


class Who(NamedTuple):
    """One life of one replica."""

    node: NodeId
    group: GroupId
    life: int
    replica: EntryId = NOTHING
    """Its number when this life began."""
    disk: int = 0
    """`GroupDisk.number`: a node may begin anew within one life."""

    def __str__(self) -> str:
        return f"{Member(self.node, self.replica)}/g{self.group} (life {self.life})"


@attrs.frozen
class World:
    """What checkers may look at: the disks, as they are now, and who belonged to each group at first."""

    configurations: Mapping[GroupId, Configuration]
    disks: Mapping[tuple[GroupId, NodeId], GroupDisk]
    now: Callable[[], Millis] = lambda: 0
    """Simulated time."""

    def is_on_majority(self, group: GroupId, entry: Entry, configuration: Configuration) -> bool:
        """Tell whether the entry is on the disks of a majority of each half of the voters, or in what they have a snapshot of."""
        holders = {node for node in configuration.voter_ids() if self._holds(group, configuration.member(node), entry)}
        halves = [configuration.voters, configuration.outgoing]
        return all(2 * len(half & holders) > len(half) for half in halves if half)

    def _holds(self, group: GroupId, member: Member, entry: Entry) -> bool:
        disk = self.disks.get((group, member.node_id))
        return disk is not None and member.replica in disk.numbers and disk.log.holds(entry)


class Checker:
    """Watches for one property. Subclasses override the hooks they need; each hook is called at the moment that its name says."""

    name: ClassVar[str]

    def fail(self, detail: str) -> NoReturn:
        raise PropertyViolation(self.name, detail)

    def started(self, who: Who, disk: GroupDisk, history: Sequence[Entry]) -> None:
        """A replica begins a life with what is on its disk, and a machine that has been given `history`."""

    def writes(self, who: Who, hard_state: HardState | None, entries: Sequence[Entry], log: LogWindow, leads: Term | None) -> None:
        """A replica has handed out a write, durable later.

        `log` is its log before these entries, `leads` the term that it leads in.
        """

    def installs(self, who: Who, message: InstallSnapshot, log: LogWindow, commit: Index, disk: GroupDisk) -> None:
        """A replica has handed out a write that puts a snapshot in place of its log, of which it knew `commit` to be committed."""

    def compacts(self, who: Who, compaction: Compaction, log: LogWindow) -> None:
        """A replica has told its disk to cut its log, which is `log` until then."""

    def synced(self, who: Who, disk: GroupDisk) -> None:
        """A write of the replica has become durable."""

    def elected(self, who: Who, term: Term) -> None:
        """A replica leads in `term`."""

    def leads(self, who: Who, term: Term, log: LogWindow) -> None:
        """A replica that leads in `term` has handed out its log up to now; called for each turn in which it leads."""

    def sends(self, who: Who, message: Message, disk: GroupDisk) -> None:
        """A message leaves a node whose disk holds `disk` at this moment."""

    def commits(self, who: Who, commit: Index, log: LogWindow, term: Term, leads: bool, in_force: Sequence[Configuration]) -> None:
        """A replica in `term` has another commit index than before; it has led that term all the while, or not.

        `in_force` are the configurations that its log had as the newest one since it was looked at last.
        """

    def applies(self, who: Who, entry: Entry, disk: GroupDisk) -> None:
        """A replica is given an entry to apply."""

    def takes_effect(self, who: Who, entry: Entry, machine: SimulatedMachine) -> None:
        """A replica's machine has applied an entry."""

    def saves(self, who: Who, snapshot: Snapshot, disk: GroupDisk) -> None:
        """A snapshot is on the replica's disk, taken there or received."""

    def restores(self, who: Who, snapshot: Snapshot, disk: GroupDisk) -> None:
        """A replica's machine is replaced by a snapshot."""

    def reads(self, who: Who, load: LoadEntries, entries: Sequence[Entry], log: LogWindow, disk: GroupDisk) -> None:
        """A replica with this log has had entries read from its disk."""

    def acknowledges(self, who: Who, entry: Entry) -> None:
        """A client is told that its command, which is `entry`, is done."""

    def asks(self, who: Who, question: object) -> None:
        """A replica is asked from which index on a state shows everything acknowledged by now."""

    def tells(self, who: Who, question: object, index: Index, term: Term, in_force: Sequence[Configuration]) -> None:
        """A replica that has led in `term`, and may have been deposed since, answers that.

        `in_force` are the configurations that it went by since it was looked at last.
        """

    def leases(self, who: Who, term: Term, configuration: Configuration) -> None:
        """A replica that leads in `term` answers a read by its lease."""
