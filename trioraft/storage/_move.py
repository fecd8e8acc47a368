"""Which entries of a group change their place at once: a piece of its log that lies in old files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .._types import Index
from ._extents import Extent
from ._row import AtRest, Row

REST_BYTES_MIN = 1 << 20
"""What goes to rest takes along what follows it in newer files up to this size: fewer and larger files."""
REST_BYTES_MAX = 16 << 20
MOVE_EXTENTS_MAX = 4096
"""Extents that change their place at once: that takes a few milliseconds."""
PIECE_BYTES = 64 << 10
"""Read and written at once."""


class Move(NamedTuple):
    """Entries that are to change their place."""

    first: Index
    last: Index
    size: int
    """Roughly: what was cut off an extent counts too."""
    extents: int


def find_move(row: Row, file: int) -> Move | None:
    """The first entries that lie in a file and follow each other."""
    places = row.places(row.terms.start.index + 1)
    for place in places:
        if type(place) is Extent and place.file == file:
            return _grown(Move(place.first, place.last, place.length, 1), places, file, REST_BYTES_MAX)
    return None


def extended(row: Row, move: Move, newest: int) -> Move:
    """With what follows in other files, but for the newest, if that is not much yet."""
    return _grown(move, row.places(move.last + 1), newest - 1, REST_BYTES_MIN)


def extents_of(row: Row, first: Index, last: Index) -> list[Extent]:
    """Where the entries from `first` on are, for about a piece; [] if not in a log file."""
    found: list[Extent] = []
    size = 0
    for place in row.places(first):
        if type(place) is not Extent or place.first > last or size >= PIECE_BYTES:
            break
        found.append(place._replace(first=max(place.first, first), last=min(place.last, last)))
        size += place.length
    return found if found and found[0].first == first else []


def _grown(move: Move, places: Iterable[Extent | AtRest], file_max: int, size_max: int) -> Move:
    first, last, size, extents = move
    for place in places:
        if size >= size_max or extents >= MOVE_EXTENTS_MAX:
            break
        if type(place) is not Extent or place.first != last + 1 or place.file > file_max:
            break
        last, size, extents = place.last, size + place.length, extents + 1
    return Move(first, last, size, extents)
