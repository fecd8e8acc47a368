from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from kv import BadCommandError, KeyValueMachine, Store

from trioraft import ApplyContext
from trioraft.wire import decode_value, encode_value


def apply(machine: KeyValueMachine, index: int, *command: Any, term: int = 1, node_id: int = 1) -> Any:
    return machine.apply(list(command), ApplyContext(group_id=7, index=index, term=term, node_id=node_id))


def test_put_get_delete() -> None:
    machine = KeyValueMachine()
    assert apply(machine, 2, "put", "k", b"v") == {"version": 1, "index": 2}
    assert machine.query(["get", "k"]) == [b"v", 1, 2]
    assert apply(machine, 4, "delete", "k") == {"deleted": True, "index": 4}
    assert apply(machine, 5, "delete", "k") == {"deleted": False, "index": 5}
    assert machine.query(["get", "k"]) is None
    assert machine.store.index == 5


@pytest.mark.parametrize("query", [[], ["get"], ["get", 1], ["put", "k", b"v"], None])
def test_an_unknown_query_is_refused(query: Any) -> None:
    with pytest.raises(BadCommandError):
        KeyValueMachine().query(query)


def test_a_write_that_is_applied_twice_shows_in_the_version() -> None:
    machine = KeyValueMachine()
    apply(machine, 2, "put", "k", b"v")
    apply(machine, 3, "put", "k", b"v")
    assert machine.store.rows["k"].version == 2


def test_digest_is_equal_for_equal_histories_on_different_nodes() -> None:
    one, two = KeyValueMachine(), KeyValueMachine()
    for machine, node_id in ((one, 1), (two, 2)):
        apply(machine, 2, "put", "a", b"1", node_id=node_id)
        apply(machine, 4, "delete", "a", node_id=node_id)
    assert (one.store.digest, one.store.index) == (two.store.digest, two.store.index)


@pytest.mark.parametrize(
    "index, term, command",
    [(3, 1, ("put", "a", b"1")), (2, 2, ("put", "a", b"1")), (2, 1, ("put", "a", b"2")), (2, 1, ("delete", "a"))],
)
def test_digest_tells_every_difference(index: int, term: int, command: tuple[Any, ...]) -> None:
    one, two = KeyValueMachine(), KeyValueMachine()
    apply(one, 2, "put", "a", b"1")
    apply(two, index, *command, term=term)
    assert one.store.digest != two.store.digest


@pytest.mark.parametrize("command", [[], ["put", "k"], ["put", 1, b"v"], ["put", "k", "text"], ["drop", "k"], "put", None, {"put": "k"}])
def test_an_unknown_command_is_a_result_and_stops_nobody(command: Any) -> None:
    machine = KeyValueMachine()
    with pytest.raises(BadCommandError):
        machine.apply(command, ApplyContext(group_id=7, index=2, term=1, node_id=1))
    assert machine.store.rows == {}
    assert machine.store.index == 2
    assert BadCommandError in KeyValueMachine.declared_errors


def test_pages_are_equal_on_replicas_with_equal_histories() -> None:
    one, two = KeyValueMachine(), KeyValueMachine()
    for machine in (one, two):
        for index, key in enumerate("cab", start=2):
            apply(machine, index, "put", key, b"")
        apply(machine, 9, "delete", "a")
    assert [key for key, _ in one.store.page(0, 1)] + [key for key, _ in two.store.page(1, 10)] == ["c", "b"]


def through_bytes(records: Iterable[Any]) -> Iterator[Any]:
    """What the records are when they come back from a file."""
    return (decode_value(encode_value(record)) for record in records)


def filled() -> KeyValueMachine:
    machine = KeyValueMachine()
    for index, key in enumerate("cabd", start=2):
        apply(machine, index, "put", key, bytes([index]))
    apply(machine, 6, "put", "c", bytes(100_000))
    apply(machine, 7, "delete", "a")
    apply(machine, 8, "put", "a", b"")
    return machine


@pytest.mark.parametrize("machine", [KeyValueMachine(), filled()], ids=["empty", "filled"])
def test_a_restored_machine_is_in_the_same_state(machine: KeyValueMachine) -> None:
    restored = KeyValueMachine()
    apply(restored, 1, "put", "of another life", b"x")
    restored.restore(through_bytes(machine.snapshot()))
    assert restored.store == machine.store
    assert list(restored.store.page(0, 10)) == list(machine.store.page(0, 10))


def test_a_restored_machine_goes_on_with_the_chain_and_still_sees_a_second_time() -> None:
    machine, restored = filled(), KeyValueMachine()
    restored.restore(through_bytes(machine.snapshot()))
    for each in (machine, restored):
        apply(each, 9, "put", "b", b"3")
    assert restored.store.digest == machine.store.digest
    assert restored.store.rows["b"].version == 2


def test_a_snapshot_is_frozen_and_made_of_small_records() -> None:
    machine, restored = filled(), KeyValueMachine()
    before = Store(dict(machine.store.rows), machine.store.index, machine.store.chain)
    records = machine.snapshot()
    apply(machine, 9, "put", "b", b"later")
    apply(machine, 10, "delete", "c")
    records = list(records)
    assert len(records) > 2
    restored.restore(through_bytes(records))
    assert restored.store == before


def test_a_restore_that_breaks_off_changes_nothing() -> None:
    machine, restored = filled(), filled()

    def broken() -> Iterator[Any]:
        yield from list(machine.snapshot())[:2]
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        restored.restore(broken())
    assert restored.store == machine.store
