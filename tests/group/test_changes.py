"""Changes of a role as streams, and those who wait for a leader."""

from __future__ import annotations

import gc

import pytest
import trio
import trio.testing

from trioraft import GroupStoppedError, LeaderChange, Role
from trioraft.core import RoleChange
from trioraft.group._changes import KEPT_MAX
from trioraft.group._leadership import Leadership

START = RoleChange(Role.FOLLOWER, 3, None)


def leadership() -> Leadership:
    return Leadership(START, lambda: GroupStoppedError(7))


def test_a_reader_begins_with_how_things_are() -> None:
    known = leadership()
    assert known.changes()._kept[0] == LeaderChange(0, Role.FOLLOWER, 3, None)
    known.changed(RoleChange(Role.LEADER, 4, 1))
    assert list(known.changes()._kept) == [LeaderChange(1, Role.LEADER, 4, 1)]


async def test_each_reader_gets_every_change_and_the_end() -> None:
    known, seen = leadership(), list[list[int]]()

    async def read() -> None:
        seen.append([change.number async for change in known.changes()])

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            known.changed(RoleChange(Role.FOLLOWER, 4, 2))
            known.changed(RoleChange(Role.FOLLOWER, 5, None))
            await trio.testing.wait_all_tasks_blocked()
            known.changed(RoleChange(Role.LEADER, 6, 1))
            known.stop()
        assert seen == [[0, 1, 2, 3]] * 2
        assert [change.number async for change in known.changes()] == [3], "whoever comes later gets the end as well"


async def test_a_slow_reader_sees_by_the_numbers_what_it_missed() -> None:
    known = leadership()
    slow = known.changes()
    for term in range(KEPT_MAX + 10):
        known.changed(RoleChange(Role.FOLLOWER, 4 + term, None))
    known.stop()
    with trio.fail_after(5):
        assert [change.number async for change in slow] == list(range(11, KEPT_MAX + 11))


async def test_a_cancelled_reader_skips_nothing_and_one_that_is_gone_is_forgotten() -> None:
    known = leadership()
    changes = known.changes()
    with trio.fail_after(5):
        await anext(changes)
        with trio.move_on_after(0):
            await anext(changes)
        known.changed(RoleChange(Role.FOLLOWER, 4, 2))
        assert (await anext(changes)).number == 1
    del changes
    gc.collect()
    assert len(known._readers) == 0


async def test_waiting_for_a_leader_for_another_one_and_for_none_any_more() -> None:
    known = leadership()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            seen: list[int] = []

            async def wait(other_than: int | None) -> None:
                seen.append(await known.wait(other_than=other_than))

            nursery.start_soon(wait, None)
            nursery.start_soon(wait, 2)
            await trio.testing.wait_all_tasks_blocked()
            known.changed(RoleChange(Role.FOLLOWER, 4, 2))
            await trio.testing.wait_all_tasks_blocked()
            assert seen == [2]
            known.changed(RoleChange(Role.FOLLOWER, 5, None))
            known.changed(RoleChange(Role.FOLLOWER, 5, 3))
        assert seen == [2, 3]
        known.stop()
        assert known.leader is None
        with pytest.raises(GroupStoppedError):
            await known.wait()
