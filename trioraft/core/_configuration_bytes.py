"""A configuration as bytes: the payload of its log entry, and part of what the storage keeps of a group.

    8 bytes: the index of the entry that put it in force; 0: the group's first one
    4 times: 2 bytes count, then 4 bytes each: the voters, the outgoing half, the learners, those who become learners; ascending
    each member, ascending: 4 bytes node id, 8 bytes term and 8 bytes index of its replica number

All little-endian. There is one encoding of each configuration, and nothing else is accepted.
"""

from __future__ import annotations

import struct
from typing import Final

from .._errors import ConfigError
from .._types import EntryId, NodeId
from ._configuration import Configuration

_INDEX: Final = struct.Struct("<Q")
_COUNT: Final = struct.Struct("<H")
_MEMBER: Final = struct.Struct("<IQQ")


class BadConfigurationError(Exception):
    """These bytes are no configuration. Whoever read them knows from where."""


def encode_configuration(configuration: Configuration) -> bytes:
    groups = (configuration.voters, configuration.outgoing, configuration.learners, configuration.learners_next)
    parts = [_INDEX.pack(configuration.index)]
    parts += [struct.pack(f"<H{len(nodes)}I", len(nodes), *sorted(nodes)) for nodes in groups]
    parts += [_MEMBER.pack(node_id, replica.term, replica.index) for node_id, replica in configuration.replicas.items()]
    return b"".join(parts)


def decode_configuration(data: bytes) -> Configuration:
    """Read what `encode_configuration` wrote.

    Raises:
        BadConfigurationError: it did not write these bytes.
    """
    try:
        (index,), offset, halves = _INDEX.unpack_from(data), _INDEX.size, []
        for _ in range(4):
            nodes, offset = _decode_nodes(data, offset)
            halves.append(nodes)
        voters, outgoing, learners, learners_next = halves
        replicas = {node_id: EntryId(term, index) for node_id, term, index in _MEMBER.iter_unpack(data[offset:])}
        configuration = Configuration(voters, outgoing, learners, learners_next, replicas, index)
    except (struct.error, ConfigError) as error:
        raise BadConfigurationError(f"not a configuration: {error}") from None
    if encode_configuration(configuration) != data:
        raise BadConfigurationError("a configuration that is encoded otherwise than it would be")
    return configuration


def _decode_nodes(data: bytes, offset: int) -> tuple[frozenset[NodeId], int]:
    (count,) = _COUNT.unpack_from(data, offset)
    offset += _COUNT.size
    return frozenset(struct.unpack_from(f"<{count}I", data, offset)), offset + 4 * count
