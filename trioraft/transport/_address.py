"""Where a node listens: ``host:port``, or ``[::1]:port`` for an IPv6 address."""

from __future__ import annotations

import ipaddress

import attrs

from .._errors import ConfigError

_FORMS = "an address is host:port, or [address]:port for IPv6, with a port from {low} to 65535"


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
