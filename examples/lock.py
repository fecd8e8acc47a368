"""A lock for whoever may hang: it expires, and each holder has a fencing token.

A lock that expires promises nothing by itself: its holder may be stopped for a minute, and go on without knowing that somebody else has
had the lock meanwhile. So each acquisition returns a token, higher than any before, and whatever the lock protects refuses tokens lower
than the highest that it has seen. The token is the place of the acquisition in the log: nothing else is as certain to rise.

What time it is, is decided by the log: each command brings its caller's clock, and the latest that any has brought is the time. A clock
that is ahead ends the locks of others too early. That costs time, and no safety: the token sees to that.
"""

from __future__ import annotations

import time
from typing import ClassVar

import trio

from trioraft import MemoryNetwork, MemoryStorage, MemoryTransport, Replicated, command, open_manager, query


class LockHeld(Exception):
    """Somebody else has the lock, and has not let it expire."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        super().__init__(f"held by {owner}")


class LockLost(Exception):
    """The lock has expired or was released; somebody else may have it."""


class Lock(Replicated):
    """One lock. Times are seconds on the callers' clocks."""

    declared_errors: ClassVar[tuple[type[Exception], ...]] = (LockHeld, LockLost)

    def __init__(self) -> None:
        self.owner: str | None = None
        self.token = 0
        self.expires = 0.0
        self.time = 0.0

    @command
    def acquire(self, owner: str, now: float, ttl: float) -> int:
        """Take the lock for `ttl` seconds and return the token. Whoever has it already gets a new token, and the old one counts no more:
        so repeating this after a lost answer does no harm.

        Raises:
            LockHeld: by another owner.
        """
        self._pass_time(now)
        if self.owner is not None and self.owner != owner:
            raise LockHeld(self.owner)
        self.owner, self.expires = owner, self.time + ttl
        self.token = self.context.index
        return self.token

    @command
    def renew(self, token: int, now: float, ttl: float) -> None:
        """Have the lock for `ttl` seconds from now on.

        Raises:
            LockLost: nothing to renew: acquire it again.
        """
        self._pass_time(now)
        if self.owner is None or self.token != token:
            raise LockLost
        self.expires = self.time + ttl

    @command
    def release(self, token: int) -> bool:
        """Give the lock back; False: it was lost before."""
        was_held = self.owner is not None and self.token == token
        if was_held:
            self.owner = None
        return was_held

    @query
    def holder(self) -> tuple[str, int] | None:
        """Owner and token, if there is an owner that has not been found expired."""
        return None if self.owner is None else (self.owner, self.token)

    def _pass_time(self, now: float) -> None:
        self.time = max(self.time, now)
        if self.time >= self.expires:
            self.owner = None


class StaleToken(Exception):
    """Whoever writes had the lock once."""


class Printer:
    """What the lock protects: anything that can remember one number."""

    def __init__(self) -> None:
        self.newest = 0

    def write(self, token: int, text: str) -> None:
        if token < self.newest:
            raise StaleToken(f"token {token}, and {self.newest} has been here")
        self.newest = token
        print(text)


async def main() -> None:
    transport = MemoryTransport(MemoryNetwork())
    async with open_manager(node_id=1, cluster_id="lock", storage=MemoryStorage(), transport=transport) as manager:
        lock, printer = Lock(), Printer()
        await manager.add_group(1, lock, members={1})
        ada = await lock.acquire("Ada", time.time(), ttl=10)
        try:
            await lock.acquire("Bob", time.time(), ttl=10)
        except LockHeld as error:
            print(f"Bob: {error}")
        bob = await lock.acquire("Bob", time.time() + 10, ttl=10)  # ten seconds later
        printer.write(bob, "Bob prints")
        try:
            printer.write(ada, "Ada prints")  # she was stopped, and does not know how long
        except StaleToken:
            print("Ada: too late")


if __name__ == "__main__":
    trio.run(main)
