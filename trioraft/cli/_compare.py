"""What the logs of one group on several nodes say of each other.

Much that looks like a contradiction is the normal state of a cluster: a log that ends early, one that goes on with entries of an old
leader that nobody else has (also where others have committed something else), different votes in one term, different snapshots. What can
never be, if every node kept what it had promised:

* *Log matching* (paper 5.3): where two logs have the same index and term, they are equal up to there, byte for byte. Otherwise there were
  two leaders in one term, or something changed after it was written.
* *State machine safety* (5.4.3): what two nodes both know to be committed is the same.
* *Leader completeness* (5.4): what was committed, in whatever term, every later leader has. So no log has another entry there of a later
  term than that in which its commit was known.

Two more can only be asked of directories of one moment (of stopped nodes), because a node that goes on may catch up with what is missing:

* Nobody can be elected who lacks what is committed: otherwise nodes have lost what they had acknowledged.
* Where a term has entries, somebody can have won its election, with at most one vote of each node (5.2).

All of that holds only among replicas of the same life: a node that was removed and added again counts as another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set as AbstractSet
from itertools import combinations, pairwise, permutations

import attrs

from .._types import EntryId, Index, NodeId, Term
from ..core import Configuration, Terms
from ..storage import GroupReport

Replicas = Mapping[NodeId, GroupReport]
"""Of one group, living and readable, by node."""


@attrs.frozen
class Contradiction:
    """What cannot be."""

    text: str
    of_one_moment: bool = False
    """It is one only if nothing went on between the reading of one directory and that of the next."""


def find_contradictions(replicas: Replicas) -> Iterator[Contradiction]:
    for one, two in combinations(sorted(replicas), 2):
        yield from _log_matching(replicas, one, two)
        yield from _agreement(replicas, one, two)
    for one, two in permutations(sorted(replicas), 2):
        yield from _completeness(replicas, one, two)
    yield from _lost_commits(replicas)
    yield from _impossible_leaders(replicas)


def commit_of(group: GroupReport) -> Index:
    """Up to where a node knows its log to be committed."""
    durable = group.found.durable
    return max(durable.commit, durable.snapshot.index, durable.terms.start.index)


def has_quorum(configuration: Configuration, nodes: AbstractSet[NodeId]) -> bool:
    """Whether these nodes could elect a leader, or commit something."""
    halves = [half for half in (configuration.voters, configuration.outgoing) if half]
    return bool(halves) and all(len(half & nodes) > len(half) // 2 for half in halves)


def present_members(configuration: Configuration, replicas: Replicas) -> set[NodeId]:
    """The nodes whose replica is the one that the configuration names.

    One that came back, and awaits its number, has that of its former life: which is barred, and whose log and votes it does not have.
    """
    records = {node_id: group.found.record for node_id, group in replicas.items()}
    return {
        node_id
        for node_id, record in records.items()
        if record is not None and not record.awaits_number and configuration.replicas.get(node_id) == record.me.replica
    }


# --- pairs -----------------------------------------------------------------------------------------------------------------------------


def _pieces(one: Terms, two: Terms) -> Iterator[tuple[Index, Index, Term, Term]]:
    """Where both logs have entries: pieces from first to last index in which each has one term."""
    low, high = max(one.start.index, two.start.index), min(one.last_index, two.last_index)
    bounds = {first for first, _ in (*one.runs, *two.runs) if low < first <= high}
    if low <= high:
        for first, following in pairwise([*sorted({low, *bounds}), high + 1]):
            yield first, following - 1, one.at(first), two.at(first)


def _log_matching(replicas: Replicas, one: NodeId, two: NodeId) -> Iterator[Contradiction]:
    a, b = replicas[one], replicas[two]
    pieces = list(_pieces(a.found.durable.terms, b.found.durable.terms))
    equal = [(first, last, term) for first, last, term, other in pieces if term == other]
    if not equal:
        return
    for first, _, term, other in pieces:
        if term != other and first < equal[-1][1]:
            text = (
                f"log matching: nodes {one} and {two} both have entry {equal[-1][1]}@{equal[-1][2]}, and before it, "
                f"{first}@{term} and {first}@{other}"
            )
            yield Contradiction(text)
            return
    for first, last, term in equal:
        index = _first_difference(a, b, first, last)
        if index is not None:
            text = f"log matching: nodes {one} and {two} both have an entry {index}@{term}, with different bytes"
            yield Contradiction(text)
            return


def _first_difference(a: GroupReport, b: GroupReport, first: Index, last: Index) -> Index | None:
    """The first entry whose digests are known on both, and differ."""
    start_a, start_b = a.found.durable.terms.start.index, b.found.durable.terms.start.index
    first = max(first, start_a + 1, start_b + 1)
    if a.digests[first - start_a - 1 : last - start_a] == b.digests[first - start_b - 1 : last - start_b]:
        return None
    for index in range(first, last + 1):
        if 0 != a.digest(index) != b.digest(index) != 0:
            return index
    return None


def _agreement(replicas: Replicas, one: NodeId, two: NodeId) -> Iterator[Contradiction]:
    a, b = replicas[one], replicas[two]
    committed = min(commit_of(a), commit_of(b))
    for first, _, term, other in _pieces(a.found.durable.terms, b.found.durable.terms):
        if first <= committed and term != other:
            yield Contradiction(f"commit agreement: node {one} has committed {first}@{term}, and node {two} has committed {first}@{other}")
            return
    snapshots = {each.at.index: each for each in a.snapshots if each.manifest is not None}
    for theirs in b.snapshots:
        ours = snapshots.get(theirs.at.index)
        if ours is None or ours.manifest is None or theirs.manifest is None:
            continue
        if ours.at != theirs.at:
            yield Contradiction(f"commit agreement: node {one} has a snapshot {ours.at}, and node {two} one {theirs.at}")
        elif ours.manifest.configuration != theirs.manifest.configuration:
            yield Contradiction(f"the snapshots {ours.at} of nodes {one} and {two} name different members")


def _completeness(replicas: Replicas, one: NodeId, two: NodeId) -> Iterator[Contradiction]:
    a, b = replicas[one], replicas[two]
    committed, known_in = commit_of(a), a.found.durable.hard_state.term
    for first, _, term, other in _pieces(a.found.durable.terms, b.found.durable.terms):
        if first <= committed and term != other and other > known_in:
            text = (
                f"leader completeness: node {one}, in term {known_in}, has committed {first}@{term}, "
                f"and node {two} has {first}@{other} of a later leader"
            )
            yield Contradiction(text)
            return


# --- all of them -----------------------------------------------------------------------------------------------------------------------


def _lost_commits(replicas: Replicas) -> Iterator[Contradiction]:
    """Somebody could be elected who lacks what is committed."""
    knowing = max(sorted(replicas), key=lambda node_id: commit_of(replicas[node_id]), default=None)
    if knowing is None:
        return
    terms = replicas[knowing].found.durable.terms
    committed = EntryId(terms.at(commit_of(replicas[knowing])), commit_of(replicas[knowing]))
    for node_id, group in sorted(replicas.items()):
        its = group.found.durable.terms
        configuration = group.configurations[-1][1]
        if its.start.index > committed.index or its.at(committed.index) == committed.term or not configuration.is_voter(node_id):
            continue
        members = present_members(configuration, replicas)
        voters = {each for each in members if replicas[each].found.durable.terms.last <= its.last}
        if node_id in members and has_quorum(configuration, voters):
            with_ = _listed(voters - {node_id})
            text = (
                f"lost commits: node {knowing} has committed {committed}, and node {node_id}, whose log ends with {its.last} and lacks it, "
                f"could be elected{f' by {with_}' if with_ else ''}: what was acknowledged has been lost there, "
                "or the directories are not of one moment"
            )
            yield Contradiction(text, of_one_moment=True)
            return


def _impossible_leaders(replicas: Replicas) -> Iterator[Contradiction]:
    """A term with entries, of which nobody can have won the election."""
    seen: set[Term] = set()
    for node_id, group in sorted(replicas.items()):
        for first, term in group.found.durable.terms.runs:
            configuration = group.configuration_at(first - 1)
            if term in seen or configuration is None:
                continue
            seen.add(term)
            votes = _votes(configuration, term, replicas)
            unknown = configuration.voters | configuration.outgoing
            unknown -= votes.keys()
            # Among those who voted for nobody, nobody's voters are none: so that case is that of the unknown alone.
            chances = [unknown | {voter for voter, vote in votes.items() if vote == each} for each in {*votes.values()} - {None}]
            if not any(has_quorum(configuration, chance) for chance in (unknown, *chances)):
                listed = ", ".join(f"node {voter} for {vote or 'nobody'}" for voter, vote in sorted(votes.items()))
                text = (
                    f"one vote per term: node {node_id} has entries of term {term} from {first} on, and nobody can have been its leader: "
                    f"{listed} (members {configuration}); a vote was lost, or the directories are not of one moment"
                )
                yield Contradiction(text, of_one_moment=True)


def _votes(configuration: Configuration, term: Term, replicas: Replicas) -> dict[NodeId, NodeId | None]:
    """How members voted in a term, as far as that is known: what was in a node's later terms is not."""
    votes: dict[NodeId, NodeId | None] = {}
    for node_id in present_members(configuration, replicas):
        state = replicas[node_id].found.durable.hard_state
        if configuration.is_voter(node_id) and state.term <= term:
            votes[node_id] = state.vote if state.term == term else None
    return votes


def _listed(nodes: Iterable[NodeId]) -> str:
    listed = ", ".join(map(str, sorted(nodes)))
    return f"nodes {listed}" if "," in listed else f"node {listed}" if listed else ""
