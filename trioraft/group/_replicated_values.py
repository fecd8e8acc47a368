"""What replicated objects are made of, and talk in: plain values.

None, bool, int of 64 bits, float, str, bytes, and lists, tuples and dicts of them; keys are no containers. `pack` makes a copy that
CBOR can carry and that shares nothing with the original which could change; `unpack` gives back what it was, tuples included, which CBOR
does not know: a list travels as ``[0, items...]``, a tuple as ``[1, items...]``.

Packing a large state takes long, so it may be done in a thread, after `freeze` has copied just what could change meanwhile.

Nothing is turned into something else on the way: state that came back as another type would make a restored replica differ. Nor may one
list or dict be in two places of a state: a replica that was restored has two of them, and a change of one would not show in the other.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from .._errors import WireError

DEPTH_MAX: Final = 56
"""How deep values may nest: what CBOR allows here, but for what is put around them."""

LIST: Final = 0
TUPLE: Final = 1
_INT_MIN: Final = -(2**64)
_INT_MAX: Final = 2**64 - 1
_SCALARS: Final = frozenset({type(None), bool, float, str, bytes})
_UNCHANGING: Final = _SCALARS | {int}
_PLAIN: Final = "None, bool, int of 64 bits, float, str, bytes, or a list, tuple or dict of them"


def freeze(value: Any, where: str, seen: set[int], depth: int = DEPTH_MAX) -> Any:
    """Copy what could change: the lists and dicts in a value. What is not plain stays as it is, for `pack` to refuse.

    Args:
        seen: the `id` of each list and dict that is in the state so far.

    Raises:
        WireError: a list or dict is there twice; the text begins with `where`.
    """
    # NB: most of a large state is scalars in one dict, and this is all that happens to each of them while the event loop waits.
    kind = type(value)
    if kind is dict or kind is list:
        if id(value) in seen:
            text = f"a {kind.__name__} that is in the state twice would be two after a restart"
            raise WireError(f"{where}: {text}: keep it in one place, and its key in the other")
        seen.add(id(value))
    if kind is dict:
        if depth == 0 or _UNCHANGING.issuperset(map(type, value.values())):
            return value.copy()
        return {key: freeze(item, where, seen, depth - 1) for key, item in value.items()}
    if kind is list or kind is tuple:
        if depth == 0 or _UNCHANGING.issuperset(map(type, value)):
            return value if kind is tuple else value.copy()
        return kind([freeze(item, where, seen, depth - 1) for item in value])
    return value


def pack(value: Any, where: str, depth: int = DEPTH_MAX) -> Any:
    """Copy a value into what CBOR can carry.

    Raises:
        WireError: `value`, or something inside, is no plain value; the text begins with `where`.
    """
    kind = type(value)
    if kind in _SCALARS or (kind is int and _INT_MIN <= value <= _INT_MAX):
        return value
    if depth == 0:
        raise WireError(f"{where}: nested more than {DEPTH_MAX} deep")
    if kind is dict:
        check_keys(value, where)
        if _are_scalars(value.values()):
            return value.copy()
        return {key: pack(item, where, depth - 1) for key, item in value.items()}
    if kind is list or kind is tuple:
        tag = TUPLE if kind is tuple else LIST
        if _are_scalars(value):
            return [tag, *value]
        return [tag, *[pack(item, where, depth - 1) for item in value]]
    raise WireError(f"{where}: must be {_PLAIN}, not {_describe(value)}")


def check_keys(value: dict[Any, Any], where: str) -> None:
    """
    Raises:
        WireError: a key is a container, or no plain value.
    """
    if not _are_scalars(value):
        raise WireError(f"{where}: a key of a dict must be {_PLAIN.partition(', or')[0]}")


def unpack(packed: Any) -> Any:
    """Make the value that was packed.

    Raises:
        WireError: this is nothing that `pack` makes.
    """
    kind = type(packed)
    if kind is dict:
        return {key: unpack(item) for key, item in packed.items()}
    if kind is not list:
        return packed
    if not packed or packed[0] not in (LIST, TUPLE):
        raise WireError("a list without its kind")
    items = [unpack(item) for item in packed[1:]]
    return tuple(items) if packed[0] == TUPLE else items


def _are_scalars(values: Collection[Any]) -> bool:
    kinds = set(map(type, values))
    if int in kinds:
        if any(type(value) is int and not _INT_MIN <= value <= _INT_MAX for value in values):
            return False
        kinds.discard(int)
    return kinds <= _SCALARS


def _describe(value: Any) -> str:
    kind = type(value)
    if kind is int:
        return "an int of more than 64 bits"
    if kind in {set, frozenset}:
        return f"a {kind.__name__} (its order differs between replicas: use a dict whose values are None)"
    return f"{kind.__module__}.{kind.__qualname__}"
