"""The links between the simulated nodes: delay, loss, duplication, reordering and cuts, drawn from the seed.

Delivery is worse than the transport's: nothing keeps its order, and a message may come twice or years later. The core must stand it.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import attrs

from .._types import Millis, NodeId
from ._disk import Scheduler


@attrs.frozen(kw_only=True)
class Weather:
    """How a link treats what is sent over it. Chances are per thousand."""

    delay: tuple[Millis, Millis] = (1, 5)
    loss: int = 0
    duplicate: int = 0
    """Chance of one more copy, drawn again after each copy, so a message may come three times and more."""
    straggle: int = 0
    """Chance of being very late: up to 20 times the longest delay."""


CALM = Weather()
HISTORY_KEPT = 1500
"""Packets that are remembered, to be sent once more much later."""


class SimulatedNetwork:
    """Carries packets of any kind between nodes."""

    def __init__(self, scheduler: Scheduler, generator: random.Random, deliver: Callable[[NodeId, NodeId, object], None]) -> None:
        """
        Args:
            deliver: called as ``deliver(source, target, packet)`` when a packet arrives.
        """
        self._scheduler = scheduler
        self._random = generator
        self._deliver = deliver
        self.weather = CALM
        self.link_weather: dict[tuple[NodeId, NodeId], Weather] = {}
        self.drops: Callable[[NodeId, NodeId, Any], bool] | None = None
        """For directed scenarios: tells of each packet, by source and target, whether it is lost."""
        self._cuts: Counter[tuple[NodeId, NodeId]] = Counter()
        self._history: deque[tuple[NodeId, NodeId, object]] = deque(maxlen=HISTORY_KEPT)
        self.sent = 0

    def send(self, source: NodeId, target: NodeId, packet: object) -> bool:
        """Send a packet; tell whether at least one copy is on its way."""
        self.sent += 1
        self._history.append((source, target, packet))
        link = (source, target)
        if self._cuts.get(link) or (self.drops is not None and self.drops(source, target, packet)):
            return False
        weather = self.link_weather.get(link, self.weather)
        draw = self._random.random
        if weather.loss and draw() * 1000 < weather.loss:
            return False
        self._dispatch(weather, source, target, packet)
        while weather.duplicate and draw() * 1000 < weather.duplicate:
            self._dispatch(weather, source, target, packet)
        return True

    def _dispatch(self, weather: Weather, source: NodeId, target: NodeId, packet: object) -> None:
        low, high = weather.delay
        # NB: not randint, which costs three times as much; this is the hottest draw of a simulation.
        delay = low + int(self._random.random() * (high - low + 1))
        if weather.straggle and self._random.random() * 1000 < weather.straggle:
            delay += int(self._random.random() * 20 * high)
        self._scheduler.call_in(delay, self._deliver, source, target, packet)

    def cut(self, source: NodeId, target: NodeId) -> None:
        """Lose everything from `source` to `target` until it is mended as often as it was cut."""
        self._cuts[source, target] += 1

    def mend(self, source: NodeId, target: NodeId) -> None:
        if self._cuts[source, target] > 0:
            self._cuts[source, target] -= 1

    def is_cut(self, source: NodeId, target: NodeId) -> bool:
        return self._cuts.get((source, target), 0) > 0

    def heal(self) -> None:
        """Mend everything; the weather is calm from now on. What is on its way stays on its way."""
        self._cuts.clear()
        self.link_weather.clear()
        self.weather = CALM
        self.drops = None

    def replay(self, count: int, delay_max: Millis, wanted: Callable[[object], bool] = lambda _packet: True) -> int:
        """Send up to `count` old packets of those `wanted` once more, whoever sent them and however long ago; tell how many."""
        old = [sent for sent in self._history if wanted(sent[2])]
        count = min(count, len(old))
        for place in sorted(self._random.sample(range(len(old)), count)):
            source, target, packet = old[place]
            self._scheduler.call_in(self._random.randint(0, delay_max), self._deliver, source, target, packet)
        return count
