"""The state machine of a simulated replica: a few registers, and the real table of sessions before it.

A command reads ``c17k2----``: write number 17 to register 2; no two commands have one number. Its result is the place at which it took
effect: the how manyth of all that ever did in this group. Beside its registers a machine keeps all that it was ever given, so that one
can see whether a snapshot is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import attrs

from .._types import EntryId, Index
from ..core import Configuration, Entry, EntryKind
from ..group._session_table import SessionTable

Result: TypeAlias = "tuple[Any, Exception | None]"


class Command(NamedTuple):
    """What a command says."""

    number: int
    key: int

    def encode(self, size: int) -> bytes:
        """At least `size` bytes."""
        return f"c{self.number}k{self.key}-".encode().ljust(size, b"-")

    @classmethod
    def decode(cls, payload: bytes) -> Command:
        """
        Raises:
            ValueError: nobody has written this.
        """
        number, key = payload[1 : payload.index(b"-")].split(b"k")
        return cls(int(number), int(key))


class Snapshot(NamedTuple):
    """A snapshot's file."""

    at: EntryId
    configuration: Configuration
    history: tuple[Entry, ...]
    """All that the machine was ever given."""
    records: tuple[Any, ...] = ()
    """The table of sessions, then the registers, which command took effect when, and how many."""

    def __str__(self) -> str:
        return f"{self.at} {self.configuration}"


@attrs.define(eq=False)
class SimulatedMachine:
    """The state, and how an entry changes it."""

    history: list[Entry] = attrs.Factory(list)
    registers: dict[int, int] = attrs.Factory(dict)
    """The number of the last command, by key."""
    places: dict[int, int] = attrs.Factory(dict)
    """Which commands have taken effect, by number, and as the how manyth."""
    effects: int = 0
    """How often any has."""
    sessions: SessionTable = attrs.Factory(lambda: SessionTable(()))

    @classmethod
    def replayed(cls, history: Iterable[Entry]) -> SimulatedMachine:
        """The machine that was given this."""
        machine = cls()
        for entry in history:
            machine.apply(entry)
        return machine

    @classmethod
    def restored(cls, snapshot: Snapshot) -> SimulatedMachine:
        # NB: what a table is made of becomes its own.
        records: Iterator[Any] = iter([[*one[:2], dict(one[2])] if type(one) is list else one for one in snapshot.records])
        sessions = SessionTable(()).restored(records)
        return cls(list(snapshot.history), dict(next(records)), dict(next(records)), next(records), sessions)

    @property
    def index(self) -> Index:
        """Of the last entry it was given."""
        return len(self.history)

    def apply(self, entry: Entry) -> Result:
        """Take the next entry."""
        self.history.append(entry)
        if entry.kind is EntryKind.COMMAND:
            return self._run(entry.payload)
        if entry.kind is EntryKind.SESSION:
            return self.sessions.apply(entry.index, entry.payload, self._run)
        return None, None

    def _run(self, payload: bytes) -> Result:
        command = Command.decode(payload)
        self.registers[command.key] = command.number
        self.effects += 1
        self.places[command.number] = self.effects
        return self.effects, None

    def snapshot(self, at: EntryId, configuration: Configuration) -> Snapshot:
        """As it is now."""
        records = (*self.sessions.records(), dict(self.registers), dict(self.places), self.effects)
        return Snapshot(at, configuration, tuple(self.history), records)
