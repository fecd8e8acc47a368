from __future__ import annotations

import subprocess
import sys
from typing import Any

import lock
import pytest
import trio
import trio.testing
from lock import Lock, LockHeld, LockLost, Printer, StaleToken

from tests.examples.three_nodes import three_nodes, until_done


class Steps:
    """The lock on three nodes, each step on another one."""

    def __init__(self, locks: list[Lock]) -> None:
        self._locks = locks
        self._turn = 0

    async def __call__(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self._turn += 1
        return await until_done(lambda: getattr(self._locks[self._turn % 3], method)(*args, **kwargs))


async def start(managers: list[Any]) -> Steps:
    locks = [Lock() for _ in managers]
    for manager, each in zip(managers, locks, strict=True):
        await manager.add_group(1, each, members={1, 2, 3})
    return Steps(locks)


@pytest.mark.processes
def test_the_program_says_what_happens(tmp_path: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", lock.__file__], cwd=tmp_path, capture_output=True, text=True, timeout=45, check=False
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.splitlines() == ["Bob: held by Ada", "Bob prints", "Ada: too late"]


async def test_CL_10_whoever_was_stopped_while_the_lock_expired_is_fenced_off(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as managers:
        lock, printer = await start(managers), Printer()
        ada = await lock("acquire", "Ada", 100.0, ttl=10.0)
        printer.write(ada, "in time")
        # Ada's process is stopped here. Her lock runs out on the clock of whoever asks next.
        with pytest.raises(LockHeld) as held:
            await lock("acquire", "Bob", 109.0, ttl=10.0)
        assert held.value.owner == "Ada"
        bob = await lock("acquire", "Bob", 110.0, ttl=10.0)
        printer.write(bob, "Bob has it")
        # Ada goes on, and does not know.
        with pytest.raises(StaleToken):
            printer.write(ada, "too late")
        with pytest.raises(LockLost):
            await lock("renew", ada, 111.0, ttl=10.0)
        assert await lock("release", ada) is False
        assert await lock("holder") == ("Bob", bob)


async def test_CL_10_tokens_only_ever_rise(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as managers:
        lock = await start(managers)
        tokens = []
        for turn in range(6):
            tokens.append(await lock("acquire", "Ada", 100.0 - turn, ttl=10.0))  # a clock that goes backwards
            if turn % 2:
                assert await lock("release", tokens[-1]) is True
                assert await lock("release", tokens[-1]) is False
        assert tokens == sorted(set(tokens))
        with pytest.raises(LockLost):
            await lock("renew", tokens[0], 100.0, ttl=1.0)


async def test_a_lock_that_is_renewed_does_not_expire(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as managers:
        lock = await start(managers)
        token = await lock("acquire", "Ada", 100.0, ttl=10.0)
        await lock("renew", token, 109.0, ttl=10.0)
        with pytest.raises(LockHeld):
            await lock("acquire", "Bob", 118.0, ttl=10.0)
        with pytest.raises(LockLost):
            await lock("renew", token, 119.0, ttl=10.0)
        assert await lock("holder") is None
