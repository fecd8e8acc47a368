"""How a leader changes who is in the group: one step at a time, each an entry of the log (`_confchange` says which).

Not built yet: the way a user asks for it, learners that are promoted when they have caught up, members that learn of their removal.
"""

from __future__ import annotations

from .._errors import RaftError
from .._types import EntryId, Millis
from ._confchange import ChangeRefusedError, leave_joint, next_configuration
from ._configuration import Configuration
from ._configuration_bytes import encode_configuration
from ._entry import Entry, EntryKind
from ._events import ChangeMembers
from ._replica import Replica
from ._roles import Leader


def on_change_members(replica: Replica, state: Leader, event: ChangeMembers, now: Millis) -> None:
    target, at = event.target, EntryId(replica.term, replica.log.last_index + 1)
    try:
        _check_ready(replica)
        configuration = next_configuration(replica.configuration, target.voters, target.learners, at)
    except RaftError as error:
        replica.refused.append((event.token, error))
        return
    _append(replica, configuration, now)
    replica.accepted.append((event.token, at))


def _check_ready(replica: Replica) -> None:
    log = replica.log
    if log.term_at(log.commit_index) != replica.term:
        # Else two leaders could each change a configuration that the other does not know of (raft-dev, July 2015).
        raise ChangeRefusedError("term_not_begun", f"nothing of term {replica.term} is committed yet: ask again")
    pending = log.configurations.newest_index
    if pending > log.commit_index:
        raise ChangeRefusedError("change_pending", f"the change before, entry {pending}, is not committed yet: ask again")


def leave_committed_joint(replica: Replica, state: Leader, now: Millis) -> None:
    """Something was committed: if that was a joint configuration, the outgoing half has done its part."""
    if replica.log.configurations.newest_index <= replica.log.commit_index:
        _append(replica, leave_joint(replica.configuration), now)


def _append(replica: Replica, configuration: Configuration, now: Millis) -> None:
    log = replica.log
    log.append(Entry(log.last_index + 1, replica.term, EntryKind.CONFIGURATION, encode_configuration(configuration)))
    replica.adopt_configuration(now)
