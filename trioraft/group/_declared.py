"""Errors that a machine declares as results, as plain values: for another node, or to be kept."""

from __future__ import annotations

from typing import Any

from .._errors import RaftError, WireError
from ..wire import encode_value


def describe_error(declared: tuple[type[Exception], ...], error: Exception) -> list[Any] | None:
    """``[number of its class, arguments...]``; None if the machine does not declare it.

    A machine that declares a base of our own errors does not make a refusal a result.
    """
    number = _number(declared, error)
    if number is None or (isinstance(error, RaftError) and type(error) not in declared):
        return None
    return [number, *map(_plain, error.args)]


def rebuild_error(declared: tuple[type[Exception], ...], description: Any) -> Exception:
    """The error that was described.

    Raises:
        WireError: no such error is declared here.
    """
    if type(description) is not list or not description or type(description[0]) is not int or not 0 <= description[0] < len(declared):
        raise WireError(f"an error that is not declared here: {description!r}")
    return make_error(declared[description[0]], description[1:])


def make_error(kind: type[Exception], args: list[Any]) -> Exception:
    """An error as it was raised, without running its constructor: that may want other arguments than it kept."""
    error = kind.__new__(kind, *args)
    error.args = tuple(args)
    return error


def _number(declared: tuple[type[Exception], ...], error: Exception) -> int | None:
    """Which of the machine's declared errors this is: the class itself before a base of it."""
    if type(error) in declared:
        return declared.index(type(error))
    return next((number for number, base in enumerate(declared) if isinstance(error, base)), None)


def _plain(argument: Any) -> Any:
    """An exception's argument as something that can travel."""
    try:
        if isinstance(argument, int | str | bytes | float | None):
            encode_value(argument)
            return argument
    except WireError:
        pass  # an enum, a very large number, an odd letter
    return show(argument)


def show(value: Any) -> str:
    """Any value as text that can travel."""
    try:
        return str(value).encode(errors="replace").decode()
    except Exception:  # noqa: BLE001  # a user's class must not stop the group that answers
        return f"<{type(value).__name__}>"
