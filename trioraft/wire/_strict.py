"""CBOR (RFC 8949), strictly: the one door through which foreign CBOR comes in.

Accepted is a small, boring part of CBOR: definite lengths, no tags, no map with one key twice, nesting up to a depth that the
caller names, exactly one item and nothing behind it. Everything else is a `WireError`, and nothing else ever leaves:

- Tags run code: built-in decoders of `cbor2` compile regular expressions, build numbers of any size, parse dates.
  Every tag is refused, known or not.
- A declared length costs nothing until the bytes are there: ``cbor2`` allocates as it reads.
- Bytes behind the item are ignored by ``cbor2``; here they are an error, because two readers might disagree about them.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any, Final

import cbor2

from .._errors import WireError

NUMBER_MAX: Final = 2**63 - 1
"""The largest index, term, group id, sequence or length in any format here: fits a signed 64-bit integer of any language."""

INCARNATION_MAX: Final = 2**32 - 1
"""The largest incarnation of a group."""


def _refuse_tag(*_: object) -> Any:
    raise WireError("tags are not accepted")


class _EveryTag(dict[int, Callable[..., Any]]):
    """Answers for every tag there is, so that no decoder of ``cbor2`` ever runs."""

    def __missing__(self, tag: int) -> Callable[..., Any]:
        return _refuse_tag


_EVERY_TAG: Final = _EveryTag()


def decode_strict(data: bytes, *, depth_max: int) -> Any:
    """Decode exactly one CBOR item that takes up all of `data`; containers nest up to `depth_max` deep.

    Raises:
        WireError: it is not CBOR, or not of the accepted part.
    """
    stream = BytesIO(data)
    decoder = _open_decoder(stream, depth_max)
    try:
        value = decoder.decode()
    except Exception as error:  # noqa: BLE001 - see _refusal
        raise _refusal(error) from None
    if stream.tell() != len(data):
        raise WireError(f"{len(data) - stream.tell()} bytes behind the end of the CBOR item")
    return value


def decode_strict_sequence(data: bytes, *, depth_max: int) -> list[Any]:
    """Decode all of `data`: CBOR items, one behind the other (RFC 8742), each by the rules of `decode_strict`.

    Raises:
        WireError: as `decode_strict`.
    """
    stream, size = BytesIO(data), len(data)
    # NB: one decoder for all: making one takes longer than a small item.
    decode, tell = _open_decoder(stream, depth_max).decode, stream.tell
    values = []
    try:
        while tell() < size:
            values.append(decode())
    except Exception as error:  # noqa: BLE001 - see _refusal
        raise _refusal(error) from None
    return values


def _open_decoder(stream: BytesIO, depth_max: int) -> cbor2.CBORDecoder:
    return cbor2.CBORDecoder(
        stream,
        tag_hook=_refuse_tag,
        semantic_decoders=_EVERY_TAG,
        max_depth=depth_max,
        allow_indefinite=False,
        allow_duplicate_keys=False,
    )


def _refusal(error: Exception) -> WireError:
    """What leaves, whatever the decoder of another version raises: the fault lies with the bytes.

    NB: to be raised without a chain, and without the key that is there twice: it is user data.
    """
    cause = error.__cause__ if isinstance(error.__cause__, WireError) else error
    return WireError(f"not acceptable CBOR: {str(cause).partition(' key: ')[0]}")


def checked_number(value: object, name: str, low: int = 0, high: int = NUMBER_MAX) -> int:
    """Return `value` if it is an integer (a bool is none) from `low` to `high`.

    Raises:
        WireError: it is not; the text says `name`.
    """
    # NB: `type() is`, because True is an int to isinstance().
    if type(value) is not int or not low <= value <= high:
        raise WireError(f"{name} must be an integer from {low} to {high}")
    return value
