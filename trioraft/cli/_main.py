"""The command line: arguments, and exit codes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial

import trio

from .._errors import StorageError
from ..storage import DirectoryReport, inspect_directory
from . import _fsck, _inspect
from ._text import Progress

WELL, FOUND, UNREADABLE = 0, 1, 2

_EPILOG = "Both only read. Exit code: 0 all is well; 1 something is damaged or contradicts itself; 2 wrong usage, or not readable at all."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output has seen enough. What is left of it must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trioraft", description="Offline tools for the directories of nodes.", epilog=_EPILOG)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    inspect = commands.add_parser("inspect", help="show what is in a node's directory", epilog=_EPILOG)
    inspect.add_argument("directory", metavar="DIR", help="a node's directory")
    inspect.add_argument("--group", type=int, metavar="ID", help="this group only, in detail")
    inspect.set_defaults(run=_run_inspect)
    fsck = commands.add_parser("fsck", help="check every byte of directories, and that they agree", epilog=_EPILOG)
    fsck.add_argument("directories", metavar="DIR", nargs="+", help="directories of nodes of one cluster")
    fsck.set_defaults(run=_run_fsck)
    for command in (inspect, fsck):
        command.add_argument("--json", action="store_true", help="print one JSON document; docs/tools.md describes it")
    return parser


def _run_inspect(options: argparse.Namespace) -> int:
    report = _read(options.directory, deep=False)
    if not isinstance(report, DirectoryReport):
        return _complain(report)
    if options.group is not None and options.group not in report.groups:
        return _complain(f"{options.directory}: there is no group {options.group}, and no tombstone of one")
    return FOUND if _inspect.show(report, as_json=options.json, only=options.group) else WELL


def _run_fsck(options: argparse.Namespace) -> int:
    reports, failures = list[DirectoryReport](), list[str]()
    for directory in options.directories:
        report = _read(directory, deep=True)
        if isinstance(report, DirectoryReport):
            reports.append(report)
        else:
            failures.append(report)
            _complain(report)
    cluster = _fsck.compare(reports) if len(options.directories) > 1 else None
    has_findings = _fsck.show(reports, failures, cluster, as_json=options.json)
    return UNREADABLE if failures else FOUND if has_findings else WELL


def _read(directory: str, *, deep: bool) -> DirectoryReport | str:
    """A directory's report, or why there is none."""
    progress = Progress()
    try:
        return trio.run(partial(inspect_directory, directory, deep=deep, progress=progress))
    except StorageError as error:
        return str(error)
    finally:
        progress.clear()


def _complain(text: str) -> int:
    sys.stderr.write(f"trioraft: {text}\n")
    return UNREADABLE
