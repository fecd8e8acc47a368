"""The single acts of an operator on one group, each a request or a few, and which of them a group allows now.

Rules: a group keeps at least `VOTERS_MIN` voters, so that one node may be down at any time; each change of members says which
configuration it goes by (`expect`), so that nothing that was asked for earlier and came late can undo it; and a replica is removed for
good only right after the change that took it out of the group was said to be committed.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Awaitable, Callable, Collection, Iterable

import trio
from operator_client import GroupLook, OperatorClient, RefusedError

VOTERS_MIN = 3
TOLD_SECONDS = 5.0
"""How long to wait until a replica has heard that it is removed; it is removed for good all the same."""
_LOOK_SECONDS = 0.2
_NAMED_SHARE = 0.7
"""Transfers that name who shall lead."""

Act = Callable[[int, GroupLook], Awaitable[str]]
"""Carries itself out on a group, and tells what was done."""
Candidates = Callable[[int, GroupLook], frozenset[int]]
"""The nodes that an act could take in."""


class ChurnActs:
    """All acts on groups under load."""

    def __init__(self, client: OperatorClient, rng: random.Random) -> None:
        self._client, self._rng = client, rng
        self._deleted: set[tuple[int, int]] = set()
        """(group, node) whose replica was removed for good, or may have been."""
        self.all: dict[str, Act] = {
            "add": functools.partial(self._add, self._fresh),
            "add_again_over_leftovers": functools.partial(self._add, self._leftover),
            "add_again_after_removal": functools.partial(self._add, self._gone),
            "promote": self._promote,
            "demote": self._demote,
            "replace": self._replace,
            "remove_and_leave": self._remove,
            "remove_for_good": self._remove_for_good,
            "transfer": self._transfer,
            "snapshot": self._snapshot,
        }

    def possible(self, group_id: int, look: GroupLook) -> list[str]:
        """What can be done to a group as it is now."""
        wanted = {
            "add": self._fresh(group_id, look),
            "add_again_over_leftovers": self._leftover(group_id, look),
            "add_again_after_removal": self._gone(group_id, look),
            "promote": look.learners & look.up,
            "demote": look.voters if len(look.voters) > VOTERS_MIN else (),
            "replace": look.outside,
            "remove_and_leave": _removable(look),
            "remove_for_good": _removable(look) & look.up,
            "transfer": look.voters,
            "snapshot": look.filled,
        }
        return [kind for kind, nodes in wanted.items() if nodes]

    # --- who comes ----------------------------------------------------------------------------------------------------------------------

    def _fresh(self, group_id: int, look: GroupLook) -> frozenset[int]:
        """Nodes that never had a replica, as far as anybody knows."""
        return frozenset(node_id for node_id in look.outside - look.having if (group_id, node_id) not in self._deleted)

    def _leftover(self, _group_id: int, look: GroupLook) -> frozenset[int]:
        """Nodes with a replica that is no member: they were removed, and kept what they had."""
        return look.outside & look.having

    def _gone(self, group_id: int, look: GroupLook) -> frozenset[int]:
        """Nodes whose replica was removed for good."""
        return frozenset(node_id for node_id in look.outside - look.having if (group_id, node_id) in self._deleted)

    async def _add(self, candidates: Candidates, group_id: int, look: GroupLook) -> str:
        """A new member begins as a learner: it costs the group nothing while it catches up."""
        node_id = self._one_of(candidates(group_id, look))
        await self._join(group_id, look, node_id)
        await self._change(group_id, look, look.voters, look.learners | {node_id})
        return f"node {node_id} learns"

    async def _join(self, group_id: int, look: GroupLook, node_id: int) -> None:
        """See to it that a node has a replica before anybody counts on it. One that was left over comes back by itself."""
        if node_id not in look.having:
            await self._client.ask(node_id, "PUT", f"/groups/{group_id}", {"join": True, "incarnation": look.incarnation})

    async def _promote(self, group_id: int, look: GroupLook) -> str:
        node_id = self._one_of(look.learners & look.up)
        await self._change(group_id, look, look.voters | {node_id}, look.learners - {node_id})
        return f"node {node_id} votes"

    async def _replace(self, group_id: int, look: GroupLook) -> str:
        """In one call, from nothing to a vote: the library takes the steps."""
        old, new = self._one_of(look.voters), self._one_of(look.outside)
        await self._join(group_id, look, new)
        await self._change(group_id, look, look.voters - {old} | {new}, look.learners)
        return f"node {new} votes in the place of node {old}"

    # --- who goes -----------------------------------------------------------------------------------------------------------------------

    async def _demote(self, group_id: int, look: GroupLook) -> str:
        node_id = self._one_of(look.voters)
        await self._change(group_id, look, look.voters - {node_id}, look.learners | {node_id})
        return f"node {node_id} votes no more"

    async def _remove(self, group_id: int, look: GroupLook) -> str:
        node_id = self._one_of(_removable(look))
        await self._take_out(group_id, look, node_id)
        return f"node {node_id} is out, and keeps what it has"

    async def _remove_for_good(self, group_id: int, look: GroupLook) -> str:
        node_id = self._one_of(_removable(look) & look.up)
        await self._take_out(group_id, look, node_id)
        self._deleted.add((group_id, node_id))
        path = f"/groups/{group_id}"
        deadline = trio.current_time() + TOLD_SECONDS
        # NB: no request is cancelled here: one that is carried out late could meet the next replica.
        while not await self._is_let_go(node_id, path):
            if trio.current_time() > deadline:
                await self._client.ask(node_id, "DELETE", f"{path}?force=1")
                return f"node {node_id} is out, with all that it had, though nobody had told it so"
            await trio.sleep(_LOOK_SECONDS)
        return f"node {node_id} is out, with all that it had"

    async def _is_let_go(self, node_id: int, path: str) -> bool:
        """Have a replica removed, unless it believes that it votes: it hears otherwise when it asks for votes."""
        try:
            await self._client.ask(node_id, "DELETE", path)
        except RefusedError as error:
            if error.kind != "group-exists":
                raise
            return False
        return True

    async def _take_out(self, group_id: int, look: GroupLook, node_id: int) -> None:
        await self._change(group_id, look, look.voters - {node_id}, look.learners - {node_id})

    # --- the rest -----------------------------------------------------------------------------------------------------------------------

    async def _transfer(self, group_id: int, look: GroupLook) -> str:
        others = look.voters & look.up - {look.leader}
        target = self._one_of(others) if others and self._rng.random() < _NAMED_SHARE else None
        answer = await self._client.ask(look.leader, "PUT", f"/groups/{group_id}/leader", {"target": target})
        return f"node {answer.json()['leader']} leads after node {look.leader}"

    async def _snapshot(self, group_id: int, look: GroupLook) -> str:
        node_id = self._one_of(look.filled)
        answer = await self._client.ask(node_id, "POST", f"/groups/{group_id}/snapshot")
        return f"node {node_id} took a snapshot of entry {answer.json()['index']}"

    async def _change(self, group_id: int, look: GroupLook, voters: Collection[int], learners: Collection[int]) -> None:
        """Ask any member: the leader does it."""
        node_id = self._one_of(look.askable)
        target = {"voters": sorted(voters), "learners": sorted(learners), "expect": look.configuration}
        await self._client.ask(node_id, "PUT", f"/groups/{group_id}/members", target)

    def _one_of(self, nodes: Iterable[int]) -> int:
        return self._rng.choice(sorted(nodes))


def _removable(look: GroupLook) -> frozenset[int]:
    return look.learners | (look.voters if len(look.voters) > VOTERS_MIN else frozenset())
