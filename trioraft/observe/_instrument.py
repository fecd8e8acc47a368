"""Hooks for whoever watches a node, and the one place that calls them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ._counters import Counters
from ._events import Event, GroupFailed, PeerRefused, SlowRoundTrip

_log = logging.getLogger("trioraft.node")


class Instrument:
    """Derive from this and pass it to `open_manager(instruments=[...])`.

    Called synchronously on the event loop: be quick, never block. What is raised here is logged and ignored.
    """

    def on_event(self, event: Event) -> None:
        """Something happened on this node."""


class Announcer:
    """Tells each event to the log and to all instruments."""

    def __init__(self, counters: Counters, instruments: Sequence[Instrument] = ()) -> None:
        self.counters = counters
        self._instruments = tuple(instruments)

    def announce(self, event: Event) -> None:
        level = logging.WARNING if isinstance(event, GroupFailed | PeerRefused | SlowRoundTrip) else logging.INFO
        _log.log(level, "%s", event, extra={"trioraft_event": event})
        for instrument in self._instruments:
            try:
                instrument.on_event(event)
            except Exception:  # noqa: BLE001  # a broken observer must not break what it observes
                self.counters.instrument_errors += 1
                _log.exception("an instrument failed on %s", type(event).__name__)
