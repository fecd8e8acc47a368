"""Takes snapshots of a group's machine, while the group goes on.

A *view* of the state is taken between two commands (`Applier.take_view`), and with it the term and the configuration that belong to its
index. Then a worker thread pulls records out of the view and makes bytes of them, a slice at a time; each slice is appended to the file
before the next one is pulled, so memory does not grow with the state. When the file is durable under its name, and not before, the core
hears of it; it decides what is cut off the log.

Whatever goes wrong stops nothing but this snapshot: its file is discarded, the failure told, and it is tried again after a pause that
doubles with each failure in a row. User code that hangs keeps its thread and this group's only snapshot; after a while it gives its
place among the node's snapshots back, so that the other groups have theirs.
"""

from __future__ import annotations

import traceback
from typing import Final, Self

import attrs
import trio

from .._errors import InvariantError, SnapshotError
from .._machine import StateMachine
from .._types import EntryId, GroupKey, Index
from ..core import Configuration, GroupConfig, Raft, SnapshotTaken
from ..observe import SnapshotFailed, SnapshotSaved
from ..storage import SnapshotStorage
from ._applier import Applier
from ._host import Host
from ._inbox import Inbox
from ._pull import Pull
from ._user_code import defines, refuse_generator, run_in_thread
from ._waiter import Waiter

HANGING_SECONDS: Final = 30.0
"""A slice that takes longer hangs, as far as other groups are concerned."""

_DOUBLINGS_MAX: Final = 6


@attrs.frozen
class _Moment:
    """What a view shows."""

    at: EntryId
    configuration: Configuration
    applied_bytes: int


class _SupersededError(Exception):
    """A newer snapshot came from the leader meanwhile."""


