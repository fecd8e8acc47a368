"""SN-13: a state that is larger than any frame, and than the memory that may be used for it. Real time, real disks.

The state itself is generated, so that what memory is used is the library's. `nox -s bench -- --scenario snapshot` does the same with 1 GiB,
over sockets.
"""

from __future__ import annotations

import hashlib
import random
import tracemalloc
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import trio

import trioraft
from trioraft import ApplyContext, GroupConfig, MemoryNetwork, MemoryTransport, MultiRaftConfig, StateMachine, StorageConfig, WalStorage

MIB = 1 << 20
RECORDS = 512
RECORD_BYTES = 64 << 10  # 32 MiB in all
ALLOWANCE = 12 * MIB


class Generated(StateMachine):
    """A large state that takes no memory; restoring it checks it."""

    def __init__(self) -> None:
        self.applied = 0
        self.restored = ""

    def apply(self, command: Any, context: ApplyContext) -> int:
        self.applied = context.index
        return self.applied

    def snapshot(self) -> Iterator[bytes]:
        return (random.Random(number).randbytes(RECORD_BYTES) for number in range(RECORDS))

    def restore(self, records: Iterator[bytes]) -> None:
        digest = hashlib.sha256()
        for record in records:
            digest.update(record)
        self.restored = digest.hexdigest()


class Liveness(trioraft.Instrument):
    """How often a node was taken for dead."""

    def __init__(self) -> None:
        self.lost = 0

    def on_event(self, event: trioraft.Event) -> None:
        if isinstance(event, trioraft.PeerLiveness) and not event.live:
            self.lost += 1


async def test_SN_13_a_state_larger_than_frames_and_memory_is_streamed_and_pulses_are_on_time(tmp_path: Path, seed: int) -> None:
    network, machines, liveness = MemoryNetwork(random.Random(seed)), {n: Generated() for n in (1, 2, 3)}, Liveness()

    async def start(stack: AsyncExitStack, node_id: int) -> trioraft.RaftGroup:
        manager = await stack.enter_async_context(
            trioraft.open_manager(
                node_id=node_id,
                cluster_id="large",
                storage=WalStorage(StorageConfig(base_dir=tmp_path / str(node_id))),
                transport=MemoryTransport(network),
                addresses={1: "127.0.0.1:1", 2: "127.0.0.1:2", 3: "127.0.0.1:3"},
                config=MultiRaftConfig(snapshot_piece_bytes=64 << 10),
                instruments=[liveness],
            )
        )
        return await manager.add_group(1, machines[node_id], members={1, 2, 3}, config=GroupConfig(keep_entries=0))

    with trio.fail_after(100):
        async with AsyncExitStack() as stack:
            groups = [await start(stack, 1), await start(stack, 2)]
            await groups[0].wait_leader()
            leader = next(group for group in groups if group.id and group.leader is not None and group.is_leader)
            for _ in range(20):
                await leader.propose("x")
            await trio.lowlevel.checkpoint()
            tracemalloc.start()
            try:
                before = tracemalloc.get_traced_memory()[0]
                await leader.snapshot()
                taken = tracemalloc.get_traced_memory()[1] - before
                liveness.lost = 0
                late = await start(stack, 3)
                await leader.propose("while it moves")
                await late.wait_applied(leader.status().commit_index)
                moved = tracemalloc.get_traced_memory()[1] - before
            finally:
                tracemalloc.stop()
            expected = hashlib.sha256(b"".join(machines[1].snapshot())).hexdigest()
            assert machines[3].restored == expected
            assert late.status().snapshot.index >= 20
            assert taken < ALLOWANCE
            assert moved < ALLOWANCE
            assert liveness.lost == 0, "a pulse came too late"
