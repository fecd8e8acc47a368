"""What a body of a replicated object answers, as bytes: equal on all replicas, and for callers on all nodes alike.

    [0, value]                               its result
    [1, name of a class, args, attributes]   a declared error
    [2, text]                                it ran, and its result is nothing that can travel
    [3, text]                                a query that is not known where it was asked

Bytes, and not the result itself: that may be a part of the state, which goes on to change.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from .._errors import ResultError, VersionError, WireError
from ..wire import decode_value, encode_value
from ._declared import make_error, show
from ._replicated_values import pack, unpack


class _Kind(IntEnum):
    RESULT = 0
    ERROR = 1
    UNFIT = 2
    UNKNOWN = 3


def encode_result(value: Any, method: str) -> bytes:
    """The answer of a body that returned."""
    try:
        return encode_value([_Kind.RESULT.value, pack(value, f"the result of {method}()")])
    except WireError as error:
        return encode_value([_Kind.UNFIT.value, str(error)])


def encode_error(error: Exception, declared: tuple[type[Exception], ...]) -> bytes:
    """The answer of a body that raised an error of a declared class, or of one derived from it."""
    kind = next(base for base in type(error).__mro__ if base in declared)
    attributes = {name: value for name, value in vars(error).items() if _is_plain(value)}
    args = [value if _is_plain(value) else show(value) for value in error.args]
    return encode_value([_Kind.ERROR.value, kind.__name__, pack(args, ""), pack(attributes, "")])


def encode_unknown(text: str) -> bytes:
    """The answer to a question that nobody here knows."""
    return encode_value([_Kind.UNKNOWN.value, text])


def open_answer(answer: bytes, declared: tuple[type[Exception], ...], method: str) -> Any:
    """Return the result, or raise what was raised.

    Raises:
        ResultError: there is nothing that can be told, or it is of a class that is not declared here.
        VersionError: not known there.
        Exception: one of `declared`.
    """
    match decode_value(answer):
        case [_Kind.RESULT, value]:
            return unpack(value)
        case [_Kind.ERROR, name, args, attributes]:
            raise _rebuild(declared, name, unpack(args), unpack(attributes), method)
        case [_Kind.UNFIT, text]:
            raise ResultError(f"{text}; the method was carried out all the same")
        case [_Kind.UNKNOWN, text]:
            raise VersionError(text)
    raise ResultError(f"{method}() was carried out, but its answer is of a form that is not known here")


def _rebuild(declared: tuple[type[Exception], ...], name: str, args: list[Any], attributes: dict[str, Any], method: str) -> Exception:
    kind = next((kind for kind in declared if kind.__name__ == name), None)
    if kind is None:
        return ResultError(f"{method}() raised {name}{tuple(args)}, which is not in `declared_errors` of this node's code")
    error = make_error(kind, args)
    vars(error).update(attributes)
    return error


def _is_plain(value: Any) -> bool:
    try:
        encode_value(pack(value, ""))
    except WireError:
        return False
    return True
