"""The node as its user holds it: groups come and go here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import trio

from .._errors import ConfigError, GroupExistsError, GroupNotFoundError, GroupStoppedError
from .._machine import StateMachine
from .._types import GroupId, GroupKey, Member, NodeId
from ..core import Configuration, GroupConfig
from ..group import RaftGroup
from ..observe import Counters
from ..storage import GroupRecord, MultiRaftStorage, NodeRecord
from ..transport import Identity, Receiver
from ._clock import NodeClock
from ._node import Node
from ._peers import Peers
from ._status import NodeStatus


class MultiRaftManager:
    """Hosts any number of Raft groups in this process. Made by `open_manager`."""

    def __init__(
        self,
        record: NodeRecord,
        *,
        node: Node,
        receiver: Receiver,
        storage: MultiRaftStorage,
        peers: Peers,
        clock: NodeClock,
        running: dict[GroupId, RaftGroup],
        payload_bytes_max: int,
        nursery: trio.Nursery,
    ) -> None:
        self.identity: Final = Identity(record.cluster_id, record.node_id, record.store_id, record.incarnation)
        self.receiver: Final = receiver
        """Where a listener brings what arrives."""
        self._node, self._storage, self._peers, self._clock = node, storage, peers, clock
        self._payload_bytes_max = payload_bytes_max
        self._nursery = nursery
        self._running = running
        self._groups: dict[GroupId, RaftGroup] = {}
        self._scopes: dict[GroupId, tuple[trio.CancelScope, trio.Event]] = {}
        self._opening: set[GroupId] = set()
        self.bound_addresses: tuple[str, ...] = ()
        """Where the node listens, ports filled in."""

    @property
    def node_id(self) -> NodeId:
        return self.identity.node_id

    @property
    def groups(self) -> Mapping[GroupId, RaftGroup]:
        """All groups opened here, those that stopped by themselves included."""
        return MappingProxyType(self._groups)

    @property
    def counters(self) -> Counters:
        return self._node.counters

    def get_group(self, group_id: GroupId) -> RaftGroup:
        """Return a group that was opened here.

        Raises:
            GroupNotFoundError: `add_group` was not called for it in this process.
        """
        try:
            return self._groups[group_id]
        except KeyError:
            raise GroupNotFoundError(f"group {group_id} is not open on node {self.node_id}: call add_group first") from None

    def status(self) -> NodeStatus:
        """The node at this moment."""
        identity = self.identity
        return NodeStatus(
            node_id=identity.node_id,
            cluster_id=identity.cluster_id,
            store_id=identity.store_id,
            incarnation=identity.incarnation,
            groups=len(self._running),
            leading=sum(group.is_leader for group in self._running.values()),
            failed=tuple(sorted(group.id for group in self._groups.values() if group.failure is not None)),
            peers=self._peers.status(self._clock.now()),
            sync_count=self._storage.sync_count,
            sync_age=self._storage.sync_age(),
            has_room=self._storage.has_room,
        )

    async def add_group(
        self,
        group_id: GroupId,
        machine: StateMachine,
        *,
        members: Iterable[NodeId],
        config: GroupConfig | None = None,
        incarnation: int = 1,
    ) -> RaftGroup:
        """Open a group, or create it where neither the group nor its tombstone exists; call it alike on all its members.

        Args:
            machine: a fresh one: the log is replayed into it.
            members: node ids of the voters that start the group, this node among them. Equal on all members, and the same at each start.
            incarnation: of the group; must exceed that of a tombstone to create a group anew.

        Returns: the group, running. Its leader may not be known yet: `RaftGroup.wait_leader`.

        Raises:
            GroupExistsError: opened already (and stopped, maybe), or on disk with other members or another incarnation, or removed in
                this incarnation.
            ConfigError: `members` lacks this node, or names one without an address; or a command could be too large to send.
            CorruptLogError: the group's log is damaged; nothing was changed.
            StorageError: the group could not be written.
            GroupStoppedError: the node is stopping.

        *Cancellation:* a new group may have been created on disk; calling again opens it.
        """
        voters = frozenset(members)
        config = GroupConfig() if config is None else config
        self._check_arguments(group_id, incarnation, voters, machine, config)
        if config.entry_bytes_max > self._payload_bytes_max:
            raise ConfigError(
                f"entry_bytes_max of group {group_id} is {config.entry_bytes_max}, but the transport carries at most "
                f"{self._payload_bytes_max} bytes: lower the one, or raise frame_bytes_max of both the transport and the server"
            )
        if group_id in self._groups or group_id in self._opening:
            # NB: also when it has stopped: what the start found on disk is older than what the group wrote since.
            raise GroupExistsError(
                f"group {group_id} is open on node {self.node_id} already; one that stopped opens at the node's next start"
            )
        self._opening.add(group_id)
        try:
            record = await self._open_or_create(GroupKey(group_id, incarnation), voters)
        finally:
            self._opening.discard(group_id)
        if self._nursery.cancel_scope.cancel_called:
            raise GroupStoppedError(group_id)
        group = RaftGroup(
            record,
            self._storage.recovered[group_id],
            machine,
            self._storage.get_log_storage(group_id),
            config=config,
            host=self._node,
        )
        self._start(group)
        return group

    async def remove_group(self, group_id: GroupId, *, force: bool = False) -> None:
        """Stop a group on this node and leave a tombstone, so that no late message brings it back. The other members are not told.

        Args:
            force: needed while this replica is a voter: the group loses one vote for good.

        Raises:
            GroupNotFoundError: no such group here.
            GroupExistsError: this replica is a voter and `force` was not given.

        *Cancellation:* the group may be stopped and removed, or stopped and there again at the next start.
        """
        group = self._groups.get(group_id)
        if group is None:
            raise GroupNotFoundError(f"group {group_id} is not open on node {self.node_id}")
        if not force and self.node_id in group.status().voters:
            raise GroupExistsError(f"node {self.node_id} is a voter of group {group_id}: change its members first, or pass force=True")
        scope, done = self._scopes[group_id]
        scope.cancel()
        await done.wait()
        await self._storage.remove_group(group.key)
        if self._groups.get(group_id) is group:  # not one that was added since, while another call removed this one
            del self._groups[group_id]
            del self._scopes[group_id]

    def _check_arguments(
        self, group_id: GroupId, incarnation: int, voters: frozenset[NodeId], machine: StateMachine, config: GroupConfig
    ) -> None:
        """Refuse what would fail later, when the group is on disk already."""
        if type(group_id) is not int or not 0 <= group_id < 1 << 63:
            raise ConfigError(f"a group id is a whole number from 0 to 2**63 - 1, not {group_id!r}")
        if type(incarnation) is not int or not 1 <= incarnation < 1 << 32:
            raise ConfigError(f"an incarnation is a whole number from 1 to 2**32 - 1, not {incarnation!r}")
        if not isinstance(machine, StateMachine):
            raise ConfigError(f"the machine of group {group_id} must be an instance of a StateMachine, not {machine!r}")
        if not isinstance(config, GroupConfig):
            raise ConfigError(f"the config of group {group_id} must be a GroupConfig, not {config!r}")
        if any(type(node_id) is not int for node_id in voters):
            raise ConfigError(f"members of group {group_id} must be node ids, which are whole numbers, not {set(voters)!r}")
        if self.node_id not in voters:
            raise ConfigError(f"members of group {group_id} are {sorted(voters)}, without this node ({self.node_id})")
        strangers = sorted(node_id for node_id in voters - {self.node_id} if node_id not in self._peers)
        if strangers:
            raise ConfigError(f"members {strangers} of group {group_id} have no address: name them in `addresses` of open_manager")

    async def _open_or_create(self, key: GroupKey, voters: frozenset[NodeId]) -> GroupRecord:
        """The group's record on disk, made now if there is none."""
        found = self._storage.recovered.get(key.group_id)
        if found is not None and found.failure is not None:
            raise found.failure
        if found is not None and found.record is not None:
            await trio.lowlevel.checkpoint()
            return _matching(found.record, key, voters)
        if found is not None and found.tombstone is not None and key.incarnation <= found.tombstone.incarnation:
            raise GroupExistsError(
                f"group {key.group_id} was removed here in incarnation {found.tombstone.incarnation}: "
                f"a new one needs incarnation={found.tombstone.incarnation + 1} on all its members"
            )
        record = GroupRecord(key, Member(self.node_id), Configuration.bootstrap(voters))
        await self._storage.create_group(record)
        return record

    def _start(self, group: RaftGroup) -> None:
        self._groups[group.id] = self._running[group.id] = group
        scope, done = self._scopes[group.id] = trio.CancelScope(), trio.Event()
        self._nursery.start_soon(self._run, group, scope, done, name=f"trioraft group {group.id}")

    async def _run(self, group: RaftGroup, scope: trio.CancelScope, done: trio.Event) -> None:
        try:
            with scope:
                await group.run()
        finally:
            done.set()


def _matching(record: GroupRecord, key: GroupKey, voters: frozenset[NodeId]) -> GroupRecord:
    """The group found on disk, if it is the one that was asked for."""
    if record.key != key:
        raise GroupExistsError(f"group {key.group_id} exists here in incarnation {record.key.incarnation}, not {key.incarnation}")
    if record.configuration.voters != voters:
        raise GroupExistsError(
            f"group {key.group_id} was created with members {sorted(record.configuration.voters)}, not {sorted(voters)}: "
            f"open it with the members it has"
        )
    return record
