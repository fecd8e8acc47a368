"""What the machine allows: replication to a majority with nothing in it but sockets and syncs.

Three processes on loopback. The leader sends a batch to two followers; each of the three does one write and one fdatasync; a batch counts
once the leader and one follower have it on disk. The next batch goes out at once. All in blocking calls, without any framework: whatever
replicates with a sync on the same disk cannot be quicker, only batch more.

Run by bench.py. A follower prints its port and serves one leader; a leader reads one JSON request a line and answers with one.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parent import die_with_parent

_LENGTH = struct.Struct("<I")
_DONE = b"\x01"


class SyncedFile:
    """A file that is on disk after each write."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)

    def append(self, data: bytes) -> None:
        """Write and sync."""
        os.write(self._descriptor, data)
        os.fdatasync(self._descriptor)

    def clear(self) -> None:
        """Begin anew, so that rounds are alike and the disk does not fill."""
        os.ftruncate(self._descriptor, 0)


class Floor:
    """The leader's side."""

    def __init__(self, path: Path, ports: Sequence[int]) -> None:
        self._file = SyncedFile(path)
        self._followers = [socket.create_connection(("127.0.0.1", port)) for port in ports]
        for follower in self._followers:
            follower.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._owed = dict.fromkeys(self._followers, 0)
        """Answers that a follower still owes; the slower one may lag behind."""

    def measure(self, batch_bytes: int, seconds: float) -> list[int]:
        """Replicate batch after batch; returns what each took, in microseconds."""
        self._file.clear()
        data = os.urandom(batch_bytes)
        frame = _LENGTH.pack(batch_bytes) + data
        took = []
        end = time.perf_counter() + seconds
        while (started := time.perf_counter()) < end:
            for follower in self._followers:
                follower.sendall(frame)
                self._owed[follower] += 1
            self._file.append(data)
            self._wait_one()
            took.append(round((time.perf_counter() - started) * 1e6))
        self._wait_all()
        return took

    def _wait_one(self) -> None:
        """Wait until some follower has everything: with the leader's own copy, a majority."""
        while all(self._owed.values()):
            self._take_answers()

    def _wait_all(self) -> None:
        while any(self._owed.values()):
            self._take_answers()

    def _take_answers(self) -> None:
        ready, _, _ = select.select(self._followers, [], [])
        for follower in ready:
            answers = follower.recv(4096)
            if not answers:
                raise ConnectionError("a follower of the floor is gone")
            self._owed[follower] -= len(answers)


def follow(path: Path) -> None:
    """Write and sync each batch of one leader, and say so."""
    file = SyncedFile(path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        leader, _ = listener.accept()
    leader.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with leader, leader.makefile("rb") as stream:
        while header := stream.read(_LENGTH.size):
            file.append(stream.read(_LENGTH.unpack(header)[0]))
            leader.sendall(_DONE)


def lead(path: Path, ports: Sequence[int]) -> None:
    """Answer requests to measure."""
    floor = Floor(path, ports)
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        print(json.dumps(floor.measure(request["bytes"], request["seconds"])), flush=True)


def main() -> None:
    """Be a follower, or with the ports of followers a leader."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--follower", type=int, action="append", default=[], metavar="PORT")
    given = parser.parse_args()
    die_with_parent()
    if given.follower:
        lead(given.file, given.follower)
    else:
        follow(given.file)


if __name__ == "__main__":
    main()
