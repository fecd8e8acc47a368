"""The attributes of a replicated object, as the records of a snapshot.

A record is ``[attribute, form, items]``: a list or tuple comes in pieces of its packed items, a dict in pieces of keys and values in turn,
anything else as the only item. The records of one attribute follow each other. An attribute that `__init__` has set and a command has
deleted has one without items, lest it come back.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from itertools import chain
from typing import Any, Final

from .._errors import WireError
from .._machine import StateMachine
from ._replicated_values import DEPTH_MAX, LIST, TUPLE, check_keys, freeze, pack, unpack

_PIECE_BYTES: Final = 64 << 10
"""About how much goes into one record; an item that is larger goes alone."""

GONE: Final = object()
"""Stands for an attribute that was deleted."""


class _Form(IntEnum):
    VALUE = 0
    LIST = 1
    DICT = 2
    GONE = 3


def read_attributes(machine: StateMachine, library: type) -> dict[str, Any]:
    """The attributes that the user's classes have set, in `__dict__` or in slots."""
    attributes = {name: getattr(machine, name) for name in _slots(type(machine), library) if hasattr(machine, name)}
    attributes.update(vars(machine))
    return attributes


def write_attributes(machine: StateMachine, library: type, attributes: dict[str, Any]) -> None:
    """Make these all that there are."""
    slots = _slots(type(machine), library)
    for name in slots:
        if name not in attributes and hasattr(machine, name):
            object.__delattr__(machine, name)
    # NB: at one stroke, for whoever looks at the object from the event loop while this runs in a thread.
    machine.__dict__ = {name: value for name, value in attributes.items() if name not in slots}
    for name in attributes.keys() & slots:
        object.__setattr__(machine, name, attributes[name])


def _slots(kind: type, library: type) -> set[str]:
    found = set()
    for base in kind.__mro__:
        if base in library.__mro__:
            continue
        names = base.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if name not in {"__dict__", "__weakref__"}:
                hidden = name.startswith("__") and not name.endswith("__")
                found.add(f"_{base.__name__.lstrip('_')}{name}" if hidden else name)
    return found


def freeze_attributes(attributes: dict[str, Any], owner: str) -> dict[str, Any]:
    """A copy of a state that stays as it is.

    Raises:
        WireError: names an attribute with a list or dict that is in the state twice.
    """
    seen: set[int] = set()
    return {name: freeze(value, f"attribute {name!r} of {owner}", seen) for name, value in attributes.items()}


def pack_attributes(attributes: dict[str, Any], owner: str) -> dict[str, Any]:
    """Pack a state as a whole.

    Raises:
        WireError: names the attribute that is no plain value.
    """
    return {name: pack(value, f"attribute {name!r} of {owner}") for name, value in attributes.items()}


def to_records(frozen: dict[str, Any], owner: str) -> Iterator[Any]:
    """The records of a state that was frozen. For a worker thread.

    Raises:
        WireError: names the attribute that is no plain value.
    """
    for name, value in frozen.items():
        where = f"attribute {name!r} of {owner}"
        kind = type(value)
        if value is GONE:
            yield [name, _Form.GONE.value, []]
        elif kind is dict:
            check_keys(value, where)
            yield from _pieces(name, _Form.DICT, ((key, pack(item, where, DEPTH_MAX - 1)) for key, item in value.items()))
        elif kind is list or kind is tuple:
            tag = TUPLE if kind is tuple else LIST
            yield from _pieces(name, _Form.LIST, chain([(tag,)], ((pack(item, where, DEPTH_MAX - 1),) for item in value)))
        else:
            yield [name, _Form.VALUE.value, [pack(value, where)]]


def _pieces(name: str, form: _Form, parts: Iterator[tuple[Any, ...]]) -> Iterator[Any]:
    items: list[Any] = []
    size = 0
    is_first = True
    for part in parts:
        items.extend(part)
        size += sum(map(_weight, part))
        if size >= _PIECE_BYTES:
            yield [name, form.value, items]
            items, size, is_first = [], 0, False
    if items or is_first:
        yield [name, form.value, items]


def _weight(packed: Any) -> int:
    """About how many bytes a packed value takes up."""
    kind = type(packed)
    if kind is str or kind is bytes:
        return len(packed) + 3
    if kind is list:
        return sum(map(_weight, packed)) + 3
    if kind is dict:
        return sum(map(_weight, packed)) + sum(map(_weight, packed.values())) + 3
    return 9


def from_records(records: Iterator[Any]) -> dict[str, Any]:
    """The attributes that `to_records` had; `GONE` for one that was deleted.

    Raises:
        WireError: these are other records.
    """
    packed: dict[str, Any] = {}
    for record in records:
        match record:
            case [str(name), _Form.GONE, []]:
                packed[name] = GONE
            case [str(name), _Form.VALUE, [value]]:
                packed[name] = value
            case [str(name), _Form.LIST, list(items)] if type(packed.setdefault(name, [])) is list:
                packed[name].extend(items)
            case [str(name), _Form.DICT, list(items)] if type(packed.setdefault(name, {})) is dict and len(items) % 2 == 0:
                packed[name].update(zip(items[::2], items[1::2], strict=True))
            case _:
                raise WireError("a record of a snapshot that is none of a replicated object's attributes")
    return {name: unpack(value) for name, value in packed.items()}
