"""What a leader does: send its log, count who has it, and commit; `_resending` says again what may be lost.

Entries are appended one by one, but sent once a turn: hundreds of proposals of one turn make one message for each follower.
Sending does not wait for the own disk (dissertation 10.2.1): the leader counts itself when its own write is done, like the others.

The commit index travels with the next appends. Only if none have told it within H, heartbeats announce it.
"""

from __future__ import annotations

from typing import TypeAlias

from .._errors import BusyError, EntryTooLargeError
from .._types import NEVER, EntryId, Index, Member, Millis
from ._entry import Entry
from ._events import PeerDown, PeerUp, Propose, Unreachable
from ._membership import continue_change, leave_committed_joint, step_aside
from ._messages import AppendEntries, AppendEntriesReply, Detach, HeartbeatReply
from ._progress import Progress, ProgressState
from ._quorum import joint_index
from ._reads import on_answer, want_round
from ._removal import tell_removed
from ._replica import Replica
from ._resending import (
    call,
    detached,
    expect_answer,
    got_answer,
    hush,
    is_live,
    is_owing,
    is_streaming,
    nudge,
    probe,
    rest,
    retry_soon,
)
from ._roles import Leader, MemberView
from ._snapshots import send_snapshot
from ._transfer import call_if_level

Cut: TypeAlias = tuple[tuple[Entry, ...], int]
"""Entries that follow each other, and their size."""

# Proposals


def on_propose(replica: Replica, state: Leader, event: Propose, now: Millis) -> None:
    if state.transfer is not None:
        replica.refused.append((event.token, BusyError("leadership is being handed over")))
        return
    size, config, log = len(event.payload), replica.config, replica.log
    if size > config.entry_bytes_max:
        text = f"a command of {size} bytes is larger than entry_bytes_max ({config.entry_bytes_max})"
        replica.refused.append((event.token, EntryTooLargeError(text)))
        return
    waiting = log.uncommitted_bytes
    if waiting and waiting + size > config.uncommitted_bytes_max:
        replica.refused.append((event.token, BusyError(f"{waiting} bytes of this group are waiting to be committed")))
        return
    uncommitted = log.last_index - log.commit_index
    if uncommitted >= config.uncommitted_entries_max:
        replica.refused.append((event.token, BusyError(f"{uncommitted} entries of this group are waiting to be committed")))
        return
    term = replica.ballot.term
    index = log.last_index + 1
    log.append(Entry(index, term, event.kind, event.payload))
    replica.accepted.append((event.token, EntryId(term, index)))
    state.wants_append = True


# Sending


def send_appends(replica: Replica, state: Leader, now: Millis) -> None:
    """Send every follower what its window allows."""
    state.wants_append = False
    log, bytes_max, entries_max = replica.log, replica.config.append_bytes_max, replica.config.append_entries_max
    # Followers that are level get the same cut.
    cuts: dict[Index, Cut] = {}
    for view in state.members.values():
        progress = view.progress
        while progress.next <= log.last_index and not progress.is_paused:
            first = progress.next
            if first <= log.evicted_index:
                _fetch(replica, view, now)
                break
            cut = cuts.get(first)
            if cut is None:
                cut = cuts[first] = log.slice(first, bytes_max, entries_max)
            send_append(replica, state, view, cut, now)
        if progress.next > log.last_index > progress.match and progress.state is ProgressState.PROBE and not progress.waiting:
            # Nothing follows what it may have (a new member, or a snapshot that ends the log): ask whether it has that.
            send_append(replica, state, view, ((), 0), now)


def _fetch(replica: Replica, view: MemberView, now: Millis) -> None:
    """Have read what a member needs and is not in memory; or have the snapshot sent if the log does not have it either."""
    if not is_live(replica, view, now):
        return
    log, config, node_id, first = replica.log, replica.config, view.member.node_id, view.progress.next
    if first <= log.start.index and not view.has_answered:
        # A stream does not call a replica that joins, or comes back, by its number; and it may have more than is thought.
        view.progress.next = log.last_index + 1
    elif first <= log.start.index:
        send_snapshot(replica, view)
    elif node_id not in replica.loading:
        replica.load(node_id, first, min(log.evicted_index, first + config.append_entries_max - 1), config.append_bytes_max)


def send_append(replica: Replica, state: Leader, view: MemberView, cut: Cut, now: Millis) -> None:
    """Send a member the entries that it gets next."""
    entries, size = cut
    log = replica.log
    before = view.progress.next - 1
    last = before + len(entries)
    previous = EntryId(log.term_at(before), before)
    replica.send(AppendEntries(replica.me, view.member, replica.term, previous, log.commit_index, entries))
    view.progress.sent(last, size)
    view.commit_sent = max(view.commit_sent, min(log.commit_index, last))
    expect_answer(replica, state, view, now)


# Answers


def _heard(replica: Replica, state: Leader, source: Member, now: Millis) -> MemberView | None:
    """A member has answered in this term: return what is known of it, or None for a stranger."""
    if not replica.is_counted(source):
        replica.drop("stranger")
        return None
    view = state.members[source.node_id]
    view.contact = now
    view.has_answered = True
    if view.is_detached:
        view.is_detached = False
        call(replica, view)
    if is_owing(replica, view):
        expect_answer(replica, state, view, now)
    return view


