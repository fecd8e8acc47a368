"""Attachments: who counts on whose node, instead of a heartbeat for each group.

A leader offers with `Attach`: "my node's pulse speaks for me". It holds until either side takes it back with `Detach`: the leader
when it steps down, the follower when it leaves by itself, because it campaigns or has learned of a higher term. The pulse that
carries these repeats what has not been acknowledged. So a node that lives never hides a group that does not lead or follow any more.
"""

from __future__ import annotations

from .._types import Member, Millis
from ._events import Unreachable
from ._following import follow
from ._messages import Attach, Detach, HeartbeatReply
from ._replica import Replica
from ._roles import LONG_AGO, Follower, RoleState


def on_attach(replica: Replica, state: RoleState, message: Attach, now: Millis) -> None:
    """Count on the leader's node; say so, with the commit index: after a restart the leader must tell it again."""
    follower = follow(replica, message.source, now)
    if not follower.is_attached:
        follower.is_attached = True
        _greet(replica, message.source)


def _greet(replica: Replica, leader: Member) -> None:
    replica.send(HeartbeatReply(replica.me, leader, replica.term, replica.log.commit_index))


def on_unreachable(replica: Replica, state: Follower, event: Unreachable, now: Millis) -> None:
    """The greeting may be lost, and nobody else would repeat it."""
    if state.is_attached and state.leader is not None and state.leader.node_id == event.node_id:
        _greet(replica, state.leader)


def on_detach(replica: Replica, state: Follower, message: Detach, now: Millis) -> None:
    """The leader leads no longer: nobody has to be waited for, only the other followers given a chance."""
    if state.leader != message.source:
        return
    state.leader = None
    state.is_attached = False
    state.last_heard = LONG_AGO
    state.election_deadline = now + replica.draw_delay()


def on_mistaken_reply(replica: Replica, state: RoleState, message: HeartbeatReply, now: Millis) -> None:
    """Somebody follows this replica, which has led this term and does not any more.

    If it has not led this term, the reply is this term's leader's, to an old heartbeat that came late: it must not be detached.
    """
    if replica.led_term == replica.term:
        replica.messages.append(Detach(replica.me, message.source, message.term))
