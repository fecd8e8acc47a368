"""All checkers together, and who of them wants to hear of what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from .._types import Millis
from ..core import GroupConfig
from ._checker import Checker, World
from ._checkers import (
    AcknowledgedIsDurable,
    ApplyOnce,
    CommitAgreement,
    CommitOwnTerm,
    DurableBeforeTold,
    ElectionSafety,
    LeaderAppendOnly,
    LeaderCompleteness,
    LogMatching,
    StateMachineSafety,
    VotesOnce,
)
from ._client_checkers import ExactlyOnce, LeaseIsBacked, PromisesAreKept, ReadsAreConfirmed
from ._membership_checkers import ConfigurationsFollow, GoesByItsLog, MembersCount, OneChangeAtATime
from ._snapshot_checkers import InstallsForward, LogIsBounded, ReadsWhatItHas, SnapshotSafety

_Hook: TypeAlias = Callable[..., None]


class Checkers:
    """All checkers together; each attribute is the list of those that want to hear of it."""

    def __init__(self, world: World, config: GroupConfig, *, promised: Millis = 1000) -> None:
        """
        Args:
            promised: for how long whoever confirms a leader is bound, by the fastest clock.
        """
        self.agreement = CommitAgreement(world)
        self.elections = ElectionSafety()
        self.all: tuple[Checker, ...] = (
            self.elections,
            LeaderAppendOnly(),
            LogMatching(),
            DurableBeforeTold(self.agreement),
            VotesOnce(),
            self.agreement,
            CommitOwnTerm(),
            LeaderCompleteness(self.agreement),
            StateMachineSafety(),
            ApplyOnce(),
            AcknowledgedIsDurable(world, self.agreement),
            SnapshotSafety(self.agreement),
            InstallsForward(self.agreement),
            ReadsWhatItHas(),
            LogIsBounded(config),
            ConfigurationsFollow(self.agreement),
            OneChangeAtATime(self.agreement),
            MembersCount(),
            GoesByItsLog(),
            ExactlyOnce(),
            ReadsAreConfirmed(),
            *((LeaseIsBacked(world, promised), PromisesAreKept(world, self.elections, promised)) if config.lease_reads else ()),
        )
        self.started = self._hooks("started")
        self.writes = self._hooks("writes")
        self.installs = self._hooks("installs")
        self.compacts = self._hooks("compacts")
        self.synced = self._hooks("synced")
        self.elected = self._hooks("elected")
        self.leads = self._hooks("leads")
        self.sends = self._hooks("sends")
        self.commits = self._hooks("commits")
        self.applies = self._hooks("applies")
        self.takes_effect = self._hooks("takes_effect")
        self.saves = self._hooks("saves")
        self.restores = self._hooks("restores")
        self.reads = self._hooks("reads")
        self.acknowledges = self._hooks("acknowledges")
        self.asks = self._hooks("asks")
        self.tells = self._hooks("tells")
        self.leases = self._hooks("leases")

    def _hooks(self, name: str) -> tuple[_Hook, ...]:
        default: Any = getattr(Checker, name)
        return tuple(getattr(checker, name) for checker in self.all if getattr(type(checker), name) is not default)
