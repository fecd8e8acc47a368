"""One Raft group on this node, as its user holds it."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import trio

from .._errors import BusyError, EntryTooLargeError, Fate, GroupStoppedError, NotLeaderError, OutcomeUnknownError, WireError
from .._machine import StateMachine
from .._types import EntryId, GroupId, GroupKey, Index, NodeId, Term
from ..core import GroupConfig, Propose, Raft, Role, RoleChange
from ..observe import GroupFailed, Observable, RoleChanged
from ..storage import GroupRecord, LogStorage, RecoveredGroup
from ..wire import SnapshotPiece, SnapshotReply
from ._applier import Applier
from ._codec import codec_of
from ._driver import Driver
from ._host import Host
from ._inbox import Inbox
from ._proposals import Proposals
from ._receiving import SnapshotReceiver
from ._sending import SnapshotSender
from ._snapshots import Snapshots
from ._start import find_start
from ._status import GroupStatus
from ._taking import SnapshotTaker
from ._waiter import Token, Waiter


class _Leadership(NamedTuple):
    """What those who wait for a leader wait for."""

    leader: NodeId | None
    has_stopped: bool


class RaftGroup:
    """A replica of one group. Made by `MultiRaftManager.add_group`, never by hand."""

    def __init__(
        self, record: GroupRecord, recovered: RecoveredGroup, machine: StateMachine, log: LogStorage, *, config: GroupConfig, host: Host
    ) -> None:
        self.key: Final[GroupKey] = record.key
        self.machine: Final[StateMachine] = machine
        self._record, self._host, self._config = record, host, config
        self.inbox: Final = Inbox(config.inbox_events_max, config.inbox_bytes_max)
        self._codec = codec_of(machine)
        self._proposals = Proposals()
        self._applier = Applier(
            self.key,
            host.node_id,
            machine,
            self._codec,
            self._proposals,
            log.snapshots,
            wake=self.inbox.run_again,
            threads=host.apply_threads,
        )
        start = find_start(record.key, machine, recovered.durable)
        self._applier.begin(start.applied, start.restore)
        self._core = Raft(
            record.me,
            record.configuration,
            recovered.durable,
            applied=start.applied,
            config=config,
            timing=host.timing,
            random=host.random,
            liveness=host.liveness,
            now=host.now(),
        )
        self._snapshots = Snapshots(
            SnapshotTaker(record.key, machine, self._core, self._applier, log.snapshots, config, host, self.inbox),
            SnapshotSender(record.key, log.snapshots, self._core, host, self.inbox),
            SnapshotReceiver(record.key, log.snapshots, self._core, host, self.inbox),
        )
        self._driver = Driver(
            record.key,
            self._core,
            inbox=self.inbox,
            log=log,
            applier=self._applier,
            proposals=self._proposals,
            snapshots=self._snapshots,
            host=host,
            on_role_change=self._role_changed,
        )
        self._leadership: Observable[_Leadership] = Observable(_Leadership(None, False))
        self._failure: BaseException | None = None
        log.attach(self.inbox)

    # --- what users call --------------------------------------------------------------------------------------------------------------

    @property
    def id(self) -> GroupId:
        return self.key.group_id

    @property
    def leader(self) -> NodeId | None:
        """The node that leads, as far as this replica knows."""
        return self._leadership.value.leader

    @property
    def is_leader(self) -> bool:
        """This replica led when it last looked. Another may have been elected since: never decide safety by this."""
        return self._core.role is Role.LEADER

    @property
    def failure(self) -> BaseException | None:
        """Why this replica stopped by itself; None while it runs, and after an orderly stop."""
        return self._failure

    def status(self) -> GroupStatus:
        """This replica at this moment."""
        core, taker = self._core.status(), self._snapshots.taker
        return GroupStatus(
            group_id=self.id,
            incarnation=self.key.incarnation,
            role=core.role,
            term=core.term,
            vote=core.vote,
            leader=core.leader,
            voters=self._core.configuration.voters,
            learners=self._core.configuration.learners,
            first_index=core.start.index + 1,
            last_index=core.last.index,
            persisted_index=core.persisted_index,
            commit_index=core.commit_index,
            applied_index=core.applied_index,
            match=core.match,
            waiting=len(self._proposals),
            memory_bytes=core.memory_bytes,
            snapshot=core.snapshot,
            snapshot_running_since=taker.running_since,
            snapshot_failure=taker.failure,
            failure=self._failure,
        )

    async def wait_leader(self) -> NodeId:
        """Wait until some node is known to lead; return its id.

        Raises:
            GroupStoppedError: this replica has stopped.
        """
        known = await self._leadership.wait_value(lambda known: known.leader is not None or known.has_stopped)
        if known.leader is None:
            raise self._stopped_error()
        return known.leader

    async def wait_applied(self, index: Index) -> None:
        """Wait until this replica's machine has applied everything up to `index`.

        Raises:
            GroupStoppedError: this replica has stopped.
        """
        if self._leadership.value.has_stopped:
            await trio.lowlevel.checkpoint()
            raise self._stopped_error()
        waiter = Waiter()
        self._applier.notify(index, waiter)
        try:
            await waiter.wait()
        except trio.Cancelled:
            self._applier.forget(waiter)
            raise

    async def propose(self, command: Any) -> Any:
        """Replicate a command and return what `StateMachine.apply` returned for it, on whatever node it is called.

        When this returns, the command is on stable storage of a majority and applied at the leader.

        Raises:
            NotLeaderError: no leader is known, or the node asked for it leads no more. In no log.
            BusyError: a queue is full. In no log.
            ProposalDroppedError: another leader's entry took its place, or the leader's node does not run the group. In no log.
            WireError: the command cannot be encoded; or whatever the machine's own codec raises. In no log.
            EntryTooLargeError: larger than `entry_bytes_max`. In no log.
            OutcomeUnknownError: handed over, and no answer can come any more.
            GroupStoppedError: this replica does not run.
            Exception: what the machine declared as a result (`declared_errors`).

        *Cancellation:* the command may be applied all the same, now or later.
        """
        payload = self._codec.encode(command)
        if type(payload) is not bytes:
            raise WireError(f"the codec of group {self.id} made {type(payload).__name__} of a command: it must make bytes")
        if len(payload) > self._config.entry_bytes_max:
            raise EntryTooLargeError(
                f"the command has {len(payload)} bytes; entry_bytes_max of group {self.id} is {self._config.entry_bytes_max}: split it"
            )
        waiter = Waiter()
        self.hand_over(payload, waiter)
        return await waiter.wait()

    async def snapshot(self) -> EntryId:
        """Take a snapshot now, and cut the log behind it; return the last entry that is in it. Usually nobody need call this.

        Raises:
            SnapshotError: the machine takes none, or raised; nothing has changed.
            GroupStoppedError: this replica has stopped.

        *Cancellation:* the snapshot is taken all the same.
        """
        if self._leadership.value.has_stopped:
            await trio.lowlevel.checkpoint()
            raise self._stopped_error()
        return await self._snapshots.taker.take()

    # --- what the node calls ----------------------------------------------------------------------------------------------------------

    def hand_over(self, payload: bytes, token: Token, *, forwarded: bool = False) -> None:
        """Bring an encoded proposal to where the leader is. The token hears all that follows, refusals included."""
        host = self._host
        host.counters.proposals += 1
        leader, has_stopped = self._leadership.value
        if has_stopped:
            token.fail(self._stopped_error())
        elif leader == host.node_id:
            if not host.has_room:
                token.fail(BusyError("the log's queue is full, or its disk is: propose again later"))
            elif not self.inbox.put_proposal(Propose(token, payload)):
                token.fail(BusyError(f"group {self.id} has no room for more proposals: propose again later"))
        elif leader is None or forwarded:
            token.fail(NotLeaderError(leader))
        else:
            host.forward(leader, self.key, payload, token)

    async def receive_snapshot(self, piece: SnapshotPiece) -> None:
        """Take a piece of a leader's snapshot; the next one is read when this returns."""
        await self._snapshots.receiver.receive(piece)

    def snapshot_replied(self, reply: SnapshotReply) -> None:
        """A member answers the snapshot that is on its way to it."""
        self._snapshots.sender.replied(reply)

    async def run(self) -> None:
        """Run the replica until cancelled or failed. Never raises but for cancellation: a failure is a value, `failure`."""
        self._host.watch(self.id, self._core.watched())
        async with trio.open_nursery() as nursery:
            try:
                await self._driver.run(nursery)
            except Exception as error:  # noqa: BLE001  # whatever it is, it stops this group and no other
                self._fail(error)
            finally:
                # Now, and not when the nursery ends: that may wait for a machine's thread, and nobody may count on this replica meanwhile.
                self._close()
                nursery.cancel_scope.cancel()

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._host.counters.groups_failed += 1
        self._host.announcer.announce(GroupFailed(self.id, error))

    def _close(self) -> None:
        """Answer every caller; whoever comes later is refused, and no peer counts on this replica any more."""
        self._leadership.value = _Leadership(None, True)
        self._host.group_stopped(self.key)
        self._driver.close(self.unknown_outcome(f"group {self.id} stopped on this node"))
        self._applier.close(self._stopped_error())
        self._snapshots.close(self._stopped_error())
        self.inbox.refuse_rest(self._stopped_error())
        self._proposals.abandon(f"group {self.id} stopped on this node")

    def _stopped_error(self) -> GroupStoppedError:
        return GroupStoppedError(self.id, self._failure)

    def _role_changed(self, change: RoleChange) -> None:
        self._host.watch(self.id, self._core.watched())
        if change.role is Role.LEADER:
            self._host.counters.elections += 1
        self._leadership.value = _Leadership(change.leader, False)
        self._host.announcer.announce(RoleChanged(self.id, change.role, change.term, change.leader))

    # --- what became of an entry ------------------------------------------------------------------------------------------------------

    def unknown_outcome(self, reason: str, index: Index | None = None, term: Term | None = None) -> OutcomeUnknownError:
        """The error for a proposal whose answer was lost; this replica's own log can tell its fate if the entry is known."""
        if index is None or term is None:
            return OutcomeUnknownError(reason, index, term)

        async def fate() -> Fate:
            return await self._fate(EntryId(term, index))

        return OutcomeUnknownError(reason, index, term, fate=fate)

    async def _fate(self, at: EntryId) -> Fate:
        try:
            await self.wait_applied(at.index)
        except GroupStoppedError:
            return "unknown"
        if at.index <= self._core.status().start.index:
            return "unknown"  # the log does not tell any more
        return "applied" if self._core.term_at(at.index) == at.term else "dropped"
