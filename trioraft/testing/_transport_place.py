"""What a transport suite asks of those who use it: one node's end of their transport, as often as it is wanted.

The second half is optional. A test that needs what a transport does not have is skipped, and says why.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TypeVar

import attrs
import trio

from ..transport import Acceptor, MultiplexedTransport, ServedNode

Test = TypeVar("Test", bound=Callable[..., Awaitable[None]])


@attrs.frozen
class Endpoint:
    """One node's end of a transport."""

    transport: MultiplexedTransport
    acceptor: Acceptor | None = None
    """Who listens, if the transport does not do that itself."""
    address: str = ""
    """Where peers find it, if there is no acceptor to tell."""


class TransportPlace(ABC):
    """Where a suite gets its endpoints from."""

    seconds: float = 10.0
    """What takes longer, on Trio's clock, will never happen."""

    has_addresses: bool = True
    """False: an address only says that there is a peer, so that nobody can move or be found at a wrong one."""

    @abstractmethod
    async def make_endpoint(self, node: ServedNode) -> Endpoint:
        """An endpoint for a node, not serving yet, from which the others of this test can be reached.

        It is called again for a node that was stopped, and for one that is to move while the first endpoint still listens: an
        address must be a new one at each call, unless nobody is there any more. Let its queues be small, since the tests fill them
        (a megabyte, some hundred messages), and let it wait for longer than `seconds` before it dials a peer anew by itself.
        """

    @classmethod
    def names(cls) -> list[str]:
        """The names of the tests: asynchronous methods without arguments."""
        return sorted(name for name in dir(cls) if name.startswith("test_"))

    def __init_subclass__(cls) -> None:
        for name in cls.names():
            if not cls.has_addresses and getattr(getattr(cls, name), "needs_addresses", False):
                setattr(cls, name, _skipped(name))


def needs_addresses(test: Test) -> Test:
    test.needs_addresses = True  # type: ignore[attr-defined]  # looked up above, on a plain function
    return test


def _skipped(name: str) -> Callable[[object], Awaitable[None]]:
    import pytest  # only here, so that the module can be imported without it

    reason = "an address of this transport only says that there is a peer"

    async def skipped(self: object) -> None:  # as the test that it stands for
        await trio.lowlevel.checkpoint()
        pytest.skip(reason)

    skipped.__name__ = name
    # NB: marked and not only raised. What is raised in Trio loses its reason on the way.
    return pytest.mark.skip(reason=reason)(skipped)
