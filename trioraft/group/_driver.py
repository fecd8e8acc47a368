"""The driver: one task that carries a group's events into the core, and what comes out to disk, peers, machine and callers.

A turn is one synchronous stretch, so it needs no lock: drain the inbox, step all, take *one* Ready, hand one write to the log and one
batch to each sender. It never waits for the disk: the log answers with a completion, which is an event like any other.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from .._types import GroupKey
from ..core import Applied, Event, Persisted, Propose, Raft, Ready, RoleChange
from ..storage import LogStorage
from ..wire import seal
from ._applier import Applier
from ._gate import WriteGate
from ._host import Host
from ._inbox import Inbox
from ._proposals import Proposals


class Driver:
    """Runs one replica."""

    def __init__(
        self,
        key: GroupKey,
        core: Raft,
        *,
        inbox: Inbox,
        log: LogStorage,
        applier: Applier,
        proposals: Proposals,
        host: Host,
        on_role_change: Callable[[RoleChange], None],
    ) -> None:
        self._key, self._core = key, core
        self._inbox, self._log, self._host = inbox, log, host
        self._applier, self._proposals = applier, proposals
        self._on_role_change = on_role_change
        self._gate = WriteGate()
        self._taken: list[Event] = []

    async def run(self, nursery: trio.Nursery) -> None:
        """Turn after turn, until cancelled or until safety, disk or machine forbid to go on.

        Raises:
            InvariantError, StorageError, StateMachineError: this replica must stop.
        """
        while True:
            self._host.set_deadline(self._key.group_id, self._core.deadline)
            await self._inbox.wait()
            self._turn(nursery)

    def _turn(self, nursery: trio.Nursery) -> None:
        host, core = self._host, self._core
        host.counters.turns += 1
        now = host.now()
        self._taken = self._inbox.take()
        for event in self._taken:
            if type(event) is Persisted:
                host.send(self._key, self._gate.durable(event.sequence))
            core.step(event, now)
        if core.has_ready:
            self._carry_out(core.take_ready(host.next_sequence()))
        self._applier.work(nursery)
        if self._applier.applied_index > core.applied_index:
            core.step(Applied(self._applier.applied_index), now)
        if core.has_ready:
            self._inbox.run_again()

    def close(self, error: Exception) -> None:
        """There will be no other turn. Whoever proposed in one that failed half-way learns that nobody knows how far it came."""
        for event in self._taken:
            if isinstance(event, Propose):
                event.token.fail(error)

    def _carry_out(self, ready: Ready) -> None:
        for token, at in ready.accepted:
            self._proposals.add(at, token)
        for token, error in ready.refused:
            token.fail(error)
        self._taken = []  # each of them is answered now, or known to the proposals
        if ready.writes:
            for entry in ready.entries:
                if not entry.record:
                    seal(self._key, entry)
            self._log.write(ready.sequence, ready.hard_state, ready.entries)
            self._gate.wrote(ready.sequence)
        if ready.messages:
            self._host.send(self._key, ready.messages)
        if ready.after_write:
            self._host.send(self._key, self._gate.hold(ready.after_write))
        if ready.committed:
            self._applier.add(ready.committed)
        if ready.role_change is not None:
            self._on_role_change(ready.role_change)
