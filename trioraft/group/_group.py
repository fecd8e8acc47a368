"""One Raft group on this node, as its user holds it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal, overload

import trio

from .._errors import ConfigError, EntryTooLargeError, GroupStoppedError, OutcomeUnknownError, TransferRefusedError, WireError
from .._machine import StateMachine
from .._types import EntryId, GroupId, GroupKey, Index, NodeId, Term
from ..core import GroupConfig, Raft, Role, RoleChange
from ..observe import GroupFailed, RoleChanged
from ..storage import GroupRecord, LogStorage, RecoveredGroup
from ..wire import RequestKind, SnapshotPiece, SnapshotReply
from ._applier import Applier
from ._changes import Changes
from ._codec import codec_of
from ._driver import Driver
from ._fates import Fates
from ._host import Host
from ._inbox import Inbox
from ._leadership import Leadership
from ._proposals import Proposals
from ._reading import Reader, ReadLevel, StaleRead
from ._receiving import SnapshotReceiver
from ._requests import Requests, encode_change, encode_target
from ._sending import SnapshotSender
from ._session import Session
from ._session_table import encode_open
from ._snapshots import Snapshots
from ._start import find_start
from ._status import GroupStatus, describe
from ._tail import Tail
from ._taking import SnapshotTaker
from ._user_code import defines
from ._waiter import Token


class RaftGroup:
    """A replica of one group. Made by `MultiRaftManager.add_group`, never by hand."""

    def __init__(
        self, record: GroupRecord, recovered: RecoveredGroup, machine: StateMachine, log: LogStorage, *, config: GroupConfig, host: Host
    ) -> None:
        self.key: Final[GroupKey] = record.key
        self.machine: Final[StateMachine] = machine
        self._host, self._config = host, config
        self.inbox: Final = Inbox(config.inbox_events_max, config.inbox_bytes_max)
        self._codec = codec_of(machine)
        self._log = log
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
            awaits_number=record.awaits_number,
            config=config,
            timing=host.timing,
            random=host.random,
            liveness=host.liveness,
            now=host.now(),
        )
        taker = SnapshotTaker(record.key, machine, self._core, self._applier, log.snapshots, config, host, self.inbox)
        self._snapshots = Snapshots(
            taker,
            SnapshotSender(record.key, log.snapshots, self._core, host, self.inbox, on_unreadable=taker.distrust),
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
        self._leadership = Leadership(RoleChange(self._core.role, self._core.term, None), self._stopped_error)
        self._requests = Requests(record.key, self.inbox, self._applier, self._leadership, host)
        self._reader = Reader(self._core, self._applier, self._requests, self._leadership, config, host)
        self._fates = Fates(self._core, self._applier)
        self._failure: BaseException | None = None
        log.attach(self.inbox)

    # --- what users call --------------------------------------------------------------------------------------------------------------

    @property
    def id(self) -> GroupId:
        return self.key.group_id

    @property
    def leader(self) -> NodeId | None:
        """The node that leads, as far as this replica knows."""
        return self._leadership.leader

    @property
    def is_leader(self) -> bool:
        """This replica led when it last looked. Another may have been elected since: never decide safety by this."""
        return self._core.role is Role.LEADER

    @property
    def configuration_index(self) -> Index:
        """Of the entry that put the present members in force, as far as this replica knows; 0: the first ones. See `change_membership`."""
        return self._core.configuration.index

    @property
    def failure(self) -> BaseException | None:
        """Why this replica stopped by itself; None while it runs, and after an orderly stop."""
        return self._failure

    def status(self) -> GroupStatus:
        """This replica at this moment."""
        return describe(self.key, self._core.status(), self._snapshots.taker, waiting=len(self._proposals), failure=self._failure)

    async def wait_leader(self) -> NodeId:
        """Wait until some node is known to lead; return its id.

        Raises:
            GroupStoppedError: this replica has stopped.
        """
        return await self._leadership.wait()

    async def wait_applied(self, index: Index) -> None:
        """Wait until this replica's machine has applied everything up to `index`.

        Raises:
            GroupStoppedError: this replica has stopped.
            NotLeaderError: it was removed from the group, and nobody brings it the log any more.
        """
        await self._applier.wait_applied(index)

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
        return await self._requests.ask(RequestKind.COMMAND, self._encode(command))

    async def open_session(self) -> Session:
        """Open a session, in which commands are applied once, however often they must be asked for.

        Raises:
            ConfigError: the machine stores its state by itself (`stored_index`), where the group's sessions are not: it must remember by
                itself which requests it has seen.
            NotLeaderError, BusyError, ProposalDroppedError: ask again.
            OutcomeUnknownError: ask again; a session that nobody uses is forgotten in time.
            GroupStoppedError: this replica does not run.

        *Cancellation:* a session may have been opened, and is forgotten in time.
        """
        if defines(self.machine, "stored_index"):
            raise ConfigError(
                f"{type(self.machine).__name__} stores its state by itself, without the group's sessions: have it remember the requests "
                f"that it has seen, in the same transaction"
            )
        session_id: int = await self._ask_for_session(encode_open(self._config.sessions_max))
        return self.resume_session(session_id, 1)

    def resume_session(self, session_id: int, next_sequence: int) -> Session:
        """Go on with a session that was opened before, maybe on another node or by a process that is gone (`Session.next_sequence`)."""
        return Session(session_id, next_sequence, encode=self._encode, ask=self._ask_for_session, wait_leader=self.wait_leader)

    async def _ask_for_session(self, payload: bytes) -> Any:
        return await self._requests.ask(RequestKind.SESSION, payload)

    async def change_membership(self, *, voters: Iterable[NodeId], learners: Iterable[NodeId] = (), expect: Index | None = None) -> Index:
        """Change who is in the group, whatever it takes; return the index of the new configuration, which is committed then.

        One step where that is safe, through a joint configuration otherwise, which the leader leaves by itself (dissertation 4.3). A node
        that is to vote and is no member yet becomes a learner first, and votes when it has caught up: have it call `add_group` with
        ``join=True``. A node that is removed goes quiet; `remove_group` there deletes what it has.

        Args:
            voters: node ids of all that shall vote in the end.
            learners: of all that shall have the log and no vote.
            expect: the `configuration_index` that the caller goes by: refused if it is another one by now. None: whatever is in force.

        Raises:
            ChangeRefusedError: not changed, or not further than its text says; `kind` says why.
            ConfigError: a node is in both sets, or its id is impossible.
            NotLeaderError, BusyError: not changed.
            OutcomeUnknownError: the leader changed half-way: look at the configuration, and ask again if need be.
            GroupStoppedError: this replica does not run.

        *Cancellation:* the change may go on all the same.
        """
        index: Index = await self._requests.ask(RequestKind.CHANGE_MEMBERS, encode_change(voters, learners, expect))
        return index

    async def transfer_leadership(self, target: NodeId | None = None) -> NodeId:
        """Have another voter lead; return who does. The leader brings the target up to date first; meanwhile proposals are refused.

        Args:
            target: a voter; None: whoever is live and has most of the log.

        Raises:
            TransferRefusedError: the leader stays; or another node leads than asked for, or none within two election timeouts
                (``timeout``).
            NotLeaderError, BusyError: nothing has happened.
            OutcomeUnknownError: the leader's answer was lost.
            GroupStoppedError: this replica does not run.

        *Cancellation:* leadership may go over all the same.
        """
        before = self.leader
        await self._requests.ask(RequestKind.TRANSFER, encode_target(target))
        patience = 2 * self._host.timing.election_timeout / 1000
        with trio.move_on_after(patience):
            leader = await self._leadership.wait(other_than=before)
            if target in (None, leader):
                return leader
            raise TransferRefusedError("timeout", f"node {leader} leads group {self.id} now, and not node {target}: ask again")
        raise TransferRefusedError("timeout", f"node {before} has handed group {self.id} over, and nobody led it within {patience} s")

    @overload
    async def read(self, query: Any, *, level: Literal["stale"]) -> StaleRead: ...

    @overload
    async def read(self, query: Any, *, level: ReadLevel = "linearizable") -> Any: ...

    async def read(self, query: Any, *, level: ReadLevel = "linearizable") -> Any:
        """Ask the machine (`StateMachine.query`), and return its answer.

        ================  ====================================  ======================================================================
        level             who answers                           what the answer shows
        ================  ====================================  ======================================================================
        ``linearizable``  the leader's machine                  everything acknowledged before the call, anywhere. The leader has a
                                                                quorum confirm that it leads: a round trip, shared by all that wait
        ``follower``      this replica's machine                the same: the leader is asked from which index on, and that waited for
        ``lease``         the leader's machine                  the same, without a round trip while the last one is recent, **if** no
                                                                two clocks run apart by more than `lease_drift_percent` in an election
                                                                timeout. Needs `lease_reads`
        ``stale``         this replica's machine, at once       the state as of `StaleRead.applied_index`, however old that is
        ================  ====================================  ======================================================================

        Raises:
            NotLeaderError: no leader is known, or it leads no more. Ask again.
            BusyError: a queue is full. Ask again later.
            OutcomeUnknownError: the leader's answer was lost. Ask again: a read changes nothing.
            ConfigError: no such level, or it is not allowed.
            GroupStoppedError: this replica has stopped.
            WireError: the query or its answer must travel to another node, and is no CBOR value.
            Exception: what the machine raised.

        *Cancellation:* nothing is left behind.
        """
        return await self._reader.read(query, level)

    async def read_barrier(self) -> Index:
        """Wait until this replica's machine shows everything acknowledged before the call, anywhere; return the index up to which it does.

        For those who look at their machine directly, in the same synchronous stretch in which this returns.

        Raises:
            NotLeaderError, BusyError, OutcomeUnknownError, GroupStoppedError: as `read`.

        *Cancellation:* nothing is left behind.
        """
        index = await self._reader.read_index()
        await self.wait_applied(index)
        return index

    def changes(self) -> Changes:
        """Return a stream of this replica's changes of role, term and known leader, from how they are now: ``async for change in ...``.

        It ends when this replica stops. What is told may be past: never decide safety by it.
        """
        return self._leadership.changes()

    def tail(self, index: Index) -> Tail:
        """Return a stream of everything that this replica has applied from `index` on, in order: ``async for entry in group.tail(1)``.

        Where the log was cut off already, the stream says so by a `Reset` and goes on behind the snapshot. On every replica, and after a
        restart, it is the same stream, but for where it is reset; so a reader that keeps the last index it has seen goes on behind it.
        """
        return Tail(index, self._core, self._log, self._codec, self._applier)

    async def snapshot(self) -> EntryId:
        """Take a snapshot now, and cut the log behind it; return the last entry that is in it. Usually nobody need call this.

        Raises:
            SnapshotError: the machine takes none, or raised; nothing has changed.
            GroupStoppedError: this replica has stopped.

        *Cancellation:* the snapshot is taken all the same.
        """
        if self._leadership.has_stopped:
            await trio.lowlevel.checkpoint()
            raise self._stopped_error()
        return await self._snapshots.taker.take()

    def _encode(self, command: Any) -> bytes:
        payload = self._codec.encode(command)
        if type(payload) is not bytes:
            raise WireError(f"the codec of group {self.id} made {type(payload).__name__} of a command: it must make bytes")
        if len(payload) > self._config.entry_bytes_max:
            raise EntryTooLargeError(
                f"the command has {len(payload)} bytes; entry_bytes_max of group {self.id} is {self._config.entry_bytes_max}: split it"
            )
        return payload

    # --- what the node calls ----------------------------------------------------------------------------------------------------------

    def hand_over(self, kind: RequestKind, payload: bytes, token: Token, *, forwarded: bool = False) -> None:
        """Bring a request to where the leader is. The token hears all that follows, refusals included."""
        self._requests.hand_over(kind, payload, token, forwarded=forwarded)

    async def receive_snapshot(self, piece: SnapshotPiece) -> None:
        """Take a piece of a leader's snapshot; the next one is read when this returns."""
        await self._snapshots.receiver.receive(piece)

    def snapshot_replied(self, reply: SnapshotReply) -> None:
        """A member answers the snapshot that is on its way to it."""
        self._snapshots.sender.replied(reply)

    async def run(self) -> None:
        """Run the replica until cancelled or failed. Never raises but for cancellation: a failure is a value, `failure`."""
        self._host.watch(self.id, self._core.watched())
        try:
            await self._run_tasks()
        except* Exception as errors:  # noqa: BLE001  # of a task that does something for the driver, such as one that got no thread
            self._fail(_first(errors))

    async def _run_tasks(self) -> None:
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
        self._leadership.stop()
        self._host.group_stopped(self.key)
        reason = f"group {self.id} stopped on this node"
        self._driver.close(OutcomeUnknownError(reason))
        self._applier.close(self._stopped_error())
        self._snapshots.close(self._stopped_error())
        self.inbox.refuse_rest(self._stopped_error())
        self._proposals.abandon_from(0, reason)

    def _stopped_error(self) -> GroupStoppedError:
        return GroupStoppedError(self.id, self._failure)

    def _role_changed(self, change: RoleChange) -> None:
        self._host.watch(self.id, self._core.watched())
        if change.role is Role.LEADER:
            self._host.counters.elections += 1
        self._leadership.changed(change)
        self._host.announcer.announce(RoleChanged(self.id, change.role, change.term, change.leader))

    def unknown_outcome(
        self, reason: str, index: Index | None = None, term: Term | None = None, *, request_id: tuple[int, int] | None = None
    ) -> OutcomeUnknownError:
        """The error for a request whose answer was lost; this replica's own log can tell its fate if the entry is known."""
        return self._fates.unknown(reason, index, term, request_id=request_id)


def _first(errors: Exception) -> Exception:
    while isinstance(errors, ExceptionGroup):
        errors = errors.exceptions[0]
    return errors
