"""The whole public API, written out once as a user would type it. Checked by ``nox -s typing``; never run.

What stands in an annotation here is what the type checker of a user will see: `assert_type` fails when an inferred type changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, assert_type

import trio

import trioraft


class Overdrawn(Exception):
    """A result, not an accident."""


class Digits:
    """A codec of one's own."""

    def encode(self, command: int) -> bytes:
        return str(command).encode()

    def decode(self, payload: bytes) -> int:
        return int(payload)


class Account(trioraft.StateMachine):
    """Money: the smallest machine that can refuse."""

    blocking: ClassVar[bool] = False
    codec: ClassVar[trioraft.Codec | None] = Digits()
    declared_errors: ClassVar[tuple[type[Exception], ...]] = (Overdrawn,)

    def __init__(self) -> None:
        self.balance = 0

    def apply(self, command: int, context: trioraft.ApplyContext) -> int:
        assert_type(context.group_id, int)
        assert_type(context.index, int)
        assert_type(context.term, int)
        assert_type(context.node_id, int)
        if self.balance + command < 0:
            raise Overdrawn
        self.balance += command
        return self.balance

    def snapshot(self) -> Iterable[int]:
        return [self.balance]

    def restore(self, records: Iterator[int]) -> None:
        (self.balance,) = records

    def stored_index(self) -> int:
        return 0


def make_account(group_id: int) -> trioraft.StateMachine:
    """A factory for the groups of a disk."""
    return Account()


class Watcher(trioraft.Instrument):
    """All kinds of events."""

    def on_event(self, event: trioraft.Event) -> None:
        match event:
            case trioraft.RoleChanged(group_id=group_id, role=role, term=term, leader=leader):
                assert_type(group_id, int)
                assert_type(role, trioraft.Role)
                assert_type(term, int)
                assert_type(leader, int | None)
            case trioraft.GroupFailed(group_id=_, error=error):
                assert_type(error, BaseException)
            case trioraft.PeerLiveness(node_id=node_id, live=live):
                assert_type(node_id, int)
                assert_type(live, bool)
            case trioraft.PeerRefused(reason=reason):
                assert_type(reason, str)
            case trioraft.DiskSpaceChanged(available=available):
                assert_type(available, bool)
            case trioraft.SlowRoundTrip():
                pass
            case trioraft.SnapshotSaved(at=at, size=size, received=received):
                assert_type(at, trioraft.EntryId)
                assert_type(size, int)
                assert_type(received, bool)
            case trioraft.SnapshotFailed(what=what, error=error):
                assert_type(what, str)
                assert_type(error, BaseException)


def settings() -> tuple[trioraft.MultiRaftConfig, trioraft.GroupConfig]:
    """Every class of configuration, by keyword."""
    return (
        trioraft.MultiRaftConfig(heartbeat_interval=0.1, election_timeout=1.0),
        trioraft.GroupConfig(entry_bytes_max=1 << 20, window_messages=16),
    )


async def embed() -> None:
    """The form that owns everything."""
    node, limits = settings()
    storage = trioraft.WalStorage(trioraft.StorageConfig(base_dir="raft-data", sync_on_write=True, max_log_file_size=64 << 20))
    transport = trioraft.TcpTransport(
        trioraft.TcpTransportConfig(
            connect_timeout=10, read_timeout=30, write_timeout=30, max_connections_per_addr=5, tcp_keepalive=True, tcp_nodelay=True
        )
    )
    addresses: Mapping[int, str] = {1: "127.0.0.1:5001", 2: "127.0.0.1:5002", 3: "127.0.0.1:5003"}
    async with trioraft.open_manager(
        node_id=1,
        cluster_id="demo",
        storage=storage,
        transport=transport,
        server=trioraft.RpcServerConfig(bind_addr="127.0.0.1:5001"),
        addresses=addresses,
        config=node,
        machine_factory=make_account,
        group_config=limits,
        instruments=[Watcher()],
    ) as manager:
        assert_type(manager, trioraft.MultiRaftManager)
        assert_type(manager.group_ids, list[int])
        assert_type(await manager.add_group(8, members={1, 2, 3}), trioraft.RaftGroup)
        group = await manager.add_group(7, Account(), members={1, 2, 3}, config=limits)
        assert_type(group, trioraft.RaftGroup)
        await use(group)
        assert_type(manager.get_group(7), trioraft.RaftGroup)
        assert_type(manager.groups, Mapping[int, trioraft.RaftGroup])
        assert_type(manager.counters, trioraft.Counters)
        await manager.remove_group(7, force=True)


