"""Counters while they are counted. What callers see of them is frozen: `PeerStatistics`, `ServerStatistics`."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from .._types import NodeId


@attrs.define
class LaneCounters:
    """What one lane, or the snapshot connections, of one peer have done."""

    messages_sent: int = 0
    frames_sent: int = 0
    bytes_sent: int = 0
    frames_received: int = 0
    bytes_received: int = 0
    attempts: int = 0
    connects: int = 0
    last_refusal: str | None = None


@attrs.define
class InboundCounters:
    """What has come in from one peer."""

    frames: int = 0
    bytes: int = 0
    messages: int = 0
    bad_messages: int = 0


@attrs.frozen(kw_only=True)
class InboundStatistics:
    """What one peer has sent to a listener since it was made."""

    connections: int = 0
    """Open now."""
    frames: int = 0
    bytes: int = 0
    messages: int = 0
    bad_messages: int = 0
    """Skipped: of an unknown kind, or with a field that is out of range."""


@attrs.frozen(kw_only=True)
class ServerStatistics:
    """What a listener has seen since it was made."""

    connections: int
    """Of peers that have introduced themselves, open now."""
    unauthenticated: int
    """Of strangers, open now."""
    accepted: int
    evicted: int
    """Strangers that were closed to make room for a newer one."""
    replaced: int
    """Connections that a newer one of the same peer and lane replaced."""
    bad_frames: int
    """Connections closed for a frame that failed its check, was too large, or could not be decoded."""
    refusals: Mapping[str, int]
    """Connections that were not accepted, by kind."""
    peers: Mapping[NodeId, InboundStatistics]
