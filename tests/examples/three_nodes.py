"""Three nodes in one process, for examples that are a class: memory network, memory storage."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

import trioraft


@asynccontextmanager
async def three_nodes() -> AsyncIterator[list[trioraft.MultiRaftManager]]:
    """The managers of nodes 1 to 3, within a minute of the test's clock."""
    network = trioraft.MemoryNetwork()
    with trio.fail_after(60):
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(
                    trioraft.open_manager(
                        node_id=node_id,
                        cluster_id="test",
                        storage=trioraft.MemoryStorage(),
                        transport=trioraft.MemoryTransport(network),
                        addresses={i: f"127.0.0.1:{5000 + i}" for i in (1, 2, 3)},
                        generator=random.Random(node_id),
                    )
                )
                for node_id in (1, 2, 3)
            ]


async def until_done(call: Callable[[], Awaitable[Any]]) -> Any:
    """Call, again after each refusal that says it is safe to."""
    while True:
        try:
            return await call()
        except (trioraft.NotLeaderError, trioraft.BusyError, trioraft.ProposalDroppedError):
            await trio.sleep(0.05)
