"""The way of a call from an object to its group, and of what is in the log to a body."""

from __future__ import annotations

import threading
from typing import Any, Final, NamedTuple

from .._errors import VersionError, WireError
from .._machine import ApplyContext, StateMachine
from ..wire import decode_value, encode_value
from ._group import RaftGroup
from ._replicated_answers import encode_error, encode_result, open_answer
from ._replicated_methods import Body, Command, Query

UPGRADE: Final = ""
"""What stands in the place of a command's name in the entry that raises the version in use."""


class Call(NamedTuple):
    """A command as it stands in the log."""

    name: str
    version: int
    """Of the body that is to be run; of an upgrade: the version from then on."""
    arguments: dict[str, Any]


class CallCodec:
    """Calls as bytes; nothing else gets into the log of a replicated object."""

    def encode(self, command: Any) -> bytes:
        """
        Raises:
            TypeError: this is no call of a method.
            WireError: an argument cannot be encoded.
        """
        if type(command) is not Call:
            raise TypeError(f"the group of a replicated object takes calls of its methods only, not {type(command).__name__}")
        try:
            return encode_value(list(command))
        except WireError as error:
            raise WireError(f"{command.name}(): {error}") from None

    def decode(self, payload: bytes) -> Call:
        match decode_value(payload):
            case [str(name), int(version), dict(arguments)]:
                return Call(name, version, arguments)
        raise WireError("this entry is no call of a replicated object's method")


class Running(NamedTuple):
    """The body that runs just now."""

    thread: int
    method: str
    context: ApplyContext | None


class Calls:
    """What the library keeps with one replicated object; beside the object's attributes, which are the user's."""

    def __init__(self, machine: StateMachine) -> None:
        self._machine = machine
        self._running: Running | None = None
        self.group: RaftGroup | None = None
        self.version = 1
        """In use, as far as this replica has heard."""
        self.initial: dict[str, Any] = {}
        """The object's attributes as `__init__` left them, packed."""

    # --- on replicas ------------------------------------------------------------------------------------------------------------------

    def run(self, body: Body, arguments: dict[str, Any], context: ApplyContext | None) -> bytes:
        """Run a body and return its answer; no context: it is a query's.

        Raises:
            Exception: what the body raised and the machine does not declare.
        """
        self._running = Running(threading.get_ident(), body.name, context)
        try:
            result = body.run(self._machine, arguments)
        except self._machine.declared_errors as error:
            return encode_error(error, self._machine.declared_errors)
        finally:
            self._running = None
        return encode_result(result, body.name)

    @property
    def running(self) -> Running | None:
        """The body that runs in this thread."""
        # NB: a blocking object's bodies run in worker threads while the event loop's thread calls.
        running = self._running
        return running if running is not None and running.thread == threading.get_ident() else None

    # --- at callers -------------------------------------------------------------------------------------------------------------------

    def check(self, method: str) -> RaftGroup:
        """The group that a call goes to.

        Raises:
            RuntimeError: there is none yet, or the call is made inside of a body.
        """
        running, name = self.running, type(self._machine).__name__
        if running is not None:
            text = "a body calls no command or query: put what they share into a plain method"
            raise RuntimeError(f"{running.method}() calls {name}.{method}(): {text}")
        if self.group is None:
            raise RuntimeError(f"{name}.{method}(): the object is in no group yet: pass it to add_group first")
        return self.group

    async def propose(self, method: Command[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        group = self.check(method.name)
        call = self._fit(method, args, kwargs)
        if group.leader is None:
            await group.wait_leader()
        if call is None:
            await group.read_barrier()  # a replica that has just started has not heard yet which version is in use
            call = self._fit(method, args, kwargs)
        if call is None:
            text = f"version {self.version} is in use in group {group.id}, and {method.body.name}() with these arguments needs"
            raise VersionError(f"{text} version {method.newest}: call upgrade() when all nodes run this code. Nothing is in the log")
        return open_answer(await group.propose(call), self._machine.declared_errors, method.body.name)

    def _fit(self, method: Command[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """The call in the version in use; None: that has no such command, or not with these arguments."""
        version = method.in_use(self.version)
        if version is None:
            return None
        try:
            arguments = method.bodies[version].pack(args, kwargs)
        except TypeError:
            return None
        return Call(method.name, version, arguments)

    async def ask(self, method: Query[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        group = self.check(method.name)
        question = [method.name, method.body.pack(args, kwargs)]
        if method.level == "stale":
            answer = (await group.read(question, level="stale")).value
        else:
            if group.leader is None:
                await group.wait_leader()
            answer = await group.read(question, level=method.level)
        return open_answer(answer, self._machine.declared_errors, method.body.name)
