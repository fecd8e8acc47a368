"""When a leader looks at the clock: whether it has a quorum still (CheckQuorum), and what is due.

A quorum is active as long as its members speak, or the pulses of their nodes speak for them. Whatever else has to be said or given up
in time has a point in time of its own; `Leader.due` is no later than any of them, so a leader looks no further before that.
"""

from __future__ import annotations

from .._types import NEVER, Millis, NodeId
from ._membership import continue_change
from ._quorum import joint_index
from ._reads import check_round
from ._replica import Replica
from ._resending import is_live, nudge, send_heartbeat
from ._role_changes import become_follower
from ._roles import Leader, MemberView
from ._transfer import check_transfer


def check_leader(replica: Replica, state: Leader, now: Millis) -> None:
    """Step down without a quorum (dissertation 6.2), or without a disk; then repeat and announce what is due."""
    if not replica.is_own_disk_moving(now):
        # The others would elect, but for this replica that calls them back: they wait for what it can never confirm.
        become_follower(replica, replica.term, None, now)
        return
    if now < state.due:
        return
    if now >= state.quorum_until:
        state.quorum_until = _quorum_until(replica, state, now, expect_down=False)
        if now >= state.quorum_until:
            become_follower(replica, replica.term, None, now)
            return
    if now >= state.announce_at:
        state.announce_at = NEVER
        for view in state.members.values():
            _announce(replica, state, view, now)
    for view in state.members.values():
        if now >= view.resend_at:
            nudge(replica, state, view, now)
    check_transfer(replica, state, now)
    check_round(replica, state, now)
    if state.change is not None and now >= state.change.deadline:
        continue_change(replica, state, now)
    state.due = min(state.quorum_until, _next_point(state))


def _announce(replica: Replica, state: Leader, view: MemberView, now: Millis) -> None:
    """Tell a live follower of the commit index, unless an append has."""
    commit = min(replica.log.commit_index, view.progress.match)
    if max(view.commit_sent, view.commit_known) < commit and is_live(replica, view, now):
        send_heartbeat(replica, state, view, now)


def leader_deadline(replica: Replica, state: Leader, now: Millis) -> Millis:
    """When the leader must look at the clock; NEVER while all live members know everything."""
    return min(_quorum_until(replica, state, now, expect_down=True), _next_point(state))


def _next_point(state: Leader) -> Millis:
    """When there is something to say or to give up, whatever becomes of the quorum."""
    points = [state.announce_at, *(view.resend_at for view in state.members.values())]
    if state.transfer is not None:
        points += (state.transfer.deadline, state.transfer.resend_at)
    if state.round is not None:
        points.append(state.round.resend_at)
    if state.change is not None:
        points.append(state.change.deadline)
    return min(points)


def _quorum_until(replica: Replica, state: Leader, now: Millis, *, expect_down: bool) -> Millis:
    """Until when a quorum counts as active.

    Args:
        expect_down: the node will say when one of its live peers goes down, so they need no deadline here.
    """
    until: dict[NodeId, Millis] = {replica.me.node_id: NEVER}
    for node_id, view in state.members.items():
        active = view.contact + replica.timing.election_timeout
        if not view.is_detached:
            live = replica.live_until(node_id)
            active = NEVER if expect_down and live > now else max(active, live)
        until[node_id] = active
    return joint_index(replica.configuration, until)
