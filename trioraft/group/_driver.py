"""The driver: one task that carries a group's events into the core, and what comes out to disk, peers, machine and callers.

A turn is one synchronous stretch, so it needs no lock: drain the inbox, step all, take *one* Ready, hand one write to the log and one
batch to each sender. It never waits for the disk: the log answers with a completion, which is an event like any other.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from .._errors import NotLeaderError, StorageError
from .._types import GroupKey
from ..core import Applied, EntriesLoaded, Event, InstallSnapshot, LoadEntries, Persisted, Raft, Read, Ready, Request, RoleChange
from ..storage import LogStorage
from ..wire import seal
from ._applier import Applier
from ._gate import WriteGate
from ._host import Host
from ._inbox import Inbox
from ._proposals import Proposals
from ._snapshots import Snapshots


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
        snapshots: Snapshots,
        host: Host,
        on_role_change: Callable[[RoleChange], None],
    ) -> None:
        self._key, self._core = key, core
        self._inbox, self._log, self._host = inbox, log, host
        self._applier, self._proposals, self._snapshots = applier, proposals, snapshots
        self._on_role_change = on_role_change
        self._gate = WriteGate()
        self._taken: list[Event] = []
        self._memory = 0
        self._configuration = core.configuration

    async def run(self, nursery: trio.Nursery) -> None:
        """Turn after turn, until cancelled or until safety, disk or machine forbid to go on.

        Args:
            nursery: for what takes time: reads, machines and snapshots in threads. It ends with the driver.

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
            if type(event) is InstallSnapshot:
                self._snapshots.stepped(event)
        self._taken = []  # the core knows whoever asked
        if core.has_ready:
            self._carry_out(core.take_ready(host.next_sequence()), nursery)
        self._applier.work(nursery)
        if self._applier.applied_index > core.applied_index:
            core.step(Applied(self._applier.applied_index), now)
        self._snapshots.work(nursery)
        if (self._proposals or self._applier.waiting) and core.is_removed:
            # Nobody sends it the log any more: what is not committed here may be, elsewhere.
            reason = f"this replica of group {self._key.group_id} was removed from the group meanwhile"
            self._proposals.abandon_from(core.commit_index + 1, reason)
            self._applier.abandon_from(core.commit_index + 1, NotLeaderError(None))
        if core.configuration is not self._configuration:
            self._configuration = core.configuration
            host.watch(self._key.group_id, core.watched())
        if core.memory_bytes != self._memory:
            self._memory = core.memory_bytes
            host.set_log_memory(self._key.group_id, self._memory)
        if core.has_ready:
            self._inbox.run_again()

    def close(self, error: Exception) -> None:
        """There will be no other turn. Whoever asked in one that failed half-way learns that nobody knows how far it came."""
        asked = [event.token for event in self._taken if isinstance(event, Request)]
        readers = [token for event in self._taken if isinstance(event, Read) for token in event.tokens]
        # NB: the core may know some of them already, and each is told once.
        for token in {id(token): token for token in [*asked, *readers, *self._core.waiting()]}.values():
            token.fail(error)

    def _carry_out(self, ready: Ready, nursery: trio.Nursery) -> None:
        self._answer(ready)
        if ready.writes:
            for entry in ready.entries:
                if not entry.record:
                    seal(self._key, entry)
            self._log.write(ready.sequence, ready.hard_state, ready.entries, ready.install, ready.me)
            self._gate.wrote(ready.sequence)
        if ready.messages:
            self._host.send(self._key, ready.messages)
        if ready.after_write:
            self._host.send(self._key, self._gate.hold(ready.after_write))
        if ready.restore is not None:
            self._applier.restore(ready.restore)
        if ready.committed:
            self._applier.add(ready.committed)
        if ready.compaction is not None:
            self._log.compact(ready.compaction)
        for load in ready.loads:
            nursery.start_soon(self._load, load)
        for request in ready.send_snapshots:
            self._snapshots.send(nursery, request)
        if ready.install is not None:
            self._snapshots.installed(ready.install)
        if ready.role_change is not None:
            self._on_role_change(ready.role_change)

    def _answer(self, ready: Ready) -> None:
        for token, at in ready.accepted:
            self._proposals.add(at, token)
        for token, value in ready.answered:
            token.succeed(value)
        for token, error in ready.refused:
            token.fail(error)

    async def _load(self, load: LoadEntries) -> None:
        try:
            entries = await self._log.read(load)
        except StorageError as error:
            self._inbox.storage_failed(error)
        else:
            self._host.counters.entries_loaded += len(entries)
            self._inbox.put_completion(EntriesLoaded(load, entries))
