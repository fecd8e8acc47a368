"""One core, with its disk and all its peers in the hands of the test."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, TypeVar

from tests.conformance.logs import entries, terms
from trioraft._types import NEVER, NOTHING, EntryId, Index, Member, NodeId, Term
from trioraft.core import (
    AppendEntries,
    AppendEntriesReply,
    Applied,
    Campaign,
    Configuration,
    Durable,
    Event,
    GroupConfig,
    HardState,
    Message,
    Persisted,
    PreVote,
    PreVoteReply,
    Propose,
    Raft,
    Ready,
    RequestVote,
    RequestVoteReply,
    Role,
    SendSnapshot,
    Terms,
    TimePassed,
    Timing,
)

Kind = TypeVar("Kind", bound=Message)


class Replica:
    """A core that a test can bring into any role, and whose every output it sees.

    What the core says is in `sent`, in the order in which it leaves. Its disk is prompt unless `holds_writes`: then nothing becomes
    durable, and nothing leaves that promises so, until `sync`.
    """

    def __init__(
        self,
        log_terms: Iterable[Term] = (),
        *,
        term: Term | None = None,
        vote: NodeId | None = None,
        me: NodeId = 1,
        voters: Iterable[NodeId] = (1, 2, 3),
        learners: Iterable[NodeId] = (),
        config: GroupConfig | None = None,
        seed: int = 0,
        start: EntryId = NOTHING,
    ) -> None:
        log = entries(start.index + 1, log_terms)
        known = Terms(start)
        for entry in log:
            known.extend(entry.index, entry.term)
        configuration = Configuration(voters, learners=learners)
        self.me = me
        self.others = [node_id for node_id in configuration.members() if node_id != me]
        self.now = 0
        self.liveness = dict.fromkeys(self.others, NEVER)
        self.holds_writes = False
        self.sent: list[Message] = []
        self.writes: list[Ready] = []
        self.applied: list[Index] = []
        self.pages: list[int] = []
        self.accepted: list[EntryId] = []
        self.refused: list[Exception] = []
        self.answered: list[tuple[Any, Any]] = []
        self.streams: list[SendSnapshot] = []
        """Snapshots to be sent."""
        self._held: list[tuple[int, Message]] = []
        self.sequence = self._synced = 0
        """The number of the last Ready; a write has the number of its own."""
        newest = known.last.term
        self.raft = Raft(
            Member(me),
            configuration,
            Durable(hard_state=HardState(newest if term is None else term, vote), entries=log, terms=known, snapshot=start),
            config=config or GroupConfig(),
            timing=Timing(),
            random=random.Random(seed),
            liveness=self.liveness,
            now=0,
            applied=start.index,
        )

    # Going on

    def step(self, event: Event) -> None:
        self.raft.step(event, self.now)
        self.settle()

    def settle(self) -> None:
        while self.raft.has_ready:
            self.sequence += 1
            ready = self.raft.take_ready(self.sequence)
            self.sent += ready.messages
            self._held += [(self.sequence, message) for message in ready.after_write]
            self.accepted += [position for _, position in ready.accepted]
            self.refused += [error for _, error in ready.refused]
            self.answered += ready.answered
            if ready.writes:
                self.writes.append(ready)
            self.streams += ready.send_snapshots
            if ready.restore is not None:
                self.raft.step(Applied(ready.restore.index), self.now)
            if ready.committed:
                self.applied += [entry.index for entry in ready.committed]
                self.pages.append(len(ready.committed))
                self.raft.step(Applied(ready.committed[-1].index), self.now)
            if not self.holds_writes:
                self.sync()

    def sync(self, sequence: int | None = None) -> None:
        """Make what was handed out to be written durable, up to a write or all of it; then what waited for that leaves."""
        done = self.sequence if sequence is None else sequence
        if self._synced < done:
            self._synced = done
            self.sent += [message for waits_for, message in self._held if waits_for <= done]
            self._held = [(waits_for, message) for waits_for, message in self._held if waits_for > done]
            self.step(Persisted(done))

    # What comes in

    def hear(self, kind: type[Message], *, source: NodeId = 2, term: Term | None = None, **fields: Any) -> None:
        self.step(kind(source=Member(source), target=Member(self.me), term=self.raft.term if term is None else term, **fields))

    def hear_append(
        self, previous: EntryId, new_terms: Iterable[Term] = (), *, commit: Index = 0, source: NodeId = 2, term: Term | None = None
    ) -> None:
        new = tuple(entries(previous.index + 1, new_terms))
        self.hear(AppendEntries, source=source, term=term, previous=previous, commit=commit, entries=new)

    def hear_ack(self, source: NodeId, match: Index) -> None:
        self.hear(AppendEntriesReply, source=source, match=match)

    def propose(self, payload: bytes = b"x") -> None:
        self.step(Propose(object(), payload))

    # What goes out

    def take(self, kind: type[Kind]) -> list[Kind]:
        """The messages of a kind since the last such call; all others since then are forgotten."""
        found: list[Kind] = [message for message in self.sent if isinstance(message, kind)]
        self.sent.clear()
        return found

    def take_one(self, kind: type[Kind]) -> Kind:
        (found,) = self.take(kind)
        return found

    # Roles

    def become_pre_candidate(self) -> None:
        self.step(Campaign())
        assert self.raft.role is Role.PRE_CANDIDATE
        assert {message.target.node_id for message in self.take(PreVote)} <= set(self.others)

    def become_candidate(self) -> None:
        """One term up from the present one."""
        self.become_pre_candidate()
        for other in self.others:
            if self.raft.role is Role.PRE_CANDIDATE:
                self.hear(PreVoteReply, source=other, term=self.raft.term + 1, granted=True)
        assert self.raft.role is Role.CANDIDATE
        assert self.holds_writes or self.take(RequestVote)

    def become_leader(self) -> None:
        """One term up from the present one; its no-op is in its log."""
        if self.others:
            self.become_candidate()
        else:
            # A sole voter has nobody to wait for: its first deadline has passed when it starts.
            self.step(TimePassed())
        for other in self.others:
            if self.raft.role is Role.CANDIDATE:
                self.hear(RequestVoteReply, source=other, granted=True)
        assert self.raft.role is Role.LEADER

    def become(self, role: str) -> None:
        """Go into a role by its name in the tables."""
        {
            "follower": lambda: None,
            "pre_candidate": self.become_pre_candidate,
            "candidate": self.become_candidate,
            "leader": self.become_leader,
        }[role]()

    @property
    def role(self) -> str:
        """The role by its name in the tables."""
        return self.raft.role.value.replace("-", "_")

    # What it has become

    @property
    def terms(self) -> list[Term]:
        return terms(self.raft.log, self.raft.log.start.index + 1)

    @property
    def written(self) -> list[Term]:
        """The terms of all entries that were handed out to be written, in that order."""
        return [entry.term for ready in self.writes for entry in ready.entries]
