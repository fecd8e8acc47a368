"""What a body holds: its first byte says. Also the two bodies that hold nothing else."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from .._errors import WireError
from ._frame import encode_frame


class BodyKind(IntEnum):
    """The first byte of every body behind the handshake."""

    MESSAGES = 1
    """Messages of groups, with records behind them."""
    PULSE = 2
    """The pulse between two nodes."""
    PING = 3
    """Are you there? From the writer of a connection; a body of this byte alone."""
    PONG = 4
    """Yes. The only frames that an acceptor sends behind its welcome; a body of this byte alone."""
    PIECE = 5
    """A piece of a snapshot, on connections for these."""


_KINDS: Final = {int(kind): kind for kind in BodyKind}
_BARE: Final = frozenset({BodyKind.PING, BodyKind.PONG})

PING: Final = encode_frame([bytes([BodyKind.PING])])
"""A whole frame."""

PONG: Final = encode_frame([bytes([BodyKind.PONG])])
"""A whole frame."""


def body_kind(body: bytes) -> BodyKind:
    """Tell what a body holds, by its first byte.

    Raises:
        WireError: the kind is unknown, the body is empty, or a ping or pong has something behind it.
    """
    kind = _KINDS.get(body[0]) if body else None
    if kind is None:
        raise WireError("body of an unknown kind")
    if kind in _BARE and len(body) != 1:
        raise WireError(f"{len(body) - 1} bytes behind a {kind.name.lower()}")
    return kind
