"""The properties of the protocol, one checker each (Raft paper, figure 3, and what durability adds to it)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from .._types import GroupId, Index, NodeId, Term
from ..core import (
    AppendEntries,
    AppendEntriesReply,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Message,
    RequestVote,
    RequestVoteReply,
    decode_configuration,
)
from ._checker import Checker, Who, World
from ._disk import GroupDisk
from ._log_window import LogWindow
from ._machine import Snapshot

_Place: TypeAlias = tuple[GroupId, NodeId, int]
"""What is on one disk for as long as it is kept, whatever the replica's number."""


class ElectionSafety(Checker):
    """Paper 5.2: "at most one leader can be elected in a given term"."""

    name = "election-safety"

    def __init__(self) -> None:
        self.leaders: dict[tuple[GroupId, Term], NodeId] = {}

    def elected(self, who: Who, term: Term) -> None:
        other = self.leaders.setdefault((who.group, term), who.node)
        if other != who.node:
            self.fail(f"n{other} and {who} both lead in term {term}")


class LeaderAppendOnly(Checker):
    """Paper 5.3: "a leader never overwrites or deletes entries in its log; it only appends new entries"."""

    name = "leader-append-only"

    def writes(self, who: Who, hard_state: HardState | None, entries: Sequence[Entry], log: LogWindow, leads: Term | None) -> None:
        if leads is None or not entries:
            return
        for entry in entries:
            if entry.index <= log.last_index and log.term_at(entry.index) != entry.term:
                self.fail(f"{who} leads in term {leads} and replaces {entry.index}@{log.term_at(entry.index)} by {entry}")
        if entries[-1].index < log.last_index:
            self.fail(f"{who} leads in term {leads} and cuts its log from {log.last} to {entries[-1]}")


class LogMatching(Checker):
    """Paper 5.3: "if two logs contain an entry with the same index and term, then the logs are identical in all entries up through
    the given index".

    By induction it is enough that equal (index, term) means an equal command and an equal term of the entry before; be that in the log,
    or the last one in the snapshot that the log begins with.
    """

    name = "log-matching"

    def __init__(self) -> None:
        self._known: dict[tuple[GroupId, Index, Term], tuple[Entry, Term]] = {}

    def writes(self, who: Who, hard_state: HardState | None, entries: Sequence[Entry], log: LogWindow, leads: Term | None) -> None:
        if not entries:
            return
        first = entries[0].index
        if not log.start.index < first <= log.last_index + 1:
            self.fail(f"{who} writes {entries[0]} into a log from {log.start.index} to {log.last_index}")
        previous = log.term_at(first - 1)
        for expected, entry in enumerate(entries, first):
            if entry.index != expected or entry.term < previous:
                self.fail(f"{who} writes {entry} behind {expected - 1}@{previous}")
            known = self._known.setdefault((who.group, entry.index, entry.term), (entry, previous))
            if (known[0] is not entry and known[0] != entry) or known[1] != previous:
                self.fail(f"{who} writes {entry} after term {previous}, but another {entry} differs, or follows term {known[1]}")
            previous = entry.term

    def synced(self, who: Who, disk: GroupDisk) -> None:
        start, first = disk.log.start, disk.log.entries[:1]
        for entry in first:
            _, previous = self._known[who.group, entry.index, entry.term]
            if previous != start.term:
                self.fail(f"the log on the disk of {who} begins behind {start} with {entry}, which follows term {previous}")


