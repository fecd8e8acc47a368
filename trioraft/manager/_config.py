"""Settings of one node."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs

from .._errors import ConfigError
from ..core import Timing


def _seconds(low: float, high: float) -> Callable[[Any, attrs.Attribute[float], Any], None]:
    def check(instance: object, attribute: attrs.Attribute[float], value: Any) -> None:
        if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
            raise ConfigError(f"{attribute.name} must be {low} to {high} seconds, not {value!r}")

    return check


def _whole(low: int, high: int) -> Callable[[Any, attrs.Attribute[int], Any], None]:
    def check(instance: object, attribute: attrs.Attribute[int], value: Any) -> None:
        if type(value) is not int or not low <= value <= high:
            raise ConfigError(f"{attribute.name} must be a whole number from {low} to {high}, not {value!r}")

    return check


@attrs.frozen(kw_only=True)
class MultiRaftConfig:
    """Settings of a node, equal on all nodes of a cluster. Durations in seconds."""

    heartbeat_interval: float = attrs.field(default=0.1, validator=_seconds(0.001, 60))
    """H: one pulse per peer and interval, for all groups together."""

    election_timeout: float = attrs.field(default=1.0, validator=_seconds(0.005, 600))
    """E: elections start after a silence drawn anew from [E, 2E). At least 5 H, and above round trip plus sync time of the slowest node."""

    forward_timeout: float = attrs.field(default=10.0, validator=_seconds(0.01, 3600))
    """A proposal passed on to another node gets `OutcomeUnknownError` when no answer came for so long."""

    forwards_max: int = attrs.field(default=65536, validator=_whole(1, 1 << 20))
    """Proposals that may wait for an answer of one other node. Beyond it they are refused with `BusyError`."""

    apply_threads: int = attrs.field(default=40, validator=_whole(1, 4096))
    """Worker threads that the blocking machines of all groups share."""

    snapshot_threads: int = attrs.field(default=8, validator=_whole(1, 4096))
    """Worker threads that machines of all groups share for their snapshots. One that hangs keeps its thread."""

    snapshot_retry_interval: float = attrs.field(default=5.0, validator=_seconds(0.01, 3600))
    """After a snapshot that could not be taken, or that a peer refused, the next try comes so much later; doubled with each failure in a
    row, up to 64 times."""

    snapshot_streams_max: int = attrs.field(default=4, validator=_whole(1, 1024))
    """Snapshots that this node sends at once, and as many that it receives. Others wait."""

    snapshot_streams_per_peer_max: int = attrs.field(default=2, validator=_whole(1, 1024))
    """Of these, snapshots that it sends to one peer."""

    snapshot_bandwidth: int = attrs.field(default=64 << 20, validator=_whole(1 << 10, 1 << 40))
    """Bytes per second that this node sends of snapshots, all together."""

    snapshot_piece_bytes: int = attrs.field(default=256 << 10, validator=_whole(1 << 10, 1 << 20))
    """What one frame carries of a snapshot; less at a low bandwidth, so that all streams keep moving."""

    log_memory_bytes_max: int = attrs.field(default=256 << 20, validator=_whole(0, 1 << 40))
    """Entries of all groups that are kept in memory; beyond it, groups that have been quiet for longest let go of what they can read back
    from the disk."""

    shutdown_timeout: float = attrs.field(default=5.0, validator=_seconds(0, 600))
    """How long a stop waits for others to lead what this node leads (one election timeout at most), for a blocking machine to finish its
    batch, and for the peers to hear of it: each."""

    def __attrs_post_init__(self) -> None:
        self.timing()

    def timing(self) -> Timing:
        """The two intervals in the core's milliseconds.

        Raises:
            ConfigError: E is below 5 H.
        """
        return Timing(heartbeat_interval=round(self.heartbeat_interval * 1000), election_timeout=round(self.election_timeout * 1000))
