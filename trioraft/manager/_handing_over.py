"""Leadership of many groups handed over at once: when a node stops, and to spread leaders over nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import trio

from .._errors import RaftError
from .._types import GroupId, NodeId
from ..group import RaftGroup, Waiter
from ..wire import RequestKind, encode_value

_AT_ONCE: Final = 256


async def hand_over(moves: Mapping[RaftGroup, NodeId | None]) -> list[GroupId]:
    """Have each group led by the node named, or by any; return those that this node leads no longer. Bounded by an election timeout
    for each few hundred of them.

    *Cancellation:* what has begun may go on.
    """
    done, items = list[GroupId](), list(moves.items())
    for start in range(0, len(items), _AT_ONCE):
        waiters = list[tuple[RaftGroup, Waiter]]()
        for group, target in items[start : start + _AT_ONCE]:
            waiter = Waiter()
            # NB: no further: where another node leads by now, its leadership is not ours to hand over.
            group.hand_over(RequestKind.TRANSFER, encode_value(target), waiter, forwarded=True)
            waiters.append((group, waiter))
        for group, waiter in waiters:
            try:
                await waiter.wait()
            except RaftError:
                continue  # it goes on to lead: nothing is lost
            done.append(group.id)
    return done


async def leave_to_others(groups: Iterable[RaftGroup], patience: float) -> None:
    """The node stops: let others lead what it leads, if they are there. Shielded, for `patience` seconds at most."""
    with trio.move_on_after(patience, shield=True):
        await hand_over({group: None for group in groups if group.is_leader and len(group.status().voters) > 1})


def plan_balance(
    led: Mapping[GroupId, Sequence[NodeId]],
    leaders: Mapping[NodeId, int],
    me: NodeId,
    prefer: Mapping[GroupId, Sequence[NodeId]],
) -> dict[GroupId, NodeId]:
    """Tell which groups should be led elsewhere, and where.

    A group goes to the first node that its preference names and that could lead. Without a preference, groups move from here to whoever
    leads least, until the difference is at most one.

    Args:
        led: the groups that this node leads, and who else could lead each.
        leaders: how many groups each node leads, as far as is known here.
        prefer: nodes by group, the best first; groups may be missing.
    """
    counts, moves = dict(leaders), dict[GroupId, NodeId]()
    for group_id in sorted(led):
        others, wanted = led[group_id], list(prefer.get(group_id, ()))
        better = [node_id for node_id in wanted[: wanted.index(me) if me in wanted else None] if node_id in others]
        if better:
            target = better[0]
        elif me in wanted or not others:
            continue
        else:
            target = min(others, key=lambda node_id: (counts.get(node_id, 0), node_id))
            if counts.get(me, 0) - counts.get(target, 0) < 2:
                continue
        moves[group_id] = target
        counts[me] = counts.get(me, 0) - 1
        counts[target] = counts.get(target, 0) + 1
    return moves
