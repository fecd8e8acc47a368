"""One node as an operating-system process, over all its lives.

Every process is ended by the id under which it was started, never by name. It gets a process group of its own, so that Ctrl-C in the
terminal reaches the launcher alone, and a pipe as stdin, so that it notices when the launcher is gone.
"""

from __future__ import annotations

import enum
import os
import signal
import subprocess
import sys
from pathlib import Path

import attrs
import trio
from http_client import HttpConnection, NoAnswerError, NotSentError

HOST = "127.0.0.1"
_PROGRAM = Path(__file__).resolve().with_name("raft_multi_node.py")
_POLL_SECONDS = 0.02
_END_SECONDS = 8.0
_LOG_TAIL_BYTES = 2000


class NodeState(enum.Enum):
    """What the launcher did to the node, or found."""

    STARTING = "starting"
    UP = "up"
    STOPPED = "stopped"
    """Its process was told to stand still (SIGSTOP)."""
    DOWN = "down"


class NodeEndedError(Exception):
    """A node ended by itself. The text has the end of its log."""

    def __init__(self, node_id: int, status: int, tail: str) -> None:
        self.status = status
        super().__init__(f"node {node_id} ended by itself with status {status}; the end of its log:\n{tail}")


@attrs.define
class NodeProcess:
    """A node that can be started, killed, stopped and started again, always on the same ports and directory."""

    node_id: int
    raft_port: int
    http_port: int
    data_dir: Path
    """Holds the node's own directory and its log file."""
    arguments: tuple[str, ...]
    """What else the node is told on its command line."""
    state: NodeState = NodeState.DOWN
    lives: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def directory(self) -> Path:
        """Where the node keeps its data."""
        return self.data_dir / f"node-{self.node_id}"

    @property
    def log_path(self) -> Path:
        """Where the process writes what it has to say, over all its lives."""
        return self.data_dir / f"node-{self.node_id}.log"

    def start(self) -> None:
        """Start a new life.

        Raises:
            RuntimeError: the last life is not over: two processes on one directory would be one too many to keep track of.

        NB: not through a worker thread: Linux takes the thread that makes a process for its parent, and threads come and go.
        """
        if self._process is not None:
            raise RuntimeError(f"node {self.node_id} runs already")
        command = [sys.executable, str(_PROGRAM), "--node-id", str(self.node_id), "--port", str(self.raft_port), "--host", HOST]
        command += ["--http", str(self.http_port), "--http-host", HOST, "--data-dir", str(self.directory)]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self.arguments, "--watch-stdin"], stdin=subprocess.PIPE, stdout=log, stderr=log, process_group=0
            )
        self.state = NodeState.STARTING
        self.lives += 1

    async def wait_ready(self) -> None:
        """Wait until the node answers.

        Raises:
            NodeEndedError: it ended instead.
        """
        async with HttpConnection(HOST, self.http_port) as connection:
            while True:
                self.check_alive()
                try:
                    answer = await connection.request("GET", "/status")
                except (NotSentError, NoAnswerError):
                    await trio.sleep(_POLL_SECONDS)
                    continue
                if answer.status == 200 and self.state is not NodeState.DOWN:  # It may have been killed again since it answered.
                    self.state = NodeState.UP
                    return

    def check_alive(self) -> None:
        """Look whether the process still exists.

        Raises:
            NodeEndedError: it does not, and nobody here ended it.
        """
        if self._process is not None and (status := self._process.poll()) is not None:
            self._forget()
            raise NodeEndedError(self.node_id, status, self._log_tail())

    async def kill(self) -> None:
        """kill -9."""
        self.state = NodeState.DOWN  # First, so that nobody takes it for a crash.
        self._signal(signal.SIGKILL)
        await self._wait_ended()

    def stop(self) -> None:
        """Make the process stand still, in the middle of whatever it does."""
        self._signal(signal.SIGSTOP)
        self.state = NodeState.STOPPED

    def resume(self) -> None:
        """Let a stopped process go on."""
        self._signal(signal.SIGCONT)
        self.state = NodeState.UP

    def end_nowait(self) -> None:
        """Ask the process to end in order."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)

    async def end(self) -> None:
        """End the process: in order if it manages to in some seconds, at once if not.

        Cancellation: the process is killed.
        """
        try:
            self.end_nowait()
            with trio.move_on_after(_END_SECONDS):
                await self._wait_ended()
        finally:
            if self._process is not None:
                self._signal(signal.SIGKILL)
                self._process.wait()
                self._forget()

    async def _wait_ended(self) -> None:
        while self._process is not None and self._process.poll() is None:
            await trio.sleep(_POLL_SECONDS)
        self._forget()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _forget(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None
        self.state = NodeState.DOWN

    def _log_tail(self) -> str:
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
                return log.read().decode(errors="replace")
        except OSError as error:
            return f"(no log: {error})"
