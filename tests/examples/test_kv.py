from __future__ import annotations

from typing import Any

import pytest
from kv import BadCommandError, KeyValueMachine

from trioraft import ApplyContext


def apply(machine: KeyValueMachine, index: int, *command: Any, term: int = 1, node_id: int = 1) -> Any:
    return machine.apply(list(command), ApplyContext(group_id=7, index=index, term=term, node_id=node_id))


def test_put_get_delete() -> None:
    machine = KeyValueMachine()
    assert apply(machine, 2, "put", "k", b"v") == {"version": 1, "index": 2}
    assert apply(machine, 3, "get", "k") == [b"v", 1, 2]
    assert apply(machine, 4, "delete", "k") == {"deleted": True, "index": 4}
    assert apply(machine, 5, "delete", "k") == {"deleted": False, "index": 5}
    assert apply(machine, 6, "get", "k") is None


def test_a_write_that_is_applied_twice_shows_in_the_version() -> None:
    machine = KeyValueMachine()
    apply(machine, 2, "put", "k", b"v")
    apply(machine, 3, "put", "k", b"v")
    assert machine.rows["k"].version == 2


def test_digest_is_equal_for_equal_histories_on_different_nodes() -> None:
    one, two = KeyValueMachine(), KeyValueMachine()
    for machine, node_id in ((one, 1), (two, 2)):
        apply(machine, 2, "put", "a", b"1", node_id=node_id)
        apply(machine, 4, "delete", "a", node_id=node_id)
    assert (one.digest, one.index) == (two.digest, two.index)


@pytest.mark.parametrize(
    "index, term, command",
    [(3, 1, ("put", "a", b"1")), (2, 2, ("put", "a", b"1")), (2, 1, ("put", "a", b"2")), (2, 1, ("get", "a"))],
)
def test_digest_tells_every_difference(index: int, term: int, command: tuple[Any, ...]) -> None:
    one, two = KeyValueMachine(), KeyValueMachine()
    apply(one, 2, "put", "a", b"1")
    apply(two, index, *command, term=term)
    assert one.digest != two.digest


@pytest.mark.parametrize("command", [[], ["put", "k"], ["put", 1, b"v"], ["put", "k", "text"], ["drop", "k"], "put", None, {"put": "k"}])
def test_an_unknown_command_is_a_result_and_stops_nobody(command: Any) -> None:
    machine = KeyValueMachine()
    with pytest.raises(BadCommandError):
        machine.apply(command, ApplyContext(group_id=7, index=2, term=1, node_id=1))
    assert machine.rows == {}
    assert machine.index == 2
    assert BadCommandError in KeyValueMachine.declared_errors


def test_pages_are_equal_on_replicas_with_equal_histories() -> None:
    one, two = KeyValueMachine(), KeyValueMachine()
    for machine in (one, two):
        for index, key in enumerate("cab", start=2):
            apply(machine, index, "put", key, b"")
        apply(machine, 9, "delete", "a")
    assert [key for key, _ in one.page(0, 1)] + [key for key, _ in two.page(1, 10)] == ["c", "b"]
