"""What the members owe a leader, and when it says a thing again.

There is no periodic heartbeat. So everything that others owe the leader has a deadline, `MemberView.resend_at`: an answer to entries,
and word that the commit index has been heard. A member that is not live owes nothing; it is remembered, and served when its node is
up again. When nobody owes anything, the leader has no such deadline at all. `Progress.waiting` holds back the next append to a
member that is being probed. Who calls what, and what becomes of the two (``-``: stays as it is):

===============  ==========================================  ==========================  ===========================================
function         called                                      ``resend_at``               ``waiting``
===============  ==========================================  ==========================  ===========================================
`expect_answer`  when an append or a heartbeat is sent;      now + E/2, unless one runs  -
                 when one has spoken and still owes
`got_answer`     when an acknowledgement is news             NEVER                       -
`nudge`          when ``resend_at`` is reached; when the     by one of the next four     by one of the next four
                 node is up
... or nothing   while a snapshot is on its way to it        NEVER                       -
... or `rest`    if it owes nothing; also after any answer   NEVER                       False
... or `hush`    if it is not live; also when its node goes  NEVER                       True
                 down
... or repeats   otherwise                                   now + E/2                   False for entries; - for the commit index
`probe`          by `nudge`, by `hush`, and when its log     -                           False, unless it was being probed already
                 differs
`retry_soon`     when messages to its node may be lost       now + H, or sooner          True if it was `REPLICATE`; - otherwise
`_transfer`      when leadership shall be handed over to it  now + H, or sooner          -
`_snapshots`     when a snapshot leaves                      NEVER                       - (False)
...              when it has arrived                         as `expect_answer`           - (False)
...              when the stream has failed                  now + H, later up to E      True
===============  ==========================================  ==========================  ===========================================

While a snapshot is on its way (`is_streaming`) nobody else gives the member a deadline, and `hush` and `retry_soon` leave it alone.
`Progress` itself sets ``waiting`` when a probe leaves, and clears it with the answer. `recall`, `call` and `detached` touch neither:
they are about whose pulse speaks for whom, and the offer is repeated by the pulse. Rounds of reads and transfers have deadlines of
their own.
"""

from __future__ import annotations

from .._types import NEVER, Member, Millis
from ._messages import Attach, Heartbeat
from ._progress import ProgressState
from ._replica import Replica
from ._roles import Leader, MemberView

# What is owed


def is_owing(replica: Replica, view: MemberView) -> bool:
    """Whether a member has not said that it has everything and knows the commit index."""
    return view.progress.match < replica.log.last_index or view.commit_known < replica.log.commit_index


def is_live(replica: Replica, view: MemberView, now: Millis) -> bool:
    """Whether a member would hear: it has spoken itself within E, or its node is live."""
    return now < view.contact + replica.timing.election_timeout or now < replica.live_until(view.member.node_id)


def is_streaming(replica: Replica, view: MemberView) -> bool:
    """Whether a snapshot is on its way: its end will be told."""
    return view.member.node_id in replica.streams and view.progress.state is ProgressState.SNAPSHOT


def expect_answer(replica: Replica, state: Leader, view: MemberView, now: Millis) -> None:
    """From now on an answer is waited for, if none is yet."""
    if view.resend_at == NEVER and not (replica.streams and is_streaming(replica, view)):
        view.resend_at = now + replica.timing.election_timeout // 2
        state.wake_at(view.resend_at)


def got_answer(view: MemberView) -> None:
    """What was waited for is here; for what is owed beyond that, the time begins anew."""
    view.resend_at = NEVER


# Saying it again


def nudge(replica: Replica, state: Leader, view: MemberView, now: Millis) -> None:
    """An answer has not come: say one thing again, if the member is there to hear it."""
    view.resend_at = NEVER
    if is_streaming(replica, view):
        return
    if not is_owing(replica, view):
        rest(view)
    elif not is_live(replica, view, now):
        hush(view)
    elif view.progress.match < replica.log.last_index:
        probe(view)
        view.progress.resend()
        state.wants_append = True
        expect_answer(replica, state, view, now)
    else:
        send_heartbeat(replica, state, view, now)


def rest(view: MemberView) -> None:
    """It has everything: no answer is waited for, and the next entry goes out at once."""
    view.resend_at = NEVER
    view.progress.resend()


def hush(view: MemberView) -> None:
    """Say nothing more to a member that is not there, until its node is up or it speaks."""
    probe(view)
    view.progress.waiting = True
    view.resend_at = NEVER
    view.holds_log = False


def probe(view: MemberView) -> None:
    """Go back to one append at a time."""
    # NB: a follower that is being probed keeps its place: from `match` on, a new leader would send it all that it has already.
    if view.progress.state is not ProgressState.PROBE:
        view.progress.become_probe()


def retry_soon(replica: Replica, state: Leader, view: MemberView, now: Millis) -> None:
    """Something may be lost: say it again soon, but not at once, or a full queue would be filled for ever."""
    if view.progress.state is ProgressState.REPLICATE:
        view.progress.become_probe()
        view.progress.waiting = True
    view.resend_at = min(view.resend_at, now + replica.timing.heartbeat_interval)
    state.wake_at(view.resend_at)


def send_heartbeat(replica: Replica, state: Leader, view: MemberView, now: Millis) -> None:
    """Tell a member of the commit index, as far as it is known to have the entries."""
    commit = send_commit(replica, view)
    view.commit_sent = max(view.commit_sent, commit)
    expect_answer(replica, state, view, now)


# Making it follow


def recall(replica: Replica, state: Leader, source: Member) -> None:
    """A member does not follow although it could hear: tell it who leads.

    Not a proof that it will: until it answers, its node's pulse does not speak for it.
    """
    if not replica.is_counted(source):
        return
    view = state.members[source.node_id]
    detached(state, view)
    call(replica, view)


def call(replica: Replica, view: MemberView) -> None:
    """Offer this node's pulse again; the heartbeat makes the member answer."""
    replica.send(Attach(replica.me, view.member, replica.term))
    send_commit(replica, view)


def send_commit(replica: Replica, view: MemberView, number: int = 0) -> int:
    """Send one heartbeat, as part of round `number`, if any; return what it says of the commit index."""
    commit = min(replica.log.commit_index, view.progress.match)
    replica.send(Heartbeat(replica.me, view.member, replica.term, commit, number))
    return commit


def detached(state: Leader, view: MemberView) -> None:
    """Its node's pulse does not speak for it: look at the quorum again."""
    view.is_detached = True
    state.quorum_until = state.due = 0
