"""What a seed does: the cluster, its weather, its faults and its clients' load, drawn once and then fixed.

A schedule is a value. The same seed draws the same one for ever within a version; `Schedule.calm` makes an undisturbed one for
directed scenarios.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import attrs

from .._types import GroupId, Millis, NodeId
from ..core import GroupConfig, Timing
from ._network import CALM, Weather
from ._reader import LEVELS

FAULT_WEIGHTS: dict[str, int] = {
    "crash": 10,
    "crash_all": 2,
    "crash_in_recovery": 3,
    "pause": 6,
    "cut": 5,
    "one_way_cut": 5,
    "isolate": 4,
    "deaf": 3,
    "mute": 2,
    "partition": 4,
    "bridge": 3,
    "storm": 5,
    "slow_link": 3,
    "slow_disk": 5,
    "stuck_disk": 3,
    "full_disk": 3,
    "slow_apply": 2,
    "replay": 5,
    "ghosts": 3,
    "crash_leader": 5,
    "churn": 3,
    "absence": 6,
    "slow_reads": 4,
    "fork": 4,
    "seesaw": 3,
    "late_answers": 3,
    "revenants": 3,
}
"""Every fault by name (`_faults` carries them out), and how often it is drawn relative to the others."""

VOTERS = (3, 3, 3, 3, 3, 3, 5, 5, 5, 1, 2, 4, 7)
LEARNERS = (0, 0, 0, 0, 0, 0, 1, 1, 2)


class Fault(NamedTuple):
    """One thing that goes wrong."""

    at: Millis
    kind: str
    lasts: Millis
    seed: int
    """Draws the details: which nodes, how bad."""


class Load(NamedTuple):
    """Some commands at once."""

    at: Millis
    group: GroupId
    sizes: tuple[int, ...]
    reads: tuple[str, ...] = ()
    """And some reads, each of a level."""


class Change(NamedTuple):
    """Somebody wants other members, or another leader."""

    at: Millis
    group: GroupId
    seed: int


@attrs.frozen(kw_only=True)
class Schedule:
    """Everything that a simulation does, before it does it."""

    seed: int
    voters: int = 3
    learners: int = 0
    spares: int = 0
    """Nodes that belong to no group at first."""
    groups: int = 1
    timing: Timing = attrs.field(factory=Timing)
    config: GroupConfig = attrs.field(factory=GroupConfig)
    clock_rates: tuple[int, ...] = ()
    """Per thousand, by node; missing ones are 1000."""
    weather: Weather = CALM
    """While faults last."""
    sync_ms: tuple[Millis, Millis] = (1, 3)
    duration: Millis = 20_000
    """Faults and load end here."""
    faults: tuple[Fault, ...] = ()
    loads: tuple[Load, ...] = ()
    changes: tuple[Change, ...] = ()
    changes_voters: bool = False
    """Voters come and go too; or else learners only."""
    transfers: tuple[Change, ...] = ()
    session_chance: int = 0
    """Per thousand: that a command is one of a session."""
    has_durable_machine: bool = False
    """Machines store their state by themselves."""
    snapshot_chance: int = 0
    """Per thousand: that a snapshot is taken after something was applied, due or not."""
    snapshot_ms: tuple[Millis, Millis] = (1, 20)
    """Range of the time that writing a snapshot takes."""
    read_ms: tuple[Millis, Millis] = (0, 2)
    """Range of the time until the disk reads what it was asked for, and again until that is handed over."""
    trim_chance: int = 0
    """Per thousand turns: that the node's memory for logs is full."""
    left_dead: tuple[NodeId, ...] = ()
    """Nodes that stay down in the liveness phase: a minority of the voters."""
    left_full: tuple[NodeId, ...] = ()
    """Nodes whose disks are full until a leader has taken a command: a minority of the voters."""
    completions_first: bool = False
    """A turn looks at completions before messages, as the real inbox does; otherwise in the order of arrival."""
    has_former_lives: bool = False
    """Nodes are in a later life as members, and messages of earlier ones come in."""

    @classmethod
    def calm(cls, seed: int, **changes: object) -> Schedule:
        """Make a schedule in which nothing happens by itself."""
        return cls(seed=seed, **changes)  # type: ignore[arg-type]  # the fields above, by name

    @classmethod
    def draw(cls, seed: int, *, operations: int = 210, faults: int = 10, duration: Millis = 20_000) -> Schedule:
        """Draw a schedule from a seed.

        Args:
            operations: the least number of client operations.
            faults: the least number of faults.
            duration: for how long both go on, in simulated milliseconds.
        """
        draw = random.Random(seed)
        voters = draw.choice(VOTERS)
        learners = draw.choice(LEARNERS)
        groups = 2 if voters <= 3 and draw.random() < 0.2 else 1
        heartbeat = draw.choice((100, 200, 200))
        has_former_lives = draw.random() < 0.3
        # NB: a former life has a replica number that the log of the present one has yet to reach: members that come would be older.
        is_changing = not has_former_lives and voters <= 5 and draw.random() < 0.7
        changes_voters = is_changing and draw.random() < 0.7
        has_durable_machine = draw.random() < 0.4
        spares = draw.choice((1, 1, 2)) if is_changing else 0
        config = _draw_limits(draw)
        # Who may be missed depends on who votes in the end.
        left_dead = () if changes_voters else _draw_dead(draw, voters)
        return cls(
            seed=seed,
            voters=voters,
            learners=learners,
            spares=spares,
            groups=groups,
            timing=Timing(heartbeat_interval=heartbeat, election_timeout=draw.choice((1000, 1000, 1500))),
            config=config,
            clock_rates=tuple(draw.randint(990, 1010) for _ in range(voters + learners + spares)),
            weather=_draw_weather(draw),
            sync_ms=draw.choice(((1, 3), (1, 10), (2, 40))),
            duration=duration,
            faults=_draw_faults(draw, faults + draw.randint(0, 6), duration),
            loads=_draw_loads(draw, operations, groups, duration, LEVELS if config.lease_reads else LEVELS[:2]),
            changes=_draw_changes(draw, draw.randint(4, 20), groups, duration) if is_changing else (),
            changes_voters=changes_voters,
            left_dead=left_dead,
            transfers=_draw_changes(draw, draw.randint(0, 4), groups, duration),
            has_durable_machine=has_durable_machine,
            # What such a machine has stored by itself has no sessions in it.
            session_chance=0 if has_durable_machine else draw.choice((0, 300, 700)),
            snapshot_chance=draw.choice((0, 10, 50)),
            snapshot_ms=draw.choice(((1, 20), (1, 20), (20, 800))),
            read_ms=draw.choice(((0, 2), (0, 30), (1, 300))),
            trim_chance=draw.choice((0, 0, 20)),
            completions_first=draw.random() < 0.5,
            has_former_lives=has_former_lives,
            left_full=() if changes_voters or left_dead else _draw_dead(draw, voters),
        )