def on_append_reply(replica: Replica, state: Leader, message: AppendEntriesReply, now: Millis) -> None:
    view = _heard(replica, state, message.source, now)
    if view is None:
        return
    progress, log = view.progress, replica.log
    if message.rejected:
        # The two logs agree at most up to here: neither side has a higher term up to its own hint (paper 5.3).
        hint = log.find_term(message.hint.index, message.hint.term)
        if progress.reject(message.rejected, hint):
            probe(view)
            state.wants_append = True
        return
    if message.match > log.last_index:
        replica.drop("impossible match")
        return
    view.commit_known = max(view.commit_known, message.commit)
    if progress.acknowledge(message.match):
        if progress.state is not ProgressState.REPLICATE:
            _go_on(replica, progress)
        if view.holds_log and progress.match >= log.commit_index:
            view.holds_log = False
        state.match[message.source.node_id] = progress.match
        state.wants_append = True
        got_answer(view)
        if state.transfer is not None:
            call_if_level(replica, state, view, now)
        advance_commit(replica, state, now)
    _settle(replica, state, view, now)


def _go_on(replica: Replica, progress: Progress) -> None:
    """It has said where the two logs agree: go on from there, if the log does."""
    if progress.state is ProgressState.PROBE or progress.match >= replica.log.start.index:
        progress.become_replicate()
    elif progress.match >= progress.pending_snapshot:
        # The log was not held that long: it needs a newer snapshot.
        progress.become_probe()


def _settle(replica: Replica, state: Leader, view: MemberView, now: Millis) -> None:
    if state.change is not None:
        continue_change(replica, state, now)
    if is_owing(replica, view):
        expect_answer(replica, state, view, now)
        return
    rest(view)
    if state.announce_at != NEVER and not any(other.commit_known < replica.log.commit_index for other in state.members.values()):
        # All know already: the appends have told them.
        state.announce_at = NEVER


def on_heartbeat_reply(replica: Replica, state: Leader, message: HeartbeatReply, now: Millis) -> None:
    view = _heard(replica, state, message.source, now)
    if view is None:
        return
    if message.commit < view.commit_known:
        # It knew more before: it has restarted, and must be told again.
        _forgot(replica, state, view, now)
    if message.round:
        on_answer(replica, state, view, message)
    view.commit_known = message.commit
    _settle(replica, state, view, now)


def _forgot(replica: Replica, state: Leader, view: MemberView, now: Millis) -> None:
    view.commit_sent = view.commit_known = 0
    _announce_soon(replica, state, now)


def _announce_soon(replica: Replica, state: Leader, now: Millis) -> None:
    if state.announce_at == NEVER:
        state.announce_at = now + replica.timing.heartbeat_interval
        state.wake_at(state.announce_at)


# Committing


def advance_commit(replica: Replica, state: Leader, now: Millis) -> None:
    """Commit what a quorum holds durably, if it is of this term."""
    log = replica.log
    index = joint_index(replica.configuration, state.match)
    # Paper 5.4.2: entries of earlier terms are never committed by counting; the first own entry takes them along.
    before = log.commit_index
    if index > before and log.term_at(index) == replica.term:
        log.commit_to(index)
        if state.reads:
            want_round(state)
        if state.members:
            _announce_soon(replica, state, now)
        if replica.configuration.outgoing:
            leave_committed_joint(replica, state, now)
            return
        if before < log.configurations.newest_index <= index:
            tell_removed(replica)
            if not replica.can_campaign:
                step_aside(replica, state, now)
                return
        continue_change(replica, state, now)


def count_own_write(replica: Replica, state: Leader, now: Millis) -> None:
    """A write is done: the leader's own disk counts like any other."""
    state.match[replica.me.node_id] = replica.log.persisted_index
    advance_commit(replica, state, now)


# The others' nodes


def on_detach(replica: Replica, state: Leader, message: Detach, now: Millis) -> None:
    """A member counts on this node no more: only what it says itself speaks for it now."""
    if not replica.is_counted(message.source):
        replica.drop("stranger")
        return
    view = state.members[message.source.node_id]
    view.contact = now
    detached(state, view)


def on_peer_down(replica: Replica, state: Leader, event: PeerDown, now: Millis) -> None:
    """Stop to send; remember."""
    state.quorum_until = state.due = 0
    view = state.members.get(event.node_id)
    if view is not None and not is_live(replica, view, now) and not is_streaming(replica, view):
        hush(view)


def on_peer_up(replica: Replica, state: Leader, event: PeerUp, now: Millis) -> None:
    """Send what the member lacks; a quiet group whose member has lost nothing stays quiet."""
    view = state.members.get(event.node_id)
    if view is None:
        return
    if event.restarted:
        view.commit_sent = view.commit_known = 0
        view.has_answered = False
    if view.is_detached:
        view.is_detached = False
        call(replica, view)
    nudge(replica, state, view, now)
    continue_change(replica, state, now)


def on_unreachable(replica: Replica, state: Leader, event: Unreachable, now: Millis) -> None:
    """Messages may be lost: whoever owes nothing has lost nothing."""
    view = state.members.get(event.node_id)
    if view is not None and is_owing(replica, view) and not is_streaming(replica, view):
        retry_soon(replica, state, view, now)