class CommitAgreement(Checker):
    """A committed entry is never lost and never another one (paper 5.3, 5.4.2; dissertation 10.2.1).

    No two replicas, in any lives, commit different entries at an index; what is committed for the first time is durable on a majority
    of the voters; and the commit index of a life never goes back.
    """

    name = "commit-agreement"

    def __init__(self, world: World) -> None:
        self._world = world
        self.committed: dict[GroupId, list[Entry]] = {group: [] for group in world.configurations}
        self.committed_in: dict[GroupId, list[Term]] = {group: [] for group in world.configurations}
        """The term of the replica that was first to commit it, entry by entry."""
        self.committed_by: dict[GroupId, list[Sequence[Configuration]]] = {group: [] for group in world.configurations}
        """The configurations that one of has held it then, entry by entry."""
        self.configurations = {group: [(0, first)] for group, first in world.configurations.items()}
        """The committed ones, each with the index of its entry."""
        self._last: dict[Who, Index] = {}

    def commits(self, who: Who, commit: Index, log: LogWindow, term: Term, leads: bool, in_force: Sequence[Configuration]) -> None:
        last = self._last.get(who, 0)
        if commit < last:
            self.fail(f"the commit index of {who} went back from {last} to {commit}")
        if commit > log.last_index:
            self.fail(f"{who} commits {commit}, but its log ends at {log.last_index}")
        self._last[who] = commit
        committed = self.committed[who.group]
        if log.start.index > len(committed):
            self.fail(f"the log of {who} begins behind {log.start}, but only {len(committed)} have been committed")
        for entry in log.behind(last, commit):
            if entry.index <= len(committed):
                known = committed[entry.index - 1]
                if known is not entry and known != entry:
                    self.fail(f"{who} commits {entry} where {known} is committed")
                continue
            self._commit(who, entry, term, in_force)

    def _commit(self, who: Who, entry: Entry, term: Term, in_force: Sequence[Configuration]) -> None:
        if not any(self._world.is_on_majority(who.group, entry, configuration) for configuration in in_force):
            self.fail(f"{who} commits {entry}, which is not on the disks of a majority of {' or '.join(map(str, in_force))}")
        self.committed[who.group].append(entry)
        self.committed_in[who.group].append(term)
        self.committed_by[who.group].append(in_force)
        if entry.kind is EntryKind.CONFIGURATION:
            self.configurations[who.group].append((entry.index, decode_configuration(entry.payload)))

    def is_committed(self, group: GroupId, history: Sequence[Entry]) -> bool:
        """Whether these are the first entries that were committed."""
        return self.committed[group][: len(history)] == list(history)

    def term_at(self, group: GroupId, index: Index) -> Term:
        """The term of a committed entry; 0 for index 0 and what is not committed."""
        committed = self.committed[group]
        return committed[index - 1].term if 0 < index <= len(committed) else 0

    def configuration_at(self, group: GroupId, index: Index) -> Configuration:
        """The configuration in force at a committed index."""
        return next(configuration for at, configuration in reversed(self.configurations[group]) if at <= index)


class CommitOwnTerm(Checker):
    """Paper 5.4.2: "only log entries from the leader's current term are committed by counting replicas"."""

    name = "commit-own-term"

    def commits(self, who: Who, commit: Index, log: LogWindow, term: Term, leads: bool, in_force: Sequence[Configuration]) -> None:
        if leads and log.term_at(commit) != term:
            self.fail(f"{who} leads in term {term} and commits up to {commit}@{log.term_at(commit)}")


class LeaderCompleteness(Checker):
    """Paper 5.4: "if a log entry is committed in a given term, then that entry will be present in the logs of the leaders for all
    higher-numbered terms".
    """

    name = "leader-completeness"

    def __init__(self, agreement: CommitAgreement) -> None:
        self._agreement = agreement
        self._checked: set[tuple[Who, Term]] = set()

    def leads(self, who: Who, term: Term, log: LogWindow) -> None:
        if (who, term) in self._checked:
            return
        self._checked.add((who, term))
        # NB: a leader may come late: the votes of term 4 may arrive when term 5 has committed. Its log is then none of our business.
        for entry, committed_in in zip(self._agreement.committed[who.group], self._agreement.committed_in[who.group], strict=True):
            if committed_in < term and not log.holds(entry):
                self.fail(f"{who} leads in term {term} without {entry}, which was committed in term {committed_in}")


