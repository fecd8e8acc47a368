"""A replicated counter. Run it twice: it goes on where it was, because its log is in ``raft-data``."""

import trio

from trioraft import MemoryNetwork, MemoryTransport, Replicated, WalStorage, command, open_manager, query


class Counter(Replicated):
    def __init__(self) -> None:
        self.value = 0

    @command
    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    @query
    def get(self) -> int:
        return self.value


async def main() -> None:
    transport = MemoryTransport(MemoryNetwork())  # a cluster of one node has nobody to talk to
    async with open_manager(node_id=1, cluster_id="counter", storage=WalStorage(), transport=transport) as manager:
        counter = Counter()
        await manager.add_group(1, counter, members={1})
        print(await counter.add(5))


if __name__ == "__main__":
    trio.run(main)
