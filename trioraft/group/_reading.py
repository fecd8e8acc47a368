"""Reads of a group: who is asked for the index that an answer must show, and which machine for the answer."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import attrs
import trio

from .._errors import ConfigError
from .._types import Index
from ..core import GroupConfig, Raft
from ..wire import RequestKind, encode_value
from ._applier import Applier
from ._host import Host
from ._leadership import Leadership
from ._queries import Question
from ._requests import Requests
from ._waiter import Waiter

ReadLevel: TypeAlias = Literal["linearizable", "lease", "follower", "stale"]


@attrs.frozen
class StaleRead:
    """What one replica answered, and as of when."""

    value: Any
    applied_index: Index
    """Everything up to this is in `value`, and nothing behind it."""


class Reader:
    """Asks on behalf of callers on this node."""

    def __init__(self, core: Raft, applier: Applier, requests: Requests, leadership: Leadership, config: GroupConfig, host: Host) -> None:
        self._core, self._applier, self._requests, self._leadership = core, applier, requests, leadership
        self._has_leases: Final = config.lease_reads
        self._host = host

    async def read(self, query: Any, level: ReadLevel) -> Any:
        """See `RaftGroup.read`."""
        match level:
            case "linearizable":
                return await self._read_at_leader(query)
            case "follower":
                value, _ = await self._read_here(await self.read_index(), query)
                return value
            case "stale":
                await trio.lowlevel.checkpoint()
                return StaleRead(*await self._read_here(0, query))
            case "lease":
                return await self._read_by_lease(query)
        raise ConfigError(f"a level of reads is linearizable, lease, follower or stale, not {level!r}")

    async def read_index(self) -> Index:
        """From which index on a state shows everything acknowledged by now, as the leader says. A checkpoint."""
        waiter = Waiter()
        self._requests.hand_over(RequestKind.READ_INDEX, b"", waiter)
        index: Index = await waiter.wait()
        return index

    async def _read_at_leader(self, query: Any) -> Any:
        if self._leadership.leader != self._host.node_id:
            return await self._requests.ask(RequestKind.QUERY, encode_value(query))
        # As it is: only a query that travels need be a CBOR value.
        value, _ = await self._read_here(await self.read_index(), query)
        return value

    async def _read_by_lease(self, query: Any) -> Any:
        if not self._has_leases:
            raise ConfigError("leases are off in this group: set GroupConfig(lease_reads=True) on all its members")
        await trio.lowlevel.checkpoint()
        if self._holds_lease:
            value, _ = await self._read_here(self._core.commit_index, query)
            # NB: looked at again: the process may have been stopped meanwhile, and another have been elected.
            if self._holds_lease:
                return value
        return await self._read_at_leader(query)

    @property
    def _holds_lease(self) -> bool:
        return self._host.now() < self._core.lease_until

    async def _read_here(self, index: Index, query: Any) -> tuple[Any, Index]:
        """The answer of this replica's machine once it has applied everything up to `index`, and as of when. No checkpoint if it has."""
        if self._applier.may_answer(index):
            return self._applier.answer(query), self._applier.applied_index
        waiter = Waiter()
        question = Question(query, waiter, self._applier.ask)
        self._applier.ask(index, question)
        try:
            return await waiter.wait(), question.applied_index
        except trio.Cancelled:
            self._applier.forget(question)
            raise