async def use(group: trioraft.RaftGroup) -> None:
    """One group."""
    assert_type(await group.wait_leader(), int)
    assert_type(await group.propose(5), Any)
    await group.wait_applied(2)
    assert_type(await group.snapshot(), trioraft.EntryId)
    assert_type(group.id, int)
    assert_type(group.leader, int | None)
    assert_type(group.is_leader, bool)
    assert_type(group.failure, BaseException | None)
    status = group.status()
    assert_type(status, trioraft.GroupStatus)
    assert_type(status.role, trioraft.Role)
    assert_type(status.commit_index, int)
    assert_type(status.voters, frozenset[int])


async def recover(group: trioraft.RaftGroup) -> None:
    """Every error that a caller can tell apart."""
    try:
        with trio.fail_after(2):
            await group.propose(-5)
    except Overdrawn:
        pass
    except trioraft.NotLeaderError as error:
        assert_type(error.leader, int | None)
    except (trioraft.BusyError, trioraft.ProposalDroppedError, trioraft.EntryTooLargeError):
        pass
    except trioraft.OutcomeUnknownError as error:
        assert_type(error.index, int | None)
        assert_type(error.term, int | None)
        fate = await error.fate()
        if fate == "applied" or fate == "dropped":
            return
    except trioraft.GroupStoppedError as error:
        assert_type(error.group_id, int)
        assert_type(error.reason, BaseException | None)
    except trioraft.StateMachineError as error:
        assert_type(error.index, int)
    except trioraft.SnapshotError:
        pass


def start() -> None:
    """Every error of a start."""
    try:
        trio.run(embed)
    except (trioraft.CorruptLogError, trioraft.CorruptSnapshotError) as error:
        assert_type(error.offset, int)
    except trioraft.StorageError as error:
        assert_type(error.kind, str)
        assert_type(error.path, str)
    except trioraft.TransportError as error:
        assert_type(error.peer, int | None)
    except (trioraft.ConfigError, trioraft.GroupExistsError, trioraft.GroupNotFoundError):
        pass
    except (trioraft.InvariantError, trioraft.WireError):
        pass
    except trioraft.RaftError:
        pass


def positions() -> None:
    """The value that names a place in a log."""
    position = trioraft.EntryId(term=2, index=7)
    assert_type(position.term, int)
    assert_type(str(position), str)


class Shelf(trioraft.Replicated):
    """A replicated object."""

    declared_errors: ClassVar[tuple[type[Exception], ...]] = (Overdrawn,)

    def __init__(self, places: int = 3) -> None:
        self.places = places
        self.books: dict[str, tuple[int, bytes]] = {}

    @trioraft.command
    def put(self, title: str, *, pages: int = 0) -> int:
        self.books[title] = (pages, b"")
        assert_type(self.context, trioraft.ApplyContext)
        return self.context.index

    @trioraft.command(version=2)
    def burn(self, title: str, reason: str = "") -> bool:
        return self._burn_1(title)

    @burn.version(1)
    def _burn_1(self, title: str) -> bool:
        return self.books.pop(title, None) is not None

    @trioraft.query
    def find(self, title: str) -> tuple[int, bytes] | None:
        return self.books.get(title)

    @trioraft.query(level="lease")
    def count(self) -> int:
        return len(self.books)


async def replicate(manager: trioraft.MultiRaftManager) -> None:
    """What a type checker sees of it: the parameters of the bodies, and results to be awaited."""
    shelf = Shelf(places=4)
    assert_type(shelf, Shelf)
    await manager.add_group(1, shelf, members={1, 2, 3})
    assert_type(await shelf.put("Emma", pages=474), int)
    assert_type(await shelf.burn("Emma", reason="cold"), bool)
    assert_type(await shelf.find("Emma"), tuple[int, bytes] | None)
    assert_type(await shelf.count(), int)
    assert_type(await shelf.upgrade(), int)
    assert_type(shelf.version_in_use, int)
    await shelf.put("Emma", 474)  # type: ignore[call-arg]  # pages is a keyword
    await shelf.put(5)  # type: ignore[arg-type]  # a title is a text
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shelf.put, "Persuasion")
    try:
        await shelf.find("Emma")
    except (trioraft.VersionError, trioraft.ResultError, Overdrawn):
        pass
