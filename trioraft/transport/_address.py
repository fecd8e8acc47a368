"""Where a node listens: ``host:port``, ``[::1]:port`` for an IPv6 address, or ``unix:/path`` for a socket file on this machine."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from typing import Final, TypeAlias

import attrs

from .._errors import ConfigError

_FORMS = "an address is host:port, or [address]:port for IPv6, with a port from {low} to 65535"

_UNIX: Final = "unix:"
_UNIX_FORM = "the address of a Unix socket is unix:/absolute/path"

UNIX_PATH_BYTES_MAX: Final = 107 if sys.platform == "linux" else 103
"""What the system's address structure holds, its closing zero not counted."""


@attrs.frozen
class Address:
    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, low: int = 1) -> Address:
        """Read an address.

        Args:
            low: the lowest port allowed; 0 lets the system choose one, which only makes sense to listen on.

        Raises:
            ConfigError: the text is no address. It quotes the text and shows the form.
        """
        forms = _FORMS.format(low=low)
        if not isinstance(text, str):
            raise ConfigError(f"{text!r} is not a text; {forms}")
        host, port = _split(text, forms)
        # NB: isdecimal alone also takes the digits of other scripts, which int() reads happily.
        if not (port.isascii() and port.isdecimal() and len(port) <= 5 and low <= int(port) <= 65535):
            raise ConfigError(f"{text!r} has no valid port; {forms}")
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """True if nothing sent there can leave this machine. A name other than ``localhost`` may mean anything, so it counts as outside."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen
class UnixAddress:
    """A socket file. Nothing sent there can leave this machine, and the file's permissions say who may connect."""

    path: str

    @classmethod
    def parse(cls, text: str) -> UnixAddress:
        """Read ``unix:/path``.

        Raises:
            ConfigError: it is none, its path is too long for the system, or this system has no Unix sockets.
        """
        if not hasattr(socket, "AF_UNIX"):
            raise ConfigError(f"{text!r}: this system has no Unix sockets")
        path = text.removeprefix(_UNIX)
        if path.startswith(("@", "\0")):
            raise ConfigError(f"{text!r}: abstract sockets, which have no file and no permissions, are not supported; {_UNIX_FORM}")
        if not path.startswith("/") or path.startswith("//") or path.endswith("/"):
            # NB: a relative path would mean another file in each process that hears of it.
            raise ConfigError(f"{text!r} has no absolute path of a file, with one slash at its beginning; {_UNIX_FORM}")
        if not path.isprintable():
            raise ConfigError(f"{text!r} has unprintable characters in its path; {_UNIX_FORM}")
        size = len(os.fsencode(path))
        if size > UNIX_PATH_BYTES_MAX:
            raise ConfigError(f"{text!r}: a path of {size} bytes, and the system allows a socket at most {UNIX_PATH_BYTES_MAX}")
        return cls(path)

    @property
    def is_loopback(self) -> bool:
        return True

    def __str__(self) -> str:
        return f"{_UNIX}{self.path}"


AnyAddress: TypeAlias = Address | UnixAddress


def parse_address(text: str, *, low: int = 1) -> AnyAddress:
    """Read an address of any form.

    Args:
        low: the lowest port allowed; 0 lets the system choose one, which only makes sense to listen on.

    Raises:
        ConfigError: the text is no address.
    """
    return UnixAddress.parse(text) if str(text).startswith(_UNIX) else Address.parse(text, low=low)


def _split(text: str, forms: str) -> tuple[str, str]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise ConfigError(f"{text!r} is no address; {forms}")
        return _ipv6(host, text, forms), rest[1:]
    host, colon, port = text.rpartition(":")
    if not colon or not host or ":" in host or any(letter.isspace() or letter in "[]/@" for letter in host):
        raise ConfigError(f"{text!r} is no address; {forms}")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ConfigError(f"{text!r} has no valid host name ({error}); {forms}") from None
    return host, port


def _ipv6(host: str, text: str, forms: str) -> str:
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError:
        raise ConfigError(f"{text!r} holds no IPv6 address in its brackets; {forms}") from None
