"""`node.toml`, the lock, and directories that cannot be used."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import zlib
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.storage.kit import FIRST, G1, found_on, record, serving, wal
from trioraft._errors import ConfigError, CorruptLogError, InvariantError, StorageError
from trioraft.storage import DiskCall, FileStorage, NodeRecord, PeerRecord, SimulatedDisk, StorageConfig, WalStorage
from trioraft.storage._node_file import NodeFile, parse_node_file, render_node_file

PATH = "data/node.toml"
SAMPLE = NodeFile(
    NodeRecord(3, 'cluster "x" \\ é', "0f" * 16, 12),
    5,
    77,
    {1: PeerRecord(1, "ab" * 16, "host:1", 4), 2: PeerRecord(2), 4: PeerRecord(4, None, "[::1]:5001", 1)},
)


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk(random.Random(1))


def test_round_trip() -> None:
    assert parse_node_file(render_node_file(SAMPLE), PATH) == SAMPLE


def test_every_byte_flipped_is_noticed() -> None:
    data = render_node_file(SAMPLE)
    for place in range(len(data)):
        for flip in (1, 0x80):
            rotten = data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :]
            with pytest.raises(StorageError, match=PATH):
                parse_node_file(rotten, PATH)


@pytest.mark.parametrize("size", [0, 1, 30, 200, -1, -20])
def test_a_cut_file_is_noticed(size: int) -> None:
    with pytest.raises(CorruptLogError, match=PATH):
        parse_node_file(render_node_file(SAMPLE)[:size], PATH)


@pytest.mark.parametrize("garbage", [b"", b"\0" * 300, b"\xff\xfe", b"format = 1", b'format = "x"', b"node_id = 1\n", b"<html>"])
async def test_garbage_is_refused_and_untouched(disk: SimulatedDisk, garbage: bytes) -> None:
    async with serving(wal(disk.mount())):
        pass
    disk.overwrite(PATH, garbage)
    with pytest.raises(CorruptLogError, match=PATH):
        await found_on(disk)
    assert disk.contents(PATH) == garbage


async def test_ST_22_a_directory_of_a_later_format_is_refused_and_untouched(disk: SimulatedDisk) -> None:
    async with serving(wal(disk.mount())):
        pass
    text = disk.contents(PATH).partition(b"[end]")[0].replace(b"format = 1", b"format = 2") + b"[end]\n"
    future = text + f'checksum = "{zlib.crc32(text):08x}"\n'.encode()
    for data in (future, b"format = 2\nsomething = 'else'\n"):
        disk.overwrite(PATH, data)
        before = disk.contents(FIRST)
        with pytest.raises(StorageError, match="later version") as caught:
            await found_on(disk)
        assert caught.value.kind == "format"
        assert disk.contents(PATH) == data
        assert disk.contents(FIRST) == before


async def test_a_log_without_its_node_file_is_refused(disk: SimulatedDisk) -> None:
    """Whoever lost it lost the store id: the disk must not pass for a new one."""
    async with serving(wal(disk.mount())):
        pass
    disk.delete(PATH)
    with pytest.raises(StorageError, match=r"node\.toml") as caught:
        await found_on(disk)
    assert caught.value.kind == "foreign"


async def test_a_foreign_directory_says_whose_it_is(disk: SimulatedDisk) -> None:
    async with serving(wal(disk.mount())):
        pass
    with pytest.raises(StorageError, match="cluster 'demo', this is cluster 'prod'"):
        await wal(disk.mount()).open(1, "prod")
    with pytest.raises(StorageError, match="node 1, this is node 2"):
        await wal(disk.mount()).open(2, "demo")
    assert b"incarnation = 1\n" in disk.contents(PATH), "nothing was counted"


async def test_a_peer_that_cannot_be_written_down(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    async with serving(storage):
        await storage.remember_peer(PeerRecord(2, "aa" * 16))

        async def fail(call: DiskCall) -> None:
            if call.path.startswith(PATH) and call.verb == "write":
                raise OSError(28, "simulated")

        disk.hook = fail
        with pytest.raises(StorageError) as caught:
            await storage.remember_peer(PeerRecord(3, "bb" * 16))
        assert caught.value.kind == "full"
        assert set(storage.peers) == {2}
        disk.hook = None
        await storage.create_group(record(G1))
        await storage.remember_peer(PeerRecord(3, "bb" * 16))
        disk.calls.clear()
        await storage.remember_peer(PeerRecord(3, "bb" * 16))
        assert not disk.calls, "what is known already costs nothing"
    disk.crash("none")
    storage = wal(disk.mount())
    async with serving(storage):
        assert set(storage.peers) == {2, 3}


async def test_no_space_to_start(disk: SimulatedDisk) -> None:
    disk.capacity = 100
    with pytest.raises(StorageError) as caught:
        await wal(disk.mount()).open(1, "demo")
    assert caught.value.kind == "full"
    disk.capacity = None
    async with serving(wal(disk.mount())):
        pass


async def test_use_before_open_and_twice(disk: SimulatedDisk) -> None:
    storage = wal(disk.mount())
    for use in (lambda: storage.has_room, lambda: storage.sync_count, lambda: storage.peers, storage.sync_age):
        with pytest.raises(InvariantError, match="not open"):
            use()
    async with serving(storage):
        with pytest.raises(InvariantError, match="once"):
            await storage.open(1, "demo")
    with pytest.raises(ConfigError, match="cluster_id"):
        await wal(disk.mount()).open(1, "two\nlines")


# -- real files ------------------------------------------------------------------------------------------------------------------


async def test_ST_16_a_second_node_on_the_directory_fails_at_once(tmp_path: Path) -> None:
    config = StorageConfig(base_dir=str(tmp_path))
    first = WalStorage(config)
    await first.open(1, "demo")
    with pytest.raises(StorageError, match=f"held by process {os.getpid()}") as caught:
        await WalStorage(config).open(1, "demo")
    assert caught.value.kind == "locked"
    assert caught.value.path == str(tmp_path / "lock")
    await first.aclose()
    second = WalStorage(config)
    assert (await second.open(1, "demo")).incarnation == 2
    await second.aclose()


@pytest.mark.processes
async def test_ST_16_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    program = (
        "import sys, trio, trioraft.storage as s\n"
        "async def main():\n"
        "    await s.WalStorage(s.StorageConfig(base_dir=sys.argv[1])).open(1, 'demo')\n"
        "    print('open', flush=True)\n"
        "    await trio.sleep(60)\n"
        "trio.run(main)\n"
    )
    async with trio.open_nursery() as nursery:
        command = [sys.executable, "-c", program, str(tmp_path)]
        process = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE, check=False))
        try:
            assert (await process.stdout.receive_some()).startswith(b"open"), "all that the program writes, at once or in pieces"
            with pytest.raises(StorageError, match=f"held by process {process.pid}"):
                await WalStorage(StorageConfig(base_dir=str(tmp_path))).open(1, "demo")
        finally:
            process.kill()
    storage = WalStorage(StorageConfig(base_dir=str(tmp_path)))
    assert (await storage.open(1, "demo")).incarnation == 2
    await storage.aclose()


@pytest.mark.parametrize("kind", [WalStorage, FileStorage])
async def test_a_second_opening_is_refused_and_leaves_the_lock_to_the_first(tmp_path: Path, kind: type[WalStorage | FileStorage]) -> None:
    config = StorageConfig(base_dir=str(tmp_path))
    storage = kind(config)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(storage.open, 1, "demo")
        while not (tmp_path / "lock").exists():
            await trio.lowlevel.checkpoint()
        with pytest.raises(InvariantError, match="opened once"):
            await storage.open(1, "demo")
    with pytest.raises(StorageError, match="held by process"):
        await kind(config).open(1, "demo")
    await storage.aclose()


@pytest.mark.parametrize("kind", [WalStorage, FileStorage])
async def test_an_opening_that_was_refused_may_be_tried_again(disk: SimulatedDisk, kind: type[WalStorage | FileStorage]) -> None:
    config = StorageConfig(base_dir="data")
    first = kind(config, disk.mount())
    await first.open(1, "demo")
    second = kind(config, disk.mount())
    with pytest.raises(StorageError, match="another node uses"):
        await second.open(1, "demo")
    await first.aclose()
    with pytest.raises(StorageError, match="belongs to cluster"):
        await second.open(1, "other")
    assert (await second.open(1, "demo")).incarnation == 2
    await second.aclose()
    with pytest.raises(InvariantError, match="opened once"):
        await second.open(1, "demo")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_an_unwritable_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError) as caught:
        await WalStorage(StorageConfig(base_dir=str(tmp_path / "node"))).open(1, "demo")
    assert caught.value.kind == "unwritable"


async def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "node").write_text("not a directory")
    with pytest.raises(StorageError) as caught:
        await WalStorage(StorageConfig(base_dir=str(tmp_path / "node"))).open(1, "demo")
    assert caught.value.kind == "unwritable"
    assert str(tmp_path / "node") in str(caught.value)


# -- the configuration -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field, values",
    [
        ("base_dir", ["", "a\0b", 7, b"bytes", None]),
        ("sync_on_write", [1, "yes", None]),
        ("max_log_file_size", [0, 4095, (1 << 30) + 1, 1e6, True]),
        ("queue_bytes_max", [0, -1, "1"]),
        ("batch_bytes_max", [0, 4095]),
        ("shutdown_write_timeout", [-1, float("nan"), float("inf"), "5", True]),
        ("space_poll_interval", [0, -1, float("nan"), 3601]),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=field):
            StorageConfig(**{field: value})


def test_base_dir_may_be_a_path() -> None:
    assert StorageConfig(base_dir=Path("some") / "where").base_dir == "some/where"
