"""Sockets, as the transport wants them: TCP here, Unix sockets in `_unix`. The form of the address decides."""

from __future__ import annotations

import trio

from ._address import Address, AnyAddress, UnixAddress
from ._unix import open_unix_listener


def set_options(stream: trio.SocketStream, *, nodelay: bool, keepalive: bool) -> None:
    # NB: trio switches NODELAY on for every stream, so False has to be said as well.
    stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, int(nodelay))
    stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_KEEPALIVE, int(keepalive))


async def open_tcp(address: Address, *, nodelay: bool, keepalive: bool) -> trio.SocketStream:
    """Dial an address; a name is looked up anew each time.

    Raises:
        OSError: nobody answers there.
    """
    stream = await trio.open_tcp_stream(address.host, address.port)
    try:
        set_options(stream, nodelay=nodelay, keepalive=keepalive)
    except OSError:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def open_listeners(address: AnyAddress, backlog: int) -> tuple[list[trio.abc.Listener[trio.SocketStream]], list[str]]:
    """Listen at an address, at each of its IP addresses if it is a name.

    Returns: the listeners, and where each is to be dialled.

    Raises:
        OSError: it cannot be listened on.
    """
    if isinstance(address, UnixAddress):
        return [await open_unix_listener(address, backlog)], [str(address)]
    listeners = await trio.open_tcp_listeners(address.port, host=address.host, backlog=backlog)
    return [*listeners], [str(Address(*listener.socket.getsockname()[:2])) for listener in listeners]


def remote_address(stream: trio.SocketStream, here: AnyAddress) -> str:
    """Where a connection came from, for the log. The callers of a Unix socket have no address: it is named instead."""
    return str(here if isinstance(here, UnixAddress) else Address(*stream.socket.getpeername()[:2]))