def _draw_limits(draw: random.Random) -> GroupConfig:
    """Half of all schedules have limits so narrow that windows fill up, appends split and proposals meet a full log.

    Most cut their logs all the time, and keep little of them in memory.
    """
    config = GroupConfig(
        snapshot_entries=draw.choice((4, 10, 25, 60)),
        keep_entries=draw.choice((0, 0, 2, 10)),
        stream_hold_entries=draw.choice((0, 5, 30, 1_000_000)),
        log_memory_bytes_max=draw.choice((1, 1, 1500, 8 << 20)),
        promotion_lag_max=draw.choice((0, 3, 50, 4096)),
        lease_reads=draw.random() < 0.4,
        # More than the clocks below run apart.
        lease_drift_percent=draw.choice((3, 10)),
        sessions_max=draw.choice((1, 2, 4096)),
    )
    if draw.random() < 0.5:
        return config
    return attrs.evolve(
        config,
        append_bytes_max=draw.choice((1, 64, 400)),
        window_messages=draw.choice((1, 2, 8)),
        window_bytes=draw.choice((1, 200, 4000)),
        uncommitted_bytes_max=draw.choice((300, 2000, 1 << 20)),
        apply_bytes_max=draw.choice((1, 100, 1 << 20)),
    )


def _draw_weather(draw: random.Random) -> Weather:
    if draw.random() < 0.4:
        return CALM
    return Weather(
        delay=draw.choice(((1, 5), (1, 30), (5, 80))),
        loss=draw.choice((0, 5, 30, 100)),
        duplicate=draw.choice((0, 10, 100)),
        straggle=draw.choice((0, 10, 30)),
    )


def _draw_faults(draw: random.Random, count: int, duration: Millis) -> tuple[Fault, ...]:
    kinds, weights = list(FAULT_WEIGHTS), list(FAULT_WEIGHTS.values())
    faults = [
        Fault(
            at=draw.randint(duration // 40, duration - duration // 40),
            kind=kind,
            lasts=draw.choice((draw.randint(1, 300), draw.randint(300, 2500), draw.randint(1000, 5000))),
            seed=draw.getrandbits(32),
        )
        for kind in draw.choices(kinds, weights, k=count)
    ]
    return tuple(sorted(faults))


def _draw_loads(draw: random.Random, operations: int, groups: int, duration: Millis, levels: Sequence[str]) -> tuple[Load, ...]:
    """Bursts of one to ten commands, and of some reads, at random points in time."""
    loads: list[Load] = []
    size_max = draw.choice((12, 60, 300))
    while operations > 0:
        burst = min(operations, draw.choice((1, 1, 2, 4, 10)))
        sizes = tuple(draw.randint(8, size_max) for _ in range(burst))
        reads = tuple(draw.choices(levels, k=draw.choice((0, 1, 1, 2, 4))))
        loads.append(Load(draw.randint(500, duration - 100), draw.randrange(groups), sizes, reads))
        operations -= burst
    return tuple(sorted(loads))


def _draw_changes(draw: random.Random, count: int, groups: int, duration: Millis) -> tuple[Change, ...]:
    changes = [Change(draw.randint(1000, duration - 500), draw.randrange(groups), draw.getrandbits(32)) for _ in range(count)]
    return tuple(sorted(changes))


def _draw_dead(draw: random.Random, voters: int) -> tuple[NodeId, ...]:
    most = (voters - 1) // 2
    if not most or draw.random() < 0.7:
        return ()
    return tuple(sorted(draw.sample(range(1, voters + 1), draw.randint(1, most))))
