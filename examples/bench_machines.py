"""The state machines of the benchmarks: as little work as possible, so that what is measured is the library."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any
from zlib import crc32

import attrs

from trioraft import ApplyContext, StateMachine

RECORD_BYTES = 64 * 1024
_BLOCK_BYTES = 1 << 20
_STEP_BYTES = 70_001
"""More than a record: one that overlapped with the record before it would be compressed to nothing."""
_SLOTS_IN_RECORD = 512


class CountingMachine(StateMachine):
    """As little as a machine can do."""

    def __init__(self) -> None:
        self.applied = 0

    def apply(self, command: Any, context: ApplyContext) -> int:
        """Count."""
        self.applied += 1
        return self.applied

    def query(self, query: Any) -> int:
        return self.applied

    def snapshot(self) -> Iterable[Any]:
        return iter((self.applied,))

    def restore(self, records: Iterator[Any]) -> None:
        (self.applied,) = records


@attrs.define
class Ring:
    """What a `RingMachine` holds."""

    slots: list[bytes]
    applied: int = 0
    checksum: int = 0
    """Of everything that was ever applied: equal on replicas that have applied the same."""


class RingMachine(StateMachine):
    """Keeps the last commands: a state that stops growing, however many proposals there are."""

    def __init__(self, slots: int) -> None:
        self.ring = Ring([b""] * slots)

    def apply(self, command: Any, context: ApplyContext) -> int:
        """Put a command in the place of the oldest one."""
        ring = self.ring
        ring.slots[ring.applied % len(ring.slots)] = command
        ring.applied += 1
        ring.checksum = crc32(command, ring.checksum)
        return ring.applied

    def snapshot(self) -> Iterable[Any]:
        """The ring as it is now: commands never change, so a copy of the list is enough."""
        return _ring_records(attrs.evolve(self.ring, slots=self.ring.slots.copy()))

    def restore(self, records: Iterator[Any]) -> None:
        applied, checksum = next(records)
        slots = [command for record in records for command in record]
        self.ring = Ring(slots, applied, checksum)


def _ring_records(ring: Ring) -> Iterator[Any]:
    yield [ring.applied, ring.checksum]
    for start in range(0, len(ring.slots), _SLOTS_IN_RECORD):
        yield ring.slots[start : start + _SLOTS_IN_RECORD]


class GeneratedMachine(StateMachine):
    """A state of any size that takes no memory: its records are made when they are wanted, and compared when they come back.

    So all that a process grows by while a snapshot moves is what the library needs for it.
    """

    _block = random.Random(0).randbytes(_BLOCK_BYTES)

    def __init__(self, records: int) -> None:
        self.records = records
        self.applied = 0

    def apply(self, command: Any, context: ApplyContext) -> int:
        """Count."""
        self.applied += 1
        return self.applied

    def snapshot(self) -> Iterable[Any]:
        return self._view(self.records, self.applied)

    def _view(self, records: int, applied: int) -> Iterator[Any]:
        yield [records, applied]
        for number in range(records):
            yield self._record(number)

    def restore(self, records: Iterator[Any]) -> None:
        """Read all of it, and raise if any record is not what it was."""
        count, applied = next(records)
        number = -1
        for number, record in enumerate(records):
            if record != self._record(number):
                raise ValueError(f"record {number} came back changed")
        if number + 1 != count:
            raise ValueError(f"{number + 1} records came back of {count}")
        self.records, self.applied = count, applied

    def _record(self, number: int) -> bytes:
        """Bytes that no compression makes smaller, other ones for each number."""
        start = number * _STEP_BYTES % (_BLOCK_BYTES - RECORD_BYTES)
        return number.to_bytes(8, "little") + self._block[start + 8 : start + RECORD_BYTES]
