"""Moving messages between nodes: the contract, TCP and Unix sockets, and a network in memory for tests."""

from __future__ import annotations

from ._address import Address as Address, AnyAddress as AnyAddress, UnixAddress as UnixAddress, parse_address as parse_address
from ._config import RpcServerConfig as RpcServerConfig, TcpTransportConfig as TcpTransportConfig
from ._contract import (
    Acceptor as Acceptor,
    Identity as Identity,
    MultiplexedTransport as MultiplexedTransport,
    PeerStatistics as PeerStatistics,
    Receiver as Receiver,
    SnapshotReceiver as SnapshotReceiver,
    TransportStatistics as TransportStatistics,
)
from ._memory import MemoryTransport as MemoryTransport
from ._memory_network import MemoryNetwork as MemoryNetwork
from ._server import RpcServer as RpcServer, ServedNode as ServedNode
from ._statistics import InboundStatistics as InboundStatistics, ServerStatistics as ServerStatistics
from ._tcp import TcpTransport as TcpTransport
