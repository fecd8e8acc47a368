"""What a leader does: send its log, count who has it, commit, and repeat what may be lost.

Entries are appended one by one, but sent once a turn: hundreds of proposals of one turn make one message for each follower.
Sending does not wait for the own disk (dissertation 10.2.1): the leader counts itself when its own write is done, like the others.

There is no periodic heartbeat. So everything that others owe the leader has a deadline here: an answer to entries, and word that
the commit index has been heard. A member that is not live owes nothing; it is remembered, and served when its node is up again.
When nobody owes anything, the leader has no deadline at all.
"""

from __future__ import annotations

from .._errors import BusyError, EntryTooLargeError
from .._types import NEVER, EntryId, Index, Member, Millis
from ._entry import Entry, EntryKind
from ._events import PeerDown, PeerUp, Propose, Unreachable
from ._messages import AppendEntries, AppendEntriesReply, Attach, Detach, Heartbeat, HeartbeatReply
from ._progress import ProgressState
from ._quorum import joint_index
from ._replica import Replica
from ._roles import Leader, Peer

# Time


def check_leader(replica: Replica, state: Leader, now: Millis) -> None:
    """Step down without a quorum (dissertation 6.2), or without a disk; then repeat and announce what is due."""
    if not replica.is_own_disk_moving(now):
        # The others would elect, but for this replica that calls them back: they wait for what it can never confirm.
        replica.become_follower(replica.term, None, now)
        return
    if now < state.due:
        return
    if now >= state.quorum_until:
        state.quorum_until = _quorum_until(replica, state, now, expect_down=False)
        if now >= state.quorum_until:
            replica.become_follower(replica.term, None, now)
            return
    if now >= state.announce_at:
        state.announce_at = NEVER
        for peer in state.peers.values():
            _announce(replica, state, peer, now)
    for peer in state.peers.values():
        if now >= peer.resend_at:
            _nudge(replica, state, peer, now)
    state.due = min([state.quorum_until, state.announce_at, *(peer.resend_at for peer in state.peers.values())])


def leader_deadline(replica: Replica, state: Leader, now: Millis) -> Millis:
    """When the leader must look at the clock; NEVER while all live members know everything."""
    quorum = _quorum_until(replica, state, now, expect_down=True)
    return min([quorum, state.announce_at, *(peer.resend_at for peer in state.peers.values())])


def _quorum_until(replica: Replica, state: Leader, now: Millis, *, expect_down: bool) -> Millis:
    """Until when a quorum counts as active.

    Args:
        expect_down: the node will say when one of its live peers goes down, so they need no deadline here.
    """
    until: dict[int, Millis] = {replica.me.node_id: NEVER}
    for node_id, peer in state.peers.items():
        active = peer.contact + replica.timing.election_timeout
        if not peer.is_detached:
            live = replica.live_until(node_id)
            active = NEVER if expect_down and live > now else max(active, live)
        until[node_id] = active
    return joint_index(replica.configuration, until)


def _is_live(replica: Replica, peer: Peer, now: Millis) -> bool:
    return now < peer.contact + replica.timing.election_timeout or now < replica.live_until(peer.member.node_id)


# Proposals


def on_propose(replica: Replica, state: Leader, event: Propose, now: Millis) -> None:
    size, config, log = len(event.payload), replica.config, replica.log
    if size > config.entry_bytes_max:
        text = f"a command of {size} bytes is larger than entry_bytes_max ({config.entry_bytes_max})"
        replica.refused.append((event.token, EntryTooLargeError(text)))
        return
    waiting = log.uncommitted_bytes
    if waiting and waiting + size > config.uncommitted_bytes_max:
        replica.refused.append((event.token, BusyError(f"{waiting} bytes of this group are waiting to be committed")))
        return
    if log.uncommitted_entries >= config.uncommitted_entries_max:
        replica.refused.append((event.token, BusyError(f"{log.uncommitted_entries} entries of this group are waiting to be committed")))
        return
    term = replica.ballot.term
    index = log.last_index + 1
    log.append(Entry(index, term, EntryKind.COMMAND, event.payload))
    replica.accepted.append((event.token, EntryId(term, index)))
    state.wants_append = True


