from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sharded_store
import trio
import trio.testing
from sharded_store import Shard, ShardedStore

from tests.examples.three_nodes import three_nodes, until_done


@pytest.mark.processes
def test_the_program_finds_what_it_put(tmp_path: Path) -> None:
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", sharded_store.__file__],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=45,
            check=False,
        )
        assert (done.stdout, done.stderr, done.returncode) == ("b'BEE' True None\n", "", 0)


def test_where_keys_lie_is_the_same_for_ever() -> None:
    shards = [Shard() for _ in range(16)]
    store = ShardedStore(shards)
    assert [shards.index(store.shard(key)) for key in ("ant", "bee", "cat", "", "\N{HONEYBEE}")] == KEYS
    assert len({shards.index(store.shard(str(i))) for i in range(200)}) == 16


KEYS = [9, 9, 8, 0, 5]


async def test_keys_go_through_any_node(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as managers:
        stores = [await ShardedStore.open(manager, {1, 2, 3}, shards=4) for manager in managers]
        for i in range(12):
            await until_done(lambda i=i: stores[i % 3].put(f"key {i}", bytes([i])))
        assert {len(shard.rows) > 0 for shard in stores[0]._shards} == {True}
        for i in range(12):
            assert await until_done(lambda i=i: stores[(i + 1) % 3].get(f"key {i}")) == bytes([i])
        assert await until_done(lambda: stores[0].delete("key 3")) is True
        assert await until_done(lambda: stores[1].delete("key 3")) is False
        assert await until_done(lambda: stores[2].get("key 3")) is None
