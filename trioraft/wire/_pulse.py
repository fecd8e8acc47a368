"""The pulse: one per node pair and interval, for all groups.

    1 byte   body kind, 2
    n bytes  one flat CBOR array: incarnation, sequence, heard incarnation, heard sequence, sync age, base, then the lines

A line is ``kind, group id, term`` for a group of incarnation 1 between two replicas 0@0, which is nearly every line; any other is
``kind + 8, group id, term, incarnation, source term, source index, target term, target index``. All lines are in the one flat array:
thousands of small arrays would cost four times as much to encode.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import attrs
import cbor2

from .._errors import InvariantError, WireError
from .._types import NOTHING, EntryId, GroupKey, Term
from ._body import BodyKind
from ._strict import INCARNATION_MAX, NUMBER_MAX, checked_number, decode_strict

PULSE_LINES_MAX: Final = 4096
"""Lines of one pulse; what does not fit waits until these are acknowledged."""


class PulseKind(IntEnum):
    """What a line says. The numbers are part of the wire format."""

    ATTACH = 1
    """The sender's replica leads in `term`: count on the sender's pulse."""
    DETACH = 2
    """Count on the sender's pulse no more."""
    REFUSED = 3
    """Answer to an attach of an older term; `term` is the higher one."""


@attrs.define
class PulseLine:
    """One group's line."""

    kind: PulseKind
    group: GroupKey
    term: Term
    source_replica: EntryId = NOTHING
    target_replica: EntryId = NOTHING


@attrs.define
class Pulse:
    """One pulse, from one node to another."""

    incarnation: int
    """Of the sender's process."""
    sequence: int
    """Of this pulse, from 1."""
    heard_incarnation: int
    """The receiver's incarnation as last heard; 0: nothing yet."""
    heard: int
    """The last sequence heard from the receiver; 0: none."""
    sync_age: int
    """For how many milliseconds the oldest unfinished sync has run; 0: none does. -1: the disk is poisoned."""
    base: int
    """The lines are changes since this sequence of ours, the last one that the receiver acknowledged; 0: it acknowledged none."""
    lines: tuple[PulseLine, ...] = ()


_HEAD: Final = 6  # fields before the lines
_SHORT: Final = 3
_LONG: Final = 8
_IS_SHORT: Final = 0  # added to the kind of a short line; NB: the sum is a plain int, which is quicker to encode than an enum
_IS_LONG: Final = 8  # added to the kind of a long line
_BODY_BYTES_MAX: Final = 16 + 9 * (_HEAD + _LONG * PULSE_LINES_MAX)  # a number takes up to nine bytes
_KINDS: Final = {int(kind): kind for kind in PulseKind}


def encode_pulse(pulse: Pulse) -> bytes:
    """Return the body of a pulse.

    Raises:
        InvariantError: more than `PULSE_LINES_MAX` lines.
    """
    if len(pulse.lines) > PULSE_LINES_MAX:
        raise InvariantError(f"pulse of {len(pulse.lines)} lines; {PULSE_LINES_MAX} at most")
    fields: list[Any] = [
        pulse.incarnation,
        pulse.sequence,
        pulse.heard_incarnation,
        pulse.heard,
        pulse.sync_age,
        pulse.base,
    ]
    for line in pulse.lines:
        group_id, incarnation = line.group
        if incarnation == 1 and line.source_replica == NOTHING and line.target_replica == NOTHING:
            fields += (line.kind + _IS_SHORT, group_id, line.term)
        else:
            fields += (line.kind + _IS_LONG, group_id, line.term, incarnation, *line.source_replica, *line.target_replica)
    return bytes((BodyKind.PULSE,)) + cbor2.dumps(fields)


def decode_pulse(body: bytes) -> Pulse:
    """Read a pulse, all of it or nothing.

    Raises:
        WireError: a field or a line is not as it must be.
    """
    if body[:1] != bytes((BodyKind.PULSE,)):
        raise WireError("not a pulse body")
    if len(body) > _BODY_BYTES_MAX:
        raise WireError(f"pulse of {len(body)} bytes; up to {_BODY_BYTES_MAX} are accepted")
    fields = decode_strict(body[1:], depth_max=1)
    if type(fields) is not list or len(fields) < _HEAD:
        raise WireError(f"a pulse must be an array of at least {_HEAD} elements")
    incarnation, sequence, heard_incarnation, heard, sync_age, base = fields[:_HEAD]
    return Pulse(
        checked_number(incarnation, "incarnation"),
        checked_number(sequence, "sequence", 1),
        checked_number(heard_incarnation, "heard incarnation"),
        checked_number(heard, "heard"),
        checked_number(sync_age, "sync age", -1),
        checked_number(base, "base"),
        _decode_lines(fields[_HEAD:]),
    )


def _decode_lines(numbers: list[Any]) -> tuple[PulseLine, ...]:
    # The whole list at C speed first: no line needs to be looked at number by number.
    if numbers and ({*map(type, numbers)} != {int} or min(numbers) < 0 or max(numbers) > NUMBER_MAX):
        raise WireError("a number of a pulse line is none, or out of range")
    lines: list[PulseLine] = []
    at, end = 0, len(numbers)
    while at < end:
        is_long = numbers[at] >= _IS_LONG
        size = _LONG if is_long else _SHORT
        if at + size > end or len(lines) == PULSE_LINES_MAX:
            raise WireError(f"the pulse ends inside a line, or has more than {PULSE_LINES_MAX}")
        lines.append(_decode_long_line(numbers[at : at + size]) if is_long else _decode_short_line(*numbers[at : at + size]))
        at += size
    return tuple(lines)


def _decode_short_line(number: int, group_id: int, term: Term) -> PulseLine:
    return PulseLine(_line_kind(number), GroupKey(group_id), term)


def _decode_long_line(numbers: list[int]) -> PulseLine:
    number, group_id, term, incarnation, *replicas = numbers
    group = GroupKey(group_id, checked_number(incarnation, "group incarnation", high=INCARNATION_MAX))
    return PulseLine(_line_kind(number - _IS_LONG), group, term, EntryId(*replicas[:2]), EntryId(*replicas[2:]))


def _line_kind(number: int) -> PulseKind:
    kind = _KINDS.get(number)
    if kind is None:
        raise WireError(f"pulse line of an unknown kind {number}")
    return kind
