"""Bugs on purpose: each breaks one rule of the core, so that one can see the simulator find it.

A simulator that never found anything proves nothing. Most plants change what goes into a core or comes out of it, and so do not depend
on how it is written; the few that must reach inside name what they replace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs

from .._types import NEVER, EntryId, Member, Millis
from ..core import (
    AppendEntriesReply,
    Compaction,
    Configuration,
    Detach,
    Durable,
    Event,
    HardState,
    InstallSnapshot,
    Persisted,
    PreVote,
    Raft,
    Ready,
    RequestVote,
    RequestVoteReply,
    _replication,
)
from ..core._applying import Applying
from ..core._log import Log
from ..core._quorum import joint_index
from ..core._replica import Replica
from ._client_plants import CLIENT_PLANTS
from ._log_window import LogWindow
from ._plant import Plant, on_ready, on_step


def _on_start(change: Callable[[Durable], Durable]) -> tuple[Any, str, Callable[[Any], Any]]:
    """Change what a replica finds on its disk."""

    def wrap(original: Callable[..., None]) -> Callable[..., None]:
        def init(self: Raft, me: Member, configuration: object, durable: Durable, **others: object) -> None:
            original(self, me, configuration, change(durable), **others)

        return init

    return Raft, "__init__", wrap


def _send_at_once(kind: type[Any]) -> tuple[Any, str, Callable[[Any], Any]]:
    def change(_raft: Raft, ready: Ready) -> None:
        early = tuple(message for message in ready.after_write if type(message) is kind)
        if early:
            ready.after_write = tuple(message for message in ready.after_write if type(message) is not kind)
            ready.messages += early

    return on_ready(change)


def _forget_log_check(_raft: Raft, event: Event) -> Event:
    if isinstance(event, RequestVote | PreVote):
        return attrs.evolve(event, last=EntryId(NEVER, NEVER))
    return event


def _complete_everything(raft: Raft, event: Event) -> Event:
    return Persisted(NEVER) if isinstance(event, Persisted) else event


def _ignore_detach(_raft: Raft, event: Event) -> Event | None:
    return None if isinstance(event, Detach) else event


def _forget_vote(durable: Durable) -> Durable:
    return attrs.evolve(durable, hard_state=HardState(durable.hard_state.term, None))


def _lose_last_entry(durable: Durable) -> Durable:
    terms, last = durable.terms.copy(), durable.terms.last_index - 1
    if last < durable.snapshot.index:
        return durable
    terms.truncate(last)
    entries = tuple(entry for entry in durable.entries if entry.index <= last)
    configurations = [item for item in durable.configurations if item[0] <= last]
    return attrs.evolve(durable, entries=entries, terms=terms, commit=min(durable.commit, last), configurations=configurations)


def _drop_hard_state(_raft: Raft, ready: Ready) -> None:
    if ready.entries:
        ready.hard_state = None


def _shorten_history(raft: Raft, event: Event) -> Event:
    """Let an older snapshot look newer than what is known to be committed."""
    if isinstance(event, InstallSnapshot) and event.term >= raft.term:
        raft.log.commit_index = min(raft.log.commit_index, event.at.index - 1)
    return event


def _cut_to_applied(raft: Raft, ready: Ready) -> None:
    if ready.compaction is not None:
        ready.compaction = _cut_at(raft, ready.compaction, raft.applied_index)


def _cut_to_commit(raft: Raft, ready: Ready) -> None:
    """A leader commits what is on the disks of others before it is on its own."""
    if ready.compaction is not None:
        ready.compaction = _cut_at(raft, ready.compaction, raft.commit_index)


def _cut_at(raft: Raft, compaction: Compaction, index: int) -> Compaction:
    start = EntryId(raft.term_at(index), index)
    return attrs.evolve(compaction, start=start)


def _confirm_install_at_once(_raft: Raft, ready: Ready) -> None:
    if ready.install is not None:
        ready.messages, ready.after_write = ready.messages + ready.after_write, ()


def _newest_configuration(_original: object) -> Callable[..., Configuration]:
    return lambda raft, _index: raft.configuration


def _restore_at_once(_original: object) -> property:
    return property(lambda applying: applying.restore is not None and not applying._restoring)


def _keep_tail(original: Callable[[LogWindow, EntryId, Configuration], None]) -> Callable[[LogWindow, EntryId, Configuration], None]:
    def install(self: LogWindow, at: EntryId, configuration: Configuration) -> None:
        tail = self.behind(at.index, self.last_index)
        original(self, at, configuration)
        if tail and not self.entries:
            self.write(tail)

    return install


def _evict_everything(_original: object) -> Callable[[Log, int], None]:
    return lambda log, _bytes_max: log._evict_to(min(log.last_index, log._unwritten - 1))


def _agree(_original: object) -> Callable[..., bool]:
    return lambda *_args: True


def _commit_by_counting(_original: object) -> Callable[..., None]:
    """Leave out the term in the commit rule."""

    def advance_commit(replica: Any, state: Any, now: Millis) -> None:
        index = joint_index(replica.configuration, state.match)
        if index > replica.log.commit_index:
            replica.log.commit_to(index)
            _replication._announce_soon(replica, state, now)

    return advance_commit


def _never(_original: object) -> Callable[..., bool]:
    return lambda *_args: False


PLANTS: dict[str, Plant] = {
    "vote-without-log-check": Plant("somebody without the committed entries is elected (paper 5.4.1)", 20, *on_step(_forget_log_check)),
    "commit-old-term-by-counting": Plant(
        "figure 8 of the paper (5.4.2, scenario CM-1)", 200, _replication, "advance_commit", _commit_by_counting
    ),
    "ack-before-sync": Plant("a follower acknowledges what a crash takes back (scenario CM-5)", 5, *_send_at_once(AppendEntriesReply)),
    "vote-before-sync": Plant("a crash takes back a vote that was granted (scenario EL-1)", 5, *_send_at_once(RequestVoteReply)),
    "campaign-before-sync": Plant("a crash takes back a candidate's own vote (scenario EL-10)", 5, *_send_at_once(RequestVote)),
    "vote-forgotten-at-restart": Plant("a replica votes twice in a term (scenario EL-1)", 200, *_on_start(_forget_vote)),
    "entry-forgotten-at-restart": Plant("a committed entry is on a majority no more", 20, *_on_start(_lose_last_entry)),
    "term-not-written-with-entries": Plant("entries are durable and their term is not", 20, *on_ready(_drop_hard_state)),
    "completion-counts-for-all-writes": Plant("an entry counts as durable when an earlier write is", 20, *on_step(_complete_everything)),
    "attachment-kept": Plant("followers stick to an ex-leader whose node lives", 200, *on_step(_ignore_detach)),
    "replica-numbers-ignored": Plant("acknowledgements of a former life count for an empty one", 50, Replica, "is_superseded", _never),
    "snapshot-with-newest-configuration": Plant(
        "whoever installs it goes by members that are not committed, or not yet", 100, Raft, "configuration_at", _newest_configuration
    ),
    "older-snapshot-installed": Plant("a late snapshot takes back what was committed (scenario SN-2)", 50, *on_step(_shorten_history)),
    "stale-load-used": Plant("entries that have been replaced are sent as if they were the log's", 0, Log, "agrees", _agree),
    "log-cut-behind-the-snapshot": Plant("a restart finds neither the entries nor a snapshot of them", 5, *on_ready(_cut_to_applied)),
    "log-cut-behind-what-is-persisted": Plant("the disk is told to cut what it does not have yet", 5, *on_ready(_cut_to_commit)),
    "memory-trimmed-too-far": Plant("what is not durable leaves memory, and cannot be read back", 50, Log, "evict", _evict_everything),
    "install-acknowledged-before-sync": Plant("a follower counts for what a crash takes back", 50, *on_ready(_confirm_install_at_once)),
    "machine-restored-before-install-is-durable": Plant(
        "a crash leaves a machine that is ahead of its log", 50, Applying, "has_restore", _restore_at_once
    ),
    "tail-kept-at-install": Plant(
        "what follows a snapshot in another history comes back at the next start (scenario SN-1)",
        100,
        LogWindow,
        "install",
        _keep_tail,
        operations=60,
    ),
    **CLIENT_PLANTS,
}
"""The bugs by name."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Plant a bug for as long as the context lasts.

    Raises:
        KeyError: there is no such bug; `PLANTS` names all of them.
    """
    plant = PLANTS[name]
    is_own = plant.attribute in vars(plant.owner)
    original = getattr(plant.owner, plant.attribute)
    setattr(plant.owner, plant.attribute, plant.wrap(original))
    try:
        yield
    finally:
        if is_own:
            setattr(plant.owner, plant.attribute, original)
        else:
            delattr(plant.owner, plant.attribute)
