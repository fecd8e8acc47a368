"""The pulse between two nodes: one small message an interval, for all groups that the two share.

How it works:

- Each pulse carries a sequence number and echoes the last one heard from the other side. A peer is *live* until E after **we sent** the
  pulse that it last echoed: so a pulse that lay in a buffer for seconds proves nothing, and a peer that does not hear us is not live.
- A peer whose oldest unfinished sync is as old as E, or whose log is poisoned, is not live, however well it talks.
- Groups put *lines* on the pulse: attach, detach, refused. Each line rides on every pulse until one that carried it is acknowledged
  (echoed), so a pulse holds exactly the changes since `base`, the last acknowledged one. A quiet pair of nodes exchanges no lines.
- A new process of the sender voids its earlier lines: the receiver detaches all of them. A new process of the receiver knows no lines:
  the sender puts all its standing ones (attach) on again. A receiver that misses something forgets everything and echoes 0.

Pure: no clock and no I/O, so that the simulator runs this very code.
"""

from __future__ import annotations

from collections import deque

import attrs

from .._errors import ConfigError
from .._types import GroupKey, Millis
from ..core import Timing
from ..wire import PULSE_LINES_MAX, Pulse, PulseKind, PulseLine

REFUSALS_MAX = 1 << 16
"""Lines that may wait while further answers to unknown groups are added: a peer may name any number of groups."""

SENT_KEPT = 64
"""Our last pulses whose sending time is remembered: more than fit into E at any sensible interval."""