class StateMachineSafety(Checker):
    """Paper 5.4.3: "if a server has applied a log entry at a given index to its state machine, no other server will ever apply a
    different log entry for the same index". A server's own later lives count as others.
    """

    name = "state-machine-safety"

    def __init__(self) -> None:
        self._applied: dict[tuple[GroupId, Index], Entry] = {}

    def applies(self, who: Who, entry: Entry, disk: GroupDisk) -> None:
        known = self._applied.setdefault((who.group, entry.index), entry)
        if known is not entry and known != entry:
            self.fail(f"{who} applies {entry} {entry.payload!r} where {known} {known.payload!r} was applied")


class ApplyOnce(Checker):
    """Within one life each committed entry is applied once, in order, without holes, and only when it is durable here (DESIGN 3).

    A snapshot counts as everything up to it, and never leads back.
    """

    name = "apply-once"

    def __init__(self) -> None:
        self._last: dict[Who, Index] = {}

    def started(self, who: Who, disk: GroupDisk, history: Sequence[Entry]) -> None:
        self._last[who] = len(history)

    def applies(self, who: Who, entry: Entry, disk: GroupDisk) -> None:
        last = self._last.get(who, 0)
        if entry.index != last + 1:
            self.fail(f"{who} applies {entry} after {last}")
        if not disk.log.holds(entry):
            self.fail(f"{who} applies {entry}, which is not on its disk")
        self._last[who] = entry.index

    def restores(self, who: Who, snapshot: Snapshot, disk: GroupDisk) -> None:
        last = self._last.get(who, 0)
        if snapshot.at.index <= last:
            self.fail(f"{who} restores the snapshot {snapshot.at} after it has applied {last}")
        self._last[who] = snapshot.at.index


class DurableBeforeTold(Checker):
    """What a message promises is durable where it comes from when it leaves: a vote asked or granted, a log that matches; and a
    leader speaks only in a term that its disk knows ("updated on stable storage before responding to RPCs", paper figure 2).

    What was cut off the log is held by the snapshot that it begins with. A promise of an older term than the disk's is void: whoever
    hears it can do nothing with it that the newer term does not undo. And a leader sends nothing but what is in its log.
    """

    name = "durable-before-told"

    def __init__(self, agreement: CommitAgreement) -> None:
        self._agreement = agreement
        # NB: what a leader has cut off is 0 here: that is committed.
        self._leader_logs: dict[tuple[GroupId, Term], list[Term]] = {}

    def leads(self, who: Who, term: Term, log: LogWindow) -> None:
        known = self._leader_logs.setdefault((who.group, term), [])
        if len(known) < log.last_index:
            known.extend([0] * (log.start.index - len(known)))
            known.extend(entry.term for entry in log.behind(len(known), log.last_index))

    def sends(self, who: Who, message: Message, disk: GroupDisk) -> None:
        match message:
            case AppendEntries():
                if disk.hard_state.term < message.term:
                    self.fail(f"{who} leads in term {message.term}, but its disk knows only {disk.hard_state}")
                for entry in message.entries[:1] + message.entries[-1:]:
                    if entry.term != self._leader_term(who.group, message.term, entry.index):
                        self.fail(f"{who} sends {entry}, which is not in the log of the leader of term {message.term}")
            case AppendEntriesReply(rejected=0):
                self._check_match(who, message, disk)
            case RequestVote():
                self._check_vote(who, message.term, who.node, disk, "asks for votes")
            case RequestVoteReply(granted=True):
                self._check_vote(who, message.term, message.target.node_id, disk, f"grants n{message.target.node_id} its vote")

    def _check_vote(self, who: Who, term: Term, vote: NodeId, disk: GroupDisk, what: str) -> None:
        held = disk.hard_state
        if held.term < term or (held.term == term and held.vote != vote):
            self.fail(f"{who} {what} in term {term}, but its disk holds {held}")

    def _leader_term(self, group: GroupId, term: Term, index: Index) -> Term:
        """The term of an entry in the log of the leader of `term`."""
        known = self._leader_logs.get((group, term), [])
        return (known[index - 1] if index <= len(known) else 0) or self._agreement.term_at(group, index)

    def _check_match(self, who: Who, message: AppendEntriesReply, disk: GroupDisk) -> None:
        if disk.hard_state.term > message.term or not message.match:
            return
        if disk.hard_state.term < message.term:
            self.fail(f"{who} acknowledges in term {message.term}, but its disk knows only {disk.hard_state}")
        leader_log = self._leader_logs.get((who.group, message.term), [])
        if message.match > len(leader_log):
            self.fail(f"{who} acknowledges up to {message.match} in term {message.term}, whose leader has only {len(leader_log)}")
        expected = self._leader_term(who.group, message.term, message.match)
        if message.match >= disk.log.start.index and disk.log.term_at(message.match) != expected:
            held = f"{message.match}@{disk.log.term_at(message.match)}"
            self.fail(f"{who} acknowledges {message.match}@{expected} of term {message.term}; its disk: {held}")