# Sending


def send_appends(replica: Replica, state: Leader, now: Millis) -> None:
    """Send every follower what its window allows."""
    state.wants_append = False
    bytes_max, entries_max = replica.config.append_bytes_max, replica.config.append_entries_max
    # Followers that are level get the same cut.
    cuts: dict[Index, tuple[tuple[Entry, ...], int]] = {}
    for peer in state.peers.values():
        progress = peer.progress
        while progress.next <= replica.log.last_index and not progress.is_paused:
            first = progress.next
            cut = cuts.get(first)
            if cut is None:
                cut = cuts[first] = replica.log.slice(first, bytes_max, entries_max)
            _send_append(replica, state, peer, cut, now)


def _send_append(replica: Replica, state: Leader, peer: Peer, cut: tuple[tuple[Entry, ...], int], now: Millis) -> None:
    entries, size = cut
    log = replica.log
    before = peer.progress.next - 1
    last = entries[-1].index
    previous = EntryId(log.term_at(before), before)
    replica.send(AppendEntries(replica.me, peer.member, replica.term, previous, log.commit_index, entries))
    peer.progress.sent(last, size)
    peer.commit_sent = max(peer.commit_sent, min(log.commit_index, last))
    _expect_answer(replica, state, peer, now)


def _send_heartbeat(replica: Replica, state: Leader, peer: Peer, now: Millis) -> None:
    commit = min(replica.log.commit_index, peer.progress.match)
    replica.send(Heartbeat(replica.me, peer.member, replica.term, commit))
    peer.commit_sent = max(peer.commit_sent, commit)
    _expect_answer(replica, state, peer, now)


def _announce(replica: Replica, state: Leader, peer: Peer, now: Millis) -> None:
    """Tell a live follower of the commit index, unless an append has."""
    commit = min(replica.log.commit_index, peer.progress.match)
    if max(peer.commit_sent, peer.commit_known) < commit and _is_live(replica, peer, now):
        _send_heartbeat(replica, state, peer, now)


# Repeating


def _owes(replica: Replica, peer: Peer) -> bool:
    """Whether a member has not said that it has everything and knows the commit index."""
    return peer.progress.match < replica.log.last_index or peer.commit_known < replica.log.commit_index


def _expect_answer(replica: Replica, state: Leader, peer: Peer, now: Millis) -> None:
    if peer.resend_at == NEVER:
        peer.resend_at = now + replica.timing.election_timeout // 2
        state.wake_at(peer.resend_at)


def _nudge(replica: Replica, state: Leader, peer: Peer, now: Millis) -> None:
    """An answer has not come: say one thing again, if the member is there to hear it."""
    peer.resend_at = NEVER
    if not _owes(replica, peer):
        _rest(peer)
    elif not _is_live(replica, peer, now):
        _hush(peer)
    elif peer.progress.match < replica.log.last_index:
        _probe(peer)
        peer.progress.resend()
        state.wants_append = True
        _expect_answer(replica, state, peer, now)
    else:
        _send_heartbeat(replica, state, peer, now)


def _probe(peer: Peer) -> None:
    # NB: a follower that is being probed keeps its place: from `match` on, a new leader would send it all that it has already.
    if peer.progress.state is not ProgressState.PROBE:
        peer.progress.become_probe()


def _rest(peer: Peer) -> None:
    """It has everything: no answer is waited for, and the next entry goes out at once."""
    peer.resend_at = NEVER
    peer.progress.resend()


def _hush(peer: Peer) -> None:
    """Say nothing more to a member that is not there, until its node is up or it speaks."""
    _probe(peer)
    peer.progress.waiting = True
    peer.resend_at = NEVER


def recall(replica: Replica, state: Leader, source: Member) -> None:
    """A member does not follow although it could hear: tell it who leads.

    Not a proof that it will: until it answers, its node's pulse does not speak for it.
    """
    if not replica.is_counted(source):
        return
    peer = state.peers[source.node_id]
    _detached(state, peer)
    _call(replica, peer)


def _call(replica: Replica, peer: Peer) -> None:
    replica.send(Attach(replica.me, peer.member, replica.term))
    commit = min(replica.log.commit_index, peer.progress.match)
    replica.send(Heartbeat(replica.me, peer.member, replica.term, commit))


