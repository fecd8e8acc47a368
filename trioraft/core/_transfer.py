"""Leadership that is handed over (dissertation 3.10).

The leader takes no more proposals, waits until the target has its whole log, and tells it to campaign at once. The votes for that
election are given although the voters have a leader, because that leader has asked for it. If it still leads after an election
timeout, it goes on as before: a target that did not get word, or got it late, costs an election at worst.
"""

from __future__ import annotations

from .._errors import TransferRefusedError
from .._types import NEVER, Millis
from ._election import start_vote
from ._events import TransferLeadership
from ._messages import TimeoutNow
from ._replica import Replica
from ._resending import is_live
from ._roles import Follower, Leader, MemberView, Transfer


def on_transfer(replica: Replica, state: Leader, event: TransferLeadership, now: Millis) -> None:
    try:
        target = _target(replica, state, event, now)
    except TransferRefusedError as error:
        replica.refused.append((event.token, error))
        return
    deadline = now + replica.timing.election_timeout
    state.transfer = Transfer(event.token, target.member.node_id, deadline)
    # What it lacks may be lost, and nobody can write meanwhile.
    target.resend_at = min(target.resend_at, now + replica.timing.heartbeat_interval)
    state.wake_at(target.resend_at)
    call_if_level(replica, state, target, now)


def _target(replica: Replica, state: Leader, event: TransferLeadership, now: Millis) -> MemberView:
    """Find who is meant, if leadership can be handed over to it.

    Raises:
        TransferRefusedError: it cannot.
    """
    node_id = event.target
    if state.transfer is not None:
        raise TransferRefusedError("pending", f"leadership is being handed over to node {state.transfer.target}: ask again")
    if node_id == replica.me.node_id:
        raise TransferRefusedError("leads", f"node {node_id} leads already")
    view = best_voter(replica, state, now) if node_id is None else state.members.get(node_id)
    if node_id is not None and node_id not in replica.configuration.voters:
        # Whoever votes only until a joint configuration is left would have to hand over at once.
        raise TransferRefusedError("no_voter", f"node {node_id} is no voter of {replica.configuration}")
    if view is None or not is_live(replica, view, now):
        who = "no other voter is" if node_id is None else f"node {node_id} is not"
        raise TransferRefusedError("silent", f"{who} there: ask again")
    return view


def best_voter(replica: Replica, state: Leader, now: Millis) -> MemberView | None:
    """Find the voter that is there and has most of the log; of equals, the first in id order."""
    voters = replica.configuration.voters
    views = [view for node_id, view in state.members.items() if node_id in voters and is_live(replica, view, now)]
    return max(views, key=lambda view: view.progress.match, default=None)


def check_transfer(replica: Replica, state: Leader, now: Millis) -> None:
    """Give up after an election timeout; until then tell the target again, word may be lost."""
    transfer = state.transfer
    if transfer is None:
        return
    if now >= transfer.deadline:
        text = f"node {transfer.target} did not catch up, or did not win, within an election timeout"
        replica.refused.append((transfer.token, TransferRefusedError("timeout", text)))
        state.transfer = None
    elif now >= transfer.resend_at:
        transfer.resend_at = NEVER
        call_if_level(replica, state, state.members[transfer.target], now)


def call_if_level(replica: Replica, state: Leader, view: MemberView, now: Millis) -> None:
    """A transfer is pending, or a member of one has more of the log: tell its target to campaign if that has all of it."""
    transfer = state.transfer
    if transfer is None or transfer.target != view.member.node_id or transfer.resend_at != NEVER:
        return
    if view.progress.match == replica.log.last_index:
        call_election(replica, state, view)
        transfer.resend_at = now + replica.timing.heartbeat_interval
        state.wake_at(transfer.resend_at)


def call_election(replica: Replica, state: Leader, view: MemberView) -> None:
    """Tell a voter to campaign at once: from now on no lease of this term is worth anything."""
    state.has_called_election = True
    replica.send(TimeoutNow(replica.me, view.member, replica.term))


def on_timeout_now(replica: Replica, state: Follower, message: TimeoutNow, now: Millis) -> None:
    """The leader hands over: campaign, without asking first whether that would be welcome."""
    if state.leader != message.source:
        replica.drop("not the leader")
    elif replica.can_campaign and replica.is_own_disk_moving(now):
        start_vote(replica, now, transfer=True)
