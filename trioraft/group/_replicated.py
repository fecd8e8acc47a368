"""A replicated object: a class whose methods are commands and queries.

How a call gets there: the caller's arguments are fitted to the body of the version in use, packed, and proposed as a `Call`; every replica
unpacks them and runs that very body; what came of it goes back as bytes. The version in use is state: it is raised by an entry of the
log and carried in snapshots.

Checks come before the log: what is refused at the caller is in no log. What a replica cannot apply, because its code is too old, stops its
group there, before anything is changed; with the newer code it goes on from the very same entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final

import trio

from .._errors import ConfigError, VersionError, WireError
from .._machine import ApplyContext, Codec, StateMachine
from .._types import GroupId
from ._group import RaftGroup
from ._replicated_answers import encode_result, encode_unknown, open_answer
from ._replicated_calls import UPGRADE, Call, CallCodec, Calls
from ._replicated_methods import Body, Command, Method, Query
from ._replicated_state import GONE, freeze_attributes, from_records, pack_attributes, read_attributes, to_records, write_attributes
from ._replicated_values import unpack
from ._user_code import LedView, refuse_generator

_SNAPSHOT_MARK: Final = "replicated object"
_SNAPSHOT_FORMAT: Final = 1


class Replicated(StateMachine):
    """An object that is equal on all members of a group: derive from it, and mark methods with `command` and `query`.

    ``await counter.add(5)`` has the body of `add` run on every replica, in the order of the log, and returns what it returned; on whatever
    member it is called. ``await counter.get()`` has the body run on one of them. To be awaited once the object is in a group
    (`MultiRaftManager.add_group`); until a leader is known, calls wait. Errors of a call are those of `RaftGroup.propose` and
    `RaftGroup.read`, and:

    - TypeError: the arguments do not fit; WireError: one is no plain value; VersionError: see below. Nothing is in the log.
    - ResultError: the result is no plain value.
    - what the body raised, if its class is in `declared_errors`: raise before you change anything, since changes are kept. Any other
      exception of a command stops the group on every replica.

    Plain values are None, bool, int of 64 bits, float, str, bytes, and lists, tuples and dicts of them; no container is a key of a dict.

    **Bodies are deterministic.** They go by the arguments and the attributes, and by nothing else: no clock, no randomness, no files, no
    globals that change, no order of a set. Bring such things as arguments. A body calls no command or query (put what they share
    into a plain method), and waits for nothing. `context` tells it where the command stands in the log.

    **The attributes are the state.** They are plain values and set by `__init__` and by commands only. No list or dict is in two places
    of it: keep it in one, and its key in the other; until then no snapshot can be taken. A snapshot copies what could change while the
    event loop waits: about 10 ms for 100,000 texts or numbers, several times that for as many lists. A class with more state than that
    has ``blocking = True``, which has everything run in worker threads, or `save` and `load` of its own; so has one whose attributes are
    no plain values.

    **Versions.** A program that is upgraded node by node must not do on one what the others cannot do yet, and must understand what its
    log already has. So a command whose body or parameters change gets a version, and keeps its older bodies:

    .. code-block:: python

        @command(version=2)
        def add(self, amount: int, note: str = "") -> int: ...

        @add.version(1)
        def _add_1(self, amount: int) -> int: ...  # as it was

    Every group begins at version 1 and goes on with version 1 until ``await counter.upgrade()``, called once all nodes run the new
    code. Until then what is called is the older body; what that cannot do is a `VersionError` at the caller. A command may take an
    older body a moment longer on a member that has not heard of the upgrade, so older bodies must cope with what newer ones leave.
    A replica whose code is too old for an entry stops with a `VersionError` as the cause, and goes on when it is started with the newer
    code. Attributes that a version adds are given their first value in `__init__`.
    """

    __slots__ = ("_trioraft",)

    codec: ClassVar[Codec | None] = CallCodec()

    _trioraft_methods: ClassVar[dict[str, Command[..., Any] | Query[..., Any]]] = {}
    _trioraft_newest: ClassVar[int] = 1

    _trioraft: Calls

    def __new__(cls, *_: Any, **__: Any) -> Replicated:  # noqa: PYI034  # what is made is a cls; `Self` would hide the parameters of __init__
        machine = super().__new__(cls)
        machine._trioraft = Calls(machine)
        return machine

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        _check_names(cls)
        _check_errors(cls)
        cls._trioraft_methods = _find_methods(cls)
        cls._trioraft_newest = max((method.newest for method in cls._trioraft_methods.values() if isinstance(method, Command)), default=1)

    # --- what users call --------------------------------------------------------------------------------------------------------------

    @property
    def context(self) -> ApplyContext:
        """Inside of a command: where it stands in the log. `index` only ever rises: a fencing token.

        Raises:
            RuntimeError: no command runs.
        """
        running = self._trioraft.running
        if running is None or running.context is None:
            raise RuntimeError(f"{type(self).__name__}.context is for the bodies of commands")
        return running.context

    @property
    def version_in_use(self) -> int:
        """What this replica proposes, as far as it has heard."""
        return self._trioraft.version

    async def upgrade(self) -> int:
        """Have the group use what this code can do, from now on; return the version in use. To be called when **all** nodes run this code,
        those included that are down: a replica with older code stops.

        Raises:
            RuntimeError: not in a group, or called inside of a body.
            RaftError: as `RaftGroup.propose`.

        *Cancellation:* as `RaftGroup.propose`. Calling again is harmless.
        """
        group = self._trioraft.check("upgrade")
        if self.version_in_use >= self._trioraft_newest:
            await trio.lowlevel.checkpoint()
            return self.version_in_use
        await group.wait_leader()
        version: int = open_answer(await group.propose(Call(UPGRADE, self._trioraft_newest, {})), (), "upgrade")
        return version

    # --- what users may override ------------------------------------------------------------------------------------------------------

    def save(self) -> Iterable[Any]:
        """Return a view of the state as it is now, as `StateMachine.snapshot` does: by default, of all attributes.

        Raises:
            WireError: names the attribute that is no plain value, while it is iterated; or one with a list or dict that is there twice.
        """
        name, attributes = type(self).__name__, read_attributes(self, Replicated)
        deleted = dict.fromkeys(sorted(self._trioraft.initial.keys() - attributes.keys()), GONE)
        return to_records(freeze_attributes(attributes, name) | deleted, name)

    def load(self, records: Iterator[Any]) -> None:
        """Replace the state by what `save` yielded, as `StateMachine.restore` does. Attributes that were not there then are as `__init__`
        left them.

        Raises:
            WireError: these are no records of attributes.
        """
        initial = {name: unpack(value) for name, value in self._trioraft.initial.items()}
        attributes = {**initial, **from_records(records)}
        write_attributes(self, Replicated, {name: value for name, value in attributes.items() if value is not GONE})

    # --- the state machine ------------------------------------------------------------------------------------------------------------

    def apply(self, command: Call, context: ApplyContext) -> bytes:
        if command.name == UPGRADE:
            return _apply_upgrade(self, command.version)
        method = self._trioraft_methods.get(command.name)
        body = method.bodies.get(command.version) if isinstance(method, Command) else None
        if body is None or not body.takes(command.arguments):
            raise _unknown(self, command, method, body)
        return self._trioraft.run(body, command.arguments, context)

    def query(self, query: Any) -> bytes:
        match query:
            case [str(name), dict(arguments)]:
                method = self._trioraft_methods.get(name)
                if isinstance(method, Query) and method.body.takes(arguments):
                    return self._trioraft.run(method.body, arguments, None)
                text = f"the replica that was asked has the code of version {self._trioraft_newest} of {type(self).__name__}"
                return encode_unknown(f"{text}, and that has no query {name}({', '.join(arguments)})")
        raise TypeError(f"the group of a replicated object is read by the methods of the object, not with {type(query).__name__}")

    def snapshot(self) -> Iterable[Any]:
        refuse_generator(self, "save")
        return LedView([[_SNAPSHOT_MARK, _SNAPSHOT_FORMAT, self._trioraft.version]], self.save())

    def restore(self, records: Iterator[Any]) -> None:
        match next(records, None):
            case [str(mark), int(form), int(version)] if mark == _SNAPSHOT_MARK:
                pass
            case _:
                raise WireError(f"this snapshot is none of a replicated object such as {type(self).__name__}")
        if form != _SNAPSHOT_FORMAT or version > self._trioraft_newest:
            text = f"the snapshot is of version {version} of {type(self).__name__} (format {form})"
            raise VersionError(f"{text}, and the code of this node is at {self._trioraft_newest} (format {_SNAPSHOT_FORMAT})")
        self.load(records)
        self._trioraft.version = version


# --- versions -------------------------------------------------------------------------------------------------------------------------


def _apply_upgrade(machine: Replicated, version: int) -> bytes:
    newest = machine._trioraft_newest
    if version > newest:
        text = f"the group was upgraded to version {version} of {type(machine).__name__}"
        raise VersionError(f"{text}, and the code of this node is at version {newest}: start it with the newer code")
    machine._trioraft.version = max(machine._trioraft.version, version)
    return encode_result(machine._trioraft.version, "upgrade")


def _unknown(machine: Replicated, command: Call, method: Method[..., Any] | None, body: Body | None) -> VersionError:
    """Why the group must stop on this node: what the others do here, this replica cannot."""
    asked = f"the log has version {command.version} of {type(machine).__name__}.{command.name}({', '.join(command.arguments)})"
    if body is not None:
        return VersionError(f"{asked}, and the code of this node has version {command.version} with other parameters: {body}")
    known = f"version {', '.join(map(str, sorted(method.bodies)))}" if isinstance(method, Command) else "no such command"
    return VersionError(f"{asked}, and the code of this node, which is at version {machine._trioraft_newest}, has {known} of it")


# --- what a class must be -------------------------------------------------------------------------------------------------------------

_OVERRIDABLE: Final = {"blocking", "declared_errors", "save", "load"}
_RESERVED: Final = {name for base in (StateMachine, Replicated) for name in vars(base) if not name.startswith("__")} - _OVERRIDABLE


def _check_names(cls: type[Replicated]) -> None:
    taken = sorted(_RESERVED & (vars(cls).keys() - {"_trioraft_methods", "_trioraft_newest"}))
    if taken:
        text = (
            "a snapshot is made of what `save` returns, and `load` takes it back" if {"snapshot", "restore"} & set(taken) else "rename it"
        )
        raise TypeError(f"{cls.__name__}.{taken[0]} is a name that Replicated needs for itself: {text}")


def _check_errors(cls: type[Replicated]) -> None:
    for error in cls.declared_errors:
        if issubclass(VersionError, error):
            raise TypeError(f"{cls.__name__}.declared_errors: declare errors of your own, and not {error.__name__}")
    names = [error.__name__ for error in cls.declared_errors]
    if len(set(names)) < len(names):
        raise TypeError(f"{cls.__name__}.declared_errors: two classes of one name could not be told apart: {', '.join(sorted(names))}")


def _find_methods(cls: type[Replicated]) -> dict[str, Command[..., Any] | Query[..., Any]]:
    methods: dict[str, Command[..., Any] | Query[..., Any]] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, Command | Query):
                if value.name != name:
                    raise TypeError(f"{cls.__name__}.{name}: a command or query goes by the name of its function, {value.name}")
                methods[name] = value
            else:
                methods.pop(name, None)
    return methods


# --- what the node calls --------------------------------------------------------------------------------------------------------------


def check_replicated(group_id: GroupId, machine: StateMachine) -> None:
    """Refuse an object that cannot be the machine of a group, before there is one; any other machine will do.

    Raises:
        ConfigError: it is in a group, or has an attribute that no snapshot could hold.
    """
    if not isinstance(machine, Replicated):
        return
    if machine._trioraft.group is not None:
        text = f"the {type(machine).__name__} of group {group_id} is in group {machine._trioraft.group.id} already, or was"
        raise ConfigError(f"{text}: a group needs an object of its own, and a new one each time it is opened")
    if type(machine).save is Replicated.save:
        try:
            name = type(machine).__name__
            machine._trioraft.initial = pack_attributes(freeze_attributes(read_attributes(machine, Replicated), name), name)
        except WireError as error:
            raise ConfigError(f"group {group_id}: {error}; or give {type(machine).__name__} a `save` and a `load` of its own") from None


def join_group(machine: StateMachine, group: RaftGroup) -> None:
    """Tell a replicated object where its calls go; nothing to any other machine."""
    if isinstance(machine, Replicated):
        machine._trioraft.group = group
