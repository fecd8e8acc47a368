"""A group that is on disk opens as what it is, or not at all."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
import trio.testing

import trioraft
from trioraft import MemoryNetwork, MemoryTransport, MultiRaftManager, StorageConfig, WalStorage, open_manager
from trioraft.storage import SimulatedDisk

from .cluster import Journal

ADDRESSES = {1: "127.0.0.1:1", 2: "127.0.0.1:2", 3: "127.0.0.1:3"}


def node(disk: SimulatedDisk, node_id: int = 1, cluster_id: str = "c") -> Any:
    return open_manager(
        node_id=node_id,
        cluster_id=cluster_id,
        storage=WalStorage(StorageConfig(base_dir="/data"), disk=disk.mount()),
        transport=MemoryTransport(MemoryNetwork()),
        addresses=ADDRESSES,
    )


async def write_one(disk: SimulatedDisk) -> None:
    manager: MultiRaftManager
    async with node(disk) as manager:
        group = await manager.add_group(7, Journal(), members={1})
        await group.wait_leader()
        assert await group.propose("x") == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"members": {1, 2, 3}}, r"created with members \[1\], not \[1, 2, 3\]"),
        ({"members": {1}, "incarnation": 2}, "exists here in incarnation 1, not 2"),
    ],
)
async def test_other_members_or_another_incarnation_of_an_existing_group_are_refused_and_lose_nothing(
    autojump_clock: trio.testing.MockClock, seed: int, arguments: dict[str, Any], text: str
) -> None:
    disk = SimulatedDisk(random.Random(seed))
    with trio.fail_after(60):
        await write_one(disk)
        async with node(disk) as manager:
            with pytest.raises(trioraft.GroupExistsError, match=text):
                await manager.add_group(7, Journal(), **arguments)
            machine = Journal()
            group = await manager.add_group(7, machine, members={1})
            await group.wait_leader()
            assert await group.propose("y") == 2
            assert machine.commands == ["x", "y"]


@pytest.mark.parametrize("other", [{"node_id": 2}, {"cluster_id": "another"}])
async def test_the_directory_of_another_node_or_cluster_is_refused_and_untouched(
    autojump_clock: trio.testing.MockClock, other: dict[str, Any]
) -> None:
    disk = SimulatedDisk(random.Random(1))
    with trio.fail_after(60):
        await write_one(disk)
        before = disk.contents("/data/node.toml")
        with pytest.raises(trioraft.StorageError) as caught:
            async with node(disk, **other):
                pass
        assert caught.value.kind == "foreign"
        assert disk.contents("/data/node.toml") == before
