"""What holds for every test: a limit in real time, no child process left behind, and a seed that is printed when a test fails.

The limit is kept by the alarm signal, not by the test's clock: a simulation may let a thousand seconds pass on a mock clock within
one real second, and a test that hangs on a mock clock waits for ever. At the limit a Trio test is cancelled, so that its clean-up runs
and its processes end; a test that does not react to that, or that is not asynchronous, gets an exception wherever it stands.
"""

from __future__ import annotations

import faulthandler
import functools
import inspect
import os
import random
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, settings

TIME_LIMIT = 120.0
"""Seconds of real time that a test may take, unless marked ``@pytest.mark.time_limit(seconds)``."""

CLEANUP_LIMIT = 10.0
"""Seconds that a cancelled test has for its clean-up."""

# Examples are counted, not timed: a busy machine must not turn into a failure. A failing example is printed so that it can be replayed.
settings.register_profile("trioraft", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("trioraft")


class TestTookTooLongError(Exception):
    """The limit in real time has passed."""

    __test__ = False


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="the seed that the `seed` fixture gives, to replay a failure")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"time_limit(seconds): real time that the test may take; {TIME_LIMIT:g} without this mark")


class Alarm:
    """Counts down real time for one test."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.cancel_test: Callable[[], None] | None = None
        self.fired = False

    def ring(self, _number: int, _frame: FrameType | None) -> None:
        first, self.fired = not self.fired, True
        if first:
            sys.stderr.write(f"\nthe test took more than {self.limit:g} s; the stacks:\n")
            faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
        if first and self.cancel_test is not None:
            signal.setitimer(signal.ITIMER_REAL, CLEANUP_LIMIT)
            self.cancel_test()
        else:
            raise TestTookTooLongError(f"took more than {self.limit:g} s")

    def guard(self, function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        """Wrap an asynchronous test, so that the alarm can cancel it from the signal handler."""

        @functools.wraps(function)
        async def guarded(*args: Any, **kwargs: Any) -> None:
            token = trio.lowlevel.current_trio_token()
            where: BaseException | None = None
            with trio.CancelScope() as scope:
                # Of all of Trio only `run_sync_soon` may be called from a signal handler.
                self.cancel_test = functools.partial(token.run_sync_soon, scope.cancel)
                try:
                    await function(*args, **kwargs)
                except BaseException as error:
                    where = error  # its traceback tells what the test was waiting for
                    raise
                finally:
                    self.cancel_test = None
            if self.fired:
                raise TestTookTooLongError(f"took more than {self.limit:g} s") from where

        return guarded


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Set the alarm around the body of each test."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        return (yield)
    mark = item.get_closest_marker("time_limit")
    alarm = Alarm(mark.args[0] if mark else TIME_LIMIT)
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj) and not hasattr(item.obj, "is_hypothesis_test"):
        item.obj = alarm.guard(item.obj)
    before = signal.signal(signal.SIGALRM, alarm.ring)
    signal.setitimer(signal.ITIMER_REAL, alarm.limit)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def child_processes() -> set[int]:
    """The processes that this one has started and not waited for."""
    listing = Path(f"/proc/self/task/{os.getpid()}/children")
    return {int(pid) for pid in listing.read_text().split()} if listing.exists() else set()


@pytest.fixture(autouse=True)
def _no_process_left_behind() -> Iterator[None]:
    before = child_processes()
    yield
    left = child_processes() - before
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert not left, f"the test left processes behind: {sorted(left)}"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A new seed for each run; shown when the test fails, and given again by ``--seed``."""
    chosen: int | None = request.config.getoption("--seed")
    if chosen is None:
        chosen = random.SystemRandom().randrange(1 << 32)
    request.node.add_report_section("call", "seed", f"to replay: --seed {chosen}")
    return chosen
