"""How a leader changes who is in the group: one step at a time, each an entry of the log (`_confchange` says which).

Nobody votes before it holds what it votes on, or a member that never comes would take the group's quorum with it (dissertation 4.2.1).
So a change may take several steps, of which the leader takes each when the one before is committed:

1. nodes that shall vote and are no members become learners; all else stays;
2. when whoever shall vote has caught up, the target; or, if more than one voter differs, the joint configuration that leads there;
3. joint is left for the target, by the next leader too (`leave_committed_joint`).

Between the steps there is a `Change` in the leader's state. It is refused half-way if a node that shall vote is silent for
10 E; while that is there, catching up may take as long as it takes. What nobody waits for is not waited for: learners and removals.
"""

from __future__ import annotations

from operator import itemgetter

from .._errors import ChangeRefusedError, RaftError, TransferRefusedError
from .._types import NEVER, EntryId, Millis
from ._confchange import Target, leave_joint, next_configuration, simple
from ._configuration import Configuration
from ._configuration_bytes import encode_configuration
from ._entry import Entry, EntryKind
from ._events import ChangeMembers
from ._messages import Attach, Detach
from ._replica import Replica
from ._resending import is_streaming
from ._role_changes import become_follower, new_view
from ._roles import Change, Leader, MemberView
from ._transfer import best_voter, call_election

_PATIENCE = 10
"""Election timeouts after which a node that shall vote, and has not been heard, is not waited for any longer."""


def on_change_members(replica: Replica, state: Leader, event: ChangeMembers, now: Millis) -> None:
    """Take the first step, or refuse: then nothing is in the log."""
    target, configuration = event.target, replica.configuration
    try:
        _check_ready(replica, state, event)
        # Whatever the way there: an impossible target is refused before the first step.
        next_configuration(configuration, target, _next_entry(replica))
        for node_id in sorted(target.voters & configuration.learners):
            if (error := _hindrance(replica, state.members[node_id], now)) is not None:
                raise error
    except RaftError as error:
        replica.refused.append((event.token, error))
        return
    if target == Target.of(configuration):
        replica.answered.append((event.token, configuration.index))
        return
    change = state.change = Change(event.token, target)
    strangers = target.voters - {*configuration.members()}
    if strangers:
        learning = Target(configuration.voters, configuration.learners | strangers)
        append_configuration(replica, state, simple(configuration, learning, _next_entry(replica)), now)
    else:
        _go_towards_target(replica, state, change, now)


def _check_ready(replica: Replica, state: Leader, event: ChangeMembers) -> None:
    log, configuration = replica.log, replica.configuration
    if event.expect not in (None, configuration.index):
        text = f"the configuration is that of entry {configuration.index}, not {event.expect}: {configuration}"
        raise ChangeRefusedError("stale_expect", text)
    if state.change is not None:
        raise ChangeRefusedError("change_pending", f"the members are changing to {state.change.target}: ask again")
    if configuration.is_joint:
        raise ChangeRefusedError("joint_in_progress", f"the change before has yet to leave {configuration}: ask again")
    if log.term_at(log.commit_index) != replica.term:
        # Else two leaders could each change a configuration that the other does not know of (raft-dev, July 2015).
        raise ChangeRefusedError("term_not_begun", f"nothing of term {replica.term} is committed yet: ask again")
    if state.transfer is not None:
        raise ChangeRefusedError("change_pending", f"leadership is being handed over to node {state.transfer.target}: ask again")
    pending = log.configurations.newest_index
    if pending > log.commit_index:
        raise ChangeRefusedError("change_pending", f"the change before, entry {pending}, is not committed yet: ask again")


def _hindrance(replica: Replica, view: MemberView, now: Millis) -> ChangeRefusedError | None:
    """Say why a learner cannot vote yet; None: it can."""
    if _heard_until(replica, view, replica.timing.election_timeout, now) <= now:
        return _silent(view)
    match, last = view.progress.match, replica.log.last_index
    # Whoever has acknowledged nothing in this term may not be there at all, however short the log.
    if match == 0 or match + replica.config.promotion_lag_max < last:
        text = f"node {view.member.node_id} holds {match} of {last} entries: it stays a learner; ask again when it has caught up"
        return ChangeRefusedError("learner_behind", text)
    return None


