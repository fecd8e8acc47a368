"""The properties of changing members, one checker each (dissertation 4; scenarios MB)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from .._types import GroupId, Index, Member, NodeId, Term
from ..core import AppendEntries, Configuration, Message, RequestVoteReply
from ._checker import Checker, Who
from ._checkers import CommitAgreement
from ._client_checkers import has_quorum
from ._disk import GroupDisk
from ._log_window import LogWindow


def _always_meet(one: frozenset[NodeId], other: frozenset[NodeId]) -> bool:
    """Whether any majority of the one has a node of any majority of the other."""
    apart_one = max(len(one) // 2 + 1 - len(one - other), 0)
    apart_other = max(len(other) // 2 + 1 - len(other - one), 0)
    return apart_one + apart_other > len(one & other)


def _halves(configuration: Configuration) -> list[frozenset[NodeId]]:
    return [half for half in (configuration.voters, configuration.outgoing) if half]


class ConfigurationsFollow(Checker):
    """Dissertation 4.1, 4.3: quorums of configurations that follow each other have a voter in common; and whoever is new has the position
    of the entry that added it as its number, so that no number is ever used twice (DESIGN 2).
    """

    name = "configurations-follow"

    def __init__(self, agreement: CommitAgreement) -> None:
        self._agreement = agreement
        self._checked: dict[GroupId, int] = {}

    def commits(self, who: Who, commit: Index, log: LogWindow, term: Term, leads: bool, in_force: Sequence[Configuration]) -> None:
        history = self._agreement.configurations[who.group]
        checked = self._checked.get(who.group, 0)
        for (_, before), (index, after) in pairwise(history[checked:]):
            self._check_step(who, before, index, after)
        self._checked[who.group] = len(history) - 1

    def _check_step(self, who: Who, before: Configuration, index: Index, after: Configuration) -> None:
        if not any(_always_meet(one, other) for one in _halves(before) for other in _halves(after)):
            self.fail(f"{who} commits {after} after {before}: two leaders could be elected side by side")
        at = self._agreement.committed[who.group][index - 1].id
        if after.index != index:
            self.fail(f"{who} commits {after} at {index}, which says that it is of {after.index}")
        for node_id, number in after.replicas.items():
            if number != before.replicas.get(node_id, at):
                self.fail(f"{who} commits {after} at {at}, in which n{node_id} has number {number}")


class OneChangeAtATime(Checker):
    """Dissertation 4.1: a leader appends no configuration while the one before is not committed."""

    name = "one-change-at-a-time"

    def __init__(self, agreement: CommitAgreement) -> None:
        self._agreement = agreement

    def leads(self, who: Who, term: Term, log: LogWindow) -> None:
        history = log.configurations
        # NB: what it has found in its log may be committed without anybody knowing: who knew has died.
        if len(history) > 2 and history[-2][0] > len(self._agreement.committed[who.group]) and log.term_at(history[-1][0]) == term:
            at = [f"{index}: {configuration}" for index, configuration in history[-2:]]
            self.fail(f"{who} leads in term {term} with two configurations that are not committed, {at}")


class MembersCount(Checker):
    """Paper 5.2, 6: a leader has the votes of a quorum of the newest configuration in its log; of replicas by their numbers, so neither
    learners count, nor who was removed, nor a former life of somebody who was added again.
    """

    name = "members-count"

    def __init__(self) -> None:
        self._granted: defaultdict[tuple[GroupId, Term, NodeId], set[Member]] = defaultdict(set)
        self._checked: set[tuple[GroupId, Term]] = set()

    def sends(self, who: Who, message: Message, disk: GroupDisk) -> None:
        if type(message) is RequestVoteReply and message.granted:
            self._granted[who.group, message.term, message.target.node_id].add(message.source)

    def leads(self, who: Who, term: Term, log: LogWindow) -> None:
        if (who.group, term) in self._checked:
            return
        self._checked.add((who.group, term))
        configuration, granted = log.configurations[-1][1], self._granted[who.group, term, who.node]
        votes = {member.node_id for member in map(configuration.member, configuration.voter_ids()) if member in granted}
        if not has_quorum(configuration, votes | {who.node}):
            self.fail(f"{who} leads in term {term} with the votes of {sorted(map(str, granted))}, which is no quorum of {configuration}")


class GoesByItsLog(Checker):
    """Dissertation 4.1: a leader goes by the newest configuration of its log, and so by an older one when that entry is gone."""

    name = "goes-by-its-log"

    def __init__(self) -> None:
        # NB: what was queued up earlier in a turn may be for somebody who is out at its end.
        self._members: dict[tuple[Who, Term], tuple[Configuration, Configuration]] = {}

    def leads(self, who: Who, term: Term, log: LogWindow) -> None:
        newest = log.configurations[-1][1]
        known = self._members.get((who, term))
        if known is None:
            self._members[who, term] = (newest, newest)
        elif known[1] is not newest:
            self._members[who, term] = (known[1], newest)

    def sends(self, who: Who, message: Message, disk: GroupDisk) -> None:
        if type(message) is not AppendEntries:
            return
        known = self._members.get((who, message.term))
        node_id, number = message.target
        if known is not None and not any(configuration.replicas.get(node_id) == number for configuration in known):
            self.fail(f"{who} leads in term {message.term} and counts on {message.target}, which is not in its log: {known[1]}")
