"""Text for people: aligned tables, sizes, positions."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .._types import EntryId

NONE = "-"


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, indent: str = "  ") -> list[str]:
    """Lines with aligned columns; numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    to_right = [bool(rows) and all(isinstance(row[column], int) for row in rows) for column in range(len(head))]
    lines = []
    for line in (head, *cells):
        padded = (cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(line, widths, to_right, strict=True))
        lines.append((indent + "  ".join(padded)).rstrip())
    return lines


def size(count: int) -> str:
    """Bytes, in a unit in which they can be read."""
    amount, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.1f} {unit}" if unit != "B" else f"{count} B"


def position(at: EntryId) -> str:
    return str(at) if at.index else NONE


def counted(count: int, what: str, plural: str | None = None) -> str:
    return f"{count:,} {what if count == 1 else plural or what + 's'}"


class Progress:
    """What is read just now, on a terminal; silent anywhere else."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._width = 0

    def __call__(self, path: str, bytes_read: int) -> None:
        if self._is_shown:
            text = f"{size(bytes_read)} read; {path}"[-100:]
            sys.stderr.write("\r" + text.ljust(self._width))
            sys.stderr.flush()
            self._width = len(text)

    def clear(self) -> None:
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            self._width = 0
