"""`node.toml`: who this node is, and what it remembers of others.

Small, read by people, written whole. The last line is a checksum of the lines above, because a rotten store id or incarnation would be
believed otherwise.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
import zlib
from collections.abc import Mapping
from typing import Any

import attrs

from .._errors import CorruptLogError, StorageError
from .._types import NodeId
from ._contract import NodeRecord, PeerRecord
from ._disk import Disk
from ._whole_file import replace_file

NODE_FILE_NAME = "node.toml"

NODE_FORMAT = 1
"""Version of the whole directory: this file, and what may lie beside it."""

_CHECKSUM_LINE = re.compile(rb'^checksum = "([0-9a-f]{8})"\n\Z', re.MULTILINE)


@attrs.frozen
class NodeFile:
    """What the file says."""

    record: NodeRecord
    log_file: int = 0
    """The newest log file at the last start: one that is missing now was lost."""
    log_batch: int = 0
    """The last batch found at the last start: a log that ends before it was cut."""
    peers: Mapping[NodeId, PeerRecord] = attrs.Factory(dict)


async def read_node_file(disk: Disk, base_dir: str) -> NodeFile | None:
    """Read the file, None if there is none. Changes nothing.

    Raises:
        CorruptLogError: it is not what was written.
        StorageError: ``format``: a later version wrote it.
    """
    path = posixpath.join(base_dir, NODE_FILE_NAME)
    try:
        data = await disk.read_file(path)
    except FileNotFoundError:
        return None
    return parse_node_file(data, path)


async def write_node_file(disk: Disk, base_dir: str, node_file: NodeFile) -> None:
    """Replace the file; on return it is durable."""
    await replace_file(disk, base_dir, NODE_FILE_NAME, render_node_file(node_file))


def render_node_file(node_file: NodeFile) -> bytes:
    record = node_file.record
    lines = [
        "# Written by trioraft. A changed line makes the node refuse to start.",
        f"format = {NODE_FORMAT}",
        f"node_id = {record.node_id}",
        f"cluster_id = {_quoted(record.cluster_id)}",
        f"store_id = {_quoted(record.store_id)}",
        f"incarnation = {record.incarnation}",
        f"log_file = {node_file.log_file}",
        f"log_batch = {node_file.log_batch}",
    ]
    for _, peer in sorted(node_file.peers.items()):
        lines += ["", "[[peers]]", f"node_id = {peer.node_id}"]
        if peer.store_id is not None:
            lines.append(f"store_id = {_quoted(peer.store_id)}")
        if peer.address is not None:
            lines.append(f"address = {_quoted(peer.address)}")
        lines.append(f"address_version = {peer.address_version}")
    text = "\n".join([*lines, "", "[end]", ""]).encode()
    return text + f'checksum = "{zlib.crc32(text):08x}"\n'.encode()


def parse_node_file(data: bytes, path: str) -> NodeFile:
    try:
        # Before the checksum: a later version may well end otherwise.
        document = tomllib.loads(data.decode())
        version = document["format"]
        if type(version) is int and version > NODE_FORMAT:
            text = f"written by a later version (format {version}, this one knows {NODE_FORMAT}); nothing was touched"
            raise StorageError("format", path, text)
        match = _CHECKSUM_LINE.search(data)
        if match is None or int(match[1], 16) != zlib.crc32(data[: match.start()]):
            raise CorruptLogError(path, 0, "the file does not match its checksum: it was edited, or has rotted")
        return _node_file(document)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise CorruptLogError(path, 0, f"not a node file: {error}") from None


def _node_file(document: dict[str, Any]) -> NodeFile:
    record = NodeRecord(document["node_id"], document["cluster_id"], document["store_id"], document["incarnation"])
    peers = [
        PeerRecord(peer["node_id"], peer.get("store_id"), peer.get("address"), peer["address_version"])
        for peer in document.get("peers", ())
    ]
    return NodeFile(record, document["log_file"], document["log_batch"], {peer.node_id: peer for peer in peers})


def _quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = (char if char not in '"\\' and char.isprintable() else f"\\U{ord(char):08x}" for char in text)
    return '"' + "".join(escaped) + '"'
