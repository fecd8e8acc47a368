"""Unix sockets: the same transport and the same listener, and what becomes of the file."""

from __future__ import annotations

import logging
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.transport.kit import FakeReceiver, Node, SnapshotTaker, append, identity, pair, pulse, until, vote
from trioraft import ConfigError, TransportError
from trioraft.transport import Address, RpcServer, RpcServerConfig, TcpTransport, TcpTransportConfig, UnixAddress, parse_address
from trioraft.transport._unix import open_unix, open_unix_listener
from trioraft.wire import PING, PONG, FrameReader, Hello, decode_welcome, encode_frame, encode_hello

LIMIT = 107 if sys.platform == "linux" else 103


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose path leaves room for a name: the system allows a socket some hundred bytes."""
    if len(str(tmp_path)) > 80:
        pytest.skip("the directory for tests has too long a name for sockets")
    return tmp_path


def node(place: Path, number: int, **options: object) -> Node:
    limits = options.pop("limits", {})
    server = RpcServerConfig(bind_addr=f"unix:{place}/{number}", **limits)  # type: ignore[arg-type]  # whatever the test says
    return Node(identity(number), server=server, **options)  # type: ignore[arg-type]  # whatever the test says


# Addresses.


def test_address_is_read_and_shown_as_written() -> None:
    address = parse_address("unix:/run/raft/1.sock")
    assert address == UnixAddress("/run/raft/1.sock")
    assert str(address) == "unix:/run/raft/1.sock"
    assert address.is_loopback
    assert parse_address("127.0.0.1:1") == Address("127.0.0.1", 1)
    assert RpcServerConfig(bind_addr="unix:/run/a b:5001").address == UnixAddress("/run/a b:5001")


@pytest.mark.parametrize(
    "text, why",
    [
        ("unix:", "no absolute path"),
        ("unix:run/1.sock", "no absolute path"),
        ("unix:./1.sock", "no absolute path"),
        ("unix:~/1.sock", "no absolute path"),
        ("unix://host/1.sock", "one slash"),
        ("unix:///run/1.sock", "one slash"),
        ("unix:/run/", "no absolute path of a file"),
        ("unix:@name", "abstract"),
        ("unix:\0name", "abstract"),
        ("unix:/a\0b", "unprintable"),
        ("unix:/a\nb", "unprintable"),
        ("unix:/a\udc80b", "unprintable"),
    ],
)
def test_what_is_no_address_is_named(text: str, why: str) -> None:
    for refused in (lambda: parse_address(text), lambda: RpcServerConfig(bind_addr=text), lambda: TcpTransport().set_address(2, text)):
        with pytest.raises(ConfigError, match=why) as caught:
            refused()
        assert repr(text) in str(caught.value)


def test_path_too_long_is_an_error_with_the_limit() -> None:
    fits = "/" + "x" * (LIMIT - 1)
    assert parse_address(f"unix:{fits}") == UnixAddress(fits)
    with pytest.raises(ConfigError, match=f"a path of {LIMIT + 1} bytes, .* at most {LIMIT}"):
        parse_address(f"unix:{fits}x")
    with pytest.raises(ConfigError, match=f"at most {LIMIT}"):
        parse_address("unix:/" + "é" * (LIMIT // 2 + 1))


async def test_the_limit_is_the_system_s(place: Path) -> None:
    """The longest path that is allowed can be listened on."""
    path = f"{place}/".ljust(LIMIT, "x")
    listener = await open_unix_listener(UnixAddress(path), 1)
    await listener.aclose()
    with pytest.raises(OSError, match="too long"), socket.socket(socket.AF_UNIX) as other:
        other.bind(path + "x")


def test_system_without_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(ConfigError, match="this system has no Unix sockets"):
        parse_address("unix:/run/1.sock")


# The same transport.


async def test_verbs_and_snapshots_go_through_it(place: Path) -> None:
    taker = SnapshotTaker()
    async with pair(node(place, 1), node(place, 2, receiver=taker), both_ways=True) as (one, two, _):
        assert two.address == f"unix:{place}/2"
        one.transport.send_append_entries(2, [append(1, 2, size=100_000)])
        one.transport.send_vote(2, [vote(1, 2)])
        one.transport.send_heartbeat_batch(2, pulse(5))
        await one.transport.send_install_snapshot(2, b"x" * 100_000)
        await taker.wait(lambda: len(taker.envelopes) == 2 and len(taker.pulses) == 1 and len(taker.pieces) == 1)
        await until(lambda: two.peer(1).connected_lanes == 2)
        two.transport.send_vote(1, [vote(2, 1)])
        await one.receiver.wait(lambda: len(one.receiver.envelopes) == 1)


async def test_pings_are_answered(place: Path) -> None:
    async with pair(node(place, 1, config=TcpTransportConfig(ping_interval=0.02, read_timeout=5)), node(place, 2)) as (one, _two, _):
        await until(lambda: one.peer(2).frames_received >= 4)
        assert one.peer(2).connects == 2


async def test_tcp_on_one_side_and_a_unix_socket_on_the_other(place: Path) -> None:
    async with pair(node(place, 1), Node(identity(2)), both_ways=True) as (_one, two, _):
        await until(lambda: two.peer(1).connected_lanes == 2)


async def test_opener_for_tcp_does_not_get_unix_sockets(place: Path) -> None:
    async def fail(address: Address) -> trio.abc.Stream:
        raise AssertionError(address)

    async with pair(node(place, 1, open_stream=fail), node(place, 2)):
        pass


async def test_peer_moves_from_tcp_to_a_unix_socket(place: Path) -> None:
    async with pair() as (one, _, nursery):
        moved = node(place, 2)
        await moved.listen(nursery)
        one.transport.set_address(2, moved.address)
        await until(lambda: one.peer(2).connects == 4)
        one.transport.send_vote(2, [vote(1, 2)])
        await moved.receiver.wait(lambda: len(moved.receiver.envelopes) == 1)


async def test_absent_peer_is_named_by_its_path(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with pair(node(place, 1), node(place, 2), wait=False) as (one, _two, _):
        one.transport.set_address(3, f"unix:{place}/nobody")
        await until(lambda: one.peer(3).last_refusal is not None)
        assert one.peer(3).last_refusal.startswith("away: ")
    assert any(f"lane to node 3 at unix:{place}/nobody is not open: away" in record.getMessage() for record in caplog.records)


async def test_opened_lanes_name_peer_and_path(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trioraft.transport")
    async with pair(node(place, 1), node(place, 2)):
        pass
    said = {record.getMessage() for record in caplog.records}
    assert f"node 1 opened its append lane, from unix:{place}/2" in said
    assert f"the append lane to node 2 is open, at unix:{place}/2" in said


# Limits. All callers of a Unix socket come from nowhere, so none of them may be about where somebody comes from.


class Caller:
    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream, self.frames = stream, FrameReader(1 << 20)

    async def hear(self) -> bytes | None:
        while (body := self.frames.next_frame()) is None:
            data = await self.stream.receive_some()
            if not data:
                return None
            self.frames.feed(data)
        return bytes(body)

    async def hello(self, sender: int, lane: str) -> str | None:
        await self.stream.send_all(encode_frame([encode_hello(Hello("test", sender, 2, identity(sender).store_id, 1, lane))]))
        body = await self.hear()
        assert body is not None
        return decode_welcome(body).refusal


async def test_connections_are_counted_by_node(place: Path) -> None:
    here = node(place, 2, limits={"max_connections_per_addr": 3}, receiver=SnapshotTaker())
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            await here.listen(nursery)
            callers = []
            for sender in (1, 3, 4):
                for lane in ("control", "append", "snapshot"):
                    callers.append(Caller(await open_unix(UnixAddress(f"{place}/2"))))
                    assert await callers[-1].hello(sender, lane) is None
            callers.append(Caller(await open_unix(UnixAddress(f"{place}/2"))))
            assert await callers[-1].hello(3, "snapshot") == "busy"
            await callers[0].stream.send_all(PING)
            assert await callers[0].hear() == PONG[8:]
            for caller in callers:
                await caller.stream.aclose()
            nursery.cancel_scope.cancel()


async def test_strangers_are_bounded_and_the_oldest_goes(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    here = node(place, 2, limits={"unauthenticated_connections_max": 3})
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            await here.listen(nursery)
            strangers = [Caller(await open_unix(UnixAddress(f"{place}/2"))) for _ in range(5)]
            for gone in strangers[:2]:
                assert await gone.hear() is None
            assert here.server.statistics().unauthenticated == 3
            assert await strangers[2].hello(1, "append") is None
            await strangers[3].stream.send_all(b"garbage" * 10)
            assert await strangers[3].hear() is None
            for stranger in strangers:
                await stranger.stream.aclose()
            nursery.cancel_scope.cancel()
    assert any(f"refused a stranger at unix:{place}/2: garbage" in record.getMessage() for record in caplog.records)


# The file.


async def test_file_is_the_owner_s_alone_and_goes_at_an_orderly_end(place: Path) -> None:
    before = os.umask(0)
    try:
        async with pair(node(place, 1), node(place, 2)):
            assert sorted(path.name for path in place.iterdir()) == ["1", "2"]
            assert stat.S_IMODE((place / "1").stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert list(place.iterdir()) == []


LISTEN_AND_SAY_SO = """
import sys, trio
from trioraft.transport import UnixAddress
from trioraft.transport._unix import open_unix_listener

