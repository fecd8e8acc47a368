"""Who is who, from a command line: node ids and addresses.

All nodes must come to the same table, though each sees the list with another address left out (its own). Therefore:

- bare peers (``127.0.0.1:5002``) are numbered 1, 2, 3 ... in the sorted order of all addresses, the node's own included;
- named peers (``2=127.0.0.1:5002``) have the id that they are given;
- where both are used, every id that is given must be the one that the order gives: anything else could differ from node to node.

Addresses are sorted by number, not by text: 127.0.0.1:900 comes before 127.0.0.1:5001. Host names come after IP addresses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

NODE_ID_MAX = 2**32 - 1


class AddressError(ValueError):
    """The command line contradicts itself. The text says what to change."""


class Address(NamedTuple):
    """Where a node listens for its peers."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read ``host:port`` or ``[v6]:port``.

    Raises:
        AddressError: it is neither.
    """
    host, separator, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise AddressError(f"{text!r}: write an IPv6 address in brackets, as in [::1]:5001")
    if not separator or not host:
        raise AddressError(f"{text!r} is no address: write HOST:PORT, as in 127.0.0.1:5001")
    return make_address(host, parse_number(port, 1, 65535, f"port of {text!r}"))


def make_address(host: str, port: int) -> Address:
    """Build an address that can be compared: one spelling for each host.

    Raises:
        AddressError: the host means "every interface" and so names no node.
    """
    host = "127.0.0.1" if host.lower() == "localhost" else host.lower()
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return Address(host, port)
    if parsed.is_unspecified:
        raise AddressError(f"{host} is no address of a node: name the one at which the other nodes reach it")
    return Address(str(parsed), port)


def parse_number(text: str, low: int, high: int, what: str) -> int:
    """Read a whole number in plain ASCII digits.

    Raises:
        AddressError: it is none, or out of [low, high].
    """
    if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
        raise AddressError(f"{what} must be a whole number from {low} to {high}, not {text!r}")
    return int(text)


def number_nodes(own_id: int, own: Address, peers: Sequence[str]) -> dict[int, Address]:
    """Give each node of the cluster its id.

    Args:
        own_id: the id that this node was told to have.
        own: the address of this node.
        peers: the other nodes, as ``HOST:PORT`` or ``ID=HOST:PORT``.

    Returns:
        All nodes, by id.

    Raises:
        AddressError: an id or an address twice, an id out of range, or ids that contradict the order of the addresses.
    """
    if not 1 <= own_id <= NODE_ID_MAX:
        raise AddressError(f"--node-id must be from 1 to {NODE_ID_MAX}, not {own_id}")
    given: dict[Address, int | None] = {own: own_id}
    for text in peers:
        address, node_id = _parse_peer(text)
        if address == own:
            raise AddressError(f"--peer {text} is this node's own address; name only the other nodes")
        if address in given:
            raise AddressError(f"the address {address} is given twice")
        given[address] = node_id
    _check_distinct(given)
    if None in given.values():
        return _by_rank(given, own)
    return {node_id: address for address, node_id in given.items() if node_id is not None}


def _parse_peer(text: str) -> tuple[Address, int | None]:
    name, separator, address = text.rpartition("=")
    if not separator:
        return parse_address(address), None
    return parse_address(address), parse_number(name, 1, NODE_ID_MAX, f"the node id in --peer {text}")


def _check_distinct(given: dict[Address, int | None]) -> None:
    seen: dict[int, Address] = {}
    for address, node_id in given.items():
        if node_id is None:
            continue
        if node_id in seen:
            raise AddressError(f"the node id {node_id} is given twice: to {seen[node_id]} and to {address}")
        seen[node_id] = address


def _by_rank(given: dict[Address, int | None], own: Address) -> dict[int, Address]:
    ranked = dict(enumerate(sorted(given, key=_sort_key), start=1))
    for rank, address in ranked.items():
        node_id = given[address]
        if node_id in (None, rank):
            continue
        if address == own:
            raise AddressError(
                f"--node-id {node_id} contradicts the order of the addresses: this node ({own}) is number {rank} of {len(ranked)}. "
                f"Start it with --node-id {rank}, or name the id of every peer, as in --peer 2=127.0.0.1:5002"
            )
        raise AddressError(
            f"--peer {node_id}={address} contradicts the order of the addresses, where it is number {rank}, and other peers have no id: "
            f"name the id of every peer"
        )
    return ranked


def _sort_key(address: Address) -> tuple[int, int, str, int]:
    try:
        ip = ipaddress.ip_address(address.host)
    except ValueError:
        return (9, 0, address.host, address.port)
    return (ip.version, int(ip), "", address.port)
