from __future__ import annotations

import pytest

from trioraft import ConfigError
from trioraft.transport import Address


@pytest.mark.parametrize(
    "text, host, port",
    [
        ("127.0.0.1:5001", "127.0.0.1", 5001),
        ("node-1.example.org:1", "node-1.example.org", 1),
        ("[::1]:65535", "::1", 65535),
        ("[2001:DB8::0]:80", "2001:db8::", 80),
    ],
)
def test_address_is_read(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)


@pytest.mark.parametrize(
    "text",
    ["", ":", "host", "host:", ":5001", "host:0", "host:65536", "host:-1", "host:+1", "host: 1", "host:1 ", "ho st:1", "host:٣", "host:1_0",
     "::1:5001", "[::1]", "[::1]5001", "[::1:5001", "[host]:1", "[]:1", "http://host:1", "user@host:1",
     "host:123456789012345678901234567890"],
)  # fmt: skip
def test_what_is_no_address_is_named(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Address.parse(text)
    assert repr(text) in str(caught.value)


def test_address_that_is_no_text() -> None:
    with pytest.raises(ConfigError, match="5001 is not a text"):
        Address.parse(5001)  # type: ignore[arg-type]  # that is the point


def test_port_0_only_to_listen_on() -> None:
    assert Address.parse("127.0.0.1:0", low=0).port == 0


@pytest.mark.parametrize("text", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"])
def test_loopback(text: str) -> None:
    assert Address.parse(text).is_loopback


@pytest.mark.parametrize("text", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "localhost.example.org:1"])
def test_not_loopback(text: str) -> None:
    assert not Address.parse(text).is_loopback


@pytest.mark.parametrize("text", ["127.0.0.1:1", "[::1]:1", "name:1"])
def test_shown_as_written(text: str) -> None:
    assert str(Address.parse(text)) == text
