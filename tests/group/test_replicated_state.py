"""What a replicated object's snapshots are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from trioraft import ConfigError, Replicated, SnapshotError, VersionError, WireError, command
from trioraft.group._replicated_values import freeze, pack, unpack
from trioraft.wire import decode_value, encode_value

from .replicated_kit import OneLog, through_bytes


class Store(Replicated):
    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self.names: list[Any] = []
        self.point: tuple[int, ...] = (1, 2)
        self.count = 0


class Slotted(Replicated):
    __slots__ = ("__hidden", "late", "x")

    def __init__(self) -> None:
        self.x = 1
        self.__hidden = [2]


def restored(machine: Replicated, records: Iterable[Any] | None = None, into: Replicated | None = None) -> Any:
    fresh = type(machine)() if into is None else into
    OneLog(fresh)
    fresh.restore(through_bytes(machine.snapshot() if records is None else records))
    return fresh


SCALARS = st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(SCALARS, inner) | st.lists(inner).map(tuple),
    max_leaves=20,
)


@given(VALUES)
def test_values_come_back_as_they_were(value: Any) -> None:
    found = unpack(decode_value(encode_value(pack(value, "it"))))
    assert repr(found) == repr(value)


@pytest.mark.parametrize("packed", [[], [2], [[0]], {"a": [5]}])
def test_what_was_never_packed_is_refused(packed: Any) -> None:
    with pytest.raises(WireError):
        unpack(packed)


def test_a_restored_object_has_all_attributes() -> None:
    store = Store()
    store.rows = {str(i): (i, [b"x" * 100]) for i in range(5000)}
    store.names = [*range(20_000), (1, [2])]
    store.point = ()
    records = list(store.snapshot())
    assert len(records) > 10, "in pieces"
    assert max(len(encode_value(record)) for record in records) < 200_000
    found = restored(store, records)
    assert vars(found) == vars(store)
    assert list(found.rows) == list(store.rows)
    assert type(found.rows["1"]) is tuple


def test_empty_containers_and_new_attributes() -> None:
    store = Store()
    store.more = {"a": 1}  # type: ignore[attr-defined]  # set by a command, say
    assert vars(restored(store)) == vars(store)


def test_a_view_is_frozen_at_once_however_deep() -> None:
    store = Store()
    store.rows = {"a": [1, {"b": [2]}]}
    view = store.snapshot()
    store.rows["a"][1]["b"].append(3)
    store.names.append(4)
    found = restored(store, view)
    assert (found.rows, found.names) == ({"a": [1, {"b": [2]}]}, [])


def test_attributes_that_the_snapshot_lacks_are_as_at_the_beginning() -> None:
    class Newer(Store):
        def __init__(self) -> None:
            super().__init__()
            self.notes: list[str] = ["first"]

    newer = Newer()
    OneLog(newer)
    newer.notes.append("second")
    newer.stray = 1  # type: ignore[attr-defined]  # set by a command, say
    newer.restore(through_bytes(Store().snapshot()))
    assert newer.notes == ["first"]
    assert not hasattr(newer, "stray")
    newer.notes.append("third")
    newer.restore(through_bytes(Store().snapshot()))
    assert newer.notes == ["first"]


def test_slots_are_attributes() -> None:
    slotted, late = Slotted(), Slotted()
    slotted.x = 5
    slotted.late = "now"
    found = restored(slotted)
    assert (found.x, found.late, found._Slotted__hidden) == (5, "now", [2])
    late.late = "gone"
    OneLog(late)
    late.restore(through_bytes(list(Slotted().snapshot())))
    assert late.late == "gone", "as it was when the group began"
    fresh = Slotted()
    OneLog(fresh)
    fresh.late = "later"
    fresh.restore(through_bytes(Slotted().snapshot()))
    assert not hasattr(fresh, "late")


def test_attrs_classes_are_kept() -> None:
    @attrs.define
    class Point(Replicated):
        x: int = 0
        names: list[str] = attrs.Factory(list)

    assert restored(Point(3, ["a"])) == Point(3, ["a"])


def test_an_attribute_that_holds_itself_is_named() -> None:
    store = Store()
    store.names.append(store.names)
    store.rows["a"] = store.rows
    with pytest.raises(WireError, match="attribute 'rows' of Store: a dict that is in the state twice"):
        store.snapshot()


@given(VALUES)
def test_what_is_frozen_is_equal_and_of_the_same_types(value: Any) -> None:
    assert repr(freeze(value, "", set())) == repr(value)


def test_an_attribute_that_cannot_be_kept_is_named() -> None:
    store = Store()
    OneLog(store)
    store.rows["a"] = {"b": {1, 2}}
    with pytest.raises(WireError, match="attribute 'rows' of Store.*not a set"):
        list(store.snapshot())


@pytest.mark.parametrize("records", [[], [5], [["replicated object"]], [["another", 1, 1]]])
def test_a_snapshot_of_something_else_is_refused(records: list[Any]) -> None:
    store = Store()
    with pytest.raises(WireError, match="none of a replicated object"):
        store.restore(iter(records))


@pytest.mark.parametrize(
    "record", [5, ["rows"], ["rows", 4, []], ["rows", 2, [1]], ["rows", 0, []], [5, 0, [1]], ["names", 1, 5]], ids=repr
)
def test_records_of_something_else_are_refused_and_nothing_is_changed(record: Any) -> None:
    store = Store()
    store.count = 7
    with pytest.raises(WireError):
        store.restore(iter([["replicated object", 1, 1], ["count", 0, [8]], record]))
    assert store.count == 7


def test_a_mix_of_forms_is_refused() -> None:
    with pytest.raises(WireError):
        Store().restore(iter([["replicated object", 1, 1], ["rows", 0, [5]], ["rows", 1, [1]]]))


@pytest.mark.parametrize("head", [["replicated object", 2, 1], ["replicated object", 1, 2]])
def test_a_snapshot_of_newer_code_names_both_versions(head: list[Any]) -> None:
    with pytest.raises(VersionError, match=r"version \d of Store \(format \d\), and the code of this node is at 1 \(format 1\)"):
        Store().restore(iter([head]))


class Own(Replicated):
    """Keeps its state in its own way: a set, which is sorted on the way out."""

    def __init__(self) -> None:
        self.seen = {3, 1}
        self.closed = False

    @command
    def add(self, number: int) -> None:
        self.seen.add(number)

    def save(self) -> Iterable[Any]:
        return _Sorted(self)

    def load(self, records: Iterator[Any]) -> None:
        self.seen = set(records)


class _Sorted:
    def __init__(self, own: Own) -> None:
        self._own, self._numbers = own, sorted(own.seen)

    def __iter__(self) -> Iterator[int]:
        yield from self._numbers

    def close(self) -> None:
        self._own.closed = True


def test_a_class_with_save_and_load_of_its_own() -> None:
    own = Own()
    view = own.snapshot()
    own.seen.add(9)
    assert list(view) == [["replicated object", 1, 1], 1, 3]
    view.close()  # type: ignore[attr-defined]  # whoever pulls records calls it if it is there
    assert own.closed
    assert restored(own, view).seen == {1, 3}


def test_views_without_an_end_to_close() -> None:
    Store().snapshot().close()  # type: ignore[attr-defined]  # as above
    own = Own()
    own.save = lambda: [1]  # type: ignore[method-assign]  # a view that is a list
    own.snapshot().close()  # type: ignore[attr-defined]  # as above


def test_a_save_that_would_show_a_later_state_is_refused() -> None:
    class Late(Own):
        def save(self) -> Iterable[Any]:
            yield from self.seen

    with pytest.raises(SnapshotError, match="Late.save is a generator function"):
        Late().snapshot()


def test_an_object_that_has_own_attributes_and_no_save_is_refused_early() -> None:
    class Careless(Replicated):
        def __init__(self) -> None:
            self.seen = {1}

    with pytest.raises(ConfigError, match="attribute 'seen'"):
        OneLog(Careless())
