"""Clients learn where leaders are, and that a node stands still."""

from __future__ import annotations

import random

import pytest
import trio
from routes import Routes
from trio.testing import MockClock

RNG = random.Random(1)


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


def chosen(routes: Routes, group_id: int = 1) -> list[int]:
    rng = random.Random(1)
    found = [routes.choose(group_id, rng) for _ in range(1000)]
    return [route.node_id for route in found if route is not None]


async def test_requests_go_to_the_leader_mostly() -> None:
    routes = Routes([1, 2, 3])
    assert set(chosen(routes)) == {1, 2, 3}
    route = routes.choose(1, RNG)
    assert route is not None
    routes.answered(route, 1, b"2")
    to = chosen(routes)
    assert to.count(2) > 900
    assert set(to) == {1, 2, 3}


@pytest.mark.parametrize("leader", [b"", b"9", b"x", b"-1"])
async def test_a_leader_that_is_none_is_forgotten(leader: bytes) -> None:
    routes = Routes([1, 2])
    route = routes.choose(1, RNG)
    assert route is not None
    routes.answered(route, 1, b"2")
    routes.answered(routes._routes[2], 1, leader)
    assert chosen(routes).count(2) < 700


async def test_who_knows_no_leader_says_nothing_about_the_one_that_is_known() -> None:
    routes = Routes([1, 2])
    routes.answered(routes._routes[1], 1, b"2")
    routes.answered(routes._routes[1], 1, b"")
    assert chosen(routes).count(2) > 900


async def test_a_node_without_the_group_is_not_asked_for_it_for_a_while(autojump_clock: MockClock) -> None:
    routes = Routes([1, 2])
    routes.answered(routes._routes[1], 1, b"1")
    routes.absent(routes._routes[1], 1)
    assert set(chosen(routes)) == {2}
    assert set(chosen(routes, group_id=2)) == {1, 2}
    await trio.sleep(2)
    assert set(chosen(routes)) == {1, 2}


async def test_a_node_that_failed_gets_one_request_at_a_time_until_it_answers(autojump_clock: MockClock) -> None:
    routes = Routes([1])
    route = routes.choose(1, RNG)
    assert route is not None
    routes.failed(route)
    assert routes.choose(1, RNG) is None
    await trio.sleep(1)
    assert routes.choose(1, RNG) is route
    route.waiting[trio.CancelScope()] = trio.current_time()
    assert routes.choose(1, RNG) is None
    routes.answered(route, 1, b"1")
    assert routes.choose(1, RNG) is route


async def test_whoever_waits_for_a_silent_node_is_freed(autojump_clock: MockClock) -> None:
    routes = Routes([1, 2])
    silent, busy = routes._routes[1], routes._routes[2]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(routes.watch)
        with trio.move_on_after(10) as patient:
            busy.waiting[patient] = trio.current_time()
            with trio.move_on_after(10) as freed:
                silent.waiting[freed] = trio.current_time()
                for _ in range(100):
                    await trio.sleep(0.1)
                    routes.answered(busy, 1, b"")
        nursery.cancel_scope.cancel()
    assert freed.cancelled_caught
    assert 1.0 <= trio.current_time() - silent.waiting[freed] < 1.5
    assert not patient.cancelled_caught
