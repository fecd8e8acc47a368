"""Unix sockets: for nodes on one machine. No port, no TCP, and the permissions of a file say who may connect.

A socket file outlives a process that was killed, and nobody can listen where a file is. So it is removed when somebody wants to
listen there; but only if it is a socket, and only if nobody listens on it, which connecting to it tells. Between `bind` and `listen` a
socket looks as if nobody did. Hence look, remove, bind and listen happen under a lock on the directory, which leaves no file behind.

The file is there for its owner alone (0o600), from before the first connection can be made. It goes when the listener is closed: if it
is still ours, and before the socket is, since as long as that listens nobody else puts a file in its place.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import trio

from ._address import UnixAddress

_MODE = 0o600
_LOCK_SECONDS = 0.01
"""Between two tries at the lock. Who has it has it for a few system calls."""


async def open_unix(address: UnixAddress) -> trio.SocketStream:
    """Dial a socket file.

    Raises:
        OSError: nobody listens there, or its backlog is full.
    """
    stream = await trio.open_unix_socket(address.path)
    try:
        # NB: with a full backlog Linux says EAGAIN, which looks like a connection under way and is none.
        stream.socket.getpeername()
    except OSError:
        await trio.aclose_forcefully(stream)
        raise
    return stream


class UnixListener(trio.abc.Listener[trio.SocketStream]):
    """A listener that takes its file away when it is closed."""

    def __init__(self, address: UnixAddress, bound: socket.socket) -> None:
        self.address = address
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(bound))
        self._file: tuple[int, int] | None = _identity(Path(address.path))

    async def accept(self) -> trio.SocketStream:
        return await self._listener.accept()

    async def aclose(self) -> None:
        path, file, self._file = Path(self.address.path), self._file, None
        try:
            # Once, and never a file that somebody has put there instead.
            if file is not None and _identity(path) == file:
                path.unlink()
        except OSError:
            pass  # Gone already, or not to be removed any more: the next listener deals with what is left.
        await self._listener.aclose()


async def open_unix_listener(address: UnixAddress, backlog: int) -> UnixListener:
    """Listen at a socket file.

    Raises:
        OSError: somebody listens there, something else is there, or the file cannot be made.
    Cancellation: nothing has happened.
    """
    await trio.lowlevel.checkpoint()
    path = Path(address.path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        await _lock(directory)
        _remove_stale(path)
        return UnixListener(address, _listen(path, backlog))
    finally:
        os.close(directory)


async def _lock(directory: int) -> None:
    """Until the descriptor is closed, which the end of the process does too."""
    import fcntl  # not everywhere that this module is imported, but wherever there are Unix sockets

    while True:  # noqa: ASYNC913  # it sleeps, or it returns
        try:
            return fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await trio.sleep(_LOCK_SECONDS)


def _remove_stale(path: Path) -> None:
    """Make room for a socket file, if all that is there is the rest of a process that is gone."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "something that is no socket is there, and stays", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # Its backlog is full: somebody listens, and is slow.
    raise OSError(errno.EADDRINUSE, "another process listens there", str(path))


def _listen(path: Path, backlog: int) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.bind(str(path))
    except BaseException:
        made.close()
        raise
    try:
        # Nobody can connect before `listen`, whatever the umask has made of the file until here.
        path.chmod(_MODE)
        made.listen(backlog)
    except BaseException:
        path.unlink(missing_ok=True)
        made.close()
        raise
    return made


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
