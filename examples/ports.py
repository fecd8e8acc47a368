"""Free TCP ports for processes that are going to be killed and restarted on them."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from pathlib import Path

_LOWEST = 15_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_EPHEMERAL_LOWEST_DEFAULT = 32_768
_TRIES_PER_PORT = 100


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Find ports on which a server can listen now, and again after it was killed.

    They lie below the range from which the system takes the ports of outgoing connections. From inside it, while a node is down another
    node's dial could be given the dead node's port as its own, and then even connect to itself.

    NB: another program may take such a port before it is used. Whoever starts a server on it has to be ready for that.

    Raises:
        OSError: there are none.
    """
    highest = max(_lowest_ephemeral(), _LOWEST + 1000)
    chooser = random.SystemRandom()
    ports: list[int] = []
    with ExitStack() as held:
        tries = count * _TRIES_PER_PORT
        while len(ports) < count and tries > 0:
            tries -= 1
            port = chooser.randrange(_LOWEST, highest)
            probe = held.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            ports.append(port)
    if len(ports) == count:
        return ports
    raise OSError(f"found only {len(ports)} of {count} free ports on {host}")


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _lowest_ephemeral() -> int:
    try:
        return int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _EPHEMERAL_LOWEST_DEFAULT
