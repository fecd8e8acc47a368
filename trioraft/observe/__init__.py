"""What a node tells about itself: events, counters, and hooks."""

from ._counters import Counters as Counters
from ._events import DiskSpaceChanged as DiskSpaceChanged
from ._events import Event as Event
from ._events import GroupFailed as GroupFailed
from ._events import PeerLiveness as PeerLiveness
from ._events import PeerRefused as PeerRefused
from ._events import RoleChanged as RoleChanged
from ._events import SlowRoundTrip as SlowRoundTrip
from ._instrument import Announcer as Announcer
from ._instrument import Instrument as Instrument
from ._observable import Observable as Observable
