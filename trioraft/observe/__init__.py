"""What a node tells about itself: events, counters, and hooks."""

from ._counters import Counters as Counters
from ._events import (
    DiskSpaceChanged as DiskSpaceChanged,
    Event as Event,
    GroupFailed as GroupFailed,
    PeerLiveness as PeerLiveness,
    PeerRefused as PeerRefused,
    RoleChanged as RoleChanged,
    SlowRoundTrip as SlowRoundTrip,
    SnapshotFailed as SnapshotFailed,
    SnapshotSaved as SnapshotSaved,
)
from ._instrument import Announcer as Announcer, Instrument as Instrument
from ._observable import Observable as Observable
