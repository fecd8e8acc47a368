"""Limits and times of the transport over TCP and Unix sockets. Every queue, buffer and wait in it is bounded by a field here.

Sizes in bytes, times in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from .._errors import ConfigError
from ._address import AnyAddress, parse_address

_MIB = 1 << 20
_Check = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def _whole(low: int, high: int) -> _Check:
    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if type(value) is not int or not low <= value <= high:
            raise ConfigError(f"{attribute.name} must be a whole number from {low} to {high}, not {value!r}")

    return check


def _seconds(low: float, high: float) -> _Check:
    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        # NB: written so that NaN, which compares as false with everything, is refused.
        if type(value) not in (int, float) or not low <= value <= high:
            raise ConfigError(f"{attribute.name} must be a number of seconds from {low} to {high}, not {value!r}")

    return check


def _truth(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if type(value) is not bool:
        raise ConfigError(f"{attribute.name} must be True or False, not {value!r}")


@attrs.frozen(kw_only=True)
class TcpTransportConfig:
    """How a node dials its peers and what it keeps for them."""

    connect_timeout: float = attrs.field(default=10, validator=_seconds(0.01, 3600))
    """From the dialling of an address to the end of the handshake."""

    read_timeout: float = attrs.field(default=30, validator=_seconds(0.01, 3600))
    """How long a ping may go unanswered before the connection is closed and dialled anew."""

    write_timeout: float = attrs.field(default=30, validator=_seconds(0.01, 3600))
    """How long one frame may take to be written. A peer that reads slower than this is cut off and dialled anew."""

    max_connections_per_addr: int = attrs.field(default=5, validator=_whole(3, 64))
    """Connections to one peer: two lanes, and the rest for snapshots."""

    tcp_keepalive: bool = attrs.field(default=True, validator=_truth)
    """The system's own probes, on top of the pings. TCP only."""

    tcp_nodelay: bool = attrs.field(default=True, validator=_truth)
    """Send at once; False lets the system collect small writes, which costs up to 40 ms each. TCP only."""

    batch_bytes_max: int = attrs.field(default=256 << 10, validator=_whole(1024, _MIB))
    """What one frame collects. One larger message still goes, alone."""

    frame_bytes_max: int = attrs.field(default=16 * _MIB, validator=_whole(_MIB, 256 * _MIB))
    """The largest frame that is written; a message that needs more is dropped, counted and logged. Peers must read as much."""

    queue_bytes_max: int = attrs.field(default=32 * _MIB, validator=_whole(1024, 1 << 30))
    """What may wait for one lane of one peer. One larger message is taken if nothing else waits."""

    queue_messages_max: int = attrs.field(default=16384, validator=_whole(1, 1 << 20))
    """The same, in messages: small ones cost more memory than their bytes."""

    ping_interval: float = attrs.field(default=10, validator=_seconds(0.01, 600))
    """A ping goes out on each lane this long after the last one was answered, busy or idle; must be below `read_timeout`."""

    backoff_min: float = attrs.field(default=0.05, validator=_seconds(0.001, 60))
    """The first wait before a peer is dialled again, doubled with each failure and then shortened by up to a half, at random."""

    backoff_max: float = attrs.field(default=1.0, validator=_seconds(0.001, 600))
    """The longest such wait; also how long a connection must live to count as a success."""

    insecure: bool = attrs.field(default=False, validator=_truth)
    """True: plain TCP may leave this machine. Nobody on the way is kept from reading or forging it."""

    def __attrs_post_init__(self) -> None:
        _check_ping(self)
        if self.backoff_min > self.backoff_max:
            raise ConfigError(f"backoff_min ({self.backoff_min}) must not be above backoff_max ({self.backoff_max})")


def _check_ping(config: TcpTransportConfig) -> None:
    if config.ping_interval >= config.read_timeout:
        raise ConfigError(
            f"ping_interval ({config.ping_interval}) must be below read_timeout ({config.read_timeout}): "
            "peers close a connection on which they hear nothing for that long"
        )


@attrs.frozen(kw_only=True)
class RpcServerConfig:
    """Where a node listens, and what it grants to whom."""

    bind_addr: str = attrs.field(default="127.0.0.1:5001")
    """``host:port``, ``[::1]:port`` or ``unix:/path``; port 0 lets the system choose."""

    max_connections: int = attrs.field(default=1024, validator=_whole(1, 1 << 16))
    """Connections of peers that have introduced themselves."""

    max_connections_per_addr: int = attrs.field(default=5, validator=_whole(3, 64))
    """Connections of one peer: one per lane, and the rest for snapshots."""

    unauthenticated_connections_max: int = attrs.field(default=64, validator=_whole(1, 1 << 16))
    """Connections that have not introduced themselves. One more closes the oldest of them."""

    handshake_timeout: float = attrs.field(default=10, validator=_seconds(0.01, 600))
    """How long a connection may take to introduce itself."""

    read_timeout: float = attrs.field(default=30, validator=_seconds(0.01, 3600))
    """A connection that is silent for this long is closed. Peers ping more often: their `ping_interval` must be below it."""

    write_timeout: float = attrs.field(default=30, validator=_seconds(0.01, 3600))
    """How long the answer to a ping may take to be written."""

    frame_bytes_max: int = attrs.field(default=16 * _MIB, validator=_whole(_MIB, 256 * _MIB))
    """The largest frame that is read; a peer that announces more is cut off before anything is allocated."""

    tcp_keepalive: bool = attrs.field(default=True, validator=_truth)
    """The system's own probes, on top of the peers' pings. TCP only."""

    tcp_nodelay: bool = attrs.field(default=True, validator=_truth)
    """Send answers at once. TCP only."""

    backlog: int = attrs.field(default=128, validator=_whole(1, 1 << 16))
    """Connections that the system accepts before we do."""

    insecure: bool = attrs.field(default=False, validator=_truth)
    """True: plain TCP may be offered to other machines. Whoever can reach the port can then act as any node."""

    @bind_addr.validator
    def _check_bind_addr(self, attribute: attrs.Attribute[str], value: str) -> None:
        try:
            parse_address(value, low=0)
        except ConfigError as error:
            raise ConfigError(f"bind_addr: {error}") from None

    def __attrs_post_init__(self) -> None:
        if not self.insecure and not self.address.is_loopback:
            raise ConfigError(
                f"bind_addr {self.bind_addr} is no loopback address, and plain TCP protects nothing: "
                "listen on 127.0.0.1 or ::1, or say insecure=True"
            )

    @property
    def address(self) -> AnyAddress:
        return parse_address(self.bind_addr, low=0)
