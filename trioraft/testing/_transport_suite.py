"""The conformance suite of the transport contract, for any transport.

Subclass `TransportSuite`, say how one node's end of the transport is made, and let pytest with pytest-trio collect the class::

    class TestMine(TransportSuite):
        async def make_endpoint(self, node):
            return Endpoint(MyTransport(), MyListener(node))

With ``trio_mode = true`` in the configuration of pytest, or ``pytestmark = pytest.mark.trio`` in the class. The tests take nothing but
their instance, a new one for each test, so anything else can run them too: `TransportSuite.names`.
"""

from __future__ import annotations

from ._transport_end_tests import EndTests
from ._transport_message_tests import MessageTests
from ._transport_peer_tests import PeerTests
from ._transport_snapshot_tests import SnapshotTests


class TransportSuite(MessageTests, PeerTests, SnapshotTests, EndTests):
    """Everything that the contract of `MultiplexedTransport` promises, as tests.

    `make_endpoint` must be given; `seconds` and `has_addresses` where the defaults do not fit.
    """
