"""What every storage checks before it takes a write, whatever it then does with it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import attrs

from .._errors import InvariantError
from .._types import GroupKey, Member
from ..core import Compaction, Entry, HardState, InstallSnapshot
from ._contract import LogStorage, WriteListener


@attrs.define(eq=False)
class HeldLog(LogStorage):
    """The log of one life of a replica, as its driver holds it: closed once that life ends, for another may begin under the same key.

    What a storage does with it is in `_attach`, `_write` and `_compact`, which take the arguments of the methods without the underscore.
    """

    key: GroupKey
    me: Member
    """With the newest number that was handed over."""
    is_closed: bool = attrs.field(default=False, init=False)
    """The group was removed, or is about to be."""

    def attach(self, listener: WriteListener) -> None:
        self._check_open()
        self._attach(listener)

    def write(
        self,
        sequence: int,
        hard_state: HardState | None,
        entries: Sequence[Entry],
        install: InstallSnapshot | None = None,
        me: Member | None = None,
    ) -> None:
        self._check_open()
        if me is not None:
            check_number(self.me, me)
        self._write(sequence, hard_state, entries, install, me)
        self.me = me or self.me

    def compact(self, compaction: Compaction) -> None:
        self._check_open()
        self._compact(compaction)

    def _check_open(self) -> None:
        if self.is_closed:
            raise InvariantError(f"a write of {self.key}, which was removed")

    @abstractmethod
    def _attach(self, listener: WriteListener) -> None: ...

    @abstractmethod
    def _write(
        self, sequence: int, hard_state: HardState | None, entries: Sequence[Entry], install: InstallSnapshot | None, me: Member | None
    ) -> None: ...

    @abstractmethod
    def _compact(self, compaction: Compaction) -> None: ...


def check_number(before: Member, now: Member) -> None:
    """Refuse a number that is no later one of the same node's.

    Raises:
        InvariantError: the replica was called by `before` until now.
    """
    if now.node_id != before.node_id or now.replica <= before.replica:
        raise InvariantError(f"{before} is to be called {now}: a replica's number only rises")
