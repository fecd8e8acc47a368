"""Two doors to one node: `open_manager` owns the nurseries, `serve_manager` is for a nursery of the user's.

The task tree: providers (log, senders, listener, clock) outlive the groups, which use them. A stop ends the groups first.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NotRequired, TypedDict, Unpack

import trio

from .._errors import ConfigError
from .._types import NodeId
from ..core import GroupConfig
from ..observe import Announcer, Counters, Instrument
from ..storage import MultiRaftStorage
from ..transport import MultiplexedTransport, RpcServerConfig
from ..wire import CLUSTER_ID_BYTES_MAX
from ._config import MultiRaftConfig
from ._hosting import MachineFactory
from ._manager import MultiRaftManager
from ._parts import Given, Parts


@asynccontextmanager
async def open_manager(
    *,
    node_id: NodeId,
    cluster_id: str,
    storage: MultiRaftStorage,
    transport: MultiplexedTransport,
    server: RpcServerConfig | None = None,
    addresses: Mapping[NodeId, str] | None = None,
    config: MultiRaftConfig | None = None,
    machine_factory: MachineFactory | None = None,
    group_config: GroupConfig | None = None,
    instruments: Sequence[Instrument] = (),
    generator: random.Random | None = None,
) -> AsyncIterator[MultiRaftManager]:
    """Run a node while the block runs.

    Args:
        node_id: this node, 1 to 2**32 - 1; the same for the life of the storage's directory.
        cluster_id: equal on all nodes of a cluster; nodes of another cluster are refused.
        server: where to listen; None for a transport that brings its own listener (memory).
        addresses: of all nodes that groups may name as members, this one included or not.
        machine_factory: makes the machine of a group that is on the disk when it is first needed: by a message, `get_group` or `add_group`.
            None: each group waits for its `add_group`.
        group_config: of all groups that are opened without one of their own.
        generator: the source of all randomness; give a seeded one to make a test repeatable.

    Raises:
        StorageError: the directory is locked, foreign, unwritable or from a newer version.
        ConfigError: an argument is out of range.
        TransportError: the address to listen at cannot be bound (kind ``bind``).

    What the block raises leaves as it is, never in an exception group. At the end, this node's leaders hand over first, then groups
    stop; every caller is answered.

    *Cancellation:* everything is stopped; writes in flight are waited for (bounded by the storage's configuration).
    """
    config = config or MultiRaftConfig()
    addresses = dict(addresses or {})
    _check_ids(node_id, addresses, cluster_id)
    body_error: BaseException | None = None
    # NB: before the `try`: a storage that another node has open is not ours to close.
    record = await storage.open(node_id, cluster_id)
    try:
        async with trio.open_nursery() as providers:
            given = Given(
                record=record,
                storage=storage,
                transport=transport,
                config=config,
                addresses=addresses,
                announcer=Announcer(Counters(), instruments),
                generator=generator or random.Random(),
                machine_factory=machine_factory,
                group_config=group_config or GroupConfig(),
            )
            parts = Parts(given, providers)
            try:
                async with trio.open_nursery() as groups:
                    manager = parts.manager(groups)
                    await parts.start_providers(manager, server)
                    try:
                        yield manager
                    except BaseException as error:  # noqa: BLE001, ASYNC103  # re-raised below, where no nursery wraps it in a group
                        body_error = error
                    await parts.leave_to_others()
                    groups.cancel_scope.cancel()
            finally:
                parts.answer_rest()
            await parts.say_goodbye()
            providers.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        if body_error is None or _is_cancellation(body_error):
            raise _first_error(errors)  # noqa: B904  # its own cause says more than the group around it
    finally:
        with trio.CancelScope(shield=True):
            await storage.aclose()
    if body_error is not None:
        raise body_error


async def serve_manager(
    *, task_status: trio.TaskStatus[MultiRaftManager] = trio.TASK_STATUS_IGNORED, **arguments: Unpack[_Arguments]
) -> None:
    """Run a node in a nursery of yours until cancelled: ``manager = await nursery.start(partial(serve_manager, node_id=1, ...))``.

    Arguments and errors are those of `open_manager`.
    """
    async with open_manager(**arguments) as manager:
        task_status.started(manager)
        await trio.sleep_forever()


class _Arguments(TypedDict):
    node_id: NodeId
    cluster_id: str
    storage: MultiRaftStorage
    transport: MultiplexedTransport
    server: NotRequired[RpcServerConfig | None]
    addresses: NotRequired[Mapping[NodeId, str] | None]
    config: NotRequired[MultiRaftConfig | None]
    machine_factory: NotRequired[MachineFactory | None]
    group_config: NotRequired[GroupConfig | None]
    instruments: NotRequired[Sequence[Instrument]]
    generator: NotRequired[random.Random | None]


def _is_cancellation(error: BaseException) -> bool:
    """Nothing but `Cancelled`, as a block that ran tasks of its own leaves it too."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)


def _first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first that is no cancellation, out of all groups: users meet errors, not groups of them."""
    cancelled, others = errors.split(trio.Cancelled)
    error: BaseException = others or cancelled or errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _check_ids(node_id: NodeId, addresses: Mapping[NodeId, str], cluster_id: str) -> None:
    for checked in (node_id, *addresses):
        if type(checked) is not int or not 1 <= checked < 1 << 32:
            raise ConfigError(f"a node id is a whole number from 1 to 2**32 - 1, not {checked!r}")
    if type(cluster_id) is not str or not cluster_id.isprintable() or not 1 <= len(cluster_id.encode()) <= CLUSTER_ID_BYTES_MAX:
        raise ConfigError(f"a cluster id is printable text of 1 to {CLUSTER_ID_BYTES_MAX} bytes, not {cluster_id!r}")
