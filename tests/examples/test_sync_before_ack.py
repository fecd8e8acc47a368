"""P1, CM-5, seen from outside: strace shows that a follower's sync ends before its acknowledgement leaves."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import raft_multi_node
from ports import free_ports

from trioraft import WireError
from trioraft.core import AppendEntries, AppendEntriesReply
from trioraft.wire import BodyKind, FrameReader, GroupMessage, body_kind, decode_messages

NODE = str(Path(raft_multi_node.__file__).resolve())
MARKER = "marked-write-of-this-test"
CALLS = "recvfrom,sendto,pwrite64,fdatasync"


def start(node_id: int, ports: list[int], http: int, directory: Path, trace: Path | None) -> subprocess.Popen[bytes]:
    peers = [argument for n, port in enumerate(ports, start=1) if n != node_id for argument in ("--peer", f"{n}=127.0.0.1:{port}")]
    node = [sys.executable, NODE, "--node-id", str(node_id), "--port", str(ports[node_id - 1]), *peers, "--groups", "1"]
    node += ["--http", str(http), "--data-dir", str(directory / f"node-{node_id}")]
    if trace is not None:
        node = ["strace", "-f", "-xx", "-s", "70000", "-e", f"trace={CALLS}", "-o", str(trace), *node]
    return subprocess.Popen(node, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def end_traced(process: subprocess.Popen[bytes]) -> None:
    """End the program that strace runs; strace ends with it."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGTERM)


def put(port: int, key: str, value: str) -> bool:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/groups/1/keys/{key}", data=value.encode(), method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def events(trace: str) -> list[tuple[str, bytes]]:
    """The traced calls in the order in which they *ended*, each with its bytes, except sends: these count from their beginning."""
    found: list[tuple[str, bytes]] = []
    begun: dict[tuple[str, str], bytes] = {}
    for line in trace.splitlines():
        thread, _, text = line.partition(" ")
        text = text.strip()
        resumed = re.match(r"<\.\.\. (\w+) resumed>", text)
        name = resumed.group(1) if resumed else text.partition("(")[0]
        data = bytes.fromhex("".join(re.findall(r"\\x([0-9a-f]{2})", text)))
        if text.endswith("<unfinished ...>") and name != "sendto":
            begun[thread, name] = data
        elif not (resumed and name == "sendto"):
            found.append((name, begun.pop((thread, name), b"") + data))
    return found


def messages(data: bytes) -> list[GroupMessage]:
    """The messages of the frames that one call carried."""
    reader = FrameReader(16 << 20)
    found: list[GroupMessage] = []
    try:
        reader.feed(data)
        while (body := reader.next_frame()) is not None:
            if body_kind(body) is BodyKind.MESSAGES:
                found += [message for _, message in decode_messages(body, 1, 2, payload_bytes_max=1 << 20).envelopes]
    except WireError:
        pass  # a handshake, or the bytes of an HTTP client
    return found


def marked_index(data: bytes) -> int:
    """The index of the marked entry, if these bytes append it."""
    for message in messages(data):
        if isinstance(message, AppendEntries):
            for entry in message.entries:
                if MARKER.encode() in entry.payload:
                    return entry.index
    return 0


def acknowledges(data: bytes, index: int) -> bool:
    return any(isinstance(message, AppendEntriesReply) and not message.rejected and message.match >= index for message in messages(data))


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_CM_5_a_followers_sync_ends_before_its_acknowledgement_leaves(tmp_path: Path) -> None:
    *ports, http1, http2, http3 = free_ports(6)
    https = [http1, http2, http3]
    traces = [tmp_path / f"trace-{n}" for n in (1, 2, 3)]
    processes = [start(n, ports, https[n - 1], tmp_path, traces[n - 1]) for n in (1, 2, 3)]
    try:
        deadline = time.monotonic() + 60
        while not put(http1, "warm-up", "x"):
            assert time.monotonic() < deadline, "no leader"
        assert put(http1, "key", MARKER)
    finally:
        for process in processes:
            end_traced(process)
        for process in processes:
            process.wait(20)
    followers = 0
    for trace in traces:
        calls = events(trace.read_text())
        received = next((i for i, (name, data) in enumerate(calls) if name == "recvfrom" and marked_index(data)), None)
        if received is None:
            continue  # the leader
        index, after = marked_index(calls[received][1]), calls[received:]
        told = next((i for i, (name, data) in enumerate(after) if name == "sendto" and acknowledges(data, index)), None)
        if told is None:
            continue  # the slower follower: the nodes were stopped before it had answered
        written = next(i for i, (name, data) in enumerate(after) if name == "pwrite64" and MARKER.encode() in data)
        synced = next(i for i, (name, _) in enumerate(after) if name == "fdatasync" and i > written)
        assert written < synced < told, f"the acknowledgement left before the sync: {[name for name, _ in after[: told + 1]]}"
        followers += 1
    assert followers >= 1
