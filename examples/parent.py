"""Ending when whoever started this process is gone, so that a killed launcher leaves no orphans.

Two ways, because neither is enough. A pipe as stdin reads as closed once the launcher is gone, on every system, but only a process
that runs can notice. On Linux the kernel can be asked for a signal, which also reaches a process that is stopped.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

import trio

_PR_SET_PDEATHSIG = 1
_READ_BYTES = 4096


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies; does nothing where there is no such service.

    NB: "parent" means the *thread* that made this process. A launcher must start processes from a thread that lives as long as it does.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


async def wait_stdin_closed() -> None:
    """Return once the other end of the pipe that is our stdin is closed. What comes through it is ignored.

    Raises:
        OSError: stdin is nothing that can be waited for, such as a file.
    """
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
        while await stdin.receive_some(_READ_BYTES):
            pass