def _silent(view: MemberView) -> ChangeRefusedError:
    text = f"node {view.member.node_id} does not answer; is it up, and was the group added there? It stays a learner: ask again then"
    return ChangeRefusedError("learner_silent", text)


def _heard_until(replica: Replica, view: MemberView, patience: Millis, now: Millis) -> Millis:
    """Until when a member counts as there, if it says nothing more and nothing else speaks for it.

    A live node speaks for a member that has answered before; a stream that is under way will end, and tell.
    """
    is_spoken_for = view.progress.match > 0 and not view.is_detached and now < replica.live_until(view.member.node_id)
    return (now if is_spoken_for or is_streaming(replica, view) else view.contact) + patience


# Steps


def continue_change(replica: Replica, state: Leader, now: Millis) -> None:
    """Something was committed or heard, or it is time to look: take the next step of a change, if that can be taken now."""
    change = state.change
    if change is None or replica.configuration.is_joint or replica.log.configurations.newest_index > replica.log.commit_index:
        return
    views = [state.members[node_id] for node_id in sorted(change.target.voters - replica.configuration.voters)]
    if not any(_hindrance(replica, view, now) for view in views):
        _go_towards_target(replica, state, change, now)
        return
    patience = _PATIENCE * replica.timing.election_timeout
    change.deadline, view = min(((_heard_until(replica, view, patience, now), view) for view in views), key=itemgetter(0))
    state.wake_at(change.deadline)
    if now >= change.deadline:
        state.change = None
        replica.refused.append((change.token, _silent(view)))


def _go_towards_target(replica: Replica, state: Leader, change: Change, now: Millis) -> None:
    change.deadline = NEVER
    at = _next_entry(replica)
    configuration = next_configuration(replica.configuration, change.target, at)
    append_configuration(replica, state, configuration, now)
    if not configuration.is_joint:
        _reached(replica, state, at)


def leave_committed_joint(replica: Replica, state: Leader, now: Millis) -> None:
    """Something was committed: if that was a joint configuration, the outgoing half has done its part."""
    if replica.log.configurations.newest_index <= replica.log.commit_index:
        at = _next_entry(replica)
        append_configuration(replica, state, leave_joint(replica.configuration, at), now)
        _reached(replica, state, at)


def _reached(replica: Replica, state: Leader, at: EntryId) -> None:
    """The target is in the log. A joint configuration that the leader has found there is left for nobody."""
    if state.change is not None:
        replica.accepted.append((state.change.token, at))
        state.change = None


def step_aside(replica: Replica, state: Leader, now: Millis) -> None:
    """This replica had to lead until it was committed that it does not vote (dissertation 4.2.2); that need not cost a timeout."""
    best = best_voter(replica, state, now)
    if best is not None:
        # NB: before its members are told that it leads no more: who has heard that does not go by its word.
        call_election(replica, state, best)
    become_follower(replica, replica.term, None, now)


def _next_entry(replica: Replica) -> EntryId:
    return EntryId(replica.term, replica.log.last_index + 1)


def append_configuration(replica: Replica, state: Leader, configuration: Configuration, now: Millis) -> None:
    """Put a configuration in force."""
    at = _next_entry(replica)
    replica.log.append(Entry(at.index, at.term, EntryKind.CONFIGURATION, encode_configuration(configuration)))
    replica.adopt_configuration()
    _adopt_members(replica, state, now)


def _adopt_members(replica: Replica, state: Leader, now: Millis) -> None:
    before, state.members = state.members, {}
    for member in replica.other_members():
        view = before.pop(member.node_id, None)
        if view is None or view.member != member:
            # It has an election timeout to be heard, before it is missed for the quorum.
            view = new_view(replica, member, now)
            state.match[member.node_id] = 0
            replica.send(Attach(replica.me, member, replica.term))
        state.members[member.node_id] = view
    for node_id, view in before.items():
        del state.match[node_id]
        replica.send(Detach(replica.me, view.member, replica.term))
    state.quorum_until = state.due = 0
    state.wants_append = True
    # The quorum that gave it may be none any more.
    state.lease_until = 0
    if state.transfer is not None and state.transfer.target not in replica.configuration.voters:
        text = f"node {state.transfer.target} was removed or demoted meanwhile"
        replica.refused.append((state.transfer.token, TransferRefusedError("no_voter", text)))
        state.transfer = None
