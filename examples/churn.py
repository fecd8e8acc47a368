"""The operator of a launched cluster, who never rests: while clients write and nodes are killed, members come and go, leaders change,
snapshots are forced, and whole groups are begun and removed.

Each act is tried once. One that fails, because its node was killed or its group was busy, is forgotten: the next look at the group shows
what there is to do. But a refusal must be one that the library documents, no act may take for ever, and each kind of act must succeed
some time.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import trio
from churn_acts import ChurnActs
from cluster_nodes import ClusterNodes
from operator_client import GroupLook, NoOutcomeError, OperatorClient, RefusedError
from scratch_groups import KINDS, SCRATCH_GROUPS, ScratchGroups, StuckError

PACE_SECONDS = 0.4
"""Between two acts on the groups under load."""
ACT_SECONDS_MAX = 25.0
"""A node that shall vote is waited for while it is silent, for ten election timeouts; an act that takes longer than this is stuck."""
DOCUMENTED_KINDS = frozenset(
    {
        *("change_pending", "joint_in_progress", "learner_behind", "learner_silent", "stale_expect", "term_not_begun"),  # changes
        *("leads", "no_voter", "pending", "silent", "timeout"),  # transfers
        *("busy", "dropped", "group-exists", "group-stopped", "no-such-group", "not-leader"),  # all requests (`http_answers`)
    }
)
"""Refusals that an operator meets who asks for nothing impossible."""


class Churn:
    """Acts on groups 1 to `groups`, a few at a time but one on each, and on some groups of its own."""

    def __init__(self, nodes: ClusterNodes, groups: int, seed: int, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._rng = random.Random(f"{seed}/churn")
        self._client = OperatorClient(nodes)
        self._acts = ChurnActs(self._client, self._rng)
        self._idle = set(range(1, groups + 1))
        self.done: Counter[str] = Counter(dict.fromkeys((*self._acts.all, *KINDS), 0))
        self.refused: Counter[str] = Counter()
        self.unknown = 0
        self._longest = 0.0
        self._problems: list[str] = []
        self._scratch = [
            ScratchGroups(nodes, self._client, groups + number, random.Random(f"{seed}/{number}"), self.done)
            for number in range(1, SCRATCH_GROUPS + 1)
        ]
        self._over = trio.Event()

    async def run(self) -> None:
        """Act until `stop`; returns when all that was begun has ended."""
        async with trio.open_nursery() as nursery:
            for scratch in self._scratch:
                nursery.start_soon(self._repeat, scratch)
            while not self._over.is_set():
                if self._idle:
                    nursery.start_soon(self._act_on, self._rng.choice(sorted(self._idle)))
                with trio.move_on_after(PACE_SECONDS):
                    await self._over.wait()

    def stop(self) -> None:
        """Begin nothing more."""
        self._over.set()

    async def _repeat(self, scratch: ScratchGroups) -> None:
        try:
            while not self._over.is_set():
                await scratch.live()
        except StuckError as error:
            self._problems.append(str(error))

    async def _act_on(self, group_id: int) -> None:
        """One act on one group, on which there is no other meanwhile."""
        self._idle.remove(group_id)
        try:
            look = await self._client.look(group_id)
            if look is not None:
                await self._carry_out(self._choose(group_id, look), group_id, look)
        finally:
            self._idle.add(group_id)

    def _choose(self, group_id: int, look: GroupLook) -> str:
        """What has been done least often, so that each kind has its turn."""
        return min(self._acts.possible(group_id, look), key=lambda kind: (self.done[kind], self._rng.random()))

    async def _carry_out(self, kind: str, group_id: int, look: GroupLook) -> None:
        start = trio.current_time()
        try:
            text = await self._acts.all[kind](group_id, look)
        except RefusedError as error:
            text = f"{kind} was refused: {error.kind}"
            self.refused[error.kind] += 1
            if error.kind not in DOCUMENTED_KINDS:
                self._problems.append(f"group {group_id}: {kind} was refused: {error}")
        except NoOutcomeError as error:
            text = f"{kind} has no outcome: {error}"
            self.unknown += 1
        else:
            self.done[kind] += 1
        seconds = trio.current_time() - start
        self._longest = max(self._longest, seconds)
        if seconds > ACT_SECONDS_MAX:
            self._problems.append(f"group {group_id}: {kind} took {seconds:.1f} s: {text}")
        self._tell(f"group {group_id}: {text} ({seconds:.1f} s)")

    def problems(self) -> list[str]:
        """What is wrong with what was seen; never succeeding counts, so a run must last long enough for all kinds."""
        never = [kind for kind, count in self.done.items() if not count]
        problems = [*self._problems, *(text for scratch in self._scratch for text in scratch.problems)]
        return [*problems, f"these acts of churn never succeeded: {', '.join(never)}"] if never else problems

    def result(self) -> dict[str, Any]:
        """Counts, for the report."""
        return {
            "done": dict(self.done),
            "refused": dict(sorted(self.refused.items())),
            "unknown": self.unknown,
            "longest_act_seconds": round(self._longest, 3),
        }
