"""Which life of a node a message is from and for, where that is in doubt; and replicas that are in the group no more.

A removed replica need not have heard of its removal: nobody sends it entries any more. So whoever knows of it tells it (`Removed`) when it
asks for votes or believes to lead, and looks at nothing else in the message, its term included (dissertation 4.2.3). Told is only what
is committed: a removal that may be rolled back must not silence a voter. And nobody is told by a member that may lag behind the entry
that has added the other one: replica numbers say which is older.

A replica that is out of the group (`Replica.is_out`) goes by nothing that is meant for its number, and asks for nothing. It comes back
when a leader calls it by a higher one: the node was added again. What it promised before is kept, because its disk is; but nobody counts it
for the new number. The number is durable before anything is promised under it.
"""

from __future__ import annotations

from typing import Any, Final

from .._types import NOTHING, Member, Millis
from ._configuration import Configuration
from ._messages import AppendEntries, Attach, Detach, Heartbeat, InstallSnapshot, PreVote, Removed, RequestVote
from ._replica import Replica
from ._role_changes import become_follower
from ._roles import RoleState

FROM_LEADERS: Final[frozenset[type]] = frozenset({AppendEntries, Heartbeat, Attach, InstallSnapshot})
FOR_VOTES: Final[frozenset[type]] = frozenset({PreVote, RequestVote})


def admits_members(replica: Replica, message: Any, kind: type, now: Millis) -> bool:
    """Look at source and target of a message; return whether to look at its term, and count it if not."""
    source, target = message.source, message.target
    if source.node_id == replica.me.node_id or target.node_id != replica.me.node_id:
        replica.drop("wrong target")
        return False
    if _is_of_other_group(replica, message, kind):
        # NB: not even a refusal: that would carry a term from one group into the other.
        replica.drop("other genesis")
        return False
    is_superseded = kind is not Removed and replica.is_superseded(source)
    # NB: whatever life of this node it means, and whether that is over: everybody that it knows may have another one by now, or none.
    asks = is_superseded or kind in FROM_LEADERS or kind in FOR_VOTES
    if asks and not replica.is_counted(source) and _is_known_removed(replica, source):
        replica.send(Removed(replica.me, source, replica.term, _committed(replica).index))
        replica.drop("removed source")
        return False
    if target != replica.me and not _is_called_anew(replica, source, target, kind, now):
        replica.drop("wrong target")
        return False
    if replica.is_out:
        replica.drop("removed")
        return False
    if is_superseded:
        replica.drop("former replica")
        return False
    return True


def _is_of_other_group(replica: Replica, message: Any, kind: type) -> bool:
    """Two groups of one name were begun by other members: they must never be one."""
    genesis = replica.genesis
    if not genesis:
        return False
    if kind in FOR_VOTES and message.genesis not in (0, genesis):
        return True
    source: Member = message.source
    return source.replica == NOTHING and source.node_id not in replica.founders


def _is_called_anew(replica: Replica, leader: Member, target: Member, kind: type, now: Millis) -> bool:
    """A message is for another number than this replica's: a leader that calls it by a higher one has added it again.

    A replica that believes to be a member does not take that for granted, lest it be drawn into another group: it asks, and is told.
    """
    if kind not in FROM_LEADERS or target.replica <= replica.me.replica:
        return False
    if not replica.has_place:
        _adopt_number(replica, target, now)
        return True
    replica.send(PreVote(replica.me, leader, replica.term + 1, replica.log.last, replica.genesis))
    if kind is Attach:
        # NB: the pulse has said it, and says it once: it must be said again when this replica has the number.
        replica.messages.append(Detach(replica.me, leader, replica.term))
    return False


def _adopt_number(replica: Replica, me: Member, now: Millis) -> None:
    """Go by a higher number from here on; whatever is promised under it waits until it is durable."""
    become_follower(replica, replica.term, None, now)
    replica.me = replica.me_unwritten = me
    replica.awaits_number = replica.was_told_removed = False
    replica.look_for_place()


def _is_known_removed(replica: Replica, source: Member) -> bool:
    """Whether this life of a node ended at or before the newest configuration that is committed here, or can never begin."""
    known, log = _committed(replica), replica.log
    # NB: the entry of a life need not be behind another's to be lost: none of an older term can follow what is committed in a newer one.
    is_decided = source.replica.index <= known.index or source.replica.term < log.term_at(log.commit_index)
    # The first configuration has removed nobody.
    return is_decided and known.index != 0 and known.replicas.get(source.node_id) != source.replica


def tell_removed(replica: Replica) -> None:
    """The newest configuration has just been committed: tell those whom it has removed.

    Once. A voter that misses it asks for votes, and is told then; a learner that does has nothing to ask for, and waits as it is.
    """
    history = replica.log.configurations
    members = history.newest.replicas
    for node_id, number in history.at(history.newest_index - 1).replicas.items():
        if members.get(node_id) != number and node_id != replica.me.node_id:
            replica.send(Removed(replica.me, Member(node_id, number), replica.term, history.newest.index))


def _committed(replica: Replica) -> Configuration:
    return replica.log.configurations.at(replica.log.commit_index)


def on_removed(replica: Replica, state: RoleState, message: Removed, now: Millis) -> None:
    """Step down, whatever the role, and ask for nothing more. That is not durable: it will be told again."""
    if message.index < replica.me.replica.index and message.term <= replica.me.replica.term:
        replica.drop("malformed")
        return
    replica.was_told_removed = True
    replica.look_for_place()
    become_follower(replica, replica.term, None, now)
