"""Ranges of the configuration. What each field does is seen in the other files here; `EFFECTS` says in which test."""

from __future__ import annotations

import math
import re
from typing import Any

import attrs
import pytest

from trioraft import ConfigError
from trioraft.transport import RpcServerConfig, TcpTransportConfig

BAD: dict[type, list[Any]] = {
    float: [0, -1, math.nan, math.inf, "1", None, True],
    int: [-1, 1 << 40, 1.5, "1", None, True],
    bool: [0, 1, None, "yes"],
}


def fields(config: type[Any]) -> list[Any]:
    kinds = {"float": float, "int": int, "bool": bool}
    return [(config, field.name, bad) for field in attrs.fields(config) if field.type in kinds for bad in BAD[kinds[field.type]]]


@pytest.mark.parametrize("config, name, bad", fields(TcpTransportConfig) + fields(RpcServerConfig))
def test_value_out_of_range_is_refused_by_name(config: type[Any], name: str, bad: object) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} must be .*not {re.escape(repr(bad))}"):
        config(**{name: bad})


def test_defaults_are_those_promised() -> None:
    config = TcpTransportConfig()
    assert (config.connect_timeout, config.read_timeout, config.write_timeout, config.max_connections_per_addr) == (10, 30, 30, 5)
    assert config.tcp_keepalive
    assert config.tcp_nodelay
    assert not config.insecure
    assert RpcServerConfig().bind_addr == "127.0.0.1:5001"


@pytest.mark.parametrize(
    "values, text",
    [
        ({"ping_interval": 30}, "ping_interval .* must be below read_timeout"),
        ({"backoff_min": 2}, "backoff_min .* must not be above backoff_max"),
    ],
)
def test_values_that_contradict_each_other(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        TcpTransportConfig(**values)


def test_config_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        TcpTransportConfig().read_timeout = 1  # type: ignore[misc]  # that is the point


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999", "[::1"])
def test_bind_addr_that_is_none(address: str) -> None:
    with pytest.raises(ConfigError, match=r"^bind_addr: "):
        RpcServerConfig(bind_addr=address)


@pytest.mark.parametrize("address", ["0.0.0.0:5001", "[::]:5001", "192.0.2.1:5001", "db.example.org:5001"])
def test_SE_1_plain_tcp_beyond_this_machine_needs_a_word(address: str) -> None:
    with pytest.raises(ConfigError, match="insecure=True"):
        RpcServerConfig(bind_addr=address)
    assert RpcServerConfig(bind_addr=address, insecure=True).address.port == 5001