class SnapshotTaker:
    """Takes one snapshot at a time of one group: when enough was applied since the last one, or when asked to."""

    def __init__(
        self,
        key: GroupKey,
        machine: StateMachine,
        core: Raft,
        applier: Applier,
        snapshots: SnapshotStorage,
        config: GroupConfig,
        host: Host,
        inbox: Inbox,
    ) -> None:
        self._key, self._machine, self._core, self._applier = key, machine, core, applier
        self._snapshots, self._config, self._host, self._inbox = snapshots, config, host, inbox
        self._is_able = defines(machine, "snapshot")
        self._last = core.snapshot
        self._bytes_then = 0  # what had been applied in this process when the last one was taken
        self._wanted: Index = 0
        self._asked = trio.Event()
        self._waiting: dict[Waiter, Index] = {}
        self._moment: _Moment | None = None
        self._scope: trio.CancelScope | None = None
        self._is_running = False
        self._is_distrusted = False
        self._stopped: Exception | None = None
        self._failures = 0
        self.failure: BaseException | None = None
        """Why the last snapshot could not be taken; None if it could."""
        self.running_since: float | None = None
        """When the one that is being taken was begun, on Trio's clock."""

    async def take(self) -> EntryId:
        """Take a snapshot that holds everything applied by now; return its id. If the newest one does, return that.

        Callers share snapshots; one that runs already is waited for, and then another is taken if it began too early.

        Raises:
            SnapshotError: the machine takes none, or it could not be taken (the cause says why), or nothing has been applied yet.
            GroupStoppedError: the group stopped.

        *Cancellation:* the snapshot is taken all the same.
        """
        index = self._applier.applied_index
        if self._stopped is not None or not self._is_able or (index <= self._last.index and not self._is_distrusted):
            await trio.lowlevel.checkpoint()
            return self._answer_at_once()
        self._wanted = index
        self._asked.set()
        self._inbox.run_again()
        waiter = Waiter()
        self._waiting[waiter] = index
        try:
            at: EntryId = await waiter.wait()
        finally:
            self._waiting.pop(waiter, None)
        return at

    def _answer_at_once(self) -> EntryId:
        if self._stopped is not None:
            raise self._stopped
        if not self._is_able:
            raise SnapshotError(f"{type(self._machine).__name__} must define snapshot() for group {self._key} to be snapshotted")
        if self._last.index == 0:
            raise SnapshotError(f"nothing has been applied in group {self._key} yet: there is nothing to take a snapshot of")
        return self._last

    def work(self, nursery: trio.Nursery) -> None:
        """Once a turn, after the applier: begin a snapshot that is due, and answer who waited for one that the core knows by now."""
        if self._waiting and not self._is_distrusted:
            known = self._core.snapshot
            for waiter in self._take_waiting(known.index):
                waiter.succeed(known)
        if not self._is_running and self._is_due():
            self._is_running = True
            nursery.start_soon(self._run)

    def saved(self, at: EntryId) -> None:
        """A snapshot is in place, be it from here or from the leader: count from there."""
        if at.index > self._last.index:
            self._last = at
            self._is_distrusted = False
            self._bytes_then = self._applier.applied_bytes

    def distrust(self, at: EntryId) -> None:
        """A snapshot of this replica cannot be read: if it is the newest, take it again."""
        if at == self._last and self._is_able:
            self._is_distrusted = True
            self._inbox.run_again()

    def close(self, error: Exception) -> None:
        """The group stops: nothing is taken any more, and whoever waits gets `error`."""
        self._stopped = error
        if self._scope is not None:
            self._scope.cancel()
        for waiter in self._take_waiting(None):
            waiter.fail(error)

    def _take_waiting(self, index: Index | None) -> list[Waiter]:
        """Those who wait for a snapshot up to `index`, or all."""
        reached = [waiter for waiter, wanted in self._waiting.items() if index is None or wanted <= index]
        for waiter in reached:
            del self._waiting[waiter]
        return reached

    def _is_due(self) -> bool:
        applied = self._applier.applied_index - self._last.index
        if self._is_distrusted and applied >= 0:
            return True
        if not self._is_able or applied <= 0:
            return False
        is_due = (
            applied >= self._config.snapshot_entries
            or self._applier.applied_bytes - self._bytes_then >= self._config.snapshot_bytes
            or self._wanted > self._last.index
        )
        # NB: without voters: this replica has joined, and the entry that says who is in the group has yet to come.
        return is_due and bool(self._core.configuration_at(self._applier.applied_index).voters)

    # --- the child task ---------------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        with trio.CancelScope() as self._scope:
            if self._stopped is not None:
                return
            while self._is_due():
                if not await self._try() and not self._waiting:  # whoever waits asked after the failed one had begun
                    self._asked = trio.Event()
                    with trio.move_on_after(self._host.snapshot_retry_interval * (1 << min(self._failures - 1, _DOUBLINGS_MAX))):
                        await self._asked.wait()
        self._is_running = False

    async def _try(self) -> bool:
        """Take one; False: it failed."""
        self._moment = None
        try:
            await self._take_one()
        except _SupersededError:
            return True
        except Exception as error:  # noqa: BLE001  # users' code, or the disk: neither may stop the group
            self._failed(error)
            return False
        finally:
            self.running_since = None
        self._failures = 0
        self.failure = None
        return True

    async def _take_one(self) -> None:
        refuse_generator(self._machine, "snapshot")
        async with _Place(self._host.snapshot_threads) as place:
            self.running_since = trio.current_time()
            moment, view = await self._applier.take_view(self._describe)
            pull = Pull(view, self._key, moment.at, moment.configuration)
            try:
                size = await self._write(pull, moment.at, place)
            finally:
                with trio.move_on_after(self._patience, shield=True):
                    await run_in_thread(pull.close, patience=0)
        if moment.at.index < self._last.index:
            await self._snapshots.remove(moment.at)
            raise _SupersededError
        self._is_distrusted = False
        self.saved(moment.at)
        self._bytes_then = moment.applied_bytes
        self._host.counters.snapshots_taken += 1
        self._inbox.put_completion(SnapshotTaken(moment.at))
        self._host.announcer.announce(SnapshotSaved(self._key.group_id, moment.at, size, received=False))

    def _describe(self, index: Index) -> _Moment:
        if index < self._last.index or (index == self._last.index and not self._is_distrusted):
            raise _SupersededError
        term = self._core.term_at(index)
        if term == 0:
            raise InvariantError(f"index {index} of group {self._key} was applied and is not in its log")
        self._moment = _Moment(EntryId(term, index), self._core.configuration_at(index), self._applier.applied_bytes)
        return self._moment

    async def _write(self, pull: Pull, at: EntryId, place: _Place) -> int:
        size = 0
        writer = await self._snapshots.create(at)
        try:
            while not pull.is_finished:
                data = await run_in_thread(
                    pull.slice, patience=self._patience, stop=pull.stop, hanging_seconds=HANGING_SECONDS, on_hanging=place.give_back
                )
                if at.index < self._last.index:
                    raise _SupersededError
                if data:
                    await writer.append(data)
                    size += len(data)
            await writer.commit()
        finally:
            with trio.move_on_after(self._patience, shield=True):
                await writer.discard()
        return size

    @property
    def _patience(self) -> float:
        return self._host.apply_threads.patience

    def _failed(self, error: Exception) -> None:
        self.failure = error
        self._failures += 1
        _forget_state(error)
        reached = None if self._moment is None else self._moment.at.index
        for waiter in self._take_waiting(reached):
            refusal = SnapshotError(f"no snapshot of group {self._key} could be taken: {type(error).__name__}: {error}")
            refusal.__cause__ = error
            waiter.fail(refusal)
        self._wanted = max(self._waiting.values(), default=0)
        self._host.announcer.announce(SnapshotFailed(self._key.group_id, "taking", error))


def _forget_state(error: BaseException | None) -> None:
    """Let go of what the frames of an error hold: a view of the whole state, maybe. The lines of its traceback stay."""
    chain = list[BaseException]()  # it may end in a circle: `raise error from error`
    while error is not None and all(error is not seen for seen in chain):
        chain.append(error)
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


class _Place:
    """A place among the snapshots that a node takes at once, until it is left or given back early."""

    def __init__(self, limiter: trio.CapacityLimiter) -> None:
        self._limiter = limiter
        self._is_held = False

    async def __aenter__(self) -> Self:
        await self._limiter.acquire_on_behalf_of(self)
        self._is_held = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.give_back()

    def give_back(self) -> None:
        if self._is_held:
            self._is_held = False
            self._limiter.release_on_behalf_of(self)
