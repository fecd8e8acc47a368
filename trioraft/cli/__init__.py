"""The ``trioraft`` command: offline tools that read nodes' directories and change nothing. See ``docs/tools.md``."""

from ._main import main as main
