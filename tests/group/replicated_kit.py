"""Replicated objects without nodes: a group that applies each call on all of its replicas at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import trio

from trioraft import ApplyContext, Replicated, StaleRead
from trioraft.group import check_replicated, join_group
from trioraft.wire import decode_value, encode_value


class OneLog:
    """Stands in for `RaftGroup`: a log, and its replicas, the first of which leads."""

    id = 7

    def __init__(self, *machines: Replicated) -> None:
        self.machines = machines
        self.log: list[bytes] = []
        self.leader: int | None = 1
        self.levels: list[str] = []
        for machine in machines:
            check_replicated(self.id, machine)
            join_group(machine, self)  # type: ignore[arg-type]  # it has what is called

    async def wait_leader(self) -> int:
        await trio.lowlevel.checkpoint()
        self.leader = 1
        return 1

    async def read_barrier(self) -> int:
        await trio.lowlevel.checkpoint()
        return len(self.log)

    async def propose(self, command: Any) -> Any:
        payload = self.machines[0].codec.encode(command)
        await trio.lowlevel.checkpoint()
        self.log.append(payload)
        answers = {replay(machine, payload, len(self.log)) for machine in self.machines}
        assert len(answers) == 1, "replicas answer alike"
        return answers.pop()

    async def read(self, query: Any, *, level: str) -> Any:
        await trio.lowlevel.checkpoint()
        self.levels.append(level)
        value = self.machines[0].query(decode_value(encode_value(query)))
        return StaleRead(value, len(self.log)) if level == "stale" else value


def replay(machine: Replicated, payload: bytes, index: int) -> bytes:
    """Apply one entry of a log."""
    return machine.apply(machine.codec.decode(payload), ApplyContext(group_id=7, index=index, term=1, node_id=1))


def through_bytes(records: Iterable[Any]) -> Iterator[Any]:
    """What the records of a snapshot are when they come back from a file."""
    return iter([decode_value(encode_value(record)) for record in records])