class VotesOnce(Checker):
    """Term and vote of a replica never go back, over all its lives: no second vote in a term (paper 5.2; scenario EL-1)."""

    name = "votes-once"

    def __init__(self) -> None:
        self._durable: dict[_Place, HardState] = {}
        self._handed_out: dict[Who, HardState] = {}
        self._granted: dict[tuple[_Place, Term], NodeId] = {}

    def started(self, who: Who, disk: GroupDisk, history: Sequence[Entry]) -> None:
        self._handed_out[who] = disk.hard_state

    def writes(self, who: Who, hard_state: HardState | None, entries: Sequence[Entry], log: LogWindow, leads: Term | None) -> None:
        if hard_state is not None:
            self._check_step(who, self._handed_out.get(who, HardState()), hard_state)
            self._handed_out[who] = hard_state
        if entries and entries[-1].term > self._handed_out.get(who, HardState()).term:
            self.fail(f"{who} writes {entries[-1]}, a higher term than its own, {self._handed_out.get(who)}")

    def synced(self, who: Who, disk: GroupDisk) -> None:
        place = (who.group, who.node, disk.number)
        self._check_step(who, self._durable.get(place, HardState()), disk.hard_state)
        self._durable[place] = disk.hard_state

    def sends(self, who: Who, message: Message, disk: GroupDisk) -> None:
        if type(message) is RequestVote:
            self._grant(who, message.term, who.node, disk)
        elif type(message) is RequestVoteReply and message.granted:
            self._grant(who, message.term, message.target.node_id, disk)

    def _grant(self, who: Who, term: Term, candidate: NodeId, disk: GroupDisk) -> None:
        place = (who.group, who.node, disk.number)
        other = self._granted.setdefault((place, term), candidate)
        if other != candidate:
            self.fail(f"{who} votes for n{candidate} in term {term}, in which it voted for n{other}")

    def _check_step(self, who: Who, old: HardState, new: HardState) -> None:
        if new.term < old.term or (new.term == old.term and old.vote is not None and new.vote != old.vote):
            self.fail(f"{who} goes from {old} to {new}")


class AcknowledgedIsDurable(Checker):
    """Promise P1: "an acknowledged proposal was on stable storage of a majority before the ack, and is never lost"."""

    name = "acknowledged-is-durable"

    def __init__(self, world: World, agreement: CommitAgreement) -> None:
        self._world, self._agreement = world, agreement

    def acknowledges(self, who: Who, entry: Entry) -> None:
        agreement, group = self._agreement, who.group
        committed = agreement.committed[group]
        if entry.index > len(committed) or committed[entry.index - 1] != entry:
            self.fail(f"{who} acknowledges {entry}, which is not committed")
        # Whoever held it may have been removed since; then those hold it who are members now.
        in_force = [*agreement.committed_by[group][entry.index - 1], agreement.configuration_at(group, len(committed))]
        if not any(self._world.is_on_majority(group, entry, configuration) for configuration in in_force):
            self.fail(f"{who} acknowledges {entry}, which is not on the disks of a majority")
