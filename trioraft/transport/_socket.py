"""TCP, as the transport wants it."""

from __future__ import annotations

import trio

from ._address import Address


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
