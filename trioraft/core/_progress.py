"""What a leader knows of one follower, and what it may send next.

=============  ====================================================  ==============================================
state          the leader believes                                   it may send
=============  ====================================================  ==============================================
``PROBE``      nothing about where the two logs part                 one append, then it waits for the answer
``REPLICATE``  that the logs agree up to ``next - 1``                appends without waiting, as the window allows
``SNAPSHOT``   that the follower needs what is no longer in the log  no append, until the snapshot is there or lost
=============  ====================================================  ==============================================

Moves between the states are the leader's: an answer that proves agreement makes a probing follower `REPLICATE`, a genuine
rejection makes it `PROBE` again, and so does a report that messages were lost. A follower whose next entry has been cut off
becomes `SNAPSHOT`; it leaves that with the first answer from which the log leads on, or as `PROBE`: behind the snapshot if that
has arrived and no answer comes, from `match` if the stream has failed.

NB: while probing, an answer need bring no news to prove agreement: with ``match == next - 1`` it acknowledges what was known.
The leader goes by ``reply.match >= match`` there, not by what `acknowledge` returned.

These hold at all times: ``match < next``; ``match`` never falls, because what was acknowledged is durable there; the window is
empty unless `REPLICATE`; ``waiting`` is false unless `PROBE`; ``pending_snapshot`` is 0 unless `SNAPSHOT`.
"""

from __future__ import annotations

from enum import Enum

import attrs

from .._errors import InvariantError
from .._types import Index
from ._window import Window


class ProgressState(Enum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


@attrs.define(init=False)
class Progress:
    """A leader's view of one follower; begins as `PROBE` with nothing known to match."""

    next: Index
    """The first index of the next append."""

    window: Window
    """The appends in flight."""

    state: ProgressState = ProgressState.PROBE

    match: Index = 0
    """The follower's log is known to equal the leader's up to here, durably."""

    waiting: bool = False
    """`PROBE`: a probe is out, and no answer has come. Whoever repeats it clears this first (`resend`)."""

    pending_snapshot: Index = 0
    """`SNAPSHOT`: the index of the snapshot on its way."""

    def __init__(self, *, next: Index, window_messages: int, window_bytes: int) -> None:  # noqa: A002 - the paper's word
        """Begin to probe a follower of whom nothing is known.

        Args:
            next: where the first probe starts; the leader's last index plus one.
            window_messages: how many appends may be in flight.
            window_bytes: how many bytes may be in flight; the last append may overshoot them. 0: no bound.
        """
        if next < 1:
            raise InvariantError(f"the next index is {next}, but a log starts at 1")
        self.__attrs_init__(next=next, window=Window(window_messages, window_bytes))

    @property
    def is_paused(self) -> bool:
        """True while no append with entries may be sent."""
        if self.state is ProgressState.REPLICATE:
            return self.window.is_full
        return self.waiting or self.state is ProgressState.SNAPSHOT

    def sent(self, last_index: Index, size: int) -> None:
        """Note an append of `size` payload bytes that ends at `last_index`.

        `REPLICATE`: `next` moves on at once, in the hope that it arrives (dissertation 10.2.1); an append without entries counts for
        nothing. `PROBE`: `next` stays, and the answer is waited for, with or without entries.

        Raises:
            InvariantError: the follower is paused.
        """
        if self.state is ProgressState.REPLICATE:
            if last_index >= self.next:
                self.window.add(last_index, size)
                self.next = last_index + 1
        elif self.is_paused:
            raise InvariantError(f"an append up to {last_index} to a follower that is paused ({self.state.value})")
        else:
            self.waiting = True

    def acknowledge(self, index: Index) -> bool:
        """Take in that the follower holds everything up to `index`; return whether that is news.

        No news changes nothing: a late answer of an earlier append must not look like the answer to the probe that is out.
        """
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.waiting = False
        self.window.free_to(index)
        return True

    def reject(self, rejected: Index, hint_index: Index) -> bool:
        """Take in that the follower's log does not match at `rejected`; return whether that is genuine, and so `next` moved.

        Not genuine, and ignored: the late answer to an append that has been overtaken. What a follower once acknowledged it cannot
        take back, so nothing at or below `match` is genuine; nor is what no append since the last change of state can have asked.

        Args:
            rejected: the index of the ``previous`` that did not match.
            hint_index: the largest index at which the two logs may still agree, as far as the follower can tell.
        """
        if rejected <= self.match or rejected >= self.next:
            return False
        if self.state is ProgressState.REPLICATE:
            # `match` is the one safe place: any of the appends behind it may be the one that was lost.
            self.next = self.match + 1
            return True
        if self.state is ProgressState.SNAPSHOT or rejected != self.next - 1:
            return False
        # Never above what was rejected, whatever the hint says: a probe must get somewhere.
        self.next = max(min(rejected, hint_index + 1), self.match + 1)
        self.waiting = False
        return True

    def resend(self) -> None:
        """Allow one more probe although none was answered: the last one, or its answer, may be lost."""
        self.waiting = False

    def become_probe(self) -> None:
        """Trust nothing that was sent since `match`; after a snapshot, go on behind it."""
        self._enter(ProgressState.PROBE, max(self.match, self.pending_snapshot) + 1)

    def become_replicate(self) -> None:
        """The logs agree up to `match`: send without waiting from there on."""
        self._enter(ProgressState.REPLICATE, self.match + 1)

    def become_snapshot(self, index: Index) -> None:
        """A snapshot at `index` is on its way: no appends until it is there.

        Raises:
            InvariantError: the follower holds everything up to `index` already.
        """
        if index <= self.match:
            raise InvariantError(f"a snapshot at {index} for a follower that matches up to {self.match}")
        self._enter(ProgressState.SNAPSHOT, index + 1)
        self.pending_snapshot = index

    def snapshot_arrived(self, index: Index) -> None:
        """The follower has a whole snapshot, maybe a newer one than was meant, and has yet to say what it holds."""
        self.pending_snapshot = max(self.pending_snapshot, index)
        self.next = self.pending_snapshot + 1

    def snapshot_failed(self) -> None:
        """The snapshot did not arrive: probe from `match` again, but not before `resend`, or a failing stream would spin."""
        self.pending_snapshot = 0
        self.become_probe()
        self.waiting = True

    def _enter(self, state: ProgressState, next_index: Index) -> None:
        self.state = state
        self.next = next_index
        self.waiting = False
        self.pending_snapshot = 0
        self.window.reset()
