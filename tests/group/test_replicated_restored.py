"""A replicated object that was restored is what the others are, in ways that its attributes do not show."""

from __future__ import annotations

from typing import Any

import pytest

from trioraft import ConfigError, Replicated, WireError, command

from .replicated_kit import OneLog, through_bytes


class Store(Replicated):
    def __init__(self) -> None:
        self.by_name: dict[str, Any] = {}
        self.by_number: dict[int, Any] = {}
        self.limit = 5

    @command
    def add_twice(self, name: str, number: int) -> None:
        self.by_name[name] = self.by_number[number] = {"count": 0}

    @command
    def add(self, name: str, number: int) -> None:
        self.by_name[name] = {"count": 0}
        self.by_number[number] = name

    @command
    def remove_twin(self, number: int) -> None:
        del self.by_number[number]

    @command
    def lift_limit(self) -> None:
        del self.limit


def restored(store: Store) -> Store:
    other = Store()
    OneLog(other)
    other.restore(through_bytes(store.snapshot()))
    return other


async def test_what_is_in_the_state_twice_is_not_saved_until_it_is_there_once() -> None:
    store = Store()
    OneLog(store)
    await store.add_twice("a", 1)
    # A restored replica would count in one of the two only.
    with pytest.raises(WireError, match="attribute 'by_number' of Store: a dict that is in the state twice"):
        store.snapshot()
    await store.remove_twin(1)
    await store.add("b", 2)
    assert vars(restored(store)) == vars(store) == {"by_name": {"a": {"count": 0}, "b": {"count": 0}}, "by_number": {2: "b"}, "limit": 5}


@pytest.mark.parametrize("inside", [lambda shared: [shared, shared], lambda shared: {1: (shared,), 2: (shared,)}], ids=["list", "tuple"])
def test_it_is_found_inside_of_one_attribute_too(inside: Any) -> None:
    store = Store()
    store.by_name["x"] = inside([1])
    with pytest.raises(WireError, match="a list that is in the state twice"):
        store.snapshot()


def test_what_cannot_change_may_be_there_twice() -> None:
    store = Store()
    shared = (1, ("a", b"b"))
    store.by_name = {"x": shared, "y": [shared, shared]}
    assert vars(restored(store)) == vars(store)


class Twice(Replicated):
    def __init__(self) -> None:
        self.one = self.other = list[int]()


def test_an_object_that_begins_so_gets_into_no_group() -> None:
    with pytest.raises(ConfigError, match="attribute 'other' of Twice: a list that is in the state twice"):
        OneLog(Twice())


async def test_an_attribute_that_was_deleted_stays_so() -> None:
    store = Store()
    OneLog(store)
    await store.lift_limit()
    other = restored(store)
    assert vars(other) == vars(store) == {"by_name": {}, "by_number": {}}
    assert vars(restored(other)) == vars(store), "and is so in its snapshots"
