"""Snapshots: when the log is cut, and what a leader does for a follower that needs what was cut off.

A replica takes snapshots when its driver likes. The log is cut a little before the newest one (`keep_entries`, `keep_bytes`), and not
behind one that is on its way to a follower, up to `stream_hold_entries` and `stream_hold_bytes`: or else the follower would need the next
snapshot as soon as it has caught up with this one.

While a snapshot is on its way nothing else is said to that follower, and nothing is repeated: the stream has an end of its own, and
tells it (`SnapshotSent`). There is one stream to a node at a time, whatever has become of the leader that started it.
"""

from __future__ import annotations

from .._errors import InvariantError
from .._types import NEVER, Millis
from ._events import SnapshotSent, SnapshotTaken
from ._progress import ProgressState
from ._ready import Compaction, SendSnapshot
from ._replica import Replica
from ._resending import expect_answer, hush, is_live
from ._roles import Leader, MemberView, RoleState

# Cutting the log


def on_snapshot_taken(replica: Replica, state: RoleState, event: SnapshotTaken, now: Millis) -> None:
    """Cut the log, unless a newer snapshot has been installed meanwhile."""
    at, log = event.at, replica.log
    if at.index <= replica.snapshot.index:
        return
    if at.index > replica.applying.handed_index:
        raise InvariantError(f"a snapshot at {at}, but only {replica.applying.handed_index} has been handed out to be applied")
    if log.term_at(at.index) != at.term:
        raise InvariantError(f"a snapshot at {at}, but the log has term {log.term_at(at.index)} there")
    replica.snapshot = at
    compact(replica)


def compact(replica: Replica) -> None:
    """Cut off what neither this replica nor a follower that is a little behind will need."""
    if replica.applying.is_restoring:
        return  # the snapshot to restore from may be an older one, and must stay; this is done again when it has been
    log, snapshot, config = replica.log, replica.snapshot, replica.config
    kept = max(snapshot.index - config.keep_entries, log.first_within(snapshot.index, config.keep_bytes))
    start = min(kept, log.persisted_index, replica.applying.applied_index)
    if type(replica.state) is Leader:
        for view in replica.state.members.values():
            held = max(view.progress.match, view.progress.pending_snapshot)
            fits = log.last_index - held <= config.stream_hold_entries and log.bytes_behind(held) <= config.stream_hold_bytes
            if view.holds_log and fits:
                start = min(start, held)
    log.compact(start)
    replica.compaction = Compaction(snapshot, log.start, log.commit_index)


# Sending snapshots


def send_snapshot(replica: Replica, view: MemberView) -> None:
    """Start to stream the newest snapshot to a follower whose next entry has been cut off, unless another stream has yet to end."""
    node_id = view.member.node_id
    if node_id in replica.streams:
        return
    replica.streams.add(node_id)
    view.progress.become_snapshot(replica.snapshot.index)
    view.resend_at = NEVER
    view.holds_log = True
    replica.send_snapshots.append(SendSnapshot(view.member, replica.term, replica.snapshot))


def on_snapshot_sent(replica: Replica, state: RoleState, event: SnapshotSent, now: Millis) -> None:
    """A stream has ended: wait for the follower to say what it has, or try again, later and later."""
    replica.streams.discard(event.target.node_id)
    if type(state) is not Leader:
        return
    # Somebody may have waited for the end of this one.
    state.wants_append = True
    view = state.members.get(event.target.node_id)
    if not event.arrived:
        if view is not None:
            view.holds_log = False
        compact(replica)
    if view is None or view.member != event.target or view.progress.state is not ProgressState.SNAPSHOT:
        return
    if event.arrived:
        view.streams_failed = 0
        view.progress.snapshot_arrived(event.at.index)
        expect_answer(replica, state, view, now)
        return
    view.progress.snapshot_failed()
    if not is_live(replica, view, now):
        hush(view)
        return
    timing = replica.timing
    view.resend_at = now + min(timing.heartbeat_interval << min(view.streams_failed, 16), timing.election_timeout)
    view.streams_failed += 1
    state.wake_at(view.resend_at)
