"""Limits of one group and the two intervals of the node, as the core wants them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from .._errors import ConfigError
from .._types import Millis


@attrs.frozen(kw_only=True)
class Timing:
    """The node's two intervals, equal on all nodes of a cluster."""

    heartbeat_interval: Millis = 100
    """H: the pulse between two nodes, and the pace of repeats. Milliseconds."""

    election_timeout: Millis = 1000
    """E: elections start after a silence drawn anew from [E, 2E). Milliseconds; at least 5 H."""

    def __attrs_post_init__(self) -> None:
        if self.heartbeat_interval < 1:
            raise ConfigError(f"heartbeat_interval must be at least 1 ms, not {self.heartbeat_interval}")
        if self.election_timeout < 5 * self.heartbeat_interval:
            raise ConfigError(
                f"election_timeout ({self.election_timeout} ms) must be at least 5 times heartbeat_interval "
                f"({self.heartbeat_interval} ms): raise the one or lower the other"
            )


def _in_range(low: int, high: int) -> Callable[[Any, attrs.Attribute[int], Any], None]:
    def check(instance: object, attribute: attrs.Attribute[int], value: Any) -> None:
        if type(value) is not int or not low <= value <= high:
            raise ConfigError(f"{attribute.name} must be a whole number from {low} to {high}, not {value!r}")

    return check


def _is_bool(instance: object, attribute: attrs.Attribute[bool], value: Any) -> None:
    if type(value) is not bool:
        raise ConfigError(f"{attribute.name} must be True or False, not {value!r}")


@attrs.frozen(kw_only=True)
class GroupConfig:
    """Limits of one group. Sizes in bytes."""

    entry_bytes_max: int = attrs.field(default=8 << 20, validator=_in_range(1, 64 << 20))
    """The largest command."""

    append_bytes_max: int = attrs.field(default=256 << 10, validator=_in_range(1, 64 << 20))
    """Payload of one AppendEntries; a single larger entry still goes alone."""

    append_entries_max: int = attrs.field(default=4096, validator=_in_range(1, 1 << 20))
    """Entries of one AppendEntries: small commands take far more room in a frame than their payload."""

    window_messages: int = attrs.field(default=64, validator=_in_range(1, 4096))
    """AppendEntries in flight to one follower."""

    window_bytes: int = attrs.field(default=4 << 20, validator=_in_range(1, 1 << 30))
    """Bytes in flight to one follower; the last message may overshoot."""

    uncommitted_bytes_max: int = attrs.field(default=32 << 20, validator=_in_range(1, 1 << 30))
    """A leader refuses proposals with `BusyError` while more than this is uncommitted. One proposal always fits an empty log."""

    uncommitted_entries_max: int = attrs.field(default=65536, validator=_in_range(1, 1 << 24))
    """The same in entries, the leader's own no-op among them: small commands take far more memory than their payload."""

    apply_bytes_max: int = attrs.field(default=1 << 20, validator=_in_range(1, 1 << 30))
    """Payload handed to the state machine and not applied yet; at least one entry."""

    apply_entries_max: int = attrs.field(default=4096, validator=_in_range(1, 1 << 20))
    """Entries handed to the state machine and not applied yet."""

    snapshot_entries: int = attrs.field(default=100_000, validator=_in_range(1, 1 << 40))
    """A snapshot is taken when so many entries have been applied since the last one (if the machine can take any)."""

    snapshot_bytes: int = attrs.field(default=64 << 20, validator=_in_range(1, 1 << 50))
    """The same in bytes of commands."""

    keep_entries: int = attrs.field(default=10_000, validator=_in_range(0, 1 << 40))
    """Entries before a snapshot that stay in the log, for followers that are a little behind. A follower that needs more gets the
    snapshot, so one that is dead does not let the log grow."""

    keep_bytes: int = attrs.field(default=64 << 20, validator=_in_range(0, 1 << 50))
    """The same in payload: what stays fits both. Known to a 64th or so for entries that have left memory (`core/_log_size.py`)."""

    stream_hold_entries: int = attrs.field(default=1_000_000, validator=_in_range(0, 1 << 40))
    """While a snapshot is on its way to a follower, the log is kept from there on, up to so many entries: enough to go on with when it
    has arrived. Beyond that, the follower will need a newer one."""

    stream_hold_bytes: int = attrs.field(default=256 << 20, validator=_in_range(0, 1 << 50))
    """The same in payload: whichever is reached first."""

    log_memory_bytes_max: int = attrs.field(default=8 << 20, validator=_in_range(1, 1 << 34))
    """Entries kept in memory; others are read back from the disk when somebody needs them. What is not durable or not committed yet
    stays in memory whatever this says."""

    promotion_lag_max: int = attrs.field(default=4096, validator=_in_range(0, 1 << 30))
    """A learner may become a voter when it holds all but so many entries of the leader's log."""

    lease_reads: bool = attrs.field(default=False, validator=_is_bool)
    """Whether `read(level="lease")` is allowed: equal on all members. A replica that has confirmed a leader, or has just started, then
    helps nobody to replace that leader for one election timeout, whatever it hears."""

    lease_drift_percent: int = attrs.field(default=10, validator=_in_range(1, 50))
    """How far the clocks of two nodes may run apart within one election timeout: a lease ends that much earlier."""

    sessions_max: int = attrs.field(default=4096, validator=_in_range(1, 1 << 20))
    """Clients' sessions that a group remembers: who opens one says how many there may be, so that all replicas forget the same."""

    inbox_events_max: int = attrs.field(default=8192, validator=_in_range(16, 1 << 20))
    """Messages and proposals that wait for the group's driver. Beyond it messages are lost and proposals refused with `BusyError`."""

    inbox_bytes_max: int = attrs.field(default=64 << 20, validator=_in_range(1, 1 << 30))
    """Payload of the proposals that wait for the group's driver; one always fits."""