class PulseLink:
    """One node's end of the pulse with one peer."""

    def __init__(self, incarnation: int, timing: Timing) -> None:
        if incarnation < 1:
            raise ConfigError(f"a process incarnation counts from 1, not {incarnation}")
        self._incarnation = incarnation
        self._timing = timing
        self.live_until: Millis = 0
        """The peer counts as live before this point in time."""
        self.peer_incarnation = 0
        """The newest process of the peer that was heard of; 0: none."""
        self.round_trip: Millis = 0
        """Between sending a pulse and hearing its echo, of the last one; includes up to one interval of waiting at the peer."""
        self._sequence = 0
        self._heard = 0
        self._acknowledged = 0
        self._sent: deque[tuple[int, Millis]] = deque(maxlen=SENT_KEPT)
        self._standing: dict[GroupKey, PulseLine] = {}
        self._changes: dict[GroupKey, tuple[PulseLine, int]] = {}  # line, the first pulse that carried it (0: none yet)
        self._told: dict[GroupKey, PulseLine] = {}  # the peer's last line of each group
        # Of those, what we may have left since: the peer's next line is news, even if it is the same as before. Or what we took back was an
        # earlier leadership of our own: so a new process of the peer ends these, too.
        self._left: set[GroupKey] = set()

    # --- outwards ---------------------------------------------------------------------------------------------------------------------

    def put(self, line: PulseLine) -> None:
        """Say `line` from now on, instead of anything said about its group before."""
        if line.kind is PulseKind.ATTACH:
            self._standing[line.group] = line
        else:
            self._standing.pop(line.group, None)
            if line.group in self._told:
                self._left.add(line.group)
        self._changes.pop(line.group, None)
        self._changes[line.group] = (line, 0)

    def refuse(self, line: PulseLine) -> None:
        """Answer an attach of the peer with a detach of ours; bounded, because a peer may name any number of groups."""
        self.forget(line)
        if len(self._changes) < REFUSALS_MAX:
            self.put(PulseLine(PulseKind.DETACH, line.group, line.term, line.target_replica, line.source_replica))

    def forget(self, line: PulseLine) -> None:
        """The peer told of a group that is not here: there is nothing to compare its next line with."""
        self._told.pop(line.group, None)
        self._left.discard(line.group)

    def leave(self, group: GroupKey) -> None:
        """The group is gone here: whoever leads or follows it at the peer must not count on us."""
        told = self._told.pop(group, None)
        self._left.discard(group)
        if (standing := self._standing.get(group)) is not None:
            self.put(attrs.evolve(standing, kind=PulseKind.DETACH))
        elif told is not None and told.kind is PulseKind.ATTACH:
            self.put(PulseLine(PulseKind.DETACH, group, told.term, told.target_replica, told.source_replica))

    @property
    def has_news(self) -> bool:
        """Something was said that the peer has not acknowledged."""
        return bool(self._changes)

    def next_pulse(self, now: Millis, sync_age: Millis) -> Pulse:
        """Make the next pulse.

        Args:
            sync_age: how long the oldest unfinished write has been with our disk; 0: none; -1: the log is poisoned.
        """
        self._sequence += 1
        self._sent.append((self._sequence, now))
        lines: list[PulseLine] = []
        for group, (line, first) in self._changes.items():
            if len(lines) == PULSE_LINES_MAX:
                break
            lines.append(line)
            if not first:
                self._changes[group] = (line, self._sequence)
        return Pulse(
            incarnation=self._incarnation,
            sequence=self._sequence,
            heard_incarnation=self.peer_incarnation,
            heard=self._heard,
            sync_age=sync_age,
            base=self._acknowledged,
            lines=tuple(lines),
        )

    # --- inwards ----------------------------------------------------------------------------------------------------------------------

    def receive(self, pulse: Pulse, now: Millis) -> list[PulseLine]:
        """Take a pulse of the peer; return the lines that are news, those that its silence implies (detach) included."""
        if pulse.incarnation < self.peer_incarnation:
            return []  # a dead process speaks
        news: list[PulseLine] = []
        if pulse.incarnation > self.peer_incarnation:
            news += self._meet(pulse.incarnation)
        if pulse.sequence <= self._heard:
            return news
        self._take_echo(pulse, now)
        if pulse.base > self._heard:
            # Lines that we never saw are acknowledged: our memory of this peer is not what it thinks. Ask for all of them.
            self._heard = 0
            return news + self._detach_all()
        self._heard = pulse.sequence
        return news + [line for line in pulse.lines if self._is_news(line)]

    def _is_news(self, line: PulseLine) -> bool:
        if self._told.get(line.group) == line and line.group not in self._left:
            return False
        self._left.discard(line.group)
        self._told[line.group] = line
        if line.kind is PulseKind.ATTACH:
            self._unsay_detach(line)
        return True

    def _unsay_detach(self, attach: PulseLine) -> None:
        """We are about to be attached again: a detach up to that term which has not arrived yet would be believed after this."""
        said, _ = self._changes.get(attach.group, (attach, 0))
        if said.kind is PulseKind.DETACH and said.term <= attach.term:
            del self._changes[attach.group]

    def _meet(self, incarnation: int) -> list[PulseLine]:
        """The peer has a new process: it said nothing yet, and knows nothing."""
        self.peer_incarnation = incarnation
        self._heard = 0
        self.live_until = 0
        self._say_all_again()
        return self._detach_all()

    def _say_all_again(self) -> None:
        self._acknowledged = 0
        self._changes = {group: (line, 0) for group, (line, _) in self._changes.items()}
        for group, line in self._standing.items():
            self._changes.setdefault(group, (line, 0))

    def _detach_all(self) -> list[PulseLine]:
        told, self._told = self._told, {}
        self._left.clear()
        return [attrs.evolve(line, kind=PulseKind.DETACH) for line in told.values() if line.kind is PulseKind.ATTACH]

    def _take_echo(self, pulse: Pulse, now: Millis) -> None:
        if pulse.heard_incarnation != self._incarnation:
            return
        if pulse.heard < self._acknowledged:
            self._say_all_again()
            return
        self._acknowledged = pulse.heard
        if self._changes:
            self._changes = {g: (line, first) for g, (line, first) in self._changes.items() if not first or first > pulse.heard}
        sick = pulse.sync_age < 0 or pulse.sync_age >= self._timing.election_timeout
        if sick:
            self.live_until = min(self.live_until, now)
            return
        while self._sent and self._sent[0][0] < pulse.heard:
            self._sent.popleft()
        if self._sent and self._sent[0][0] == pulse.heard:
            sent_at = self._sent[0][1]
            self.round_trip = now - sent_at
            self.live_until = max(self.live_until, sent_at + self._timing.election_timeout)

    def forget_peer(self) -> None:
        """The peer begins anew, with incarnations that count from 1 again. What we sent still counts on: the old one may be the new one."""
        self.peer_incarnation = self._heard = self._acknowledged = 0
        self.live_until = 0
        self._told.clear()
        self._left.clear()

    def is_live(self, now: Millis) -> bool:
        return now < self.live_until
