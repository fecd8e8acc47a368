"""`@command` and `@query`: what makes methods of a class commands and queries of a group.

The body of a method runs on replicas; what its caller calls is an awaitable that brings the arguments there. A command may have several
bodies, one for each version of the program that is still to be understood (`Command.version`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, overload

from ._reading import ReadLevel
from ._replicated_values import pack, unpack

if TYPE_CHECKING:
    from ._replicated import Replicated

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


class Body:
    """A function that runs on replicas."""

    __slots__ = ("_parameters", "_signature", "function", "name")

    def __init__(self, function: Callable[..., Any]) -> None:
        if not inspect.isfunction(function):
            raise TypeError(f"a command or query must be a method, not {function!r}")
        self.function: Final = function
        self.name: Final = function.__qualname__
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{self.name}() must be a plain function: its body waits for nothing; calling it is what is awaited")
        self._signature = inspect.signature(function)
        self._parameters = list(self._signature.parameters)
        if not self._parameters:
            raise TypeError(f"{self.name}() must take the object, `self`, as its first parameter")

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse arguments that do not fit the parameters.

        Raises:
            TypeError: as a call would.
        """
        try:
            self._signature.bind(None, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None

    def pack(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Make the arguments ready to travel: by name, and with the defaults of here, which are other ones elsewhere perhaps.

        Raises:
            TypeError: they do not fit.
            WireError: names the argument that cannot travel.
        """
        bound = self._signature.bind(None, *args, **kwargs)
        bound.apply_defaults()
        return {name: pack(bound.arguments[name], f"argument {name!r} of {self.name}()") for name in self._parameters[1:]}

    def __str__(self) -> str:
        return f"({', '.join(self._parameters[1:])})"

    def takes(self, arguments: dict[str, Any]) -> bool:
        """Whether `arguments` were packed for these parameters."""
        return arguments.keys() == set(self._parameters[1:])

    def run(self, machine: object, arguments: dict[str, Any]) -> Any:
        """Run the body with arguments that were packed."""
        values = {name: unpack(arguments[name]) for name in self._parameters[1:]}
        bound = inspect.BoundArguments(self._signature, {self._parameters[0]: machine, **values})
        return self.function(*bound.args, **bound.kwargs)


class Method(Generic[P, R]):
    """What the two have in common."""

    def __init__(self, function: Callable[Concatenate[Any, P], R]) -> None:
        self.body: Final = Body(function)
        """What the caller's arguments must fit."""
        self.name: Final = self.body.function.__name__
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, machine: None, owner: type | None = None) -> Self: ...

    @overload
    def __get__(self, machine: Replicated, owner: type | None = None) -> Callable[P, Coroutine[Any, Any, R]]: ...

    def __get__(self, machine: Replicated | None, owner: type | None = None) -> Self | Callable[P, Coroutine[Any, Any, R]]:
        return self if machine is None else functools.partial(self._call, machine)

    def _call(self, machine: Replicated, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        # NB: no coroutine: inside of a body nobody would await it, and what is wrong would never be heard of.
        machine._trioraft.check(self.name)
        self.body.check(args, kwargs)
        return self._carry_out(machine, args, kwargs)

    def _carry_out(self, machine: Replicated, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Coroutine[Any, Any, R]:
        raise NotImplementedError


class Command(Method[P, R]):
    """A method that changes the state: applied on every replica, in the order of the log."""

    def __init__(self, function: Callable[Concatenate[Any, P], R], version: int) -> None:
        super().__init__(function)
        _check_version(version)
        self.newest: Final = version
        self.bodies: Final[dict[int, Body]] = {version: self.body}
        """By the version in which each came."""

    def version(self, version: int) -> Callable[[F], F]:
        """Keep what the command did from `version` on, under a name of its own: for logs and nodes that still have it.

        Raises:
            TypeError: not below the version of the command, or there twice.
        """
        _check_version(version)
        if version >= self.newest or version in self.bodies:
            raise TypeError(f"{self.name}() has version {sorted(self.bodies)}: an older body cannot have version {version}")

        def keep(function: F) -> F:
            self.bodies[version] = Body(function)
            return function

        return keep

    def in_use(self, version: int) -> int | None:
        """Which body a group proposes that is at `version`; None: the command came later."""
        return max((number for number in self.bodies if number <= version), default=None)

    def _carry_out(self, machine: Replicated, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Coroutine[Any, Any, R]:
        return machine._trioraft.propose(self, args, kwargs)


class Query(Method[P, R]):
    """A method that looks at the state and changes nothing."""

    def __init__(self, function: Callable[Concatenate[Any, P], R], level: ReadLevel) -> None:
        super().__init__(function)
        if level not in {"linearizable", "lease", "follower", "stale"}:
            raise TypeError(f"a level of reads is linearizable, lease, follower or stale, not {level!r}")
        self.level: Final = level

    def _carry_out(self, machine: Replicated, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Coroutine[Any, Any, R]:
        return machine._trioraft.ask(self, args, kwargs)


def _check_version(version: object) -> None:
    if type(version) is not int or version < 1:
        raise TypeError(f"versions are whole numbers from 1 on, not {version!r}")


@overload
def command(function: Callable[Concatenate[Any, P], R], /) -> Command[P, R]: ...


@overload
def command(*, version: int = 1) -> Callable[[Callable[Concatenate[Any, P], R]], Command[P, R]]: ...


def command(function: Callable[..., Any] | None = None, /, *, version: int = 1) -> Any:
    """Make a method of a `Replicated` class a command: ``await counter.add(5)`` has every replica run it, and returns its result.

    Args:
        version: from which version of the program on the command is there, or does what it does now; see `Replicated`.

    Raises:
        TypeError: not a plain method, or not a version.
    """
    return functools.partial(Command, version=version) if function is None else Command(function, version)


@overload
def query(function: Callable[Concatenate[Any, P], R], /) -> Query[P, R]: ...


@overload
def query(*, level: ReadLevel = "linearizable") -> Callable[[Callable[Concatenate[Any, P], R]], Query[P, R]]: ...


def query(function: Callable[..., Any] | None = None, /, *, level: ReadLevel = "linearizable") -> Any:
    """Make a method of a `Replicated` class a query: ``await counter.get()`` has one replica run it, and returns its result.

    Args:
        level: which replica, and how new its state is: see `RaftGroup.read`.

    Raises:
        TypeError: not a plain method, or not a level.
    """
    return functools.partial(Query, level=level) if function is None else Query(function, level)
