"""A key-value store in many groups: each key belongs to one of them, and they all share one node, one log and one listener.

Groups commit side by side, and their leaders are on different nodes. What is in one group happens in one order for all; between keys of
different groups there is no order, and no command for both.

The number of shards is chosen once: it decides where each key lies.
"""

from __future__ import annotations

from collections.abc import Collection
from zlib import crc32

import trio

from trioraft import MemoryNetwork, MemoryTransport, MultiRaftManager, Replicated, WalStorage, command, open_manager, query


class Shard(Replicated):
    """The keys of one group."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}

    @command
    def put(self, key: str, value: bytes) -> None:
        self.rows[key] = value

    @command
    def delete(self, key: str) -> bool:
        """Tell whether there was such a key."""
        return self.rows.pop(key, None) is not None

    @query
    def get(self, key: str) -> bytes | None:
        return self.rows.get(key)


class ShardedStore:
    """All keys, as one node sees them. Made alike on each node."""

    def __init__(self, shards: list[Shard]) -> None:
        self._shards = shards

    @classmethod
    async def open(cls, manager: MultiRaftManager, members: Collection[int], *, shards: int = 16) -> ShardedStore:
        """Open the groups 0 to `shards` - 1."""
        store = cls([Shard() for _ in range(shards)])
        for group_id, shard in enumerate(store._shards):
            await manager.add_group(group_id, shard, members=members)
        return store

    def shard(self, key: str) -> Shard:
        """Where a key lies. NB: by a checksum, since `hash` of a text is another one in each process."""
        return self._shards[crc32(key.encode()) % len(self._shards)]

    async def put(self, key: str, value: bytes) -> None:
        await self.shard(key).put(key, value)

    async def get(self, key: str) -> bytes | None:
        return await self.shard(key).get(key)

    async def delete(self, key: str) -> bool:
        return await self.shard(key).delete(key)


async def main() -> None:
    transport = MemoryTransport(MemoryNetwork())
    async with open_manager(node_id=1, cluster_id="store", storage=WalStorage(), transport=transport) as manager:
        store = await ShardedStore.open(manager, members={1})
        async with trio.open_nursery() as nursery:
            for key in ("ant", "bee", "cat"):
                nursery.start_soon(store.put, key, key.upper().encode())
        print(await store.get("bee"), await store.delete("cat"), await store.get("cat"))


if __name__ == "__main__":
    trio.run(main)