def _detached(state: Leader, peer: Peer) -> None:
    peer.is_detached = True
    state.quorum_until = state.due = 0


# Answers


def _heard(replica: Replica, state: Leader, source: Member, now: Millis) -> Peer | None:
    """A member has answered in this term: return what is known of it, or None for a stranger."""
    if not replica.is_counted(source):
        replica.drop("stranger")
        return None
    peer = state.peers[source.node_id]
    peer.contact = now
    if peer.is_detached:
        peer.is_detached = False
        _call(replica, peer)
    if _owes(replica, peer):
        _expect_answer(replica, state, peer, now)
    return peer


def on_append_reply(replica: Replica, state: Leader, message: AppendEntriesReply, now: Millis) -> None:
    peer = _heard(replica, state, message.source, now)
    if peer is None:
        return
    progress, log = peer.progress, replica.log
    if message.rejected:
        # The two logs agree at most up to here: neither side has a higher term up to its own hint (paper 5.3).
        hint = log.find_term(message.hint.index, message.hint.term)
        if progress.reject(message.rejected, hint):
            _probe(peer)
            state.wants_append = True
        return
    if message.match > log.last_index:
        replica.drop("impossible match")
        return
    peer.commit_known = max(peer.commit_known, message.commit)
    if progress.acknowledge(message.match):
        if progress.state is ProgressState.PROBE:
            progress.become_replicate()
        state.match[message.source.node_id] = progress.match
        state.wants_append = True
        peer.resend_at = NEVER
        advance_commit(replica, state, now)
    _settle(replica, state, peer, now)


def _settle(replica: Replica, state: Leader, peer: Peer, now: Millis) -> None:
    if _owes(replica, peer):
        _expect_answer(replica, state, peer, now)
        return
    _rest(peer)
    if state.announce_at != NEVER and not any(other.commit_known < replica.log.commit_index for other in state.peers.values()):
        # All know already: the appends have told them.
        state.announce_at = NEVER


def on_heartbeat_reply(replica: Replica, state: Leader, message: HeartbeatReply, now: Millis) -> None:
    peer = _heard(replica, state, message.source, now)
    if peer is None:
        return
    if message.commit < peer.commit_known:
        # It knew more before: it has restarted, and must be told again.
        _forgot(replica, state, peer, now)
    peer.commit_known = message.commit
    _settle(replica, state, peer, now)


def _forgot(replica: Replica, state: Leader, peer: Peer, now: Millis) -> None:
    peer.commit_sent = peer.commit_known = 0
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
    if index > log.commit_index and log.term_at(index) == replica.term:
        log.commit_to(index)
        if state.peers:
            _announce_soon(replica, state, now)


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
    peer = state.peers[message.source.node_id]
    peer.contact = now
    _detached(state, peer)


def on_peer_down(replica: Replica, state: Leader, event: PeerDown, now: Millis) -> None:
    """Stop to send; remember."""
    state.quorum_until = state.due = 0
    peer = state.peers.get(event.node_id)
    if peer is not None and not _is_live(replica, peer, now):
        _hush(peer)


def on_peer_up(replica: Replica, state: Leader, event: PeerUp, now: Millis) -> None:
    """Send what the member lacks; a quiet group whose member has lost nothing stays quiet."""
    peer = state.peers.get(event.node_id)
    if peer is None:
        return
    if event.restarted:
        peer.commit_sent = peer.commit_known = 0
    if peer.is_detached:
        peer.is_detached = False
        _call(replica, peer)
    _nudge(replica, state, peer, now)


def on_unreachable(replica: Replica, state: Leader, event: Unreachable, now: Millis) -> None:
    """Something may be lost: say it again soon, but not at once, or a full queue would be filled for ever."""
    peer = state.peers.get(event.node_id)
    if peer is None or not _owes(replica, peer):
        return
    if peer.progress.state is ProgressState.REPLICATE:
        peer.progress.become_probe()
        peer.progress.waiting = True
    peer.resend_at = min(peer.resend_at, now + replica.timing.heartbeat_interval)
    state.wake_at(peer.resend_at)
