"""The node as its user holds it: groups come and go here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, cast

import trio

from .._errors import ConfigError, GroupExistsError, GroupNotFoundError, RaftError
from .._machine import StateMachine
from .._types import EntryId, GroupId, GroupKey, Member, NodeId
from ..core import Configuration, GroupConfig
from ..group import RaftGroup
from ..observe import Counters
from ..storage import GroupRecord, MultiRaftStorage, NodeRecord, RecoveredGroup
from ..transport import Identity, Receiver
from ._address_book import AddressBook
from ._clock import NodeClock
from ._found import barred, check_incarnation, check_matching, check_replica, removed_key
from ._handing_over import hand_over, plan_balance
from ._hosting import Hosting, check_machine
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
        book: AddressBook,
        forget_store: Callable[[NodeId], Awaitable[None]],
        storage: MultiRaftStorage,
        peers: Peers,
        clock: NodeClock,
        hosting: Hosting,
        payload_bytes_max: int,
    ) -> None:
        self.identity: Final = Identity(record.cluster_id, record.node_id, record.store_id, record.incarnation)
        self.receiver: Final = receiver
        """Where a listener brings what arrives."""
        self._node, self._storage, self._peers, self._clock = node, storage, peers, clock
        self._book, self._forget_store = book, forget_store
        self._payload_bytes_max = payload_bytes_max
        self._hosting = hosting
        self.bound_addresses: tuple[str, ...] = ()
        """Where the node listens, ports filled in."""

    @property
    def node_id(self) -> NodeId:
        return self.identity.node_id

    @property
    def groups(self) -> Mapping[GroupId, RaftGroup]:
        """All groups opened in this process, those that stopped by themselves included."""
        return MappingProxyType(self._hosting.opened)

    @property
    def group_ids(self) -> list[GroupId]:
        """All groups that this node has a replica of, opened or not, ascending."""
        return sorted(self._hosting.on_disk())

    @property
    def addresses(self) -> Mapping[NodeId, str]:
        """Where all known nodes are, as far as this node knows."""
        return MappingProxyType(self._book.addresses())

    @property
    def counters(self) -> Counters:
        return self._node.counters

    def get_group(self, group_id: GroupId) -> RaftGroup:
        """Return a group; one that is on this node's disk and not open yet is opened, with a machine of the `machine_factory`.

        Raises:
            GroupNotFoundError: not on this node; or there is no `machine_factory`, and `add_group` was not called for it.
            CorruptLogError: the group's log is damaged.
            GroupStoppedError: it could not be opened before, in this process; or the node is stopping.
            RaftError: it cannot be opened.
        """
        group = self._hosting.opened.get(group_id)
        if group is not None:
            return group
        found = self._storage.recovered.get(group_id)
        if found is None or found.tombstone is not None or group_id in self._hosting.reserved:
            raise GroupNotFoundError(f"group {group_id} is not on node {self.node_id}: call add_group first")
        if not self._hosting.has_factory and found.failure is None:
            text = f"group {group_id} is not open on node {self.node_id}: call add_group, or give open_manager a machine_factory"
            raise GroupNotFoundError(text)
        return self._hosting.open(found)

    def status(self) -> NodeStatus:
        """The node at this moment."""
        identity = self.identity
        return NodeStatus(
            node_id=identity.node_id,
            cluster_id=identity.cluster_id,
            store_id=identity.store_id,
            incarnation=identity.incarnation,
            groups=len(self._hosting.running),
            leading=sum(group.is_leader for group in self._hosting.running.values()),
            failed=tuple(sorted(group.id for group in self._hosting.opened.values() if group.failure is not None)),
            peers=self._peers.status(self._clock.now()),
            sync_count=self._storage.sync_count,
            sync_age=self._storage.sync_age(),
            has_room=self._storage.has_room,
            log_memory=self._node.log_memory,
        )

    async def add_group(
        self,
        group_id: GroupId,
        machine: StateMachine | None = None,
        *,
        members: Iterable[NodeId] = (),
        join: bool = False,
        config: GroupConfig | None = None,
        incarnation: int = 1,
    ) -> RaftGroup:
        """Open a group, or create it where neither the group nor its tombstone exists.

        A group begins with its `members`: call it alike on all of them. Whoever comes later joins: ``join=True`` makes a replica that has
        nothing and is no member yet; `RaftGroup.change_membership`, called at any member, makes it one, and the leader brings it
        everything. Also where a former replica of this node was removed (`remove_group`): the new one has nothing to do with it.

        Args:
            machine: a fresh one: it gets the newest snapshot and the log behind it. None: the `machine_factory` makes it; and a group
                that runs already, because a message came first, is returned as it is.
            config: None: the `group_config` of `open_manager`.
            members: node ids of the voters that begin the group, this node among them. Equal on all of them, and the same at each start.
            join: instead of `members`: others have begun the group. What is on the disk already is opened, whatever it is.
            incarnation: of the group; must exceed that of a tombstone to begin a group anew, but not to join it.

        Returns: the group, running. Its leader may not be known yet: `RaftGroup.wait_leader`.

        Raises:
            GroupExistsError: opened already (and stopped, maybe) and a machine was given, or on disk with other members or another
                incarnation, or removed in this incarnation.
            ConfigError: no machine and no factory; or `members` lacks this node, or names one without an address; or neither or both of
                `members` and `join`; or a command could be too large to send.
            CorruptLogError: the group's log is damaged; nothing was changed.
            StorageError: the group could not be written.
            GroupStoppedError: the node is stopping.

        *Cancellation:* a new group may have been created on disk; calling again opens it.
        """
        voters = None if join else frozenset(members)
        if join and members:
            raise ConfigError(f"group {group_id} is either begun with `members` or joined: not both")
        config = self._hosting.config if config is None else config
        self._check_arguments(group_id, incarnation, voters, machine, config)
        key = GroupKey(group_id, incarnation)
        if group_id in self._hosting.reserved:
            raise GroupExistsError(f"group {group_id} is being opened or removed on node {self.node_id} already")
        if (group := self._hosting.opened.get(group_id)) is not None:
            if machine is None and group.failure is None:
                await trio.lowlevel.checkpoint()
                check_matching(self._storage.recovered[group_id].record, key, voters)
                return group
            # NB: also when it has stopped: what the start found on disk is older than what the group wrote since.
            raise GroupExistsError(
                f"group {group_id} is open on node {self.node_id} already; one that stopped opens at the node's next start"
            )
        with self._hosting.reserve(group_id):
            await self._open_or_create(key, voters)
            machine = self._hosting.make_machine(group_id) if machine is None else machine
            return self._hosting.start(self._storage.recovered[group_id], machine, config)

    async def remove_group(
        self, group_id: GroupId, *, force: bool = False, incarnation: int | None = None, replica: EntryId | None = None
    ) -> None:
        """Stop a group on this node and leave a tombstone, so that no late message brings it back. The other members are not told:
        to have them go on without this replica, `RaftGroup.change_membership` comes first.

        Args:
            force: needed while this replica is a voter, as far as it knows: the group loses one vote for good. Also for one whose log is
                damaged.
            replica: of a damaged group, what `RaftGroup.status` of another member says in `replicas` of this node: that and all numbers
                before it never come again. Without it, this node cannot join the group again in this incarnation.
            incarnation: the one to remove; None: the one that is here. To be given where damage has made that unreadable. It and all
                before it are barred for good, so one too low would let the same replica come again without its vote.

        Raises:
            GroupNotFoundError: no such group here.
            ConfigError: no incarnation was given, and it cannot be read; or `replica` was given, and the group is not damaged: it knows
                that by itself.
            GroupExistsError: this replica is a voter and `force` was not given.
            StorageError: it could not be written; the group has stopped: call again.

        *Cancellation:* the group may be stopped and removed, or stopped and there again at the next start.
        """
        found, group = self._storage.recovered.get(group_id), self._hosting.opened.get(group_id)
        if found is not None and found.tombstone is not None:
            # Whoever asked for it first may have left; it is durable before anybody hears that the group is gone.
            await self._storage.remove_group(found.tombstone, found.barred)
        if found is None or (found.tombstone is not None and group is None):
            raise GroupNotFoundError(f"group {group_id} is not on node {self.node_id}")
        if found.tombstone is not None:
            self._hosting.forget(group, group_id)
            return
        if not force and (found.record is None or self.node_id in self._voters(found, group)):
            raise GroupExistsError(f"node {self.node_id} is a voter of group {group_id}: change its members first, or pass force=True")
        key = removed_key(found, incarnation)
        check_replica(found, replica)
        with self._hosting.reserve(group_id):
            if group is not None:
                await self._hosting.stop(group_id)
            await self._storage.remove_group(key, replica)
        self._hosting.forget(group, group_id)

    async def balance_leaders(self, prefer: Mapping[GroupId, Sequence[NodeId]] | None = None) -> dict[GroupId, NodeId]:
        """Hand leadership of some groups over, so that it is spread over the nodes; return what was moved, and where to.

        A node moves only what it leads: call this on each, now and then. It looks at all groups that are open here.

        Args:
            prefer: by group, the nodes that should lead it, the best first. Groups without a preference are spread evenly.

        Raises:
            ConfigError: a preference is no list of node ids.

        *Cancellation:* some groups may be moved.
        """
        prefer = prefer or {}
        if not all(map(_are_node_ids, prefer.values())):
            raise ConfigError("prefer is a list of node ids by group")
        await trio.lowlevel.checkpoint()
        now, led, leaders = self._clock.now(), dict[GroupId, list[NodeId]](), Counter[NodeId]()
        for group in self._hosting.running.values():
            if group.leader is not None:
                leaders[group.leader] += 1
            if group.is_leader:
                others = group.status().voters - {self.node_id}
                led[group.id] = sorted(node_id for node_id in others if now < self._peers.liveness.get(node_id, 0))
        moves = plan_balance(led, leaders, self.node_id, prefer)
        done = await hand_over({self._hosting.running[group_id]: target for group_id, target in moves.items()})
        return {group_id: moves[group_id] for group_id in done}

    # --- nodes --------------------------------------------------------------------------------------------------------------------------

    async def set_address(self, node_id: NodeId, address: str) -> None:
        """Say where a node is from now on, or make one known; call it on any one node. No group is touched.

        It is on this node's disk when this returns, and wins over `addresses` at the next start. The other nodes hear of it from this one,
        remember it too, and dial the node there. Of two addresses given to one node at the same time, the same one wins everywhere.

        Args:
            node_id: any node. This one, too: the others must hear where it moves to. A node that was not known becomes a peer.
            address: of a form that the transport knows; of no other node.

        Raises:
            ConfigError: a bad node id, a bad address, or another node has it.
            StorageError: it could not be written; nothing has changed.
            RaftError: this node is stopping.

        *Cancellation:* it may be in force, here and elsewhere.
        """
        self._check_runs()
        await self._book.set(node_id, address)

    async def forget_store(self, node_id: NodeId) -> None:
        """Forget which disk belongs to a node, because it was replaced: the next one that is seen is that node's.

        A node that lost its disk has lost its votes and what it acknowledged. So it must first be removed from its groups
        (`RaftGroup.change_membership`), which takes it out of every majority; and its former process must be gone. Then forget its store
        on every other node, start it with the new disk, have it join its groups (`add_group` with ``join=True``), and add it again.

        Raises:
            ConfigError: no such peer; or a group of this node still has it as a member. The text names the groups.
            StorageError: it could not be written; call again.
            RaftError: this node is stopping.

        *Cancellation:* it may be forgotten; call again.
        """
        self._check_runs()
        if node_id not in self._peers:
            raise ConfigError(f"node {node_id!r} is no peer of node {self.node_id}, whose store could be forgotten")
        having = self._hosting.groups_with(node_id)
        if having:
            shown = ", ".join(map(str, having[:10])) + (", ..." if having[10:] else "")
            raise ConfigError(
                f"node {node_id} is a member of {len(having)} groups of node {self.node_id}: {shown}. "
                f"Change their members first: with an empty disk it would break what it promised them"
            )
        await self._forget_store(node_id)

    def _check_runs(self) -> None:
        if self._hosting.is_stopping:
            raise RaftError(f"node {self.node_id} is stopping")

    def _voters(self, found: RecoveredGroup, group: RaftGroup | None) -> frozenset[NodeId]:
        if group is not None:
            status = group.status()
            return frozenset() if status.is_removed else status.voters | status.outgoing
        history = found.durable.configurations
        configuration = history[-1][1] if history else cast(GroupRecord, found.record).configuration
        return frozenset(configuration.voter_ids())

    def _check_arguments(
        self, group_id: GroupId, incarnation: int, voters: frozenset[NodeId] | None, machine: StateMachine | None, config: GroupConfig
    ) -> None:
        """Refuse what would fail later, when the group is on disk already."""
        if type(group_id) is not int or not 0 <= group_id < 1 << 63:
            raise ConfigError(f"a group id is a whole number from 0 to 2**63 - 1, not {group_id!r}")
        check_incarnation(incarnation)
        if machine is not None or not self._hosting.has_factory:
            check_machine(group_id, machine)
        if not isinstance(config, GroupConfig):
            raise ConfigError(f"the config of group {group_id} must be a GroupConfig, not {config!r}")
        if voters is not None:
            self._check_members(group_id, voters)
        if config.entry_bytes_max > self._payload_bytes_max:
            raise ConfigError(
                f"entry_bytes_max of group {group_id} is {config.entry_bytes_max}, but the transport carries at most "
                f"{self._payload_bytes_max} bytes: lower the one, or raise frame_bytes_max of both the transport and the server"
            )

    def _check_members(self, group_id: GroupId, voters: frozenset[NodeId]) -> None:
        if not voters:
            raise ConfigError(f"group {group_id} needs `members` to begin with, or join=True if others have begun it")
        if any(type(node_id) is not int for node_id in voters):
            raise ConfigError(f"members of group {group_id} must be node ids, which are whole numbers, not {set(voters)!r}")
        if self.node_id not in voters:
            raise ConfigError(f"members of group {group_id} are {sorted(voters)}, without this node ({self.node_id})")
        strangers = sorted(node_id for node_id in voters - {self.node_id} if node_id not in self._peers)
        if strangers:
            raise ConfigError(f"members {strangers} of group {group_id} have no address: name them in `addresses` of open_manager")

    async def _open_or_create(self, key: GroupKey, voters: frozenset[NodeId] | None) -> None:
        """See to it that the group is on the disk."""
        found = self._storage.recovered.get(key.group_id)
        if found is not None and found.failure is not None:
            raise found.failure
        if found is not None and found.record is not None:
            await trio.lowlevel.checkpoint()
            check_matching(found.record, key, voters)
            return
        if voters is None:
            record = GroupRecord(key, Member(self.node_id, barred(key, found)), Configuration(()), awaits_number=True)
        else:
            record = GroupRecord(key, Member(self.node_id), Configuration.bootstrap(voters))
            if found is not None and found.tombstone is not None and key.incarnation <= found.tombstone.incarnation:
                raise GroupExistsError(
                    f"group {key.group_id} was removed here in incarnation {found.tombstone.incarnation}: a new one needs "
                    f"incarnation={found.tombstone.incarnation + 1} on all its members; join=True comes back to the one that is there"
                )
        await self._storage.create_group(record)


def _are_node_ids(nodes: object) -> bool:
    return isinstance(nodes, Sequence) and all(type(node_id) is int for node_id in nodes)
