"""Users' commands, queries and results as CBOR.

Values are None, bool, int of 64 bits, float, str, bytes, list or tuple, and dict with scalar keys; nothing is turned into something
else on the way, except that a tuple comes back as a list. Both directions apply one and the same check, so whatever could be
proposed can be applied: a command that is encodable but not decodable would stop its group on every replica.
"""

from __future__ import annotations

from typing import Any, Final

import cbor2

from .._errors import WireError
from ._strict import decode_strict, decode_strict_sequence

VALUE_DEPTH_MAX: Final = 64
"""How deep lists and dicts may nest. NB: without a bound the encoder overflows the C stack."""

_INT_MIN: Final = -(2**64)
_INT_MAX: Final = 2**64 - 1
_SCALARS: Final = frozenset({type(None), bool, float, str, bytes})


def encode_value(value: Any) -> bytes:
    """Encode a value as one CBOR item.

    Raises:
        WireError: `value`, or something inside, is no CBOR value; the text names its type.
    """
    _check(value, VALUE_DEPTH_MAX)
    try:
        return cbor2.dumps(value)
    except UnicodeEncodeError as error:
        raise WireError("not encodable as CBOR: str with a lone surrogate") from error


def decode_value(data: bytes | memoryview) -> Any:
    """Decode one CBOR item strictly; see `decode_strict` for what is refused.

    Raises:
        WireError: `data` is not exactly one value.
    """
    value = decode_strict(bytes(data), depth_max=VALUE_DEPTH_MAX)
    _check(value, VALUE_DEPTH_MAX)  # refuses what is CBOR without a tag, but no value: `undefined`, other simple values, containers as keys
    return value


def decode_values(data: bytes) -> list[Any]:
    """Decode values that stand one behind the other; see `decode_value`.

    Raises:
        WireError: `data` is something else.
    """
    values = decode_strict_sequence(data, depth_max=VALUE_DEPTH_MAX)
    _check(values, VALUE_DEPTH_MAX + 1)
    return values


def _check(value: Any, depth: int) -> None:
    # NB: most of what there is are scalars, and a call for each of them would take as long as CBOR itself: hence the conditions in line.
    kind = type(value)
    if kind is dict:
        _check_depth(depth)
        for key, item in value.items():
            if type(key) not in _SCALARS:
                _check(key, 0)
            if type(item) not in _SCALARS and not (type(item) is int and _INT_MIN <= item <= _INT_MAX):
                _check(item, depth - 1)
    elif kind is list or kind is tuple:
        _check_depth(depth)
        for item in value:
            if type(item) not in _SCALARS and not (type(item) is int and _INT_MIN <= item <= _INT_MAX):
                _check(item, depth - 1)
    elif kind is int:
        if not _INT_MIN <= value <= _INT_MAX:
            raise WireError("not encodable as CBOR: int of more than 64 bits")
    elif kind not in _SCALARS:
        raise WireError(f"not encodable as CBOR: {kind.__module__}.{kind.__qualname__}")


def _check_depth(depth: int) -> None:
    if depth <= 0:
        raise WireError(f"nested more than {VALUE_DEPTH_MAX} deep, or a list or dict as a key")
