"""The example of the guide about transports passes the suite that the guide is about."""

from __future__ import annotations

from recording_transport import RecordingTransport

from trioraft.testing import Endpoint, TransportSuite
from trioraft.testing._transport_parts import append, cluster, vote
from trioraft.transport import RpcServer, RpcServerConfig, ServedNode, TcpTransport, TcpTransportConfig

CONFIG = TcpTransportConfig(frame_bytes_max=2 << 20, queue_bytes_max=1 << 20, queue_messages_max=500, backoff_min=60, backoff_max=600)


class TestRecording(TransportSuite):
    async def make_endpoint(self, node: ServedNode) -> Endpoint:
        transport = RecordingTransport(TcpTransport(CONFIG), keep=3)
        return Endpoint(transport, RpcServer(RpcServerConfig(bind_addr="127.0.0.1:0", frame_bytes_max=2 << 20), node))


async def test_last_messages_are_remembered() -> None:
    async with cluster(TestRecording()) as nodes:
        one, _ = await nodes.pair()
        one.send_append(2, append(1, 2, 1), append(1, 2, 2), append(1, 2, 3))
        one.send_vote(2, vote(1, 2, group=9))
        recorded = one.endpoint.transport
        assert isinstance(recorded, RecordingTransport)
        assert [(sent.peer, sent.group, sent.kind) for sent in recorded.sent] == [
            (2, 7, "AppendEntries"),
            (2, 7, "AppendEntries"),
            (2, 9, "RequestVote"),
        ]