async def main():
    listener = await open_unix_listener(UnixAddress(sys.argv[1]), 1)
    print("listening", flush=True)
    await trio.sleep_forever()

trio.run(main)
"""


async def test_file_of_a_killed_process_is_replaced(place: Path) -> None:
    """And not while that process is alive, be it ever so still."""
    path = place / "2"
    with (
        trio.fail_after(30),
        subprocess.Popen([sys.executable, "-c", LISTEN_AND_SAY_SO, str(path)], stdout=subprocess.PIPE) as process,  # noqa: ASYNC220  # it is stopped and killed, which Trio's own would wait for
    ):
        try:
            assert process.stdout is not None
            assert await trio.to_thread.run_sync(process.stdout.readline) == b"listening\n"
            process.send_signal(signal.SIGSTOP)
            # NB: the last two come when the backlog of the other process is full.
            for _ in range(5):
                with pytest.raises(OSError, match="another process listens there"):
                    await open_unix_listener(UnixAddress(str(path)), 1)
        finally:
            process.kill()
        process.wait()
    assert path.is_socket()
    async with pair(node(place, 1), node(place, 2)):
        pass
    assert not path.exists()


async def test_live_listener_is_left_alone(place: Path) -> None:
    async with pair(node(place, 1), node(place, 2)) as (one, two, _):
        with pytest.raises(TransportError, match="another process listens there") as caught:
            await RpcServer(RpcServerConfig(bind_addr=two.address), two).serve()
        assert (caught.value.kind, caught.value.peer) == ("bind", None)
        one.transport.send_vote(2, [vote(1, 2)])
        await two.receiver.wait(lambda: len(two.receiver.envelopes) == 1)


@pytest.mark.parametrize("what", ["file", "directory", "link", "datagram socket"])
async def test_what_is_no_socket_of_ours_is_never_removed(place: Path, what: str) -> None:
    path = place / "2"
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    match what:
        case "file":
            path.write_text("precious")
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to(place / "elsewhere")
        case _:
            made.bind(str(path))
    before = path.lstat()
    with made, pytest.raises(TransportError) as caught:
        await RpcServer(RpcServerConfig(bind_addr=f"unix:{path}"), Node(identity(2))).serve()
    assert caught.value.kind == "bind"
    assert str(path) in str(caught.value)
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)


async def test_no_directory_no_listener(place: Path) -> None:
    with pytest.raises(TransportError, match="No such file or directory") as caught:
        await RpcServer(RpcServerConfig(bind_addr=f"unix:{place}/none/2"), Node(identity(2))).serve()
    assert caught.value.kind == "bind"


async def test_file_that_somebody_put_in_place_of_ours_stays(place: Path) -> None:
    path = place / "2"
    listener = await open_unix_listener(UnixAddress(str(path)), 1)
    path.unlink()
    other = await open_unix_listener(UnixAddress(str(path)), 1)
    await listener.aclose()
    assert path.is_socket()
    await other.aclose()
    assert not path.exists()
    path.write_text("somebody else's")
    await other.aclose()
    assert path.exists(), "closed a second time, it removes nothing"


async def test_directory_that_went_first_is_no_error(place: Path) -> None:
    (place / "d").mkdir()
    listener = await open_unix_listener(UnixAddress(f"{place}/d/2"), 1)
    (place / "d/2").unlink()
    (place / "d").rmdir()
    await listener.aclose()


async def test_failed_listener_leaves_no_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(Path, "chmod", fail)
    with pytest.raises(PermissionError):
        await open_unix_listener(UnixAddress(f"{place}/2"), 1)
    assert list(place.iterdir()) == []


async def test_two_that_start_at_once_on_a_stale_file_are_one(place: Path) -> None:
    """Who has bound and does not listen yet looks like who is dead: the lock on the directory keeps the two apart."""
    import fcntl

    path = place / "2"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    directory = os.open(place, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    outcomes: list[str] = []
    kept = []

    async def start() -> None:
        try:
            kept.append(await open_unix_listener(UnixAddress(str(path)), 1))
            outcomes.append("listens")
        except OSError as error:
            outcomes.append(str(error.strerror))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            nursery.start_soon(start)
            await trio.testing.wait_all_tasks_blocked()
            assert (path.is_socket(), outcomes) == (True, [])
            os.close(directory)
    assert sorted(outcomes) == ["another process listens there", "listens"]
    await kept[0].aclose()


async def test_full_backlog_is_an_attempt_that_failed(place: Path) -> None:
    """Linux answers it as it answers a connection that is under way."""
    listener = await open_unix_listener(UnixAddress(f"{place}/2"), 1)
    opened = []
    with trio.fail_after(5), pytest.raises(OSError):
        while True:
            opened.append(await open_unix(UnixAddress(f"{place}/2")))
    assert len(opened) < 8
    for stream in opened:
        await stream.aclose()
    await listener.aclose()


async def test_cancelled_before_it_listens(place: Path) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await RpcServer(RpcServerConfig(bind_addr=f"unix:{place}/2"), Node(identity(2), receiver=FakeReceiver())).serve()
    assert scope.cancelled_caught
    assert list(place.iterdir()) == []
