"""One suite, and each transport that there is."""

from __future__ import annotations

import gc
import random
from itertools import count
from pathlib import Path

import pytest

from trioraft.testing import Endpoint, TransportSuite
from trioraft.transport import MemoryNetwork, MemoryTransport, RpcServer, RpcServerConfig, ServedNode, TcpTransport, TcpTransportConfig

# Small queues, since the suite fills them; and waits longer than any test, so that only what the suite does can end them.
CONFIG = TcpTransportConfig(
    frame_bytes_max=2 << 20, queue_bytes_max=1 << 20, queue_messages_max=500, batch_bytes_max=64 << 10, backoff_min=60, backoff_max=600
)
ANYWHERE = RpcServerConfig(bind_addr="127.0.0.1:0", frame_bytes_max=2 << 20)


class TestTcp(TransportSuite):
    async def make_endpoint(self, node: ServedNode) -> Endpoint:
        return Endpoint(TcpTransport(CONFIG), RpcServer(ANYWHERE, node))


class TestUnixSockets(TransportSuite):
    """At a path of its own for each endpoint, and afterwards there is no file."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path):  # type: ignore[no-untyped-def]  # a fixture
        if len(str(tmp_path)) > 95:
            pytest.skip("the directory for tests has too long a name for sockets")
        self._paths = (tmp_path / str(number) for number in count())
        yield
        gc.collect()
        assert list(tmp_path.iterdir()) == []

    async def make_endpoint(self, node: ServedNode) -> Endpoint:
        server = RpcServerConfig(bind_addr=f"unix:{next(self._paths)}", frame_bytes_max=2 << 20)
        return Endpoint(TcpTransport(CONFIG), RpcServer(server, node))


class TestUnixSocketsAtTheirOldPlaces(TestUnixSockets):
    """A node that comes back is where it was, so its peers are told nothing new."""

    @pytest.fixture(autouse=True)
    def _places(self, tmp_path: Path) -> None:
        self._path = tmp_path

    async def make_endpoint(self, node: ServedNode) -> Endpoint:
        place = self._path / str(node.identity.node_id)
        if place.exists():
            return await super().make_endpoint(node)
        return Endpoint(TcpTransport(CONFIG), RpcServer(RpcServerConfig(bind_addr=f"unix:{place}", frame_bytes_max=2 << 20), node))


class TestMemory(TransportSuite):
    has_addresses = False

    @pytest.fixture(autouse=True)
    def _network(self) -> None:
        self._hub = MemoryNetwork(random.Random(1), queue_bytes_max=256 << 10)

    async def make_endpoint(self, node: ServedNode) -> Endpoint:
        return Endpoint(MemoryTransport(self._hub), address=f"memory:{node.identity.node_id}")


def test_tests_that_do_not_apply_are_named() -> None:
    skipped = [name for name in TestMemory.names() if getattr(TestMemory, name) is not getattr(TransportSuite, name)]
    assert skipped == ["test_other_node_at_the_address_is_refused", "test_peer_moves"]
    assert [name for name in TestTcp.names() if getattr(TestTcp, name) is not getattr(TransportSuite, name)] == []
