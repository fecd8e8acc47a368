"""The handshake: the first frame of a connection, once in each direction.

    8 bytes  ``trioraft``
    1 byte   protocol version
    1 byte   1: hello, from who dialled; 2: welcome, from who accepted
    n bytes  one CBOR array

What a stranger sends is recognised by the first eight bytes, and a node of another version by the ninth, before any CBOR is looked at.
These ten bytes, the fields named here and their order are the same in all versions; further elements of an array are ignored,
which leaves later versions room. Nothing more than `HELLO_BYTES_MAX` is read before a peer has said who it is.
"""

from __future__ import annotations

import re
from typing import Any, Final

import attrs
import cbor2

from .._errors import WireError
from .._types import NodeId
from ._strict import checked_number, decode_strict

PROTOCOL_VERSION: Final = 1
"""Of the handshake and of every frame behind it. Both ends must speak the same one."""

HELLO_BYTES_MAX: Final = 1024
"""The largest body of a hello or welcome."""

CLUSTER_ID_BYTES_MAX: Final = 128
"""The longest cluster id, in UTF-8."""

LANES: Final = ("control", "append", "snapshot")
"""What a connection is for."""

_MAGIC: Final = b"trioraft"
_HELLO: Final = 1
_WELCOME: Final = 2
_NODE_ID_MAX: Final = 2**32 - 1
_DETAIL_BYTES_MAX: Final = 512
_DEPTH_MAX: Final = 4  # one for the array; the rest is room for later fields
_STORE_ID: Final = re.compile("[0-9a-f]{32}")
_REFUSAL: Final = re.compile("[a-z][a-z-]{0,31}")


class ProtocolVersionError(WireError):
    """The peer is a trioraft node, of another protocol version."""

    def __init__(self, version: int) -> None:
        self.version = version
        super().__init__(f"the peer speaks protocol version {version}, this node speaks {PROTOCOL_VERSION}")


@attrs.frozen
class Hello:
    """Who dials, and whom it means to reach."""

    cluster_id: str
    """1 to 128 bytes of UTF-8, printable."""
    sender: NodeId
    receiver: NodeId
    """Whom the sender believes to find behind the address."""
    store_id: str
    """Of the sender: 32 hex digits, lower case."""
    incarnation: int
    """Of the sender's process."""
    lane: str
    """What the connection is for: ``control``, ``append`` or ``snapshot``."""


@attrs.frozen
class Welcome:
    """The acceptor's answer: its own identity, or why it refuses."""

    sender: NodeId
    store_id: str
    incarnation: int
    refusal: str | None = None
    """None: accepted. Else a short stable kind: wrong-cluster, wrong-node, wrong-store, old-incarnation, version, busy."""
    detail: str = ""
    """For the log of who is refused. Cut off at 512 bytes of UTF-8."""


def encode_hello(hello: Hello) -> bytes:
    """Return the body of a hello.

    Raises:
        WireError: a field is out of range; the text names it.
    """
    _check_hello(hello)
    return _encode(_HELLO, [hello.cluster_id, hello.sender, hello.receiver, hello.store_id, hello.incarnation, hello.lane])


def decode_hello(body: bytes) -> Hello:
    """Read a hello.

    Raises:
        ProtocolVersionError: from a node of another version; to be answered by a welcome with refusal ``version``.
        WireError: anything else that is no hello.
    """
    hello = Hello(*_decode(_HELLO, body, 6))
    _check_hello(hello)
    return hello


def encode_welcome(welcome: Welcome) -> bytes:
    """Return the body of a welcome. Its `detail` is cut to size, and what is not printable in it is replaced.

    Raises:
        WireError: a field is out of range; the text names it.
    """
    welcome = attrs.evolve(welcome, detail=_presentable(welcome.detail))
    _check_welcome(welcome)
    return _encode(_WELCOME, [welcome.sender, welcome.store_id, welcome.incarnation, welcome.refusal, welcome.detail])


def decode_welcome(body: bytes) -> Welcome:
    """Read a welcome.

    Raises:
        ProtocolVersionError: from a node of another version.
        WireError: anything else that is no welcome.
    """
    welcome = Welcome(*_decode(_WELCOME, body, 5))
    _check_welcome(welcome)
    return welcome


def _encode(role: int, fields: list[Any]) -> bytes:
    return _MAGIC + bytes((PROTOCOL_VERSION, role)) + cbor2.dumps(fields)


def _decode(role: int, body: bytes, count: int) -> list[Any]:
    if body[: len(_MAGIC)] != _MAGIC:
        raise WireError(f"not a trioraft node: starts with {bytes(body[: len(_MAGIC)])!r}")
    head = len(_MAGIC) + 2
    if not head < len(body) <= HELLO_BYTES_MAX:
        raise WireError(f"handshake of {len(body)} bytes; {head + 1} to {HELLO_BYTES_MAX} are accepted")
    version = body[len(_MAGIC)]
    if version != PROTOCOL_VERSION:
        raise ProtocolVersionError(version)
    if body[head - 1] != role:
        raise WireError("a hello was expected, not a welcome" if role == _HELLO else "a welcome was expected, not a hello")
    fields = decode_strict(bytes(body[head:]), depth_max=_DEPTH_MAX)
    if type(fields) is not list or len(fields) < count:
        raise WireError(f"a handshake must be an array of at least {count} elements")
    return fields[:count]


def _check_hello(hello: Hello) -> None:
    _check_text("cluster_id", hello.cluster_id, 1, CLUSTER_ID_BYTES_MAX)
    checked_number(hello.receiver, "receiver", 1, _NODE_ID_MAX)
    _check_identity(hello)
    if type(hello.lane) is not str or hello.lane not in LANES:
        raise WireError(f"lane must be one of {', '.join(LANES)}")


def _check_welcome(welcome: Welcome) -> None:
    _check_identity(welcome)
    if welcome.refusal is not None and (type(welcome.refusal) is not str or not _REFUSAL.fullmatch(welcome.refusal)):
        raise WireError("refusal must be null or a short name in lower case")
    _check_text("detail", welcome.detail, 0, _DETAIL_BYTES_MAX)


def _check_identity(whose: Hello | Welcome) -> None:
    checked_number(whose.sender, "sender", 1, _NODE_ID_MAX)
    if type(whose.store_id) is not str or not _STORE_ID.fullmatch(whose.store_id):
        raise WireError("store_id must be 32 hex digits in lower case")
    checked_number(whose.incarnation, "incarnation")


def _check_text(name: str, text: object, low: int, high: int) -> None:
    # Printable, because these texts end up in other nodes' logs. Lone surrogates are not printable, so encode() cannot fail.
    if type(text) is not str or not text.isprintable() or not low <= len(text.encode()) <= high:
        raise WireError(f"{name} must be {low} to {high} bytes of printable UTF-8")


def _presentable(text: str) -> str:
    printable = "".join(character if character.isprintable() else "?" for character in text[:_DETAIL_BYTES_MAX])
    return printable.encode()[:_DETAIL_BYTES_MAX].decode(errors="ignore")
