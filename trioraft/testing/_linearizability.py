"""Whether a history of one register could have come from one that takes each operation at a single moment between call and return.

In general that needs a search. Here every write has a value of its own, so each read names the write that it saw, and the question has a
simple answer (Gibbons and Korach, "Testing shared memories", 1997). A write and the reads of its value are a *cluster*. Let `first` be
the earliest return in it, and `last` the latest call:

- ``first < last``: something of the cluster was over before something else of it began: from `first` to `last` the register held this
  value and no other (a *forward zone*);
- otherwise all of it overlaps in one moment, which may be any from `last` to `first` (a *backward zone*).

The history is linearizable if and only if no read returns before its write is called, no two forward zones overlap, and no backward
zone lies inside a forward one.

A write whose outcome is unknown may take effect at any time after its call, or never: it has no return, and counts if anybody read its
value. One that was refused must not be read by anybody. A read without an answer says nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from operator import attrgetter
from typing import TypeAlias

import attrs

from .._types import NEVER

Value: TypeAlias = "int | None"
"""What a register holds; None: nobody has written yet."""


@attrs.frozen
class Write:
    """A value that nobody else writes."""

    value: int
    called: int
    """A moment: a number that rises from event to event."""
    returned: int | None
    """When it was acknowledged; None: unknown whether it has happened, or ever will."""
    is_refused: bool = False
    """It is known never to happen."""


@attrs.frozen
class Read:
    """An answer that a client got."""

    value: Value
    called: int
    returned: int


@attrs.frozen
class _Zone:
    value: Value
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.value} from {self.first} to {self.last}"


def find_fault(writes: Iterable[Write], reads: Iterable[Read]) -> str | None:
    """Say why this history of one register is not linearizable; None: it is.

    Takes time n log n.
    """
    written = {write.value: write for write in writes}
    answers: defaultdict[Value, list[Read]] = defaultdict(list)
    for read in reads:
        fault = _find_wrong_value(read, written)
        if fault is not None:
            return fault
        answers[read.value].append(read)
    forward, backward = _find_zones(written, answers)
    forward.sort(key=attrgetter("first"))
    for zone, following in pairwise(forward):
        if following.first < zone.last:
            return f"the register held {zone}, and also {following}"
    starts = [zone.first for zone in forward]
    for inner in backward:
        # Forward zones do not overlap: at most one begins before this one and is not over yet.
        place = bisect_left(starts, inner.last) - 1
        if place >= 0 and inner.first < forward[place].last:
            return f"the register held {forward[place]}, but {inner.value} was there some time from {inner.last} to {inner.first}"
    return None


def _find_wrong_value(read: Read, written: dict[int, Write]) -> str | None:
    if read.value is None:
        return None
    write = written.get(read.value)
    if write is None:
        return f"{read} of what nobody wrote"
    if write.is_refused:
        return f"{read} of what was refused: {write}"
    if read.returned < write.called:
        return f"{read} of what is written only later: {write}"
    return None


def _find_zones(written: dict[int, Write], answers: dict[Value, list[Read]]) -> tuple[list[_Zone], list[_Zone]]:
    """Forward zones, and backward ones: these with `first` behind `last`."""
    forward: list[_Zone] = []
    backward: list[_Zone] = []
    if None in answers:
        forward.append(_Zone(None, -NEVER, max(read.called for read in answers[None])))
    for value, write in written.items():
        seen = answers.get(value, ())
        if write.returned is None and not seen:
            continue
        end = NEVER if write.returned is None else write.returned
        zone = _Zone(value, min([end, *(read.returned for read in seen)]), max([write.called, *(read.called for read in seen)]))
        (forward if zone.first < zone.last else backward).append(zone)
    return forward, backward
