"""Reads that see everything acknowledged before them (dissertation 6.4), and leases (6.4.1).

A leader may have been replaced without knowing. So before it answers a read it asks the voters, in a *round* of heartbeats, whether it
leads: whoever answers was in no later term when it was asked. What a quorum confirms is that nobody else had led and committed
anything before the round was sent, so:

- a round answers only reads that came before it was sent; the others wait for the next one, all of them together;
- its number is used by no other round, or a late answer to an older one would confirm a leader that has been replaced since;
- its index is the leader's commit index, which is the group's only once an entry of the leader's own term is committed: until then
  reads wait;
- what is a quorum is a matter of the configuration in force when the answers are counted, both halves of a joint one. A sole voter is
  its own quorum.

There is one round in flight. It is sent again to those that are there and have not answered, until a quorum has, or the leader finds
that it has lost its quorum.

A *lease* is the time for which such an answer holds: whoever gave it helps nobody else to lead for E, counted from when it was asked.
The leader counts from when it sent the round, which was earlier, and somewhat less, because clocks differ. A lease ends with the role
and with the configuration that gave it. It does not count while leadership is being handed over, and there is none in a term in which
somebody was told to campaign: votes for that are given whatever was promised, and may be asked for late.
"""

from __future__ import annotations

from .._errors import BusyError, NotLeaderError
from .._types import NEVER, Millis
from ._events import Read
from ._messages import HeartbeatReply
from ._quorum import joint_index
from ._replica import Replica
from ._resending import is_live, send_commit
from ._roles import Leader, MemberView, ReadRound, RoleState

# Reads that wait for the next round; as many may be in the one in flight.
READS_MAX = 65536


def on_read(replica: Replica, state: Leader, event: Read, now: Millis) -> None:
    room = READS_MAX - len(state.reads)
    state.reads += event.tokens[:room]
    replica.refused += [(token, BusyError(f"{READS_MAX} reads of this group are waiting")) for token in event.tokens[room:]]
    if _has_begun(replica):
        want_round(state)


def refuse_read(replica: Replica, state: RoleState, event: Read, now: Millis) -> None:
    replica.refused += [(token, NotLeaderError(replica.leader)) for token in event.tokens]


def _has_begun(replica: Replica) -> bool:
    """Whether the commit index is known to be the group's: an entry of the present term is committed."""
    return replica.log.term_at(replica.log.commit_index) == replica.term


def want_round(state: Leader) -> None:
    """Begin a round with the next Ready, if there are reads for it and none is in flight."""
    state.wants_round = state.round is None and bool(state.reads)


def begin_round(replica: Replica, state: Leader, now: Millis) -> None:
    """Ask for all reads that have come so far."""
    replica.rounds += 1
    state.round = ReadRound(replica.rounds, replica.log.commit_index, now, now, state.reads)
    state.reads = []
    state.wants_round = False
    _ask(replica, state, state.round, now)


def check_round(replica: Replica, state: Leader, now: Millis) -> None:
    """Ask once more whoever has not answered."""
    if state.round is not None and now >= state.round.resend_at:
        _ask(replica, state, state.round, now)


def _ask(replica: Replica, state: Leader, current: ReadRound, now: Millis) -> None:
    # NB: the configuration may be another one than when the last answer came, and need no more answers.
    if _confirm(replica, state, current):
        return
    for node_id, view in state.members.items():
        if replica.configuration.is_voter(node_id) and view.round_heard < current.number and is_live(replica, view, now):
            send_commit(replica, view, current.number)
    current.resend_at = now + replica.timing.heartbeat_interval
    state.wake_at(current.resend_at)


def on_answer(replica: Replica, state: Leader, view: MemberView, message: HeartbeatReply) -> None:
    """A member has answered a round; if that was the one in flight, it may be confirmed."""
    if message.round > replica.rounds:
        replica.drop("impossible round")
        return
    view.round_heard = max(view.round_heard, message.round)
    if state.round is not None:
        _confirm(replica, state, state.round)


def _confirm(replica: Replica, state: Leader, current: ReadRound) -> bool:
    """Answer the reads of the round in flight, if a quorum has answered it; return whether it has."""
    heard = {node_id: view.round_heard for node_id, view in state.members.items()}
    heard[replica.me.node_id] = current.number
    if joint_index(replica.configuration, heard) < current.number:
        return False
    replica.answered += [(token, current.index) for token in current.reads]
    state.round = None
    state.lease_until = current.sent_at + replica.timing.election_timeout * (100 - replica.config.lease_drift_percent) // 100
    want_round(state)
    return True


def lease_until(replica: Replica, state: Leader) -> Millis:
    """Until when nobody else can lead, by this node's clock; 0: that is not known, `NEVER`: a sole voter knows for good."""
    if not replica.config.lease_reads or state.transfer is not None or state.has_called_election:
        return 0
    if replica.is_sole_voter:
        return NEVER if _has_begun(replica) else 0
    return state.lease_until
