"""Which groups run on this node, and how one that lies on the disk gets to run.

A start of the node makes no task and no machine: a group found on the disk is one row in the storage's memory, until a message, a caller
or `add_group` touches it. Only then its machine is made (`machine_factory`), and its task started.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

import trio

from .._errors import ConfigError, GroupStoppedError
from .._machine import StateMachine
from .._types import GroupId, GroupKey, NodeId
from ..core import GroupConfig
from ..group import Host, RaftGroup, check_replicated, join_group
from ..observe import GroupFailed
from ..storage import MultiRaftStorage, RecoveredGroup

MachineFactory: TypeAlias = Callable[[GroupId], StateMachine]
"""Makes the machine of a group: called on the event loop, when the group is first needed in a process. Must be quick."""

_log = logging.getLogger("trioraft.node")


class Hosting:
    """The groups of a node."""

    def __init__(
        self,
        storage: MultiRaftStorage,
        running: dict[GroupId, RaftGroup],
        *,
        machine_factory: MachineFactory | None,
        config: GroupConfig,
    ) -> None:
        self._storage = storage
        self._machine_factory = machine_factory
        self.config: Final = config
        """Of groups that are opened without one of their own."""
        self.running: Final = running
        self.opened: Final[dict[GroupId, RaftGroup]] = {}
        """All groups opened in this process, those that stopped by themselves included."""
        self.reserved: Final[Counter[GroupId]] = Counter()
        """Groups that somebody opens or removes just now: no message starts them."""
        self._scopes: dict[GroupId, tuple[trio.CancelScope, trio.Event]] = {}
        self._unusable: dict[GroupId, Exception] = {}
        self._host: Host | None = None
        self._nursery: trio.Nursery | None = None

    def begin(self, host: Host, nursery: trio.Nursery) -> None:
        """From now on groups can run."""
        self._host, self._nursery = host, nursery

    @property
    def is_stopping(self) -> bool:
        """No group starts any more, or none yet."""
        return self._nursery is None or self._nursery.cancel_scope.cancel_called

    @property
    def has_factory(self) -> bool:
        return self._machine_factory is not None

    def on_disk(self) -> Iterator[GroupId]:
        """All groups that this node has a replica of, damaged ones included."""
        return (group_id for group_id, found in self._storage.recovered.items() if found.tombstone is None)

    def groups_with(self, node_id: NodeId) -> list[GroupId]:
        """The groups of this node, running or not, that have a node as a member, as far as this node knows; ascending."""
        return sorted(group_id for group_id in self.on_disk() if node_id in self._members(group_id))

    def _members(self, group_id: GroupId) -> Collection[NodeId]:
        group = self.opened.get(group_id)
        if group is not None:
            return group.status().replicas.keys()
        found = self._storage.recovered[group_id]
        if found.record is None:
            return ()  # damaged: it counts nobody's vote
        history = found.durable.configurations
        configuration = history[-1][1] if history else found.record.configuration
        return configuration.members()

    @contextmanager
    def reserve(self, group_id: GroupId) -> Iterator[None]:
        """No message starts the group meanwhile."""
        self.reserved[group_id] += 1
        try:
            yield
        finally:
            self.reserved[group_id] -= 1
            if not self.reserved[group_id]:
                del self.reserved[group_id]

    # --- touched ------------------------------------------------------------------------------------------------------------------------

    def find(self, key: GroupKey) -> RaftGroup | None:
        """The group that a message is for, started now if it lies on the disk; None: this node has no such group that could run."""
        group = self.running.get(key.group_id)
        if group is None:
            group = self._touch(key)
        return group if group is not None and group.key == key else None

    def _touch(self, key: GroupKey) -> RaftGroup | None:
        group_id = key.group_id
        if (
            self.is_stopping
            or self._machine_factory is None
            or group_id in self.opened
            or group_id in self._unusable
            or group_id in self.reserved
        ):
            return None
        found = self._storage.recovered.get(group_id)
        if found is None or found.record is None or found.failure is not None or found.record.key != key:
            return None
        try:
            return self.open(found)
        except Exception as error:  # noqa: BLE001  # of the user's factory, or of a disk that contradicts itself: this group's trouble
            self._report(group_id, error)
            return None

    def open(self, found: RecoveredGroup) -> RaftGroup:
        """Open a group of the disk with a machine of the factory.

        Raises:
            ConfigError: there is no factory, or it made no machine.
            Exception: the factory's; or what is on the disk cannot be the state of a replica.
        """
        group_id = found.group_id
        if group_id in self._unusable:
            raise GroupStoppedError(group_id, self._unusable[group_id])
        if found.failure is not None:
            raise found.failure
        if self.is_stopping:
            raise GroupStoppedError(group_id)
        return self.start(found, self.make_machine(group_id), self.config)

    def make_machine(self, group_id: GroupId) -> StateMachine:
        if self._machine_factory is None:
            raise ConfigError(f"group {group_id} has no machine: pass one to add_group, or a machine_factory to open_manager")
        machine = self._machine_factory(group_id)
        check_machine(group_id, machine)
        return machine

    def _report(self, group_id: GroupId, error: Exception) -> None:
        """A group that cannot be opened is not tried again in this process: each message would bring it up anew."""
        self._unusable[group_id] = error
        _log.error("group %d cannot be opened on this node", group_id, exc_info=error)
        if self._host is not None:
            self._host.counters.groups_failed += 1
            self._host.announcer.announce(GroupFailed(group_id, error))

    # --- running ------------------------------------------------------------------------------------------------------------------------

    def start(self, found: RecoveredGroup, machine: StateMachine, config: GroupConfig) -> RaftGroup:
        """Run a group that is on the disk.

        Raises:
            GroupStoppedError: the node is stopping.
            RaftError: what is on the disk cannot be the state of a replica.
        """
        if self._host is None or self._nursery is None or self.is_stopping or found.record is None:
            raise GroupStoppedError(found.group_id)
        group = RaftGroup(found.record, found, machine, self._storage.get_log_storage(found.group_id), config=config, host=self._host)
        join_group(machine, group)
        self._host.counters.groups_touched += 1
        self.opened[group.id] = self.running[group.id] = group
        scope, done = self._scopes[group.id] = trio.CancelScope(), trio.Event()
        self._nursery.start_soon(self._run, group, scope, done, name=f"trioraft group {group.id}")
        return group

    async def _run(self, group: RaftGroup, scope: trio.CancelScope, done: trio.Event) -> None:
        try:
            with scope:
                await group.run()
        finally:
            done.set()

    async def stop(self, group_id: GroupId) -> None:
        """Stop a group that was opened, and wait until it has."""
        scope, done = self._scopes[group_id]
        scope.cancel()
        await done.wait()

    def forget(self, group: RaftGroup | None, group_id: GroupId) -> None:
        """The group was removed from the disk; unless another one of its id was opened since."""
        self._unusable.pop(group_id, None)
        if group is not None and self.opened.get(group_id) is group:
            del self.opened[group_id], self._scopes[group_id]


def check_machine(group_id: GroupId, machine: object) -> None:
    """Refuse what is no machine.

    Raises:
        ConfigError: names the group.
    """
    if not isinstance(machine, StateMachine):
        raise ConfigError(f"the machine of group {group_id} must be an instance of a StateMachine, not {machine!r}")
    check_replicated(group_id, machine)
