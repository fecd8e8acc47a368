from __future__ import annotations

import pytest
from addresses import Address, AddressError, make_address, number_nodes, parse_address

A, B, C = "127.0.0.1:5001", "127.0.0.1:5002", "127.0.0.1:5003"


def own(text: str) -> Address:
    return parse_address(text)


def table(own_id: int, own_text: str, *peers: str) -> dict[int, str]:
    return {node_id: str(address) for node_id, address in sorted(number_nodes(own_id, own(own_text), peers).items())}


def test_bare_peers_are_numbered_in_address_order_and_all_nodes_agree() -> None:
    expected = {1: A, 2: B, 3: C}
    assert table(1, A, B, C) == table(1, A, C, B) == table(2, B, A, C) == table(3, C, B, A) == expected


def test_order_is_numeric_not_textual() -> None:
    assert table(1, "127.0.0.1:900", "127.0.0.1:5001", "127.0.0.1:10000") == {1: "127.0.0.1:900", 2: "127.0.0.1:5001", 3: "127.0.0.1:10000"}
    assert table(2, "10.0.0.10:1", "10.0.0.9:1") == {1: "10.0.0.9:1", 2: "10.0.0.10:1"}


def test_kinds_of_hosts_have_an_order_too() -> None:
    assert table(2, "[::1]:1", "db.example:1", "127.0.0.1:1") == {1: "127.0.0.1:1", 2: "[::1]:1", 3: "db.example:1"}


def test_localhost_is_one_host_under_two_names() -> None:
    assert table(2, "localhost:5002", A) == {1: A, 2: B}
    with pytest.raises(AddressError, match="own address"):
        number_nodes(1, own(A), ["LOCALHOST:5001"])


def test_named_peers_keep_their_ids() -> None:
    assert table(7, C, f"9={A}", f"2={B}") == {2: B, 7: C, 9: A}


def test_named_and_bare_mix_only_where_the_order_agrees() -> None:
    assert table(1, A, f"2={B}", C) == {1: A, 2: B, 3: C}
    with pytest.raises(AddressError, match="name the id of every peer"):
        number_nodes(1, own(A), [f"3={B}", C])


def test_one_node_alone() -> None:
    assert table(5, A, *[]) == {5: A}


@pytest.mark.parametrize(
    "own_id, own_text, peers, match",
    [
        (2, A, [B, C], r"--node-id 2 contradicts .* number 1 of 3"),
        (1, A, [B, B], "address 127.0.0.1:5002 is given twice"),
        (1, A, [B, f"2={B}"], "given twice"),
        (1, A, [A, B], "own address"),
        (1, A, [f"1={B}", f"2={C}"], "node id 1 is given twice"),
        (1, A, [f"2={B}", f"2={C}"], "node id 2 is given twice"),
        (0, A, [f"2={B}"], "--node-id must be from 1"),
        (2**32, A, [f"2={B}"], "--node-id must be from 1"),
        (1, A, [f"0={B}"], "node id in --peer"),
        (1, A, [f"x={B}"], "node id in --peer"),
        (1, A, [f"={B}"], "node id in --peer"),
        (1, A, [f"²={B}"], "node id in --peer"),
        (1, A, ["127.0.0.1"], "no address"),
        (1, A, [":5002"], "no address"),
        (1, A, ["5002"], "no address"),
        (1, A, ["127.0.0.1:0"], "port of"),
        (1, A, ["127.0.0.1:65536"], "port of"),
        (1, A, ["127.0.0.1:http"], "port of"),
        (1, A, ["::1:5002"], "brackets"),
        (1, A, ["0.0.0.0:5002"], "no address of a node"),
    ],
)
def test_contradictions_are_named(own_id: int, own_text: str, peers: list[str], match: str) -> None:
    with pytest.raises(AddressError, match=match):
        number_nodes(own_id, own(own_text), peers)


def test_listening_on_every_interface_names_no_node() -> None:
    with pytest.raises(AddressError, match="no address of a node"):
        make_address("::", 5001)
