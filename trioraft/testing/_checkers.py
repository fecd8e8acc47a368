"""The properties of the protocol, one checker each (Raft paper, figure 3, and what durability adds to it)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from .._types import GroupId, Index, NodeId, Term
from ..core import AppendEntries, AppendEntriesReply, Entry, HardState, Message, RequestVote, RequestVoteReply
from ._checker import Checker, Who, World
from ._disk import GroupDisk

_Place: TypeAlias = tuple[GroupId, NodeId]
_Hook: TypeAlias = Callable[..., None]


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

    def writes(self, who: Who, hard_state: HardState | None, entries: Sequence[Entry], log: Sequence[Entry], leads: Term | None) -> None:
        if leads is None or not entries:
            return
        for entry in entries:
            if entry.index <= len(log) and log[entry.index - 1].term != entry.term:
                self.fail(f"{who} leads in term {leads} and replaces {log[entry.index - 1]} by {entry}")
        if entries[-1].index < len(log):
            self.fail(f"{who} leads in term {leads} and cuts its log from {log[-1]} to {entries[-1]}")


class LogMatching(Checker):
    """Paper 5.3: "if two logs contain an entry with the same index and term, then the logs are identical in all entries up through
    the given index".

    By induction it is enough that equal (index, term) means an equal command and an equal term of the entry before.
    """

    name = "log-matching"

    def __init__(self) -> None:
        self._known: dict[tuple[GroupId, Index, Term], tuple[Entry, Term]] = {}

    def writes(self, who: Who, hard_state: HardState | None, entries: Sequence[Entry], log: Sequence[Entry], leads: Term | None) -> None:
        if not entries:
            return
        first = entries[0].index
        if first > len(log) + 1:
            self.fail(f"{who} writes {entries[0]} behind a log that ends at {len(log)}")
        previous = log[first - 2].term if first > 1 else 0
        for expected, entry in enumerate(entries, first):
            if entry.index != expected or entry.term < previous:
                self.fail(f"{who} writes {entry} behind {expected - 1}@{previous}")
            known = self._known.setdefault((who.group, entry.index, entry.term), (entry, previous))
            if (known[0] is not entry and known[0] != entry) or known[1] != previous:
                self.fail(f"{who} writes {entry} after term {previous}, but another {entry} differs, or follows term {known[1]}")
            previous = entry.term


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
        self._last: dict[Who, Index] = {}

    def commits(self, who: Who, commit: Index, log: Sequence[Entry], term: Term, leads: bool) -> None:
        last = self._last.get(who, 0)
        if commit < last:
            self.fail(f"the commit index of {who} went back from {last} to {commit}")
        if commit > len(log):
            self.fail(f"{who} commits {commit}, but its log ends at {len(log)}")
        self._last[who] = commit
        committed = self.committed[who.group]
        for entry in log[last:commit]:
            if entry.index <= len(committed):
                known = committed[entry.index - 1]
                if known is not entry and known != entry:
                    self.fail(f"{who} commits {entry} where {known} is committed")
                continue
            if not self._world.is_on_majority(who.group, entry):
                self.fail(f"{who} commits {entry}, which is not on the disks of a majority")
            committed.append(entry)
            self.committed_in[who.group].append(term)


class CommitOwnTerm(Checker):
    """Paper 5.4.2: "only log entries from the leader's current term are committed by counting replicas"."""

    name = "commit-own-term"

    def commits(self, who: Who, commit: Index, log: Sequence[Entry], term: Term, leads: bool) -> None:
        if leads and log[commit - 1].term != term:
            self.fail(f"{who} leads in term {term} and commits up to {log[commit - 1]}")


class LeaderCompleteness(Checker):
    """Paper 5.4: "if a log entry is committed in a given term, then that entry will be present in the logs of the leaders for all
    higher-numbered terms".
    """

    name = "leader-completeness"

    def __init__(self, agreement: CommitAgreement) -> None:
        self._agreement = agreement
        self._checked: set[tuple[Who, Term]] = set()

    def leads(self, who: Who, term: Term, log: Sequence[Entry]) -> None:
        if (who, term) in self._checked:
            return
        self._checked.add((who, term))
        # NB: a leader may come late: the votes of term 4 may arrive when term 5 has committed. Its log is then none of our business.
        for entry, committed_in in zip(self._agreement.committed[who.group], self._agreement.committed_in[who.group], strict=True):
            if committed_in < term and (entry.index > len(log) or log[entry.index - 1] != entry):
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
    """Within one life each committed entry is applied once, in order, without holes, and only when it is durable here (DESIGN 3)."""

    name = "apply-once"

    def __init__(self) -> None:
        self._last: dict[Who, Index] = {}

    def applies(self, who: Who, entry: Entry, disk: GroupDisk) -> None:
        last = self._last.get(who, 0)
        if entry.index != last + 1:
            self.fail(f"{who} applies {entry} after {last}")
        if disk.term_at(entry.index) != entry.term:
            self.fail(f"{who} applies {entry}, which is not on its disk")
        self._last[who] = entry.index


class DurableBeforeTold(Checker):
    """What a message promises is durable where it comes from when it leaves: a vote asked or granted, a log that matches; and a
    leader speaks only in a term that its disk knows ("updated on stable storage before responding to RPCs", paper figure 2).

    A promise of an older term than the disk's is void: whoever hears it can do nothing with it that the newer term does not undo.
    """

    name = "durable-before-told"

    def __init__(self) -> None:
        self._leader_logs: dict[tuple[GroupId, Term], list[Term]] = {}

    def leads(self, who: Who, term: Term, log: Sequence[Entry]) -> None:
        known = self._leader_logs.setdefault((who.group, term), [])
        known.extend(entry.term for entry in log[len(known) :])

    def sends(self, who: Who, message: Message, disk: GroupDisk) -> None:
        match message:
            case AppendEntries():
                if disk.hard_state.term < message.term:
                    self.fail(f"{who} leads in term {message.term}, but its disk knows only {disk.hard_state}")
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

    def _check_match(self, who: Who, message: AppendEntriesReply, disk: GroupDisk) -> None:
        if disk.hard_state.term > message.term or not message.match:
            return
        if disk.hard_state.term < message.term:
            self.fail(f"{who} acknowledges in term {message.term}, but its disk knows only {disk.hard_state}")
        leader_log = self._leader_logs.get((who.group, message.term), [])
        if message.match > len(leader_log):
            self.fail(f"{who} acknowledges up to {message.match} in term {message.term}, whose leader has only {len(leader_log)}")
        if disk.term_at(message.match) != leader_log[message.match - 1]:
            held = f"{message.match}@{disk.term_at(message.match)}"
            self.fail(f"{who} acknowledges {message.match}@{leader_log[message.match - 1]} of term {message.term}; its disk: {held}")


class VotesOnce(Checker):
    """Term and vote of a replica never go back, over all its lives: no second vote in a term (paper 5.2; scenario EL-1)."""

    name = "votes-once"

    def __init__(self) -> None:
        self._durable: dict[_Place, HardState] = {}
        self._handed_out: dict[Who, HardState] = {}
        self._granted: dict[tuple[GroupId, NodeId, Term], NodeId] = {}

    def started(self, who: Who, disk: GroupDisk) -> None:
        self._handed_out[who] = disk.hard_state

    def writes(self, who: Who, hard_state: HardState | None, entries: Sequence[Entry], log: Sequence[Entry], leads: Term | None) -> None:
        if hard_state is not None:
            self._check_step(who, self._handed_out.get(who, HardState()), hard_state)
            self._handed_out[who] = hard_state
        if entries and entries[-1].term > self._handed_out.get(who, HardState()).term:
            self.fail(f"{who} writes {entries[-1]}, a higher term than its own, {self._handed_out.get(who)}")

    def synced(self, who: Who, disk: GroupDisk) -> None:
        place = (who.group, who.node)
        self._check_step(who, self._durable.get(place, HardState()), disk.hard_state)
        self._durable[place] = disk.hard_state

    def sends(self, who: Who, message: Message, disk: GroupDisk) -> None:
        if type(message) is RequestVote:
            self._grant(who, message.term, who.node)
        elif type(message) is RequestVoteReply and message.granted:
            self._grant(who, message.term, message.target.node_id)

    def _grant(self, who: Who, term: Term, candidate: NodeId) -> None:
        other = self._granted.setdefault((who.group, who.node, term), candidate)
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
        committed = self._agreement.committed[who.group]
        if entry.index > len(committed) or committed[entry.index - 1] != entry:
            self.fail(f"{who} acknowledges {entry}, which is not committed")
        if not self._world.is_on_majority(who.group, entry):
            self.fail(f"{who} acknowledges {entry}, which is not on the disks of a majority")


class Checkers:
    """All checkers together; each attribute is the list of those that want to hear of it."""

    def __init__(self, world: World) -> None:
        self.agreement = CommitAgreement(world)
        self.elections = ElectionSafety()
        self.all: tuple[Checker, ...] = (
            self.elections,
            LeaderAppendOnly(),
            LogMatching(),
            DurableBeforeTold(),
            VotesOnce(),
            self.agreement,
            CommitOwnTerm(),
            LeaderCompleteness(self.agreement),
            StateMachineSafety(),
            ApplyOnce(),
            AcknowledgedIsDurable(world, self.agreement),
        )
        self.started = self._hooks("started")
        self.writes = self._hooks("writes")
        self.synced = self._hooks("synced")
        self.elected = self._hooks("elected")
        self.leads = self._hooks("leads")
        self.sends = self._hooks("sends")
        self.commits = self._hooks("commits")
        self.applies = self._hooks("applies")
        self.acknowledges = self._hooks("acknowledges")

    def _hooks(self, name: str) -> tuple[_Hook, ...]:
        default: Any = getattr(Checker, name)
        return tuple(getattr(checker, name) for checker in self.all if getattr(type(checker), name) is not default)
