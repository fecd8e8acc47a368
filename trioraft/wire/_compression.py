"""Compression of one block of bytes at a time. Both algorithms release the interpreter's lock while they work.

Decompressing is bounded: never more is made than the size that was announced, whatever the bytes say.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Final, Literal, TypeAlias, get_args

from .._errors import ConfigError

Compression: TypeAlias = Literal["none", "zlib", "zstd"]

COMPRESSIONS: Final[tuple[Compression, ...]] = get_args(Compression)
"""The position of each is its number in the format."""

_LEVEL: Final = 1  # of either: higher ones cost several times the time for a few per cent of the size
_WINDOW_LOG_MIN: Final = 20  # 1 MiB: what each zstd frame may have as its window, more than this level ever asks for


class BadCompressionError(Exception):
    """These bytes are not what compressing so many bytes gives."""


def default_compression() -> Compression:
    """``zstd`` where Python or the extra has it, else ``zlib``."""
    return "zlib" if _find_zstd() is None else "zstd"


def open_compressor(compression: Compression) -> Callable[[bytes], bytes]:
    """Return what compresses a block, independently of all others.

    Raises:
        ConfigError: there is no such compression here; the text says what to install.
    """
    if compression == "none":
        return bytes
    if compression == "zlib":
        return lambda data: zlib.compress(data, _LEVEL)
    zstd = _require_zstd(compression)
    compressor = zstd.ZstdCompressor(level=_LEVEL)  # kept, because making one takes as long as a small block
    return lambda data: bytes(compressor.compress(data, compressor.FLUSH_FRAME))


def open_decompressor(compression: Compression) -> Callable[[bytes, int], bytes]:
    """Return what undoes a compressor: from the compressed bytes and the size of the block, which must be right.

    What it returns raises `BadCompressionError`.

    Raises:
        ConfigError: as `open_compressor`.
    """
    if compression == "none":
        return _refuse
    if compression == "zlib":
        return lambda data, size: _decompress(zlib.decompressobj(), zlib.error, data, size)
    zstd = _require_zstd(compression)
    window = zstd.DecompressionParameter.window_log_max

    def decompress(data: bytes, size: int) -> bytes:
        # NB: a frame says how large a window its reader has to allocate: without this bound, 128 MiB for a few bytes.
        decompressor = zstd.ZstdDecompressor(options={window: max(_WINDOW_LOG_MIN, size.bit_length())})
        return _decompress(decompressor, zstd.ZstdError, data, size)

    return decompress


def _decompress(decompressor: Any, failure: type[Exception], data: bytes, size: int) -> bytes:
    try:
        # NB: one byte more than there should be, because neither algorithm sees its end while its output is full.
        block: bytes = decompressor.decompress(data, size + 1)
    except failure as error:
        raise BadCompressionError(f"not decompressible: {error}") from None
    if len(block) != size or not decompressor.eof or decompressor.unused_data:
        raise BadCompressionError("of another size when decompressed than announced")
    return block


def _refuse(data: bytes, size: int) -> bytes:
    raise BadCompressionError(f"{len(data)} bytes instead of {size}, in a file without compression")


def _require_zstd(compression: str) -> Any:
    if compression != "zstd":
        raise ConfigError(f"compression must be one of {', '.join(COMPRESSIONS)}, not {compression!r}")
    zstd = _find_zstd()
    if zstd is None:
        raise ConfigError("compression zstd needs Python 3.14, or the package backports-zstd: install trioraft[zstd]")
    return zstd


@cache
def _find_zstd() -> Any | None:
    """The module of the standard library (from Python 3.14), or that of the extra, which has the same interface."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ImportError:
            pass
    return None
